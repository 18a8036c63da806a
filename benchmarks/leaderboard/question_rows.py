"""Rows of MMAU, MMAR and MMSU: our results in the columns of the papers, the judge's opinion beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiollm.benchmarks.questions.report import data_version

from .published import Figure
from .result_files import ResultFile
from .rows import LeaderboardRow
from .traces import PredictionFiles, traces_of

SHOWN_HASH = 12  # digits of a hash in tables
# Columns of the papers and the heading of a result's table that they are in.
_HEADINGS = {"mmau": "Task-wise Accuracy", "mmar": "Modality-wise Accuracy"}
# In the order of the papers' columns; these are MMAR's own names, which happen to be sound types of ours.
_MODALITIES = ("speech", "sound", "music")


def question_row(result: ResultFile, judged: Sequence[ResultFile], files: PredictionFiles) -> LeaderboardRow:
    """The row of a result.

    Args:
        result: of the kind "questions".
        judged: what judges said of any predictions.
        files: to find the predictions in.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if the result lacks something inside.
    """
    content = result.content
    opinions = [one for one in judged if _answers(one) == _answers(result)]
    counts = {
        "asked": f"{content['n_items']:,}",
        "counted": f"{content['n_counted']:,}",
        "missing": f"{content['n_missing']:,}",
        "unreadable": f"{content['n_unreadable']:,}",
    }
    return LeaderboardRow(
        model=_model_name(content),
        origin="ours",
        figures=question_figures(content),
        conditions=question_conditions(content),
        facts=counts | {"95 % interval": _interval(content.get("interval"))} | judge_facts(opinions),
        source=result.path.name,
        traces=[*traces_of(result, files), *(trace for one in opinions for trace in traces_of(one, files))],
        note="; ".join(_notes(content)) or None,
    )


def judged_row(result: ResultFile, files: PredictionFiles) -> LeaderboardRow:
    """The row of a judge's opinion on predictions that no result is there of: without an accuracy."""
    content = result.content
    return LeaderboardRow(
        model=_model_name(content),
        origin="ours",
        figures={},
        conditions=question_conditions(content),
        facts={"asked": f"{content['n_items']:,}", "missing": f"{content['n_missing']:,}"} | judge_facts([result]),
        source=result.path.name,
        traces=traces_of(result, files),
        note="judged, not scored",
    )


def baseline_rows(results: Sequence[ResultFile]) -> list[LeaderboardRow]:
    """Who picks the first option, or any: once for each version of the data."""
    rows: dict[tuple[str, str], LeaderboardRow] = {}
    for result in results:
        # With shuffled options or a limit the same data give another baseline.
        conditions = {
            name: value
            for name, value in question_conditions(result.content).items()
            if name in ("data", "options", "limit")
        }
        for name, model in (("first_option", "always the first option"), ("random", "a random option")):
            share = result.content.get("baselines", {}).get(name)
            if share is not None:
                key = (model, str(conditions))
                rows.setdefault(
                    key,
                    LeaderboardRow(
                        model=model,
                        origin="baseline",
                        figures={"all": 100 * share},
                        conditions=conditions,
                        facts={"asked": f"{result.content['n_items']:,}"},
                        source=result.path.name,
                    ),
                )
    return list(rows.values())


def question_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """The columns of the paper, in percent."""
    everything = 100 * float(content["accuracy"])
    if content["benchmark"] == "mmsu":
        table = content["paper_table"]
        return {
            "perception": _percent(table["Perception"]["average"]),
            "reasoning": _percent(table["Reasoning"]["average"]),
            "all": everything,
        }
    table = content["table"][_HEADINGS[content["benchmark"]]]
    parts: dict[str, Figure] = {
        name: float(table[name]["accuracy"]) for name in _MODALITIES if table.get(name, {}).get("n")
    }
    return parts | {"all": everything}


def question_conditions(content: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same for figures of two results to be compared."""
    data, prompt = content.get("data"), content.get("prompt")
    predictions = content["predictions"]["sha256"][:SHOWN_HASH]
    # What is not known of two files of predictions is not the same of both.
    conditions = {
        "data": f"sha256 {data['sha256'][:SHOWN_HASH]}, {data_version(data)}"
        if data
        else f"as in predictions {predictions}, version not known",
        "prompt": f"{prompt['id']}, sha256 {prompt['sha256'][:SHOWN_HASH]}"
        if prompt
        else f"not known, of predictions {predictions}",
    }
    if content.get("mode") is not None:
        conditions["grading"] = str(content["mode"])
    if content.get("shuffle_options") is not None:
        conditions["options"] = f"shuffled with seed {content['shuffle_options']}"
    if content.get("limit") is not None:
        conditions["limit"] = f"the first {content['limit']} questions"
    return conditions


def judge_facts(opinions: Sequence[ResultFile]) -> dict[str, str]:
    """What judges said, in a column of its own."""
    told = []
    for content in (one.content for one in opinions):
        share = content["accuracy_of_evaluated"]
        shown = "–" if share is None else f"{100 * share:.2f} % of {content['n_evaluated']:,}"
        told.append(f"{shown} ({content['judge']['model']}, {content['n_not_evaluated']:,} not evaluated)")
    return {"by a judge": "; ".join(told)}


def _answers(result: ResultFile) -> tuple[str, str]:
    """Which replies to which benchmark a result is about."""
    return result.content["benchmark"], result.content["predictions"]["sha256"]


def _model_name(content: Mapping[str, Any]) -> str:
    model = content.get("model") or {}
    name = model.get("name") or f"predictions {content['predictions']['file']}"
    return f"{name} ({model['revision'][:SHOWN_HASH]})" if model.get("revision") else str(name)


def _notes(content: Mapping[str, Any]) -> list[str]:
    notes = []
    if content.get("n_failed"):
        notes.append(f"{content['n_failed']:,} questions failed")
    if content.get("n_replies_cut"):
        notes.append(f"{content['n_replies_cut']:,} replies were cut at the longest length")
    if content.get("n_recordings_cut"):
        notes.append(f"of {content['n_recordings_cut']:,} recordings only the beginning was heard")
    if content.get("n_repeated_ids"):
        notes.append(f"{content['n_repeated_ids']:,} ids occur more than once")
    if content.get("n_problems"):
        notes.append(f"{content['n_problems']:,} problems noted in the result")
    return notes


def is_of_own_set(content: Mapping[str, Any]) -> bool:
    """Whether the questions are none of the benchmark's, but somebody's own in its layout."""
    data = content.get("data")
    return isinstance(data, Mapping) and bool(data.get("own_set"))


def _interval(interval: Mapping[str, Any] | None) -> str:
    return f"{100 * interval['low']:.2f} to {100 * interval['high']:.2f}" if interval else ""


def _percent(cell: Mapping[str, Any]) -> Figure:
    return 100 * float(cell["accuracy"]) if cell["n"] else None
