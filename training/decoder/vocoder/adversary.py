"""The game against discriminators, for every trainer that makes sound: their passes, their updates, their verdicts."""
# Shapes: B segments, N samples.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audiollm.training.decoder.base import clip_gradients
from audiollm.training.loop.checkpoints import Stateful
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import ALL_PARTS, make_optimizer, set_learning_rates

from .discriminators import Judgement
from .losses import feature_matching_loss

DiscriminatorLoss = Callable[[Sequence[Judgement], Sequence[Judgement]], Tensor]
"""Of what is said of recordings, and of what was made."""
Verdict = Callable[[Sequence[Judgement]], Tensor]
"""What the other side gets for sounding made, of what is said of it."""


class Adversary:
    """Discriminators and their optimizer.

    Args:
        accelerator: the run's processes.
        config: the run; the optimizer and its schedule are the run's.
        discriminators: give a list of judgements of segments ``[B, N]``.
        loss: what they learn by.
        learning_rate: their peak. None: the run's.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: RunConfig,
        discriminators: nn.Module,
        loss: DiscriminatorLoss,
        learning_rate: float | None,
    ) -> None:
        self._accelerator = accelerator
        self._config = config
        self._module = discriminators.to(accelerator.device)
        self._loss = loss
        self._learning_rate = learning_rate
        self._prepared, self._optimizer = accelerator.prepare(
            self._module, make_optimizer(self._module, config, accelerator.device)
        )

    @property
    def extras(self) -> Mapping[str, Stateful]:
        """What a checkpoint holds of it."""
        return {"discriminators": self._module, "discriminator_optimizer": self._optimizer}

    def play(
        self, recorded_BN: Tensor, made_BN: Tensor, scale: float, is_last: bool, verdict: Verdict
    ) -> dict[str, Tensor]:
        """A pass of both sides: the discriminators' gradients are added, and the other side's losses returned.

        Args:
            recorded_BN: segments of recordings.
            made_BN: what was made in their place, with gradients.
            scale: of the discriminators' loss.
            is_last: whether this is the last pass of an update.
            verdict: what the other side learns by, beside the features.

        Returns:
            ``discriminator``, detached, ``adversarial`` and ``feature_matching``.
        """
        discriminator, recorded = self.accumulate(recorded_BN, made_BN.detach(), scale, is_last)
        made = self.judge(made_BN)
        return {
            "discriminator": discriminator,
            "adversarial": verdict(made),
            "feature_matching": feature_matching_loss(recorded, made),
        }

    def accumulate(
        self, recorded_BN: Tensor, made_BN: Tensor, scale: float, is_last: bool
    ) -> tuple[Tensor, list[Judgement]]:
        """Adds a pass's gradients to the discriminators; returns their loss, and what they say of the recordings.

        Args:
            recorded_BN: segments of recordings.
            made_BN: what was made in their place, without gradients.
            scale: of the loss.
            is_last: whether this is the last pass of an update.
        """
        # What teaches the discriminators must not teach the other side to be caught.
        assert not made_BN.requires_grad
        with nullcontext() if is_last else self._accelerator.no_sync(self._prepared):
            # Both in one forward pass: the wrapper expects one for each backward pass.
            both = torch.cat([recorded_BN, made_BN])
            pairs = [judgement.halves() for judgement in self._prepared(both)]
            recorded, made = [one for one, _ in pairs], [other for _, other in pairs]
            loss = self._loss(recorded, made)
            self._accelerator.backward(loss * scale)
        return loss.detach(), recorded

    def judge(self, made_BN: Tensor) -> list[Judgement]:
        """What the discriminators say of what was made; gradients pass through them and leave none in them."""
        # Past the data-parallel wrapper, which would wait for gradients that are not to be.
        with _frozen(self._module), self._accelerator.autocast():
            judgements: list[Judgement] = self._module(made_BN)
        return judgements

    def update(
        self, step: int, total_steps: int, passes: Sequence[tuple[Sequence[str], float | Tensor]]
    ) -> dict[str, float]:
        """Makes an update; returns what its line of the metrics says.

        Args:
            step: of the run.
            total_steps: of the run.
            passes: this process's passes: ids of their recordings, and loss of each.

        Raises:
            NonFiniteLossError: if the gradient is no number; the recordings are written down.
        """
        # The run's schedule at a peak of their own. Discriminators that start late get no warm-up: what they face is
        # past its own.
        rate = set_learning_rates(self._optimizer, step, total_steps, self._config)[ALL_PARTS]
        factor = (self._learning_rate or self._config.learning_rate) / self._config.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate * factor
        grad_norm = clip_gradients(self._accelerator, self._prepared, self._config)
        what = "gradient norm of the discriminators"
        stop_unless_finite(self._accelerator, self._config, step, what, grad_norm, passes)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {"discriminator_grad_norm": grad_norm}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through a module and leave none in it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
