"""Labelling of a corpus by models: clips in, SAP records out, resumable after any interruption.

Clips are labelled by a few threads at a time (``models.py``), in order, and appended to ``<output>.partial``
(``data/resumable_output.py``), which becomes ``<output>`` in one rename when all is done. A killed run goes on where it
stopped, and so does one that stopped because a model no longer answered. Clips without labels that hold are kept apart,
with the reason and the reply. For corpora whose labels are known, ``by_rules.py`` needs no model.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from audiollm.data.audio.opening import AudioError
from audiollm.data.chat.asking import Outcome, ask_all
from audiollm.data.chat.base import ChatError
from audiollm.data.files.json_document import write_json
from audiollm.data.files.replacing import refuse_existing
from audiollm.data.manifest import Manifest, NoSplitsError, RecordError
from audiollm.data.resumable_output import PartialOutput, UnwritableRecordError, checked_ending, shard_path
from audiollm.data.tokenizing.source import open_corpus

from .clips import ClipsOfSplit, labelled_record, read_label_clip
from .models import ModelLabeller, RejectedClipError
from .report import LabellingReport, Prices

logger = logging.getLogger(__name__)


@dataclass
class LabelledClip:
    """What became of a clip that was asked about: a record, or what is wrong with it."""

    record: dict[str, Any] | None = None
    error: AudioError | RecordError | None = None


def label_corpus(
    source: Any,
    output: str | os.PathLike[str],
    labeller: ModelLabeller,
    *,
    concurrency: int = 8,
    max_failures: int = 10,
    num_shards: int = 1,
    shard: int = 0,
    split: str | None = None,
    base_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    prices: Mapping[str, Prices] | None = None,
    progress: bool = True,
) -> LabellingReport:
    """Labels the clips of a corpus.

    A clip ``{"audio", "text"?, …}`` becomes a record for training a tokenizer, ``{"id", "audio", "text", "sap",
    "caption", "sound_type", "duration_seconds", …, "labelling"}``; the last says what models took and what was
    repaired. Without a text, nobody is taken to speak.

    Args:
        source: clips in any form that `open_corpus` opens.
        output: ``.jsonl``, ``.ndjson`` (the same) or ``.parquet``. Of several shards, each writes
            `shard_path` of it. ``<output>.rejected.jsonl`` lists what was
            refused, ``<output>.report.json`` holds the report.
        labeller: the models.
        concurrency: clips labelled at a time.
        max_failures: stop when so many clips in a row get no answer; they are not counted as refused then, and the next
            run asks for them again.
        num_shards: cut the corpus into this many parts, for as many processes or machines.
        shard: which part this is, from 0.
        split: label only this split: of a data set that has several, or of records that name theirs.
        base_dir: folder that relative audio paths start from; by default that of the file they are written in.
        overwrite: replace an output that exists.
        prices: what tokens cost, by role.
        progress: show a progress bar.

    Returns:
        Counts, tokens and cost.

    Raises:
        ChatError: a model does not answer. What is done so far is kept: run again to go on.
        ValueError: nothing to do, the output exists or has another ending, no clip could be labelled, or an interrupted
            run had another corpus, model, prompt or setting.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard={shard} of num_shards={num_shards}: shards count from 0 to num_shards - 1")
    for name, value in (("concurrency", concurrency), ("max_failures", max_failures)):
        if value < 1:
            raise ValueError(f"{name}={value}: use 1 or more")
    path = shard_path(checked_ending(output), shard, num_shards)
    try:
        manifest = open_corpus(source, base_dir=base_dir, split=split)
    except NoSplitsError:  # then its records may name theirs
        manifest = open_corpus(source, base_dir=base_dir)
    if split is not None:
        manifest = ClipsOfSplit(manifest, split)
    start, stop = (len(manifest) * edge // num_shards for edge in (shard, shard + 1))
    if start == stop:
        raise ValueError(f"{manifest.name} holds no records" + (f" for shard {shard}" if len(manifest) else ""))
    refuse_existing(path, overwrite)
    settings = {"corpus": manifest.fingerprint, "shard": f"{shard} of {num_shards}", **labeller.facts}
    started = time.perf_counter()
    with PartialOutput(path, settings) as partial:
        report = partial.resume(start, LabellingReport(str(path), labeller.facts, dict(prices or {})))
        indices = range(start + report.resumed, stop)
        label = _labelling(manifest, labeller, path)
        outcomes = ask_all(
            indices, label, concurrency=concurrency, max_failures=max_failures, in_order=True, name="label"
        )
        writer = _Writer(partial, report, manifest)
        with (
            closing(outcomes),
            tqdm(total=stop - start, initial=report.resumed, unit="clip", disable=None if progress else True) as bar,
        ):
            try:
                for outcome in outcomes:
                    writer.take(outcome)
                    bar.update()
                    bar.set_postfix(report.progress, refresh=False)
            except ChatError as error:
                writer.stop(error)
            writer.settle()
        if report.rejected:
            logger.warning("%d clips were refused; %s says why", report.rejected, partial.rejected_path)
        if not report.records:
            partial.discard()
            raise ValueError(f"all {report.rejected} clips were refused; {partial.rejected_path} says why")
        partial.finish()
    report.wall_seconds = time.perf_counter() - started
    write_json(report_path(path), report.to_dict())
    return report


def report_path(output: str | os.PathLike[str]) -> Path:
    """Where the report of an output lies."""
    return Path(f"{os.fspath(output)}.report.json")


class _Writer:
    """Writes outcomes, in order. Clips that got no answer wait until it is clear whose fault that is."""

    def __init__(self, partial: PartialOutput, report: LabellingReport, manifest: Manifest) -> None:
        self._partial, self._report, self._manifest = partial, report, manifest
        self._unanswered: list[tuple[int, ChatError]] = []

    def take(self, outcome: Outcome[int, LabelledClip]) -> None:
        """Writes an outcome, or keeps it for later if there was no answer."""
        if outcome.answer is None:
            assert outcome.error is not None  # no answer, hence an error
            self._unanswered.append((outcome.item, outcome.error))
            return
        self.settle()
        if outcome.answer.record is None:
            assert outcome.answer.error is not None  # no record, hence an error
            self._reject(outcome.item, outcome.answer.error)
        else:
            try:
                self._partial.append(outcome.answer.record)
            except UnwritableRecordError as error:
                self._reject(outcome.item, RecordError(self._manifest.where(outcome.item), str(error)))
            else:
                self._report.add(outcome.answer.record)

    def settle(self) -> None:
        """Counts the clips that wait as refused: others were answered after them, or there are no others."""
        for index, error in self._unanswered:
            self._reject(index, RecordError(self._manifest.where(index), str(error)))
        self._unanswered.clear()

    def stop(self, error: ChatError) -> NoReturn:
        """Gives up, as the model is to blame; the clips that wait are asked about again by the next run.

        Raises:
            ChatError: always; it says what is kept.
        """
        done = self._report.records + self._report.rejected
        if done:
            kept = f"{done} clips are done and kept: run the same command again to go on"
            raise ChatError(f"{error}; {kept}", fatal=True) from error
        self._partial.discard()
        raise error

    def _reject(self, index: int, error: AudioError | RecordError) -> None:
        details = error.details if isinstance(error, RejectedClipError) else None
        self._report.reject(self._partial.reject(index, error, details))


def _labelling(manifest: Manifest, labeller: ModelLabeller, path: Path) -> Callable[[int], LabelledClip]:
    """Returns what labels the clip of an index."""
    audio_folder = path.with_name(f"{path.stem}_audio")

    def label(index: int) -> LabelledClip:
        try:
            clip = read_label_clip(index, manifest[index], manifest.where(index), manifest.base_dir(index))
            labels = labeller.label(clip)
            record = labelled_record(
                clip,
                labels.sap,
                labels.caption,
                labels.duration_seconds,
                path.parent,
                audio_folder,
                labeller.mono,
            )
        except (AudioError, RecordError) as error:
            return LabelledClip(error=error)
        return LabelledClip(record | labels.provenance)

    return label
