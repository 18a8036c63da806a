"""The sources of a mixture, opened: a place in one of them becomes a conversation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import Conversation
from audiollm.data.files.text import HALF_A_CHARACTER, is_whole
from audiollm.data.foreign.advice import with_advice
from audiollm.data.manifest import RecordError
from audiollm.data.sampling import draw
from audiollm.data.streaming.counting import NumRecords, count_records, sample, source_identity
from audiollm.data.streaming.shards import FileShard, open_shards
from audiollm.data.streaming.shuffling import Place, ShuffledSource

from .config import MixtureConfig, SourceConfig
from .templates.base import SourceRecord, UnfillableError
from .templates.registry import TASKS

logger = logging.getLogger(__name__)


class MixtureSource:
    """One source of a mixture.

    Args:
        config: what the mixture says of it.
        number: its number there.
        text_tokenizer: the LLM's.
        codebook_size: codes must be below this.
        window: records that are shuffled among each other.
        seed: decides order, tasks and wordings.
        skips_damage: leave out shards that cannot be read, and list them, instead of raising.

    Raises:
        RecordError: there is no such file.
    """

    def __init__(
        self,
        config: SourceConfig,
        number: int,
        *,
        text_tokenizer: PreTrainedTokenizerBase,
        codebook_size: int,
        window: int,
        seed: int,
        skips_damage: bool,
    ) -> None:
        self.config, self.number = config, number
        self.damaged: dict[str, RecordError] = {}
        """Shards, and parts of them, that could not be read, by their place."""
        self._skips_damage = skips_damage
        self._text_tokenizer, self._codebook_size, self._seed = text_tokenizer, codebook_size, seed
        try:
            self.shards = open_shards(config.data, base_dir=config.base_dir, split=config.split)
        except RecordError as error:
            raise RecordError(error.where, with_advice(error.reason, config.data)) from error
        self.rows = ShuffledSource(
            self.shards, number=number, seed=seed, window=window, epochs=config.epochs, on_damage=self._note_damage
        )

    @property
    def title(self) -> str:
        """What reports and messages call it."""
        return self.config.title

    @cached_property
    def counted(self) -> NumRecords:
        """Its records, read off its shards or estimated.

        Raises:
            RecordError: it has none, or a shard cannot be read.
        """
        counted = count_records(self.shards, self._note_damage)
        if counted.count == 0:
            raise RecordError(self.title, "holds no records" + (" that can be read" if self.damaged else ""))
        return counted

    @property
    def identity(self) -> str:
        """What tells its files from others: a hash over their names and sizes."""
        return source_identity(self.shards)

    @property
    def files(self) -> frozenset[str]:
        """The files that it is read from, whatever way leads there; none for a data set."""
        return frozenset(shard.path for shard in self.shards if isinstance(shard, FileShard))

    def code_makers(self) -> dict[str, str]:
        """Fingerprints of the audio tokenizers that shards say made their codes, and the first shard of each."""
        makers: dict[str, str] = {}
        for shard in self.shards:
            try:
                if (made_by := shard.code_maker) is not None:
                    makers.setdefault(made_by, shard.name)
            except RecordError as error:
                self._note_damage(error)
        return makers

    def sample(self, num_records: int) -> list[Place]:
        """Places all over the source, of the first pass."""
        found = sample(self.shards, self.counted, num_records, self._note_damage)
        return [Place(self.number, 0, *place) for place in found]

    def conversation(self, place: Place) -> Conversation:
        """Makes a conversation of the record at a place.

        Raises:
            RecordError: the record cannot be read, the drawn task lacks something in it, or what comes of it is no
                conversation; the message names the place.
            AudioError: a recording lies in it in a form that is none.
        """
        record, where, base_dir = self.rows.record(place)
        fields, task = self.drawn(record, where, place.epoch)
        key = self._key(fields, where, place.epoch)
        asked = SourceRecord(fields, where, base_dir, key, self.config.text_key, self._text_tokenizer)
        try:
            made = TASKS[task](asked)
        except UnfillableError as error:
            raise RecordError(where, f"task {task}: {error}") from error
        return parse_conversation(
            made, where=where, base_dir=base_dir, codebook_size=self._codebook_size, for_training=True
        )

    def drawn(self, record: Any, where: str, epoch: int) -> tuple[Mapping[str, Any], str]:
        """The fields of a record, and the task that is drawn for it.

        Raises:
            RecordError: it is no object, or its id, by which the task is drawn, holds half a character.
        """
        if not isinstance(record, Mapping):
            raise RecordError(where, f"is a {type(record).__name__}, and no object with fields")
        if not is_whole(str(record.get("id"))):
            raise RecordError(where, f"id: {HALF_A_CHARACTER}")
        tasks = self.config.tasks
        fields = {name: value for name, value in record.items() if value is not None}  # null, as parquet fills it in
        return fields, tasks[draw("task", self._key(record, where, epoch), len(tasks))]

    def _key(self, record: Mapping[str, Any], where: str, epoch: int) -> str:
        # With the pass: another one asks in other words. Without the mixture's other sources, which may change.
        return f"{self._seed} {epoch} {record.get('id') or where}"

    def _note_damage(self, error: RecordError) -> None:
        if not self._skips_damage:
            raise error
        if error.where not in self.damaged:
            self.damaged[error.where] = error
            logger.warning("%s is left out: %s", self.title, error)


def open_sources(
    config: MixtureConfig,
    *,
    text_tokenizer: PreTrainedTokenizerBase,
    codebook_size: int,
    seed: int,
    skips_damage: bool | None = None,
) -> list[MixtureSource]:
    """Opens all sources of a mixture; see `MixtureSource`.

    Args:
        config: the mixture.
        text_tokenizer: the LLM's.
        codebook_size: codes must be below this.
        seed: decides order, tasks and wordings.
        skips_damage: leave out shards that cannot be read; None: as the mixture says (``on_bad``).

    Raises:
        ValueError: one of them cannot be opened.
    """
    return [
        MixtureSource(
            source,
            number,
            text_tokenizer=text_tokenizer,
            codebook_size=codebook_size,
            window=config.shuffle,
            seed=seed,
            skips_damage=config.on_bad == "skip" if skips_damage is None else skips_damage,
        )
        for number, source in enumerate(config.sources)
    ]
