"""Batches by a pure function of the seed: which records make up update ``s``, by their number or by their frames.

The position in the data is the number of the update, so that a resumed run replays no loader. Batches know nothing of
processes: each takes its share (`share_of_process`), so that runs on other numbers of processes see the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

logger = logging.getLogger(__name__)

PASSES_UNTOLD = 0.05  # passes that full updates may add to those asked for without a word
LENGTH_JITTER = 0.1  # how far clips move in the order of lengths, so that neighbours change from epoch to epoch


FEW_UPDATES = 10
"""Fewer of them are rather an oversight than a training."""


def records_per_update(num_records: int, global_batch_size: int) -> int:
    """Records of an update: no record comes twice in one, so that an epoch of few records is one pass over them."""
    return min(num_records, global_batch_size)


def updates_of_epochs(num_epochs: float, num_records: int, global_batch_size: int) -> int:
    """Updates in which so many passes over the records are complete, at least 1; says where they make more passes."""
    per_update = records_per_update(num_records, global_batch_size)
    updates = max(1, math.ceil(num_epochs * num_records / per_update))
    say_extra_passes(num_epochs, updates * per_update / num_records, updates, f"{per_update} of {num_records} records")
    if updates < FEW_UPDATES:
        logger.warning(
            "num_epochs=%g over %d records makes %d %s, in which a model learns next to nothing: set max_steps, more "
            "epochs, or a smaller global_batch_size (and micro_batch_size)",
            *(num_epochs, num_records, updates, "update" if updates == 1 else "updates"),
        )
    return updates


def say_extra_passes(num_epochs: float, passes: float, updates: int, size: str) -> None:
    """Warns where full updates make more passes over the data than were asked for.

    Args:
        num_epochs: passes asked for.
        passes: passes that the run makes.
        updates: its updates.
        size: what an update is made of.
    """
    if passes > num_epochs + PASSES_UNTOLD:
        logger.warning(
            "num_epochs=%g takes %d updates of %s, which are %.2f passes: updates are full, and the last one begins "
            "another pass",
            *(num_epochs, updates, size, passes),
        )


class DataOrder:
    """An endless sequence of shuffled epochs, cut into global batches.

    Args:
        num_records: records in the training set.
        global_batch_size: records per update, at most all of them. A batch may reach into the next epoch; no record
            is left out.
        seed: with the epoch's number, decides its permutation.

    Raises:
        ValueError: if there is nothing to order.
    """

    def __init__(self, num_records: int, global_batch_size: int, seed: int) -> None:
        if num_records <= 0:
            raise ValueError("the training data holds no records")
        self.num_records = num_records
        self.global_batch_size = records_per_update(num_records, global_batch_size)
        self.seed = seed
        # Two epochs: a batch can straddle a boundary.
        self.permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        # A generator for each epoch: a resumed run makes the one it is in without making those before it.
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_records)

    def batch(self, step: int) -> list[int]:
        """Indexes of the records of update ``step`` (1, 2, …)."""
        first = (step - 1) * self.global_batch_size
        positions = range(first, first + self.global_batch_size)
        return [self.record(position) for position in positions]

    def record(self, position: int) -> int:
        """Index of the record at a position of the endless sequence."""
        return int(self.permutation(position // self.num_records)[position % self.num_records])

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after update ``step``."""
        return step * self.global_batch_size / self.num_records


class TokenOrder:
    """An endless sequence of shuffled epochs, cut into updates of as many records as a token budget has room for.

    Args:
        lengths: tokens of each record.
        tokens_per_update: most tokens of an update. No update holds more than one pass over the records; it may reach
            into the next epoch, and none is left out.
        seed: with the epoch's number, decides its permutation.

    Raises:
        ValueError: if there is nothing to order, or a record alone is too long.
    """

    def __init__(self, lengths: Sequence[int], tokens_per_update: int, seed: int) -> None:
        self._order = DataOrder(len(lengths), 1, seed)
        if max(lengths) > tokens_per_update:
            raise ValueError(f"a record of {max(lengths)} tokens exceeds tokens_per_update={tokens_per_update}")
        self._lengths = np.asarray(lengths)
        self._tokens_per_update = tokens_per_update
        self._ends = [0]  # records by the end of each update
        self._sums = lru_cache(maxsize=2)(self._tokens_by)

    @property
    def num_records(self) -> int:
        """Records of an epoch."""
        return self._order.num_records

    def _tokens_by(self, epoch: int) -> np.ndarray:
        """Tokens from the start of an epoch to the end of each of its records."""
        return np.cumsum(self._lengths[self._order.permutation(epoch)])

    def _end(self, step: int) -> int:
        """Records of the endless sequence by the end of an update."""
        while len(self._ends) <= step:
            self._ends.append(self._next_end(self._ends[-1]))
        return self._ends[step]

    def _next_end(self, start: int) -> int:
        epoch, position = divmod(start, self.num_records)
        sums = self._sums(epoch)
        before = int(sums[position - 1]) if position else 0
        end = int(np.searchsorted(sums, before + self._tokens_per_update, side="right"))
        if end < self.num_records or position == 0:
            return start - position + end
        room = self._tokens_per_update - (int(sums[-1]) - before)
        of_next = int(np.searchsorted(self._sums(epoch + 1), room, side="right"))
        return min(start - position + self.num_records + of_next, start + self.num_records)

    def batch(self, step: int) -> list[int]:
        """Indexes of the records of update ``step`` (1, 2, …)."""
        return [self._order.record(position) for position in range(self._end(step - 1), self._end(step))]

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after update ``step``."""
        return self._end(step) / self.num_records

    def num_updates(self, num_epochs: float) -> int:
        """Updates in which so many passes over the records are complete, at least 1; says where they make more."""
        updates = 1
        while self.epoch(updates) < num_epochs:
            updates += 1
        say_extra_passes(num_epochs, self.epoch(updates), updates, f"{self._tokens_per_update} tokens")
        return updates


class FrameBatches:
    """An endless sequence of epochs; in each, every clip comes once, beside others of about its length.

    Args:
        lengths: frames of each clip.
        frames_per_batch: most frames of a batch, padding to its longest clip included.
        seed: with the epoch's number, decides the batches.

    Raises:
        ValueError: if there are no clips, or one alone is too long.
    """

    def __init__(self, lengths: Sequence[int], frames_per_batch: int, seed: int) -> None:
        if not lengths:
            raise ValueError("the training data holds no clips")
        if max(lengths) > frames_per_batch:
            raise ValueError(
                f"a clip of {max(lengths)} mel frames does not fit into batches of {frames_per_batch}: raise "
                "frames_per_update, or lower max_seconds"
            )
        self._lengths = np.asarray(lengths)
        self._frames_per_batch = frames_per_batch
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)  # the next one is prepared while one ends
        self._ends: list[int] = []  # updates made by the end of each epoch

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        generator = np.random.default_rng([self._seed, epoch])
        jitter = generator.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(self._lengths))
        batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in np.argsort(self._lengths * jitter, kind="stable").tolist():
            longest = max(longest, int(self._lengths[index]))
            # What the batch takes once it is padded, not what it holds: that is what memory and time depend on.
            if batch and longest * (len(batch) + 1) > self._frames_per_batch:
                batches.append(batch)
                batch, longest = [], int(self._lengths[index])
            batch.append(index)
        batches.append(batch)
        # Batches are shuffled whole: left in their order, an epoch would go from the shortest clips to the longest.
        return [batches[position] for position in generator.permutation(len(batches))]

    def _place(self, step: int) -> tuple[int, int]:
        """Epoch of an update, and its position in there."""
        while not self._ends or self._ends[-1] < step:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))))
        epoch = int(np.searchsorted(self._ends, step))
        return epoch, step - 1 - (self._ends[epoch - 1] if epoch else 0)

    def batch(self, step: int) -> list[int]:
        """Indexes of the clips of update ``step`` (1, 2, …)."""
        epoch, position = self._place(step)
        return list(self._epoch(epoch)[position])

    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after update ``step``."""
        epoch, position = self._place(step)
        return epoch + (position + 1) / len(self._epoch(epoch))

    def num_updates(self, num_epochs: float) -> int:
        """Updates of a number of epochs, at least 1."""
        whole = int(num_epochs)
        updates = sum(len(self._epoch(epoch)) for epoch in range(whole))
        if num_epochs > whole:
            updates += round((num_epochs - whole) * len(self._epoch(whole)))
        return max(1, updates)


def cut_by_frames(clips: Sequence[int], lengths: Sequence[int], frames_per_pass: int) -> list[list[int]]:
    """Cuts a batch into passes of similar length.

    Args:
        clips: positions in ``lengths``.
        lengths: frames of each clip.
        frames_per_pass: most frames of a pass, padding included; a longer clip is a pass of its own.

    Returns:
        The passes, shortest clips first.
    """
    passes: list[list[int]] = []
    for clip in sorted(clips, key=lambda position: lengths[position]):
        if passes and lengths[clip] * (len(passes[-1]) + 1) <= frames_per_pass:
            passes[-1].append(clip)
        else:
            passes.append([clip])
    return passes


def share_of_process(batch: list[int], process_index: int, num_processes: int) -> list[int]:
    """The part of a global batch that one process computes; the parts are disjoint and cover the batch."""
    # Every n-th and not one block each: of a batch sorted by length, all processes then get short and long clips.
    return batch[process_index::num_processes]
