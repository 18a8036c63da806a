"""Telephone prompts of Asterisk: read speech with transcripts, one voice in each of five languages.

The same prompt key is the same sentence in every language, so the corpus is parallel. Texts that do not say what is
spoken (notes in brackets, tones, damaged letters) are left out. Spanish texts often lack their accents.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from audiollm.data.corpora.clips import ClipMetadata, CorpusError, Recording, connected_groups
from audiollm.data.corpora.g722 import decode_g722, duration_seconds
from audiollm.data.packages import Package

NAME = "asterisk"
VERSION = "1.6.1-1"
MIN_SECONDS, MAX_SECONDS = 0.3, 30.0


@dataclass(frozen=True)
class _Voice:
    language: str
    folder: str
    licence: str
    attribution: str
    audio_sha256: str
    text_sha256: str
    num_files: int
    num_clips: int

    @property
    def packages(self) -> tuple[Package, Package]:
        """Audio and transcripts."""
        name = f"asterisk-core-sounds-{self.language}"
        return (
            Package("deb", f"{name}-g722", VERSION, self.audio_sha256),
            Package("deb", name, VERSION, self.text_sha256),
        )


_VOICES = (
    _Voice(
        "en", "en_US_f_Allison", "CC-BY-SA-3.0", "Asterisk core sounds, English, recorded by Allison Smith",
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50", 568, 537,
    ),
    _Voice(
        "es", "es_MX_f_Allison", "CC-BY-SA-3.0", "Asterisk core sounds, Spanish, recorded by Allison Smith",
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
        "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74", 527, 471,
    ),
    _Voice(
        "fr", "fr_CA_f_June", "CC-BY-SA-3.0",
        "Asterisk core sounds, French, recorded by June Wallack, translated by C. Patry, K. Lalletti and J. Wallack",
        "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
        "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056", 561, 505,
    ),
    _Voice(
        "it", "it_IT_m_Carlo", "CC-BY-3.0",
        "Asterisk core sounds, Italian, recorded by Carlo Flora, translated by Silvia Petrin",
        "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b", 599, 543,
    ),
    _Voice(
        "ru", "ru_RU_f_IvrvoiceRU", "CC-BY-3.0", "Asterisk core sounds, Russian, provided by Maxim Topal (ivrvoice.ru)",
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
        "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab", 576, 540,
    ),
)  # fmt: skip
PACKAGES = tuple(package for voice in _VOICES for package in voice.packages)

# Notes and tones in brackets; a question mark inside a sentence stands for a lost accented letter (Italian).
_NOT_SPOKEN = re.compile(r"[\[(<]|note:|\?(?=[^\s\"'])|\s\?\s")


def recordings() -> list[Recording]:
    """All usable prompts of the five languages.

    Returns:
        Recordings with transcript, language and voice.

    Raises:
        PackageError: if a package cannot be fetched.
        CorpusError: if a package holds another number of files than it should.
    """
    found = [prompt for voice in _VOICES for prompt in _prompts(voice)]
    # A prompt links its languages by its key; equal words under two keys of one language link those keys.
    groups = connected_groups([(f"key {key.lower()}", f"text {voice.language} {_plain(text)}")
                               for voice, key, text, _ in found])  # fmt: skip
    return [_recording(*prompt, group) for prompt, group in zip(found, groups, strict=True)]


def read_transcripts(path: Path) -> dict[str, str]:
    """Reads ``core-sounds-<language>.txt.gz``: lines of ``key: text``, comments after ``;``."""
    texts = {}
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        for line in file:
            key, colon, text = line.strip().partition(":")
            if colon and not key.startswith(";"):
                texts[key.strip()] = text.strip()
    return texts


def is_spoken(key: str, text: str) -> bool:
    """Whether a prompt's text is what a listener hears."""
    return bool(text) and not key.startswith("silence/") and not _NOT_SPOKEN.search(text)


def _prompts(voice: _Voice) -> list[tuple[_Voice, str, str, Path]]:
    audio_package, text_package = voice.packages
    text_path = f"usr/share/doc/{text_package.name}/core-sounds-{voice.language}.txt.gz"
    texts = read_transcripts(text_package.extract(text_path) / text_path)
    base = f"usr/share/asterisk/sounds/{voice.folder}"
    folder = audio_package.extract(f"{base}/*.g722") / base
    files = sorted(folder.rglob("*.g722"))
    if len(files) != voice.num_files:
        raise CorpusError(f"{audio_package} holds {len(files)} recordings, expected {voice.num_files}")
    prompts = []
    for path in files:
        key = path.relative_to(folder).with_suffix("").as_posix()
        text = texts.get(key, "")
        if is_spoken(key, text) and MIN_SECONDS < duration_seconds(path) < MAX_SECONDS:
            prompts.append((voice, key, text, path))
    if len(prompts) != voice.num_clips:
        raise CorpusError(f"{audio_package} has {len(prompts)} usable prompts, expected {voice.num_clips}")
    return prompts


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _recording(voice: _Voice, key: str, text: str, path: Path, group: str) -> Recording:
    metadata = ClipMetadata(
        id=f"{NAME}/{voice.language}/{key.replace('/', '.').replace(' ', '_')}",
        sound_type="speech",
        group=f"{NAME} {group}",
        duration_seconds=duration_seconds(path),
        licence=voice.licence,
        attribution=voice.attribution,
        source=f"{voice.packages[0]}: {voice.folder}/{key}.g722",
        text=text,
        language=voice.language,
        speaker=f"{NAME}/{voice.folder}",
        attributes={"prompt": key.lower()},
    )
    return Recording(metadata=metadata, load=partial(decode_g722, path))
