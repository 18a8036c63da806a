"""Several manifests, one after the other."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from .base import Manifest


class Joined(Manifest):
    """Several manifests, one after the other.

    Args:
        parts: the manifests.
        name: what messages call the whole.
    """

    def __init__(self, parts: Sequence[Manifest], name: str) -> None:
        self.name = name
        self.parts = parts

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _locate(self, index: int) -> tuple[Manifest, int]:
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)

    def where(self, index: int) -> str:
        part, inner_index = self._locate(index)
        return part.where(inner_index)

    def base_dir(self, index: int) -> str | None:
        part, inner_index = self._locate(index)
        return part.base_dir(inner_index)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    def without_sound(self) -> Manifest:
        return Joined([part.without_sound() for part in self.parts], self.name)

    def code_makers(self) -> Iterator[tuple[str, str]]:
        for part in self.parts:
            yield from part.code_makers()

    def _record(self, index: int) -> Any:
        part, inner_index = self._locate(index)
        return part[inner_index]
