"""Sequences of different lengths put together in rows of bounded length, none of them cut."""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Packs sequences by best fit, longest first: each goes to the fullest row that still has room for it.

    Args:
        lengths: of the sequences, in tokens.
        budget: most tokens of a row.

    Returns:
        Rows of positions in ``lengths``. Every position is in exactly one; sequences of equal length keep their order.

    Raises:
        ValueError: naming the first sequence that is longer than a row.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # room left and number of the row, the fullest first
    for position in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        length = lengths[position]
        if length > budget:
            raise ValueError(f"sequence {position} of {length} tokens does not fit into rows of {budget}")
        found = bisect.bisect_left(open_rows, (length, 0))
        if found < len(open_rows):
            room, row = open_rows.pop(found)
        else:
            room, row = budget, len(rows)
            rows.append([])
        rows[row].append(position)
        if room > length:
            bisect.insort(open_rows, (room - length, row))
    return rows
