"""Semantic-Acoustic Primitives: the record, how it is read, checked and written.

Reading order: ``record`` (the record and its text) → ``parsing`` (strict reading) → ``validation`` (what speaks against
a record) → ``lenient_json`` and ``repair`` (what models answer). ``sounds`` knows the classes of sounds; ``questions``
with ``question_wordings`` → ``question_records`` ask what a record answers.
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
