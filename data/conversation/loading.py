"""Opens files and data sets of conversation records, and checks whole ones of them at once."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.foreign.advice import with_advice
from audiollm.data.manifest import Manifest, RecordError, checked_index, open_manifest
from audiollm.data.unread_keys import CONVERSATION_KEYS, unread_keys, warn_of_unread_keys

from .parsing import check_conversation, is_conversation, parse_conversation
from .problems import ConversationError, Problem
from .types import AudioPart, Conversation

logger = logging.getLogger(__name__)

MAX_PROBLEMS = 100


class Conversations(Sequence[Conversation]):
    """The conversations of a manifest, each read and checked when asked for.

    Args:
        manifest: the records.
        codebook_size: as for `parse_conversation`.
        for_training: as for `parse_conversation`.
    """

    def __init__(self, manifest: Manifest, codebook_size: int | None = None, for_training: bool = False) -> None:
        self.manifest = manifest
        self._codebook_size = codebook_size
        self._for_training = for_training

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        """sha256 of the records (not of the recordings they point to), for run records."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._conversation(i) for i in range(len(self))[index]]
        return self._conversation(checked_index(self, index))

    def check(self, index: int) -> tuple[Conversation | None, list[Problem]]:
        """Returns a conversation, or ``None`` and everything that is wrong with its record."""
        try:
            record = self._record(index)
        except ConversationError as error:
            return None, [Problem(error.where, "", error.reason)]
        return check_conversation(record, **self._options(index))

    def _conversation(self, index: int) -> Conversation:
        return parse_conversation(self._record(index), **self._options(index))

    def _record(self, index: int) -> Any:
        try:
            record = self.manifest[index]
        except RecordError as error:
            raise ConversationError(error.where, error.reason) from error
        return record.to_dict() if isinstance(record, Conversation) else record

    def _options(self, index: int) -> dict[str, Any]:
        return {
            "where": self.manifest.where(index),
            "base_dir": self.manifest.base_dir(index),
            "codebook_size": self._codebook_size,
            "for_training": self._for_training,
        }


def load_conversations(
    source: Any,
    *,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
) -> Conversations:
    """Opens conversations, to be read one by one.

    Args:
        source: a JSONL, JSON or parquet file, a folder or glob pattern of them, a folder written by ``datasets``, a Hub
            id, a ``datasets.Dataset``, or a list of records or conversations.
        base_dir: folder that relative audio paths start from; by default the folder of the file they are written in.
        split: which split of a data set that has several; "train" if it has one of that name.
        codebook_size: codes in records must be below this; ``None``: only not negative.
        for_training: require an assistant turn in every record.

    Returns:
        A sequence (length, access by index, slices) with a ``fingerprint``. Reading a bad record raises
        `ConversationError`; `validate_conversations` finds all of them beforehand.

    Raises:
        ConversationError: no such source, or nothing in it.
    """
    try:
        manifest = open_manifest(source, base_dir=base_dir, split=split)
    except RecordError as error:
        raise ConversationError(error.where, with_advice(error.reason, source)) from error
    if len(manifest) == 0:
        raise ConversationError(manifest.name, "holds no records")
    _name_foreign(manifest, source)
    return Conversations(manifest, codebook_size, for_training)


def _name_foreign(manifest: Manifest, source: Any) -> None:
    """Says what records are read as that are not in our words; whether they are well is found when they are read.

    Raises:
        ConversationError: it is no file of records at all, but a table or a recording.
    """
    try:
        first = manifest[0]
    except RecordError as error:
        told = with_advice(error.reason, source)
        if told != error.reason:
            raise ConversationError(manifest.name, told) from error
        return
    if is_conversation(first) and "messages" not in first:
        logger.info("%s: read as ShareGPT", manifest.name)


def validate_conversations(
    source: Any,
    *,
    check_audio: bool = False,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    codebook_size: int | None = None,
    for_training: bool = False,
    max_problems: int = MAX_PROBLEMS,
) -> list[Problem]:
    """Checks every record and reports everything that is wrong. Keys that nothing reads are listed in one warning.

    Args:
        source: as for `load_conversations`.
        check_audio: open every recording too: missing, empty, truncated, not audio. (Defects that only decoding the
            whole file shows, such as a NaN sample, are left to the run.)
        base_dir: as for `load_conversations`.
        split: as for `load_conversations`.
        codebook_size: as for `load_conversations`.
        for_training: as for `load_conversations`.
        max_problems: stop after so many.

    Returns:
        The problems, in the order of the records; empty if all is well.
    """
    try:
        conversations = load_conversations(
            source, base_dir=base_dir, split=split, codebook_size=codebook_size, for_training=for_training
        )
    except ConversationError as error:
        return [Problem(error.where, "", error.reason)]
    problems: list[Problem] = []
    unread: Counter[str] = Counter()
    first_place: dict[int, int] = {}
    for index in range(len(conversations)):
        conversation, found = conversations.check(index)
        problems += found
        if conversation is not None:
            unread.update(unread_keys(conversation.metadata, CONVERSATION_KEYS))
            # The hash of the id stands for it: 8 bytes instead of a string per record.
            earlier = first_place.setdefault(hash(conversation.id), index)
            if earlier != index:
                reason = f"{conversation.id!r} is taken by {conversations.manifest.where(earlier)}; ids must differ"
                problems.append(Problem(conversation.where, "id", reason))
            if check_audio:
                problems += _audio_problems(conversation)
        if len(problems) >= max_problems:
            break
    warn_of_unread_keys(conversations.name, unread)
    return problems[:max_problems]


def _audio_problems(conversation: Conversation) -> list[Problem]:
    problems = []
    for number, message in enumerate(conversation.messages):
        for index, part in enumerate(message.content):
            if not isinstance(part, AudioPart) or part.codes is not None:
                continue
            try:
                part.probe()
            except AudioError as error:
                # The part's own place is in the error's source already; here it is the field.
                source = error.source.removeprefix(f"{part.where}: ")
                reason = str(AudioError(source, error.reason))
                problems.append(Problem(conversation.where, f"messages[{number}].content[{index}]", reason))
    return problems
