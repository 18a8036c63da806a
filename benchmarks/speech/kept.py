"""What reconstructed recordings keep of their originals: the figures of one row, by judges and by distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.identity import VERDICTS_NAME, file_identity
from audiollm.data.audio.reading import load_audio

from .judges.judging import SpeechJudges, SpokenRecording, mean_and_count, verdict_figures
from .reconstruction_report import waveform_scores
from .words import word_figures


@dataclass(frozen=True)
class Original:
    """A recording of the data as it was written to the output."""

    id: str
    path: str
    text: str | None


def kept_figures(
    judges: SpeechJudges,
    originals: Sequence[Original],
    paths: Mapping[str, str],
    folder: Path,
    *,
    metrics: Sequence[str],
    language: str,
    result_folder: Path,
) -> dict[str, Any]:
    """Figures of one row.

    Args:
        judges: of words, voice and opinion.
        originals: what the recordings are compared with.
        paths: of the recordings, by id; one that is not there is counted as missing.
        folder: for transcripts and verdicts, which are kept.
        metrics: distances to the original.
        language: of the speech.
        result_folder: of the result, to which the names of files in it are relative.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [original for original in originals if Path(paths[original.id]).is_file()]
    verdicts = judges.judge(
        [SpokenRecording(original.id, paths[original.id], original.path) for original in there], folder / VERDICTS_NAME
    )
    distances = [waveform_scores(metrics, load_audio(paths[one.id]), load_audio(one.path)) for one in there]
    with_text = {original.id: original.text for original in originals if original.text is not None}
    transcripts = {one.id: one.hypothesis for one in verdicts if one.hypothesis is not None and one.id in with_text}
    # Where nobody listened there are no words to score.
    texts = with_text if transcripts or not there else {}
    return {
        "n_items": len(originals),
        "predictions": file_identity(folder / VERDICTS_NAME, result_folder),
        "missing": sorted({original.id for original in originals} - {original.id for original in there}),
        "num_without_text": len(originals) - len(with_text),
        **verdict_figures(verdicts),
        **{metric: mean_and_count([own[metric] for own in distances])["mean"] for metric in metrics},
        "distances": [{"id": original.id, **own} for original, own in zip(there, distances, strict=True)],
        **word_figures(texts, transcripts, language, folder),
    }
