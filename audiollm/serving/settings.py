"""What a server may be asked for, and how much of it: every limit is a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from .sound.uploads import UploadLimits

IGNORABLE = frozenset({"language", "prompt"})


@dataclass(frozen=True, kw_only=True)
class RealtimeSettings:
    """How much a realtime session may take.

    Attributes:
        max_append_bytes: of audio in one event, once its base64 is decoded.
        max_buffer_seconds: of audio that is not committed yet; where the server tells turns, one ends there.
        max_items: of a conversation.
        max_kept_seconds: of recordings that a session keeps to give back; of older ones their codes alone are kept.
        max_text_characters: of one text.
        max_session_seconds: of a session, then it is closed.
        activity: what tells that somebody speaks: "level" for the loudness above that of the room, "silero" for
            Silero's network, "auto" for that one where it is installed.

    Raises:
        ValueError: for a limit that is none, naming it, or another ``activity``.
    """

    max_append_bytes: int = 15 * 2**20
    max_buffer_seconds: float = 300.0
    max_items: int = 1000
    max_kept_seconds: float = 600.0
    max_text_characters: int = 65_536
    max_session_seconds: float = 3600.0
    activity: Literal["auto", "level", "silero"] = "auto"

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.startswith("max_") and not 0 < value < math.inf:
                raise ValueError(f"{one.name}={value}: use a number above 0")
        if self.activity not in ("auto", "level", "silero"):
            raise ValueError(f"activity={self.activity!r}: use auto, level or silero")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and defaults of a server.

    Attributes:
        uploads: of recordings that requests bring.
        max_body_bytes: of a whole request.
        max_text_characters: of a text that is spoken.
        max_part_characters: of such a text that are spoken in one answer; longer ones are cut at the ends of sentences.
        max_tokens: most tokens of an answer that a request may ask for.
        max_prompt_tokens: longest prompt; None: what the context holds.
        max_waiting: requests that may wait for the engine.
        deadline_seconds: longest time of a request.
        idle_seconds: how long a client may send nothing of its request, or read nothing of its answer; then it is gone.
        max_connections_per_key: requests and sockets of one API key (or of all, without keys) at once.
        keep_answers_seconds: how long a spoken answer can be referred to by its ``audio.id``.
        max_kept_answers: how many of them are kept; the oldest go first.
        api_keys: one of them is asked for; empty: none is.
        voices: names of voices, each with the words in which the model is asked for it; empty words: its own voice.
        translates: the model was trained to translate speech into English, so that ``/v1/audio/translations`` answers.
        ignored: fields of transcriptions that clients may send though they have no effect here: some of ``language``
            and ``prompt``, which are refused otherwise.
        realtime: of realtime sessions.
        log_content: write questions and answers into the log.

    Raises:
        ValueError: for a limit that is none, naming it.
    """

    uploads: UploadLimits = field(default_factory=UploadLimits)
    max_body_bytes: int = 40 * 2**20  # an upload in base64, and words around it
    max_text_characters: int = 4096
    max_part_characters: int = 200
    max_tokens: int = 4096
    max_prompt_tokens: int | None = None
    max_waiting: int = 64
    deadline_seconds: float = 600.0
    idle_seconds: float = 60.0
    max_connections_per_key: int = 256
    keep_answers_seconds: float = 3600.0
    max_kept_answers: int = 1000
    api_keys: tuple[str, ...] = ()
    voices: Mapping[str, str] = field(default_factory=lambda: {"default": ""})
    translates: bool = False
    ignored: tuple[str, ...] = ()
    realtime: RealtimeSettings = field(default_factory=RealtimeSettings)
    log_content: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value: Any = getattr(self, one.name)
            is_limit = one.name.startswith(("max_", "keep_", "deadline_", "idle_")) and value is not None
            least = 0 if one.name == "max_waiting" else 1e-9
            if is_limit and not least <= value < math.inf:
                raise ValueError(f"{one.name}={value}: use a number above 0")
        if any(not key for key in self.api_keys):
            raise ValueError("api_keys holds an empty key, which every client has: leave it out")
        unknown = sorted(set(self.ignored) - IGNORABLE)
        if unknown:
            raise ValueError(f"ignored={unknown[0]}: use some of {', '.join(sorted(IGNORABLE))}")
        if not self.voices:
            raise ValueError("voices are empty: name at least one")
