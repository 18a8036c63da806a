"""Spoken names of Tux Paint's stamps: short phrases by volunteers in twelve languages, with parallel English."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from torch import Tensor

from audiollm.data.audio.reading import load_audio, probe_audio
from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording
from audiollm.data.packages import Package
from audiollm.tokenizer.configuration import SAMPLE_RATE

NAME = "tuxpaint"
PACKAGE = Package(
    "deb",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
PACKAGES = (PACKAGE,)
NUM_FILES = 7418
MIN_SECONDS, MAX_SECONDS = 0.4, 20.0
_FOLDER = "usr/share/tuxpaint/stamps"
_SPOKEN = re.compile(r"(?P<stamp>.*?)_desc(?:_(?P<language>[a-z]{2,3}(?:_[A-Z]{2})?))?(?:\.ogg)?\.ogg")


def recordings() -> list[Recording]:
    """All spoken descriptions that have a text in their language.

    Returns:
        Recordings with transcript, English text and language; the same English text is one group in all languages.

    Raises:
        PackageError: if the package cannot be fetched.
        CorpusError: if it holds another number of files than it should.
    """
    folder = PACKAGE.extract(f"{_FOLDER}/*_desc*.ogg", f"{_FOLDER}/*.txt") / _FOLDER
    matches = [(path, _SPOKEN.fullmatch(path.name)) for path in sorted(folder.rglob("*.ogg"))]
    spoken = [(path, match) for path, match in matches if match]
    if len(spoken) != NUM_FILES:
        raise CorpusError(f"{PACKAGE} holds {len(spoken)} spoken descriptions, expected {NUM_FILES}")
    texts: dict[Path, dict[str, str]] = {}
    found = []
    for path, match in spoken:
        text_path = path.with_name(f"{match['stamp']}.txt")
        if text_path not in texts:
            texts[text_path] = read_descriptions(text_path) if text_path.is_file() else {}
        language = match["language"] or "en"
        recording = _recording(path, path.relative_to(folder), language, texts[text_path])
        if recording is not None:
            found.append(recording)
    return found


def read_descriptions(path: Path) -> dict[str, str]:
    """Reads a stamp's text file: English on the first line, then ``<language>.utf8=<text>``.

    Args:
        path: the file.

    Returns:
        Language code → text.
    """
    first, *others = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    texts = {"en": first.strip()}
    for line in others:
        language, equals, text = line.partition(".utf8=")
        if equals and text.strip():
            texts[language] = text.strip()
    return texts


def _recording(path: Path, relative: Path, language: str, texts: dict[str, str]) -> Recording | None:
    text, english = texts.get(language), texts.get("en")
    seconds = probe_audio(path).duration_seconds
    if not text or not english or not MIN_SECONDS < seconds < MAX_SECONDS:
        return None
    metadata = ClipMetadata(
        id=f"{NAME}/{language}/{re.sub(r'[^A-Za-z0-9_-]+', '.', relative.with_suffix('').as_posix())}",
        sound_type="speech",
        group=f"{NAME} {english}",
        duration_seconds=seconds,
        licence="GPL-2.0-or-later",
        attribution="Tux Paint stamps, Bill Kendrick and contributors",
        source=f"{PACKAGE}: {relative.as_posix()}",
        text=text,
        language=language,
        translation=None if language == "en" else english,
        speaker=f"{NAME}/{language}",
    )
    return Recording(metadata=metadata, load=partial(_load, path))


def _load(path: Path) -> Tensor:
    return load_audio(path, SAMPLE_RATE)[0]
