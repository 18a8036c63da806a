"""More records than memory or disk holds: read shard by shard, in an order that follows from a seed.

Reading order: ``shards`` (files, and the blocks they are read in) → ``counting`` (how many records, and a sample of
them, without reading all) → ``shuffling`` (the endless order of one source) → ``drawing`` (several sources, by weight)
→ ``token_budget`` (updates of so many tokens).
"""

from __future__ import annotations

from .drawing import Draws, MixtureOrder
from .shards import Shard, open_shards
from .shuffling import Place, ShuffledSource
from .token_budget import TokenBudgetOrder

__all__ = ["Draws", "MixtureOrder", "Place", "Shard", "ShuffledSource", "TokenBudgetOrder", "open_shards"]
