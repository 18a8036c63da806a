"""The encoder's parts: Whisper's convolutions, positions and layers, with pooling and causal attention added.

Layers are transformers' own ``WhisperEncoderLayer``; its ``WhisperEncoder`` cannot be used as it stands, because it
takes only 30 s inputs, ignores padding and cannot pool.
"""
# Shapes: B batch, M mel bins, F mel frames, T encoder frames (F / 2, then / k after pooling), D feature size.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from audiollm.tokenizer.configuration import CONV_STRIDE, UniAudioTokenizerConfig
from audiollm.tokenizer.linear import Linear


class EncoderLayer(WhisperEncoderLayer):
    """Whisper's layer with this package's `Linear`; parameter names are the same."""

    def __init__(self, config: UniAudioTokenizerConfig) -> None:
        super().__init__(config)
        dim, inner = config.d_model, config.encoder_ffn_dim
        self.self_attn.q_proj = Linear(dim, dim)
        self.self_attn.k_proj = Linear(dim, dim, bias=False)
        self.self_attn.v_proj = Linear(dim, dim)
        self.self_attn.out_proj = Linear(dim, dim)
        self.fc1 = Linear(dim, inner)
        self.fc2 = Linear(inner, dim)


@dataclass
class EncoderState:
    """Where a pass through the encoder stands; whoever runs it may change ``hidden`` between two positions."""

    hidden: Tensor  # [B, T, D]
    mask: Tensor | None  # [B, T], 1 for valid frames; None if all are
    is_pooled: bool = False
    bias: Tensor | None = None  # of the attention, as the last layer had it
    bias_key: tuple[bool, bool] | None = None  # what the bias was made for: causal or not, pooled or not


class AudioEncoder(nn.Module):
    """Whisper's encoder in pieces, for a caller that puts an SAE and a quantizer between the layers.

    Args:
        config: sizes, pooling and causality. With ``quantize_encoder_only`` the layers behind the quantizer and the
            final norm do not exist (but for a configuration that says ``has_final_norm``).
    """

    def __init__(self, config: UniAudioTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        num_layers = config.quantize_position if config.quantize_encoder_only else config.encoder_layers
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=CONV_STRIDE, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.embed_positions.requires_grad_(False)  # sinusoids, as in Whisper
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(num_layers))
        self.layer_norm = nn.LayerNorm(config.d_model) if config.has_final_norm else None

    def start(self, input_features_BMF: Tensor, attention_mask_BF: Tensor | None) -> EncoderState:
        """Begins a pass with what `stem` makes of log-mel features.

        Args:
            input_features_BMF: log-mel features, ``[B, M, F]``, of any float dtype.
            attention_mask_BF: 1 for valid mel frames, ``[B, F]``; None if all are.

        Raises:
            ValueError: as `stem`.
        """
        hidden_BTD = self.stem(input_features_BMF.to(self.conv1.weight.dtype))
        # The strided convolution centres frame t on mel frame 2 t, so that is the one whose validity counts.
        return EncoderState(hidden_BTD, None if attention_mask_BF is None else attention_mask_BF[:, ::CONV_STRIDE])

    def advance(self, state: EncoderState, position: int) -> None:
        """Takes a pass to a position: through its layer, and through the pooling if it is there."""
        if position > 0:
            # Made anew only where it changes, not for each layer: it may be [B, 1, T, T].
            if state.bias_key != (self.is_causal(position), state.is_pooled):
                state.bias_key = (self.is_causal(position), state.is_pooled)
                state.bias = self.attention_bias(position, state.hidden, state.mask, state.is_pooled)
            state.hidden = self.layers[position - 1](state.hidden, state.bias)
        if position == self.config.pooling_position:
            state.hidden, state.mask, state.is_pooled = self.pool(state.hidden), self.pool_mask(state.mask), True

    def stem(self, input_features_BMF: Tensor) -> Tensor:
        """Convolves log-mel features and adds positions: ``[B, M, F]`` to ``[B, ceil(F / 2), D]``.

        Raises:
            ValueError: if the number of mel bins is wrong, or there are more frames than positions.
        """
        num_mel_bins, num_frames = input_features_BMF.shape[1:]
        if num_mel_bins != self.config.num_mel_bins:
            raise ValueError(
                f"input_features have {num_mel_bins} mel bins, but the encoder takes {self.config.num_mel_bins}"
            )
        if num_frames > CONV_STRIDE * self.config.max_source_positions:
            raise ValueError(
                f"input_features have {num_frames} frames, but the encoder has positions for "
                f"{CONV_STRIDE * self.config.max_source_positions}; cut longer audio as encode() does"
            )
        hidden_BDT = F.gelu(self._convolve(self.conv1, input_features_BMF))
        hidden_BDT = F.gelu(self._convolve(self.conv2, hidden_BDT))
        hidden_BTD = hidden_BDT.transpose(1, 2)
        # Only as many positions as there are frames: Whisper itself always adds all 1500, to 30 s padded with silence.
        hidden_BTD = hidden_BTD + self.embed_positions.weight[: hidden_BTD.shape[1]]
        return F.dropout(hidden_BTD, p=self.config.dropout, training=self.training)

    def _convolve(self, conv: nn.Conv1d, hidden_BCT: Tensor) -> Tensor:
        if not self.config.encoder_causal_convolution:
            return conv(hidden_BCT)
        # The same weights, but the last tap sees the present frame: all the padding goes to the left.
        left = conv.kernel_size[0] - 1
        return F.conv1d(F.pad(hidden_BCT, (left, 0)), conv.weight, conv.bias, stride=conv.stride)

    def pool(self, hidden_BTD: Tensor) -> Tensor:
        """Merges every k frames into one, ``[B, ceil(T / k), D]``; a short last group is filled up with zeros."""
        kernel = self.config.pooling_factor
        if kernel == 1:
            return hidden_BTD
        hidden_BTD = F.pad(hidden_BTD, (0, 0, 0, -hidden_BTD.shape[1] % kernel))
        groups_BTkD = hidden_BTD.unflatten(1, (-1, kernel))
        return groups_BTkD.mean(dim=2) if self.config.pooling_type == "avg" else groups_BTkD.amax(dim=2)

    def pool_mask(self, mask_BT: Tensor | None) -> Tensor | None:
        """Keeps the first mask value of every k frames."""
        return None if mask_BT is None else mask_BT[:, :: self.config.pooling_factor]

    def is_causal(self, position: int) -> bool:
        """Whether layer ``position`` (1-based) sees earlier frames only."""
        in_front = position <= self.config.quantize_position
        return self.config.encoder_causal_attention or (self.config.quantize_causal_encoder and in_front)

    def attention_bias(
        self, position: int, hidden_BTD: Tensor, mask_BT: Tensor | None, is_pooled: bool
    ) -> Tensor | None:
        """Builds what is added to the attention scores of a layer: 0 where a frame may look, else a huge negative.

        Args:
            position: the layer, 1-based.
            hidden_BTD: the layer's input.
            mask_BT: 1 for valid frames; None if all are.
            is_pooled: whether pooling has happened, which shrinks the blocks of block-causal attention.

        Returns:
            ``[B or 1, 1, T or 1, T]`` in the input's dtype; None if every frame sees every frame.
        """
        num_frames, device = hidden_BTD.shape[1], hidden_BTD.device
        block_size = self.config.quantize_causal_block_size
        if self.is_causal(position):  # padding is behind the end, so causal layers need not hide it
            visible = causal_blocks(num_frames, 1, device)
        elif block_size is not None:
            visible = causal_blocks(
                num_frames, block_size // self.config.pooling_factor if is_pooled else block_size, device
            )
            if mask_BT is not None:
                visible = visible & mask_BT.bool()[:, None, None, :]
        elif mask_BT is not None:
            visible = mask_BT.bool()[:, None, None, :]
        else:
            return None
        # The least finite number, not -inf: a row that may look nowhere must not become NaN.
        hidden = torch.finfo(hidden_BTD.dtype).min
        return torch.zeros((), dtype=hidden_BTD.dtype, device=device).masked_fill(~visible, hidden)


def causal_blocks(num_frames: int, block_size: int, device: torch.device) -> Tensor:
    """True where a frame may look: at itself, at earlier frames and at the rest of its block, ``[1, 1, T, T]``."""
    frames_T = torch.arange(num_frames, device=device)
    last_visible_T = (frames_T // block_size + 1) * block_size - 1
    return (frames_T[None, :] <= last_visible_T[:, None])[None, None]


def recompute_layers(layers: Iterable[nn.Module], enabled: bool = True) -> None:
    """Makes layers compute again in the backward pass what they computed forward, instead of keeping it.

    Args:
        layers: layers of transformers' kind; nothing changes for them in evaluation mode.
        enabled: False makes them keep it again.
    """
    for layer in layers:
        assert isinstance(layer, GradientCheckpointingLayer)
        layer.gradient_checkpointing = enabled
        # Not the reentrant form, which gives no gradient where the inputs need none, as behind a frozen layer.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
