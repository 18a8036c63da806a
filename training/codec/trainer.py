"""One update of a codec's training: what comes back must have the spectrograms of what went in.

No discriminators: what is learned is a floor for comparisons, in minutes on a processor. Segments are drawn from
generators of their own, losses are means over an update's segments, and codebooks are updated once per update: so it
depends neither on how many processes share it, nor on how it is cut into passes.
"""
# Shapes: B segments, N samples, T frames, D feature size, V entries.

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from audiollm.tokenizer.quantizer.usage import perplexity_of
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer
from audiollm.training.decoder.vocoder.losses import SpectralDistance
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import ALL_PARTS, make_optimizer, set_learning_rates
from audiollm.training.recordings.checked import Recordings

from .config import CodecTrainingConfig
from .segments import CodecPass, make_pass, segment_order
from .start import scale_features, scale_to_sound

START_SEGMENTS = 16  # on which the encoder starts; however passes are cut
FIT_STEP = 0  # updates count from 1: segments for the start and for k-means are none of those that are trained on


class CodecObjective(nn.Module):
    """The tokenizer there and back as one forward pass, which is what data parallelism and mixed precision wrap."""

    def __init__(self, model: WavTokenizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms_BN: Tensor, positions_B: Tensor, with_codes: bool) -> tuple[Tensor, Tensor]:
        """Returns what comes back, ``[B, N]``, and the commitment loss."""
        features_BTD = self.model.features(waveforms_BN)
        if not with_codes:
            return self.model.synthesize(features_BTD), features_BTD.new_zeros((), dtype=torch.float32)
        output = self.model.quantizer(features_BTD, example_ids_B=positions_B)
        return self.model.synthesize(output.quantized), output.loss


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
        self.tokenizer = WavTokenizer(
            config.tokenizer,
            ema_decay=config.codebook_decay,
            restart_interval=config.restarts_every,
            commit_coefficient=config.commitment_weight,
        ).to(accelerator.device)
        self.tokenizer.quantizer.defer_updates()
        self._order = segment_order(
            clips, self.tokenizer.frame_samples, config.segment_frames, config.segments_per_update, config.seed
        )
        some = make_pass(clips, self._order, FIT_STEP, range(START_SEGMENTS), self.tokenizer.frame_samples)
        scale_to_sound(self.tokenizer.encoder, some.waveform.to(accelerator.device))
        objective = CodecObjective(self.tokenizer)
        self.model, self.optimizer = accelerator.prepare(
            objective, make_optimizer(objective, config, accelerator.device)
        )
        self.model.train()
        self._distance = SpectralDistance(
            config.tokenizer.sample_rate, config.resolutions, config.convergence_weight
        ).to(accelerator.device)
        self.total_steps = config.max_steps or self._order.num_updates(config.num_epochs or 1.0)
        if config.quantize_from > self.total_steps:
            raise ValueError(
                f"quantize_from={config.quantize_from}: the run makes {self.total_steps} updates, so its tokenizer "
                "would have no codes; lower it, or train longer"
            )

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
        with_codes = step >= config.quantize_from
        if step == config.quantize_from:
            self._fit()
        learning_rate = set_learning_rates(self.optimizer, step, self.total_steps, config)[ALL_PARTS]
        shares = [len(one.waveform) / config.segments_per_update for one in batch]
        measured: list[dict[str, Tensor]] = []
        for number, (one, share) in enumerate(zip(batch, shares, strict=True), start=1):
            # Gradients are averaged over the processes, and a pass counts as much as it has segments.
            scale = share * accelerator.num_processes
            measured.append(self._accumulate(one.to(accelerator.device), scale, with_codes, number == len(batch)))
        names = list(measured[0])
        table = torch.stack([torch.stack([parts[name] for name in names]) for parts in measured])
        means = torch.tensor(shares, device=table.device) @ table
        line: dict[str, Any] = dict(zip(names, accelerator.reduce(means, "sum").tolist(), strict=True))
        by_pass = [(one.ids, float(parts["loss"])) for one, parts in zip(batch, measured, strict=True)]
        for name, value in line.items():
            stop_unless_finite(accelerator, config, step, name, value, by_pass)
        norm = accelerator.clip_grad_norm_(self.model.parameters(), config.max_grad_norm or float("inf"))
        line |= {"learning_rate": learning_rate, "grad_norm": float(norm)}
        stop_unless_finite(accelerator, config, step, "gradient norm", line["grad_norm"], by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if with_codes:
            updates = self.tokenizer.quantizer.apply_update()
            line["perplexity"] = [round(one.perplexity, 2) for one in updates]
            line["codes_restarted"] = sum(one.num_restarted for one in updates)
        line["audio_seconds"] = config.segments_per_update * config.segment_frames / self.tokenizer.frame_rate
        return line

    def _accumulate(self, one: CodecPass, scale: float, with_codes: bool, is_last: bool) -> dict[str, Tensor]:
        """Adds a pass's gradients; returns its losses."""
        accelerator, config = self._accelerator, self._config
        with nullcontext() if is_last else accelerator.no_sync(self.model):
            made_BN, commitment = self.model(one.waveform, one.positions, with_codes)
            parts = {
                "spectral": self._distance(made_BN, one.waveform),
                "waveform": (made_BN.float() - one.waveform).abs().mean(),
                "commitment": commitment,
            }
            loss = parts["spectral"] + config.waveform_weight * parts["waveform"] + commitment
            accelerator.backward(loss * scale)
        return {"loss": loss.detach()} | {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def _fit(self) -> None:
        """Places the entries among the features; every process sees the same, and takes those of the first."""
        device = self._accelerator.device
        passes = self._passes(FIT_STEP, list(range(self._config.fit_segments)))
        features = torch.cat([self.tokenizer.features(one.waveform.to(device)).flatten(0, 1) for one in passes])
        features = scale_features(self.tokenizer, broadcast(features))
        self.tokenizer.quantizer.fit(features, seed=self._config.seed)
        for tensor in self.tokenizer.quantizer.state_dict().values():
            tensor.copy_(broadcast(tensor))

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, Any]:
        """Gives held-out recordings back: distance of the spectrograms, and what the codebooks are used for.

        Without codes the distance is another figure: it is smaller, and what it belongs to is no tokenizer.
        """
        clips, config, model = self._eval_clips, self._config, self.tokenizer
        assert clips is not None
        mine = share_of_process(list(range(min(len(clips), config.eval_clips))), *self._place())
        counts = torch.zeros(model.num_codebooks, model.codebook_size)
        distances: list[float] = []
        model.eval()
        for number in mine:
            waveform = clips.waveform(number)[: int(config.eval_seconds * model.sample_rate)]
            samples = max(config.segment_frames * model.frame_samples, len(waveform))  # a window of the spectrogram
            waveform = nn.functional.pad(waveform, (0, samples - len(waveform)))[None].to(self._accelerator.device)
            entries = model.features(waveform)
            if step >= config.quantize_from:
                codes = model.quantizer.encode(entries)
                entries = model.quantizer.decode(codes)
                for row, seen in zip(counts, codes[0].cpu(), strict=True):
                    row += torch.bincount(seen, minlength=model.codebook_size)
            made = model.synthesize(entries)[:, :samples]
            distances.append(float(self._distance(made, waveform)))
        model.train()
        everyone = gather_object(list(zip(mine, distances, strict=True)))
        distance = sum(one for _, one in sorted(everyone)) / len(everyone)
        total = torch.stack(gather_object([counts])).sum(dim=0)
        if step < config.quantize_from:
            return {"mel_distance": None, "mel_distance_without_codes": distance}
        return {
            "mel_distance": distance,
            "perplexity": [round(float(perplexity_of(row)), 2) for row in total],
            "codes_used": [int((row > 0).sum()) for row in total],
            "num_frames": int(total[0].sum()),
        }
