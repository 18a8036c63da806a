"""Block-causal transformer over embedded codes, with relative positions (Transformer-XL, arXiv:1901.02860).

A code sees every earlier code and all codes of its own block, so whole blocks can be encoded one after another with
cached keys and values: `TokenEncoder.forward_block` gives the same numbers as one pass over everything.

Shapes: B rows, T codes, D width, H heads, Q queries, K keys, R relative distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiollm.tokenizer.decoder.configuration import TokenEncoderConfig
from audiollm.tokenizer.linear import Linear

MAX_QUERIES = 1024
"""Queries of one attention call when nothing is trained; the scores of a long row then stay small."""


class RelativePositions(nn.Module):
    """A table of sinusoids over signed distances, made once and cut to size. It has no parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._table: Tensor | None = None  # rows for the distances +reach, ..., -reach

    def forward(self, furthest: int, nearest: int, like: Tensor) -> Tensor:
        """Returns the rows for the distances ``furthest, furthest - 1, ..., nearest`` as ``[1, R, D]``.

        Args:
            furthest: largest distance from a query back to a key.
            nearest: smallest one, negative where keys lie ahead of the query.
            like: gives the device and dtype.
        """
        reach = max(abs(furthest), abs(nearest))
        table = self._table
        if table is None or table.shape[0] < 2 * reach + 1 or table.device != like.device or table.dtype != like.dtype:
            table = self._make(max(2 * reach, 256), like)
            self._table = table
        zero = table.shape[0] // 2
        return table[None, zero - furthest : zero - nearest + 1]

    def _make(self, reach: int, like: Tensor) -> Tensor:
        distances = torch.arange(reach, -reach - 1, -1, dtype=torch.float32, device=like.device)
        rates = torch.arange(0, self.size, 2, dtype=torch.float32, device=like.device)
        angles = distances[:, None] * torch.exp(rates * -(math.log(10000.0) / self.size))
        # Cast only at the end: angles of thousands of radians have no digits left in bfloat16.
        table = torch.empty(2 * reach + 1, self.size, device=like.device)
        table[:, 0::2] = angles.sin()
        table[:, 1::2] = angles[:, : self.size // 2].cos()
        return table.to(like.dtype)


@dataclass
class AttentionCache:
    """What one layer remembers: keys and values ``[B, H, K, D/H]``, projected positions ``[H, R, D/H]``."""

    keys: Tensor | None = None
    values: Tensor | None = None
    positions: Tensor | None = None
    furthest: int = -1
    """Distance of the first row of ``positions``; its last row is one block ahead."""


@dataclass
class TokenEncoderCache:
    """State between calls of `TokenEncoder.forward_block`. Make a new one for every stream."""

    max_history: int | None = None
    """Codes in front of a block that it may see; None keeps all of them, which equals one pass over everything."""
    layers: list[AttentionCache] = field(default_factory=list)

    def copy(self) -> TokenEncoderCache:
        """A cache to try a block on; this one then stays as it is."""
        return TokenEncoderCache(self.max_history, [replace(layer) for layer in self.layers])

    @property
    def num_codes(self) -> int:
        """Codes that the next block will see in front of it."""
        return 0 if not self.layers or self.layers[0].keys is None else self.layers[0].keys.shape[2]


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores depend on content and on distance."""

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.linear_q = Linear(config.size, config.size)
        self.linear_k = Linear(config.size, config.size)
        self.linear_v = Linear(config.size, config.size)
        self.linear_out = Linear(config.size, config.size)
        self.linear_pos = Linear(config.size, config.size, bias=False)
        head_dim = config.size // config.num_heads
        self.pos_bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.num_heads, head_dim)))
        self.pos_bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.num_heads, head_dim)))

    def heads(self, x_BTD: Tensor) -> Tensor:
        """Splits ``[B, T, D]`` into ``[B, H, T, D/H]``."""
        return x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x_BTD: Tensor, positions_1RD: Tensor, is_visible: Tensor) -> Tensor:
        """Attends within one row.

        Args:
            x_BTD: normalized input ``[B, T, D]``.
            positions_1RD: sinusoids for the distances T - 1 to -(T - 1).
            is_visible: bool ``[B or 1, T, T]``, query by key.

        Returns:
            ``[B, T, D]``.
        """
        queries, keys, values = self.heads(self.linear_q(x_BTD)), self.heads(self.linear_k(x_BTD)), self.linear_v(x_BTD)
        values = self.heads(values)
        positions = self.heads(self.linear_pos(positions_1RD))[0]
        num_codes = x_BTD.shape[1]
        if torch.is_grad_enabled() or num_codes <= MAX_QUERIES:
            attended = self.attend(queries, keys, values, positions, is_visible)
        else:  # a chunk of queries at a time: the same numbers, T / MAX_QUERIES times less memory
            parts = []
            for start in range(0, num_codes, MAX_QUERIES):
                stop = min(start + MAX_QUERIES, num_codes)
                distances = positions[:, num_codes - stop : 2 * num_codes - 1 - start]
                parts.append(self.attend(queries[:, :, start:stop], keys, values, distances, is_visible[:, start:stop]))
            attended = torch.cat(parts, dim=2)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def forward_block(
        self, x_BTD: Tensor, sinusoids: RelativePositions, cache: AttentionCache, max_history: int | None
    ) -> Tensor:
        """Attends from one block to itself and to the cached past; grows the cache."""
        keys, values = self.heads(self.linear_k(x_BTD)), self.heads(self.linear_v(x_BTD))
        if cache.keys is not None and cache.values is not None:
            keys, values = torch.cat([cache.keys, keys], dim=2), torch.cat([cache.values, values], dim=2)
        num_queries, num_keys = x_BTD.shape[1], keys.shape[2]
        positions = self._cached_positions(num_keys - 1, num_queries, sinusoids, cache, x_BTD)
        attended = self.attend(self.heads(self.linear_q(x_BTD)), keys, values, positions, None)
        kept = num_keys if max_history is None else min(num_keys, max_history)
        cache.keys, cache.values = keys[:, :, num_keys - kept :], values[:, :, num_keys - kept :]
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def _cached_positions(
        self, furthest: int, num_queries: int, sinusoids: RelativePositions, cache: AttentionCache, like: Tensor
    ) -> Tensor:
        """Projected rows for the distances ``furthest, ..., 1 - num_queries``; the cache holds more than asked for."""
        ahead = -1 if cache.positions is None else cache.positions.shape[1] - 1 - cache.furthest
        if cache.positions is None or cache.furthest < furthest or ahead < num_queries - 1:
            cache.furthest = 2 * furthest + 1  # twice what is needed: a growing stream projects anew only now and then
            ahead = max(ahead, num_queries - 1)
            cache.positions = self.heads(self.linear_pos(sinusoids(cache.furthest, -ahead, like)))[0]
        first = cache.furthest - furthest
        return cache.positions[:, first : first + furthest + num_queries]

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, positions_HRD: Tensor, is_visible: Tensor | None
    ) -> Tensor:
        """Attention ``[B, H, Q, D/H]`` where the last query's distances to the keys begin at row 0 of the positions.

        Args:
            queries: ``[B, H, Q, D/H]``; ``keys`` and ``values`` ``[B, H, K, D/H]``.
            positions_HRD: ``[H, Q + K - 1, D/H]``, by falling distance.
            is_visible: bool ``[B or 1, Q, K]``; None shows every key to every query.
        """
        num_queries, num_keys, head_dim = queries.shape[2], keys.shape[2], queries.shape[3]
        scale = head_dim**-0.5
        # The scale goes into the queries here, since attention adds the bias as it is, behind its own scaling.
        by_distance = torch.matmul((queries + self.pos_bias_v[:, None]) * scale, positions_HRD.transpose(1, 2))
        # Row i needs the columns Q - 1 - i, ..., Q - 1 - i + K - 1. Dropping Q - 1 values from the flattened matrix and
        # reading it with rows one shorter moves each row one further: that is this selection without any copy.
        columns = num_queries + num_keys - 2
        bias = by_distance
        if num_queries > 1:
            flat = by_distance.flatten(2)[:, :, num_queries - 1 : num_queries - 1 + num_queries * columns]
            bias = flat.unflatten(2, (num_queries, columns))[..., :num_keys]
        if is_visible is not None:
            bias = bias.masked_fill(~is_visible[:, None], -math.inf)
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            queries + self.pos_bias_u[:, None], keys, values, attn_mask=bias, dropout_p=dropout, scale=scale
        )


class FeedForward(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.w_1 = Linear(config.size, config.feed_forward_size)
        self.w_2 = Linear(config.feed_forward_size, config.size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.w_2(self.dropout(F.silu(self.w_1(x_BTD))))


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(config)
        self.feed_forward = FeedForward(config)
        self.norm_mha = nn.LayerNorm(config.size)
        self.norm_ff = nn.LayerNorm(config.size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, positions_1RD: Tensor, is_visible: Tensor) -> Tensor:
        """One layer over ``[B, T, D]``; see `RelativeAttention.forward`."""
        x_BTD = x_BTD + self.dropout(self.self_attn(self.norm_mha(x_BTD), positions_1RD, is_visible))
        return x_BTD + self.dropout(self.feed_forward(self.norm_ff(x_BTD)))

    def forward_block(
        self, x_BTD: Tensor, sinusoids: RelativePositions, cache: AttentionCache, max_history: int | None
    ) -> Tensor:
        """One layer over one block ``[B, b, D]``."""
        x_BTD = x_BTD + self.self_attn.forward_block(self.norm_mha(x_BTD), sinusoids, cache, max_history)
        return x_BTD + self.feed_forward(self.norm_ff(x_BTD))


class EncoderInput(nn.Module):
    """Linear, LayerNorm, dropout; scaled by the root of the width."""

    def __init__(self, input_size: int, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.out = nn.Sequential(Linear(input_size, config.size), nn.LayerNorm(config.size), nn.Dropout(config.dropout))
        self.scale = math.sqrt(config.size)  # as ESPnet does; weights expect it

    def forward(self, x_BTE: Tensor) -> Tensor:
        return self.out(x_BTE) * self.scale


class TokenEncoder(nn.Module):
    """The encoder of the flow model.

    Args:
        config: sizes.
        input_size: width of the embedded codes.
    """

    def __init__(self, config: TokenEncoderConfig, input_size: int) -> None:
        super().__init__()
        self.config = config
        self.embed = EncoderInput(input_size, config)
        self.sinusoids = RelativePositions(config.size)
        self.positional_dropout = nn.Dropout(config.positional_dropout)
        self.encoders = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(config.size)

    def forward(self, embedded_BTE: Tensor, lengths: Tensor) -> Tensor:
        """Encodes rows of codes in one pass.

        Args:
            embedded_BTE: embedded codes ``[B, T, E]``.
            lengths: valid codes per row, at least 1, int64 ``[B]``. Codes behind them are hidden from the others.

        Returns:
            ``[B, T, D]``. Rows behind ``lengths`` hold numbers without meaning.
        """
        num_codes = embedded_BTE.shape[1]
        is_visible = self.visibility(num_codes, lengths.to(embedded_BTE.device))
        x_BTD = self.positional_dropout(self.embed(embedded_BTE))
        positions = self.positional_dropout(self.sinusoids(num_codes - 1, 1 - num_codes, x_BTD))
        for layer in self.encoders:
            x_BTD = layer(x_BTD, positions, is_visible)
        return self.after_norm(x_BTD)

    def visibility(self, num_codes: int, lengths: Tensor) -> Tensor:
        """Says which query sees which key: bool ``[B, T, T]``."""
        index = torch.arange(num_codes, device=lengths.device)
        end_of_block = (index // self.config.block_size + 1) * self.config.block_size
        is_valid = index < lengths[:, None]
        # A padded query, too, sees the valid codes before it, of which there is at least one: no softmax over nothing.
        return (index < end_of_block[:, None]) & is_valid[:, None]

    def new_cache(self, max_history: int | None = None) -> TokenEncoderCache:
        """Begins a stream.

        Args:
            max_history: codes in front of a block that it may see, to bound its cost; None: all.
        """
        return TokenEncoderCache(max_history, [AttentionCache() for _ in self.encoders])

    @torch.no_grad()
    def forward_block(self, embedded_BbE: Tensor, cache: TokenEncoderCache) -> tuple[Tensor, TokenEncoderCache]:
        """Encodes the next block, in evaluation mode.

        Args:
            embedded_BbE: the next codes, embedded, ``[B, b, E]``: a whole block, or what is left at the end. The codes
                of one call see each other, so the output equals one pass over everything exactly if each call but
                the last brings ``config.block_size`` codes.
            cache: from `new_cache` or the call before.

        Returns:
            ``(output [B, b, D], cache)``; the cache is changed in place.
        """
        x_BTD = self.embed(embedded_BbE)
        for layer, layer_cache in zip(self.encoders, cache.layers, strict=True):
            assert isinstance(layer, EncoderBlock)
            x_BTD = layer.forward_block(x_BTD, self.sinusoids, layer_cache, cache.max_history)
        return self.after_norm(x_BTD), cache
