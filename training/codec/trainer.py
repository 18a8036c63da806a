"""One update of a codec's training: what comes back must have the spectrograms of what went in.

Segments are drawn from generators of their own, losses are means over an update's segments, and codebooks are updated
once per update: so it depends neither on how many processes share it, nor on how it is cut into passes. Without
discriminators, what is learned is a floor for comparisons, in minutes on a processor.
"""
# Shapes: B segments, N samples, K codebooks, V entries.

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.training.decoder.base import clip_gradients, mean_losses
from audiollm.training.decoder.vocoder.adversary import Adversary
from audiollm.training.decoder.vocoder.losses import SpectralDistance, adversarial_loss, discriminator_loss
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import ALL_PARTS, make_optimizer, set_learning_rates
from audiollm.training.losatok.discriminators import MultiFrequencyDiscriminator
from audiollm.training.recordings.checked import Recordings

from .config import CodecTrainingConfig
from .objective import CodecObjective
from .segments import CodecPass, make_pass, segment_order
from .sqcodec import SQCodecObjective
from .wavtokenizer import WavTokenizerObjective

START_SEGMENTS = 16  # on which the encoder starts; however passes are cut
FIT_STEP = 0  # updates count from 1: segments for the start and for k-means are none of those that are trained on


def make_objective(config: CodecTrainingConfig, device: torch.device) -> CodecObjective:
    """The tokenizer that the sizes are of, with random weights."""
    if isinstance(config.tokenizer, SQCodecConfig):
        return SQCodecObjective(config, device)
    return WavTokenizerObjective(config, device)


class CodecTrainer:
    """Trains a tokenizer.

    Args:
        accelerator: the run's processes.
        config: its settings.
        clips: recordings to train on.
        eval_clips: held-out ones.

    Raises:
        ValueError: if there are fewer segments in an update than processes, or no updates with codes.
    """

    def __init__(
        self, accelerator: Accelerator, config: CodecTrainingConfig, clips: Recordings, eval_clips: Recordings | None
    ) -> None:
        self._accelerator, self._config = accelerator, config
        self._clips, self._eval_clips = clips, eval_clips
        if config.segments_per_update < accelerator.num_processes:
            raise ValueError(
                f"segments_per_update={config.segments_per_update} for {accelerator.num_processes} processes: raise it"
            )
        self._objective = make_objective(config, accelerator.device)
        self.tokenizer = self._objective.model
        self._order = segment_order(
            clips, self.tokenizer.frame_samples, config.segment_frames, config.segments_per_update, config.seed
        )
        some = make_pass(clips, self._order, FIT_STEP, range(START_SEGMENTS), self.tokenizer.frame_samples)
        self._objective.start(some.waveform.to(accelerator.device))
        self.model, self.optimizer = accelerator.prepare(
            self._objective, make_optimizer(self._objective, config, accelerator.device)
        )
        self.model.train()
        self._distance = SpectralDistance(
            config.tokenizer.sample_rate, config.resolutions, config.convergence_weight
        ).to(accelerator.device)
        self.total_steps = config.max_steps or self._order.num_updates(config.num_epochs or 1.0)
        if self._objective.first_step_with_codes > self.total_steps:
            raise ValueError(
                f"quantize_from={config.quantize_from}: the run makes {self.total_steps} updates, so its tokenizer "
                "would have no codes; lower it, or train longer"
            )
        self._adversary: Adversary | None = None
        settings = config.adversary
        if settings.start is not None and settings.start <= self.total_steps:
            discriminators = MultiFrequencyDiscriminator(settings.windows, settings.channels)
            self._adversary = Adversary(accelerator, config, discriminators, discriminator_loss, settings.learning_rate)

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds beside model and optimizer."""
        return {**self._objective.extras, **({} if self._adversary is None else self._adversary.extras)}

    def alarms(self, line: Mapping[str, Any]) -> list[str]:
        """What an evaluation gives reason to warn of: most held-out frames have one of a few codes."""
        if line["event"] != "eval" or "perplexity" not in line:  # there are none yet
            return []
        found = self._objective.collapse(line)
        return [] if found is None else [found]

    def epoch(self, step: int) -> float:
        """How often an average frame has been trained on after an update."""
        return self._order.epoch(step)

    def batch(self, step: int) -> list[CodecPass]:
        """Cuts this process's segments of an update; called from another thread, one update ahead."""
        positions = list(range(self._config.segments_per_update))
        return self._passes(step, share_of_process(positions, *self._place()))

    def _place(self) -> tuple[int, int]:
        return self._accelerator.process_index, self._accelerator.num_processes

    def _passes(self, step: int, positions: list[int]) -> list[CodecPass]:
        size = self._config.segments_per_pass
        return [
            make_pass(self._clips, self._order, step, positions[start : start + size], self.tokenizer.frame_samples)
            for start in range(0, len(positions), size)
        ]

    def update(self, step: int, batch: list[CodecPass]) -> dict[str, Any]:
        """Makes an update; returns what its line of the metrics says beside step, epoch and speed."""
        accelerator, config = self._accelerator, self._config
        with_codes = step >= self._objective.first_step_with_codes
        if step == self._objective.first_step_with_codes:
            self._objective.begin_codes(self._segments_to_fit)
        plays = self._plays(step)
        learning_rate = set_learning_rates(self.optimizer, step, self.total_steps, config)[ALL_PARTS]
        shares = [len(one.waveform) / config.segments_per_update for one in batch]
        measured: list[dict[str, Tensor]] = []
        for number, (one, share) in enumerate(zip(batch, shares, strict=True), start=1):
            # Gradients are averaged over the processes, and a pass counts as much as it has segments.
            scale = share * accelerator.num_processes
            is_last = number == len(batch)
            measured.append(self._accumulate(one.to(accelerator.device), scale, with_codes, plays, is_last))
        passes = [(one.ids, parts) for one, parts in zip(batch, measured, strict=True)]
        line: dict[str, Any] = {**mean_losses(accelerator, config, step, passes, shares)}
        by_pass = [(ids, float(parts["loss"])) for ids, parts in passes]
        line |= {"learning_rate": learning_rate, "grad_norm": clip_gradients(accelerator, self.model, config)}
        stop_unless_finite(accelerator, config, step, "gradient norm", line["grad_norm"], by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        line |= self._objective.after_update(with_codes)
        if plays:
            assert self._adversary is not None
            # After the tokenizer: both have learnt from what the other was in this update.
            line |= self._adversary.update(step, self.total_steps, by_pass)
        line["audio_seconds"] = config.segments_per_update * config.segment_frames / self.tokenizer.frame_rate
        return line

    def _plays(self, step: int) -> bool:
        start = self._config.adversary.start
        return self._adversary is not None and start is not None and step >= start

    def _accumulate(
        self, one: CodecPass, scale: float, with_codes: bool, plays: bool, is_last: bool
    ) -> dict[str, Tensor]:
        """Adds a pass's gradients; returns its losses."""
        accelerator, config = self._accelerator, self._config
        with nullcontext() if is_last else accelerator.no_sync(self.model):
            made_BN, own = self.model(one.waveform, one.positions, with_codes)
            parts = {
                "spectral": self._distance(made_BN, one.waveform),
                "waveform": (made_BN.float() - one.waveform).abs().mean(),
                **own,
            }
            loss = config.spectral_weight * parts["spectral"] + config.waveform_weight * parts["waveform"]
            loss = sum(own.values(), loss)
            if plays:
                assert self._adversary is not None
                parts |= self._adversary.play(one.waveform, made_BN, scale, is_last, adversarial_loss)
                loss = loss + config.adversary.adversarial_weight * parts["adversarial"]
                loss = loss + config.adversary.feature_weight * parts["feature_matching"]
            accelerator.backward(loss * scale)
        return {"loss": loss.detach()} | {name: part.detach() for name, part in parts.items()}

    def _segments_to_fit(self) -> list[Tensor]:
        return [one.waveform for one in self._passes(FIT_STEP, list(range(self._config.fit_segments)))]

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, Any]:
        """Gives held-out recordings back: distance of the spectrograms, and what the codebooks are used for.

        Without codes the distance is another figure: it is smaller, and what it belongs to is no tokenizer.
        """
        clips, config, model = self._eval_clips, self._config, self.tokenizer
        assert clips is not None
        with_codes = step >= self._objective.first_step_with_codes
        mine = share_of_process(list(range(min(len(clips), config.eval_clips))), *self._place())
        counts = torch.zeros(model.num_codebooks, model.codebook_size)
        distances: list[float] = []
        model.eval()
        for number in mine:
            waveform = clips.waveform(number)[: int(config.eval_seconds * model.sample_rate)]
            samples = max(config.segment_frames * model.frame_samples, len(waveform))  # a window of the spectrogram
            waveform = nn.functional.pad(waveform, (0, samples - len(waveform)))[None].to(self._accelerator.device)
            made, codes_KT = self._objective.given_back(waveform, with_codes)
            if codes_KT is not None:
                for row, seen in zip(counts, codes_KT.cpu(), strict=True):
                    row += torch.bincount(seen, minlength=model.codebook_size)
            distances.append(float(self._distance(made[:, :samples], waveform)))
        model.train()
        everyone = gather_object(list(zip(mine, distances, strict=True)))
        distance = sum(one for _, one in sorted(everyone)) / len(everyone)
        total = torch.stack(gather_object([counts])).sum(dim=0)
        if not with_codes:
            return {"mel_distance": None, "mel_distance_without_codes": distance}
        perplexities = [float(perplexity_of(row)) for row in total]
        return {
            "mel_distance": distance,
            "perplexity": [round(one, 2) for one in perplexities],
            "mean_perplexity": sum(perplexities) / len(perplexities),
            "codes_used": [int((row > 0).sum()) for row in total],
            "num_frames": int(total[0].sum()),
        }
