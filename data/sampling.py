"""Choices that are the same in every run and on every machine: drawn by hash, or evenly spread.

Hashes and not a random generator: what is drawn for one record then follows from its own key alone, and changes neither
with the records before it nor with the number of processes or the library's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from .prompts import Prompt, numbered

Item = TypeVar("Item")


def draw(name: str, key: str, num_choices: int) -> int:
    """A number in [0, num_choices) that follows from the arguments: the same in every run, spread evenly over keys."""
    # The name keeps draws about one record apart: else all that are made by its key would agree with each other.
    digest = hashlib.sha256(f"{name}\n{key}".encode()).digest()
    # 64 bits: the remainder favours low numbers by less than num_choices / 2^64.
    return int.from_bytes(digest[:8], "big") % num_choices


def draw_share(name: str, key: str) -> float:
    """A number in [0, 1) that follows from the arguments."""
    return draw(name, key, 2**32) / 2**32


def choose(name: str, texts: Sequence[str], key: str | None) -> Prompt:
    """The wording that follows from a key, such as a record's id; None: the standard one."""
    return numbered(name, texts)[0 if key is None else draw(name, key, len(texts))]


def share_of(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts, evenly spread over them."""
    return seed_of(*parts) / 2.0**64


def seed_of(*parts: object) -> int:
    """A seed of 64 bits that follows from the parts alone."""
    # A separator that no id holds: ("a", "bc") and ("ab", "c") must not give the same seed.
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "big")


def spread(records: Sequence[Item], num_items: int) -> list[Item]:
    """``num_items`` of them at even distances, or all."""
    if len(records) <= num_items:
        return list(records)
    return [records[index * len(records) // num_items] for index in range(num_items)]
