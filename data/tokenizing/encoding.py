"""Records to records with codes: decoded ahead by a few threads, encoded in batches, given back in order."""

from __future__ import annotations

import dataclasses
import inspect
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.reading import Mono
from audiollm.data.conversation.audio_parts import clip_part
from audiollm.data.conversation.parsing import is_conversation, parse_conversation
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.manifest import Manifest, RecordError
from audiollm.tokenizer.base import AudioTokenizer

from .read_ahead import ReadAhead, Waits, made_ahead

DEFAULT_SEGMENT_SECONDS = 30.0  # for tokenizers that set no limit
BATCHES_AHEAD = 4  # audio gathered before encoding, in batches: the tokenizer sorts it by length and pads less
MAX_GATHERED_RECORDS = 1024
NUM_DECODERS = 4  # threads; libsndfile works without Python's lock
STREAM_BLOCKS_AHEAD = 2  # of a recording that is streamed, each of 30 s


@dataclass
class Clip:
    """One recording on its way."""

    part: AudioPart
    sample_rate: int
    num_samples: int
    waveform: Tensor | None  # None: too long to hold, to be streamed
    codes: Tensor | None = None  # [K, T]
    error: AudioError | None = None


@dataclass
class Item:
    """One record on its way."""

    index: int
    record: Any = None
    conversation: Conversation | None = None  # None: a clip record
    clips: list[Clip] = field(default_factory=list)
    error: AudioError | RecordError | None = None
    output: dict[str, Any] = field(default_factory=dict)

    @property
    def held_seconds(self) -> float:
        return sum(clip.num_samples / clip.sample_rate for clip in self.clips if clip.waveform is not None)


class CorpusEncoder:
    """Decodes, encodes and rewrites records, in order.

    Recordings are decoded by threads while others are encoded: as much audio as is encoded together may wait.

    Args:
        manifest: the records.
        audio_tokenizer: encodes them.
        fingerprint: its own.
        mono: which waveform of several channels.
        batch_size: segments encoded at once.
        output_dir: folder that paths of recordings are written relative to.
        num_decoders: threads that decode.
        turn: is entered for each call of the audio tokenizer, for encoders that share one.

    Attributes:
        waits: seconds that the encoder waited for audio, and that the decoding threads waited for the encoder.
        encoding_seconds: spent in the audio tokenizer.
    """

    def __init__(
        self,
        manifest: Manifest,
        audio_tokenizer: AudioTokenizer,
        fingerprint: str,
        mono: Mono,
        batch_size: int,
        output_dir: Path,
        num_decoders: int = NUM_DECODERS,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.waits = Waits()
        self.encoding_seconds = 0.0
        self._num_decoders = num_decoders
        self._turn = turn or nullcontext()
        self._manifest = manifest
        self._audio_tokenizer = audio_tokenizer
        self._fingerprint = fingerprint
        self._mono = mono
        self._output_dir = os.path.abspath(output_dir)
        segment_seconds = audio_tokenizer.max_segment_seconds or DEFAULT_SEGMENT_SECONDS
        self._batch_seconds = batch_size * segment_seconds
        takes_batch_size = "batch_size" in inspect.signature(audio_tokenizer.encode).parameters
        self._options = {"batch_size": batch_size} if takes_batch_size else {}

    def run(self, indices: Sequence[int]) -> Iterator[Item]:
        """Yields each record with its output or its error; nothing is lost before a record with an error."""
        gathered: list[Item] = []
        seconds = 0.0
        for item in self._decoded(indices):
            gathered.append(item)
            seconds += item.held_seconds
            full = seconds >= BATCHES_AHEAD * self._batch_seconds or len(gathered) >= MAX_GATHERED_RECORDS
            if full or item.error is not None:
                yield from self._encoded(gathered)
                gathered, seconds = [], 0.0
        yield from self._encoded(gathered)

    def _decoded(self, indices: Sequence[int]) -> Iterator[Item]:
        ahead = ReadAhead(
            self._decode,
            indices,
            size_of=lambda item: item.held_seconds,
            max_size=BATCHES_AHEAD * self._batch_seconds,
            max_results=MAX_GATHERED_RECORDS,
            num_threads=self._num_decoders,
            waits=self.waits,
        )
        with closing(iter(ahead)) as items:
            yield from items

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        with self._turn:
            started, waited = time.perf_counter(), self.waits.consumer
            try:
                yield
            finally:
                # What is streamed is waited for in between.
                self.encoding_seconds += time.perf_counter() - started - (self.waits.consumer - waited)

    def _decode(self, index: int) -> Item:
        item = Item(index)
        where, base_dir = self._manifest.where(index), self._manifest.base_dir(index)
        try:
            item.record = self._manifest[index]
            if isinstance(item.record, Conversation):
                item.record = item.record.to_dict()
            if is_conversation(item.record):
                size = self._audio_tokenizer.codebook_size
                item.conversation = parse_conversation(item.record, where=where, base_dir=base_dir, codebook_size=size)
                parts = [part for part in item.conversation.audio_parts if part.codes is None]
            else:
                parts = [clip_part(item.record, where, base_dir)]
            item.clips = [self._load(part) for part in parts]
        except (AudioError, RecordError) as error:
            item.error = error
        return item

    def _load(self, part: AudioPart) -> Clip:
        has_method = hasattr(self._audio_tokenizer, "encode_stream")
        can_stream = part.array is None and getattr(self._audio_tokenizer, "can_encode_stream", has_method)
        if can_stream:
            info = part.probe()
            if info.duration_seconds > self._batch_seconds:
                return Clip(part, info.sample_rate, 0, None)
        waveform, sample_rate = part.load(mono=self._mono)
        return Clip(part, sample_rate, len(waveform), waveform)

    def _encoded(self, items: Sequence[Item]) -> Iterator[Item]:
        self._encode_held([clip for item in items if item.error is None for clip in item.clips])
        for item in items:
            if item.error is None:
                try:
                    for clip in item.clips:
                        if clip.error is not None:
                            raise clip.error
                        if clip.codes is None:
                            self._encode_stream(clip)
                    item.output = self._output(item)
                except (AudioError, RecordError) as error:
                    item.error = error
            yield item
            item.clips, item.record = [], None

    def _encode_held(self, clips: Sequence[Clip]) -> None:
        """Encodes the clips that are in memory; one call of the audio tokenizer per sample rate."""
        by_rate: dict[int, list[Clip]] = {}
        for clip in clips:
            if clip.waveform is not None:
                by_rate.setdefault(clip.sample_rate, []).append(clip)
        for sample_rate, held in by_rate.items():
            self._encode_together(held, sample_rate)

    def _encode_together(self, clips: Sequence[Clip], sample_rate: int) -> None:
        """Encodes clips of one rate; if the audio tokenizer refuses them, each alone, to find whose fault it is.

        Only ValueError is its word for sound that it does not take; anything else is a fault of the program or machine,
        which must not pass for a bad record.
        """
        waveforms = [clip.waveform for clip in clips if clip.waveform is not None]
        try:
            with self._encoding():
                codes = self._audio_tokenizer.encode(waveforms, sample_rate, **self._options)
        except ValueError as error:
            if len(clips) > 1:
                for clip in clips:
                    self._encode_together([clip], sample_rate)
            else:
                clips[0].error = _refused(clips[0], error)
            return
        for index, clip in enumerate(clips):
            clip.codes, clip.waveform = codes[index], None

    def _encode_stream(self, clip: Clip) -> None:
        def blocks() -> Iterator[Tensor]:
            for block in clip.part.stream(self._mono):
                clip.num_samples += len(block)
                yield block

        encode_stream = self._audio_tokenizer.encode_stream
        # Codes go into one growing block each. Small tensors kept alive between large temporary ones would leave the
        # heap full of holes, and memory would grow by 100 MB per hour of audio.
        rows: list[array[int]] = []
        ahead = made_ahead(blocks(), max_results=STREAM_BLOCKS_AHEAD, waits=self.waits)
        try:
            with closing(ahead), self._encoding():
                for block in encode_stream(ahead, clip.sample_rate):
                    codes_KT = block if block.dim() == 2 else block[None]
                    rows = rows or [array("q") for _ in codes_KT]
                    for row, codes in zip(rows, codes_KT.tolist(), strict=True):
                        row.extend(codes)
        except AudioError:
            raise
        except ValueError as error:
            raise _refused(clip, error) from error
        clip.codes = torch.tensor([row.tolist() for row in rows], dtype=torch.int64)

    def _output(self, item: Item) -> dict[str, Any]:
        where = self._manifest.where(item.index)
        for clip in item.clips:
            if clip.codes is None or clip.codes.shape[1] == 0:
                raise AudioError(clip.part.where, "the audio tokenizer gives no codes for it")
        if item.conversation is None:
            return self._clip_output(item.record, item.clips[0], os.path.basename(where))
        if item.clips and item.clips[0].codes is not None and item.clips[0].codes.shape[0] != 1:
            raise RecordError(
                where,
                "conversation records hold one codebook's codes; this tokenizer has several: give a code_order "
                "(--code-order flat), which makes one row of them",
            )
        if not item.clips:
            return item.conversation.to_dict()
        codes = iter(item.clips)
        messages = [
            dataclasses.replace(message, content=[self._with_codes(part, codes) for part in message.content])
            for message in item.conversation.messages
        ]
        metadata = item.conversation.metadata | {
            "audio_seconds": sum(clip.num_samples / clip.sample_rate for clip in item.clips)
        }
        # Of codes that came without a word on what made them, the record must not claim that it was this tokenizer.
        if all(part.codes is None or part.audio_tokenizer for part in item.conversation.audio_parts):
            metadata["audio_tokenizer"] = self._fingerprint
        return dataclasses.replace(item.conversation, messages=messages, metadata=metadata).to_dict()

    def _with_codes(self, part: Any, clips: Iterator[Clip]) -> Any:
        if not isinstance(part, AudioPart):
            return part
        if part.codes is None:
            codes = next(clips).codes
            assert codes is not None  # _output checked
            return AudioPart(codes=codes[0].tolist(), audio_tokenizer=self._fingerprint)
        if part.audio_tokenizer not in (None, self._fingerprint):
            raise RecordError(
                part.where,
                f"holds codes of another audio tokenizer ({part.audio_tokenizer[:12]}…) than this one "
                f"({self._fingerprint[:12]}…), beside recordings: give its recording, or leave it out",
            )
        return part

    def _clip_output(self, record: Any, clip: Clip, where: str) -> dict[str, Any]:
        assert clip.codes is not None  # _output checked
        others = {"id": record} if isinstance(record, str) else {"id": where, **record}
        path = clip.part.path
        if path is not None:
            # Relative paths in a manifest start from its folder: keep them so where the file lies below it.
            below = os.path.relpath(os.path.abspath(path), self._output_dir)
            path = os.path.abspath(path) if below.startswith("..") else Path(below).as_posix()
        for key in ("path", "bytes", "array", "sampling_rate", "audio_filepath"):
            others.pop(key, None)
        return {
            **others,
            "audio": path,
            "codes": clip.codes[0].tolist() if len(clip.codes) == 1 else clip.codes.tolist(),
            "num_samples": clip.num_samples,
            "sample_rate": clip.sample_rate,
            "duration_seconds": clip.num_samples / clip.sample_rate,
            **clip.part.cut,
            "audio_tokenizer": self._fingerprint,
        }


def _refused(clip: Clip, error: ValueError) -> AudioError:
    refused = AudioError(clip.part.where, f"the audio tokenizer does not take it: {error}")
    refused.__cause__ = error
    return refused
