"""Models that are benchmarked: they hear a recording, read a question and answer in text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from audiollm.data.chat.base import LOCAL_PREFIX, ChatError, EndpointSettings
from audiollm.environment import find_device

from .revisions import is_audio_llm


@dataclass(frozen=True)
class ChatRequest:
    """A question about a recording.

    Attributes:
        audio: path of a recording, or the bytes of an audio file; heard before the text is read.
        text: the whole question, options included.
    """

    audio: str | bytes = field(repr=False)
    text: str


@dataclass(frozen=True)
class ChatAnswer:
    """What a model answered.

    Attributes:
        text: as the model wrote it.
        is_cut: whether it ended because ``max_new_tokens`` were reached.
        is_recording_cut: whether the model heard only the beginning of the recording.
    """

    text: str
    is_cut: bool = False
    is_recording_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """How answers are generated.

    Attributes:
        max_new_tokens: the longest answer; give models that think aloud more.
        temperature: 0 for the likeliest answer.
        seed: of what is drawn.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: use 1 or more")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: use 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """What an answer depends on: the seed only where something is drawn."""
        settings = dataclasses.asdict(self)
        if not self.temperature:
            del settings["seed"]
        return settings


class AudioChatModel(Protocol):
    """A model under test.

    Attributes:
        settings: how answers are generated; may be replaced between calls.
    """

    settings: AnswerSettings

    @property
    def concurrency(self) -> int:
        """How many threads may call `answer` at once; above 1 each call gets one request."""
        ...

    @property
    def decoding(self) -> Mapping[str, Any]:
        """What its answers depend on beside the weights: settings and number format."""
        ...

    def describe(self) -> Mapping[str, str | None]:
        """Which model it is: ``name``, ``revision`` and ``tokenizer_revision`` (None: not known)."""
        ...

    def answer(self, requests: Sequence[ChatRequest]) -> Sequence[ChatAnswer | ChatError]:
        """Answers requests.

        Returns:
            One entry each: the answer, or an error in its place.

        Raises:
            ChatError: if no request can succeed; other errors concern these requests alone.
        """
        ...


def open_audio_chat_model(
    source: str | os.PathLike[str] | None = None,
    *,
    settings: AnswerSettings | None = None,
    device: str | None = None,
    dtype: str = "auto",
    endpoint_model: str | None = None,
    key_variable: str | None = None,
    concurrency: int = 8,
    endpoint: EndpointSettings | None = None,
) -> AudioChatModel:
    """Opens a model under test.

    Args:
        source: folder or Hub id of an Audio-LLM of ours or of any model that transformers loads and whose processor has
            a chat template (``hf:`` before it: take it as the latter); the base URL of an OpenAI-compatible endpoint,
            such as ``http://localhost:8000/v1``; None, or "mini": the embedded model.
        settings: how answers are generated.
        device: torch device of a model that runs here; None: the first GPU, or this process's own of several.
        dtype: of its weights: "float32", "bfloat16" or "float16"; "auto": as stored.
        endpoint_model: name of the model at the endpoint; None: the only one it has.
        key_variable: environment variable that holds the endpoint's key.
        concurrency: requests to the endpoint at a time.
        endpoint: timeout and retries.

    Raises:
        ChatError: if the endpoint cannot be reached.
        OSError: if there is no such checkpoint.
        ValueError: if the model is of another kind, or an option does not belong to it.
    """
    name = "mini" if source is None else os.fspath(source)
    settings = settings or AnswerSettings()
    if name.startswith(("http://", "https://")):
        from .endpoint import EndpointUnderTest

        return EndpointUnderTest(
            name,
            endpoint_model,
            settings=settings,
            key_variable=key_variable,
            concurrency=concurrency,
            endpoint=endpoint,
        )
    given = {"endpoint_model": endpoint_model, "key_variable": key_variable, "endpoint": endpoint}
    misplaced = [option for option, value in given.items() if value is not None]
    if misplaced:
        raise ValueError(f"{name} runs here: leave out {', '.join(misplaced)}, which belong to an endpoint")
    if not name.startswith(LOCAL_PREFIX) and is_audio_llm(name):
        from .audio_llm import OwnModel

        return OwnModel(name, settings=settings, device=find_device(device), dtype=dtype)
    from .hf_model import TransformersModel

    folder_or_id = name.removeprefix(LOCAL_PREFIX)
    return TransformersModel(folder_or_id, settings=settings, device=find_device(device), dtype=dtype)
