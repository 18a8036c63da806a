"""Records of other projects, read as ours: chats and clips.

A reader turns one record into a `ForeignChat` (a conversation in our words) or `ForeignClip` (a recording and what is
said of it), or says why it cannot. ``audiollm.data.conversion`` checks and writes what they give; ShareGPT is also read
where conversations are.

Reading order: ``base`` → ``recordings`` with ``sharegpt``, ``exchanges``, ``messages`` (chats) → ``files`` → ``clips``
(NeMo, tables), ``lhotse``, ``kaldi``, ``shards`` (WeNet), ``audiofolder`` → ``formats`` (all of them) → ``detection``;
``advice`` says how a source becomes ours.
"""

from __future__ import annotations

from .base import Entry, ForeignChat, ForeignClip, Format, ShapeError
from .detection import find_format, formats_of
from .formats import FORMATS

__all__ = ["FORMATS", "Entry", "ForeignChat", "ForeignClip", "Format", "ShapeError", "find_format", "formats_of"]
