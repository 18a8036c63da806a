"""Judges of spoken recordings: their words, the likeness of the voice, and a predicted opinion, kept in a file.

Judging is slow, so every verdict is kept in a file: a later run judges what is new or was changed. Verdicts of other
judges are not mixed with these.
"""
# Shapes: N samples, S size of a speaker vector.

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from audiollm.benchmarks.metrics.speaker_vectors import cosine
from audiollm.data.audio.channels import Mono
from audiollm.data.audio.reading import load_audio
from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.json_lines import Record, append_line, json_line, read_finished_lines, write_json_lines
from audiollm.data.voices.encoders import SpeakerEncoder, load_speaker_encoder

from .mos import MosPredictor, load_predictor
from .recognizers import SpeechRecognizer, Transcriber, load_recognizer

logger = logging.getLogger(__name__)

NONE = "none"
BATCH_SIZE = 8


@dataclass(frozen=True)
class SpokenRecording:
    """A recording to be judged.

    Attributes:
        id: of the utterance.
        path: of the recording.
        voice: path of a recording of the voice that it is to have; None: likeness is not asked for.
    """

    id: str
    path: str
    voice: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the judges say of one recording; None where a judge was not asked, or had nothing to judge.

    Attributes:
        id: of the utterance.
        sha256: of the recording.
        hypothesis: the words heard.
        similarity: cosine of the speaker vectors.
        mos: predicted opinion, 1 to 5.
        seconds: how long it is.
    """

    id: str
    sha256: str
    hypothesis: str | None
    similarity: float | None
    mos: float | None
    seconds: float


class SpeechJudges:
    """A recognizer, a speaker encoder and a predictor of opinion, each of which may be ``none``.

    Args:
        recognizer: see `load_recognizer`.
        speaker_encoder: see `load_speaker_encoder`.
        mos: see `load_predictor`.
        language: of the recordings.
        device: where they compute.
        mono: which channel of a recording they hear, "first" or the "mean" of all; None: the mean.

    Raises:
        ValueError: there is no such judge.
        OSError: a model cannot be had.
        ImportError: a package is missing; the message says which.
    """

    def __init__(
        self,
        recognizer: str,
        speaker_encoder: str,
        mos: str,
        *,
        language: str | None = None,
        device: str = "cpu",
        mono: Mono | None = None,
    ) -> None:
        self._language = language
        self._mono = mono
        self._recognizer: SpeechRecognizer | None = None
        self._encoder: SpeakerEncoder | None = None
        self._predictor: MosPredictor | None = None
        if recognizer != NONE:
            self._recognizer = load_recognizer(recognizer, language=language, device=device)
        if speaker_encoder != NONE:
            self._encoder = load_speaker_encoder(speaker_encoder, device)
        if mos != NONE:
            self._predictor = load_predictor(mos, device)
        self._encoder_name = speaker_encoder
        self._voices: dict[str, Tensor | None] = {}

    @property
    def names(self) -> dict[str, str | None]:
        """Who judges, as it must stand beside the figures."""
        return {
            "asr": None if self._recognizer is None else self._recognizer.source,
            # Results from before transformers' pipelines were told so are of five beams.
            **({"asr_decoding": "greedy"} if isinstance(self._recognizer, Transcriber) else {}),
            "language": self._language,
            "speaker_encoder": None if self._encoder is None else self._encoder_name,
            "mos_predictor": None if self._predictor is None else self._predictor.name,
            **({} if self._mono is None else {"mono": self._mono}),
        }

    def judge(self, recordings: Sequence[SpokenRecording], kept: Path) -> list[Verdict]:
        """Judges recordings, except those whose verdict is in the file already.

        Args:
            recordings: what to judge.
            kept: file of verdicts, JSONL; made if it is not there. One of other judges is set aside beside it, and
                taken up when they judge again.

        Raises:
            AudioError: a recording cannot be read.
        """
        known = self._kept(kept)
        hashes = {one.id: file_sha256(one.path) for one in recordings}
        # By content as well: a recording that was made anew under the same name is heard anew.
        new = [one for one in recordings if (one.id, hashes[one.id]) not in known]
        # No AppendOnlyLog: lines have no kind, and where that refuses the file of others, this one sets it aside.
        with kept.open("ab") as file:
            for start in range(0, len(new), BATCH_SIZE):
                for verdict in self._judge_batch(new[start : start + BATCH_SIZE], hashes):
                    known[verdict.id, verdict.sha256] = verdict
                    # At once, so that a killed run keeps what was judged.
                    append_line(file, asdict(verdict))
        return [known[one.id, hashes[one.id]] for one in recordings]

    def _judge_batch(self, recordings: Sequence[SpokenRecording], hashes: dict[str, str]) -> list[Verdict]:
        sounds = [self._load(one.path) for one in recordings]
        return [
            Verdict(
                id=one.id,
                sha256=hashes[one.id],
                hypothesis=hypothesis,
                similarity=self._similarity(one, waveform, rate),
                mos=None if self._predictor is None else self._predictor.predict(waveform, rate),
                seconds=len(waveform) / rate,
            )
            for one, (waveform, rate), hypothesis in zip(recordings, sounds, self._transcripts(sounds), strict=True)
        ]

    def _load(self, path: str) -> tuple[Tensor, int]:
        return load_audio(path, mono=self._mono or "mean")

    def _transcripts(self, sounds: Sequence[tuple[Tensor, int]]) -> list[str | None]:
        if self._recognizer is None:
            return [None] * len(sounds)
        transcripts: list[str | None] = [None] * len(sounds)
        for sample_rate in {rate for _, rate in sounds}:  # a recognizer takes recordings of one rate at a time
            indices = [index for index, (_, rate) in enumerate(sounds) if rate == sample_rate]
            found = self._recognizer.transcribe([sounds[index][0] for index in indices], sample_rate)
            for index, transcript in zip(indices, found, strict=True):
                transcripts[index] = transcript
        return transcripts

    def _similarity(self, one: SpokenRecording, waveform: Tensor, sample_rate: int) -> float | None:
        if self._encoder is None or one.voice is None:
            return None
        if one.voice not in self._voices:
            self._voices[one.voice] = self._embed(*self._load(one.voice), one.voice)
        made, wanted = self._embed(waveform, sample_rate, one.path), self._voices[one.voice]
        return None if made is None or wanted is None else cosine(made, wanted, one.id)

    def _embed(self, waveform: Tensor, sample_rate: int, name: str) -> Tensor | None:
        assert self._encoder is not None
        try:
            return self._encoder.embed(waveform, sample_rate)
        except ValueError as error:  # silence, say: a verdict on the system that made it, and no reason to stop
            logger.warning("%s has no voice to compare: %s", name, error)
            return None

    def _kept(self, path: Path) -> dict[tuple[str, str], Verdict]:
        """Verdicts of these judges; a half-written last line is cut off, the file of other judges is set aside."""
        header = {"kind": "judges", **self.names}
        lines = _finished_lines(path)
        if lines and lines[0] != header:
            path.rename(_aside(path, lines[0]))
            lines = _finished_lines(_aside(path, header))
        lines = lines or [header]
        write_json_lines(path, lines)
        verdicts = (Verdict(**line) for line in lines[1:])
        return {(verdict.id, verdict.sha256): verdict for verdict in verdicts}


def _finished_lines(path: Path) -> list[Record]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [line for _, line in read_finished_lines(file)]


def _aside(path: Path, header: Record) -> Path:
    """Where verdicts of certain judges wait while others judge."""
    digest = hashlib.sha256(json_line(header).rstrip("\n").encode()).hexdigest()
    return path.with_name(f"{path.stem}.{digest[:12]}{path.suffix}")


def verdict_figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What judges of sound said of recordings: means, and each recording's values under ``verdicts``."""
    return {
        "similarity": mean_and_count([verdict.similarity for verdict in verdicts]),
        "mos": mean_and_count([verdict.mos for verdict in verdicts]),
        "seconds": sum(verdict.seconds for verdict in verdicts),
        "verdicts": [{"id": one.id, "similarity": one.similarity, "mos": one.mos} for one in verdicts],
    }


def mean_and_count(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean of what is there (None of nothing), population variance, and how many there are."""
    there = [value for value in values if value is not None]
    if not there:
        return {"mean": None, "variance": None, "n": 0}
    average = sum(there) / len(there)
    return {
        "mean": average,
        # Of the population, not of a sample: as the published scorer of voices prints it.
        "variance": sum((value - average) ** 2 for value in there) / len(there),
        "n": len(there),
    }
