"""Reports on one reconstruction: both sounds, a picture, and a page of scores beside the original's own.

Nothing is scored alone: the original goes through the same recognizer and the same metrics, so that the best that can
be had is on the page.
"""
# Shapes: N samples.

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from audiollm.benchmarks.harness.page import render
from audiollm.benchmarks.harness.pictures import draw_clip
from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.metrics.waveform_pairs import bench_library
from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.sources import source_name
from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import save_audio
from audiollm.data.files.atomic import atomic_write
from audiollm.reconstruction import ReconstructionResult
from audiollm.tokenizer.signal.mel import MelConfig

from .words import UNSPACED_LANGUAGES

logger = logging.getLogger(__name__)

METRICS = ("stoi", "pesq", "mel_distance", "mcd")
HEADINGS = {"stoi": "STOI ↑", "pesq": "PESQ ↑", "mel_distance": "mel distance ↓", "mcd": "MCD (dB) ↓", "wer": "WER ↓"}
LIBRARIES = {"stoi": "pystoi", "pesq": "pesq"}
PIECE_SECONDS = 60.0  # recordings are scored in equal pieces of at most this: memory stays bounded
PICTURE_SECONDS = 30.0
MISSING = "–"


@dataclass(frozen=True)
class ReconstructionReport:
    """Where the report is, and what it says.

    Attributes:
        folder: holds ``original.wav``, ``reconstructed.wav``, ``comparison.png``, ``report.md``, ``report.html`` and
            ``metrics.json``.
        original: scores by metric, of the original against itself.
        reconstructed: the same of the reconstruction. A score that cannot be computed, such as the intelligibility of
            silence, is None.
        reference_text: what the word error rates are measured against; None if nothing was transcribed.
        reference_is_transcript: whether that is the recognizer's own transcript of the original.
        transcripts: what the recognizer heard, by row; empty if none was asked.
    """

    folder: Path
    original: dict[str, float | None]
    reconstructed: dict[str, float | None]
    reference_text: str | None
    reference_is_transcript: bool
    transcripts: dict[str, str]


def report_reconstruction(
    result: ReconstructionResult,
    folder: str | os.PathLike[str],
    *,
    text: str | None = None,
    asr: str | os.PathLike[str] | Transcriber | None = None,
    language: str | None = None,
    metrics: Sequence[str] = METRICS,
) -> ReconstructionReport:
    """Compares a reconstruction with its original.

    Args:
        result: what `reconstruct` returned; both files are read again.
        folder: where the report goes; made if it is not there, and its files are replaced.
        text: what is said in the recording. None: the recognizer's transcript of the original stands for it.
        asr: a speech recognizer: a folder or Hub id, ``whisper-tiny.en`` or ``whisper-base`` (both come from a package
            index), or one that is loaded. None: no word error rate.
        language: of the speech, such as ``fr``; decides how texts are normalized. None: English.
        metrics: which of `METRICS` to compute.

    Raises:
        ValueError: an unknown metric, or a text without a recognizer.
        ImportError: the library of a metric is missing; the message says how to get it.
        AudioError: the original or the reconstruction cannot be read any more.
    """
    check_report(metrics, text, asr)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    original, source_rate = load_audio(result.source, mono=result.mono)
    reconstructed, rate = load_audio(result.output)
    save_audio(folder / "original.wav", original, source_rate)
    save_audio(folder / "reconstructed.wav", reconstructed, rate)
    _draw(folder / "comparison.png", result, (original, source_rate), (reconstructed, rate))
    report = ReconstructionReport(
        folder=folder,
        original=waveform_scores(metrics, (original, source_rate), (original, source_rate)),
        reconstructed=waveform_scores(metrics, (reconstructed, rate), (original, source_rate)),
        reference_text=text,
        reference_is_transcript=asr is not None and text is None,
        transcripts={},
    )
    facts = _facts(result)
    if asr is not None:
        transcriber = asr if not isinstance(asr, (str, os.PathLike)) else Transcriber(asr, language=language)
        report = _with_words(report, transcriber, (original, source_rate), (reconstructed, rate), language)
        facts["recognizer"] = transcriber.source
    _write_pages(report, facts)
    return report


def available_metrics() -> tuple[str, ...]:
    """Those of `METRICS` whose libraries are installed; a warning names the others and how to get them."""
    absent = [metric for metric, library in LIBRARIES.items() if find_spec(library) is None]
    if absent:
        names = ", ".join(HEADINGS[metric].split()[0] for metric in absent)
        libraries = " and ".join(LIBRARIES[metric] for metric in absent)
        logger.warning(
            "the report will be without %s: %s not installed, run `pip install 'audiollm[bench]'`",
            names, f"{libraries} {'are' if len(absent) > 1 else 'is'}",
        )  # fmt: skip
    return tuple(metric for metric in METRICS if metric not in absent)


def check_report(metrics: Sequence[str], text: str | None, asr: object | None) -> None:
    """Refuses, before the work, what would fail after it.

    Raises:
        ValueError: an unknown metric, or a text without a recognizer.
        ImportError: the library of a metric is missing; the message says how to get it.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"no metric {metric!r} of reconstructions; there are {', '.join(METRICS)}")
        if metric in LIBRARIES:
            bench_library(LIBRARIES[metric])
    if text is not None and asr is None:
        raise ValueError("a text needs a recognizer to be compared with: pass asr, such as whisper-tiny.en")


def waveform_scores(
    metrics: Sequence[str], made: tuple[Tensor, int], original: tuple[Tensor, int]
) -> dict[str, float | None]:
    """Scores of one recording; long ones are cut by the clock into equal pieces, whose scores are averaged.

    Args:
        metrics: of `METRICS`.
        made: the recording, ``[N]``, and its rate in Hz.
        original: what it is compared with, and its rate.
    """
    seconds = min(len(waveform) / rate for waveform, rate in (made, original))
    num_pieces = max(1, math.ceil(seconds / PIECE_SECONDS))
    predictions, references = (
        [
            waveform[round(n * seconds / num_pieces * rate) : round((n + 1) * seconds / num_pieces * rate)].numpy()
            for n in range(num_pieces)
        ]
        for waveform, rate in (made, original)
    )
    scores = {}
    for metric in metrics:
        computed = load_metric(metric).compute(
            predictions=predictions,
            references=references,
            prediction_sample_rate=made[1],
            reference_sample_rate=original[1],
        )
        scores[metric] = computed[metric]
    return scores


def _with_words(
    report: ReconstructionReport,
    transcriber: Transcriber,
    original: tuple[Tensor, int],
    reconstructed: tuple[Tensor, int],
    language: str | None,
) -> ReconstructionReport:
    """Adds transcripts and word error rates."""
    transcripts = {
        "original": transcriber.transcribe([original[0]], original[1])[0],
        "reconstructed": transcriber.transcribe([reconstructed[0]], reconstructed[1])[0],
    }
    reference = transcripts["original"] if report.reference_text is None else report.reference_text
    rates = {
        name: load_metric("wer").compute(
            predictions=[transcript],
            references=[reference],
            normalizer="english" if language in (None, "en") else "basic",
            unit="character" if language in UNSPACED_LANGUAGES else "word",
        )["wer"]
        for name, transcript in transcripts.items()
    }
    return ReconstructionReport(
        folder=report.folder,
        original={"wer": rates["original"], **report.original},
        reconstructed={"wer": rates["reconstructed"], **report.reconstructed},
        reference_text=reference,
        reference_is_transcript=report.reference_is_transcript,
        transcripts=transcripts,
    )


def _draw(
    path: Path, result: ReconstructionResult, original: tuple[Tensor, int], reconstructed: tuple[Tensor, int]
) -> None:
    mel = MelConfig()
    shown = {}
    for name, (waveform, rate) in (("original", original), ("reconstructed", reconstructed)):
        # Padded to a window: a clip that is shorter has no spectrogram.
        beginning = resample(waveform[: round(PICTURE_SECONDS * rate)], rate, mel.sample_rate)
        shown[name] = F.pad(beginning, (0, max(0, mel.n_fft - len(beginning))))
    title = Path(source_name(result.source)).name
    if result.source_seconds > PICTURE_SECONDS:
        title += f" (the first {PICTURE_SECONDS:.0f} s)"
    draw_clip(path, title, shown, mel)


# --- the page ---------------------------------------------------------------------------------------------------------


def _facts(result: ReconstructionResult) -> dict[str, Any]:
    per_second = f"{result.num_codes / result.source_seconds:.1f} per second"
    if result.codes.is_floating_point():
        codes = {"latents": f"{result.num_codes} of {result.codes.shape[1]} numbers ({per_second})"}
    else:
        codes = {"codes": f"{result.num_codes} ({per_second}, {len(result.codes.unique())} different)"}
    return {
        "original": source_name(result.source),
        "duration": f"{result.source_seconds:.2f} s at {result.source_sample_rate} Hz",
        "reconstruction": f"{result.output_seconds:.2f} s at {result.sample_rate} Hz",
        **codes,
        "time": f"{result.total_seconds:.2f} s, {result.real_time_factor:.2f} per second of sound, "
        f"first sound after {result.first_sound_seconds:.2f} s",
        "settings": ", ".join(f"{name} {value}" for name, value in result.settings.items()),
    }


def _write_pages(report: ReconstructionReport, facts: dict[str, Any]) -> None:
    transcripts = dict(report.transcripts)
    if report.reference_text is not None and not report.reference_is_transcript:
        transcripts = {"text": report.reference_text, **transcripts}
    values = {
        "head": ["", *(HEADINGS[metric] for metric in report.original)],
        "scores": [
            [name, *(_shown(metric, score) for metric, score in scores.items())]
            for name, scores in (("original", report.original), ("reconstructed", report.reconstructed))
        ],
        "sentences": _explanation(report),
        "transcripts": transcripts,
        "facts": facts,
    }
    machine_readable = {
        "original": report.original,
        "reconstructed": report.reconstructed,
        "reference_text": report.reference_text,
        "reference_is_transcript": report.reference_is_transcript,
        "transcripts": report.transcripts,
        "facts": facts,
    }
    files = {
        "report.md": render(Path(__file__).with_name("reconstruction.md.jinja"), **values),
        "report.html": render(Path(__file__).with_name("reconstruction.html.jinja"), **values),
        "metrics.json": json.dumps(machine_readable, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, content in files.items():
        with atomic_write(report.folder / name) as file:
            file.write(content)


def _explanation(report: ReconstructionReport) -> list[str]:
    sentences = ["The first row is the original measured against itself: the best that can be had."]
    if report.reference_is_transcript:
        sentences.append(
            "No text was given: the word error rate counts what the recognizer hears differently from the original, "
            "whose own rate is zero by definition."
        )
    if None in {**report.original, **report.reconstructed}.values():
        sentences.append(f"{MISSING}: cannot be computed, for example because there is no speech.")
    return sentences


def _shown(metric: str, score: float | None) -> str:
    if score is None:
        return MISSING
    return f"{score:.1%}" if metric == "wer" else f"{score:.3f}"
