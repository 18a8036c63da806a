"""What two results of one kind are compared by: conditions that must agree, figures, the value of each item."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from audiollm.benchmarks.leaderboard.result_files import Content, ResultFile

Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class MeasuredFigure:
    """A figure and what it is over.

    Attributes:
        value: as in the result: shares between 0 and 1. None if the result has none.
        better: which direction is.
        right: whether each item was right, by id; where the figure is a share of right items.
        values: the value of each item, by id; where the figure is a mean.
        counts: right items and all, where single items are not known.
        is_main: whether it speaks for the whole result.
    """

    value: float | None
    better: Better = "higher"
    right: Mapping[str, bool] | None = None
    values: Mapping[str, float] | None = None
    counts: tuple[int, int] | None = None
    is_main: bool = True


@dataclass(frozen=True)
class ComparableResult:
    """A result, ready for comparison.

    Attributes:
        conditions: what must be equal; the values are shown where they are not.
        figures: by name.
        remarks: what may differ but should be said.
    """

    conditions: Mapping[str, Any]
    figures: Mapping[str, MeasuredFigure]
    remarks: Mapping[str, Any] = field(default_factory=dict)


def comparable(result: ResultFile) -> ComparableResult:
    """Reads a result.

    Raises:
        ValueError: if it lacks something inside.
    """
    try:
        return _READERS[result.kind](result.content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{result.path}: a result of the kind {result.kind!r}, but {type(error).__name__}: {error}"
        ) from error


# --- questions --------------------------------------------------------------------------------------------------------


def _questions(content: Content) -> ComparableResult:
    keys = _item_keys(content["items"])
    right = {key: bool(item["correct"]) for key, item in zip(keys, content["items"], strict=True) if item["counted"]}
    figures = {"accuracy": MeasuredFigure(value=content["accuracy"], right=right)}
    return ComparableResult(
        _question_conditions(content, keys) | {"mode": content["mode"]},
        figures | dict(_groups(content)),
        {"decoding": content.get("decoding")},
    )


def _judged(content: Content) -> ComparableResult:
    keys = _item_keys(content["items"])
    right = {key: item["correct"] for key, item in zip(keys, content["items"], strict=True) if item["evaluated"]}
    judge = content["judge"]
    return ComparableResult(
        _question_conditions(content, keys) | {"judge": judge["model"], "judge's prompt": judge["prompt"]},
        {"accuracy of evaluated": MeasuredFigure(value=content["accuracy_of_evaluated"], right=right)},
    )


def _question_conditions(content: Content, keys: Sequence[str]) -> dict[str, Any]:
    data, prompt = content.get("data"), content.get("prompt")
    return {
        "data": data["sha256"] if data else "not known",
        "items": f"{len(keys)} with ids of sha256 {hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:12]}",
        "prompt": f"{prompt['id']}, sha256 {prompt['sha256']}" if prompt else "not known",
        "shuffled options": content.get("shuffle_options"),
        "limit": content.get("limit"),
    }


def _groups(content: Content) -> Iterable[tuple[str, MeasuredFigure]]:
    """The cells of the tables; which items are in them, results do not say."""
    if content["benchmark"] == "mmsu":
        for category, columns in content["paper_table"].items():
            cells = (
                {category: columns} if "n" in columns else {f"{category}, {name}": columns[name] for name in columns}
            )
            for name, cell in cells.items():
                if category != "overall" and cell["n"]:
                    yield name, _group(cell["accuracy"], cell["n"])
        return
    for title, rows in content["table"].items():
        if title.endswith("Accuracy"):
            for name, cell in rows.items():
                if cell["n"]:
                    yield (
                        f"{title.removesuffix('-wise Accuracy').lower()}, {name}",
                        _group(float(cell["accuracy"]) / 100, cell["n"]),
                    )


def _group(share: float, num_items: int) -> MeasuredFigure:
    return MeasuredFigure(value=share, counts=(round(share * num_items), num_items), is_main=False)


def _item_keys(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids; with the place where there is none, or an id occurs more than once."""
    seen: set[str] = set()
    keys = []
    for item in items:
        key = str(item["id"]) if item.get("id") is not None else f"item {item['index']}"
        if key in seen:
            key = f"{key}, item {item['index']}"
        seen.add(key)
        keys.append(key)
    return keys


# --- speech -----------------------------------------------------------------------------------------------------------


def _seed_tts(content: Content) -> ComparableResult:
    summary, judges, runs = content["summary"], content["judges"], content["runs"]
    conditions = {
        "data": content["meta"]["sha256"],
        "language": content["language"],
        "limit": content.get("limit"),
        **{name: judges.get(name) for name in ("asr", "asr_decoding", "speaker_encoder", "mos_predictor", "mono")},
    }
    figures = {
        "wer": MeasuredFigure(
            value=summary["wer"]["mean"],
            better="lower",
            values=_means(runs, "items", "wer"),
        ),
        "wer, missing as wrong": MeasuredFigure(value=summary["wer_missing_as_wrong"]["mean"], better="lower"),
        "similarity": MeasuredFigure(
            value=summary["similarity"]["mean"], values=_means(runs, "verdicts", "similarity")
        ),
        "predicted MOS": MeasuredFigure(value=summary["mos"]["mean"], values=_means(runs, "verdicts", "mos")),
    }
    return ComparableResult(conditions, figures, {"seeds": [run["seed"] for run in runs]})


def _seed_tts_wer(content: Content) -> ComparableResult:
    rates = _means([content], "items", "wer")
    # The published averaging step leaves some utterances out; paired by item is the mean of all.
    figures = {
        "wer": MeasuredFigure(value=content["wer_of_all"], better="lower", values=rates),
        "wer, published": MeasuredFigure(value=content["wer"], better="lower"),
    }
    return ComparableResult({"language": content["language"], "rule": content.get("rule")}, figures)


def _seed_tts_sim(content: Content) -> ComparableResult:
    values = {f"pair {number}": score for number, score in enumerate(content["scores"])}
    figure = MeasuredFigure(value=content["speaker_similarity"], values=values)
    return ComparableResult({"pairs": len(values)}, {"similarity": figure})


def _reconstruction(content: Content) -> ComparableResult:
    judges, config = content["judges"], content.get("config", {})
    conditions = {
        "data": content["data"]["sha256"],
        **{name: config.get(name) for name in ("split", "limit", "language")},
        "mono": config.get("mono", "first"),  # older results do not say it
        **{name: judges.get(name) for name in ("asr", "asr_decoding", "speaker_encoder", "mos_predictor")},
    }
    figures: dict[str, MeasuredFigure] = {}
    for name, row in content["rows"].items():
        figures[f"{name}, wer"] = MeasuredFigure(value=row["wer"], better="lower", values=_means([row], "items", "wer"))
        for opinion, key in (("similarity", "similarity"), ("predicted MOS", "mos")):
            figures[f"{name}, {opinion}"] = MeasuredFigure(
                value=row[key]["mean"], values=_means([row], "verdicts", key)
            )
        directions: dict[str, Better] = {"stoi": "higher", "pesq": "higher", "mel_distance": "lower", "mcd": "lower"}
        for metric, better in directions.items():
            if metric in row:
                values = {own["id"]: own[metric] for own in row.get("distances", []) if own.get(metric) is not None}
                figures[f"{name}, {metric}"] = MeasuredFigure(value=row[metric], better=better, values=values)
    return ComparableResult(conditions, figures)


def _transcription(content: Content) -> ComparableResult:
    config = content.get("config", {})
    conditions = {
        "data": content["data"]["sha256"],
        "language": content["language"],
        **{name: config.get(name) for name in ("split", "limit", "mono")},
    }
    figures: dict[str, MeasuredFigure] = {}
    # The model has its place whatever it is called, so that two models compare; so has the recognizer.
    for lead, row in zip(("", "recognizer, "), content["rows"].values(), strict=False):
        figures[f"{lead}wer"] = MeasuredFigure(value=row["wer"], better="lower")
        values = _means([row], "items", "wer")
        figures[f"{lead}wer, mean over clips"] = MeasuredFigure(
            value=row["wer_mean_of_clips"], better="lower", values=values
        )
    return ComparableResult(conditions, figures, {"rows": list(content["rows"])})


def _means(runs: Sequence[Mapping[str, Any]], items: str, key: str) -> dict[str, float]:
    """Mean value of each utterance over the runs that have one.

    Args:
        runs: sets of recordings.
        items: where a run's utterances are.
        key: of the value.
    """
    values: dict[str, list[float]] = {}
    for run in runs:
        for item in run.get(items) or ():
            if item[key] is not None:
                values.setdefault(str(item["id"]), []).append(item[key])
    return {name: fmean(own) for name, own in values.items()}


def _control(content: Content) -> ComparableResult:
    figures = {}
    for name, own in content["attributes"].items():
        right = {one["file"]: one["heard"] == one["value"] for one in content["recordings"] if one["attribute"] == name}
        figures[name] = MeasuredFigure(value=own["accuracy"], right=right)
    return ComparableResult({"judge": content["judge"], "texts": content.get("num_texts")}, figures)


# --- tokenizers -------------------------------------------------------------------------------------------------------


def _clustering(content: Content) -> ComparableResult:
    figures: dict[str, MeasuredFigure] = {}
    cases = content.get("cases", [content])
    for case in cases:
        lead = f"{case['case']}, " if len(cases) > 1 else ""
        of_clips: list[float] = next((case[name] for name in case if name.startswith("silhouette_per_clip")), [])
        values = {f"clip {number}": value for number, value in enumerate(of_clips)}
        figures[f"{lead}silhouette"] = MeasuredFigure(value=case["silhouette"], values=values)
        figures |= {f"{lead}{name}": MeasuredFigure(value=case[name]) for name in ("purity", "nmi")}
    clips = [f"{case['n_clips']} clips of {case['n_classes']} classes" for case in cases]
    return ComparableResult({"settings": content["settings"], "clips": clips}, figures)


def _stability(content: Content) -> ComparableResult:
    config = content["config"]
    figures = {row["condition"]: MeasuredFigure(value=row["share_changed"], better="lower") for row in content["rows"]}
    return ComparableResult({name: config.get(name) for name in ("data", "split", "max_clips", "seed")}, figures)


def _sound_classes(content: Content) -> ComparableResult:
    config, clustering = content["config"], content["clustering"]
    figures = {name: MeasuredFigure(value=clustering[name]) for name in ("silhouette", "purity", "nmi")}
    for name, probes in content.items():
        if name.startswith("probes on "):
            figures |= {
                f"{name}, {probe}": MeasuredFigure(value=value)
                for probe, value in probes.items()
                if isinstance(value, (int, float))
            }
    conditions = {name: config.get(name) for name in ("data", "label_key", "sound_type", "esc10", "scale", "distance")}
    return ComparableResult(conditions | {"clips": clustering["num_clips"]}, figures)


def _sap(content: Content) -> ComparableResult:
    judge = content.get("judge")
    figures = {
        name: MeasuredFigure(value=value, better="lower" if "wer" in name or "error" in name else "higher")
        for name, value in content["scores"].items()
        if not name.startswith("num_")
    }
    references = content["data"].get("references")
    return ComparableResult({"references": references, "judge": judge and judge.get("model")}, figures)


_READERS: Mapping[str, Callable[[Content], ComparableResult]] = {
    "questions": _questions,
    "judged questions": _judged,
    "seed-tts": _seed_tts,
    "seed-tts wer": _seed_tts_wer,
    "seed-tts sim": _seed_tts_sim,
    "reconstruction": _reconstruction,
    "transcription": _transcription,
    "attribute control": _control,
    "clustering": _clustering,
    "stability": _stability,
    "sound classes": _sound_classes,
    "sap": _sap,
}
