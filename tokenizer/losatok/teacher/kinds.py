"""From what a checkpoint says of its teacher to the teacher, with any weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from audiollm.tokenizer.zoo.settings import settings_as

from .base import Teacher
from .dasheng import DashengSizes, DashengTeacher
from .plugged import TransformersTeacher, UniAudioTeacher

KIND = "kind"
"""Key beside a teacher's own settings."""
_PLUGGED: Mapping[str, type[UniAudioTeacher] | type[TransformersTeacher]] = {
    one.kind: one for one in (UniAudioTeacher, TransformersTeacher)
}


def settings_of(teacher: Teacher) -> dict[str, Any]:
    """What `teacher_of` takes.

    Raises:
        ValueError: if the teacher can't be saved.
    """
    return {KIND: teacher.kind, **teacher.settings()}


def teacher_of(values: Any, source: Path) -> Teacher:
    """Makes a teacher of its settings.

    Args:
        values: what `settings_of` gave.
        source: where they are from, for errors.

    Raises:
        ValueError: naming the file, if they describe no teacher.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{source} does not say what the teacher is")
    rest = {name: value for name, value in values.items() if name != KIND}
    if values.get(KIND) == DashengTeacher.kind:
        return DashengTeacher(settings_as(DashengSizes, rest, source))
    plugged = _PLUGGED.get(str(values.get(KIND)))
    if plugged is None:
        known = ", ".join([DashengTeacher.kind, *_PLUGGED])
        raise ValueError(f"{source}: there is no kind of teacher called {values.get(KIND)!r}; known are {known}")
    try:
        return plugged.from_settings(rest)
    except (KeyError, TypeError, ValueError, StrictDataclassError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{source} does not describe a teacher of kind {plugged.kind!r}: {told}") from error
