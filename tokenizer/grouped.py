"""Codes of several rates as one row of symbols: those of the first group, then those of the next."""
# Shapes: K codebooks of a group, T frames of it, S symbols of a row, N samples.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import AudioTokenizer, Codes, GroupedCodes
from .layout import CodeLayout
from .sequence import OneRowTokenizer


@dataclass(frozen=True)
class GroupedLayout:
    """How the codes of groups of codebooks are one row of symbols in ``[0, size)``.

    Each group is flat, frame by frame; its symbols are behind those of all groups before it.

    Attributes:
        groups: the layout of each group by its name, in the order of the row.

    Raises:
        ValueError: if there is no group, two have one name, or one is not flat.
    """

    groups: tuple[tuple[str, CodeLayout], ...]

    def __post_init__(self) -> None:
        if not self.groups or len({name for name, _ in self.groups}) < len(self.groups):
            raise ValueError(f"groups={[name for name, _ in self.groups]}: give one or more, each once")
        for name, layout in self.groups:
            if layout.order != "flat":
                raise ValueError(f"{name}: code_order={layout.order!r}; codes of several rates are laid out flat")

    @classmethod
    def of(cls, audio_tokenizer: AudioTokenizer) -> GroupedLayout:
        """That of all the codes of a tokenizer."""
        return cls(tuple((one.name, CodeLayout(one.codebook_sizes)) for one in audio_tokenizer.code_groups))

    @classmethod
    def from_dict(cls, stated: Any) -> GroupedLayout:
        """Reads what `to_dict` gave.

        Raises:
            ValueError: if it says something else, or what cannot be.
        """
        groups = stated.get("groups") if isinstance(stated, Mapping) and stated.keys() == {"groups"} else None
        if not isinstance(groups, Mapping):
            raise ValueError(f"{stated!r} is no layout of codes in groups: it has groups, a layout for each name")
        return cls(tuple((str(name), CodeLayout.from_dict(one)) for name, one in groups.items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"groups": {name: layout.to_dict() for name, layout in self.groups}}

    def __str__(self) -> str:
        return "; ".join(f"{name}: {layout}" for name, layout in self.groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups."""
        return tuple(name for name, _ in self.groups)

    @property
    def size(self) -> int:
        """How many symbols there are."""
        return sum(layout.size for _, layout in self.groups)

    def offset_of(self, name: str) -> int:
        """The first symbol of a group."""
        before = 0
        for one, layout in self.groups:
            if one == name:
                return before
            before += layout.size
        raise ValueError(f"there is no group {name!r}; there are {', '.join(self.names)}")

    def to_symbols(self, codes: Mapping[str, Tensor]) -> Tensor:
        """One row of the codes of a clip.

        Args:
            codes: integers ``[K, T]`` of each group.

        Returns:
            int64 ``[S]``.

        Raises:
            ValueError: if the codes of a group are missing or unknown, or as `CodeLayout.to_symbols`.
        """
        if codes.keys() != set(self.names):
            missing, unknown = set(self.names) - codes.keys(), codes.keys() - set(self.names)
            raise ValueError(
                f"codes of {', '.join(self.names)} are needed; missing: {', '.join(sorted(missing)) or 'none'}; "
                f"unknown: {', '.join(sorted(unknown)) or 'none'}"
            )
        rows = []
        for name, layout in self.groups:
            try:
                rows.append(layout.to_symbols(codes[name]) + self.offset_of(name))
            except ValueError as error:
                raise ValueError(f"{name} codes: {error}") from error
        return torch.cat(rows)

    def to_groups(self, symbols: Tensor, *, is_cut: bool = False) -> dict[str, Tensor]:
        """The codes of a row; the inverse of `to_symbols`.

        Args:
            symbols: integers ``[S]``.
            is_cut: the row may break off anywhere: the frames that are whole count.

        Returns:
            int64 ``[K, T]`` of each group.

        Raises:
            ValueError: if a symbol cannot stand where it does, or the row breaks off before it is whole.
        """
        wrong = symbols[(symbols < 0) | (symbols >= self.size)]
        if len(wrong):
            raise ValueError(f"{int(wrong[0])} is not in [0, {self.size}), the symbols of {self}")
        found = {}
        rest = symbols
        for name, layout in self.groups:
            last = self.offset_of(name) + layout.size
            behind = (rest >= last).nonzero()
            length = int(behind[0]) if len(behind) else len(rest)
            try:
                found[name] = layout.to_codes(rest[:length] - self.offset_of(name), is_cut=is_cut)
            except ValueError as error:
                raise ValueError(f"{name} codes: {error}") from error
            rest = rest[length:]
        return found


class GroupedSequenceTokenizer(OneRowTokenizer):
    """Presents the codes of a tokenizer that has several rates as symbols of one row, a group behind the other.

    Its frames are the symbols. A row cannot be made or read while it arrives, since the second group follows the whole
    of the first.

    Args:
        inner: the tokenizer.
        layout: of all its groups.

    Raises:
        ValueError: if the tokenizer has other groups than the layout.
    """

    def __init__(self, inner: AudioTokenizer, layout: GroupedLayout) -> None:
        super().__init__(inner)
        if GroupedLayout.of(inner) != layout:
            raise ValueError(
                f"{type(inner).__name__} has codes of {GroupedLayout.of(inner)}, and the layout is one of {layout}: "
                "use the audio tokenizer that it was made for"
            )
        self.layout: GroupedLayout = layout

    @property
    def frame_rate(self) -> float:
        return sum(one.tokens_per_second for one in self.inner.code_groups)

    @property
    def bits_per_second(self) -> float:
        return self.inner.bits_per_second

    @property
    def can_encode_stream(self) -> bool:
        return False

    @property
    def can_decode_stream(self) -> bool:
        return False

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        resampled = -(-num_samples * self.sample_rate // sample_rate)
        counts = [
            -(-resampled // round(self.sample_rate / one.frame_rate)) * len(one.codebook_sizes)
            for one in self.inner.code_groups
        ]
        return sum(counts)

    def row_of(self, codes: GroupedCodes, index: int) -> Tensor:
        return self.layout.to_symbols(codes.clip(index))

    def codes_of(self, rows: Sequence[Tensor]) -> GroupedCodes:
        clips = [self.layout.to_groups(row, is_cut=True) for row in rows]
        return GroupedCodes(
            {
                name: Codes.from_list([clip[name] for clip in clips], num_codebooks=layout.num_codebooks)
                for name, layout in self.layout.groups
            }
        )
