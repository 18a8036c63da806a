"""The last stage: reconstruction codes and the flow decoder learn, the reasoning branch is frozen.

Losses belong to the whole update, and codebooks move once for each: so neither the number of processes nor the size of
a pass changes it.
"""
# Shapes: K codebooks.

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from audiollm.data.files.atomic import atomic_folder
from audiollm.tokenizer.reasoningcodec.configuration import BRANCHES, RECONSTRUCTION, SAMPLE_RATE
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.audio_tokenizer.monitor import CodebookMonitors
from audiollm.training.decoder.base import clip_gradients
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import ALL_PARTS, make_optimizer, set_learning_rates
from audiollm.training.recordings.checked import Recordings

from ..objective import train_only
from ..stage_trainer import StageRun, StageTrainer, update_codebooks
from .evaluation import evaluate_reconstruction
from .objective import FrozenParts, ReconstructionObjective, weighted_shares
from .segments import ReconstructionSegments, ReconstructionUpdate, num_codes, totals_of
from .start import check_restarts, codec_to_train, parts_to_train

ADVICE = "lower learning_rate, raise global_batch_size or reconstruction.commitment_weight, or use smaller quantizers"


def make_reconstruction_trainer(run: StageRun) -> StageTrainer:
    """The trainer of ``stage: reconstruction``: puts the codec together, and reads the recordings.

    Raises:
        DataError: listing the recordings that cannot be trained on.
        ValueError: if there is no SQCodec, or for settings that do not fit the codec.
    """
    started_from = run.codec.fingerprint()
    codec = codec_to_train(run.codec, run.config.reconstruction)
    least = codec.config.reasoning_samples / SAMPLE_RATE

    def read(source: str) -> Recordings:
        return Recordings(
            source,
            sample_rate=SAMPLE_RATE,
            mono=run.config.mono,
            min_seconds=least,  # a reasoning code
            on_bad=run.config.on_bad,
            cache_bytes=run.config.cache_megabytes * 2**20,
            process_index=run.accelerator.process_index,
            num_processes=run.accelerator.num_processes,
            gather=gather_object,
            progress=run.accelerator.is_main_process,
        )

    held_out = None if run.config.eval_data is None else read(run.config.eval_data)
    return ReconstructionTrainer(run, codec, started_from, read(run.config.train_data), held_out)


class ReconstructionTrainer(StageTrainer):
    """Trains reconstruction branch, heads and flow.

    Args:
        run: its surroundings.
        codec: to train, see `codec_to_train`.
        started_from: fingerprint of the codec that the run starts from.
        recordings: to train on.
        held_out: to evaluate on, if any.

    Raises:
        ValueError: if there are fewer segments in an update than processes, or settings do not fit the codec.
    """

    def __init__(
        self,
        run: StageRun,
        codec: ReasoningCodec,
        started_from: str,
        recordings: Recordings,
        held_out: Recordings | None,
    ) -> None:
        config, accelerator = run.config, run.accelerator
        self._run, self._held_out = run, held_out
        self._settings = config.reconstruction
        if config.global_batch_size < accelerator.num_processes:
            raise ValueError(
                f"an update has global_batch_size={config.global_batch_size} segments for {accelerator.num_processes} "
                "processes: raise it, or start fewer"
            )
        self._segments = ReconstructionSegments(
            recordings, codec.config, self._settings, config.global_batch_size, config.seed
        )
        check_restarts(codec, config.global_batch_size * num_codes(self._segments.segment_frames))
        self.total_steps = config.max_steps or self._segments.order.num_updates(config.num_epochs or 1.0)
        self.codec = codec.to(accelerator.device)
        train_only(self.codec, *parts_to_train(self.codec))
        quantizers = {name: self.codec.reconstruction.quantizer(name).residual for name in BRANCHES}
        for one in quantizers.values():
            one.defer_updates()
        self._quantizers = quantizers
        self._monitors = CodebookMonitors(codec.config.group_sizes(RECONSTRUCTION), ADVICE)
        self.extras = {**{f"{name}_quantizer": one for name, one in quantizers.items()}, "monitors": self._monitors}
        self._frozen = FrozenParts(self.codec)
        self._objective = ReconstructionObjective(self.codec)
        self.model, self.optimizer = accelerator.prepare(
            self._objective, make_optimizer(self._objective, config, accelerator.device)
        )
        self.model.train()
        assert codec.sqcodec is not None
        made_of = {"codec": started_from, "sqcodec": codec.sqcodec.fingerprint()}
        self.data_metadata = {**recordings.facts, **made_of}
        self.held_out_metadata = {} if held_out is None else held_out.facts

    def epoch(self, step: int) -> float:
        return self._segments.order.epoch(step)

    # ----------------------------------------------------------------- updates

    def batch(self, step: int) -> ReconstructionUpdate:
        """This process's segments of an update, and what those of all come to."""
        accelerator, config = self._run.accelerator, self._run.config
        positions = list(range(config.global_batch_size))
        mine = share_of_process(positions, accelerator.process_index, accelerator.num_processes)
        size = config.micro_batch_size
        return ReconstructionUpdate(
            [self._segments.make_pass(step, mine[start : start + size]) for start in range(0, len(mine), size)],
            totals_of(self._segments.draws(step), self._segments.segment_frames),
        )

    def update(self, step: int, batch: ReconstructionUpdate) -> dict[str, Any]:
        accelerator, config = self._run.accelerator, self._run.config
        rate = set_learning_rates(self.optimizer, step, self.total_steps, config)[ALL_PARTS]
        sums: dict[str, Tensor] = {}
        by_pass: list[tuple[list[str], Tensor]] = []
        for number, one in enumerate(batch.passes, start=1):
            moved = one.to(accelerator.device)
            shares = weighted_shares(self._settings, one.totals, batch.totals)
            with nullcontext() if number == len(batch.passes) else accelerator.no_sync(self.model):
                parts = self.model(self._frozen(moved.waveforms), moved)
                loss = sum(weight * share * parts[name] for name, (weight, share) in shares.items())
                # Gradients are averaged over the processes.
                accelerator.backward(loss * accelerator.num_processes)
            by_pass.append((one.ids, loss.detach()))
            for name, (_, share) in shares.items():
                sums[name] = sums.get(name, 0.0) + share * parts[name].detach().double()
        names = list(sums)
        means = accelerator.reduce(torch.stack([sums[name] for name in names]), "sum").tolist()
        line: dict[str, Any] = dict(zip(names, means, strict=True))
        weights = {name: weight for name, (weight, _) in shares.items()}
        line = {"loss": sum(weights[name] * line[name] for name in names), **line}
        stop_unless_finite(accelerator, config, step, "loss", line["loss"], by_pass)
        norm = clip_gradients(accelerator, self.model, config)
        stop_unless_finite(accelerator, config, step, "gradient norm", norm, by_pass)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {
            **line,
            **update_codebooks(self._quantizers.values()),
            "learning_rate": rate,
            "grad_norm": norm,
            "num_codes": batch.totals.num_codes,
            "audio_seconds": batch.totals.num_frames / 25,
        }

    def alarms(self, line: Mapping[str, Any]) -> list[str]:
        return self._monitors.update(line) if line["event"] == "train" else []

    # -------------------------------------------------------------- evaluation

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        assert self._held_out is not None
        self._objective.eval()
        try:
            return evaluate_reconstruction(
                self._run, self.codec, self._frozen, self._objective, self._held_out, folder / f"step_{step:06d}"
            )
        finally:
            self.model.train()

    def save(self, folder: Path) -> None:
        if self._run.accelerator.is_main_process:
            with atomic_folder(folder) as temporary:
                self.codec.save_pretrained(temporary)
        self._run.accelerator.wait_for_everyone()
