"""The ids that stand for no sound and no word: where parts of a sequence begin and end, and what fills gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

AUDIO_PARTS = ("reasoning", "reconstruction")
PLAIN_TEXT = "text"
"""Name of a text part that stands without marks around it."""
RELEASED_TEXT_PARTS = {"transcription": (128011, 128012), "lyric": (128013, 128014), "caption": (128015, 128016)}
"""Marks around texts, among the reserved ids of Llama 3."""


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Special ids of a `UniAudioLM`; None: there is none, and what needs it says so.

    Audio ids count inside their own part of the audio vocabulary and are the same in all streams; those of
    reconstruction are shifted behind those of reasoning where they enter the model. Defaults are those seen in public
    code, for codebooks of 4096 and 8192 entries and Llama 3's text vocabulary.
    """

    reasoning_bos: int | None = 4096
    reasoning_eos: int | None = 4097
    reasoning_pad: int | None = 4099
    reconstruction_bos: int | None = 8192
    reconstruction_eos: int | None = 8193
    reconstruction_pad: int | None = 8194
    text_pad: int | None = 128004
    text_parts: Mapping[str, tuple[int, int]] = field(default_factory=lambda: dict(RELEASED_TEXT_PARTS))
    """Start and end mark of each kind of text, by its name."""

    @classmethod
    def none(cls) -> SpecialIds:
        """No special ids at all."""
        return cls(**{one.name: None for one in fields(cls) if one.name != "text_parts"}, text_parts={})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpecialIds:
        """Reads what `to_dict` gave; a name left out is None.

        Raises:
            ValueError: if a name is unknown, or an id is no whole number or pair of such.
        """
        unknown = values.keys() - {one.name for one in fields(cls)}
        if unknown:
            names = ", ".join(one.name for one in fields(cls))
            raise ValueError(f"special_ids: {', '.join(sorted(unknown))} is unknown; known are {names}")
        texts = values.get("text_parts") or {}
        for name, pair in texts.items():
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(one) is int for one in pair):
                raise ValueError(
                    f"special_ids: text_parts[{name!r}]={pair!r}: give the ids of its two marks, start and end"
                )
        for name, one in values.items():
            if name != "text_parts" and one is not None and type(one) is not int:
                raise ValueError(f"special_ids: {name}={one!r}: give a whole number, or None for no such id")
        given = {name: one for name, one in values.items() if name != "text_parts"}
        pairs = {name: (pair[0], pair[1]) for name, pair in texts.items()}
        return cls(**{**cls.none().to_dict(), **given, "text_parts": pairs})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in ``config.json``."""
        return {**asdict(self), "text_parts": {name: list(pair) for name, pair in self.text_parts.items()}}

    def of_part(self, part: str) -> dict[str, int]:
        """The ids of an audio part by their ending, ``bos``, ``eos``, ``pad``; those that there are."""
        found = {name: getattr(self, f"{part}_{name}") for name in ("bos", "eos", "pad")}
        return {name: one for name, one in found.items() if one is not None}

    def required(self, name: str, purpose: str) -> int:
        """The id of this name.

        Raises:
            ValueError: if there is none.
        """
        found = getattr(self, name)
        if found is None:
            raise ValueError(f"{purpose} needs special_ids.{name} in the configuration, which has none")
        return int(found)

    def text_marks(self, part: str) -> tuple[int, int]:
        """Start and end mark of a text part.

        Raises:
            ValueError: if there are none for it.
        """
        if part not in self.text_parts:
            known = ", ".join(sorted(self.text_parts)) or "none"
            raise ValueError(
                f"special_ids.text_parts in the configuration has no marks for {part!r} (known: {known}): add its two "
                "ids"
            )
        return self.text_parts[part]

    def check(self, reasoning_size: int, reconstruction_size: int, text_size: int) -> None:
        """Compares all ids with the vocabularies they belong to.

        Raises:
            ValueError: naming the id that is out of range, or two that are the same.
        """
        for part, size in zip(AUDIO_PARTS, (reasoning_size, reconstruction_size), strict=True):
            ids = {f"{part}_{ending}": one for ending, one in self.of_part(part).items()}
            _check_range(ids, size, f"{part}_vocab_size")
            if len(set(ids.values())) < len(ids):
                shown = ", ".join(f"{name}={one}" for name, one in ids.items())
                raise ValueError(f"special_ids: {shown}: two marks with one id cannot be told apart")
        texts = {f"text_parts[{name!r}] (end)": pair[1] for name, pair in self.text_parts.items()}
        texts.update({f"text_parts[{name!r}] (start)": pair[0] for name, pair in self.text_parts.items()})
        if self.text_pad is not None:
            texts["text_pad"] = self.text_pad
        _check_range(texts, text_size, "text_config.vocab_size")


def _check_range(ids: Mapping[str, int], size: int, setting: str) -> None:
    for name, one in ids.items():
        if not 0 <= one < size:
            raise ValueError(f"special_ids: {name}={one} is not in [0, {size}), see {setting}")
