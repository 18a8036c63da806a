"""Flow matching from noise to an SQCodec's latents, under the condition of what codes say.

Noise z becomes latents x along (1 - (1 - sigma) t) z + t x. The first latents may be given: they stand at the
beginning of the target, and the others are made to follow on.
"""
# Shapes: B rows, T reconstruction codes, F frames of 25 Hz (two for each code), L latent size, D feature size.

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.flow.solvers import Integration

from .configuration import RECONSTRUCTION_FRAMES, ReasoningCodecConfig
from .dit import DiT

SIGMA_MIN = 1e-4
PADDING, GIVEN, WANTED = 0, 1, 2
"""What a frame is, in the masks of the loss."""
_WEIGHTS = {PADDING: 0.01, GIVEN: 0.0, WANTED: 1.0}


class LatentFlow(nn.Module):
    """The decoder: what codes say to latents."""

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.latent_size = config.latent_size
        self.condition = nn.Linear(config.size, config.size)
        self.zero_condition = nn.Parameter(0.02 * torch.randn(config.size))
        self.estimator = DiT(config)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.condition.weight.dtype

    def conditions(self, said_BTD: Tensor, num_frames: int | Tensor | None = None) -> Tensor:
        """The condition of each frame, ``[B, F, D]``.

        Args:
            said_BTD: what reconstruction codes say, with the influence of the reasoning codes added.
            num_frames: of sound, of all rows or int64 ``[B]`` of each; the frames behind are padding, as a batch in
                training has it. None: all are.
        """
        condition_BFD: Tensor = self.condition(said_BTD.to(self.dtype)).repeat_interleave(RECONSTRUCTION_FRAMES, dim=1)
        if num_frames is None:
            return condition_BFD
        counts_B1 = torch.as_tensor(num_frames, device=condition_BFD.device).reshape(-1, 1)
        is_sound_BF = torch.arange(condition_BFD.shape[1], device=condition_BFD.device) < counts_B1
        return torch.where(is_sound_BF[:, :, None], condition_BFD, self.zero_condition)

    @torch.no_grad()
    def sample(
        self,
        condition_BFD: Tensor,
        noise_BFL: Tensor,
        *,
        steps: int,
        guidance: float,
        given_BGL: Tensor | None = None,
    ) -> Tensor:
        """Integrates from noise to latents, float32 ``[B, F, L]``.

        Args:
            condition_BFD: what `conditions` gave.
            noise_BFL: standard normal, float32.
            steps: of Euler's method, each of the same length.
            guidance: strength of classifier-free guidance; 1 or less: none, in one pass in place of two.
            given_BGL: the first latents of each row, float32; None: none are.

        Raises:
            ValueError: for steps or a strength that make no sense.
        """
        integration = Integration(steps, guidance, sway=0.0)
        given_BFL = torch.zeros_like(noise_BFL)
        num_given = 0 if given_BGL is None else given_BGL.shape[1]
        if given_BGL is not None:
            given_BFL[:, :num_given] = given_BGL
        # Given latents go straight from their noise to where they belong: a constant velocity.
        known_BGL = given_BFL[:, :num_given] - (1 - SIGMA_MIN) * noise_BFL[:, :num_given]

        def velocity(x_BFL: Tensor, t: Tensor) -> Tensor:
            made = self._guided(x_BFL, t, given_BFL, condition_BFD, guidance)
            return torch.cat([known_BGL, made[:, num_given:]], dim=1)

        ended_BFL = integration.solve(noise_BFL, velocity)
        return torch.cat([given_BFL[:, :num_given], ended_BFL[:, num_given:]], dim=1)

    def _guided(self, x_BFL: Tensor, t: Tensor, given_BFL: Tensor, condition_BFD: Tensor, guidance: float) -> Tensor:
        if guidance <= 1:
            return self.velocity(x_BFL, t.expand(len(x_BFL)), given_BFL, condition_BFD)
        twice = (torch.cat([one, one]) for one in (x_BFL, given_BFL))
        x2, given2 = twice
        conditions = torch.cat([torch.zeros_like(condition_BFD), condition_BFD])
        plain, informed = self.velocity(x2, t.expand(len(x2)), given2, conditions).chunk(2)
        return plain + guidance * (informed - plain)

    def velocity(self, x_BFL: Tensor, t_B: Tensor, given_BFL: Tensor, condition_BFD: Tensor) -> Tensor:
        """The velocity at a point, in the dtype of the point, ``[B, F, L]``."""
        seen = torch.cat([x_BFL.to(self.dtype), given_BFL.to(self.dtype), condition_BFD.to(self.dtype)], dim=-1)
        made: Tensor = self.estimator(seen, t_B)
        return made.to(x_BFL.dtype)

    def loss(
        self,
        target_BFL: Tensor,
        noise_BFL: Tensor,
        t_B: Tensor,
        given_BFL: Tensor,
        condition_BFD: Tensor,
        mask_BF: Tensor,
    ) -> Tensor:
        """Mean squared error of the velocity, scalar float32; padding counts a hundredth, given latents nothing.

        Args:
            target_BFL: latents.
            noise_BFL: standard normal.
            t_B: times in [0, 1].
            given_BFL: the latents that are given, elsewhere 0.
            condition_BFD: what `conditions` gave.
            mask_BF: `PADDING`, `GIVEN` or `WANTED`, int64.
        """
        target_BFL, noise_BFL = target_BFL.float(), noise_BFL.float()
        t = t_B.float()[:, None, None]
        point = (1 - (1 - SIGMA_MIN) * t) * noise_BFL + t * target_BFL
        weight_BF = frame_weights(mask_BF)
        made = self.velocity(point, t_B, given_BFL, condition_BFD)
        error = (made.float() - (target_BFL - (1 - SIGMA_MIN) * noise_BFL)) * weight_BF[:, :, None]
        return error.square().sum() / (weight_BF.sum() * target_BFL.shape[2])


def frame_weights(mask: Tensor) -> Tensor:
    """How much each frame counts in the loss, float32, of `PADDING`, `GIVEN` or `WANTED`, int64 of any shape."""
    return torch.tensor([_WEIGHTS[one] for one in range(3)], device=mask.device)[mask]
