"""What is found out about the bytes of a recording before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Part:
    """A range of a file that is a recording by itself; most files are one."""

    start: int
    end: int
    prefix: bytes = b""  # goes in front of the range: a header in place of one that is missing or wrong
    has_length: bool = True  # False: the number of samples that the header tells is a bound or a guess


@dataclass
class Contents:
    """What a file holds."""

    parts: list[Part] = field(default_factory=list)
    problem: str = ""  # what is wrong with it; what is there can be read nevertheless
    refusal: str = ""  # why it cannot be read at all
    unsupported: str = ""  # why libsndfile must not be asked
