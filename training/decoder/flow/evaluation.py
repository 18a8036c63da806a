"""Evaluation of a flow model in training: its held-out loss, its mels, and with a vocoder its sound."""
# Shapes: T codes, C mel bins, M mel frames, N samples.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.inputs import FlowSettings
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.training.decoder.base import DecoderRun
from audiollm.training.decoder.parts import load_part
from audiollm.training.decoder.validation import (
    COPY_SYNTHESIS,
    DECODED,
    ORIGINAL,
    QUICK_METRICS,
    ValidationClip,
    copy_synthesis,
    measure,
    write_clips,
)
from audiollm.training.recordings.segments import clip_generator

from .batches import FlowPass


@dataclass(frozen=True)
class MadeClip:
    """A held-out clip as the model makes it.

    Attributes:
        index: of the clip among the held-out ones.
        mel_distance: mean absolute difference of made and true log-mel, in nats.
        sound: the waveforms, if there is a vocoder.
    """

    index: int
    mel_distance: float
    sound: ValidationClip | None


def held_out_loss(accelerator: Accelerator, objective: nn.Module, passes: Sequence[FlowPass]) -> float:
    """Mean loss over the frames of all processes' passes, the same on each; draws are the same every time."""
    total, num_frames = 0.0, 0
    for one in passes:
        total += float(objective(**one.inputs(accelerator.device))) * one.num_frames
        num_frames += one.num_frames
    sums = gather_object([(total, num_frames)])
    return sum(loss for loss, _ in sums) / sum(frames for _, frames in sums)


class FlowEvaluation:
    """Decodes held-out clips and judges the result.

    Args:
        run: the run; ``flow.eval_vocoder`` is loaded at once, so that a wrong path stops it before the first update,
            and ``eval_asr`` at the first use.

    Raises:
        ValueError: if there is no vocoder for the run's mel.
    """

    def __init__(self, run: DecoderRun) -> None:
        self._run = run
        self._vocoder = _load_vocoder(run)
        self._transcriber: Transcriber | None = None

    @torch.no_grad()
    def synthesize(self, flow: FlowModel, clips: Sequence[int]) -> list[MadeClip]:
        """Makes clips of their codes; with a vocoder, sound of them and of the true mels."""
        items, device = self._run.eval_items, self._run.accelerator.device
        assert items is not None
        vocoder = self._vocoder
        made = []
        for clip in clips:
            true_mel, speaker = items.mel(clip), items.speaker(clip)
            mel, _ = flow.mel(
                items.codes(clip)[None].to(device),
                speaker=None if speaker is None else speaker[None].to(device),
                # The clip's own noise at every evaluation, so that figures differ by the weights alone.
                noise=torch.randn(true_mel[None].shape, generator=clip_generator(0, clip)).to(device),
                integration=FlowSettings(self._run.config.flow.eval_steps).integration(flow.config),
            )
            sound = None
            if vocoder is not None:
                waveforms = {
                    ORIGINAL: items.waveform(clip),
                    COPY_SYNTHESIS: copy_synthesis(vocoder)(items, clip),
                    DECODED: vocoder(mel, generator=clip_generator(0, clip))[0].float().cpu(),
                }
                sound = ValidationClip(items.id(clip), items.text(clip), waveforms)
            made.append(MadeClip(clip, float((mel[0].float().cpu() - true_mel).abs().mean()), sound))
        return made

    def judge(self, made: Sequence[MadeClip], folder: Path) -> dict[str, Any]:
        """Measures all processes' clips, and writes their sounds and pictures to ``folder``.

        Args:
            made: this process's clips.
            folder: of this evaluation.

        Returns:
            ``mel_distance`` and, with a vocoder, ``mcd`` and ``sound_mel_distance``, with a recognizer also ``wer``,
            ``wer_copy_synthesis`` and ``wer_original``; the same on every process.
        """
        everyone = sorted(gather_object(list(made)), key=lambda clip: clip.index)
        if not everyone:
            return {}
        lines: list[dict[str, Any]] = [{"mel_distance": sum(clip.mel_distance for clip in everyone) / len(everyone)}]
        sounds = [clip.sound for clip in everyone if clip.sound is not None]
        if sounds and self._run.accelerator.is_main_process:
            lines[0] |= self._judge_sounds(sounds, folder)
        return broadcast_object_list(lines)[0]

    def _judge_sounds(self, clips: Sequence[ValidationClip], folder: Path) -> dict[str, Any]:
        config = self._run.config
        if config.eval_asr is not None and self._transcriber is None:
            self._transcriber = Transcriber(config.eval_asr, device=self._run.accelerator.device)
        result = measure(clips, config.decoder.mel.sample_rate, metrics=QUICK_METRICS, transcriber=self._transcriber)
        write_clips(clips, config.decoder.mel, folder)
        write_json(folder / "metrics.json", result)
        systems = result["systems"]
        line = {"mcd": systems[DECODED]["mcd"], "sound_mel_distance": systems[DECODED]["mel_distance"]}
        if self._transcriber is not None:
            for name, system in (("wer", DECODED), ("wer_copy_synthesis", COPY_SYNTHESIS), ("wer_original", ORIGINAL)):
                line[name] = systems[system]["wer"]
        return line


def _load_vocoder(run: DecoderRun) -> HiFTVocoder | None:
    source = run.config.flow.eval_vocoder
    if source is None:
        return None
    sizes, weights = load_part(source, "vocoder")
    if sizes.mel != run.config.decoder.mel:
        raise ValueError(f"flow.eval_vocoder={source} was made for another mel spectrogram: {sizes.mel}")
    vocoder = HiFTVocoder(sizes.vocoder)
    vocoder.load_state_dict(weights)
    vocoder.fold_weight_norm()
    return vocoder.eval().to(run.accelerator.device)
