"""A record as tasks see it, and what they may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from audiollm.data.conversation.audio_parts import CLIP_AUDIO_KEYS, clip_part, parse_audio_part
from audiollm.data.conversation.types import AudioPart
from audiollm.data.files.text import HALF_A_CHARACTER, is_whole
from audiollm.data.records import TEXT_KEYS
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SapError, SapRecord
from audiollm.data.voices.clips import words_of


class UnfillableError(ValueError):
    """A record that lacks what a task needs; the message is the reason, the same for all records that share it."""


@dataclass(frozen=True)
class SourceRecord:
    """A record of a source.

    Attributes:
        fields: what it holds; null counts as absent.
        where: its place.
        base_dir: folder that its relative paths start from.
        key: chooses wordings: they follow from it alone.
        text_key: the field that holds the answer, in place of the usual one.
        text_tokenizer: the LLM's, for tasks that count its tokens.
    """

    fields: Mapping[str, Any]
    where: str
    base_dir: str | None
    key: str
    text_key: str | None
    text_tokenizer: PreTrainedTokenizerBase

    @property
    def id(self) -> str:
        """The record's own, or its place."""
        return str(self.fields.get("id", self.where))

    def text(self, *names: str) -> str:
        """The first of some fields that is there, as a text.

        Raises:
            UnfillableError: none is, or it is empty or no text, or holds half a character.
        """
        name = next((name for name in names if self.fields.get(name) is not None), None)
        if name is None:
            raise UnfillableError(f"has no {' or '.join(names)}")
        value = self.fields[name]
        if not isinstance(value, str) or not value.strip():
            raise UnfillableError(f"its {name} is {'empty' if isinstance(value, str) else 'no text'}")
        _check_whole(name, value)
        return value.strip()

    def words(self) -> str:
        """The words spoken, with single blanks.

        Raises:
            UnfillableError: it has none, or half a character in them.
        """
        words = words_of(self.fields)
        if not isinstance(words, str) or not words.strip():
            raise UnfillableError(f"has no words spoken ({', '.join(TEXT_KEYS)})")
        _check_whole("text", words)
        return " ".join(words.split())

    def sap(self) -> SapRecord:
        """Its SAP record.

        Raises:
            UnfillableError: it has none, or one that is not well formed.
        """
        if self.fields.get("sap") is None:
            raise UnfillableError("has no sap")
        try:
            return parse_sap(self.fields["sap"])
        except SapError as error:
            raise UnfillableError(f"its sap cannot be read: {error.problems[0]}") from error

    def audio(self, prefix: str = "") -> AudioPart:
        """Its recording, or the codes of it.

        Args:
            prefix: of the keys, as in ``answer_codes``.

        Raises:
            UnfillableError: it has none.
            ConversationError, RecordError: what is there is none.
        """
        found = {key: self.fields.get(f"{prefix}{key}") for key in _AUDIO_KEYS}
        fields = {key: value for key, value in found.items() if value is not None}
        if "codes" in fields:
            return parse_audio_part({"codes": fields["codes"]}, where=self.where)
        if not any(key in fields for key in CLIP_AUDIO_KEYS):
            raise UnfillableError(f"has neither {prefix}codes nor {prefix}audio")
        return clip_part(fields, self.where, self.base_dir)

    def conversation(self, task: str, asked: list[Any], answer: list[Any], **facts: Any) -> dict[str, Any]:
        """A record of one question and one answer.

        Args:
            task: what is taught.
            asked: texts and audio parts of the user.
            answer: those of the assistant.
            facts: more to be kept, such as the id of the wording.
        """
        made_by = self.fields.get("audio_tokenizer")
        return {
            "id": f"{self.id}/{task}",
            "task": task,
            "messages": [
                {"role": "user", "content": [_part(part) for part in asked]},
                {"role": "assistant", "content": [_part(part) for part in answer]},
            ],
            **facts,
            **({} if made_by is None else {"audio_tokenizer": made_by}),
        }


_AUDIO_KEYS = (*CLIP_AUDIO_KEYS, "codes", "offset", "duration", "array", "sampling_rate")


def _check_whole(name: str, text: str) -> None:
    if not is_whole(text):
        raise UnfillableError(f"its {name} {HALF_A_CHARACTER}")


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return part.to_dict() if isinstance(part, AudioPart) else dict(part)
