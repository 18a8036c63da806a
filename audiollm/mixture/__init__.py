"""What a model is trained on: several sources, drawn by weight, of which tasks make conversations.

Reading order: ``config`` (the YAML) → ``templates`` (what tasks make of records) → ``sources`` (a place in a source → a
conversation) → ``report`` (what the model will see).
"""

from __future__ import annotations

from .config import MixtureConfig, SourceConfig, read_mixture
from .sources import MixtureSource, open_sources

__all__ = ["MixtureConfig", "MixtureSource", "SourceConfig", "open_sources", "read_mixture"]
