"""What a file without sound is instead, and what to do with it; by its first bytes, as names may lie."""

from __future__ import annotations

import re

_CODES = 'codes are heard in Python, as {"type": "audio", "codes": […]} of a message, or as "codes" of records'
_FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x93NUMPY"), f"a NumPy array: write samples to a WAV file; {_CODES}"),
    (
        re.compile(rb"PK\x03\x04"),
        f"a zip archive, such as .npz or .pt: take the recordings out of it; {_CODES}",
    ),
    (
        re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*[\[{]\s*[\"'\[{\]}\d.tfn-]"),
        f"JSON: name the recordings themselves, or give records to audiollm tokenize; {_CODES}",
    ),
    (re.compile(rb"PAR1|ARROW1"), "a table of Parquet or Arrow: give it to audiollm tokenize"),
    (
        re.compile(rb"\s*<(?:!doctype|html|\?xml)", re.IGNORECASE),
        "a web page: its download failed, fetch it again",
    ),
    (re.compile(rb"%PDF"), "a PDF: name the recording itself"),
)


def foreign_kind(first_bytes: bytes) -> str | None:
    """What a file that no decoder reads is; None if that is not known."""
    found = (what for pattern, what in _FOREIGN if pattern.match(first_bytes))
    return next((f"is not audio (it starts with {first_bytes[:12]!r}) but {what}" for what in found), None)
