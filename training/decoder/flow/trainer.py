"""Training of the flow model: codes to mel, by conditional flow matching (Lipman et al., 2022, arXiv:2210.02747)."""
# Shapes: B clips, T codes, M mel frames, S speaker size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.decoder.flow.masking import Padding
from audiollm.tokenizer.decoder.flow.matching import FlowDraws
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.training.decoder.base import DecoderRun, FrameUpdate
from audiollm.training.decoder.parts import save_part
from audiollm.training.decoder.shards import DecoderItems
from audiollm.training.loop.batches import FrameBatches, cut_by_frames, share_of_process
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.ema import ExponentialMovingAverage, averaged
from audiollm.training.loop.optimizer import make_optimizer

from .batches import FlowPass, make_pass
from .evaluation import FlowEvaluation, held_out_loss

MEAN_CLIPS = 256
EVALUATION_STEP = 0  # seeds of held-out clips: those of no update


@dataclass(frozen=True)
class FlowBatch:
    """One process's part of an update."""

    passes: list[FlowPass]
    total_frames: int  # without padding, over all processes


class FlowObjective(nn.Module):
    """The loss as a forward pass, which is what data parallelism and mixed precision wrap."""

    def __init__(self, flow: FlowModel, padding: Padding, mean_weight: float) -> None:
        super().__init__()
        self.flow = flow
        self._padding = padding
        self._mean_weight = mean_weight

    def forward(
        self,
        codes: Tensor,
        code_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker: Tensor,
        draws: FlowDraws,
    ) -> Tensor:
        """Returns the mean squared error of the velocity over valid frames and the weighted distance of the mean, a
        scalar."""
        return self.flow.loss(
            codes, code_lengths, mel, mel_lengths, speaker, draws=draws, padding=self._padding,
            mean_weight=self._mean_weight,
        )  # fmt: skip


class FlowTrainer:
    """Trains a flow model; see `DecoderTrainer`.

    Args:
        run: its surroundings.
        weights: ``state_dict`` to start from; random weights if None.

    Raises:
        ValueError: if a clip does not fit into an update.
    """

    def __init__(self, run: DecoderRun, weights: dict[str, Tensor] | None = None) -> None:
        self._run = run
        config = run.config
        device = run.accelerator.device
        self._flow = build_flow(run, weights).to(device)
        self._objective = objective = FlowObjective(self._flow, config.flow.padding, config.flow.mean_weight)
        # Of the module itself, before it is wrapped: the averages' names are those of the saved weights.
        self._ema = ExponentialMovingAverage(objective, config.flow.ema_decay)
        self._model, self._optimizer = run.accelerator.prepare(objective, make_optimizer(objective, config, device))
        self._model.train()
        self._evaluation = FlowEvaluation(run)
        clip_format = run.train_items.clip_format
        self._max_codes = max(1, int(config.max_seconds * clip_format.frame_rate))
        self._lengths = self._frames_of(run.train_items)
        self._batches = FrameBatches(self._lengths, config.frames_per_update, config.seed)
        self._total_steps = config.max_steps or self._batches.num_updates(config.num_epochs or 1.0)

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def optimizer(self) -> Any:
        return self._optimizer

    @property
    def extras(self) -> Mapping[str, Stateful]:
        return {"ema": self._ema}

    @property
    def total_steps(self) -> int:
        return self._total_steps

    def epoch(self, step: int) -> float:
        return self._batches.epoch(step)

    # ------------------------------------------------------------------- data

    def _frames_of(self, items: DecoderItems) -> list[int]:
        """Mel frames of each clip, longer ones cut to ``max_seconds``."""
        num_mel_frames = items.clip_format.num_mel_frames
        longest = num_mel_frames(self._max_codes)
        return [min(items.num_frames(index), longest) for index in range(len(items))]

    def batch(self, step: int) -> FlowBatch:
        """Reads this process's clips of an update."""
        accelerator = self._run.accelerator
        clips = self._batches.batch(step)
        positions = list(range(len(clips)))
        mine = share_of_process(positions, accelerator.process_index, accelerator.num_processes)
        lengths = [self._lengths[clip] for clip in clips]
        passes = [
            self._pass_of(
                self._run.train_items, [clips[position] for position in group], group, (self._run.config.seed, step)
            )
            for group in cut_by_frames(mine, lengths, self._run.config.frames_per_pass)
        ]
        return FlowBatch(passes, sum(lengths))

    # ----------------------------------------------------------------- update

    def update(self, step: int, batch: FlowBatch) -> dict[str, Any]:
        """Makes an update; returns its loss, learning rate, gradient norm and size."""
        run = self._run
        update = FrameUpdate(run.accelerator, run.config, self._model, self._optimizer, self._ema, self._total_steps)
        stand_in = None if batch.passes else self._stand_in(step)
        line = update.make(step, batch.passes, batch.total_frames, stand_in)
        return line | {"mel_frames": batch.total_frames}

    def _stand_in(self, step: int) -> FlowPass:
        clip = self._batches.batch(step)[0]
        return self._pass_of(self._run.train_items, [clip], [0], (self._run.config.seed, step))

    # ------------------------------------------------------------- evaluation

    def evaluate(self, step: int, folder: Path) -> dict[str, Any]:
        """Measures the averaged weights on held-out clips; see `evaluation`."""
        items = self._run.eval_items
        assert items is not None
        accelerator, config = self._run.accelerator, self._run.config
        mine = share_of_process(list(range(len(items))), accelerator.process_index, accelerator.num_processes)
        passes = [
            self._pass_of(items, clips, clips, (0, EVALUATION_STEP))
            for clips in cut_by_frames(mine, self._frames_of(items), config.frames_per_pass)
        ]
        self._flow.eval()
        try:
            with averaged(self._ema), torch.no_grad(), accelerator.autocast():
                line = {"loss": held_out_loss(accelerator, self._objective, passes)}
                made = self._evaluation.synthesize(self._flow, [clip for clip in mine if clip < config.eval_clips])
        finally:
            self._flow.train()
        return line | self._evaluation.judge(made, folder / f"step_{step:06d}")

    def _pass_of(
        self, items: DecoderItems, clips: Sequence[int], positions: Sequence[int], seeds: tuple[int, int]
    ) -> FlowPass:
        return make_pass(
            items,
            clips,
            positions,
            seeds=seeds,
            max_codes=self._max_codes,
            guidance_dropout=self._flow.config.training_guidance_dropout,
            speaker_size=self._flow.config.speaker_size,
        )

    # ----------------------------------------------------------------- result

    def save(self, folder: Path) -> None:
        """Writes the averaged weights; see `save_part`."""
        if self._run.accelerator.is_main_process:
            weights = {name.removeprefix("flow."): value for name, value in self._ema.averages().items()}
            state = self._flow.state_dict() | weights
            save_part(folder, "flow", self._run.config.decoder, state)
        self._run.accelerator.wait_for_everyone()


def build_flow(run: DecoderRun, weights: dict[str, Tensor] | None) -> FlowModel:
    """Makes the flow model that a run starts from."""
    sizes = run.config.decoder
    flow = FlowModel(sizes.flow, sizes.mel)
    if weights is not None:
        flow.load_state_dict(weights)
        return flow
    with torch.no_grad():
        # The velocity is mel minus noise, so its mean is the mel's; from zero the first hundreds of updates go there.
        bias = flow.decoder.estimator.final_proj.bias
        assert bias is not None
        mean = mean_mel(run.train_items)
        bias.copy_(mean)
        if run.config.flow.mean_weight:  # what the codes say is to be a mel too
            last = flow.length_regulator.model[-1].bias
            assert isinstance(last, Tensor)
            last.copy_(mean)
        if run.codebook is not None and run.config.flow.initialise_embedding:
            flow.input_embedding.weight.copy_(embedding_from_codebook(run.codebook, sizes.flow.embedding_size))
    return flow


def mean_mel(items: DecoderItems) -> Tensor:
    """Mean log-mel ``[num_mels]`` of the first clips."""
    mels = [items.mel(clip) for clip in range(min(len(items), MEAN_CLIPS))]
    return torch.cat(mels, dim=1).mean(dim=1)


def embedding_from_codebook(codebook: Tensor, embedding_size: int) -> Tensor:
    """Projects codebook entries onto their main directions, so that codes that sound alike get embeddings alike.

    Args:
        codebook: entries, float ``[V, D]``.
        embedding_size: E.

    Returns:
        float32 ``[V, E]``, zero in the mean and 1 in the mean square, like the random start that it replaces. Where D
        is below E the last columns are zero.
    """
    # float64 on the CPU: rounding must not decide between directions of close eigenvalues.
    centred = codebook.detach().double().cpu()
    centred = centred - centred.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    main = vectors.flip(1)[:, :embedding_size]  # eigenvalues ascend
    projected = centred @ main
    projected = F.pad(projected, (0, embedding_size - projected.shape[1]))
    return (projected / projected.square().mean().sqrt().clamp(min=1e-12)).float()
