"""What the model says of a recording, as a SAP record: asked field by field, in the words that it was trained on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.sap.record import SAP_ATTRIBUTES
from audiollm.generation.settings import GenerationSettings
from audiollm.prompts import instruction
from audiollm.serving.answering.answerer import Answerer, AnswerRequest
from audiollm.serving.answering.transcribing import last_of
from audiollm.serving.sound.uploads import Recording

from .hearing import beginning

_LONGEST_ANSWER = 128  # tokens
_KIND = "kind"
# Field of the record → the task of `audiollm.prompts` that asks for it, for speech and for other sounds.
_OF_SPEECH = {
    "linguistic_content": "transcribe",
    "vocal_attributes.gender": "gender",
    "vocal_attributes.accent": "accent",
    "vocal_attributes.emotion": "emotion",
    "auditory_scenes.summary": "describe",
}
_OF_SOUNDS = {"auditory_scenes.events": "sound", "auditory_scenes.summary": "describe"}
_OF_MUSIC = {"auditory_scenes.events": "music", "auditory_scenes.summary": "describe"}
_FIELDS = (
    "linguistic_content",
    *(f"vocal_attributes.{name}" for name in SAP_ATTRIBUTES),
    "auditory_scenes.summary",
    "auditory_scenes.events",
)


@dataclass(frozen=True)
class DescribedField:
    """A field of the record: what was asked and answered, or why it was not."""

    name: str
    question: str | None
    answer: str | None
    why_not: str | None = None


async def describe_as_sap(answerer: Answerer, recording: Recording, request_id: str) -> list[DescribedField]:
    """Asks the model for each field that there is an instruction for; first, which kind of recording it is.

    The caller has taken a place. Errors as for `Answerer.answering`.

    Args:
        answerer: answers.
        recording: samples and their rate.
        request_id: its name in messages and logs.
    """
    shown = beginning(recording)
    [codes] = await answerer.listener.codes([AudioPart(array=shown.waveform.numpy(), sampling_rate=shown.sample_rate)])
    audio = AudioPart(codes=codes)

    async def asked(name: str, task: str) -> DescribedField:
        question = instruction(task)
        request = AnswerRequest(
            messages=Conversation(name, [Message("user", [audio, TextPart(question)])]),
            settings=GenerationSettings(modalities={"text"}, max_new_tokens=_LONGEST_ANSWER),
            request_id=f"{request_id}-{task}",
        )
        async with answerer.answering(request, has_place=True) as pieces:
            finished = await last_of(pieces)
        return DescribedField(name, question, finished.text.strip())

    kind = await asked(_KIND, _KIND)
    tasks = tasks_for(kind.answer or "")
    answers = await asyncio.gather(*(asked(name, task) for name, task in tasks.items()))
    known = {one.name: one for one in answers}
    return [kind, *(known.get(name) or DescribedField(name, None, None, _why_not(name, kind)) for name in _FIELDS)]


def tasks_for(kind: str) -> dict[str, str]:
    """Which fields are asked for, each with its task, of a recording of some kind in the model's words."""
    words = kind.lower()
    if "speech" in words:
        return _OF_SPEECH
    return _OF_MUSIC if "music" in words else _OF_SOUNDS


def _why_not(name: str, kind: DescribedField) -> str:
    if name in _OF_SPEECH or name in _OF_SOUNDS:
        return f"not asked: the model takes this for {kind.answer or 'nothing it knows'}"
    return "not asked: no instruction asks for it alone"
