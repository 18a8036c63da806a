"""The recordings that ship with the project: about half an hour, all freely redistributable."""

from __future__ import annotations

from pathlib import Path

from .clips import MANIFEST_NAME, Clip, load_manifest

SAMPLE_FOLDER = Path(__file__).resolve().parent / "sample"


def load_sample_corpus() -> list[Clip]:
    """The clips of the sample corpus, with absolute paths.

    Speech of five languages with transcripts, sound events with classes, and music with mood and tempo, in fixed
    splits. Licence and author of every clip are in the manifest and in ``ATTRIBUTION.md`` beside it.

    Returns:
        The clips, sorted by id.

    Raises:
        FileNotFoundError: if the installation lacks the sample.
    """
    return load_manifest(SAMPLE_FOLDER / MANIFEST_NAME)
