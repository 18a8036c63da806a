"""Voices by name: words in which the model is asked for one, or a recording whose voice the decoder takes over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiollm.data.conversation.types import AudioPart, Message, TextPart
from audiollm.serving.answering.model import ServedModel

from .errors import ApiError, refused

MAX_VOICES = 256
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, eq=False)
class NamedVoice:
    """A voice.

    Attributes:
        name: by which requests call it.
        words: in which the model is asked for it; "" for its own voice.
        recording: whose voice the decoder takes over; None: none.
        prompt: the same, prepared by the decoder.
    """

    name: str
    words: str = ""
    recording: AudioPart | None = None
    prompt: Any = None


def with_voice(messages: Sequence[Message], words: str) -> list[Message]:
    """The messages with the voice in which they are answered, in the words of the last request."""
    *before, last = messages
    return [*before, Message(last.role, [*last.content, TextPart(f"\n({words})")])]


class Voices:
    """The voices of a server.

    Args:
        model: what speaks.
        described: names, each with its words.
    """

    def __init__(self, model: ServedModel, described: Mapping[str, str]) -> None:
        self._model = model
        self._voices = {name: NamedVoice(name, words) for name, words in described.items()}
        self._is_uploaded: set[str] = set()

    def __iter__(self) -> Iterator[NamedVoice]:
        return iter(self._voices.values())

    @property
    def takes_recordings(self) -> bool:
        """Whether the decoder takes over the voice of a recording."""
        return self._model.can_speak and hasattr(
            getattr(self._model.processor.audio_tokenizer, "decoder", None), "prompt"
        )

    def get(self, name: str, param: str = "voice") -> NamedVoice:
        """The voice of a name.

        Raises:
            ApiError: there is none; the message lists those that there are.
        """
        found = self._voices.get(name)
        if found is None:
            known = ", ".join(sorted(self._voices)[:20])
            shown = name[:MAX_NAME_CHARACTERS]
            raise refused(
                param, f"no voice is called {shown!r} here: use one of {known} (--voices of the server adds some)"
            )
        return found

    def add(self, voice: NamedVoice) -> None:
        """Adds one that was uploaded.

        Raises:
            ApiError: its name is taken by one that was not, or is none, or there are too many.
        """
        if not voice.name or len(voice.name) > MAX_NAME_CHARACTERS or not voice.name.isprintable():
            raise refused("name", f"use 1 to {MAX_NAME_CHARACTERS} printable characters")
        if voice.name in self._voices and voice.name not in self._is_uploaded:
            raise refused("name", f"{voice.name!r} is a voice of this server already: use another name")
        if voice.name not in self._voices and len(self._voices) >= MAX_VOICES:
            raise refused("name", f"there are {MAX_VOICES} voices, which is as many as this server keeps")
        self._voices[voice.name] = voice
        self._is_uploaded.add(voice.name)

    def remove(self, name: str) -> None:
        """Takes an uploaded one away.

        Raises:
            ApiError: there is none of that name, or it was not uploaded.
        """
        if name not in self._voices:
            shown = name[:MAX_NAME_CHARACTERS]
            raise ApiError(404, f"name: no voice is called {shown!r}", param="name", code="voice_not_found")
        if name not in self._is_uploaded:
            raise ApiError(403, f"name: {name!r} was not uploaded, so it stays", param="name", code="voice_is_fixed")
        del self._voices[name]
        self._is_uploaded.discard(name)
