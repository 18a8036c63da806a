"""Measured attributes of voices: numbers become "slow" or "high" by comparison with the recordings beside them.

What is slow or high differs between languages, genders and ways of recording, so that no fixed limits would hold.
Levels are quantiles within a group of clips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from .attributes import CLOSED_VALUES

EDGE_SHARE = 0.2  # of a group are "slow", and as many "fast"
FEWEST_CLIPS = 20  # of a group; with fewer, nothing can be said of its edges


def characters_per_second(text: str, duration_seconds: float) -> float:
    """How fast a text is spoken: letters and digits per second of the recording.

    Raises:
        ValueError: if the duration is not positive.
    """
    if not duration_seconds > 0:
        raise ValueError(f"duration_seconds={duration_seconds}: a recording takes some time")
    return sum(character.isalnum() for character in text) / duration_seconds


def levels(
    attribute: str,
    values: Sequence[float | None],
    groups: Sequence[Hashable | None],
    *,
    edge_share: float = EDGE_SHARE,
    fewest_clips: int = FEWEST_CLIPS,
) -> list[str | None]:
    """Turns measurements into levels within each group.

    Args:
        attribute: "speed" (of characters per second, grouped by language) or "pitch" (of the median F0 in Hz, grouped
            by gender, so that a high voice is high for a woman or for a man).
        values: a measurement per clip; None where there is none.
        groups: with which clips each is compared; None: with none.
        edge_share: share of a group that gets the lowest level, and the highest.
        fewest_clips: groups with fewer measurements get no level.

    Returns:
        A level per clip, of ``CLOSED_VALUES``; None where nothing can be said.

    Raises:
        ValueError: if the attribute has no levels, or the share is not in (0, 0.5].
    """
    if attribute not in ("speed", "pitch"):
        raise ValueError(f"{attribute!r} has no levels: use 'speed' or 'pitch'")
    if not 0 < edge_share <= 0.5:
        raise ValueError(f"edge_share={edge_share}: use a share above 0 and up to 0.5")
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (value, group) in enumerate(zip(values, groups, strict=True)):
        if value is not None and group is not None and np.isfinite(value):
            members[group].append(index)
    lowest, middle, highest = CLOSED_VALUES[attribute]
    result: list[str | None] = [None] * len(values)
    for indices in members.values():
        measured = np.array([values[index] for index in indices], dtype=np.float64)
        low, high = np.quantile(measured, [edge_share, 1 - edge_share])
        if len(indices) < fewest_clips or low == high:  # all alike: nobody is slow among equals
            continue
        for index, value in zip(indices, measured, strict=True):
            result[index] = lowest if value <= low else highest if value >= high else middle
    return result
