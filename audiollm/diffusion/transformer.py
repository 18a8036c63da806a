"""The diffusion transformer (Peebles & Xie, 2022, arXiv:2212.09748): the velocity of a flow over latents.

Blocks are steered by time and task through scales and shifts that all of them share but for an own offset (PixArt-α,
arXiv:2310.00426), and look at the text by cross-attention. Given latents, a prompt, stand beside the point of the flow.
"""
# Shapes: B rows, T frames, D latent size, C width, L text tokens, E width of the text encoder.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.decoder.flow.estimator import Attention, FeedForward, TimeEmbedding
from audiollm.tokenizer.decoder.flow.masking import FrameMask
from audiollm.tokenizer.layers.rotary import rotary_angles
from audiollm.tokenizer.linear import Linear

from .configuration import LatentDiffusionConfig

EPSILON = 1e-6  # of its layer norms
NUM_MODULATIONS = 6  # shift, scale and gate, of attention and of feed-forward


def modulated(x_BTC: Tensor, shift_B1C: Tensor, scale_B1C: Tensor) -> Tensor:
    """Layer norm, scaled and shifted."""
    return F.layer_norm(x_BTC, x_BTC.shape[-1:], eps=EPSILON) * (1 + scale_B1C) + shift_B1C


class DiffusionBlock(nn.Module):
    """Attention to all frames, to the text, and two layers, each added to what came in."""

    def __init__(self, config: LatentDiffusionConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, (config.num_heads, config.head_dim)
        self.offsets = nn.Parameter(torch.zeros(NUM_MODULATIONS, width))
        self.attention = Attention(width, *heads)
        self.text_norm = nn.LayerNorm(width, eps=EPSILON)
        self.text_attention = Attention(width, *heads)
        self.feed_forward = FeedForward(width, dropout=0.0)

    def forward(
        self,
        x_BTC: Tensor,
        mask: FrameMask | None,
        steering_B6C: Tensor,
        text_BLC: Tensor,
        text_mask: FrameMask | None,
        angles: tuple[Tensor, Tensor],
    ) -> Tensor:
        """``[B, T, C]`` to the same; ``steering_B6C`` is what time and task say."""
        shift, scale, gate, shift_ff, scale_ff, gate_ff = (steering_B6C + self.offsets).unsqueeze(2).unbind(dim=1)
        x_BTC = x_BTC + gate * self.attention(modulated(x_BTC, shift, scale), mask, angles=angles)
        x_BTC = x_BTC + self.text_attention(self.text_norm(x_BTC), text_mask, context_BLC=text_BLC)
        return x_BTC + gate_ff * self.feed_forward(modulated(x_BTC, shift_ff, scale_ff))


class DiffusionTransformer(nn.Module):
    """Predicts the velocity at a point of the flow.

    Args:
        config: sizes.
        text_size: E.
    """

    def __init__(self, config: LatentDiffusionConfig, text_size: int) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        # The point, what is given, and whether it is.
        self.input = Linear(2 * config.latent_size + 1, width)
        self.time = TimeEmbedding(config.time_size, width)
        self.task = nn.Embedding(len(config.tasks) + 1, width)
        self.steering = Linear(width, NUM_MODULATIONS * width)
        self.text_norm = nn.LayerNorm(text_size, eps=EPSILON)
        self.text_input = Linear(text_size, width)
        self.no_text = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(DiffusionBlock(config) for _ in range(config.num_layers))
        self.output_steering = Linear(width, 2 * width)
        self.output = Linear(width, config.latent_size)

    def read_text(self, states_BLE: Tensor) -> Tensor:
        """What blocks look at: a vector that says nothing, then the text's, ``[B, 1 + L, C]``."""
        text_BLC = self.text_input(self.text_norm(states_BLE.to(self.text_norm.weight.dtype)))
        # So that a text without tokens, or one left out for guidance, leaves something to look at.
        return torch.cat([self.no_text.expand(len(text_BLC), 1, -1), text_BLC], dim=1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        given: Tensor,
        is_given: Tensor,
        mask: FrameMask | None,
        text: Tensor,
        text_mask: FrameMask | None,
        task_ids: Tensor,
    ) -> Tensor:
        """Predicts the velocity.

        Args:
            x: point of the flow ``[B, T, D]``, in the dtype of the weights.
            t: times in [0, 1], float32 ``[B]``, or ``[1]`` for all rows.
            given: latents that are known, elsewhere 0, ``[B, T, D]``.
            is_given: 1 where they are, ``[B, T, 1]``.
            mask: valid frames; None: all.
            text: from `read_text`, ``[B, 1 + L, C]``.
            text_mask: which of its vectors count; None: all.
            task_ids: int64 ``[B]``, 0 for none.

        Returns:
            Velocity ``[B, T, D]``; behind a row's end it has no meaning.
        """
        steering_BC = F.silu(self.time(t) + self.task(task_ids))
        steering_B6C = self.steering(steering_BC).unflatten(-1, (NUM_MODULATIONS, -1))
        angles = rotary_angles(x.shape[1], self.config.head_dim, x.device)
        hidden_BTC = self.input(torch.cat([x, given, is_given], dim=-1))
        for block in self.blocks:
            hidden_BTC = block(hidden_BTC, mask, steering_B6C, text, text_mask, angles)
        shift, scale = self.output_steering(steering_BC)[:, None].chunk(2, dim=-1)
        velocity: Tensor = self.output(modulated(hidden_BTC, shift, scale))
        return velocity
