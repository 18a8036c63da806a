"""Records of other projects written as ours.

What a record says is read by ``foreign/``; here it is checked and becomes a conversation or a clip record, or is
rejected with its place and the reason.

Reading order: ``writing`` (`convert_data`) → ``records`` (one record) → ``audio_folder`` (sound inside records).
"""

from __future__ import annotations

from .report import ConversionReport
from .writing import convert_data

__all__ = ["ConversionReport", "convert_data"]
