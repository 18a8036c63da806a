"""Training of the tokenizer, the second stage: acoustic encoder, fusion and decoder around a frozen semantic side."""
# Shapes: B segments, N samples, T tokens, D latent size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE, TOKEN_SAMPLES
from audiollm.tokenizer.losatok.losses import (
    AlignmentMode,
    alignment_loss,
    kl_loss,
    kl_per_dimension,
    log_variance_loss,
)
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.validation import ORIGINAL, QUICK_METRICS, ValidationClip, measure, write_clips
from audiollm.training.decoder.vocoder.adversary import Adversary
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.ema import averaged

from .discriminators import MultiFrequencyDiscriminator
from .figures import effective_rank, num_collapsed, spectrum
from .losses import MultiScaleMelLoss, hinge_adversarial_loss, hinge_discriminator_loss
from .plots import draw_dimensions, draw_spectra
from .segments import SegmentPass
from .trainer import LoSATokRun, StageTrainer

DECODED = "decoded"
PICTURED = MelConfig(sample_rate=SAMPLE_RATE)
"""The spectrogram of pictures."""
KL_BY_DIMENSION = "kl_by_dimension"


class TokenizerObjective(nn.Module):
    """Tokenizer and losses of its latents as one forward pass, which data parallelism and mixed precision wrap."""

    def __init__(self, tokenizer: LoSATok, alignment: AlignmentMode, kl_clamp: float) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._alignment = alignment
        self._kl_clamp = kl_clamp

    def forward(self, waveforms_BN: Tensor, noise_BTD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the waveforms ``[B, N]`` made of drawn latents, and losses and divergences of the latents."""
        encoded = self.tokenizer.analyze(waveforms_BN)
        made_BN = self.tokenizer.decode_batch(encoded.sampled(noise_BTD))
        divergence_BTD = kl_per_dimension(encoded)
        return made_BN, {
            "alignment": alignment_loss(encoded, self._alignment),
            "kl": divergence_BTD.sum(dim=-1).mean(),
            "clamped_kl": kl_loss(divergence_BTD, self._kl_clamp),
            "log_variance": log_variance_loss(encoded),
            KL_BY_DIMENSION: divergence_BTD.mean(dim=(0, 1)),
        }


class TokenizerTrainer(StageTrainer):
    """Trains a tokenizer around its frozen semantic side.

    Args:
        run: its surroundings.
        tokenizer: to train.

    Raises:
        ValueError: if segments are too short for the windows that look at them.
    """

    def __init__(self, run: LoSATokRun, tokenizer: LoSATok) -> None:
        accelerator, config, settings = run.accelerator, run.config, run.config.tokenizer
        self._settings = settings
        _check_segments(config.segment_tokens, (*settings.mel_windows, *settings.discriminator_windows))
        self._tokenizer = tokenizer.to(accelerator.device)
        objective = TokenizerObjective(self._tokenizer, settings.alignment, settings.kl_clamp)
        super().__init__(run, objective, tokenizer.latent_size)
        self._mel_loss = MultiScaleMelLoss(SAMPLE_RATE, settings.mel_windows).to(accelerator.device)
        self._adversary: Adversary | None = None
        start = settings.discriminator_start
        if start is not None and start <= self.total_steps:
            discriminators = MultiFrequencyDiscriminator(
                settings.discriminator_windows, settings.discriminator_channels
            )
            rate = settings.discriminator_learning_rate
            self._adversary = Adversary(accelerator, config, discriminators, hinge_discriminator_loss, rate)

    @property
    def extras(self) -> Mapping[str, Stateful]:
        return {**super().extras, **({} if self._adversary is None else self._adversary.extras)}

    def _plays(self, step: int) -> bool:
        start = self._settings.discriminator_start
        return self._adversary is not None and start is not None and step >= start

    def accumulate(self, step: int, one: SegmentPass, scale: float, is_last: bool) -> dict[str, Tensor]:
        settings = self._settings
        made_BN, parts = self.model(one.waveforms, one.noise)
        parts = {"mel": self._mel_loss(made_BN, one.waveforms), **parts}
        loss = settings.mel_weight * parts["mel"] + settings.alignment_weight * parts["alignment"]
        loss = loss + settings.kl_weight * parts.pop("clamped_kl")
        loss = loss + settings.log_variance_weight * parts["log_variance"]
        if self._plays(step):
            assert self._adversary is not None
            parts |= self._adversary.play(one.waveforms, made_BN, scale, is_last, hinge_adversarial_loss)
            loss = loss + settings.adversarial_weight * parts["adversarial"]
            loss = loss + settings.feature_weight * parts["feature_matching"]
        self.run.accelerator.backward(loss * scale)
        return {"loss": loss, **parts}

    def told(self, vectors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"collapsed_dimensions": num_collapsed(vectors[KL_BY_DIMENSION], self.run.config.collapsed_below)}

    def after_update(self, step: int, passes: Sequence[tuple[Sequence[str], Tensor]]) -> dict[str, Any]:
        if not self._plays(step):
            return {}
        assert self._adversary is not None
        # After the tokenizer: both have learnt from what the other was in this update.
        return self._adversary.update(step, self.total_steps, passes)

    # ------------------------------------------------------------- evaluation

    @torch.no_grad()
    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Distances of held-out recordings' sound, and how latents use their dimensions; sounds and pictures."""
        recordings = self.run.held_out
        assert recordings is not None
        rows: list[dict[str, Any]] = []
        self._tokenizer.eval()
        with averaged(self._ema):
            for number, waveform in self.held_out_clips():
                encoded = self._tokenizer.analyze(waveform[None].to(self.run.accelerator.device))
                [made] = self._tokenizer.decode(encoded.mean)
                length = min(len(made), len(waveform))
                sounds = {ORIGINAL: waveform[:length], DECODED: made[:length]}
                rows.append(
                    {
                        "number": number,
                        "clip": ValidationClip(recordings.id(number), None, sounds),
                        "kl": kl_per_dimension(encoded)[0].cpu(),
                        "alignment": float(alignment_loss(encoded, self._settings.alignment)),
                        "semantic_low": encoded.semantic_low[0].float().cpu(),
                        "latents": encoded.mean[0].float().cpu(),
                    }
                )
        self._tokenizer.train()
        everyone = sorted(gather_object(rows), key=lambda row: row["number"])
        lines: list[dict[str, Any]] = [{}]
        if self.run.accelerator.is_main_process and everyone:
            lines = [_tell(everyone, folder / f"step_{step:06d}", self.run.config.collapsed_below)]
        return broadcast_object_list(lines)[0]

    def write_model(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(folder)


def _tell(rows: list[dict[str, Any]], folder: Path, below: float) -> dict[str, Any]:
    clips = [row["clip"] for row in rows]
    result = measure(clips, SAMPLE_RATE, metrics=QUICK_METRICS)
    write_clips(clips, PICTURED, folder)
    kl_D = torch.cat([row["kl"] for row in rows]).mean(dim=0)
    features = {name: torch.cat([row[name] for row in rows]) for name in ("semantic_low", "latents")}
    line = dict(result["systems"][DECODED])
    line |= {
        "alignment": sum(row["alignment"] for row in rows) / len(rows),
        "kl": float(kl_D.sum()),
        "collapsed_dimensions": num_collapsed(kl_D, below),
        "effective_rank": effective_rank(features["latents"]),
        "effective_rank_semantic": effective_rank(features["semantic_low"]),
    }
    draw_dimensions(folder / "dimensions.png", kl_D.tolist(), below)
    draw_spectra(folder / "spectra.png", {name: spectrum(one) for name, one in features.items()})
    write_json(folder / "metrics.json", {**result, "latents": line, KL_BY_DIMENSION: kl_D.tolist()})
    return line


def _check_segments(segment_tokens: int, windows: tuple[int, ...]) -> None:
    num_samples = segment_tokens * TOKEN_SAMPLES
    if num_samples <= max(windows) // 2:
        raise ValueError(
            f"segments of {segment_tokens} tokens hold {num_samples} samples, too few for a window of {max(windows)}: "
            "raise segment_tokens, or lower tokenizer.mel_windows and tokenizer.discriminator_windows"
        )
