"""What a session settles, and how clients change it. What has no effect here is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from audiollm.serving.sound.formats import RESPONSE_RATE
from audiollm.serving.sound.streams import SpeedChanger

from ..chat_types import Strict, VoiceId, voice_name
from ..errors import refused, told
from ..state import ServerState

Modality = Literal["text", "audio"]


class PcmFormat(Strict):
    """The format of sound, both ways: 16 bit, little-endian, one channel."""

    type: Literal["audio/pcm"]
    rate: Literal[24000] = 24000


class TurnDetection(Strict):
    """How the server tells where a turn begins and ends."""

    type: Literal["server_vad"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=32, le=10_000)] = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class Transcribing(Strict):
    """What writes down the recordings of a session: the model itself."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class InputPatch(Strict):
    """Of the sound that comes in."""

    format: PcmFormat | None = None
    turn_detection: TurnDetection | None = None
    transcription: Transcribing | None = None
    noise_reduction: None = None


class OutputPatch(Strict):
    """Of the sound that goes out."""

    format: PcmFormat | None = None
    voice: str | VoiceId | None = None
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None


class OutputAudioPatch(Strict):
    """Of the sound of one response."""

    output: OutputPatch | None = None


class AudioPatch(OutputAudioPatch):
    """Of the sound of a session."""

    input: InputPatch | None = None


class AnswerPatch(Strict):
    """What sessions settle, and single responses otherwise; None leaves it as it is."""

    audio: OutputAudioPatch | None = None
    output_modalities: list[Modality] | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | Literal["inf"] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prompt: None = None
    reasoning: None = None

    def check(self, where: str) -> None:
        """Raises ApiError for what this server cannot do, naming the field."""
        if self.tools:
            raise refused(f"{where}.tools", "functions are called in chat completions only: leave it out")
        if self.tool_choice not in (None, "auto", "none"):
            raise refused(f"{where}.tool_choice", 'use "auto" or "none": there are no functions here')
        if self.output_modalities is not None and len(self.output_modalities) != 1:
            raise refused(f"{where}.output_modalities", 'use ["audio"], which comes with its transcript, or ["text"]')


class SessionPatch(AnswerPatch):
    """``session`` of ``session.update``."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    audio: AudioPatch | None = None
    truncation: Literal["auto", "disabled"] | None = None
    tracing: None = None
    include: list[str] | None = None

    def check(self, where: str) -> None:
        """As for `AnswerPatch.check`."""
        super().check(where)
        if self.include:
            raise refused(f"{where}.include", "probabilities are not told here: leave it out")


@dataclass(frozen=True)
class SessionConfig:
    """What is settled.

    Attributes:
        speaks: answers are sound and its transcript; otherwise text.
        voice: by its name.
        speed: of the speech.
        instructions: what the model is told before the conversation.
        max_output_tokens: of an answer; None: as many as the model's own limits allow.
        turn_detection: None: the client says where a turn ends.
        transcribes: recordings are written down.
        truncates: what does not fit the context is left out, the oldest first; otherwise it is an error.
    """

    speaks: bool
    voice: str
    speed: float = 1.0
    instructions: str = ""
    max_output_tokens: int | None = None
    turn_detection: TurnDetection | None = None
    transcribes: bool = False
    truncates: bool = True

    @classmethod
    def of(cls, state: ServerState) -> SessionConfig:
        """That of a session which has just begun."""
        model = state.answerer.model
        voices = [voice.name for voice in state.voices]
        return cls(
            speaks=model.can_speak,
            voice="default" if "default" in voices else voices[0],
            turn_detection=TurnDetection(type="server_vad") if model.can_listen else None,
        )

    def patched(self, patch: AnswerPatch, state: ServerState, where: str) -> SessionConfig:
        """The same with what a client changes.

        Args:
            patch: the changes.
            state: says what there is.
            where: the name of the patch in its event.

        Raises:
            ApiError: something in it cannot be had; its field is named, and nothing is changed.
        """
        patch.check(where)
        changes: dict[str, Any] = {}
        if patch.instructions is not None:
            most = state.settings.realtime.max_text_characters
            changes["instructions"] = checked_text(patch.instructions, most, f"{where}.instructions")
        if patch.max_output_tokens is not None:
            changes["max_output_tokens"] = _max_tokens(patch.max_output_tokens, state, where)
        if patch.output_modalities is not None:
            changes["speaks"] = _speaks(patch.output_modalities, state, where)
        if patch.audio is not None and patch.audio.output is not None:
            changes |= _output(patch.audio.output, state, f"{where}.audio.output")
        if isinstance(patch, SessionPatch):
            changes |= _of_session(patch, state, where)
        return replace(self, **changes)

    def shown(self) -> dict[str, Any]:
        """The fields that sessions and responses share."""
        return {
            "output_modalities": ["audio" if self.speaks else "text"],
            "max_output_tokens": self.max_output_tokens or "inf",
        }

    def shown_output(self) -> dict[str, Any]:
        """The sound that goes out."""
        return {"format": _FORMAT, "voice": self.voice, "speed": self.speed}

    def shown_session(self, model: str) -> dict[str, Any]:
        """All of it, as clients read it."""
        turns = self.turn_detection
        return {
            "type": "realtime",
            "object": "realtime.session",
            "model": model,
            **self.shown(),
            "instructions": self.instructions,
            "audio": {
                "input": {
                    "format": _FORMAT,
                    "turn_detection": None if turns is None else turns.model_dump(exclude={"idle_timeout_ms"}),
                    "transcription": {"model": model} if self.transcribes else None,
                    "noise_reduction": None,
                },
                "output": self.shown_output(),
            },
            "tools": [],
            "tool_choice": "auto",
            "truncation": "auto" if self.truncates else "disabled",
        }


_FORMAT = {"type": "audio/pcm", "rate": RESPONSE_RATE}


def checked_text(text: str, most: int, where: str) -> str:
    """Raises ApiError if a text is longer than it may be."""
    if len(text) > most:
        raise refused(where, f"has {len(text)} characters, but {most} are the most here")
    return text


def _max_tokens(asked: int | str, state: ServerState, where: str) -> int | None:
    if isinstance(asked, str):
        return None
    most = state.settings.max_tokens
    if asked > most:
        raise refused(f"{where}.max_output_tokens", f"{asked} is more than {most}, which is as much as one may ask for")
    return asked


def _speaks(modalities: Sequence[Modality], state: ServerState, where: str) -> bool:
    speaks = "audio" in modalities
    if speaks and not state.answerer.model.can_speak:
        raise refused(f"{where}.output_modalities", "this model has no decoder, so it answers in text alone")
    return speaks


def _output(patch: OutputPatch, state: ServerState, where: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if patch.voice is not None:
        name = voice_name(patch.voice)
        changes["voice"] = state.voices.get(name, f"{where}.voice").name
    if patch.speed is not None:
        try:
            SpeedChanger(patch.speed)
        except RuntimeError as error:  # PyAV, which it needs, is not installed
            raise told(error, "", param=f"{where}.speed") from error
        changes["speed"] = patch.speed
    return changes


def _of_session(patch: SessionPatch, state: ServerState, where: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if patch.model is not None and patch.model != state.model_name:
        raise refused(f"{where}.model", f"{patch.model[:64]!r}: this session is of {state.model_name!r}")
    if patch.truncation is not None:
        changes["truncates"] = patch.truncation == "auto"
    incoming = None if patch.audio is None else patch.audio.input
    if incoming is None:
        return changes
    # null is a value of these two: it turns them off.
    if "turn_detection" in incoming.model_fields_set:
        changes["turn_detection"] = incoming.turn_detection
    if "transcription" in incoming.model_fields_set:
        changes["transcribes"] = _transcribes(incoming.transcription, state, f"{where}.audio.input.transcription")
    if not state.answerer.model.can_listen and any(changes.get(name) for name in ("turn_detection", "transcribes")):
        raise refused(f"{where}.audio.input", "this model has no audio tokenizer, so it takes no recordings")
    return changes


def _transcribes(patch: Transcribing | None, state: ServerState, where: str) -> bool:
    if patch is None:
        return False
    if patch.model not in (None, state.model_name):
        raise refused(f"{where}.model", f"{patch.model[:64]!r} is not here: use {state.model_name!r}, or leave it out")
    for name in ("language", "prompt"):
        if getattr(patch, name) and name not in state.settings.ignored:
            raise refused(
                f"{where}.{name}", "has no effect on this model: leave it out (or start the server with --ignore)"
            )
    return True
