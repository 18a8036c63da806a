"""PyAV, which some of the server's sound needs: imported where it is used, as the rest works without it."""

from __future__ import annotations

import importlib
from types import ModuleType


class PyAVMissingError(RuntimeError):
    """PyAV is not installed; the message says what needs it, and how to install it.

    Args:
        what: what needs it, such as "the format opus".
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} needs PyAV, which is not installed here: pip install 'audiollm[serve]'"


def import_pyav(what: str) -> ModuleType:
    """Imports PyAV.

    Args:
        what: what needs it, for the error.

    Raises:
        PyAVMissingError: it is not installed.
    """
    try:
        # By name, as it is an optional package.
        return importlib.import_module("av")
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise PyAVMissingError(what) from error
