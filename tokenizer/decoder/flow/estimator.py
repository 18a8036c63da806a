"""The 1-D U-Net that predicts the velocity of the flow (as in Matcha-TTS, arXiv:2309.03199).

Shapes: B rows, C channels, M frames, D width of the time embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiollm.tokenizer.decoder.configuration import EstimatorConfig
from audiollm.tokenizer.layers.rotary import rotate
from audiollm.tokenizer.linear import Linear

from .masking import FrameMask, MaskedGroupNorm, hide

NUM_GROUPS = 8


class ConvolutionBlock(nn.Module):
    """Convolution over three frames, group norm, Mish."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(in_channels, out_channels, 3, padding=1), MaskedGroupNorm(NUM_GROUPS, out_channels), nn.Mish()
        )

    def forward(self, x_BCM: Tensor, mask: FrameMask | None) -> Tensor:
        """Maps ``[B, C, M]``, already hidden, to ``[B, C', M]``, hidden."""
        convolution, norm, activation = self.block
        return hide(activation(norm(convolution(x_BCM), mask)), mask)


class ResnetBlock(nn.Module):
    """Two convolution blocks with the time between them, and a 1x1 convolution around them."""

    def __init__(self, in_channels: int, out_channels: int, time_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), Linear(time_size, out_channels))
        self.block1 = ConvolutionBlock(in_channels, out_channels)
        self.block2 = ConvolutionBlock(out_channels, out_channels)
        self.res_conv = nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x_BCM: Tensor, mask: FrameMask | None, time_BD: Tensor) -> Tensor:
        """Maps ``[B, C, M]`` to ``[B, C', M]``; ``time_BD`` may have one row for the whole batch."""
        x_BCM = hide(x_BCM, mask)
        hidden = self.block1(x_BCM, mask) + self.mlp(time_BD)[:, :, None]
        return self.block2(hide(hidden, mask), mask) + self.res_conv(x_BCM)


class Attention(nn.Module):
    """Full attention over the frames of a row, or from them to those of another sequence.

    Args:
        channels: of the frames.
        num_heads: each of ``head_dim`` numbers.
        head_dim: of a head.
        dropout: of what is returned.
    """

    def __init__(self, channels: int, num_heads: int, head_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.to_q = Linear(channels, inner, bias=False)
        self.to_k = Linear(channels, inner, bias=False)
        self.to_v = Linear(channels, inner, bias=False)
        self.to_out = nn.Sequential(Linear(inner, channels), nn.Dropout(dropout))

    def forward(
        self,
        x_BMC: Tensor,
        mask: FrameMask | None,
        *,
        context_BLC: Tensor | None = None,
        angles: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            x_BMC: the frames that ask.
            mask: which of those that are asked are real; None: all.
            context_BLC: those that are asked; None: the frames themselves.
            angles: rotary positions of the frames, see `rotary_angles`; None: order is not told.
        """
        asked = x_BMC if context_BLC is None else context_BLC
        queries, keys, values = (
            projection(source).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, source in ((self.to_q, x_BMC), (self.to_k, asked), (self.to_v, asked))
        )
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        bias = None
        if mask is not None:  # made once per batch, for all layers and steps
            bias = mask.attention_bias if context_BLC is None else mask.key_bias
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class GELUProjection(nn.Module):
    """Linear layer and exact GELU."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.proj = Linear(in_size, out_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GELUProjection(channels, 4 * channels), nn.Dropout(dropout), Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, channels: int, config: EstimatorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, config.num_heads, config.head_dim, config.dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, config.dropout)

    def forward(self, x_BMC: Tensor, mask: FrameMask | None) -> Tensor:
        x_BMC = x_BMC + self.attn1(self.norm1(x_BMC), mask)
        return x_BMC + self.ff(self.norm3(x_BMC))


class Downsampling(nn.Module):
    """Halves the number of frames, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x_BCM: Tensor) -> Tensor:
        return self.conv(x_BCM)


class Upsampling(nn.Module):
    """Doubles the number of frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x_BCM: Tensor) -> Tensor:
        return self.conv(x_BCM)


class TimeEmbedding(nn.Module):
    """Sinusoids of 1000 t through two linear layers."""

    def __init__(self, size: int, out_size: int) -> None:
        super().__init__()
        self.size = size
        self.linear_1 = Linear(size, out_size)
        self.linear_2 = Linear(out_size, out_size)

    def sinusoids(self, t: Tensor) -> Tensor:
        """Embeds times in [0, 1], float32 ``[B]``, as ``[B, size]``: sines, then cosines."""
        half = self.size // 2
        rates = torch.exp(torch.arange(half, device=t.device).float() * -(math.log(10000) / (half - 1)))
        angles = 1000 * t[:, None] * rates  # float32: in bfloat16, neighbouring times would have the same sines
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        hidden = self.linear_1(self.sinusoids(t.float()).to(self.linear_1.bias.dtype))
        return self.linear_2(F.silu(hidden))


class Stage(nn.ModuleList):
    """Resnet block (0), transformer blocks (1) and, but for the middle, the convolution to the next stage (2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_size: int,
        config: EstimatorConfig,
        resampling: nn.Module | None = None,
    ) -> None:
        transformers = nn.ModuleList(TransformerBlock(out_channels, config) for _ in range(config.blocks_per_stage))
        parts: list[nn.Module] = [ResnetBlock(in_channels, out_channels, time_size), transformers]
        super().__init__(parts if resampling is None else [*parts, resampling])

    def forward(self, x_BCM: Tensor, mask: FrameMask | None, time_BD: Tensor) -> Tensor:
        """Maps ``[B, C, M]`` to ``[B, C', M]``, without the resampling."""
        resnet, transformers = self[0], self[1]
        assert isinstance(transformers, nn.ModuleList)
        # Laid out by frames once; otherwise every layer norm would copy it.
        x_BMC = resnet(x_BCM, mask, time_BD).transpose(1, 2).contiguous()
        for transformer in transformers:
            x_BMC = transformer(x_BMC, mask)
        return x_BMC.transpose(1, 2)

    def resample(self, x_BCM: Tensor, mask: FrameMask | None) -> Tensor:
        """Leads to the next stage, which has half or twice the frames, or as many behind the last one."""
        return self[2](hide(x_BCM, mask))


class Estimator(nn.Module):
    """Predicts the velocity at a point of the flow.

    Args:
        config: sizes.
        num_mels: channels of the mel; the input holds four such parts, the output one.
    """

    def __init__(self, config: EstimatorConfig, num_mels: int) -> None:
        super().__init__()
        widths = config.channels
        time_size = 4 * widths[0]
        self.time_mlp = TimeEmbedding(4 * num_mels, time_size)
        self.down_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip((4 * num_mels, *widths), widths, strict=False)):
            is_last = i == len(widths) - 1
            down = nn.Conv1d(width, width, 3, padding=1) if is_last else Downsampling(width)
            self.down_blocks.append(Stage(before, width, time_size, config, down))
        self.mid_blocks = nn.ModuleList(
            Stage(widths[-1], widths[-1], time_size, config) for _ in range(config.num_mid_stages)
        )
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(reversed(widths)):
            is_last = i == len(widths) - 1
            out = widths[0] if is_last else widths[-i - 2]
            up = nn.Conv1d(out, out, 3, padding=1) if is_last else Upsampling(out)
            self.up_blocks.append(Stage(2 * width, out, time_size, config, up))
        self.final_block = ConvolutionBlock(widths[0], widths[0])
        self.final_proj = nn.Conv1d(widths[0], num_mels, 1)

    def forward(
        self,
        x: Tensor,
        mask: FrameMask | None,
        mu: Tensor,
        t: Tensor,
        speaker: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """Predicts the velocity.

        Args:
            x: point of the flow ``[B, num_mels, M]``.
            mask: valid frames; None: all.
            mu: what the codes say ``[B, num_mels, M]``.
            t: time in [0, 1], float32 ``[B]``, or ``[1]`` for the whole batch.
            speaker: projected speaker vector ``[B, num_mels]``.
            condition: given mel frames, elsewhere 0, ``[B, num_mels, M]``.

        Returns:
            Velocity ``[B, num_mels, M]``, 0 at padded frames.
        """
        time_BD = self.time_mlp(t)
        x = torch.cat([x, mu, speaker[:, :, None].expand(-1, -1, x.shape[2]), condition], dim=1)
        masks: list[FrameMask | None] = [mask]
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down_blocks):
            assert isinstance(stage, Stage)
            if i:
                above = masks[-1]
                masks.append(None if above is None else above.halved)
            skips.append(stage(x, masks[-1], time_BD))
            x = stage.resample(skips[-1], masks[-1])
        for stage in self.mid_blocks:
            x = stage(x, masks[-1], time_BD)
        for stage in self.up_blocks:
            assert isinstance(stage, Stage)
            skip, stage_mask = skips.pop(), masks.pop()
            # Doubling an odd number of frames that was halved rounding up makes one frame too many.
            x = stage(torch.cat([x[:, :, : skip.shape[2]], skip], dim=1), stage_mask, time_BD)
            x = stage.resample(x, stage_mask)
        return hide(self.final_proj(self.final_block(hide(x, mask), mask)), mask)
