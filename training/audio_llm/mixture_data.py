"""A mixture of sources as what updates are made of: sampled before the first update, read as the updates come."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.chat.encoded import EncodedConversation
from audiollm.data.conversation.types import Conversation
from audiollm.data.streaming.drawing import MixtureOrder
from audiollm.data.streaming.shuffling import Place
from audiollm.data.streaming.token_budget import LEFT_OUT, Round, TokenBudgetOrder
from audiollm.data.unread_keys import warn_of_unread_keys
from audiollm.mixture.config import read_mixture
from audiollm.mixture.encoding import RecordProcessor, encode_each
from audiollm.mixture.planning import MixturePlan, check_samples, plan_mixture, repeated_files
from audiollm.mixture.sampling import (
    NO_TARGETS,
    SourceSample,
    longer_than,
    named,
    reason_of,
    sample_source,
    told_reasons,
)
from audiollm.mixture.sources import MixtureSource, open_sources
from audiollm.processing.attached import ForeignCodesError
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.record import MetricsLog

from .config import ConversationRunConfig
from .guards import (
    out_of_place,
    warn_of_another_form,
    warn_of_answers_unheard,
    warn_of_odd_loss,
    warn_of_unsigned_codes,
)
from .records import EncodedRecord
from .training_data import Agreement, TrainingData

logger = get_logger(__name__)

SKIPPED_NAME = "skipped_train.jsonl"
_LISTED_PROBLEMS = 20
_MOST_LEFT_OUT = 1000  # records in a row that cannot be used, before a run stops looking for one that can
_LeftOut = dict[str, Any]
"""What is said of a record that cannot be used: source, reason, and the record's place with it."""


@dataclass(frozen=True)
class _EncodedRound:
    """Records drawn together, and what this process has made of its own, by their number in the round."""

    drawn: Round
    own: dict[int, EncodedRecord | _LeftOut]


class MixtureData(TrainingData):
    """The records of a mixture.

    Args:
        accelerator: the run's accelerator.
        config: its settings; ``train_data`` is the mixture's file.
        processor: of the model that is trained.
        vocabulary_size: ids that it knows.
        max_length: most tokens of a record.
        limit: the setting that says so.
        speaks_in_turns: whether the model is asked to write what it says, see `AudioLLM.speaks_in_turns`.
        why_no_sound: why the model's codes cannot become sound; None: they can.

    Raises:
        DataError: records of the sample cannot be trained on, or a source gives none.
        ValueError: for settings of the mixture that cannot work.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: ConversationRunConfig,
        processor: RecordProcessor,
        *,
        vocabulary_size: int,
        max_length: int,
        limit: str,
        speaks_in_turns: bool = False,
        why_no_sound: str | None = None,
    ) -> None:
        if config.tokens_per_update is not None and config.max_steps is None:
            raise ValueError(
                "tokens_per_update with a mixture needs max_steps: how many updates a pass takes is only known once "
                "all of it was read; audiollm inspect-data says about how many tokens it has"
            )
        self._accelerator, self._config, self._processor = accelerator, config, processor
        self._max_length, self._limit = max_length, limit
        self._vocabulary_size = vocabulary_size
        self._speaks_in_turns, self._why_no_sound = speaks_in_turns, why_no_sound
        self.mixture = read_mixture(config.train_data)
        self.sources = open_sources(
            self.mixture,
            text_tokenizer=processor.tokenizer,
            codebook_size=processor.vocabulary.codebook_size,
            seed=config.seed,
        )
        self._makers = set[str]()  # of codes
        samples = self._check() if config.check_data else []
        plan = plan_mixture(self.mixture, self.sources, samples)
        self.num_records = plan.pass_size
        self.order: MixtureOrder | TokenBudgetOrder
        if config.tokens_per_update is None:
            self.total_steps = plan.num_updates(config.global_batch_size, config.num_epochs, config.max_steps)
            self.order = plan.order(self.sources, seed=config.seed, global_batch_size=config.global_batch_size)
            records = self.total_steps * config.global_batch_size
        else:
            assert config.max_steps is not None  # see above
            self.total_steps = config.max_steps
            self.order = plan.token_order(
                self.sources, samples, seed=config.seed, tokens_per_update=config.tokens_per_update
            )
            records = round(self.total_steps * config.tokens_per_update / plan.tokens_per_record(samples))
        self._warn(plan, samples, records)
        self.extras = {"data": self.order}
        self.agrees_on_records = config.tokens_per_update is not None
        self.metadata = plan.facts(self.mixture, self.sources, samples)
        self._left_out: dict[int, list[_LeftOut]] = {}
        self._places: dict[int, int] = {}  # update → checksum of its places
        self._log: MetricsLog | None = None
        self._reading = Lock()  # of rounds, in whose order processes agree on them
        self._unagreed: deque[_EncodedRound | ValueError] = deque()
        self._untaken: deque[tuple[int, EncodedRecord | _LeftOut]] = deque()  # own draws that no update has taken
        self._is_left_out: deque[bool] = deque()  # all draws of which processes know and that no update has taken

    def places(self, step: int) -> list[Place]:
        assert isinstance(self.order, MixtureOrder)
        places = self.order.batch(step)
        self._places[step] = zlib.crc32(str(places).encode())
        return places

    def encode(self, step: int, places: Sequence[Place]) -> list[EncodedRecord]:
        encoded = self._encoded(places)
        self._left_out[step] = [one for one in encoded if isinstance(one, dict)]
        return [one for one in encoded if isinstance(one, EncodedRecord)]

    def _encoded(self, places: Sequence[Place]) -> list[EncodedRecord | _LeftOut]:
        """The records at some places, or what is said of those that cannot be used.

        Raises:
            DataError: if such records are not to be skipped.
        """
        conversations: dict[int, Conversation] = {}
        found: dict[int, EncodedRecord | _LeftOut] = {}
        for number, place in enumerate(places):
            try:
                conversations[number] = self.sources[place.source].conversation(place)
            except ValueError as error:
                found[number] = self._leave_out(place, error, str(error))
        encoded = encode_each(self._processor, list(conversations.values()))
        for (number, conversation), one in zip(conversations.items(), encoded, strict=True):
            found[number] = self._checked(places[number], conversation, one)
        return [found[number] for number in range(len(places))]

    def _checked(
        self, place: Place, conversation: Conversation, encoded: EncodedConversation | ValueError
    ) -> EncodedRecord | _LeftOut:
        if isinstance(encoded, ValueError):
            return self._leave_out(place, encoded, named(conversation, encoded))
        self._note_makers(conversation)
        record = EncodedRecord.of(conversation, encoded)
        if len(record) > self._max_length:
            return self._leave_out_long(place, record)
        wrong = self._wrong(record)
        return record if wrong is None else self._leave_out(place, wrong, named(conversation, wrong))

    def filler(self, places: Sequence[Place]) -> EncodedRecord:
        return EncodedRecord.blank()

    def epoch(self, step: int) -> float:
        return self.order.epoch(step)

    def read_ahead(self) -> None:
        """Draws and encodes a round, unless one lies ready."""
        assert isinstance(self.order, TokenBudgetOrder)
        with self._reading:
            if not self._unagreed:
                self._read_round()

    def _read_round(self) -> None:
        """Draws a round, and encodes this process's share of it: every n-th draw."""
        try:
            self._unagreed.append(self._encoded_round())
        except ValueError as error:  # raised where the round is needed, and not where it is read
            self._unagreed.append(error)

    def _encoded_round(self) -> _EncodedRound:
        assert isinstance(self.order, TokenBudgetOrder)
        drawn = self.order.draw_round()
        process, num_processes = self._accelerator.process_index, self._accelerator.num_processes
        mine = range((process - drawn.first) % num_processes, len(drawn.places), num_processes)
        encoded = self._encoded([drawn.places[number] for number in mine])
        return _EncodedRound(drawn, dict(zip(mine, encoded, strict=True)))

    def agree(self, step: int) -> Agreement:
        """See `TrainingData.agree`; lists what was skipped in ``skipped_train.jsonl``.

        Raises:
            DataError: processes do not see the same files.
            RanOutError: there are no records left.
        """
        if isinstance(self.order, TokenBudgetOrder):
            return self._agree_on_records(step, self.order)
        left_out = self._left_out.pop(step)
        own = torch.tensor([[self._places.pop(step), len(left_out)]], device=self._accelerator.device)
        found = self._accelerator.gather(own)
        self._check_same(step, found[:, 0])
        return Agreement(self._told_left_out(step, left_out, int(found[:, 1].sum())))

    def _agree_on_records(self, step: int, order: TokenBudgetOrder) -> Agreement:
        """Exchanges lengths until all that the update has room for are known; each process keeps its own records."""
        while (numbers := order.batch(step)) is None:
            self._refuse_endless_search(step)
            self._agree_on_round(step, order)
        mine = []
        while self._untaken and self._untaken[0][0] in numbers:
            mine.append(self._untaken.popleft()[1])
        num_left_out = sum(self._is_left_out.popleft() for _ in numbers)
        left_out = [one for one in mine if isinstance(one, dict)]
        facts = self._told_left_out(step, left_out, num_left_out)
        return Agreement(facts, [one for one in mine if isinstance(one, EncodedRecord)])

    def _refuse_endless_search(self, step: int) -> None:
        """Stops where record after record is left out, so that no update comes of them."""
        if len(self._is_left_out) >= _MOST_LEFT_OUT and all(self._is_left_out):
            self._told_left_out(
                step, [one for _, one in self._untaken if isinstance(one, dict)], len(self._is_left_out)
            )
            raise DataError(
                f"update {step}: none of {len(self._is_left_out)} records in a row can be used; {SKIPPED_NAME} says why"
            )

    def _agree_on_round(self, step: int, order: TokenBudgetOrder) -> None:
        with self._reading:
            if not self._unagreed:
                self._read_round()
            found = self._unagreed.popleft()
        if isinstance(found, ValueError):
            raise found
        drawn = found.drawn
        checksum = torch.tensor([zlib.crc32(str(drawn.places).encode())], device=self._accelerator.device)
        self._check_same(step, self._accelerator.gather(checksum))
        own = torch.zeros(1, len(drawn.places), dtype=torch.long, device=self._accelerator.device)
        for number, one in found.own.items():
            own[0, number] = len(one) if isinstance(one, EncodedRecord) else LEFT_OUT
            self._untaken.append((drawn.first + number, one))
        lengths = self._accelerator.gather(own).sum(dim=0).tolist() if drawn.places else []
        self._is_left_out.extend(length == LEFT_OUT for length in lengths)
        order.add_lengths(lengths)

    def _check_same(self, step: int, checksums: torch.Tensor) -> None:
        """Refuses to go on where processes read different records, by checksums of their places ``[processes]``.

        Raises:
            DataError: they differ.
        """
        if len(set(checksums.tolist())) > 1:
            raise DataError(
                f"update {step}: processes read different records: the files of {self._config.train_data} must be the "
                "same for all of them; start again with --resume latest once they are"
            )

    def _told_left_out(self, step: int, left_out: Sequence[_LeftOut], number: int) -> dict[str, Any]:
        """Lists records that were left out, and what the metrics say of them; all processes call it.

        Args:
            step: the update.
            left_out: this process's.
            number: of all processes.
        """
        if not number:
            return {}
        lines = gather_object([{"step": step, **one} for one in left_out])
        if self._accelerator.is_main_process:
            self._write(lines, step)
        return {"skipped": number}

    def made(self, step: int) -> None:
        self.order.made(step)

    def _write(self, lines: Sequence[dict[str, Any]], step: int) -> None:
        if self._log is None:
            self._log = MetricsLog(Path(self._config.output_dir) / SKIPPED_NAME, last_step=step - 1)
        for line in lines:
            self._log.write(line)

    def _leave_out(self, place: Place, error: ValueError, told: str) -> _LeftOut:
        """What is said of a record that cannot be used.

        Raises:
            DataError: if such records are not to be skipped, or it is of another audio tokenizer.
        """
        title = self.sources[place.source].title
        if self.mixture.on_bad == "error" or isinstance(error, ForeignCodesError):
            raise DataError(f"{title}: {told}") from error
        return {"source": title, "reason": reason_of(error), "record": told}

    def _leave_out_long(self, place: Place, record: EncodedRecord) -> _LeftOut:
        told = f"{record.where}: {self._told_length(len(record))}"
        title = self.sources[place.source].title
        if self._config.on_too_long == "error":
            raise DataError(f"{title}: {told}")
        return {"source": title, "reason": longer_than(self._limit), "record": told}

    def _wrong(self, record: EncodedRecord) -> ValueError | None:
        """Why a record cannot be used that could be encoded and is not too long; None if it can."""
        if record.num_targets == 0:
            return ValueError(NO_TARGETS)
        reason = out_of_place(record.token_ids, record.labels, self._processor.vocabulary, self._vocabulary_size)
        return None if reason is None else ValueError(reason)

    def _told_length(self, length: int) -> str:
        return (
            f"{length} tokens are more than {self._limit}={self._max_length}: split the recording, raise "
            f"{self._limit} or set on_too_long: skip"
        )

    def _note_makers(self, conversation: Conversation) -> None:
        """Refuses codes of two audio tokenizers, where nothing says which one the LLM knows."""
        for part in conversation.audio_parts:
            if part.audio_tokenizer is not None and part.audio_tokenizer not in self._processor.accepted_codes:
                self._makers.add(part.audio_tokenizer)
        if len(self._makers) > 1:
            one, other = sorted(self._makers)[:2]
            raise DataError(
                f"{conversation.where}: the mixture holds codes of two audio tokenizers ({one[:12]}…, {other[:12]}…): "
                "tokenize all recordings with one"
            )

    # Before the first update

    def _warn(self, plan: MixturePlan, samples: Sequence[SourceSample], num_records: int) -> None:
        """Says what is likely not meant.

        Args:
            plan: what is drawn how often.
            samples: of the sources; empty if none was taken.
            num_records: about so many in the whole run.
        """
        if samples:
            warn_of_odd_loss(self._config.train_data, plan.targets(samples))
        for source, found in zip(self.sources, samples, strict=bool(samples)):
            warn_of_unsigned_codes(source.title, found.made_codes[""], found.looked_at)
            warn_of_another_form(source.title, found.forms, self._speaks_in_turns)
            warn_of_answers_unheard(source.title, found.forms, self._why_no_sound)
        for told in repeated_files(self.sources):
            logger.warning("%s", told)
        for number in plan.never_drawn(num_records):
            logger.warning(
                "%s: %d updates are likely to draw none of its records: raise its weight, or take it out",
                *(self.sources[number].title, self.total_steps),
            )

    def _check(self) -> list[SourceSample]:
        """Encodes a sample of every source, each process its share.

        Raises:
            DataError: listing records that cannot be used, unless they are to be skipped.
        """
        samples = [self._sample(source) for source in self.sources]
        problems = list(itertools.chain.from_iterable(map(self._problems, self.sources, samples)))
        if problems:
            lines = [f"  {problem}" for problem in problems[:_LISTED_PROBLEMS]]
            more = [f"  … and {len(problems) - _LISTED_PROBLEMS} more"] if len(problems) > _LISTED_PROBLEMS else []
            looked_at = sum(found.looked_at for found in samples)
            head = f"{len(problems)} of {looked_at} records looked at cannot be trained on:"
            raise DataError("\n".join([head, *lines, *more]))
        try:
            check_samples(self.sources, samples, self._processor)
        except ValueError as error:
            raise DataError(str(error)) from error
        return samples

    def _sample(self, source: MixtureSource) -> SourceSample:
        places = source.sample(self.mixture.check_records)
        process, num_processes = self._accelerator.process_index, self._accelerator.num_processes
        mine = [places[number] for number in share_of_process(list(range(len(places))), process, num_processes)]
        own = sample_source(source, mine, self._processor, max_length=self._max_length, limit=self._limit)
        found = SourceSample.merge(gather_object([own]))
        logger.info(
            "%s: %d of %s records looked at before the first update, %d of them usable, %.0f tokens each",
            *(source.title, found.looked_at, source.counted, found.usable, found.tokens_per_record),
        )
        for told in told_reasons(found.reasons, found.looked_at):
            logger.warning("%s: %s", source.title, told)
        warn_of_unread_keys(source.title, Counter(found.unread))
        return found

    def _problems(self, source: MixtureSource, found: SourceSample) -> list[str]:
        """What stops a run: all that is wrong, but for what is to be skipped."""
        problems = dict(found.bad) if self.mixture.on_bad == "error" else {}
        if self._config.on_too_long == "error":
            for place, length in found.too_long.items():
                problems[place] = f"{source.rows.where(place)}: {self._told_length(length)}"
        return [problem for _, problem in sorted(problems.items())]
