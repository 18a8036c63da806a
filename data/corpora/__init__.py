"""Real corpora from packages that registries carry, and the small sample that ships with the project.

Reading order: ``clips`` (a recording and its licence; the manifest) → ``build`` (a corpus folder) → ``sources/`` (what
the packages hold). ``sample_corpus`` is what ships; ``sample_build`` makes it anew.
"""

from __future__ import annotations

from .build import CORPORA, Corpus, build_corpus
from .clips import Clip, CorpusError, load_manifest, save_manifest
from .sample_corpus import SAMPLE_FOLDER, load_sample_corpus

__all__ = [
    "CORPORA",
    "SAMPLE_FOLDER",
    "Clip",
    "Corpus",
    "CorpusError",
    "build_corpus",
    "load_manifest",
    "load_sample_corpus",
    "save_manifest",
]
