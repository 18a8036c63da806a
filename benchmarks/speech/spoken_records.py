"""Recordings of a manifest that a speech benchmark takes, and what is said in them.

Records are clips, with audio and text, or conversations that ask for a transcript, as a training has them: one file
serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.parsing import is_conversation, parse_conversation
from audiollm.data.conversation.types import AudioPart, Conversation, TextPart
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.records import TEXT_KEYS

TRANSCRIBE = "transcribe"  # the task whose answer is what is said


@dataclass(frozen=True)
class SpokenRecord:
    """A recording of a manifest.

    Attributes:
        id: the record's own, or its number in the manifest.
        where: its place, for messages.
        audio: the recording.
        text: what is said; None where the record does not tell.
    """

    id: str
    where: str
    audio: AudioPart
    text: str | None


def spoken_records(manifest: Manifest, split: str | None) -> Iterator[SpokenRecord]:
    """The records of a split, or all if it is None, read as they are asked for.

    Raises:
        RecordError: a record has no recording, or is a conversation about something else than what is said in one.
    """
    for index in range(len(manifest)):
        record, where = manifest[index], manifest.where(index)
        metadata = record if isinstance(record, Mapping) else {}
        if split is not None and metadata.get("split") != split:
            continue
        base_dir = manifest.base_dir(index)
        text = next((metadata[key] for key in TEXT_KEYS if isinstance(metadata.get(key), str)), None)
        if is_conversation(record):
            audio, text = _asked_about(parse_conversation(record, where=where, base_dir=base_dir), text)
        else:
            audio = clip_part(record, where, base_dir)
        yield SpokenRecord(str(metadata.get("id", index)), where, audio, text)


def _asked_about(conversation: Conversation, text: str | None) -> tuple[AudioPart, str | None]:
    """The recording of a conversation, and what is said in it: the record's own text, or the answer."""
    heard = [part for message in conversation.messages if message.role != "assistant" for part in message.content]
    recordings = [part for part in heard if isinstance(part, AudioPart)]
    answers = [message.content for message in conversation.messages if message.role == "assistant"]
    if conversation.task == TRANSCRIBE and len(answers) == 1 and all(isinstance(part, TextPart) for part in answers[0]):
        text = "".join(part.text for part in answers[0] if isinstance(part, TextPart))
    if len(recordings) != 1 or text is None:
        raise RecordError(
            conversation.where,
            f"is a conversation about {len(recordings)} recordings, of task {conversation.task or 'none'}, that does "
            "not tell what is said in one: give clips of audio and text, or conversations as `audiollm convert-data` "
            f"makes them with --task {TRANSCRIBE}",
        )
    return recordings[0], text
