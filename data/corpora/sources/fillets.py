"""Dialogues of Fish Fillets NG: acted Czech and Dutch speech with transcripts, roles and English translations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

NAME = "fillets"
VERSION = "1.0.1-1.1"
SCRIPTS = Package("deb", "fillets-ng-data", VERSION, "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84")
MIN_SECONDS, MAX_SECONDS = 0.4, 30.0
_SCRIPT_FOLDER = "usr/share/games/fillets-ng/script"
_SOUND_FOLDER = "usr/share/games/fillets-ng/sound"


@dataclass(frozen=True)
class _Dub:
    language: str
    package: Package
    num_files: int
    num_clips: int


_DUBS = (
    _Dub(
        "cs",
        Package(
            "deb", "fillets-ng-data-cs", VERSION, "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14"
        ),
        1782,
        1724,
    ),
    _Dub(
        "nl",
        Package(
            "deb", "fillets-ng-data-nl", VERSION, "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10"
        ),
        1529,
        1526,
    ),
)
PACKAGES = (SCRIPTS, *(dub.package for dub in _DUBS))


class Line(NamedTuple):
    """One line of a dialogue."""

    role: str
    english: str
    text: str


def recordings() -> list[Recording]:
    """All lines of both dubs that have a text.

    Returns:
        Recordings with transcript, English translation and role; a level of the game is one group in both languages.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if a package holds another number of files than it should.
    """
    return [recording for dub in _DUBS for recording in _dub_recordings(dub)]


def read_dialogues(script: str) -> dict[str, Line]:
    """Reads ``dialogId("id", "font_<role>", "English")`` followed by ``dialogStr("text")``.

    Args:
        script: a Lua file of the game.

    Returns:
        Dialogue id → line.
    """
    string = r'"((?:[^"\\]|\\.)*)"'
    pattern = rf"dialogId\(\s*{string}\s*,\s*{string}\s*,\s*{string}\s*\)\s*dialogStr\(\s*{string}\s*\)"
    found = re.findall(pattern, script)
    return {
        key: Line(font.removeprefix("font_"), _unescaped(english), _unescaped(text))
        for key, font, english, text in found
    }


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text).strip()


def _dub_recordings(dub: _Dub) -> list[Recording]:
    scripts = SCRIPTS.extract(f"{_SCRIPT_FOLDER}/*/*dialogs_??.lua") / _SCRIPT_FOLDER
    lines: dict[tuple[str, str], Line] = {}
    shared: dict[str, Line] = {}  # levels may speak lines of another level's script
    for path in sorted(scripts.glob(f"*/*dialogs_{dub.language}.lua")):
        for key, spoken in read_dialogues(path.read_text(encoding="utf-8")).items():
            lines[path.parent.name, key] = spoken
            shared.setdefault(key, spoken)
    folder = dub.package.extract(f"{_SOUND_FOLDER}/*.ogg") / _SOUND_FOLDER
    files = sorted(folder.glob(f"*/{dub.language}/*.ogg"))
    if len(files) != dub.num_files:
        raise CorpusError(f"{dub.package} holds {len(files)} recordings, expected {dub.num_files}")
    found = []
    for path in files:
        level = path.parent.parent.name
        line = lines.get((level, path.stem)) or shared.get(path.stem)
        seconds = _duration_seconds(path)
        if line and line.text and MIN_SECONDS < seconds < MAX_SECONDS:
            found.append(_recording(dub, level, path, line, seconds))
    if len(found) != dub.num_clips:
        raise CorpusError(f"{dub.package} has {len(found)} usable lines, expected {dub.num_clips}")
    return found


def _recording(dub: _Dub, level: str, path: Path, line: Line, seconds: float) -> Recording:
    metadata = ClipMetadata(
        id=f"{NAME}/{dub.language}/{level}.{re.sub(r'[^A-Za-z0-9_-]', '_', path.stem)}",
        sound_type="speech",
        group=f"{NAME} {level}",
        duration_seconds=seconds,
        licence="GPL-2.0-only",
        attribution="Fish Fillets NG, ALTAR interactive and contributors",
        source=f"{dub.package}: {level}/{dub.language}/{path.name}",
        text=line.text,
        language=dub.language,
        translation=line.english or None,
        speaker=f"{NAME}/{dub.language}/{line.role}",
    )
    return Recording(metadata=metadata, load=partial(_load, path))


def _duration_seconds(path: Path) -> float:
    try:
        return probe_audio(path).duration_seconds
    except AudioError:
        return 0.0  # one Dutch file is empty; the number of clips is checked, so no other can go unnoticed


def _load(path: Path) -> Tensor:
    return load_audio(path, SAMPLE_RATE)[0]
