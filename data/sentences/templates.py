"""The five forms of an auditory sentence, as messages: what others say is given, what the assistant says is learned.

A form takes as many of the offers in front of it as a sentence shall have segments, and returns the messages; segments
are its recordings and texts, an instruction in front is none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from audiollm.data.conversation.types import Conversation
from audiollm.data.sampling import draw

from .sources import Offer

TemplateName = Literal["recognition", "speech", "caption", "continuation", "conversation"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)

# Wordings are only ever appended. In half of the sentences none is given: the pairs themselves say what is asked.
INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    "recognition": ("Write down what is said in each recording.", "Transcribe the recordings."),
    "speech": ("Read each text aloud.", "Speak these texts."),
    "heard": ("Describe each recording.", "Say what is heard in the recordings."),
    "made": ("Make the sound of each description.", "Let these be heard."),
    "continuation": ("Go on with the recording.", "What comes next?"),
    "conversation": ("Answer.", "Talk with me."),
}


@dataclass(frozen=True)
class Sentence:
    """A sentence that has been made.

    Attributes:
        messages: of the record.
        segments: its recordings and texts.
        used: the offers that it is made of, in their order.
    """

    messages: list[dict[str, Any]]
    segments: int
    used: list[Offer]


@dataclass(frozen=True)
class Form:
    """One of the five.

    Attributes:
        takes: why an offer cannot be part of it; None: it can.
        make: a sentence of offers.
        per_offer: segments that an offer gives.
        fewest: offers that make a sentence.
    """

    takes: Callable[[Offer], str | None]
    make: Callable[[Sequence[Offer], str], Sentence]
    per_offer: int = 2
    fewest: int = 1


def segments_of(turns: Conversation) -> int:
    """Recordings and texts of a conversation: texts of a message that follow each other are one."""
    return sum(len(_joined(message["content"])) for message in turns.to_dict()["messages"])


def _recognition(offers: Sequence[Offer], key: str) -> Sentence:
    return _pairs(offers, "recognition", key, lambda one: ([one.audio], [_said(one.words)]))


def _speech(offers: Sequence[Offer], key: str) -> Sentence:
    return _pairs(offers, "speech", key, lambda one: ([_said(one.words)], [one.audio]))


def _caption(offers: Sequence[Offer], key: str) -> Sentence:
    if draw("caption", key, 2):
        return _pairs(offers, "made", key, lambda one: ([_said(one.caption)], [one.audio]))
    return _pairs(offers, "heard", key, lambda one: ([one.audio], [_said(one.caption)]))


def _continuation(offers: Sequence[Offer], key: str) -> Sentence:
    """The first piece of a recording, with its words where they are known; the pieces behind it are to follow."""
    content: list[list[Any]] = [[*([_said(one.words)] if one.words else []), one.audio] for one in offers]
    answer = [part for parts in content[1:] for part in parts]
    messages = _with_instruction([_message("user", content[0]), _message("assistant", answer)], "continuation", key)
    return Sentence(messages, sum(map(len, content)), list(offers))


def _conversation(offers: Sequence[Offer], key: str) -> Sentence:
    messages: list[dict[str, Any]] = []
    for one in offers:
        assert one.turns is not None
        made_by = one.turns.metadata.get("audio_tokenizer")
        for message in one.turns.to_dict()["messages"]:
            for part in message["content"]:
                if made_by is not None and "codes" in part:
                    part.setdefault("audio_tokenizer", made_by)
            messages.append(message)
    return Sentence(messages, sum(segments_of(one.turns) for one in offers if one.turns), list(offers))


def _pairs(
    offers: Sequence[Offer], task: str, key: str, sides: Callable[[Offer], tuple[list[Any], list[Any]]]
) -> Sentence:
    messages = []
    for one in offers:
        given, answer = sides(one)
        messages += [_message("user", given), _message("assistant", answer)]
    return Sentence(_with_instruction(messages, task, key), 2 * len(offers), list(offers))


def _with_instruction(messages: list[dict[str, Any]], task: str, key: str) -> list[dict[str, Any]]:
    if draw("instructed", key, 2):
        return messages
    wordings = INSTRUCTIONS[task]
    text = wordings[draw("wording", key, len(wordings))]
    return [_message("system", [_said(text)]), *messages]


def _message(role: str, content: list[Any]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _said(text: str | None) -> dict[str, Any]:
    assert text is not None  # as `Form.takes` says
    return {"type": "text", "text": text}


def _joined(content: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds: list[str] = []
    for part in content:
        if part["type"] != "text" or kinds[-1:] != ["text"]:
            kinds.append(str(part["type"]))
    return kinds


def _spoken(offer: Offer) -> str | None:
    if offer.audio is None:
        return "a conversation"
    return None if offer.words else "no words"


def _captioned(offer: Offer) -> str | None:
    if offer.audio is None:
        return "a conversation"
    return None if offer.caption else "no caption"


def _piece(offer: Offer) -> str | None:
    if offer.audio is None:
        return "a conversation"
    return None if offer.group else "no group of a longer recording"


def _talk(offer: Offer) -> str | None:
    return None if offer.turns else "no conversation"


FORMS: Mapping[TemplateName, Form] = {
    "recognition": Form(_spoken, _recognition),
    "speech": Form(_spoken, _speech),
    "caption": Form(_captioned, _caption),
    "continuation": Form(_piece, _continuation, per_offer=1, fewest=2),
    "conversation": Form(_talk, _conversation, per_offer=0),
}
"""Each by its name; of a continuation or a conversation the offers themselves tell how many segments they give."""
