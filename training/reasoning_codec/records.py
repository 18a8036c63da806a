"""Records of clips and what is to be written of them: SAP records, or conversations such as SAP-Instruct's.

A clip record asks for its whole SAP record, its words, its caption or its emotion, in one wording each. A conversation
brings its own request: a recording and a question, and the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audiollm.data.audio.reading import Mono
from audiollm.data.conversation.parsing import check_conversation, is_conversation
from audiollm.data.conversation.problems import Problem
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.manifest import Manifest
from audiollm.data.records import SOUND_TYPES
from audiollm.data.unread_keys import CONVERSATION_KEYS, unread_keys
from audiollm.tokenizer.reasoningcodec.configuration import SAMPLE_RATE
from audiollm.training.audio_tokenizer.clips import ClipReader
from audiollm.training.audio_tokenizer.records import TokenizerRecords
from audiollm.training.audio_tokenizer.targets import TASKS, ClipTargets, TargetError

QUESTION = "question"
ANALYSES = (*TASKS, QUESTION)
REQUESTS: Mapping[str, str] = {
    "sap": "Describe what is heard as a record of words, voice and scene.",
    "asr": "Write down what is said.",
    "caption": "Describe the recording in a sentence.",
    "emotion": "Which emotion does the speaker express?",
}
"""What is asked of a clip record."""
_UNKNOWN = "mix"  # sound type of a conversation's recording, unless its record says it


class AnalysisReader(ClipReader):
    """Reads clips, and the recording, request and answer of conversations; arguments as for `ClipReader`."""

    def __init__(self, manifest: Manifest, *, mono: Mono, cache_bytes: int, sample_rate: int = SAMPLE_RATE) -> None:
        super().__init__(manifest, mono=mono, cache_bytes=cache_bytes, sample_rate=sample_rate)

    def targets(self, number: int, duration_seconds: float | None = None) -> ClipTargets:
        """As `ClipReader.targets`; of a conversation its answer, as the task ``question``."""
        if not is_conversation(self.record(number)):
            return super().targets(number, duration_seconds)
        conversation = self._parsed(number)
        sound_type = conversation.metadata.get("sound_type")
        return ClipTargets(
            conversation.id,
            sound_type if sound_type in SOUND_TYPES else _UNKNOWN,
            {QUESTION: _text_of(conversation.messages[-1])},
        )

    def request(self, number: int, task: str) -> str:
        """What is asked of a record for a task."""
        if task != QUESTION:
            return REQUESTS[task]
        return "\n".join(_text_of(message) for message in self._parsed(number).messages[:-1]).strip()

    def conversation(self, number: int, task: str) -> Conversation:
        """A record as the request and the answer of a task, all its other keys beside them."""
        if task == QUESTION:
            return self._parsed(number)
        targets = self.targets(number)
        request: list[TextPart | AudioPart] = [self._audio(number), TextPart(self.request(number, task))]
        messages = [Message("user", request), Message("assistant", [TextPart(targets.texts[task])])]
        known = {key: value for key, value in self.record(number).items() if value is not None and key != "id"}
        return Conversation(targets.id, messages, task=task, metadata=known, where=self.where(number))

    def unread_keys(self, number: int) -> list[str]:
        """As `ClipReader.unread_keys`."""
        record = self.record(number)
        return unread_keys(record, CONVERSATION_KEYS) if is_conversation(record) else unread_keys(record)

    def _audio(self, number: int) -> AudioPart:
        if not is_conversation(self.record(number)):
            return super()._audio(number)
        [part] = self._parsed(number).audio_parts
        return part

    def _parsed(self, number: int) -> Conversation:
        where = self.where(number)
        conversation, problems = check_conversation(
            self.record(number), where=where, base_dir=self.manifest.base_dir(number), for_training=True
        )
        if conversation is not None and not problems:
            problems = [Problem(where, "messages", reason) for reason in _unfit(conversation)]
        if conversation is None or problems:
            raise TargetError(problems)
        return conversation


def _unfit(conversation: Conversation) -> list[str]:
    """Why a conversation is no analysis of a clip."""
    parts, answer = conversation.audio_parts, conversation.messages[-1]
    if len(parts) != 1 or any(part.codes is not None for part in parts):
        return ["hold one recording, of sound and not of codes: what is heard of it is to be written"]
    turns = [message.role for message in conversation.messages if message.role != "system"]
    if turns != ["user", "assistant"] or any(isinstance(part, AudioPart) for part in answer.content):
        return ["hold one request of the user, and one answer of the assistant in text"]
    return [] if _text_of(answer) else ["hold an empty answer"]


def _text_of(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart)).strip()


class AnalysisRecords(TokenizerRecords):
    """Clips and what is to be written of them, all checked when this is made; arguments as for `TokenizerRecords`."""

    def __init__(self, source: Any, text: Any, **options: Any) -> None:
        super().__init__(source, text, reader=AnalysisReader, known_tasks=ANALYSES, **options)

    @property
    def _analyses(self) -> AnalysisReader:
        assert isinstance(self._reader, AnalysisReader)
        return self._reader

    def request(self, index: int, task: str) -> str:
        """What is asked of a record for a task."""
        return self._analyses.request(self._entries[index].record, task)

    def conversation(self, index: int, task: str) -> Conversation:
        """A record as the request and the answer of a task."""
        return self._analyses.conversation(self._entries[index].record, task)

    def facts(self) -> dict[str, Any]:
        """Fingerprint and sizes, for run records."""
        return {
            "records": self.fingerprint,
            "num_clips": len(self),
            "num_skipped": len(self.skipped),
            "hours": round(self.seconds / 3600, 4),
        }


def units_of(records: AnalysisRecords, indices: Sequence[int]) -> list[tuple[int, str]]:
    """Every record with each of its tasks."""
    return [(index, task) for index in indices for task in records.tasks(index)]
