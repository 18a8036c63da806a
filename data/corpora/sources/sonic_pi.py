"""The samples of Sonic Pi: drums, percussion, basses, guitars and electronic sounds, all CC0."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from torch import Tensor

from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.corpora.labels import check_reviewed, sound_labels
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

NAME = "sonic-pi"
PACKAGE = Package(
    "deb", "sonic-pi-samples", "3.2.2~repack-8", "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d"
)
PACKAGES = (PACKAGE,)
NUM_FILES = 165
MIN_SECONDS = 0.1  # shorter ones are clicks that nobody can name
_FOLDER = "usr/share/sonic-pi/samples"


def recordings() -> list[Recording]:
    """The labelled samples.

    Returns:
        Recordings with class; hard and soft takes of one instrument are one group.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if it holds other samples than it should.
    """
    folder = PACKAGE.extract(f"{_FOLDER}/*.flac", f"{_FOLDER}/README.md") / _FOLDER
    files = sorted(folder.glob("*.flac"))
    if len(files) != NUM_FILES:
        raise CorpusError(f"{PACKAGE} holds {len(files)} samples, expected {NUM_FILES}")
    check_reviewed(NAME, {path.stem for path in files})
    uploaders = read_uploaders((folder / "README.md").read_text(encoding="utf-8"))
    labels = sound_labels(NAME)
    found = []
    for path in files:
        seconds = probe_audio(path).duration_seconds
        if path.stem not in labels or seconds < MIN_SECONDS:
            continue
        label = labels[path.stem]
        metadata = ClipMetadata(
            id=f"{NAME}/{path.stem}",
            sound_type="sound",
            group=f"{NAME} {instrument(path.stem)}",
            duration_seconds=seconds,
            licence="CC0-1.0",
            attribution=f"Sonic Pi sample {path.stem}, from freesound.org, by {uploaders.get(path.stem, 'others')}",
            source=f"{PACKAGE}: {path.name}",
            label=label,
        )
        found.append(Recording(metadata=metadata, load=partial(_load, path), stratum=f"{NAME} {label}"))
    return found


def read_uploaders(readme: str) -> dict[str, str]:
    """Sample name → who put it on freesound.org, from the list in the package's README."""
    entries = re.findall(r"`:(\w+)`\s*-\s*https?://(?:www\.)?freesound\.org/people/([^/\s]+)/", readme)
    named = {name: uploader.replace("%20", " ") for name, uploader in entries}
    # The list writes perc_impact_1 for the file perc_impact1, but bd_808 for bd_808.
    return {re.sub(r"_(?=\d+$)", "", name): uploader for name, uploader in named.items()} | named


def instrument(name: str) -> str:
    """A sample's name without what tells takes of one instrument apart: loudness and pedal."""
    return re.sub(r"_(hard|soft|open|closed|pedal)$", "", name)


def _load(path: Path) -> Tensor:
    return load_audio(path, SAMPLE_RATE)[0]
