"""Labels from models: a captioner hears a clip, a structurer turns transcript and description into a SAP record.

The pipeline of UniAudio-Token (arXiv:2605.31521), with checks after it: what the structurer writes is repaired in form,
checked against ontology, logic, duration, transcript and known labels, asked for once more if that finds anything,
and refused if it still does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.audio.channels import Mono, checked_mono
from audiollm.data.chat.base import ChatModel, ChatReply
from audiollm.data.manifest import RecordError
from audiollm.data.sap.record import SapRecord
from audiollm.data.sap.repair import repair_sap
from audiollm.data.sap.validation import letters, validate_sap

from .clips import HEARD, LabelClip
from .messages import LabellingMessages

ROLES = ("captioner", "structurer")


@dataclass(frozen=True, kw_only=True)
class ModelLabelling:
    """How models are asked.

    Attributes:
        max_seconds: longer clips are refused.
        caption_tokens: longest description; what is cut off is cut back to whole sentences.
        record_tokens: longest answer of the structurer.
        max_asks: the structurer is asked so often before a clip is refused.
        mono: which channel of a clip is heard, "first" or the "mean" of all; None: the mean.
    """

    max_seconds: float = 30.0
    caption_tokens: int = 400
    record_tokens: int = 1024
    max_asks: int = 2
    mono: Mono | None = None

    def __post_init__(self) -> None:
        for name in ("max_seconds", "caption_tokens", "record_tokens", "max_asks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: use a positive number")
        if self.mono is not None:
            checked_mono(self.mono)


@dataclass
class Usage:
    """What a model was asked and what that took."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: ChatReply | Mapping[str, int]) -> None:
        """Adds a reply, or what a record says of its labelling."""
        if isinstance(other, ChatReply):
            values: Mapping[str, int] = {
                "requests": 1,
                "retries": other.num_retries,
                "prompt_tokens": other.prompt_tokens,
                "completion_tokens": other.completion_tokens,
            }
        else:
            values = other
        for name, value in values.items():
            setattr(self, name, getattr(self, name) + value)


class RejectedClipError(RecordError):
    """A clip without labels that hold.

    Args:
        where: file and line.
        reason: what speaks against them.
        details: the description, the last reply, what it took.
    """

    def __init__(self, where: str, reason: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(where, reason)
        self.details = dict(details or {})


@dataclass
class ModelLabels:
    """What models say of a clip.

    Attributes:
        sap: the record; holds `validate_sap`.
        caption: the description it was made of.
        duration_seconds: of the clip.
        repairs: what had to be changed in the form of the reply.
        usage: what each model took.
    """

    sap: SapRecord
    caption: str
    duration_seconds: float
    repairs: list[str] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)

    @property
    def provenance(self) -> dict[str, Any]:
        """For the clip's record: what it took, and what was repaired."""
        return _provenance(self.usage, self.repairs)


class ModelLabeller:
    """Labels clips with models; called from several threads.

    Args:
        structurer: writes the record.
        captioner: hears the clip. None: descriptions stand in the corpus (``caption``).
        settings: how they are asked.
    """

    def __init__(
        self, structurer: ChatModel, captioner: ChatModel | None = None, settings: ModelLabelling | None = None
    ) -> None:
        self._structurer = structurer
        self._captioner = captioner
        self._settings = settings or ModelLabelling()
        self._messages = LabellingMessages()

    @property
    def facts(self) -> dict[str, str]:
        """What the labels depend on: models, settings and the hash of each prompt."""
        given = dataclasses.asdict(self._settings).items()
        settings = {name: str(value) for name, value in given if value is not None}
        captioner = "none" if self._captioner is None else self._captioner.name
        return {"captioner": captioner, "structurer": self._structurer.name} | settings | self._messages.hashes

    @property
    def mono(self) -> Mono:
        """Which channel of a clip is heard."""
        return self._settings.mono or HEARD

    def label(self, clip: LabelClip) -> ModelLabels:
        """Labels a clip.

        Raises:
            AudioError: if its sound cannot be decoded.
            RejectedClipError: if no answer holds, or there is nothing to make one of.
            RecordError: if it is too long.
            ChatError: if a model does not answer.
        """
        wav, duration_seconds = clip.wav(self._settings.max_seconds, self.mono)
        usage = {role: Usage() for role in ROLES}
        caption = self._caption(clip, wav, usage["captioner"])
        sap, repairs = self._structure(clip, caption, duration_seconds, usage)
        return ModelLabels(sap, caption, duration_seconds, repairs, usage)

    def _caption(self, clip: LabelClip, wav: bytes, usage: Usage) -> str:
        if self._captioner is not None:
            reply = self._captioner.ask(self._messages.caption(wav), max_tokens=self._settings.caption_tokens)
            usage.add(reply)
            return _whole_sentences(reply.text) if reply.is_cut else reply.text
        caption = clip.metadata.get("caption")
        if not caption and not clip.labels:
            raise RejectedClipError(clip.where, "has neither a caption nor labels, and no captioner hears it")
        return str(caption or "")

    def _structure(
        self, clip: LabelClip, caption: str, duration_seconds: float, usage: dict[str, Usage]
    ) -> tuple[SapRecord, list[str]]:
        """The record that holds, and what was repaired in it."""
        # Without a captioner the corpus's caption is the description, and no label beside it.
        labels = {key: value for key, value in clip.labels.items() if self._captioner is not None or key != "caption"}
        messages = self._messages.structure(
            duration_seconds=duration_seconds, transcript=clip.transcript, labels=labels, caption=caption
        )
        for _ in range(self._settings.max_asks):
            reply = self._structurer.ask(messages, max_tokens=self._settings.record_tokens)
            usage["structurer"].add(reply)
            sap, repairs, problems = read_labels(reply, clip, duration_seconds)
            if sap is not None and not problems:
                return sap, repairs
            messages = [*messages, *self._messages.correction(reply.text, problems)]
        details = {"caption": caption, "reply": reply.text} | _provenance(usage, repairs)
        raise RejectedClipError(clip.where, "; ".join(problems), details)


def read_labels(
    reply: ChatReply, clip: LabelClip, duration_seconds: float
) -> tuple[SapRecord | None, list[str], list[str]]:
    """Reads a structurer's answer.

    Returns:
        The record, what was repaired in its form, and what speaks against it. Words that differ from the transcript in
        case and punctuation only are written as the transcript has them.
    """
    if reply.is_cut:
        return None, [], [f"the answer was cut off after {reply.completion_tokens} tokens: be shorter"]
    sap, repairs = repair_sap(reply.text)
    if sap is None:
        return None, repairs, [f"the answer holds no JSON object of the form asked for: it {repairs[-1]}"]
    words = sap.linguistic_content
    if words is not None and clip.transcript and letters(words) == letters(clip.transcript):
        sap = dataclasses.replace(sap, linguistic_content=clip.transcript)
    problems = validate_sap(sap, duration_seconds=duration_seconds, transcript=clip.transcript)
    given = sap.vocal_attributes.given if sap.vocal_attributes else {}
    problems += [
        f"vocal_attributes.{name} is {given.get(name, 'null')}, but the label says {value}"
        for name, value in clip.known_voice.items()
        if sap.is_speech and given.get(name) != value
    ]
    return sap, repairs, problems


def _provenance(usage: Mapping[str, Usage], repairs: list[str]) -> dict[str, Any]:
    took = {role: dataclasses.asdict(used) for role, used in usage.items() if used.requests}
    return {"labelling": took | ({"repairs": repairs} if repairs else {})}


def _whole_sentences(text: str) -> str:
    """A text that was cut off, without its last, unfinished sentence if it has others."""
    end = max(text.rfind(mark) for mark in (". ", "! ", "? ", ".\n"))
    return text[: end + 1] if end > 0 else text
