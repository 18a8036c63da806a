"""What settings of tokenizing must be, however a corpus is tokenized."""

from __future__ import annotations

from collections.abc import Mapping


def check_settings(numbers: Mapping[str, int | None], *, num_shards: int, shard: int, mono: str) -> None:
    """Refuses settings that cannot work, before anything is read.

    Args:
        numbers: what must be 1 or more; None is the default.
        num_shards: parts of the corpus.
        shard: which of them is done, from 0.
        mono: which waveform of several channels.

    Raises:
        ValueError: naming the setting and its value.
    """
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: use 1 or more")
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard={shard} of num_shards={num_shards}: shards count from 0 to num_shards - 1")
    if mono not in ("first", "mean"):
        raise ValueError(f'mono={mono!r}: use "first" or "mean"')
