"""Corpus tokenization: recordings in, codes out, resumable after any interruption.

Records are read in order (``source.py``), decoded ahead by a few threads and encoded in batches (``encoding.py``), and
appended to ``<output>.partial`` (``data/resumable_output.py``), which becomes ``<output>`` in one rename when all is
done. A killed run goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from typing import Any

from tqdm import tqdm

from audiollm.data.audio.reading import Mono
from audiollm.data.files.replacing import refuse_existing
from audiollm.data.manifest import RecordError
from audiollm.data.resumable_output import PartialOutput, UnwritableRecordError, checked_ending, shard_path
from audiollm.data.unread_keys import unread_keys, warn_of_unread_keys
from audiollm.tokenizer.base import AudioTokenizer

from .encoding import NUM_DECODERS, CorpusEncoder
from .report import CorpusReport
from .settings import check_settings
from .source import open_corpus

logger = logging.getLogger(__name__)


def tokenize_corpus(
    source: Any,
    audio_tokenizer: AudioTokenizer,
    output: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    mono: Mono = "first",
    batch_size: int = 16,
    num_shards: int = 1,
    shard: int = 0,
    base_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    format: str | None = None,
    num_decoders: int = NUM_DECODERS,
    overwrite: bool = False,
    progress: bool = True,
) -> CorpusReport:
    """Turns the audio of a corpus into codes.

    Each recording goes to the tokenizer at its own rate; one longer than a whole batch is streamed from disk. A
    conversation record comes out with ``{"type": "audio", "codes": […]}`` in place of its audio and everything else as
    it was; a clip as ``{"id", "audio", "codes", "num_samples", "sample_rate", "duration_seconds", …}``.

    Args:
        source: conversation records or clip records (``{"audio": path, …}`` or a bare path per line), recordings, tar
            shards or another project's manifest: whatever `open_corpus` opens.
        audio_tokenizer: anything with ``encode`` and ``fingerprint``; ``encode_stream`` keeps memory flat for long
            recordings.
        output: ``.jsonl``, ``.ndjson`` (the same) or ``.parquet``. Of several shards, each writes
            `shard_path` of it.
        skip_bad: leave out records with bad audio or fields, and list them in ``<output>.rejected.jsonl``, instead of
            stopping at the first.
        mono: which waveform of several channels: the first one (as the reference tokenizer does) or their mean.
        batch_size: segments (30 s for Whisper encoders) encoded at once.
        num_shards: cut the corpus into this many parts, for as many processes or machines.
        shard: which part this is, from 0.
        base_dir: folder that relative audio paths start from; by default that of the file they are written in.
        split: which split of a data set that has several.
        format: what another project's manifest is, if its content does not say it.
        num_decoders: threads that decode recordings.
        overwrite: replace an output that exists.
        progress: show a progress bar.

    Returns:
        Counts and speed.

    Raises:
        AudioError: a bad recording, named with file, line and reason. What is done so far is kept: run again to go on.
        RecordError: a bad record, named with file, line and field.
        ValueError: nothing to do, the output exists or has another ending, or an interrupted run had another corpus,
            tokenizer or setting.
    """
    numbers = {"batch_size": batch_size, "num_decoders": num_decoders}
    check_settings(numbers, num_shards=num_shards, shard=shard, mono=mono)
    path = shard_path(checked_ending(output), shard, num_shards)
    manifest = open_corpus(source, base_dir=base_dir, split=split, format=format)
    if len(manifest) == 0:
        raise ValueError(f"{manifest.name} holds no records")
    start, stop = (len(manifest) * edge // num_shards for edge in (shard, shard + 1))
    refuse_existing(path, overwrite)
    settings = {
        "corpus": manifest.fingerprint,
        "audio_tokenizer": audio_tokenizer.fingerprint(),
        "mono": mono,
        "shard": f"{shard} of {num_shards}",
    }
    unread: Counter[str] = Counter()
    started = time.perf_counter()
    facts = {"audio_tokenizer": settings["audio_tokenizer"]}
    with PartialOutput(path, settings, facts) as partial:
        report = partial.resume(start, CorpusReport(str(path)))
        resumed_seconds = report.seconds
        encoder = CorpusEncoder(
            manifest, audio_tokenizer, settings["audio_tokenizer"], mono, batch_size, path.parent, num_decoders
        )
        items = encoder.run(range(start + report.resumed, stop))
        with tqdm(
            items, total=stop - start, initial=report.resumed, unit="record", disable=None if progress else True
        ) as bar:
            for item in bar:
                # A conversation is checked where it is trained on; what is rejected is told elsewhere.
                if item.conversation is None and item.error is None:
                    unread.update(unread_keys(item.record))
                if item.error is None:
                    try:
                        partial.append(item.output)
                    except UnwritableRecordError as error:
                        item.error = RecordError(manifest.where(item.index), str(error))
                        item.error.__cause__ = error
                if item.error is None:
                    report.add(item.output)
                elif skip_bad:
                    report.reject(partial.reject(item.index, item.error))
                else:
                    if not report.records and not report.skipped:
                        partial.discard()  # nothing that a later run could go on with
                    raise item.error
        warn_of_unread_keys(manifest.name, unread)
        if report.skipped:
            report.rejected = str(partial.rejected_path)
            logger.warning("%d records were left out; %s says why", report.skipped, partial.rejected_path)
        if not report.records and stop > start:
            partial.discard()
            raise ValueError(f"all {report.skipped} records are bad; {partial.rejected_path} says why")
        partial.finish()
    report.wall_seconds = time.perf_counter() - started
    report.realtime_speed = (report.seconds - resumed_seconds) / report.wall_seconds
    report.encoder_idle_share = max(0.0, 1 - encoder.encoding_seconds / report.wall_seconds)
    report.decoders_idle_share = min(1.0, encoder.waits.producers / report.wall_seconds)
    report.tokens_per_second = report.tokens / report.seconds if report.seconds else 0.0
    return report
