"""A mixture of sources as what updates are made of: sampled before the first update, read as the updates come."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.data.conversation.types import Conversation
from audiollm.data.streaming.shuffling import Place
from audiollm.data.unread_keys import warn_of_unread_keys
from audiollm.mixture.config import MixtureConfig, read_mixture
from audiollm.mixture.encoding import encode_each
from audiollm.mixture.planning import MixturePlan, check_samples, plan_mixture, repeated_files
from audiollm.mixture.sampling import NO_TARGETS, SourceSample, longer_than, named, reason_of, sample_source
from audiollm.mixture.sources import MixtureSource, open_sources
from audiollm.processing.attached import ForeignCodesError
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.record import MetricsLog

from .config import SFTConfig
from .guards import out_of_place
from .records import EncodedRecord
from .training_data import TrainingData

logger = get_logger(__name__)

SKIPPED_NAME = "skipped_train.jsonl"
_LISTED_PROBLEMS = 20


class MixtureData(TrainingData):
    """The records of a mixture.

    Args:
        accelerator: the run's accelerator.
        config: its settings; ``train_data`` is the mixture's file.
        processor: of the Audio-LLM.
        max_length: most tokens of a record.
        limit: the setting that says so.
        vocabulary_size: rows of the model's embedding.

    Raises:
        DataError: records of the sample cannot be trained on, or a source gives none.
        ValueError: for settings of the mixture that cannot work.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: SFTConfig,
        processor: AudioLLMProcessor,
        *,
        max_length: int,
        limit: str,
        vocabulary_size: int,
    ) -> None:
        if config.tokens_per_update is not None:
            raise ValueError(
                "tokens_per_update needs the lengths of all records before the first update, which a mixture does not "
                "tell: use global_batch_size, with tokens_per_pass and packing as you like"
            )
        self._accelerator, self._config, self._processor = accelerator, config, processor
        self._max_length, self._limit, self._vocabulary_size = max_length, limit, vocabulary_size
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
        self.total_steps = plan.num_updates(config.global_batch_size, config.num_epochs, config.max_steps)
        self._warn(plan)
        self.order = plan.order(self.sources, seed=config.seed, global_batch_size=config.global_batch_size)
        self.extras = {"data": self.order}
        self.metadata = {
            "num_records": plan.pass_size,
            "mixture": _settings(self.mixture),
            "sources": {source.title: _told(source, plan, samples) for source in self.sources},
        }
        self._skipped: dict[int, list[dict[str, Any]]] = {}
        self._places: dict[int, int] = {}  # update → checksum of its places
        self._log: MetricsLog | None = None

    def places(self, step: int) -> list[Place]:
        places = self.order.batch(step)
        self._places[step] = zlib.crc32(str(places).encode())
        return places

    def encode(self, step: int, places: Sequence[Place]) -> list[EncodedRecord]:
        skipped: list[dict[str, Any]] = []
        conversations: list[tuple[Place, Conversation]] = []
        for place in places:
            try:
                conversations.append((place, self.sources[place.source].conversation(place)))
            except ValueError as error:
                self._leave_out(skipped, step, place, error, str(error))
        records = []
        encoded = encode_each(self._processor, [conversation for _, conversation in conversations])
        for (place, conversation), one in zip(conversations, encoded, strict=True):
            if isinstance(one, ValueError):
                self._leave_out(skipped, step, place, one, named(conversation, one))
                continue
            self._note_makers(conversation)
            record = EncodedRecord.of(conversation, one)
            if len(record) > self._max_length:
                self._leave_out_long(skipped, step, place, record)
            elif (wrong := self._wrong(record)) is not None:
                self._leave_out(skipped, step, place, wrong, named(conversation, wrong))
            else:
                records.append(record)
        self._skipped[step] = skipped
        return records

    def filler(self, places: Sequence[Place]) -> EncodedRecord:
        return EncodedRecord.blank()

    def epoch(self, step: int) -> float:
        return self.order.epoch(step)

    def agree(self, step: int) -> dict[str, Any]:
        """See `TrainingData.agree`; lists what was skipped in ``skipped_train.jsonl``.

        Raises:
            DataError: processes do not see the same files.
        """
        skipped = self._skipped.pop(step)
        own = torch.tensor([[self._places.pop(step), len(skipped)]], device=self._accelerator.device)
        found = self._accelerator.gather(own)
        if len(set(found[:, 0].tolist())) > 1:
            raise DataError(
                f"update {step}: processes read different records: the files of {self._config.train_data} must be the "
                "same for all of them; start again with --resume latest once they are"
            )
        num_skipped = int(found[:, 1].sum())
        if not num_skipped:
            return {}
        lines = gather_object(skipped)
        if self._accelerator.is_main_process:
            self._write(lines, step)
        return {"skipped": num_skipped}

    def made(self, step: int) -> None:
        self.order.made(step)

    def _write(self, lines: Sequence[dict[str, Any]], step: int) -> None:
        if self._log is None:
            self._log = MetricsLog(Path(self._config.output_dir) / SKIPPED_NAME, last_step=step - 1)
        for line in lines:
            self._log.write(line)

    def _leave_out(self, skipped: list[dict[str, Any]], step: int, place: Place, error: ValueError, told: str) -> None:
        """Notes a record that cannot be used.

        Raises:
            DataError: if such records are not to be skipped, or it is of another audio tokenizer.
        """
        title = self.sources[place.source].title
        if self.mixture.on_bad == "error" or isinstance(error, ForeignCodesError):
            raise DataError(f"{title}: {told}") from error
        skipped.append({"step": step, "source": title, "reason": reason_of(error), "record": told})

    def _leave_out_long(self, skipped: list[dict[str, Any]], step: int, place: Place, record: EncodedRecord) -> None:
        told = f"{record.where}: {self._told_length(len(record))}"
        if self._config.on_too_long == "error":
            raise DataError(f"{self.sources[place.source].title}: {told}")
        title = self.sources[place.source].title
        skipped.append({"step": step, "source": title, "reason": longer_than(self._limit), "record": told})

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

    def _warn(self, plan: MixturePlan) -> None:
        """Says what is likely not meant."""
        for told in repeated_files(self.sources):
            logger.warning("%s", told)
        for number in plan.never_drawn(self.total_steps * self._config.global_batch_size):
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
        for reason, number in found.reasons.most_common():
            logger.warning("%s: %d of %d: %s", source.title, number, found.looked_at, reason)
        warn_of_unread_keys(source.title, Counter(found.unread))
        return found

    def _problems(self, source: MixtureSource, found: SourceSample) -> list[str]:
        """What stops a run: all that is wrong, but for what is to be skipped."""
        problems = dict(found.bad) if self.mixture.on_bad == "error" else {}
        if self._config.on_too_long == "error":
            for place, length in found.too_long.items():
                problems[place] = f"{source.rows.where(place)}: {self._told_length(length)}"
        return [problem for _, problem in sorted(problems.items())]


def _settings(mixture: MixtureConfig) -> dict[str, Any]:
    """What of the mixture decides updates; where its files lie does not."""
    return {"shuffle": mixture.shuffle, "on_bad": mixture.on_bad}


def _told(source: MixtureSource, plan: MixturePlan, samples: Sequence[SourceSample]) -> dict[str, Any]:
    """What a run records of a source, and what must not change."""
    config = dataclasses.asdict(source.config)
    kept = {key: config[key] for key in ("tasks", "epochs", "tokens", "text_key", "split")}
    sampled = {"encoded": samples[source.number].fingerprint} if samples else {}
    return {
        **kept,
        "tasks": list(source.config.tasks),
        "weight": plan.weights[source.number],
        "num_records": source.counted.count,
        "files": source.identity,
        **sampled,
    }
