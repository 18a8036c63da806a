"""Which records are used when: those of update ``s``, by a pure function of the seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


class DataOrder:
    """An endless sequence of shuffled epochs, cut into global batches.

    The order knows nothing of processes: each takes its share of a global batch with :func:`share_of_process`, so
    a run on another number of processes sees the same batches, and a resumed one replays no loader.

    Args:
        num_records: records in the training set.
        global_batch_size: records per update. A batch may reach into the next epoch; no record is left out.
        seed: with the epoch's number, decides its permutation.

    Raises:
        ValueError: if there is nothing to order.
    """

    def __init__(self, num_records: int, global_batch_size: int, seed: int) -> None:
        if num_records <= 0:
            raise ValueError("the training data holds no records")
        self.num_records = num_records
        self.global_batch_size = global_batch_size
        self.seed = seed
        # Two epochs: a batch can straddle a boundary.
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_records)

    def batch(self, step: int) -> list[int]:
        """Indexes of the records of update ``step`` (1, 2, …), ``global_batch_size`` of them."""
        first = (step - 1) * self.global_batch_size
        positions = range(first, first + self.global_batch_size)
        return [int(self._permutation(p // self.num_records)[p % self.num_records]) for p in positions]

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after update ``step``."""
        return step * self.global_batch_size / self.num_records


def share_of_process(batch: list[int], process_index: int, num_processes: int) -> list[int]:
    """The part of a global batch that one process computes; the parts are disjoint and cover the batch."""
    return batch[process_index::num_processes]
