"""Keys and values of a running generation in memory that grows in leaps; transformers copies all of them per token."""
# Shapes: B rows, N heads, S positions, D size of a head.

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_SPARE = 64
"""Positions that are always asked for beyond those needed."""


class RoomyLayer(DynamicLayer):
    """What `DynamicLayer` holds, with room behind it: a new token is written there, and nothing else is moved."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keys: Tensor | None
        self.values: Tensor | None
        self._room: tuple[Tensor, Tensor] | None = None
        self._shown: tuple[Tensor | None, Tensor | None] = (None, None)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Adds keys and values ``[B, N, S, D]``; returns all there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old, length = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        # Whoever has put other tensors in the place of ours (a reordered batch) has them copied.
        is_ours = self.keys is self._shown[0] and self.values is self._shown[1]
        if self._room is None or not is_ours or length > self._room[0].shape[-2]:
            room = length + max(_SPARE, length // 2)
            keys, values = (
                states.new_empty((*states.shape[:-2], room, states.shape[-1])) for states in (key_states, value_states)
            )
            if old and self.keys is not None and self.values is not None:
                keys[..., :old, :], values[..., :old, :] = self.keys, self.values
            self._room = keys, values
        keys, values = self._room
        keys[..., old:length, :], values[..., old:length, :] = key_states, value_states
        self.keys, self.values = self._shown = keys[..., :length, :], values[..., :length, :]
        return self.keys, self.values


def roomy_cache(model: PreTrainedModel) -> DynamicCache:
    """The cache that transformers would make for a model, with room in its growing layers; others stay as they are."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
