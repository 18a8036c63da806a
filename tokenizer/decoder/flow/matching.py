"""Conditional flow matching (Lipman et al., 2023, arXiv:2210.02747) with classifier-free guidance.

Noise z becomes a mel x along x_t = (1 - (1 - sigma) t) z + t x; the estimator learns the velocity x - (1 - sigma) z.
With a prior around the mean, z is noise around what the codes say (as in Grad-TTS, Popov et al., 2021,
arXiv:2105.06337).

Shapes: B rows, C mel channels, M frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import FlowConfig

from .estimator import Estimator
from .masking import FrameMask
from .solvers import Integration, sway

MAX_PROMPT_SHARE = 0.8
"""In training, at most this share of a mel is given as its beginning."""


@dataclass(frozen=True)
class FlowDraws:
    """The random numbers of one training step."""

    t: Tensor
    """Uniform in [0, 1), before the schedule warps it, float32 ``[B]``."""
    z: Tensor
    """Standard normal ``[B, C, M]``."""
    keep_condition: Tensor
    """bool ``[B]``; False trains the row without codes, speaker and prompt, for guidance."""
    prompt_frames: Tensor
    """Frames at the beginning of each target that are given, int64 ``[B]``."""


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
        velocity = _GuidedVelocity(self.estimator, mask, mu, speaker, condition, integration)
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
        velocity = _GuidedVelocity(self.estimator, None, mu, speaker, condition, integration)
        points: list[Tensor] = []

        def recorded(x: Tensor, t: Tensor) -> Tensor:
            points.append(_with_known(x, known, len(points)))
            return velocity(points[-1], t)

        end = integration.solve(self._start(noise, mu), recorded)
        return torch.stack([*points, _with_known(end, known, len(points))])

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
        point = (1 - (1 - self.sigma_min) * t[:, None, None]) * z + t[:, None, None] * target
        velocity = self.estimator(
            point.to(mu.dtype),
            mask,
            mu * keep,
            t,
            speaker * keep[:, :, 0],
            (target * is_given).to(mu.dtype) * keep,
        )
        error = velocity.float() - (target - (1 - self.sigma_min) * z)
        if mask is not None:
            error = error * mask.is_valid
        # A mean over valid values: one over the padded batch would weigh a row by its neighbours' lengths.
        return error.square().sum() / (lengths.sum() * target.shape[1])


class _GuidedVelocity:
    """The velocity under a known condition, guided where the integration says so.

    Args:
        estimator: the network.
        mask: valid frames; None: all.
        mu: what the codes say ``[B, C, M]``; its dtype is the network's.
        speaker: projected speaker vector ``[B, C]``.
        condition: given mel frames, elsewhere 0, ``[B, C, M]``.
        integration: says when, and how strongly, to guide.
    """

    def __init__(
        self,
        estimator: Estimator,
        mask: FrameMask | None,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        integration: Integration,
    ) -> None:
        self._estimator, self._integration = estimator, integration
        self._plain = (mask, mu, speaker, condition)
        if integration.guidance:
            # Both branches as one batch: rows B.. know nothing, as in training without a condition.
            mu, speaker, condition = (torch.cat([part, torch.zeros_like(part)]) for part in (mu, speaker, condition))
            self._doubled = (None if mask is None else mask.repeated(2), mu, speaker, condition)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        guidance = self._integration.guidance
        if not self._integration.is_guided(t):
            return self._evaluate(x, t, self._plain)
        informed, uninformed = self._evaluate(torch.cat([x, x]), t, self._doubled).chunk(2)
        return (1 + guidance) * informed - guidance * uninformed

    def _evaluate(self, x: Tensor, t: Tensor, inputs: tuple[FrameMask | None, Tensor, Tensor, Tensor]) -> Tensor:
        mask, mu, speaker, condition = inputs
        return self._estimator(x.to(mu.dtype), mask, mu, t[None], speaker, condition).to(x.dtype)


def _with_known(x: Tensor, known: Tensor | None, step: int) -> Tensor:
    """Replaces the first frames by their known state."""
    return x if known is None else torch.cat([known[step], x[:, :, known.shape[-1] :]], dim=2)
