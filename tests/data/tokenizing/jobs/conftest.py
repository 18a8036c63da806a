"""Worker processes that are started anew find the modules of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take over this process's path, on which the root is only where pytest was started as a module."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
