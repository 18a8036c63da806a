"""What the model says of a recording, as a SAP record: asked field by field, in the words that it was trained on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.sap.question_wordings import QUESTIONS
from audiollm.data.sap.record import SAP_ATTRIBUTES
from audiollm.generation.settings import GenerationSettings
from audiollm.prompts import instruction
from audiollm.serving.answering.answerer import Answerer, AnswerRequest
from audiollm.serving.answering.transcribing import Answering, last_of
from audiollm.serving.sound.uploads import Recording

from .hearing import beginning

_LONGEST_ANSWER = 128  # tokens
_KIND = "sound_type"
_SCENE = ("summary", "events")
FIELDS = ("linguistic_content", *SAP_ATTRIBUTES, *_SCENE)
"""Of a SAP record, in its order."""


@dataclass(frozen=True)
class DescribedField:
    """A field of the record: what was asked and answered, or why it was not."""

    name: str
    question: str | None
    answer: str | None
    why_not: str | None = None


async def describe_as_sap(
    answerer: Answerer, recording: Recording, request_id: str, answering: Answering | None = None
) -> list[DescribedField]:
    """Asks the model for each field; first, which kind of recording it is.

    The caller has taken a place. Errors as for `Answerer.answering`.

    Args:
        answerer: answers.
        recording: samples and their rate.
        request_id: its name in messages and logs.
        answering: by which the answerer is asked; None: by its own method.
    """
    deadline = answerer.deadline()  # of all fields together
    shown = beginning(recording)
    [codes] = await answerer.listener.codes([AudioPart(array=shown.waveform.numpy(), sampling_rate=shown.sample_rate)])
    audio = AudioPart(codes=codes)

    async def asked(name: str) -> DescribedField:
        # Words are asked for as transcripts are: of all wordings, models know that one best.
        question = instruction("transcribe") if name == "linguistic_content" else QUESTIONS[name][0]
        request = AnswerRequest(
            messages=Conversation(name, [Message("user", [audio, TextPart(question)])]),
            settings=GenerationSettings(modalities={"text"}, max_new_tokens=_LONGEST_ANSWER),
            request_id=f"{request_id}-{name}",
        )
        async with (answering or answerer.answering)(request, has_place=True, deadline=deadline) as pieces:
            finished = await last_of(pieces)
        return DescribedField(name, question, finished.text.strip())

    kind = await asked(_KIND)
    names = fields_for(kind.answer or "")
    answers = {one.name: one for one in await asyncio.gather(*(asked(name) for name in names))}
    why_not = f"not asked: the model takes this for {kind.answer or 'nothing it knows'}"
    return [kind, *(answers.get(name, DescribedField(name, None, None, why_not)) for name in FIELDS)]


def fields_for(kind: str) -> tuple[str, ...]:
    """Which fields are asked for, of a recording of some kind in the model's words: none of a voice where none is."""
    return ("linguistic_content", *SAP_ATTRIBUTES, "summary") if "speech" in kind.lower() else _SCENE
