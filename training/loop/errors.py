"""Errors of a training run that its user can mend; each ends a program with its message."""

from __future__ import annotations

from audiollm.program import ProgramError


class LaunchError(ProgramError):
    """The processes that were asked for are not the ones that were started."""


class DataError(ValueError):
    """Records that cannot be trained on; the message names each of them and the reason."""


class ResumeError(ValueError):
    """The checkpoint does not belong to this run; the message lists what differs."""


class NonFiniteLossError(ProgramError):
    """The loss or the gradient is NaN or infinite; the records of the update have been written down."""
