"""Evaluation of a waveform decoder: distances to the originals, and how well a real recognizer understands its sound.

Every clip is measured as it is, as copy-synthesis (the vocoder on the true mel, the best that any flow model can reach)
and decoded from its codes, so that an error has an address: the recognizer, the vocoder, or codes and flow model.
"""
# Shapes: T codes, C mel bins, M mel frames, N samples.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiollm.benchmarks.harness.pictures import clip_stem, draw_clip
from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.audio.writing import save_audio
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.shards import DecoderItems
from audiollm.training.recordings.segments import clip_generator

logger = logging.getLogger(__name__)

ORIGINAL, COPY_SYNTHESIS, DECODED, STREAMED = "original", "copy_synthesis", "decoded", "streamed"
QUICK_METRICS = ("mel_distance", "mcd")
ALL_METRICS = ("mel_distance", "mcd", "stoi", "pesq")

Synthesis = Callable[[DecoderItems, int], Tensor]
"""Makes the waveform ``[N]`` of a clip, given the clips and its number."""


@dataclass(frozen=True)
class ValidationClip:
    """One clip and what was made of it.

    Attributes:
        id: the record's own.
        text: what is said, if known.
        waveforms: by system, the original first; float32 ``[N]`` on the CPU.
    """

    id: str
    text: str | None
    waveforms: dict[str, Tensor]


def copy_synthesis(vocoder: HiFTVocoder, seed: int = 0) -> Synthesis:
    """The vocoder alone, on the true mel."""

    @torch.no_grad()
    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        mel = items.mel(clip)[None].to(next(vocoder.parameters()).device)
        return vocoder(mel, generator=clip_generator(seed, clip))[0].cpu()

    return synthesize


def decoding(decoder: WaveformDecoder, steps: int | None = None, seed: int = 0) -> Synthesis:
    """The whole decoder, from codes."""

    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        (waveform,) = decoder.decode(items.codes(clip), speaker=items.speaker(clip), steps=steps, seed=seed)
        return waveform.cpu()

    return synthesize


def streaming(decoder: WaveformDecoder, steps: int | None = None, seed: int = 0) -> Synthesis:
    """The whole decoder, from codes that come one by one."""

    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        codes = items.codes(clip).split(1)
        return torch.cat(
            [piece.cpu() for piece in decoder.decode_stream(codes, speaker=items.speaker(clip), steps=steps, seed=seed)]
        )

    return synthesize


def synthesize_clips(
    items: DecoderItems, clips: Sequence[int], systems: Mapping[str, Synthesis]
) -> list[ValidationClip]:
    """Runs every system on every clip.

    Args:
        items: held-out clips.
        clips: numbers of those to use.
        systems: by name.

    Returns:
        The clips with their originals and what each system made.
    """
    made = []
    for clip in clips:
        waveforms = {ORIGINAL: items.waveform(clip)}
        waveforms |= {name: synthesize(items, clip) for name, synthesize in systems.items()}
        made.append(ValidationClip(items.id(clip), items.text(clip), waveforms))
    return made


def measure(
    clips: Sequence[ValidationClip],
    sample_rate: int,
    *,
    metrics: Sequence[str] = ALL_METRICS,
    transcriber: Transcriber | None = None,
) -> dict[str, Any]:
    """Measures every system against the originals, and against the texts where a recognizer is given.

    Args:
        clips: with at least the original each.
        sample_rate: of all waveforms, in Hz.
        metrics: of ``benchmarks/metrics``, on pairs of waveforms.
        transcriber: judges clips with a text.

    Returns:
        ``{"num_clips", "seconds", "systems": {name: {metric: value}}, "clips": [{"id", "text", "systems": {name:
        {"metric": …, "transcript": …}}}]}``. ``wer`` is over all words; a metric of a clip is None where it cannot be
        computed, such as for one too short.

    Raises:
        ValueError: if there are no clips.
        ImportError: if a metric's library is missing, with the command that installs it.
    """
    if not clips:
        raise ValueError("there are no clips to measure")
    names = list(clips[0].waveforms)
    originals = [clip.waveforms[ORIGINAL].numpy() for clip in clips]
    rows: list[dict[str, Any]] = [
        {"id": clip.id, "text": clip.text, "systems": {name: {} for name in names}} for clip in clips
    ]
    systems: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        made = [clip.waveforms[name].numpy() for clip in clips]
        for metric in metrics if name != ORIGINAL else ():
            scores = load_metric(metric).compute(
                predictions=made,
                references=originals,
                prediction_sample_rate=sample_rate,
                reference_sample_rate=sample_rate,
            )
            systems[name][metric] = scores[metric]
            for row, score in zip(rows, scores["scores"], strict=True):
                row["systems"][name][metric] = score
        if transcriber is not None:
            systems[name] |= _judge_by_text(clips, name, sample_rate, transcriber, rows)
    seconds = sum(len(waveform) for waveform in originals) / sample_rate
    return {"num_clips": len(clips), "seconds": seconds, "systems": systems, "clips": rows}


def _judge_by_text(
    clips: Sequence[ValidationClip], name: str, sample_rate: int, transcriber: Transcriber, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Word error rate of a system over the clips with a text; adds the transcripts to the rows."""
    spoken = [(clip, row) for clip, row in zip(clips, rows, strict=True) if clip.text]
    if not spoken:
        return {"wer": None, "num_words": 0}
    transcripts = transcriber.transcribe([clip.waveforms[name] for clip, _ in spoken], sample_rate)
    metric = load_metric("wer")
    for (clip, row), transcript in zip(spoken, transcripts, strict=True):
        row["systems"][name]["transcript"] = transcript
        row["systems"][name]["wer"] = metric.compute(predictions=[transcript], references=[clip.text])["wer"]
    scores = metric.compute(predictions=transcripts, references=[clip.text for clip, _ in spoken])
    return {"wer": scores["wer"], "num_words": scores["num_reference_words"]}


def write_clips(clips: Sequence[ValidationClip], mel: MelConfig, folder: Path) -> None:
    """Writes each clip's waveforms as ``NNN_id.system.wav`` and one picture of them all, ``NNN_id.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips):
        stem = clip_stem(number, clip.id)
        for name, waveform in clip.waveforms.items():
            save_audio(folder / f"{stem}.{name}.wav", waveform, mel.sample_rate)
        draw_clip(folder / f"{stem}.png", clip.text or clip.id, clip.waveforms, mel)
