"""Semantic-Acoustic Primitives: the record, how it is read, checked and written.

The parts lie in ``sap_record.py``, ``sap_parsing.py``, ``sap_repair.py`` and ``sap_validation.py``.
"""

from __future__ import annotations

from .parsing import parse_sap
from .record import (
    EVENT_TYPES,
    SAP_ATTRIBUTES,
    AuditoryScene,
    EventType,
    SapError,
    SapRecord,
    SoundEvent,
    Style,
    render_sap,
)
from .repair import repair_sap
from .validation import validate_sap

__all__ = [
    "EVENT_TYPES",
    "SAP_ATTRIBUTES",
    "AuditoryScene",
    "EventType",
    "SapError",
    "SapRecord",
    "SoundEvent",
    "Style",
    "parse_sap",
    "render_sap",
    "repair_sap",
    "validate_sap",
]
