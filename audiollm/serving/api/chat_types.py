"""``POST /v1/chat/completions``: what a request may hold. What has no effect here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import refused


class Strict(BaseModel):
    """A part of a request: no value is converted, and no key that is unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextContent(Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class InputAudio(Strict):
    """A recording; whatever ``format`` says, the content is looked at."""

    data: str
    format: str | None = None


class AudioContent(Strict):
    """A piece of audio."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Content = Annotated[TextContent | AudioContent, Field(discriminator="type")]


class FormerAudio(Strict):
    """An answer of before."""

    id: str


class ChatMessage(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Content] | None = None
    name: str | None = None
    audio: FormerAudio | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: None = None


class VoiceId(Strict):
    """A voice by its name."""

    id: str


def voice_name(voice: str | VoiceId) -> str:
    """The name of a voice, in either of the forms in which requests give it."""
    return voice if isinstance(voice, str) else voice.id


class AudioOutput(Strict):
    """How an answer is spoken."""

    voice: str | VoiceId = "default"
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class StreamOptions(Strict):
    """What a stream tells."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(Strict):
    """The form of the text."""

    type: str


class ChatRequest(Strict):
    """A chat, and how it is answered. ``top_k``, ``min_seconds`` and ``max_seconds`` are ours."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioOutput | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    min_seconds: Annotated[float, Field(ge=0)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    # They say who asks and what for; no answer depends on them.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def check(self) -> None:
        """Raises ApiError for what this server cannot do, naming the field."""
        for name, harmless, why in (
            ("n", (None, 1), "one answer is given: ask several times"),
            ("logprobs", (None, False), "probabilities are not told here: leave it out"),
            ("top_logprobs", (None, 0), "probabilities are not told here: leave it out"),
            ("frequency_penalty", (None, 0), "is not applied here: leave it out"),
            ("presence_penalty", (None, 0), "is not applied here: leave it out"),
            ("tool_choice", (None, "auto", "none"), 'use "auto" or "none"'),
            ("store", (None, False), "nothing is stored here: leave it out"),
            ("parallel_tool_calls", (None, True), "the model decides how many tools it calls: leave it out"),
        ):
            if getattr(self, name) not in harmless:
                raise refused(name, why)
        if self.response_format is not None and self.response_format.type != "text":
            raise refused("response_format", 'answers are text: use {"type": "text"}, or leave it out')
        if self.speaks and self.audio is None:
            raise refused("audio", 'say the voice and format of audio, such as {"voice": "default", "format": "wav"}')
        if self.audio is not None and not self.speaks:
            raise refused("audio", 'is for spoken answers: add "audio" to modalities, or leave it out')
        if self.stream_options is not None and not self.stream:
            raise refused("stream_options", "is for streams: set stream, or leave it out")
        if self.stream and self.audio is not None and self.audio.format != "pcm16":
            raise refused("audio.format", "a stream of speech is pcm16: use that, or no stream")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise refused("max_tokens", "differs from max_completion_tokens, which is its new name: give one")
        if isinstance(self.stop, list) and len(self.stop) > 4:
            raise refused("stop", "give at most 4 texts")
        if "" in ([self.stop] if isinstance(self.stop, str) else self.stop or ()):
            raise refused("stop", "a text is empty: leave it out")
        self._check_seconds()

    def _check_seconds(self) -> None:
        for name in ("min_seconds", "max_seconds"):
            if getattr(self, name) is not None and not self.speaks:
                raise refused(name, 'is for spoken answers: add "audio" to modalities, or leave it out')
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise refused("min_seconds", f"{self.min_seconds:g} is more than max_seconds, {self.max_seconds:g}")

    @property
    def speaks(self) -> bool:
        """Whether the answer is spoken."""
        return "audio" in (self.modalities or ())
