"""Settings of the last stage alone: reconstruction and the flow decoder, around frozen reasoning codes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Settings of ``stage: reconstruction`` alone."""
