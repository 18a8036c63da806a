"""Rows of results that no paper has a table for: stability of codes, probes, predicted SAP records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from audiollm.benchmarks.harness.figures import audio_tokenizer_of

from .published import Figure
from .result_files import ResultFile
from .rows import LeaderboardRow


def other_rows(result: ResultFile) -> list[LeaderboardRow]:
    """The rows of a result of the kinds "stability", "sound classes" and "sap"; the condition ``kind`` is a title."""
    return _MAKERS[result.kind](result)


def _stability(result: ResultFile) -> list[LeaderboardRow]:
    content = result.content
    return [
        _row(
            result,
            "Stability of codes",
            f"{audio_tokenizer_of(content['config'])}: {row['condition']}",
            {"share of codes changed": row["share_changed"], "edit distance": row["unit_edit_distance"]},
            {"data": str(content["config"].get("data"))},
            {"clips": f"{row['num_clips']:,}", "codes": f"{row['num_codes']:,}"},
        )
        for row in content["rows"]
    ]


def _probes(result: ResultFile) -> list[LeaderboardRow]:
    config = result.content["config"]
    return [
        _row(
            result,
            "Probes",
            f"{audio_tokenizer_of(config)}: {name.removeprefix('probes on ')}",
            {probe: value for probe, value in figures.items() if isinstance(value, (int, float))},
            {"data": str(config.get("data"))},
            {},
        )
        for name, figures in result.content.items()
        if name.startswith("probes on ")
    ]


def _sap(result: ResultFile) -> list[LeaderboardRow]:
    content = result.content
    counts = {"records": f"{len(content['items']):,}", "missing": f"{content['missing']:,}"}
    judge = content.get("judge")
    conditions = {"data": str(content["data"].get("references", "")), "judge": judge["model"] if judge else "none"}
    figures = {name: value for name, value in content["scores"].items() if not name.startswith("num_")}
    return [_row(result, "Predicted SAP records", result.path.stem, figures, conditions, counts)]


def _row(
    result: ResultFile,
    kind: str,
    model: str,
    figures: Mapping[str, Figure],
    conditions: Mapping[str, str],
    facts: Mapping[str, str],
) -> LeaderboardRow:
    return LeaderboardRow(
        model=model,
        origin="ours",
        figures=figures,
        conditions={"kind": kind, **conditions},
        facts=facts,
        source=result.path.name,
    )


_MAKERS: Mapping[str, Callable[[ResultFile], list[LeaderboardRow]]] = {
    "stability": _stability,
    "sound classes": _probes,
    "sap": _sap,
}
OTHER_KINDS = tuple(_MAKERS)
