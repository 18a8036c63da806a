"""Training targets of a clip: its sound type, and the text that each task asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from audiollm.data.conversation.problems import Problem, ProblemLog, kind_of
from audiollm.data.files.text import is_whole
from audiollm.data.records import SOUND_TYPES
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SapError, SapRecord, render_sap
from audiollm.data.sap.validation import validate_sap

TASKS = ("asr", "sap", "caption", "emotion")
_WORDLESS = ("sound", "music")  # sound types whose transcript may be empty


@dataclass(frozen=True)
class ClipTargets:
    """What is known of one clip.

    Attributes:
        id: the record's own, or its number.
        sound_type: one of ``audiollm.data.records.SOUND_TYPES``.
        texts: task → the text to learn, in the order of ``TASKS``; only tasks that the record has something for.
        sap: the parsed SAP record, if there is one.
    """

    id: str
    sound_type: str
    texts: dict[str, str] = field(default_factory=dict)
    sap: SapRecord | None = None


class TargetError(ValueError):
    """A record that cannot be learnt from.

    Args:
        problems: everything that is wrong with it, each with place, field and reason.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


def parse_targets(record: Any, *, number: int, where: str, duration_seconds: float | None = None) -> ClipTargets:
    """Reads what a training record says about its clip.

    A record without ``sound_type`` is speech if it has words, and a sound otherwise. One without ``text`` takes the
    transcript from its SAP record. An empty transcript is a target only of clips that are known to have no speech:
    elsewhere it would teach the model not to listen.

    Args:
        record: the record; keys that are null count as missing, unknown ones are left alone.
        number: its number, which is the id of a record without one.
        where: file and line, for messages.
        duration_seconds: length of the clip; with it, the SAP record must be plausible for so long a clip.

    Raises:
        TargetError: naming every field that is wrong.
    """
    log = ProblemLog(where)
    if not isinstance(record, Mapping):
        log.note("", f"a record is an object with `audio` and what to learn of it, not {kind_of(record)}")
        raise TargetError(log.problems)
    fields = {key: value for key, value in record.items() if value is not None}
    text = _string(fields, "text", log)
    sap = _sap(fields, log, duration_seconds)
    sound_type = _sound_type(fields, text, sap, log)
    texts: dict[str, str] = {}
    if text is not None:
        if text or sound_type in _WORDLESS:
            texts["asr"] = text
        else:
            log.note("text", "is empty; write what is said, leave it out, or set sound_type to sound or music")
    elif sap is not None and sap.linguistic_content:
        texts["asr"] = sap.linguistic_content
    if sap is not None:
        texts["sap"] = render_sap(sap)
    for task in ("caption", "emotion"):
        described = _string(fields, task, log)
        if described == "":
            log.note(task, "is empty; leave it out")
        elif described is not None:
            texts[task] = described
    for task, learnt in texts.items():
        if not is_whole(learnt):
            field_name = "text" if task == "asr" else task
            log.note(field_name, "holds half a character (one of a surrogate pair), which no tokenizer takes")
    if log.problems:
        raise TargetError(log.problems)
    return ClipTargets(str(fields.get("id", number)), sound_type, texts, sap)


def _string(fields: Mapping[str, Any], key: str, log: ProblemLog) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return None if value is None else value.strip()
    log.note(key, f"must be text, not {kind_of(value)}")
    return None


def _sap(fields: Mapping[str, Any], log: ProblemLog, duration_seconds: float | None) -> SapRecord | None:
    value = fields.get("sap")
    if value is None:
        return None
    if not isinstance(value, (str, Mapping)):
        log.note("sap", f"must be an object or JSON text, not {kind_of(value)}")
        return None
    try:
        sap = parse_sap(value)
    except SapError as error:
        log.note("sap", "; ".join(str(error).splitlines()))
        return None
    # Whoever made the labels has judged whether they are complete.
    for problem in validate_sap(sap, duration_seconds=duration_seconds, complete=False):
        log.note("sap", problem)
    return sap


def _sound_type(fields: Mapping[str, Any], text: str | None, sap: SapRecord | None, log: ProblemLog) -> str:
    sound_type = fields.get("sound_type")
    if sound_type is None:
        has_words = bool(text) or (sap is not None and bool(sap.linguistic_content))
        # An empty transcript alone says nothing of the sound: it is judged as speech, and refused.
        return "speech" if has_words or text == "" else "sound"
    if sound_type not in SOUND_TYPES:
        log.note("sound_type", f"{sound_type!r} is unknown; use one of {', '.join(SOUND_TYPES)}")
        return "sound"
    return str(sound_type)
