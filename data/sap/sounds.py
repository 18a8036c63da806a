"""Classes of sounds: the table ``sounds.tsv``, and the sound type of a clip as its record states it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from audiollm.data.records import SOUND_TYPES

from .record import EventType, SapError

SOUNDS_PATH = Path(__file__).with_name("sounds.tsv")
MUSIC = "music"
"""The class of the event that music is."""
MUSIC_KINDS = frozenset(
    {"bass", "bass drum", "cymbal", "drone", "drums", "keys", "snare", "strings", "synth", "wind instrument"}
)


class NoRuleError(SapError):
    """Nothing is known of a clip that a record could say; the message is the reason, the same for clips that share it.

    Args:
        reason: what is missing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__([reason])


@dataclass(frozen=True)
class SoundClass:
    """How a label of a sound is put into words.

    Attributes:
        label: the label, as data sets have it: "dog_wolf".
        name: the class in words: "dog or wolf".
        type: of the event.
        summary: a sentence for the scene.
        kinds: what sounds of this class may be; two classes that share one may both be right for a sound.
    """

    label: str
    name: str
    type: EventType
    summary: str
    kinds: frozenset[str]


@cache
def sound_classes() -> Mapping[str, SoundClass]:
    """The table of sounds by label."""
    with SOUNDS_PATH.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return {
        label: SoundClass(label, name, event_type, summary, frozenset(kinds.split(", ")))  # type: ignore[arg-type]
        for label, name, event_type, summary, kinds in rows
    }


def sound_type_of(facts: Mapping[str, Any]) -> str:
    """The type of a clip: as stated, or speech if it has a text, else sound if it has a label.

    Raises:
        NoRuleError: if it is none of the known types, or cannot be told.
    """
    stated = facts.get("sound_type")
    if stated is None:
        stated = "speech" if facts.get("text") else "sound" if facts.get("label") else None
    if stated not in SOUND_TYPES:
        raise NoRuleError("neither text nor label" if stated is None else f"sound_type {stated!r} is unknown")
    return str(stated)
