"""OpenSFX, the free sound set of OpenTTD: field and studio recordings, each with a caption and its own licence."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording, connected_groups
from audiollm.data.corpora.labels import check_reviewed, sound_labels
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

NAME = "opensfx"
PACKAGE = Package(
    "deb", "openttd-opensfx", "1.0.3-2", "2898b4677a3caccc4abc08fb4cf83319047b5a04729291deb5c77a8cd713c006"
)
PACKAGES = (PACKAGE,)
NUM_ENTRIES = 73
MIN_SECONDS = 0.1
_CAT_PATH = "usr/share/games/openttd/baseset/opensfx/opensfx.cat"
_LICENCES = {
    "Creative Commons Zero": "CC0-1.0",
    "Creative Commons Attribution-ShareAlike 3.0": "CC-BY-SA-3.0",
    "Creative Commons Attribution 3.0": "CC-BY-3.0",
}


@dataclass(frozen=True)
class CatEntry:
    """One sound of a ``.cat`` file."""

    index: int
    description: str
    """Caption in quotes, originals and authors, licence."""
    wav: bytes

    @property
    def caption(self) -> str:
        match = re.match(r'"(.*?)"', self.description)
        if match is None:
            raise CorpusError(f"{NAME} sound {self.index} has no caption: {self.description!r}")
        return match[1]

    @property
    def licence(self) -> str:
        for words, identifier in _LICENCES.items():
            if f"License: {words}" in self.description:
                return identifier
        raise CorpusError(f"{NAME} sound {self.index} states no known licence: {self.description!r}")


def read_cat(content: bytes) -> list[CatEntry]:
    """Reads a ``.cat`` file: a table of (offset, size), then for each sound its length-prefixed description and a WAV.

    Args:
        content: the file.

    Returns:
        The sounds in order.

    Raises:
        CorpusError: if an offset points outside the file or at something else than a WAV.
    """
    try:
        num_entries = (struct.unpack_from("<I", content)[0] & 0x7FFFFFFF) // 8
        entries = []
        for index in range(num_entries):
            offset, size = struct.unpack_from("<II", content, 8 * index)
            offset &= 0x7FFFFFFF  # the top bit only says that descriptions are present
            start = offset + 1 + content[offset]
            description = content[offset + 1 : start].rstrip(b"\0").decode("latin-1")
            wav = content[start : start + size]
            if wav[:4] != b"RIFF" or len(wav) != size:
                raise CorpusError(f"sound {index} of the .cat file is no whole WAV; the file is damaged")
            entries.append(CatEntry(index, description, wav))
    except (struct.error, IndexError) as error:
        raise CorpusError("the .cat file is cut short or damaged") from error
    return entries


def recordings() -> list[Recording]:
    """The labelled sounds.

    Returns:
        Recordings with class, caption and licence. Sounds cut from the same original are one group.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if it holds other sounds than it should.
    """
    entries = read_cat((PACKAGE.extract(_CAT_PATH) / _CAT_PATH).read_bytes())
    if len(entries) != NUM_ENTRIES:
        raise CorpusError(f"{PACKAGE} holds {len(entries)} sounds, expected {NUM_ENTRIES}")
    check_reviewed(NAME, {entry.caption for entry in entries})
    labels = sound_labels(NAME)
    entries = [entry for entry in entries if entry.caption in labels]
    groups = connected_groups([_originals(entry) for entry in entries])
    found = []
    for entry, group in zip(entries, groups, strict=True):
        label = labels[entry.caption]
        metadata = ClipMetadata(
            id=f"{NAME}/{entry.index:02d}-{re.sub(r'[^a-z0-9]+', '-', entry.caption.lower()).strip('-')}",
            sound_type="sound",
            group=f"{NAME} {group}",
            duration_seconds=probe_audio(entry.wav).duration_seconds,
            licence=entry.licence,
            attribution=f"OpenSFX: {entry.description}",
            source=f"{PACKAGE}: opensfx.cat sound {entry.index}",
            label=label,
            caption=entry.caption,
        )
        found.append(Recording(metadata=metadata, load=partial(_load, entry.wav), stratum=f"{NAME} {label}"))
    return [recording for recording in found if recording.metadata.duration_seconds >= MIN_SECONDS]


def _load(wav: bytes) -> Tensor:
    return load_audio(wav, SAMPLE_RATE)[0]


def _originals(entry: CatEntry) -> set[str]:
    """The files that a sound was made from; without any, its caption. Numbered takes of one recordist count as one."""
    files = re.findall(r'"([^"]+\.(?:wav|mp3|flac|aif|aiff|ogg))"', entry.description)
    return {re.sub(r"[\s_-]*\d+(?=\.\w+$)", "", name) for name in files} or {entry.caption}
