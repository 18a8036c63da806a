"""What a manifest is: a sequence of records, each of which knows its place; and what is wrong with one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any


class RecordError(ValueError):
    """Something wrong with a record or its file; the message names file and line.

    Args:
        where: file and line, or file alone.
        reason: what is wrong.
    """

    def __init__(self, where: str, reason: str = "") -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.reason) if part)


class Manifest(Sequence[Any]):
    """A read-only sequence of records. Picklable, and safe to share with forked data-loading processes."""

    name: str
    """What messages call the whole of it."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Returns the place of a record for messages, such as ``train.jsonl:7``."""

    @abstractmethod
    def base_dir(self, index: int) -> str | None:
        """Returns the absolute folder that a record's relative paths start from; ``None``: the working folder."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the content, in hexadecimal digits."""

    @abstractmethod
    def _record(self, index: int) -> Any:
        """Reads record ``index`` in [0, len)."""

    def without_sound(self) -> Manifest:
        """Returns the same records without columns that hold files, where leaving them out saves reading them."""
        return self

    def code_makers(self) -> Iterator[tuple[str, str]]:
        """Yields the files that say which audio tokenizer made the codes in them, and its fingerprint."""
        return iter(())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._record(i) for i in range(len(self))[index]]
        return self._record(checked_index(self, index))


def checked_index(sequence: Sequence[Any], index: int) -> int:
    """Returns ``index`` counted from the start; raises IndexError outside the sequence."""
    length = len(sequence)
    if not -length <= index < length:
        raise IndexError(f"record {index} of {length}")
    return index % length
