"""Conditional flow matching (Lipman et al., 2023, arXiv:2210.02747) with classifier-free guidance.

Noise z becomes a mel x along x_t = (1 - (1 - sigma) t) z + t x; the estimator learns the velocity x - (1 - sigma) z.
With a prior around the mean, z is noise around what the codes say (as in Grad-TTS, Popov et al., 2021,
arXiv:2105.06337).

The path, its random numbers and guidance are those of other networks too, whatever the shape of what they make.

Shapes: B rows, C mel channels, M frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import FlowConfig

from .estimator import Estimator
from .masking import FrameMask
from .solvers import Integration, Velocity, sway

MAX_PROMPT_SHARE = 0.8
"""In training, at most this share of a mel is given as its beginning."""


@dataclass(frozen=True)
class FlowDraws:
    """The random numbers of one training step."""

    t: Tensor
    """Uniform in [0, 1), before the schedule warps it, float32 ``[B]``."""
    z: Tensor
    """Standard normal ``[B, C, M]``, or of whatever shape the target has."""
    keep_condition: Tensor
    """bool ``[B]``; False trains the row without condition (codes, speaker and prompt), for guidance."""
    prompt_frames: Tensor
    """Frames at the beginning of each target that are given, int64 ``[B]``."""


def on_path(source: Tensor, target: Tensor, t: Tensor, sigma_min: float) -> tuple[Tensor, Tensor]:
    """The point of the path at a time, and the velocity there, which is the same at every time.

    Args:
        source: where the path begins, float32 ``[B, …]``.
        target: where it ends, of the same shape.
        t: times in [0, 1], float32 ``[B]``.
        sigma_min: share of the source that is left at the end.
    """
    t = t.reshape(-1, *[1] * (target.dim() - 1))
    return (1 - (1 - sigma_min) * t) * source + t * target, target - (1 - sigma_min) * source


class ConditionalFlow(nn.Module):
    """Carries noise to mel frames with a learned velocity."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.mean_prior = config.mean_prior
        self.sigma_min = config.sigma_min
        self.sway = config.sway
        self.guidance_dropout = config.training_guidance_dropout
        self.estimator = Estimator(config.estimator, config.num_mels)

    def warp(self, t: Tensor) -> Tensor:
        """Maps uniform times to the schedule, which with the cosine takes smaller steps at the start."""
        return sway(t, self.sway)

    def source(self, noise: Tensor, mu: Tensor) -> Tensor:
        """Where the flow starts: standard normal noise, or with a prior around the mean, noise around ``mu``."""
        return noise if self.mean_prior is None else mu.detach().to(noise.dtype) + self.mean_prior * noise

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        mask: FrameMask | None,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        integration: Integration,
    ) -> Tensor:
        """Integrates from noise to mel.

        Args:
            noise: float32 ``[B, C, M]``.
            mask: valid frames; None: all.
            mu: what the codes say ``[B, C, M]``.
            speaker: projected speaker vector ``[B, C]``.
            condition: given mel frames, elsewhere 0, ``[B, C, M]``.
            integration: solver, times and guidance.

        Returns:
            Log-mel ``[B, C, M]``, float32 unless the model is in float64.
        """
        velocity = self._guided(mask, mu, speaker, condition, integration)
        return integration.solve(self._start(noise, mu), velocity)

    @torch.no_grad()
    def trace(
        self,
        noise: Tensor,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        integration: Integration,
        *,
        known: Tensor | None = None,
    ) -> Tensor:
        """Integrates as `sample`, and returns every point on the way at which the velocity was asked for.

        Args:
            noise: float32 ``[B, C, M]``.
            mu: what the codes say ``[B, C, M]``.
            speaker: projected speaker vector ``[B, C]``.
            condition: given mel frames, elsewhere 0, ``[B, C, M]``.
            integration: solver, times and guidance.
            known: points of the first K frames ``[evaluations + 1, B, C, K]``, from an earlier trace. Those frames
                repeat the way they went then, and the others see them on it.

        Returns:
            ``[evaluations + 1, B, C, M]``; the first point is where the flow starts, the last one the log-mel.
        """
        velocity = self._guided(None, mu, speaker, condition, integration)
        points: list[Tensor] = []

        def recorded(x: Tensor, t: Tensor) -> Tensor:
            points.append(_with_known(x, known, len(points)))
            return velocity(points[-1], t)

        end = integration.solve(self._start(noise, mu), recorded)
        return torch.stack([*points, _with_known(end, known, len(points))])

    def _guided(
        self, mask: FrameMask | None, mu: Tensor, speaker: Tensor, condition: Tensor, integration: Integration
    ) -> GuidedVelocity:
        """The velocity under what `sample` takes; ``mu``'s dtype is the network's."""
        plain = doubled = partial(self._velocity, mask, mu, speaker, condition)
        if integration.guidance:
            # Rows B.. know nothing, as in training without a condition.
            mu, speaker, condition = (torch.cat([part, torch.zeros_like(part)]) for part in (mu, speaker, condition))
            doubled = partial(self._velocity, None if mask is None else mask.repeated(2), mu, speaker, condition)
        return GuidedVelocity(plain, doubled, integration)

    def _velocity(
        self, mask: FrameMask | None, mu: Tensor, speaker: Tensor, condition: Tensor, x: Tensor, t: Tensor
    ) -> Tensor:
        return self.estimator(x.to(mu.dtype), mask, mu, t[None], speaker, condition).to(x.dtype)

    def _start(self, noise: Tensor, mu: Tensor) -> Tensor:
        # Exact even if the model is bfloat16.
        return self.source(noise.to(torch.promote_types(mu.dtype, torch.float32)), mu)

    def draw(self, target: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> FlowDraws:
        """Draws the random numbers of one training step, in the order t, z, keep_condition, prompt_frames.

        Args:
            target: log-mel ``[B, C, M]``; gives shape and device.
            lengths: valid frames, int64 ``[B]``.
            generator: on any device; the draws are moved to that of the target.
        """
        rows = len(target)
        source = target.device if generator is None else generator.device

        def uniform() -> Tensor:
            return torch.rand(rows, generator=generator, device=source)

        t = uniform()
        z = torch.randn(target.shape, generator=generator, device=source)
        keep_condition = uniform() > self.guidance_dropout
        has_prompt = uniform() < 0.5
        longest = (lengths.to(source) * MAX_PROMPT_SHARE).long()
        prompt_frames = (uniform() * (longest + 1)).long() * has_prompt
        return FlowDraws(*(part.to(target.device) for part in (t, z, keep_condition, prompt_frames)))

    def loss(
        self, target: Tensor, lengths: Tensor, mask: FrameMask | None, mu: Tensor, speaker: Tensor, draws: FlowDraws
    ) -> Tensor:
        """Mean squared error of the velocity over the valid frames.

        Args:
            target: log-mel ``[B, C, M]``.
            lengths: its valid frames, int64 ``[B]``.
            mask: the same as a mask; None: all.
            mu: what the codes say ``[B, C, M]``.
            speaker: projected speaker vector ``[B, C]``.
            draws: from `draw`.

        Returns:
            Scalar, float32.
        """
        t = self.warp(draws.t.float())  # path and target in float32, whatever the model's dtype
        frames = torch.arange(target.shape[2], device=target.device)
        is_given = (frames < draws.prompt_frames[:, None])[:, None]
        keep = draws.keep_condition[:, None, None].to(mu.dtype)
        z, target = self.source(draws.z.float(), mu), target.float()
        point, true_velocity = on_path(z, target, t, self.sigma_min)
        velocity = self.estimator(
            point.to(mu.dtype),
            mask,
            mu * keep,
            t,
            speaker * keep[:, :, 0],
            (target * is_given).to(mu.dtype) * keep,
        )
        error = velocity.float() - true_velocity
        if mask is not None:
            error = error * mask.is_valid
        # A mean over valid values: one over the padded batch would weigh a row by its neighbours' lengths.
        return error.square().sum() / (lengths.sum() * target.shape[1])


class GuidedVelocity:
    """The velocity under a known condition, guided where the integration says so.

    Args:
        plain: the network's velocity of rows at a time, a scalar.
        doubled: of the same rows twice over: the first half under the condition, the second without. Both branches are
            one batch; it is asked only where the integration guides.
        integration: says when, and how strongly, to guide.
    """

    def __init__(self, plain: Velocity, doubled: Velocity, integration: Integration) -> None:
        self._plain, self._doubled, self._integration = plain, doubled, integration

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        guidance = self._integration.guidance
        if not self._integration.is_guided(t):
            return self._plain(x, t)
        informed, uninformed = self._doubled(torch.cat([x, x]), t).chunk(2)
        return (1 + guidance) * informed - guidance * uninformed


def _with_known(x: Tensor, known: Tensor | None, step: int) -> Tensor:
    """Replaces the first frames by their known state."""
    return x if known is None else torch.cat([known[step], x[:, :, known.shape[-1] :]], dim=2)
