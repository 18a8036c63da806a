"""What callers may pass as chats and recordings, turned into typed conversations and audio parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.data.audio.waveforms import numpy_samples
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart, Conversation, Message
from audiollm.vocabulary import AUDIO_END, AUDIO_START

ChatMessage = Mapping[str, Any] | Message
Chat = Conversation | Sequence[ChatMessage]
Samples = np.ndarray | Tensor
AudioSource = (
    str | os.PathLike[str] | bytes | Samples | tuple[Samples, int] | Mapping[str, Any] | AudioPart | Sequence[int]
)
"""One recording: a file, samples (with their rate beside them, if it is not given elsewhere), a part, or codes."""
_PLACE = AUDIO_START + AUDIO_END


def is_batch_of_chats(conversation: Any) -> bool:
    """Tells a list of chats from one chat.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(conversation, Conversation):
        return False
    if not isinstance(conversation, Sequence) or isinstance(conversation, (str, bytes)):
        raise ValueError(
            f"a conversation is a list of messages or a Conversation, not {type(conversation).__name__}: "
            'for example [{"role": "user", "content": "…"}]'
        )
    return not conversation or not isinstance(conversation[0], (Mapping, Message))


def to_conversation(chat: Any, name: str, tools: list[dict[str, Any]] | None, sample_rate: int | None) -> Conversation:
    """Turns one chat into a checked conversation.

    Args:
        chat: a list of messages or a `Conversation`.
        name: what messages call it.
        tools: JSON schemas of functions; None keeps those that a `Conversation` brings.
        sample_rate: rate in Hz of arrays that come without one.

    Raises:
        ConversationError: if a message is malformed; the field is named.
        ValueError: if it is no chat at all.
    """
    if isinstance(chat, Conversation):
        if tools is None:
            return chat
        return Conversation(chat.id, chat.messages, chat.task, tools, chat.metadata, chat.where)
    _check_is_chat(chat, name)
    messages = [_message_record(message, sample_rate) for message in chat]
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        for index, part in enumerate(content if isinstance(content, (list, tuple)) else ()):
            if _is_place(part):
                raise ConversationError(
                    name,
                    f"messages[{number}].content[{index}]: holds no audio: put the recording into it; or keep it as a "
                    "place with tokenize=False, and give the recording to processor(text=…, audio=…)",
                )
    record = {"id": name, "messages": messages, "tools": tools}
    return parse_conversation(record, where=name)


def _check_is_chat(chat: Any, name: str) -> None:
    if not isinstance(chat, Sequence) or isinstance(chat, (str, bytes)):
        raise ValueError(f"{name} must be a list of messages or a Conversation, not {type(chat).__name__}")


def _message_record(message: Any, sample_rate: int | None) -> Any:
    """A message as a record; arrays without a rate get the given one."""
    if isinstance(message, Message):
        return message.to_dict()
    if sample_rate is None or not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_with_rate(part, sample_rate) for part in message["content"]]}


def _with_rate(part: Any, sample_rate: int) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "audio" or part.get("sampling_rate") is not None:
        return part
    is_array = any(isinstance(part.get(key), (np.ndarray, Tensor, list)) for key in ("audio", "array"))
    return {**part, "sampling_rate": sample_rate} if is_array else part


def chats_of(conversation: Any) -> tuple[list[tuple[str, Any]], bool]:
    """One chat, or a batch of them, as a list of chats with the names that messages give them; and which it was.

    Raises:
        ValueError: if it is neither, or the batch is empty.
    """
    if not is_batch_of_chats(conversation):
        return [("conversation", conversation)], False
    if not conversation:
        raise ValueError("the batch is empty: give at least one conversation")
    return [(f"conversation[{index}]", chat) for index, chat in enumerate(conversation)], True


def prompt_with_places(
    chat: Any, name: str, tools: list[dict[str, Any]] | None, sample_rate: int | None
) -> tuple[Conversation, list[bool]]:
    """A chat in which a bare ``{"type": "audio"}`` keeps the place of a recording; arguments as for `to_conversation`.

    Returns:
        The conversation, and for each of its audio parts whether it is such a place (it holds no more than a stand-in).

    Raises:
        ConversationError: as for `to_conversation`, as does the following.
        ValueError: if it is no chat at all.
    """
    if isinstance(chat, Conversation):
        conversation = to_conversation(chat, name, tools, sample_rate)
        return conversation, [False] * len(conversation.audio_parts)
    _check_is_chat(chat, name)
    filled, is_place = [], []
    for message in chat:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(message, Message):
            is_place += [False] * sum(isinstance(part, AudioPart) for part in message.content)
        elif isinstance(content, (list, tuple)):
            is_place += [
                _is_place(part) for part in content if isinstance(part, Mapping) and part.get("type") != "text"
            ]
            stand_in = {"type": "audio", "codes": [0]}
            message = {**message, "content": [stand_in if _is_place(part) else part for part in content]}
        filled.append(message)
    return to_conversation(filled, name, tools, sample_rate), is_place


def _is_place(part: Any) -> bool:
    """Whether a part says that audio is there, and nothing of what it is."""
    return (
        isinstance(part, Mapping)
        and [key for key, value in part.items() if value is not None] == ["type"]
        and (part["type"] == "audio")
    )


def prompts_of(text: Any) -> list[str]:
    """Prompts that are written out, as a list.

    Raises:
        ValueError: if it is something else; what to do with that is said.
    """
    if isinstance(text, str):
        return [text]
    if text is None:
        raise ValueError(
            "text is missing: write the prompt with apply_chat_template(messages, tokenize=False), or give that the "
            "messages with recordings in them"
        )
    if isinstance(text, (np.ndarray, Tensor)) or not isinstance(text, Sequence) or isinstance(text, bytes):
        raise ValueError(f"text is of type {type(text).__name__}: give prompts as text=, and recordings as audio=")
    if not text:
        raise ValueError("text is empty: give at least one prompt")
    for index, prompt in enumerate(text):
        if isinstance(prompt, (Mapping, Message)):
            raise ValueError(f"text[{index}] is a message: give messages to apply_chat_template")
        if not isinstance(prompt, str):
            raise ValueError(
                f"text[{index}] is of type {type(prompt).__name__}: give one prompt, or a flat list of them"
            )
    return list(text)


def audio_of_prompts(audio: Any, texts: Sequence[str], sample_rate: int | None) -> list[AudioPart]:
    """The recordings of prompts that are written out, in the order of their places.

    Args:
        audio: recordings over all prompts, or a list of them for each prompt; None: there are none.
        texts: the prompts, with ``<|audio_start|><|audio_end|>`` in the place of each recording.
        sample_rate: rate in Hz of samples.

    Raises:
        ValueError: if places and recordings differ in number, or as for `audio_parts`.
    """
    places = [text.count(_PLACE) for text in texts]
    audio = _as_list(audio)
    if isinstance(audio, (list, tuple)) and len(audio) == len(texts) and all(map(_is_list_of_sources, audio)):
        by_prompt = [audio_parts(one, sample_rate) for one in audio]
        for index, (parts, num_places) in enumerate(zip(by_prompt, places, strict=True)):
            _check_number(parts, num_places, f"text[{index}]", texts[index : index + 1])
        return [part for parts in by_prompt for part in parts]
    parts = [] if audio is None else audio_parts(audio, sample_rate)
    if isinstance(audio, (np.ndarray, Tensor)) and audio.ndim > 1 and sum(places) == max(audio.shape[0], 2):
        raise ValueError(
            f"an array {list(audio.shape)} is one recording with channels, and the text has {sum(places)} places: give "
            "a list of recordings"
        )
    _check_number(parts, sum(places), "the text", texts)
    return parts


def _check_number(parts: Sequence[AudioPart], num_places: int, where: str, texts: Sequence[str]) -> None:
    if len(parts) == num_places:
        return
    cure = "give one recording for each, in their order"
    num_spelt = sum(text.count(AUDIO_START) for text in texts) - num_places
    if len(parts) > num_places:
        cure = 'write {"type": "audio"} into the messages, or these marks into the text, for each recording'
        if num_spelt:
            cure = (
                f"{num_spelt} recordings are spelt out in it as codes, for the messages held them: leave audio out, or "
                'write a bare {"type": "audio"} there'
            )
    raise ValueError(f"{where} has {num_places} places for audio ({_PLACE}), but {len(parts)} came: {cure}")


def audio_parts(audio: Any, sample_rate: int | None = None) -> list[AudioPart]:
    """One recording or several as parts of a message.

    Args:
        audio: a path, the bytes of a file or a file that gives them, samples ``[N]``, ``[C, N]`` or ``[N, C]``, samples
            with their rate (what ``load_audio`` returns), an audio part as in messages, or codes (a flat list of ints);
            or a list of those.
        sample_rate: rate in Hz of samples that come without one.

    Raises:
        ValueError: if samples come without a rate, or the type is none of these.
    """
    if sample_rate is not None:
        sample_rate = _checked_rate(sample_rate)
    audio = _as_list(audio)
    if not _is_list_of_sources(audio):
        return [_audio_part(audio, sample_rate, "audio")]
    return [_audio_part(source, sample_rate, f"audio[{index}]") for index, source in enumerate(audio)]


def _as_list(audio: Any) -> Any:
    """Other sequences, such as a column of a data set, as lists."""
    is_one = isinstance(audio, (str, bytes, bytearray, memoryview, tuple))
    return list(audio) if isinstance(audio, Sequence) and not is_one else audio


def _is_list_of_sources(audio: Any) -> bool:
    return isinstance(audio, (list, tuple)) and not (_are_numbers(audio) or _with_rate_beside(audio))


def _are_numbers(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(one, Real) and not isinstance(one, bool) for one in values)


def _with_rate_beside(pair: Sequence[Any]) -> tuple[Any, Any] | None:
    """Samples and their rate, if that is what a pair holds; in the order of SciPy and Gradio too."""
    if len(pair) != 2:
        return None
    samples, rate = pair if isinstance(pair[0], (np.ndarray, Tensor)) else (pair[1], pair[0])
    return (samples, rate) if isinstance(samples, (np.ndarray, Tensor)) and isinstance(rate, Real) else None


def _audio_part(source: Any, sample_rate: int | None, where: str) -> AudioPart:
    if isinstance(source, AudioPart):
        return source
    if isinstance(source, (str, os.PathLike)):
        return AudioPart(path=os.fspath(source))
    if isinstance(source, (bytes, bytearray)):
        return AudioPart(bytes=bytes(source))
    if hasattr(source, "read"):
        return AudioPart(bytes=source.read())
    if isinstance(source, Mapping):
        given = {} if sample_rate is None or "array" not in source else {"sampling_rate": sample_rate}
        if given and source.get("sampling_rate") not in (None, sample_rate):
            raise _two_rates(where, source["sampling_rate"], sample_rate)
        return parse_audio_part(given | dict(source), where=where)
    if isinstance(source, (list, tuple)) and (pair := _with_rate_beside(source)):
        samples, rate = pair
        if sample_rate is not None and _checked_rate(rate) != sample_rate:
            raise _two_rates(where, rate, sample_rate)
        return _samples(samples, _checked_rate(rate), where)
    if isinstance(source, (list, tuple)) and _are_numbers(source):
        if all(isinstance(one, Integral) for one in source):
            return AudioPart(codes=[int(one) for one in source])
        source = np.asarray(source, dtype=np.float32)
    if isinstance(source, (np.ndarray, Tensor)):
        return _samples(source, sample_rate, where)
    if isinstance(source, (list, tuple)):
        raise ValueError(f"{where} is a list where one recording is expected: give all of them in one flat list")
    raise ValueError(
        f"{where} is of type {type(source).__name__}: give a path, bytes of a file, samples (with their rate) or codes"
    )


def _two_rates(where: str, own: Any, said: int | None) -> ValueError:
    return ValueError(f"{where} comes with a rate of {own} Hz, but {said} Hz is said too: say one")


def _samples(samples: np.ndarray | Tensor, sample_rate: int | None, where: str) -> AudioPart:
    if sample_rate is None:
        raise ValueError(
            f"{where} comes as samples without their rate: give it in Hz, such as sampling_rate=16000 (sample_rate= in "
            "ask() and speak())"
        )
    return AudioPart(array=numpy_samples(samples, where), sampling_rate=sample_rate, where=where)


def _checked_rate(sample_rate: Any) -> int:
    """A rate as an int, whatever kind of number it is."""
    is_number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    if not is_number or sample_rate <= 0 or sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate={sample_rate!r}: give the rate of samples in Hz, such as 16000")
    rate: Any = sample_rate
    return int(rate)
