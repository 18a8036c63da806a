"""What is done about a recording that is damaged: refused, or taken as far as it goes, with a word about the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioDamage:
    """What is wrong with a recording of which a part was taken."""

    source: str
    reason: str
    seconds_read: float
    seconds_promised: float | None  # None: the file does not say how long it should be

    def __str__(self) -> str:
        promised = "" if self.seconds_promised is None else f" of {self.seconds_promised:.3f} s"
        return f"{self.source}: {self.reason}; {self.seconds_read:.3f} s{promised} are taken"


OnDamaged = Literal["raise", "take"] | Callable[[AudioDamage], None]


def checked_on_damaged(on_damaged: OnDamaged) -> Callable[[AudioDamage], None] | None:
    """Returns what hears of damage; ``None`` where damage is an error.

    Raises:
        ValueError: neither "raise", "take" nor a function.
    """
    if on_damaged == "raise":
        return None
    if on_damaged == "take":
        return _warn
    if callable(on_damaged):
        return on_damaged
    raise ValueError(
        f'on_damaged={on_damaged!r}: use "raise", "take" (what can be decoded, with a warning) or a function'
    )


def _warn(damage: AudioDamage) -> None:
    logger.warning("%s", damage)
