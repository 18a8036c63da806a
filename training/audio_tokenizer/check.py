"""Check of all records of the tokenizer's training data, made once before the training starts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from tqdm.auto import tqdm

from audiollm.data.manifest import RecordError
from audiollm.data.unread_keys import warn_of_unread_keys
from audiollm.training.loop.errors import DataError

from .clips import Clip, ClipReader
from .targets import TargetError

logger = logging.getLogger(__name__)

NUM_LOADERS = 2  # threads; decoding and resampling work without Python's lock
CHECK_AT_ONCE = 64  # records whose outcome may wait for its turn
_LISTED_PROBLEMS = 20


class TargetEncoder(Protocol):
    """The text side: `SapText`, or what can stand in for it."""

    @property
    def end_id(self) -> int:
        """Token that ends every target."""
        ...

    def encode(self, task: str, text: str) -> list[int]:
        """Start token of the task, the text's tokens, end token; what the decoder cannot take is cut, end included."""
        ...


@dataclass(frozen=True)
class Limits:
    """What records must keep to.

    Attributes:
        tasks: those with a weight; a record must have something for at least one.
        max_seconds: length of a clip; None for any.
        max_text_tokens: tokens of a target behind its start token; None: as many as the text decoder has positions for.
        split: what a record's ``split`` must be to count at all; None for any.
    """

    tasks: tuple[str, ...]
    max_seconds: float | None
    max_text_tokens: int | None
    split: str | None = None


@dataclass(frozen=True)
class Entry:
    """What is remembered of a usable record."""

    record: int  # number in the manifest
    id: str
    sound_type: str
    tasks: tuple[str, ...]  # those with a weight that it has something for
    num_samples: int  # at the reader's rate
    digest: str  # SHA-256 of recording and targets


@dataclass
class RecordsCheck:
    """What one process found in its share of the records; parts are joined with `merge`.

    Attributes:
        entries: record number → what is remembered of a usable record.
        problems: record number → why the record cannot be used, one line per field.
        token_ids: all tokens that occur in targets.
        num_elsewhere: records of other splits.
        unread: in how many usable records each key is that nothing reads.
    """

    entries: dict[int, Entry] = field(default_factory=dict)
    problems: dict[int, list[str]] = field(default_factory=dict)
    token_ids: set[int] = field(default_factory=set)
    num_elsewhere: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    @classmethod
    def merge(cls, parts: Iterable[RecordsCheck]) -> RecordsCheck:
        """Joins the findings of several processes, in the order of the records."""
        merged = cls()
        for part in parts:
            merged.entries |= part.entries
            merged.problems |= part.problems
            merged.token_ids |= part.token_ids
            merged.num_elsewhere += part.num_elsewhere
            merged.unread.update(part.unread)
        merged.entries = dict(sorted(merged.entries.items()))
        merged.problems = dict(sorted(merged.problems.items()))
        return merged


def check_records(
    reader: ClipReader, text: TargetEncoder, numbers: Sequence[int], limits: Limits, *, progress: bool = False
) -> RecordsCheck:
    """Decodes clips and reads their targets; reports on all of them instead of stopping at the first bad one.

    Args:
        reader: the records; clips that fit stay in its memory.
        text: turns target texts into tokens.
        numbers: which records.
        limits: what they must keep to.
        progress: show a progress bar.
    """
    found = RecordsCheck()
    outcomes = _in_threads(reader, numbers, limits)
    for number, outcome in tqdm(outcomes, "check", len(numbers), unit="clip", disable=None if progress else True):
        if outcome is None:
            found.num_elsewhere += 1
        elif isinstance(outcome, list):
            found.problems[number] = outcome
        else:
            entry = _check_targets(text, outcome, limits, found.token_ids)
            if isinstance(entry, Entry):
                found.entries[number] = entry
                found.unread.update(reader.unread_keys(number))
            else:
                found.problems[number] = entry
    return found


def report_problems(check: RecordsCheck, name: str, *, on_bad: str, split: str | None) -> None:
    """Warns of records that are left out, and of keys that nothing reads.

    Args:
        check: findings about all records.
        name: what messages call the source.
        on_bad: ``skip``, or ``error``.
        split: the split that was asked for.

    Raises:
        DataError: listing every bad record (the first 20 in full) unless they are skipped, or if none is left.
    """
    warn_of_unread_keys(name, check.unread)
    num_records = len(check.entries) + len(check.problems)
    bad = [line for lines in check.problems.values() for line in lines]
    summary = f"{name}: {len(check.problems)} of {num_records} records cannot be trained on"
    listed = [f"  {line}" for line in bad[:_LISTED_PROBLEMS]]
    if len(bad) > _LISTED_PROBLEMS:
        listed.append(f"  … and {len(bad) - _LISTED_PROBLEMS} more")
    if bad and (on_bad == "error" or not check.entries):
        raise DataError("\n".join([f"{summary}:", *listed, "repair or remove them, or set on_bad: skip"]))
    if not check.entries:
        elsewhere = f" whose split is {split!r} ({check.num_elsewhere} of others)" if split else ""
        raise DataError(f"{name} holds no records{elsewhere}")
    if bad:
        logger.warning("%s and are left out:\n%s", summary, "\n".join(listed))


# Of one record: None if it belongs to another split, what is wrong with it, or the clip.
_Outcome = Clip | list[str] | None


def _in_threads(reader: ClipReader, numbers: Sequence[int], limits: Limits) -> Iterator[tuple[int, _Outcome]]:
    """Reads records in order, a few ahead."""
    with ThreadPoolExecutor(NUM_LOADERS, thread_name_prefix="check") as executor:
        for start in range(0, len(numbers), CHECK_AT_ONCE):
            some = numbers[start : start + CHECK_AT_ONCE]
            yield from zip(some, executor.map(lambda number: _check_clip(reader, number, limits), some), strict=True)


def _check_clip(reader: ClipReader, number: int, limits: Limits) -> _Outcome:
    where = reader.where(number)
    try:
        if limits.split is not None and reader.record(number).get("split") != limits.split:
            return None
        clip = reader.clip(number, limits.max_seconds)
    except TargetError as error:
        return [str(problem) for problem in error.problems]
    except (DataError, RecordError, OSError) as error:
        return [str(error) if str(error).startswith(where) else f"{where}: audio: {error}"]
    if limits.max_seconds is not None and clip.seconds > limits.max_seconds:
        return [f"{where}: audio: lasts {clip.seconds:.2f} s, longer than max_seconds={limits.max_seconds:g}; cut it"]
    return clip


def _check_targets(text: TargetEncoder, clip: Clip, limits: Limits, token_ids: set[int]) -> Entry | list[str]:
    """Encodes what the record has for the tasks; adds the tokens to ``token_ids``."""
    texts = clip.targets.texts
    tasks = tuple(task for task in limits.tasks if task in texts)
    if not tasks:
        has = ", ".join(texts) or "nothing to learn"
        return [f"{clip.where}: has nothing for the tasks {', '.join(limits.tasks)}; it has {has}"]
    encoded = {task: text.encode(task, texts[task]) for task in tasks}
    limit = limits.max_text_tokens
    allowed = "the text decoder has positions for" if limit is None else f"max_text_tokens={limit} allows"
    too_long = [
        f"{clip.where}: {'text' if task == 'asr' else task}: {len(texts[task])} characters take more tokens than "
        + allowed
        for task, ids in encoded.items()
        if ids[-1] != text.end_id or (limit is not None and len(ids) - 1 > limit)
    ]
    if too_long:
        return too_long
    token_ids.update(*encoded.values())
    content = [clip.targets.id, clip.targets.sound_type, encoded, clip.audio_digest]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Entry(clip.number, clip.targets.id, clip.targets.sound_type, tasks, clip.num_samples, digest)
