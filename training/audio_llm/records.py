"""Training records as token ids: encoded on demand, checked once, kept in memory within a budget."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.collation import IGNORED_LABEL, Example
from audiollm.data.conversation.loading import Conversations
from audiollm.data.conversation.types import Conversation
from audiollm.data.unread_keys import CONVERSATION_KEYS, unread_keys, warn_of_unread_keys
from audiollm.mixture.encoding import RecordProcessor, encode_each
from audiollm.mixture.sampling import named
from audiollm.training.loop.errors import DataError

from .guards import count_loss, out_of_place, warn_of_odd_loss

# Records whose audio is tokenized in one batch while the data are checked.
_CHECK_BATCH = 16
LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class EncodedRecord:
    """One conversation in the LLM's vocabulary.

    Attributes:
        record_id: the conversation's ``id``.
        where: its file and line.
        token_ids: int32 ``[S]``.
        labels: int32 ``[S]``, aligned with ``token_ids``, ``IGNORED_LABEL`` outside assistant turns.
        frames: int32 ``[F, K]`` for an LM of several streams, see `EncodedConversation`; None: there are none.
    """

    record_id: str
    where: str
    token_ids: np.ndarray
    labels: np.ndarray
    frames: np.ndarray | None = None

    @classmethod
    def of(cls, conversation: Conversation, encoded: EncodedConversation) -> EncodedRecord:
        """What the processor has made of a conversation."""
        return cls(
            record_id=conversation.id,
            where=conversation.where,
            # int32 holds every vocabulary, and the cache takes half the memory that it would in int64.
            token_ids=np.asarray(encoded.token_ids, dtype=np.int32),
            labels=np.asarray(encoded.labels, dtype=np.int32),
            frames=encoded.frames,
        )

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def num_targets(self) -> int:
        """Tokens that count in the loss; nothing predicts the first token."""
        return int((self.labels[1:] != IGNORED_LABEL).sum())

    @classmethod
    def blank(cls) -> EncodedRecord:
        """What a process passes through the model that has no record of an update: two tokens, no targets."""
        return cls("", "", np.zeros(2, dtype=np.int32), np.full(2, IGNORED_LABEL, dtype=np.int32))

    def without_targets(self) -> EncodedRecord:
        """The record as a pass that teaches nothing."""
        return dataclasses.replace(self, labels=np.full_like(self.labels, IGNORED_LABEL))

    def example(self) -> Example:
        """The record as ``collate`` takes it."""
        return {"input_ids": self.token_ids.tolist(), "labels": self.labels.tolist()}


@dataclass
class DataCheck:
    """What one process found in the records it encoded; parts of several processes are merged with `merge`.

    Attributes:
        problems: record number → why it cannot be used.
        too_long: record number → what a ``skipped.jsonl`` line says about it.
        digests: record number → SHA-256 of its token ids and labels.
        lengths: record number → tokens.
        unread: in how many records each key is that nothing reads.
        loss: what of the tokens carries loss, see `count_loss`.
        unsigned: records with codes that don't say which audio tokenizer made them.
    """

    problems: dict[int, str] = field(default_factory=dict)
    too_long: dict[int, dict[str, object]] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    loss: Counter[str] = field(default_factory=Counter)
    unsigned: int = 0

    @classmethod
    def merge(cls, parts: Iterable[DataCheck]) -> DataCheck:
        """Joins the findings of several processes, in the order of the records."""
        merged = cls()
        for part in parts:
            merged.problems |= part.problems
            merged.too_long |= part.too_long
            merged.digests |= part.digests
            merged.lengths |= part.lengths
            merged.unread.update(part.unread)
            merged.loss.update(part.loss)
            merged.unsigned += part.unsigned
        return cls(
            problems=dict(sorted(merged.problems.items())),
            too_long=dict(sorted(merged.too_long.items())),
            digests=dict(sorted(merged.digests.items())),
            lengths=merged.lengths,
            unread=merged.unread,
            loss=merged.loss,
            unsigned=merged.unsigned,
        )

    def fingerprint(self) -> str:
        """SHA-256 over every record as the model sees it: changes with text, audio, template or audio tokenizer."""
        return hashlib.sha256("".join(self.digests.values()).encode()).hexdigest()


class EncodedRecords:
    """Map-style access to encoded conversations.

    Args:
        conversations: the records, parsed when they are indexed.
        processor: turns conversations into token ids; tokenizes their audio unless they bring codes.
        max_length: longest usable record, in tokens.
        limit: the setting that says so.
        vocabulary_size: rows of the model's embedding; None: at least as many as the tokenizer has tokens.
        cache_tokens: keep encoded records up to this many tokens, the least recently used leaving first.

    Raises:
        DataError: a file of the records says that its codes are of another audio tokenizer than the LLM's.
    """

    def __init__(
        self,
        conversations: Conversations,
        processor: RecordProcessor,
        *,
        max_length: int,
        limit: str = "max_length",
        vocabulary_size: int | None = None,
        cache_tokens: int,
    ) -> None:
        for file, made_by in conversations.manifest.code_makers():
            try:
                processor.check_maker(made_by, file)
            except ValueError as error:
                raise DataError(str(error)) from error
        self.conversations = conversations
        self.processor = processor
        self.max_length = max_length
        self._limit = limit
        self._vocabulary_size = vocabulary_size or len(processor.text_tokenizer)
        self._cache_tokens = cache_tokens
        self._cache: OrderedDict[int, EncodedRecord] = OrderedDict()
        self._cached_tokens = 0

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.conversations.name

    def __len__(self) -> int:
        return len(self.conversations)

    def encode(self, indexes: Sequence[int]) -> list[EncodedRecord]:
        """Encodes records, tokenizing the audio of all that are not cached in one batch.

        Args:
            indexes: record numbers.

        Returns:
            One encoded record per index, in order.

        Raises:
            ValueError: naming the first record that cannot be used: unreadable, too long, or nothing to learn from.
        """
        missing = [index for index in dict.fromkeys(indexes) if index not in self._cache]
        fresh = dict(zip(missing, self._encode_batch(missing), strict=True)) if missing else {}
        records = [fresh[index] if index in fresh else self._cache[index] for index in indexes]
        for record in records:
            reason = self._unusable(record)
            if reason:
                raise DataError(f"{record.where}: {reason}")
        for index, record in zip(indexes, records, strict=True):
            self._keep(index, record)
        return records

    def check(self, indexes: Sequence[int]) -> DataCheck:
        """Encodes the given records and reports on all of them, instead of stopping at the first bad one."""
        found = DataCheck()
        for start in range(0, len(indexes), _CHECK_BATCH):
            batch = indexes[start : start + _CHECK_BATCH]
            try:
                records = list(zip(batch, self._encode_batch(batch), strict=True))
            except ValueError:
                # One by one: the batch names its first bad record only, and all are to be listed.
                records = []
                for index in batch:
                    try:
                        records.append((index, self._encode_batch([index])[0]))
                    except ValueError as error:
                        found.problems[index] = str(error)
            marks = self.processor.text_tokenizer.all_special_ids
            for index, record in records:
                conversation = self.conversations[index]
                found.loss.update(
                    count_loss(conversation, record.token_ids, record.labels, self.processor.vocabulary, marks)
                )
                found.unsigned += any(
                    part.codes is not None and part.audio_tokenizer is None for part in conversation.audio_parts
                )
                found.digests[index] = _digest(record)
                found.lengths[index] = len(record)
                found.unread.update(unread_keys(conversation.metadata, CONVERSATION_KEYS))
                reason = self._unusable(record)
                if len(record) > self.max_length:
                    found.too_long[index] = {
                        "record": index,
                        "id": record.record_id,
                        "where": record.where,
                        "tokens": len(record),
                        "reason": reason,
                    }
                elif reason:
                    found.problems[index] = f"{record.where}: {reason}"
                else:
                    self._keep(index, record)
        return found

    def _unusable(self, record: EncodedRecord) -> str | None:
        if len(record) > self.max_length:
            return (
                f"{len(record)} tokens are more than {self._limit}={self.max_length}: "
                f"split the recording, raise {self._limit} or set on_too_long: skip"
            )
        if record.num_targets == 0:
            return "no assistant turn to learn from"
        return out_of_place(record.token_ids, record.labels, self.processor.vocabulary, self._vocabulary_size)

    def _encode_batch(self, indexes: Sequence[int]) -> list[EncodedRecord]:
        """Encodes without looking at length; errors of the data or its audio are raised as they are, with a name."""
        conversations = [self.conversations[index] for index in indexes]
        records = []
        for conversation, encoded in zip(conversations, encode_each(self.processor, conversations), strict=True):
            if isinstance(encoded, ValueError):
                raise DataError(named(conversation, encoded)) from encoded
            records.append(EncodedRecord.of(conversation, encoded))
        return records

    def _keep(self, index: int, record: EncodedRecord) -> None:
        if index in self._cache:
            self._cache.move_to_end(index)
            return
        self._cache[index] = record
        self._cached_tokens += len(record)
        while self._cached_tokens > self._cache_tokens and self._cache:
            self._cached_tokens -= len(self._cache.popitem(last=False)[1])


def _digest(record: EncodedRecord) -> str:
    frames = b"" if record.frames is None else record.frames.tobytes()
    return hashlib.sha256(record.token_ids.tobytes() + record.labels.tobytes() + frames).hexdigest()


def usable_records(check: DataCheck, num_records: int, *, on_too_long: str, source: str) -> list[int]:
    """Record numbers to train on; keys that nothing reads are listed in a warning.

    Args:
        check: findings about all records.
        num_records: records in the source.
        on_too_long: ``skip`` leaves long records out, ``error`` counts them as bad.
        source: what the records are called in messages.

    Raises:
        DataError: listing every bad record (the first 20 in full), or if none is left.
    """
    warn_of_unread_keys(source, check.unread)
    warn_of_odd_loss(source, check.loss)
    bad = dict(check.problems)
    if on_too_long == "error":
        bad |= {n: f"{line['where']}: {line['reason']}" for n, line in check.too_long.items()}
    if bad:
        lines = [f"  {reason}" for _, reason in itertools.islice(sorted(bad.items()), LISTED_PROBLEMS)]
        more = [f"  … and {len(bad) - LISTED_PROBLEMS} more"] if len(bad) > LISTED_PROBLEMS else []
        raise DataError("\n".join([f"{len(bad)} of {num_records} records cannot be trained on:", *lines, *more]))
    usable = [number for number in range(num_records) if number not in check.too_long]
    if not usable:
        raise DataError(f"{source}: no records to train on ({len(check.too_long)} skipped as too long)")
    return usable
