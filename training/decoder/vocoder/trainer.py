"""Training of the vocoder: mel to waveform, by distance of spectrograms first and against discriminators then.

The excitation of a segment is made from the recording's fundamental frequency, and a predictor learns that frequency.
Everything random of a segment is drawn from a generator of its own, so an update depends neither on how many processes
share it, nor on how it is cut into passes, nor on where a run was interrupted.
"""
# Shapes: B segments, C mel bins, M mel frames, N samples, H overtones.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.training.decoder.base import DecoderRun, clip_gradients, mean_losses
from audiollm.training.decoder.columns import pitch_column
from audiollm.training.decoder.config import DecoderTrainingConfig
from audiollm.training.decoder.parts import save_part
from audiollm.training.decoder.shards import Column, DecoderItems
from audiollm.training.decoder.validation import (
    COPY_SYNTHESIS,
    ORIGINAL,
    QUICK_METRICS,
    ValidationClip,
    copy_synthesis,
    measure,
    synthesize_clips,
    write_clips,
)
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import ALL_PARTS, make_optimizer, set_learning_rates
from audiollm.training.recordings.segments import SegmentOrder

from .adversary import Adversary
from .discriminators import Discriminators
from .evaluation import PitchErrors, mean_pitch_errors, pitch_errors
from .losses import SpectralDistance, adversarial_loss, discriminator_loss, f0_loss
from .segments import VocoderPass, make_pass


class VocoderObjective(nn.Module):
    """The vocoder on a segment as one forward pass, which is what data parallelism and mixed precision wrap."""

    def __init__(self, vocoder: HiFTVocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, mel: Tensor, f0: Tensor, phase: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the waveform ``[B, N]`` made from the true fundamental, and the predicted fundamental ``[B, M]``."""
        source = self.vocoder.excitation(f0, phase=phase, noise=noise)
        return self.vocoder.filter(mel, source), self.vocoder.predict_f0(mel)


def vocoder_columns(config: DecoderTrainingConfig) -> list[Column]:
    """What a vocoder's clips need beside waveform and mel: their fundamental frequency.

    Raises:
        ValueError: if pyworld is not installed.
    """
    settings = config.vocoder
    return [pitch_column(config.decoder.mel, settings.pitch_method, settings.min_pitch, settings.max_pitch)]


class VocoderTrainer:
    """Trains a vocoder; see `DecoderTrainer`.

    Args:
        run: its surroundings; the clips need their fundamental frequency, see
            `pitch_column`.
        weights: ``state_dict`` of a vocoder to start from. None: random weights.

    Raises:
        ValueError: if an update is shorter than a segment, or a segment than the spectrograms' windows need.
    """

    def __init__(self, run: DecoderRun, weights: Mapping[str, Tensor] | None = None) -> None:
        self._run = run
        config, settings, device = run.config, run.config.vocoder, run.accelerator.device
        self._settings = settings
        self._vocoder = HiFTVocoder(config.decoder.vocoder)
        if weights is not None:
            self._vocoder.load_state_dict(weights)
        self._vocoder.to(device)
        self._hop_length = config.decoder.mel.hop_length
        _check_segments(settings.segment_frames, self._hop_length, config.frames_per_pass, settings.resolutions)
        objective = VocoderObjective(self._vocoder)
        self._model, self._optimizer = run.accelerator.prepare(objective, make_optimizer(objective, config, device))
        self._model.train()
        self._distance = SpectralDistance(
            config.decoder.mel.sample_rate, settings.resolutions, settings.convergence_weight
        ).to(device)
        self._order = SegmentOrder(
            [run.train_items.num_frames(index) for index in range(len(run.train_items))],
            settings.segment_frames,
            max(1, config.frames_per_update // settings.segment_frames),
            config.seed,
        )
        self._transcriber: Transcriber | None = None  # loaded when first needed
        if self._order.segments_per_update < run.accelerator.num_processes:
            raise ValueError(
                f"frames_per_update={config.frames_per_update} makes {self._order.segments_per_update} segments of "
                f"{settings.segment_frames} frames for {run.accelerator.num_processes} processes: raise it"
            )
        self._total_steps = config.max_steps or self._order.num_updates(config.num_epochs or 1.0)
        self._adversary: Adversary | None = None
        if settings.discriminator_start is not None and settings.discriminator_start <= self._total_steps:
            discriminators = Discriminators(
                settings.periods,
                settings.period_channels,
                settings.spectrogram_resolutions,
                settings.spectrogram_channels,
            )
            self._adversary = Adversary(
                run.accelerator, config, discriminators, discriminator_loss, settings.discriminator_learning_rate
            )

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def optimizer(self) -> Any:
        return self._optimizer

    @property
    def extras(self) -> Mapping[str, Stateful]:
        return {} if self._adversary is None else self._adversary.extras

    @property
    def total_steps(self) -> int:
        return self._total_steps

    def epoch(self, step: int) -> float:
        return self._order.epoch(step)

    def batch(self, step: int) -> list[VocoderPass]:
        """Cuts this process's segments of an update out of the clips."""
        accelerator = self._run.accelerator
        positions = list(range(self._order.segments_per_update))
        mine = share_of_process(positions, accelerator.process_index, accelerator.num_processes)
        size = self._run.config.frames_per_pass // self._settings.segment_frames
        return [
            make_pass(self._run.train_items, self._order, step, mine[start : start + size], self._vocoder.source)
            for start in range(0, len(mine), size)
        ]

    def update(self, step: int, batch: list[VocoderPass]) -> dict[str, Any]:
        """Makes an update of the vocoder, and one of the discriminators once they have started."""
        accelerator, config = self._run.accelerator, self._run.config
        start = self._settings.discriminator_start
        has_started = self._adversary is not None and start is not None and step >= start
        learning_rate = set_learning_rates(self._optimizer, step, self._total_steps, config)[ALL_PARTS]
        measured: list[dict[str, Tensor]] = []
        shares = [len(one.mel) / self._order.segments_per_update for one in batch]
        for number, (one, share) in enumerate(zip(batch, shares, strict=True), start=1):
            # Gradients are averaged over the processes, and a pass counts as much as it has segments.
            scale, is_last = share * accelerator.num_processes, number == len(batch)
            measured.append(self._accumulate(one.to(accelerator.device), scale, has_started, is_last))
        passes = [(one.ids, parts) for one, parts in zip(batch, measured, strict=True)]
        line: dict[str, Any] = {**mean_losses(accelerator, config, step, passes, shares)}
        by_pass = [(ids, float(parts["loss"])) for ids, parts in passes]
        line["learning_rate"] = learning_rate
        line["grad_norm"] = clip_gradients(accelerator, self._model, config)
        stop_unless_finite(accelerator, config, step, "gradient norm", line["grad_norm"], by_pass)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if has_started:
            assert self._adversary is not None
            # After the vocoder: both have learnt from what the other was in this update.
            line |= self._adversary.update(step, self._total_steps, by_pass)
        line["mel_frames"] = self._order.segments_per_update * self._settings.segment_frames
        return line

    def _accumulate(self, one: VocoderPass, scale: float, has_started: bool, is_last: bool) -> dict[str, Tensor]:
        """Adds a pass's gradients to both models; returns its losses."""
        accelerator, settings = self._run.accelerator, self._settings
        with nullcontext() if is_last else accelerator.no_sync(self._model):
            made_BN, predicted_BM = self._model(one.mel, one.f0, one.phase, one.noise)
            parts = {"spectral": self._distance(made_BN, one.waveform), "f0": f0_loss(predicted_BM, one.f0)}
            loss = settings.spectral_weight * parts["spectral"] + settings.f0_weight * parts["f0"]
            if has_started:
                assert self._adversary is not None
                parts |= self._adversary.play(one.waveform, made_BN, scale, is_last, adversarial_loss)
                loss = loss + settings.adversarial_weight * parts["adversarial"]
                loss = loss + settings.feature_weight * parts["feature_matching"]
            accelerator.backward(loss * scale)
        return {"loss": loss.detach()} | {name: part.detach() for name, part in parts.items()}

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Copy-synthesis of held-out clips: distances, pitch, words; writes sounds and pictures to ``folder``."""
        items, accelerator, config = self._run.eval_items, self._run.accelerator, self._run.config
        assert items is not None
        clips = list(range(min(len(items), config.eval_clips)))
        if not clips:
            return {}
        mine = share_of_process(clips, accelerator.process_index, accelerator.num_processes)
        self._vocoder.eval()
        made = synthesize_clips(items, mine, {COPY_SYNTHESIS: copy_synthesis(self._vocoder)})
        pitch = [self._pitch_errors(items, clip) for clip in mine]
        self._vocoder.train()
        everyone = gather_object(list(zip(mine, made, pitch, strict=True)))
        everyone.sort(key=lambda one: one[0])
        lines: list[dict[str, Any]] = [{}]
        if accelerator.is_main_process:
            lines = [self._judge_clips([clip for _, clip, _ in everyone], folder / f"step_{step:06d}")]
            lines[0] |= mean_pitch_errors([errors for _, _, errors in everyone])
        return broadcast_object_list(lines)[0]

    def _judge_clips(self, clips: list[ValidationClip], folder: Path) -> dict[str, Any]:
        mel = self._run.config.decoder.mel
        if self._run.config.eval_asr is not None and self._transcriber is None:
            self._transcriber = Transcriber(self._run.config.eval_asr, device=self._run.accelerator.device)
        result = measure(clips, mel.sample_rate, metrics=QUICK_METRICS, transcriber=self._transcriber)
        write_clips(clips, mel, folder)
        write_json(folder / "metrics.json", result)
        line = dict(result["systems"][COPY_SYNTHESIS])
        if self._transcriber is not None:
            line["wer_original"] = result["systems"][ORIGINAL]["wer"]
        return line

    @torch.no_grad()
    def _pitch_errors(self, items: DecoderItems, clip: int) -> PitchErrors:
        mel = items.mel(clip)[None].to(self._run.accelerator.device)
        return pitch_errors(
            self._vocoder.predict_f0(mel)[0].cpu(), items.f0(clip), self._vocoder.config.voiced_threshold
        )

    def save(self, folder: Path) -> None:
        """Writes the weights; see `save_part`."""
        if self._run.accelerator.is_main_process:
            save_part(folder, "vocoder", self._run.config.decoder, self._vocoder.state_dict())
        self._run.accelerator.wait_for_everyone()


def _check_segments(segment_frames: int, hop_length: int, frames_per_pass: int, resolutions: Sequence[int]) -> None:
    if segment_frames > frames_per_pass:
        raise ValueError(
            f"vocoder.segment_frames={segment_frames} is above frames_per_pass={frames_per_pass}: not one segment fits"
        )
    if segment_frames * hop_length <= max(resolutions) // 2:
        raise ValueError(
            f"segments of {segment_frames} frames hold {segment_frames * hop_length} samples, too few for a window of "
            f"{max(resolutions)}; raise vocoder.segment_frames, or lower the resolutions"
        )
