"""Controllable text to speech as training data: clips with transcripts become requests to speak in a voice.

The user asks for a text, in most records with a voice described in words; the assistant answers with the recording.
What cannot be used is left out and counted, with the reason.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.conversation.types import Conversation, Message, TextPart
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.records import RecordReport, write_records
from audiollm.data.sampling import draw, draw_share
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys

from .attributes import VocalAttributes
from .clips import SpokenClip, UnusableClipError, read_spoken_clip
from .instructions import describe_voice, speech_request, text_of_request
from .levels import levels

TASK = "speak"
INTERLEAVED_TASKS = ("speak_interleaved", "speech_to_speech_interleaved")  # the answer also writes what it says
_WITH_VOICE, _PLAIN = "with_voice", "plain"  # sorts of records in a report


@dataclass(frozen=True, kw_only=True)
class SpeechTaskSettings:
    """Which clips become records, and how.

    Attributes:
        split: use clips of this split only; None: all.
        voice_share: share of the clips with known attributes whose request describes the voice.
        all_attributes_share: share of those that name every attribute; the others name some, so that the model also
            learns to follow a short description.
        min_seconds: shorter clips are left out.
        max_seconds: longer clips are left out, not cut.
        min_characters_per_second: clips that say less per second are left out: their text may belong elsewhere.
        max_characters_per_second: the same for more than a mouth can say.
        measure: find speed and pitch of clips that come without: speed of text and duration within a language, pitch of
            ``f0_median_hz`` within a gender; see `audiollm.data.voices.levels`.
        seed: changes which clips get which words.
    """

    split: str | None = None
    voice_share: float = 0.8
    all_attributes_share: float = 0.5
    min_seconds: float = 0.3
    max_seconds: float = 30.0
    min_characters_per_second: float = 1.0
    max_characters_per_second: float = 40.0
    measure: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("voice_share", "all_attributes_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a share between 0 and 1")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"min_seconds={self.min_seconds}, max_seconds={self.max_seconds}: use 0 <= min_seconds <= max_seconds"
            )


@dataclass
class SpeechTaskReport(RecordReport):
    """What became of the clips; ``records`` are of two sorts, ``with_voice`` and ``plain``.

    Attributes:
        seconds: of audio in the records, as far as it is known.
        attributes: in how many of those with a voice each attribute is named.
        unknown_values: labels outside the closed sets, as "emotion: bored"; their clips are used without them.
    """

    seconds: float = 0.0
    attributes: Counter[str] = field(default_factory=Counter)
    unknown_values: Counter[str] = field(default_factory=Counter)

    @property
    def with_voice(self) -> int:
        """Conversations that describe the voice."""
        return self.records[_WITH_VOICE]

    def __str__(self) -> str:
        unknown = [f"label not known: {label} ({count})" for label, count in self.unknown_values.most_common()]
        return "\n".join([super().__str__(), *unknown])

    def _made(self) -> str:
        named = ", ".join(f"{name} {count}" for name, count in self.attributes.most_common())
        return f"{self.num_records} records, {self.seconds / 60:.1f} min; {self.with_voice} describe the voice" + (
            f" ({named})" if named else ""
        )


def write_speech_records(
    source: Any, output: str | os.PathLike[str], settings: SpeechTaskSettings | None = None
) -> SpeechTaskReport:
    """Writes the records of `speech_records` as JSONL for ``training/sft.py``; the file appears whole or not at all.

    Args:
        source: clips, see `speech_records`.
        output: the file; paths of audio below its folder are written relative to it, others absolute.
        settings: which clips, and how.

    Raises:
        ValueError: if no clip can be used; the message says why.
        RecordError: if the source cannot be read.
    """
    report = SpeechTaskReport()
    records = speech_records(source, settings, report=report)
    write_records(records, output, report, if_none="none of the clips can be spoken")
    return report


def speech_records(
    source: Any, settings: SpeechTaskSettings | None = None, *, report: SpeechTaskReport | None = None
) -> Iterator[dict[str, Any]]:
    """Makes conversation records of clips: the user asks for a text in a voice, the assistant speaks it.

    A clip is ``{"text", "codes" or "audio", …}``, see `audiollm.data.voices.clips`. Memory does not grow with the
    corpus, but for a few numbers per clip.

    Args:
        source: anything that `audiollm.data.manifest.open_manifest` opens.
        settings: which clips, and how; None for defaults.
        report: is filled in while the records are made.

    Yields:
        Records with the wording ids of request (``prompt``) and voice (``voice_wordings``) and the attributes that the
        request names (``voice``).

    Raises:
        RecordError: if the source cannot be read.
    """
    settings = settings or SpeechTaskSettings()
    report = SpeechTaskReport() if report is None else report
    manifest = open_manifest(source)
    measured = _measured(manifest, settings) if settings.measure else {}
    unread: Counter[str] = Counter()
    for index in range(len(manifest)):
        where = manifest.where(index)
        try:
            clip = _clip(manifest, index, settings)
        except UnusableClipError as error:
            report.leave_out(str(error), where)
            continue
        unread.update(unread_keys(manifest[index]))
        attributes = VocalAttributes(**(measured.get(index, {}) | clip.attributes.given))
        record, named = speech_conversation(clip, attributes, f"{settings.seed} {clip.id}", settings)
        report.records[_WITH_VOICE if named.given else _PLAIN] += 1
        report.seconds += clip.seconds or 0.0
        report.attributes.update(named.given.keys())
        report.unknown_values.update(f"{name}: {value}" for name, value in clip.unknown_values.items())
        yield record
    warn_of_unread_keys(manifest.name, unread)


def _clip(manifest: Manifest, index: int, settings: SpeechTaskSettings) -> SpokenClip:
    try:
        record = manifest[index]
    except RecordError as error:
        raise UnusableClipError(f"the record {error.reason}") from error
    if settings.split is not None and (not isinstance(record, Mapping) or record.get("split") != settings.split):
        raise UnusableClipError(f"not of split {settings.split}")
    clip = read_spoken_clip(record, manifest.where(index), manifest.base_dir(index))
    if clip.seconds is None or clip.speed is None:
        return clip
    if not settings.min_seconds <= clip.seconds <= settings.max_seconds:
        raise UnusableClipError("too short" if clip.seconds < settings.min_seconds else "too long")
    if clip.speed < settings.min_characters_per_second:
        raise UnusableClipError("too little text for its duration")
    if clip.speed > settings.max_characters_per_second:
        raise UnusableClipError("too much text for its duration")
    return clip


def _measured(manifest: Manifest, settings: SpeechTaskSettings) -> dict[int, dict[str, str]]:
    """Speed and pitch by comparison between all clips; only numbers are kept, so the manifest is read twice."""
    indices, speeds, languages, pitches, genders = [], [], [], [], []
    for index in range(len(manifest)):
        with contextlib.suppress(UnusableClipError):  # counted when the records are made
            clip = _clip(manifest, index, settings)
            indices.append(index)
            speeds.append(clip.speed)
            languages.append(clip.language)
            pitches.append(clip.f0_median_hz)
            genders.append(clip.attributes.gender)
    found = {"speed": levels("speed", speeds, languages), "pitch": levels("pitch", pitches, genders)}
    return {
        index: {name: level for name in found if (level := found[name][number]) is not None}
        for number, index in enumerate(indices)
    }


def speech_conversation(
    clip: SpokenClip, attributes: VocalAttributes, key: str, settings: SpeechTaskSettings
) -> tuple[dict[str, Any], VocalAttributes]:
    """The conversation of one clip, and the attributes that its request names.

    Args:
        clip: what is spoken.
        attributes: the voice, as far as it is known.
        key: decides the words, and how much they tell of the voice.
        settings: shares of records that describe the voice.
    """
    named = _named(attributes, key, settings)
    words = describe_voice(named, key) if named.given else None
    message, prompt_id = speech_request(clip.text, words.text if words else None, key)
    record: dict[str, Any] = {
        "id": f"{clip.id}/{TASK}",
        "task": TASK,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": message}]},
            {"role": "assistant", "content": [clip.audio]},
        ],
        "prompt": prompt_id,
    }
    if words is not None:
        record |= {"voice": named.given, "voice_wordings": list(words.ids)}
    return record | clip.kept, named


def _named(attributes: VocalAttributes, key: str, settings: SpeechTaskSettings) -> VocalAttributes:
    """The attributes that a request names: none, all, or some of them in a number that is drawn."""
    given = list(attributes.given)
    if not given or draw_share("voice", key) >= settings.voice_share:
        return VocalAttributes()
    if draw_share("all attributes", key) < settings.all_attributes_share:
        return attributes
    order = sorted(given, key=lambda name: draw(f"rank {name}", key, 2**32))
    return attributes.only(set(order[: 1 + draw("number of attributes", key, len(order))]))


def text_to_be_said(conversation: Conversation) -> str | None:
    """What a spoken answer is to say.

    The record's ``text``; or what its last request asks to speak, if that is its task; or what an interleaved answer
    writes beside its sound. None without any.
    """
    text = conversation.metadata.get("text")
    if isinstance(text, str) and text.strip():
        return text.strip()
    requests = [message for message in conversation.messages if message.role == "user"]
    if conversation.task == TASK and requests:
        return text_of_request(_written(requests[-1]))
    if conversation.task in INTERLEAVED_TASKS:
        return _written(conversation.messages[-1]).strip() or None
    return None


def _written(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart))
