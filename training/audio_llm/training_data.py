"""What updates are made of: records that can be read by number, or a mixture of sources that are read as they come.

Both say for every update which records are in it, the same on every process; each encodes its share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.sampling import spread
from audiollm.training.loop.batches import DataOrder, TokenOrder, share_of_process
from audiollm.training.loop.checkpoints import Stateful

from .config import ConversationRunConfig, num_updates
from .guards import warn_of_unsigned_codes
from .records import DataCheck, EncodedRecord, EncodedRecords, usable_records

logger = get_logger(__name__)


@dataclass(frozen=True)
class Agreement:
    """What processes have agreed on before an update.

    Attributes:
        facts: what there is to say of its records in the metrics.
        records: this process's records, where they are known only now.
    """

    facts: dict[str, Any]
    records: list[EncodedRecord] | None = None


class TrainingData(ABC):
    """What updates are made of.

    The records of an update are read while the one before it is made: by `places` and `encode`, or, where processes
    have to agree on them (`agrees_on_records`), by `read_ahead`.

    Attributes:
        metadata: sizes and fingerprints, which must not change in a resumed run.
        num_records: of a pass.
        total_steps: updates of the run.
        extras: what checkpoints hold of it.
        agrees_on_records: whether only `agree` tells which records an update has.
    """

    metadata: dict[str, Any]
    num_records: int
    total_steps: int
    extras: Mapping[str, Stateful] = MappingProxyType({})
    agrees_on_records: bool = False

    @abstractmethod
    def places(self, step: int) -> list[Any]:
        """Names the records of an update, the same on every process; updates come in their order."""

    @abstractmethod
    def encode(self, step: int, places: Sequence[Any]) -> list[EncodedRecord]:
        """Encodes records of an update, those that can be used.

        Raises:
            DataError: naming a record that cannot.
        """

    @abstractmethod
    def filler(self, places: Sequence[Any]) -> EncodedRecord:
        """What a process passes through the model that has no record of an update; it counts in no loss."""

    @abstractmethod
    def epoch(self, step: int) -> float:
        """Passes over the data that are complete after update ``step``."""

    def read_ahead(self) -> None:
        """Reads what the next update is likely to need; in the thread in which `encode` would be called."""
        raise NotImplementedError(f"{type(self).__name__} knows what is in an update")

    def agree(self, step: int) -> Agreement:
        """Before an update is made, sees to it that all processes make the same; all of them call it."""
        return Agreement({})

    @abstractmethod
    def made(self, step: int) -> None:
        """Says that an update has been made, behind which a checkpoint goes on."""


class ListedData(TrainingData):
    """Records that can be read by number, in shuffled epochs.

    Args:
        accelerator: the run's accelerator.
        config: its settings.
        records: what to train on; checked here.

    Raises:
        DataError: listing the records that cannot be trained on.
    """

    def __init__(self, accelerator: Accelerator, config: ConversationRunConfig, records: EncodedRecords) -> None:
        self.records = records
        counts_tokens = config.tokens_per_update is not None  # which takes the lengths of all records
        at_most = None if counts_tokens else config.check_records
        checked = check_records(
            accelerator, records, "train", on_too_long=config.on_too_long, output_dir=config.output_dir,
            check_data=config.check_data, at_most=at_most,
        )  # fmt: skip
        self.usable, self.metadata = checked.usable, checked.metadata
        self.num_records = len(self.usable)
        self._skips_long = checked.is_sampled and config.on_too_long == "skip"
        self._order: DataOrder | TokenOrder
        if config.tokens_per_update is None:
            self._order = DataOrder(self.num_records, config.global_batch_size, config.seed)
            self.total_steps = num_updates(config, self.num_records)
        else:
            lengths = [checked.lengths[number] for number in self.usable]
            self._order = TokenOrder(lengths, config.tokens_per_update, config.seed)
            self.total_steps = config.max_steps or self._order.num_updates(config.num_epochs)

    def places(self, step: int) -> list[int]:
        return [self.usable[number] for number in self._order.batch(step)]

    def encode(self, step: int, places: Sequence[int]) -> list[EncodedRecord]:
        if self._skips_long:
            places = self._short_enough(places)
        return self.records.encode(places)

    def filler(self, places: Sequence[int]) -> EncodedRecord:
        return EncodedRecord.blank() if self._skips_long else self.records.encode(places[:1])[0].without_targets()

    def epoch(self, step: int) -> float:
        return self._order.epoch(step)

    def made(self, step: int) -> None:
        """An update's number says what is in it, so that nothing is to be kept."""

    def _short_enough(self, places: Sequence[int]) -> list[int]:
        """Without records that are too long, which a sample does not find."""
        too_long = self.records.check(places).too_long
        for line in too_long.values():
            logger.warning("skipped: %s: %s", line["where"], line["reason"], main_process_only=False)
        return [place for place in places if place not in too_long]


@dataclass(frozen=True)
class CheckedRecords:
    """What a check found.

    Attributes:
        usable: numbers of the records to use.
        lengths: tokens of those that were encoded, by number.
        metadata: sizes and fingerprints.
        is_sampled: whether only some of them were encoded.
    """

    usable: list[int]
    lengths: dict[int, int]
    metadata: dict[str, Any]
    is_sampled: bool = False


def check_records(
    accelerator: Accelerator,
    records: EncodedRecords,
    role: str,
    *,
    on_too_long: str,
    output_dir: str,
    check_data: bool = True,
    at_most: int | None = None,
) -> CheckedRecords:
    """Encodes records once, each process its share.

    Args:
        accelerator: the run's accelerator.
        records: what to check.
        role: "train" or "eval".
        on_too_long: ``skip`` lists those beyond the limit in ``skipped_<role>.jsonl``, ``error`` counts them as bad.
        output_dir: the run's folder.
        check_data: False takes all records as usable, unseen.
        at_most: of more records than so many only so many are encoded, evenly spread; None: all in any case.

    Raises:
        DataError: listing the records that cannot be used.
    """
    metadata: dict[str, Any] = {"records": records.conversations.fingerprint, "num_records": len(records)}
    numbers: Sequence[int] = range(len(records))
    if not check_data:
        return CheckedRecords(list(numbers), {}, metadata)
    is_sampled = at_most is not None and len(numbers) > at_most
    if at_most is not None and is_sampled:
        numbers = spread(numbers, at_most)
        logger.info(
            "%s: %d of %d records are looked at before the first update (check_records)",
            *(records.name, len(numbers), len(records)),
        )
    mine = share_of_process(list(numbers), accelerator.process_index, accelerator.num_processes)
    check = DataCheck.merge(gather_object([records.check(mine)]))
    warn_of_unsigned_codes(records.name, check.unsigned, len(check.digests))
    usable = usable_records(check, len(records), on_too_long=on_too_long, source=records.name)
    if check.too_long:
        logger.warning("%s: %d of %d records skipped as too long", records.name, len(check.too_long), len(records))
        if accelerator.is_main_process:
            write_json_lines(Path(output_dir) / f"skipped_{role}.jsonl", list(check.too_long.values()))
    metadata |= {"encoded": check.fingerprint(), "num_skipped": len(check.too_long)}
    return CheckedRecords(usable, check.lengths, metadata, is_sampled)
