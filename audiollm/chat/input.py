"""What callers may pass as chats and recordings, turned into typed conversations and audio parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import AudioPart, Conversation, Message

ChatMessage = Mapping[str, Any] | Message
Chat = Conversation | Sequence[ChatMessage]
AudioSource = str | os.PathLike[str] | bytes | np.ndarray | Tensor | Sequence[int] | AudioPart


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
    if not isinstance(chat, Sequence) or isinstance(chat, (str, bytes)):
        raise ValueError(f"{name} must be a list of messages or a Conversation, not {type(chat).__name__}")
    messages = [_message_record(message, sample_rate) for message in chat]
    record = {"id": name, "messages": messages, "tools": tools}
    return parse_conversation(record, where=name)


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


def audio_parts(audio: AudioSource | Sequence[AudioSource], sample_rate: int | None = None) -> list[AudioPart]:
    """One recording or several as parts of a message.

    Args:
        audio: a path, the bytes of a file, samples ``[N]`` or codes (a flat list of ints), or a list of those.
        sample_rate: rate in Hz of samples.

    Raises:
        ValueError: if samples come without a rate, or the type is none of these.
    """
    is_several = isinstance(audio, (list, tuple)) and not (audio and all(isinstance(code, int) for code in audio))
    sources: Any = audio if is_several else [audio]
    return [_audio_part(source, sample_rate) for source in sources]


def _audio_part(source: Any, sample_rate: int | None) -> AudioPart:
    if isinstance(source, AudioPart):
        return source
    if isinstance(source, (str, os.PathLike)):
        return AudioPart(path=os.fspath(source))
    if isinstance(source, (bytes, bytearray)):
        return AudioPart(bytes=bytes(source))
    if isinstance(source, (list, tuple)):
        return AudioPart(codes=list(source))
    if isinstance(source, (np.ndarray, Tensor)):
        if sample_rate is None:
            raise ValueError(
                "audio comes as samples: give their rate in Hz as sample_rate= (processors call it sampling_rate=)"
            )
        samples = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        return AudioPart(array=samples, sampling_rate=sample_rate)
    raise ValueError(f"audio of type {type(source).__name__}: give a path, bytes, samples or codes")
