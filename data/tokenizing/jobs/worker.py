"""Makes shards of units: two at a time, so that one is decoded while the other is encoded."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from audiollm.data.audio.opening import AudioError
from audiollm.data.files.lock import FileInUseError, locked_file
from audiollm.data.manifest import Manifest, RecordError
from audiollm.data.resumable_output import UnwritableRecordError, output_line
from audiollm.data.tokenizing.encoding import CorpusEncoder, Item
from audiollm.data.tokenizing.report import CorpusReport
from audiollm.data.tokenizing.tar_shards import TarShards
from audiollm.data.unread_keys import unread_keys
from audiollm.tokenizer.base import AudioTokenizer

from .plan import Unit
from .shards import ShardFacts, read_shard_facts, write_shard
from .tries import Tries
from .work import Job, OpenAudioTokenizer, UnitResult

UNITS_AT_ONCE = 2
LINES_IN_MEMORY = 1 << 26  # bytes of a shard's records; more of them go through a temporary file
logger = logging.getLogger(__name__)


class UnitWorker:
    """Encodes units; safe to call from `UNITS_AT_ONCE` threads.

    Args:
        job: what is to be done.
        open_audio_tokenizer: loads the encoder, with the first unit.
        device: of the encoder.
    """

    def __init__(self, job: Job, open_audio_tokenizer: OpenAudioTokenizer, device: str | None = None) -> None:
        self._job = job
        self._open, self._device = open_audio_tokenizer, device
        self._audio_tokenizer: AudioTokenizer | None = None
        # Two locks: a unit's recordings are decoded while another one is encoded, and so while it has its turn.
        self._loading, self._encoder_turn = threading.Lock(), threading.Lock()
        self._slots, self._gate = threading.Semaphore(UNITS_AT_ONCE), threading.Lock()
        self._is_stopped = threading.Event()
        self._name = f"{platform.node()}:{os.getpid()}"

    def stop(self) -> None:
        """Lets the units at hand end before their next record, without a shard."""
        self._is_stopped.set()

    def go_on(self) -> None:
        """Takes units again after `stop`."""
        self._is_stopped.clear()

    def load(self) -> AudioTokenizer:
        """The audio tokenizer.

        Raises:
            ValueError: it is not the one that the job was begun with.
        """
        with self._loading:
            if self._audio_tokenizer is None:
                audio_tokenizer = self._open(self._device)
                found = audio_tokenizer.fingerprint()
                if found != self._job.fingerprint:
                    raise ValueError(
                        f"the audio tokenizer on {platform.node()} is another one ({found}) than the job's "
                        f"({self._job.fingerprint}): put the same checkpoint on all machines"
                    )
                self._audio_tokenizer = audio_tokenizer
            return self._audio_tokenizer

    def __call__(self, unit: Unit) -> UnitResult:
        """Makes a unit's shard, unless it is there or another process is at it. Errors come as results."""
        notes = self._job.state_folder / "units" / f"{unit.number:05d}.jsonl"
        notes.parent.mkdir(parents=True, exist_ok=True)
        try:
            with locked_file(notes):
                path = self._job.shard_path(unit)
                if path.exists():
                    return UnitResult(unit.number, "done", read_shard_facts(path, self._job.identity))
                return self._tried(unit, path, Tries(notes))
        except FileInUseError:
            return UnitResult(unit.number, "busy")

    def _tried(self, unit: Unit, path: Path, tries: Tries) -> UnitResult:
        if tries.is_hopeless:
            tries.forget()
            reason = f"{tries.deaths} workers died on it"
            return UnitResult(unit.number, "hopeless", reason=reason)
        with self._slot(alone=tries.needs_care):
            try:
                tries.begin()
                result = self._made(unit, path, tries)
            except (AudioError, RecordError) as error:
                tries.end(error.args[1])
                is_audio = isinstance(error, AudioError)
                return UnitResult(unit.number, "bad record", None, error.args[1], error.args[0], is_audio)
            except BaseException as error:
                with suppress(OSError):  # of a full disk; then the try counts as one that died
                    tries.end(repr(error))
                if not isinstance(error, Exception):
                    raise
                logger.info("%s: a worker failed", path, exc_info=True)
                kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
                return UnitResult(unit.number, "failed", reason=f"{kind}{error}")
            tries.forget()
            return result

    @contextmanager
    def _slot(self, alone: bool) -> Iterator[None]:
        """Holds one of the places in this process, or all of them: what may kill it must not take others along."""
        num_slots = UNITS_AT_ONCE if alone else 1
        with self._gate:  # or two that need all places would each wait for the other's
            for _ in range(num_slots):
                self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release(num_slots)

    def _made(self, unit: Unit, path: Path, tries: Tries) -> UnitResult:
        """Makes the shard, whatever was tried before."""
        started, clock = time.time(), time.perf_counter()
        job, corpus = self._job, unit_corpus(self._job.corpus, unit)
        encoder = CorpusEncoder(
            corpus, self.load(), job.fingerprint, job.mono, job.batch_size, job.folder,
            num_decoders=job.num_decoders, turn=self._encoder_turn,
        )  # fmt: skip
        report, rejected = CorpusReport(str(path)), list[dict[str, Any]]()
        unread, ids = Counter[str](), dict[Any, int]()
        with tempfile.SpooledTemporaryFile(LINES_IN_MEMORY) as lines:
            for item in self._items(unit, corpus, encoder, tries):
                if self._is_stopped.is_set():
                    raise InterruptedError("stopped")
                # Ids of tar files are known only now; the plan knows all others.
                if item.error is None and unit.tar is not None:
                    earlier = ids.setdefault(item.output["id"], item.index)
                    if earlier != item.index:
                        item.error = _taken(corpus, item.index, earlier)
                if item.error is None:
                    self._write(item, lines, report, corpus)
                if item.error is None and item.conversation is None:
                    unread.update(unread_keys(item.record))
                if item.error is not None:
                    if not job.skip_bad:
                        raise item.error
                    source, reason = item.error.args
                    rejected.append({"index": item.index, "source": source, "reason": reason})
            facts = ShardFacts(
                job.fingerprint, job.identity, unit.number, job.num_shards,
                report.records, report.clips, report.seconds, report.tokens, rejected,
            )  # fmt: skip
            write_shard(lines, path, facts, job.codebook_size)
        return UnitResult(
            unit.number, "done", facts, unread=dict(unread), worker=self._name, started=started,
            wall_seconds=time.perf_counter() - clock, encoding_seconds=encoder.encoding_seconds,
            decoders_idle_seconds=encoder.waits.producers,
        )  # fmt: skip

    def _items(self, unit: Unit, corpus: Manifest, encoder: CorpusEncoder, tries: Tries) -> Iterator[Item]:
        """The unit's records with their codes; those that must not be touched with the reason."""
        stop = len(corpus) if unit.stop is None else unit.stop
        left_out = {index: _killer(corpus, index) for index in tries.killers}
        for index, earlier in unit.repeated.items():
            left_out.setdefault(index, _taken(corpus, index, earlier))
        run: list[int] = []
        for index in range(unit.start, stop):
            if index in left_out or tries.needs_care:
                yield from encoder.run(run)
                run = []
            if index in left_out:
                yield Item(index, error=left_out[index])
            elif tries.needs_care:
                tries.at(index)
                yield from encoder.run([index])
            else:
                run.append(index)
        yield from encoder.run(run)

    def _write(self, item: Item, lines: IO[bytes], report: CorpusReport, corpus: Manifest) -> None:
        try:
            lines.write(output_line(item.output, is_parquet=True))
        except UnwritableRecordError as error:
            item.error = RecordError(corpus.where(item.index), str(error))
            return
        report.add(item.output)


def unit_corpus(corpus: Manifest, unit: Unit) -> Manifest:
    """The records that a unit's numbers count in."""
    if unit.tar is None:
        return corpus
    assert isinstance(corpus, TarShards)  # whose units they are
    return corpus.parts[unit.tar]


def _killer(corpus: Manifest, index: int) -> RecordError:
    return RecordError(
        corpus.where(index), "kills the process that reads or encodes it, again and again: look at its recording"
    )


def _taken(corpus: Manifest, index: int, earlier: int) -> RecordError:
    return RecordError(corpus.where(index), f"its id is taken by {corpus.where(earlier)}; ids must differ")
