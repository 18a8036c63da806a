"""Alarms of a residual quantizer: each codebook is watched by itself, and the loss once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audiollm.training.audio_tokenizer.monitor import TokenizerMonitor

_LOSS = "loss"


class CodebookMonitors:
    """Raises alarms over the lines of a training whose quantizer has several codebooks.

    A line may hold ``loss``, ``num_codes``, and for each codebook ``code_usage`` and ``perplexity``.

    Args:
        codebook_sizes: entries of each codebook.
        advice: what helps against a collapse.
    """

    def __init__(self, codebook_sizes: tuple[int, ...], advice: str) -> None:
        self._codebooks = [TokenizerMonitor(size, advice=advice) for size in codebook_sizes]
        self._loss = TokenizerMonitor(1)

    def update(self, line: Mapping[str, Any]) -> list[str]:
        """Takes in an update's line; returns the alarms that it sets off."""
        alarms = self._loss.update({_LOSS: line[_LOSS]} if _LOSS in line else {})
        for number, monitor in enumerate(self._codebooks):
            own = {name: line[name][number] for name in ("code_usage", "perplexity") if name in line}
            found = monitor.update(own | {"num_frames": line["num_codes"]})
            alarms += [f"codebook {number + 1} of {len(self._codebooks)}: {one}" for one in found]
        return alarms

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to raise the alarms of an uninterrupted one."""
        return {"codebooks": [one.state_dict() for one in self._codebooks], _LOSS: self._loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Inverse of `state_dict`."""
        self._loss.load_state_dict(state[_LOSS])
        for monitor, own in zip(self._codebooks, state["codebooks"], strict=True):
            monitor.load_state_dict(own)
