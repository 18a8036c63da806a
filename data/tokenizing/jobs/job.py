"""A corpus as a folder of shards of codes: the whole job, begun or gone on with."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audiollm.data.audio.reading import Mono
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import refuse_other_run, write_json_lines
from audiollm.data.files.lock import holds_nothing, locked_file
from audiollm.data.manifest import JOB_FILE, Manifest, RecordError
from audiollm.data.tokenizing.encoding import NUM_DECODERS
from audiollm.data.tokenizing.other_manifests import CLIPS_NAME
from audiollm.data.tokenizing.report import CorpusReport
from audiollm.data.tokenizing.settings import check_settings
from audiollm.data.tokenizing.source import open_corpus
from audiollm.data.tokenizing.tar_shards import TarShards
from audiollm.data.unread_keys import warn_of_unread_keys

from .cluster import RayCluster
from .here import ThisProcess
from .plan import Plan, Unit, make_plan
from .processes import LocalProcesses
from .progress import Progress
from .repeated_ids import make_ids_differ
from .shards import ShardFacts, read_shard_facts, shard_file
from .tries import MOST_DEATHS
from .work import Job, OpenAudioTokenizer, UnitResult, Utilization, WorkerError
from .worker import UnitWorker

SECONDS_BETWEEN_LOOKS = 1.0  # at shards that other processes are making
MOST_NAMED = 5
PLAN_NAME, JOB_FILE_NAME = "plan.json", Path(JOB_FILE).name
logger = logging.getLogger(__name__)


@dataclass
class JobReport(CorpusReport):
    """What a corpus became, as a folder of shards. Counts cover the part that is done here, in this run or before.

    Attributes:
        shards: files.
        renamed: clips of tar files whose id another file had too, and which got another one now.
    """

    shards: int = 0
    renamed: int = 0


class _Workers(Protocol):
    """Who does units: this process, several, or a cluster."""

    num_workers: int

    def run(self, units: Sequence[Unit]) -> Generator[UnitResult, None, None]: ...


def tokenize_into_folder(
    source: Any,
    open_audio_tokenizer: OpenAudioTokenizer,
    output_dir: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    mono: Mono = "first",
    batch_size: int = 16,
    num_decoders: int = NUM_DECODERS,
    shard_hours: float = 1.0,
    processes: int | None = None,
    ray: str | None = None,
    device: str | None = None,
    num_shards: int = 1,
    shard: int = 0,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    format: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> JobReport:
    """Turns the audio of a corpus into a folder of parquet shards of codes, by any number of processes.

    Records come out as those of `tokenize_corpus`. Each shard is made whole or not at all, so the same call goes on
    after anything; codes are stored in 16 bits where that is enough, and each shard names the audio tokenizer.

    Args:
        source: whatever `open_corpus` opens. With processes on other machines, its files lie on a disk that all share.
        open_audio_tokenizer: loads the audio tokenizer onto a device. Other processes get it pickled.
        output_dir: the folder; what is no shard lies in ``.job`` in it.
        skip_bad: leave out bad records, and list them in ``<output_dir>.rejected.jsonl``, instead of stopping at one.
        mono: which waveform of several channels: the first one or their mean.
        batch_size: segments (30 s for Whisper encoders) encoded at once.
        num_decoders: threads of a worker that decode recordings, for each of the two shards it is at.
        shard_hours: of audio in a shard, as far as that is known beforehand; see `make_plan`.
        processes: of this machine, or actors of the cluster; None: this process does it, or all of the cluster.
        ray: address of a cluster, ``auto`` for the one that this machine is part of, ``local`` to start one here.
        device: of the audio tokenizer; None: the GPUs in turn, or the CPU.
        num_shards: cut the job into this many parts, for as many calls on any machines that share the folder's disk.
        shard: which of them this call does, from 0: every ``num_shards``-th file.
        base_dir: folder that relative audio paths start from; by default that of the file they are written in.
        split: which split of a data set that has several.
        format: what another project's manifest is, if its content does not say it.
        overwrite: remove what is in the folder first, if it is of such a job.
        progress: show what is done.

    Raises:
        AudioError, RecordError: a bad record, named; shards that are done are kept.
        WorkerError: workers died again and again on a shard, which is named; or one could not go on.
        ValueError: a setting, or a folder of something else or of another job; another call is at the same part.
    """
    numbers = {"batch_size": batch_size, "num_decoders": num_decoders, "processes": processes}
    check_settings(numbers, num_shards=num_shards, shard=shard, mono=mono)
    if not shard_hours > 0:
        raise ValueError(f"shard_hours={shard_hours}: use a positive number of hours, such as 1")
    if ray is not None and device is not None:
        raise ValueError(f"device={device}: Ray gives each of its workers a GPU, or a core; leave it out")
    folder = Path(os.path.abspath(output_dir))
    state = (folder / JOB_FILE).parent
    _check_folder(folder)
    if overwrite:
        _clear(folder, state)
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        name = f"part-{shard:05d}-of-{num_shards:05d}"
        stack.enter_context(
            locked_file(state / name, otherwise="give each call its own part, or choose another output")
        )
        source, base_dir = _independent_of_working_folder(source, base_dir)
        corpus = open_corpus(source, base_dir=base_dir, split=split, format=format, lines=state / CLIPS_NAME)
        if not isinstance(corpus, TarShards) and len(corpus) == 0:  # how much is in tar files, only opening them tells
            raise ValueError(f"{corpus.name} holds no records")
        is_here = processes is None and ray is None
        audio_tokenizer = open_audio_tokenizer(device if is_here else "cpu")
        fingerprint, codebook_size = audio_tokenizer.fingerprint(), audio_tokenizer.codebook_size
        settings = {
            "corpus": corpus.fingerprint,
            "audio_tokenizer": fingerprint,
            "mono": mono,
            "shard_hours": shard_hours,
        }
        plan = _begun_plan(folder, settings, corpus, skip_bad)
        job = Job(
            folder, corpus, fingerprint, codebook_size, mono, batch_size, num_decoders, skip_bad, settings,
            len(plan.stops),
        )  # fmt: skip
        workers: _Workers
        if ray is not None:
            workers = RayCluster(job, open_audio_tokenizer, ray, processes)
            stack.callback(workers.close)
        elif processes is not None:
            workers = LocalProcesses(job, open_audio_tokenizer, processes, device)
        else:
            workers = ThisProcess(UnitWorker(job, lambda _: audio_tokenizer, device))
        if not is_here:
            del audio_tokenizer  # the workers load it, where it is to run
        units = [unit for unit in plan.units() if unit.number % num_shards == shard]
        return _run(job, units, workers, name if num_shards > 1 else "", progress)


def _independent_of_working_folder(source: Any, base_dir: Any) -> tuple[Any, Any]:
    """The source as workers find it whose working folder is another one."""
    if isinstance(source, (str, os.PathLike)):
        return os.path.abspath(source) if os.path.exists(source) else source, base_dir
    return source, os.getcwd() if base_dir is None else base_dir


def _check_folder(folder: Path) -> None:
    """Refuses a folder that is of something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the shards")
    is_job = (folder / JOB_FILE).is_file()
    if not is_job and not holds_nothing(folder) and any(entry.name != ".job" for entry in folder.iterdir()):
        raise ValueError(f"{folder} holds files, but no job of tokenizing: name a new folder")


def _clear(folder: Path, state: Path) -> None:
    """Removes a job and its shards, but for the locks: whoever waits for one must find it.

    Raises:
        FileInUseError: a call is at work in the folder.
    """
    with contextlib.ExitStack() as stack:
        for lock in state.glob(".part-*.lock"):
            stack.enter_context(locked_file(state / lock.name[1 : -len(".lock")]))
        for path in (state / JOB_FILE_NAME, state / PLAN_NAME, state / CLIPS_NAME, *state.glob("units/*.jsonl")):
            path.unlink(missing_ok=True)
        for path in folder.glob("codes-*-of-*.parquet"):
            path.unlink()


def _begun_plan(folder: Path, settings: Mapping[str, Any], corpus: Manifest, skip_bad: bool) -> Plan:
    """The plan of the job that the folder is of; made and written if there is none yet.

    Raises:
        ValueError: the job had another corpus, tokenizer or setting.
        RecordError: ids are not unique, and that is an error.
    """
    job_path = folder / JOB_FILE
    plan_path = job_path.with_name(PLAN_NAME)
    if job_path.is_file():
        found = _read_own(job_path, folder)
        refuse_other_run(
            folder, found["settings"], settings, otherwise="choose another output, or set --overwrite to start afresh"
        )
        plan = Plan.from_dict(_read_own(plan_path, folder))
    else:
        plan = make_plan(corpus, settings["shard_hours"])
        write_json(plan_path, plan.to_dict())
        write_json(job_path, {"settings": settings, "num_shards": len(plan.stops)})
    if plan.repeated and not skip_bad:
        later, first = min(plan.repeated.items())
        others = f" ({len(plan.repeated)} such records)" if len(plan.repeated) > 1 else ""
        raise RecordError(corpus.where(later), f"its id is taken by {corpus.where(first)}; ids must differ{others}")
    return plan


def _read_own(path: Path, folder: Path) -> dict[str, Any]:
    """What the job wrote down about itself.

    Raises:
        ValueError: it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): set --overwrite to start {folder} afresh, or choose another output"
        ) from error
    return found


def _run(job: Job, units: Sequence[Unit], workers: _Workers, part_name: str, shows_progress: bool) -> JobReport:
    """Does what is left to do of some units."""
    started = time.perf_counter()
    report, done = JobReport(str(job.folder)), dict[int, ShardFacts]()
    for unit in units:
        if job.shard_path(unit).exists():
            done[unit.number] = read_shard_facts(job.shard_path(unit), job.identity)
    report.resumed = sum(facts.records + len(facts.rejected) for facts in done.values())
    resumed_seconds = sum(facts.seconds for facts in done.values())
    utilization, unread = Utilization(), Counter[str]()
    try:
        with Progress(len(units), len(done), shows_progress) as progress:
            for result in _results(job, [unit for unit in units if unit.number not in done], workers):
                assert result.facts is not None  # it is done
                done[result.number] = result.facts
                progress.add(result.facts.seconds)
                utilization.add(result)
                unread.update(result.unread)
    finally:
        report.rejected = _write_rejected(job, done, part_name)
    warn_of_unread_keys(job.corpus.name, unread)
    _fill(report, done)
    report.wall_seconds = time.perf_counter() - started
    report.realtime_speed = (report.seconds - resumed_seconds) / report.wall_seconds
    report.encoder_idle_share = utilization.encoder_idle_share
    report.decoders_idle_share = utilization.decoders_idle_share
    if report.skipped and not report.records:
        raise ValueError(f"all {report.skipped} records are bad; {report.rejected} says why")
    if not report.records:
        if not part_name:
            raise ValueError(f"{job.corpus.name} holds no records")
        logger.warning("%s: there are fewer shards than parts, and none for this one", job.folder)
    if report.rejected is not None:
        logger.warning("%d records were left out; %s says why", report.skipped, report.rejected)
    report.renamed = make_ids_differ(job)
    return report


def _results(job: Job, units: Sequence[Unit], workers: _Workers) -> Iterator[UnitResult]:
    """Has units done, and waits for those that other processes are at; yields those that are done.

    Raises:
        AudioError, RecordError: a bad record that is not to be skipped.
        WorkerError: a unit failed, or its workers died too often; of those, the others are done first.
    """
    left = {unit.number: unit for unit in units}
    hopeless: list[UnitResult] = []
    while left:
        num_left = len(left)
        with contextlib.closing(workers.run(list(left.values()))) as results:
            for result in results:
                result.raise_error(job.shard_path(left[result.number]))
                if result.outcome == "hopeless":
                    hopeless.append(result)
                    del left[result.number]
                elif result.outcome == "done":
                    del left[result.number]
                    yield result
        if len(left) == num_left:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if hopeless:
        named = ", ".join(shard_file(job.folder, one.number, job.num_shards).name for one in hopeless[:MOST_NAMED])
        more = f" and {len(hopeless) - MOST_NAMED} more" if len(hopeless) > MOST_NAMED else ""
        raise WorkerError(
            f"{job.folder}: {named}{more} could not be made: {MOST_DEATHS} workers died on it, not at one record "
            "alone; all else is done. Look at memory and at the recordings, and run again to try once more"
        )


def _fill(report: JobReport, done: Mapping[int, ShardFacts]) -> None:
    """Adds up what shards hold."""
    report.shards = len(done)
    for facts in done.values():
        report.records += facts.records
        report.clips += facts.clips
        report.seconds += facts.seconds
        report.tokens += facts.tokens
        report.skipped += len(facts.rejected)
    report.tokens_per_second = report.tokens / report.seconds if report.seconds else 0.0


def _write_rejected(job: Job, done: Mapping[int, ShardFacts], part_name: str) -> str | None:
    """Writes the list of bad records beside the folder, in the order of the corpus; returns its path."""
    name = f"{job.folder.name}{'.' + part_name if part_name else ''}.rejected.jsonl"
    path = job.folder.with_name(name)
    rejected = [
        {"shard": shard_file(job.folder, number, job.num_shards).name, **entry}
        for number in sorted(done)
        for entry in done[number].rejected
    ]
    if not rejected:
        path.unlink(missing_ok=True)
        return None
    write_json_lines(path, rejected)
    return str(path)
