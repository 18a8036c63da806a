"""Sound effects of three games and the samples of a music program: weapons, animals, machines, weather, instruments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.corpora.labels import sound_labels
from audiollm.data.files.hashing import file_sha256
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

NAME = "game-sounds"
MIN_SECONDS = 0.15  # shorter ones are clicks that nobody can name
MAX_SECONDS = 10.0  # of longer ones the beginning


@dataclass(frozen=True)
class Source:
    """A package with sounds.

    Attributes:
        name: its name in ``sound_labels.tsv``.
        package: what to fetch.
        folder: name of the folders that hold its sounds; their names in the table are relative to those.
        licence: SPDX identifier.
        attribution: who made them.
    """

    name: str
    package: Package
    folder: str
    licence: str
    attribution: str


SOURCES = (
    Source(
        "wesnoth",
        Package(
            "deb",
            "wesnoth-1.16-data",
            "1:1.16.9-1",
            "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
        ),
        "sounds",
        "GPL-2.0-or-later",
        "The Battle for Wesnoth Project",
    ),
    Source(
        "lmms",
        Package(
            "deb",
            "lmms-common",
            "1.2.2+dfsg1-6",
            "7d9aa55dd05f11edc57104203ee1c350e3e41f8936ab3741da2bb1158fd46c37",
        ),
        "samples",
        "GPL-2.0-or-later",
        "the authors of LMMS",
    ),
    Source(
        "minetest",
        Package(
            "deb",
            "minetest-data",
            "5.6.1+dfsg+~1.9.0mt8+dfsg-2",
            "91371dd2bd51cfcd4fa60c138667989a47047dfe1a47f7523b9ad1782d397585",
        ),
        "sounds",
        "CC-BY-SA-3.0",
        "the authors of Minetest Game",
    ),
    Source(
        "lincity-ng",
        Package(
            "deb",
            "lincity-ng-data",
            "2.9~git20150314-5",
            "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9",
        ),
        "sounds",
        "GPL-2.0-or-later",
        "the authors of LinCity-NG",
    ),
)
PACKAGES = tuple(source.package for source in SOURCES)


def recordings() -> list[Recording]:
    """The labelled sounds.

    Returns:
        Recordings with class. Numbered takes of a sound are one group; of identical files the first is kept.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if one lacks a sound that it should hold.
    """
    found: list[Recording] = []
    seen: set[str] = set()
    for source in SOURCES:
        for name, path in _labelled_files(source):
            digest = file_sha256(path)
            if digest in seen:
                continue
            seen.add(digest)
            seconds = min(probe_audio(path).duration_seconds, MAX_SECONDS)
            if seconds >= MIN_SECONDS:
                found.append(_recording(source, name, path, seconds))
    return found


def _labelled_files(source: Source) -> Iterator[tuple[str, Path]]:
    root = source.package.extract(f"*/{source.folder}/*")
    files = {
        path.as_posix().rpartition(f"/{source.folder}/")[2]: path for path in sorted(root.rglob("*")) if path.is_file()
    }
    labels = sound_labels(source.name)
    missing = sorted(labels.keys() - files.keys())
    if missing:
        raise CorpusError(f"{source.package} lacks {len(missing)} labelled sounds: {', '.join(missing[:8])}")
    yield from ((name, files[name]) for name in sorted(labels))


def _recording(source: Source, name: str, path: Path, seconds: float) -> Recording:
    label = sound_labels(source.name)[name]
    stem = re.sub(r"\.\w+$", "", name)
    metadata = ClipMetadata(
        # With the suffix: Wesnoth has both a mace.ogg and a mace.wav.
        id=f"{NAME}/{source.name}/{re.sub(r'[^A-Za-z0-9_/-]', '-', name)}",
        sound_type="sound",
        group=f"{source.name} {take_group(stem)}",
        duration_seconds=seconds,
        licence=source.licence,
        attribution=f"{name}, by {source.attribution}",
        source=f"{source.package}: {name}",
        label=label,
    )
    return Recording(metadata=metadata, load=partial(_load, path), stratum=f"{NAME} {label}")


def take_group(stem: str) -> str:
    """A sound's name without the number that tells its takes apart: ``sword-2`` and ``sword-3`` are one group."""
    return re.sub(r"[-_. ]*\d+$", "", stem.lower())


def _load(path: Path) -> Tensor:
    waveform, sample_rate = load_audio(path, SAMPLE_RATE)
    return waveform[: round(MAX_SECONDS * sample_rate)]
