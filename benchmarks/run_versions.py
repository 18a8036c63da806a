"""Versions of what decides a benchmark's answers."""

from __future__ import annotations

import platform
from importlib import metadata

_RECORDED_PACKAGES = ("audiollm", "torch", "transformers", "tokenizers", "numpy", "soundfile", "soxr", "openai")


def package_versions() -> dict[str, str | None]:
    """Installed versions; None where a package is absent."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
