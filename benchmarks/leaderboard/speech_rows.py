"""Rows of what is spoken, written down and of tokenizers: SEED-TTS-eval, reconstruction, transcription, clustering,
control of the voice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from audiollm.benchmarks.harness.figures import audio_tokenizer_of

from .published import Figure
from .result_files import ResultFile
from .rows import LeaderboardRow
from .traces import PredictionFiles, traces_of

SHOWN_HASH = 12
# The sets of the papers, as the names of data files tell them.
_SETS = {"test-clean": r"test[-_.]?clean", "test-other": r"test[-_.]?other"}
_ESC = {(400, 10): "ESC-10", (2000, 50): "ESC-50"}


def seed_tts_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """What a model said, and the recordings of people beside it if there are any."""
    content = result.content
    hard = "hard" in PurePath(content["meta"]["file"]).stem
    traces = traces_of(result, files)
    conditions = _judges(content["judges"]) | {
        "data": f"{content['meta']['file']}, sha256 {content['meta']['sha256'][:SHOWN_HASH]}",
        "prompt": "of the list",
    }
    if content.get("limit") is not None:
        conditions["limit"] = f"the first {content['limit']} lines"
    summary = content["summary"]
    rows = [
        LeaderboardRow(
            model=_system_name(content["system"]),
            origin="ours",
            figures=_seed_figures(content["language"], hard, summary["wer"]["mean"], summary["similarity"]["mean"]),
            conditions=conditions,
            facts={
                "asked": f"{content['n_items']:,} × {summary['num_runs']} seeds",
                "missing": f"{summary['num_missing']:,}",
                "looped": _count(summary.get("num_looped")),
                "capped WER": _shown_percent((summary.get("wer_capped") or {}).get("mean")),
                "missing as wrong": _shown_percent(summary["wer_missing_as_wrong"]["mean"]),
                "spread of WER": _shown_percent(summary["wer"]["spread"]),
                "MOS predicted": _shown(summary["mos"]["mean"]),
            },
            source=result.path.name,
            traces=traces[: len(content["runs"])],
        )
    ]
    truth = content.get("ground_truth")
    if truth:
        rows.append(
            LeaderboardRow(
                model="ground truth audio",
                origin="ours",
                figures=_seed_figures(content["language"], hard, truth["wer"], truth["similarity"]["mean"]),
                conditions=conditions,
                facts={
                    "asked": f"{truth['n_items']:,}",
                    "missing": f"{len(truth['missing']):,}",
                    "MOS predicted": _shown(truth["mos"]["mean"]),
                },
                source=result.path.name,
                traces=traces[len(content["runs"]) :],
            )
        )
    return rows


def seed_tts_file_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """Transcripts or speaker vectors that were scored from a file."""
    content = result.content
    is_wer = result.kind == "seed-tts wer"
    named = content.get("predictions")
    name = named["file"] if isinstance(named, Mapping) else result.path.name
    if is_wer:
        rate = content["wer"] if content["wer"] is not None else content.get("wer_of_all")
        figures = _seed_figures(content["language"], "hard" in str(name), rate, None)
        conditions = {"grading": str(content.get("rule", "seed-tts-eval")), "ASR": "not known"}
    else:
        figures = {"SIM of any language": content["speaker_similarity"]}
        conditions = {"speaker model": "not known"}
    return [
        LeaderboardRow(
            model=f"predictions {PurePath(name).name}",
            origin="ours",
            figures=figures,
            conditions=conditions | {"data": "as in the predictions, version not known"},
            facts={"asked": f"{content['n_items']:,}"},
            source=result.path.name,
            traces=traces_of(result, files),
        )
    ]


def reconstruction_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """A row for each tokenizer and the recordings themselves; in the columns of the paper where the data are its."""
    content = result.content
    data = content["data"]
    known_set = _known_set(content)
    conditions = _judges(content["judges"]) | {"data": f"{data['file']}, sha256 {data['sha256'][:SHOWN_HASH]}"}
    rows = []
    for (name, row), trace in zip(content["rows"].items(), traces_of(result, files), strict=True):
        facts = row.get("tokenizer") or {}
        figures: dict[str, Figure] = {
            "WER": _percent(row["wer"]),
            "SIM": row["similarity"]["mean"],
            "MOS": row["mos"]["mean"],
            "STOI": row.get("stoi"),
            "mel distance": row.get("mel_distance"),
            "frames per second": facts.get("frame_rate"),
            "bit/s": row.get("bitrate_bps"),
        }
        if known_set is not None:
            figures |= {f"WER {known_set}": figures["WER"], f"MOS {known_set}": figures["MOS"]}
        rows.append(
            LeaderboardRow(
                model=name,
                origin="ours",
                figures=figures,
                conditions=conditions,
                facts={"asked": f"{row['n_items']:,}", "missing": f"{len(row['missing']):,}"},
                source=result.path.name,
                traces=[trace],
            )
        )
    return rows


def transcription_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """A row for the model, and one for the recognizer beside it."""
    content = result.content
    data = content["data"]
    config = content.get("config") or {}
    conditions = {
        "data": f"{data['file']}, sha256 {data['sha256'][:SHOWN_HASH]}",
        "language": content["language"],
        **{name: str(config[name]) for name in ("split", "limit", "prompt") if config.get(name) is not None},
    }
    return [
        LeaderboardRow(
            model=name,
            origin="ours",
            figures={"WER": _percent(row["wer"]), "mean over clips": _percent(row["wer_mean_of_clips"])},
            conditions=conditions,
            facts={
                "asked": f"{row['n_items']:,}",
                "words": f"{row['num_reference_words']:,}",
                "cut": f"{len(row['cut']):,}",
                "nothing heard": f"{len(row['silent']):,}",
            },
            source=result.path.name,
            traces=[trace],
        )
        for (name, row), trace in zip(content["rows"].items(), traces_of(result, files), strict=True)
    ]


def clustering_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """A row for each set of clips; in the columns of the paper where it has as many clips and classes as its sets."""
    content = result.content
    if result.kind == "sound classes":
        own = content["clustering"]
        config = content["config"]
        cases = [{**own, "case": audio_tokenizer_of(config), "n_clips": own["num_clips"]}]
        cases[0]["n_classes"] = own["num_classes"]
        settings: Mapping[str, Any] = own
    else:
        cases, settings = content.get("cases", [content]), content["settings"]
    conditions = {
        "histograms": str(settings.get("scale")),
        "distance": str(settings.get("distance")),
        "clusters": str(settings.get("num_clusters") or "as many as classes"),
    }
    rows = []
    for case in cases:
        figures: dict[str, Figure] = {"silhouette": case["silhouette"], "purity": case["purity"], "NMI": case["nmi"]}
        known = _ESC.get((case["n_clips"], case["n_classes"]))
        if known is not None:
            figures |= {f"{known} silhouette": case["silhouette"], f"{known} purity": case["purity"]}
        spread = case.get("purity_range")
        rows.append(
            LeaderboardRow(
                model=PurePath(str(case["case"])).name,
                origin="ours",
                figures=figures,
                conditions=conditions | {"data": f"{case['n_clips']:,} clips of {case['n_classes']} classes"},
                facts={
                    "purity, all seeds": f"{spread[0]:.3f} to {spread[1]:.3f}" if spread else "",
                    "purity of chance": _shown(case.get("purity_of_chance")),
                },
                source=result.path.name,
                traces=traces_of(result, files),
                note=case.get("problem"),
            )
        )
    return rows


def control_rows(result: ResultFile, files: PredictionFiles) -> list[LeaderboardRow]:
    """A row for each attribute that was asked for."""
    content = result.content
    rows = []
    for name, figures in content["attributes"].items():
        measured = name in ("pitch", "speed")
        rows.append(
            LeaderboardRow(
                model=f"{content['model']}: {name}",
                origin="ours",
                figures={"right": 100 * figures["accuracy"], "chance": 100 * figures["chance"]},
                conditions={"judge": "measured" if measured else str(content["judge"])},
                facts={
                    "asked": f"{figures['n_asked']:,}",
                    "missing": f"{figures['missing']:,}",
                    "not said": f"{figures['not_said']:,}",
                    "unreadable": f"{figures['unreadable']:,}",
                },
                source=result.path.name,
                traces=traces_of(result, files),
            )
        )
    return rows


def _seed_figures(language: str, hard: bool, rate: float | None, similarity: float | None) -> dict[str, Figure]:
    suffix = f"{language} hard" if hard else language
    unit = "CER" if language == "zh" else "WER"
    return {f"{unit} {suffix}": _percent(rate), f"SIM {suffix}": similarity}


def _judges(judges: Mapping[str, Any]) -> dict[str, str]:
    names = {"ASR": "asr", "speaker model": "speaker_encoder", "MOS predictor": "mos_predictor"}
    return {shown: str(judges.get(key) or "none") for shown, key in names.items()}


def _known_set(content: Mapping[str, Any]) -> str | None:
    config = content.get("config") or {}
    place = " ".join(str(part) for part in (config.get("data"), content["data"]["file"], config.get("split")))
    for name, pattern in _SETS.items():
        if re.search(pattern, place, re.IGNORECASE):
            return name
    language = config.get("language")
    return f"SEED {language}" if language in ("en", "zh") and re.search("seed", place, re.IGNORECASE) else None


def _system_name(system: Mapping[str, Any]) -> str:
    if "wavs" in system:
        return f"recordings of {PurePath(system['wavs']).name}"
    return str(system.get("name") or system.get("model") or system.get("source") or "model")


def _percent(share: float | None) -> Figure:
    return None if share is None else 100 * share


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _shown_percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"
