"""Corpora to codes, resumable after any interruption.

Reading order: ``source`` (which recordings) → ``corpus`` (the run) → ``encoding`` (decoded ahead, encoded in batches) →
``report``.
"""

from __future__ import annotations

from .corpus import shard_path, tokenize_corpus
from .report import CorpusReport
from .source import AudioFiles, open_corpus

__all__ = ["AudioFiles", "CorpusReport", "open_corpus", "shard_path", "tokenize_corpus"]
