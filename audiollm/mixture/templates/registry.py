"""The tasks that a source of a mixture can have, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from audiollm.prompts import INSTRUCTIONS, UNANSWERED_BY_CLIPS

from .base import SourceRecord
from .chats import conversation, text_only
from .clips import TASKS_WITH_USUAL_ANSWER, asked_about, sap_question, sap_record
from .speech import speak, speak_interleaved, speech_to_speech, speech_to_speech_interleaved

Template = Callable[[SourceRecord], dict[str, Any]]
"""Makes a conversation of a record. Raises UnfillableError, or another ValueError where the record is at fault."""

_CLIP_TASKS = tuple(task for task in INSTRUCTIONS if task not in UNANSWERED_BY_CLIPS)
TASKS: Mapping[str, Template] = {
    "conversation": conversation,
    "text": text_only,
    **{task: asked_about(task) for task in _CLIP_TASKS},
    "sap_record": sap_record,
    "sap_question": sap_question,
    "speak": speak,
    "speak_interleaved": speak_interleaved,
    "speech_to_speech": speech_to_speech,
    "speech_to_speech_interleaved": speech_to_speech_interleaved,
}
"""Each by its name."""


def check_task(task: str, text_key: str | None) -> None:
    """Refuses a task that does not exist, or that lacks the key of its answer, or has no use for one.

    Raises:
        ValueError: naming it and what to do.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not known; use some of {', '.join(TASKS)}")
    if text_key is None and task in _CLIP_TASKS and task not in TASKS_WITH_USUAL_ANSWER:
        raise ValueError(f"task {task!r}: name the key that holds the answers with text_key")
    if text_key is not None and task not in _CLIP_TASKS:
        raise ValueError(f"task {task!r} takes no text_key: leave it out, or give the task a source of its own")
