"""Texts that end an answer, looked for while it comes: nothing that may be the beginning of one is given out."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a text before the first of some texts.

    Args:
        stop: the texts; without any, all goes through.

    Attributes:
        text: all that was given out.
        is_met: whether one of them has come: nothing follows.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        if any(not one for one in stop):
            raise ValueError("a stop text is empty: leave it out")
        self._stop = list(stop)
        self._held = ""
        self.text = ""
        self.is_met = False

    def take(self, text: str) -> str:
        """What of the text so far can be given out."""
        if self.is_met:
            return ""
        self._held += text
        places = [place for one in self._stop if (place := self._held.find(one)) >= 0]
        if places:
            self.is_met = True
            return self._give(min(places))
        longest = max((self._beginning_of(one) for one in self._stop), default=0)
        return self._give(len(self._held) - longest)

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.is_met else self._give(len(self._held))

    def _give(self, length: int) -> str:
        given, self._held = self._held[:length], self._held[length:]
        self.text += given
        return given

    def _beginning_of(self, stop: str) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        return next((n for n in range(min(len(stop) - 1, len(self._held)), 0, -1) if self._held.endswith(stop[:n])), 0)
