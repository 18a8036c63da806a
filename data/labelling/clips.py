"""Clips that are to be labelled: their metadata, their sound, and the record that comes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.data.audio.channels import Mono
from audiollm.data.audio.writing import open_audio_output, wav_bytes
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.parsing import is_conversation
from audiollm.data.conversation.types import AudioPart
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.records import SOUND_TYPES, TEXT_KEYS
from audiollm.data.sap.record import SapRecord
from audiollm.data.voices.attributes import CLOSED_VALUES, VocalAttributes

from .by_rules import training_record

HEARD: Mono = "mean"  # of several channels, if nothing else is said
LISTENER_SAMPLE_RATE = 16000  # Hz; captioners of the Whisper kind take no other, larger models resample by themselves
LABEL_KEYS = ("label", "language", "translation", "caption", "attributes", "vocal_attributes", "paralinguistics")
VOICE_KEYS = ("attributes", "paralinguistics", "vocal_attributes")  # the strongest last
_CLOSED_FIELDS = ("age", "gender", "emotion")
_AUDIO_KEYS = ("audio", "audio_filepath", "offset", "duration", "path", "bytes", "array", "sampling_rate", "codes")
_MUSIC = re.compile(
    r"\b(music|musical|song|singing|melody|guitar|piano|drums?|violin|orchestra|band|synthesi[sz]er|bass line)\b", re.I
)


class ClipsOfSplit(Manifest):
    """The records of a manifest, without those that say they are of another split.

    Args:
        manifest: all records.
        split: such as "train".
    """

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.name = manifest.name
        self._manifest, self._split = manifest, split
        self._indices = [index for index in range(len(manifest)) if self._belongs(index)]

    def _belongs(self, index: int) -> bool:
        try:
            record = self._manifest[index]
        except RecordError:
            return True  # to be refused with the reason
        stated = record.get("split") if isinstance(record, Mapping) else None
        return stated in (None, self._split)

    def __len__(self) -> int:
        return len(self._indices)

    def where(self, index: int) -> str:
        return self._manifest.where(self._indices[index])

    def base_dir(self, index: int) -> str | None:
        return self._manifest.base_dir(self._indices[index])

    @property
    def fingerprint(self) -> str:
        return f"{self._manifest.fingerprint} {self._split}"

    def _record(self, index: int) -> Any:
        return self._manifest[self._indices[index]]


@dataclass(frozen=True)
class LabelClip:
    """A clip as its corpus has it.

    Attributes:
        index: place in the corpus.
        where: file and line.
        metadata: the record, without its audio.
        part: its audio.
        transcript: the words spoken, on one line; empty if there are none or they are not known.
    """

    index: int
    where: str
    metadata: dict[str, Any]
    part: AudioPart
    transcript: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the corpus says beside the transcript."""
        names = (*LABEL_KEYS, *_CLOSED_FIELDS)
        return {name: self.metadata[name] for name in names if self.metadata.get(name)}

    @property
    def known_voice(self) -> dict[str, str]:
        """The closed vocal attributes that the corpus knows, by name."""
        values: dict[str, Any] = {}
        for key in VOICE_KEYS:
            if isinstance(self.metadata.get(key), Mapping):
                values |= self.metadata[key]
        values |= {name: self.metadata[name] for name in CLOSED_VALUES if self.metadata.get(name) is not None}
        given = VocalAttributes.from_record(values)[0].given
        return {name: value for name, value in given.items() if name in _CLOSED_FIELDS}

    def wav(self, max_seconds: float, mono: Mono = HEARD) -> tuple[bytes, float]:
        """The sound as a WAV file (16 kHz, one channel, 16 bit), and its duration in seconds.

        Raises:
            AudioError: if it cannot be decoded.
            RecordError: if it is longer than ``max_seconds``: labels of a part would be labels of the whole.
        """
        # Probed first, so that hours of sound are refused before they take their memory.
        seconds = self.part.probe().duration_seconds
        if seconds > max_seconds:
            raise RecordError(self.where, f"lasts {seconds:.1f} s, but max_seconds is {max_seconds:g}; cut it first")
        waveform, _ = self.part.load(LISTENER_SAMPLE_RATE, mono)
        seconds = len(waveform) / LISTENER_SAMPLE_RATE
        if seconds > max_seconds:
            raise RecordError(self.where, f"lasts {seconds:.1f} s, but max_seconds is {max_seconds:g}; cut it first")
        return wav_bytes(waveform, LISTENER_SAMPLE_RATE), seconds


def read_label_clip(index: int, record: Any, where: str, base_dir: str | None) -> LabelClip:
    """Reads a record of a corpus: ``{"audio", "text"?, "id"?, …}`` or a path.

    Raises:
        RecordError: if it is none, or its text is no text.
    """
    if is_conversation(record):
        raise RecordError(where, "is a conversation; give clips, {audio, text}")
    part = clip_part(record, where, base_dir)
    metadata = {"id": record} if isinstance(record, str) else {"id": os.path.basename(where), **record}
    text = next((metadata[key] for key in TEXT_KEYS if metadata.get(key) is not None), "")
    if not isinstance(text, str):
        raise RecordError(where, f"text is {text!r:.60}: give the words spoken as text, or leave it out")
    metadata = {key: value for key, value in metadata.items() if key not in _AUDIO_KEYS and value is not None}
    return LabelClip(index, where, metadata, part, " ".join(text.split()))


def labelled_record(
    clip: LabelClip,
    sap: SapRecord,
    caption: str,
    duration_seconds: float,
    folder: Path,
    audio_folder: Path,
    mono: Mono = HEARD,
) -> dict[str, Any]:
    """The clip as a record for training a tokenizer.

    Args:
        clip: the clip.
        sap: its labels.
        caption: the description they were made of.
        duration_seconds: of the clip.
        folder: where the record will lie; paths below it are written relative to it.
        audio_folder: sound that is in no file of its own (the column of a data set) is written there as FLAC.
        mono: which channel was heard, and is written.
    """
    path = Path(os.path.abspath(_audio_file(clip, audio_folder, mono)))
    folder = Path(os.path.abspath(folder))
    audio = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    metadata = clip.metadata | {"duration_seconds": round(duration_seconds, 3)}
    record = training_record(metadata, sap, audio=audio, sound_type=sound_type(clip.metadata, sap))
    cut = {} if clip.part.path is None else clip.part.cut  # what was written to a file is the segment alone
    return record | cut | {"caption": caption}


def _audio_file(clip: LabelClip, audio_folder: Path, mono: Mono) -> str | Path:
    if clip.part.path is not None:
        return clip.part.path
    waveform, sample_rate = clip.part.load(mono=mono)
    audio_folder.mkdir(parents=True, exist_ok=True)
    path = audio_folder / f"{clip.index:08d}.flac"
    with open_audio_output(path, sample_rate) as writer:
        writer.write(waveform)
    return path


def sound_type(metadata: Mapping[str, Any], sap: SapRecord) -> str:
    """What kind of sound a clip is: as its corpus says, or else by its labels."""
    stated = metadata.get("sound_type")
    if stated in SOUND_TYPES:
        return str(stated)
    has_music = any(_MUSIC.search(event.label) for event in sap.auditory_scenes.events)
    if sap.is_speech:
        return "mix" if has_music else "speech"
    return "music" if has_music else "sound"
