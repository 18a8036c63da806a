"""Opens any audio file, whatever it is called: libsndfile where it can, ffmpeg where it must.

`.integrity` says what the bytes hold, in how many parts, and what is wrong with them; here the parts are opened
and read one behind the other, and what comes is compared with what was promised.
"""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from audiollm.tokenizer.signal.resampling import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from .damage import AudioDamage
from .decoders import Decoder, DecodingError, open_with_ffmpeg, open_with_libsndfile
from .foreign import foreign_kind
from .integrity import Contents, Part, examine
from .limits import NO_LIMITS, AudioLimits, LimitCounter
from .sources import AudioError, AudioSource, FileView, open_binary

logger = logging.getLogger(__name__)

TAKE_BLOCK_SAMPLES = 1024  # of a damaged file: the block in which decoding fails is lost
MAX_CHANNELS = 256  # libsndfile's own limit is 1024; no recorder has as many


@dataclass
class _PartReader:
    """A part of a recording; its decoder is there only while the part is read, for there may be many."""

    open: Callable[[contextlib.ExitStack], Decoder]
    num_samples: int | None  # None: only decoding tells
    min_samples: int = 0  # fewer mean that the decoder has left some out


class AudioStream:
    """An opened recording, whoever decodes it; made by `open_stream`.

    Args:
        name: what an error calls it.
        description: the decoder of its first part.
        parts: what is read, one behind the other.
        problem: what is wrong with it as far as its bytes tell; "" if nothing.
        on_damage: hears of damage; ``None``: damage is an error.
        stack: closes the decoder that is in use.
        counter: counts what is decoded.
    """

    def __init__(
        self,
        name: str,
        description: Decoder,
        parts: list[_PartReader],
        problem: str,
        on_damage: Callable[[AudioDamage], None] | None,
        stack: contextlib.ExitStack,
        counter: LimitCounter,
    ) -> None:
        self.sample_rate, self.num_channels = description.sample_rate, description.num_channels
        self.format, self.decoder = description.format, description.name
        lengths = [part.num_samples for part in parts]
        self.promised = None if None in lengths else sum(length or 0 for length in lengths)
        # Of a damaged file only decoding tells.
        self.num_samples = self.promised if on_damage is None else None
        self._name, self._parts, self._problem, self._on_damage = name, parts, problem, on_damage
        self._counter = counter
        self._open_part = stack.enter_context(contextlib.ExitStack())
        self._current: Decoder | None = None
        self._position = self._part_start = 0

    def skip_to(self, sample: int) -> int:
        """Moves to a sample of a recording that has not been read yet, if the decoder can; returns where it is."""
        seek = self._decoder().seek
        if len(self._parts) > 1 or seek is None or self.num_samples is None:
            return 0
        try:
            seek(sample)
        except DecodingError as error:
            self._note(f"is damaged: {self.decoder} does not get to sample {sample}: {error}")
        self._position = sample
        return sample

    def read(self, num_samples: int) -> np.ndarray:
        """Decodes float32 [n, C]: fewer samples than wanted at the end of a part, none at the end of all.

        Raises:
            AudioError: the decoder cannot go on, or leaves something out, and damage is an error.
            AudioLimitError: more than the limits allow.
        """
        while self._parts:
            try:
                block = self._decoder().read(self._next_samples(num_samples))
            except DecodingError as error:
                self._counter.check_time()  # a decoder that was ended for it complains too
                place = f"decoding fails after sample {self._place()}"
                self._note(f"is damaged or truncated; {self.decoder} says: {error}: {place}")
                break
            self._counter.count(block.size)
            if len(block):
                self._position += len(block)
                return block
            min_samples = self._parts.pop(0).min_samples
            self._open_part.close()
            self._current = None
            if self._position - self._part_start < min_samples:
                self._note(
                    f"holds at least {min_samples} samples, of which {self.decoder} gives up to sample {self._place()}"
                )
                break
            self._part_start = self._position
        return np.zeros((0, self.num_channels), np.float32)

    def _decoder(self) -> Decoder:
        if self._current is None:
            self._current = self._parts[0].open(self._open_part)
        return self._current

    def _next_samples(self, num_samples: int) -> int:
        limits = [num_samples]
        part_samples = self._parts[0].num_samples
        if part_samples is not None:  # behind its end, a FLAC decoder stumbles over a tag
            limits.append(max(0, part_samples - (self._position - self._part_start)))
        if self._on_damage is not None:
            limits.append(TAKE_BLOCK_SAMPLES)
        return min(limits)

    def _place(self) -> str:
        return f"{self._position} ({self._position / self.sample_rate:.3f} s)"

    def _note(self, problem: str) -> None:
        if self._on_damage is None:
            raise AudioError(self._name, problem)
        self._problem = self._problem or problem

    def finish(self, is_end: bool) -> None:
        """Compares what was read with what was promised, and reports damage.

        Args:
            is_end: there was no more to read.

        Raises:
            AudioError: fewer samples came than the file promises, and damage is an error.
        """
        if is_end and self.promised is not None and self._position < self.promised:
            self._note(
                f"is truncated: its header promises {self.promised} samples but they end after sample {self._place()}"
            )
        if self._problem and self._on_damage is not None:
            promised = None if self.promised is None else self.promised / self.sample_rate
            self._on_damage(AudioDamage(self._name, self._problem, self._position / self.sample_rate, promised))
            self._problem = ""


@contextlib.contextmanager
def open_stream(
    source: AudioSource,
    name: str,
    on_damage: Callable[[AudioDamage], None] | None = None,
    limits: AudioLimits = NO_LIMITS,
) -> Iterator[AudioStream]:
    """Opens a recording for the block that follows.

    Args:
        source: path, the bytes of a file, or a binary file object.
        name: what an error calls it.
        on_damage: hears of damage; ``None``: damage is an error.
        limits: bounds on what is decoded.

    Raises:
        AudioError: missing, a directory, empty, truncated (as far as its bytes tell), not audio, or of a rate that no
            recording has; ``read`` and ``finish`` of the stream raise it too.
        AudioLimitError: larger than the limits allow, as far as its header tells; ``read`` raises it too.
    """
    counter = LimitCounter(limits, name)
    with contextlib.ExitStack() as stack:
        file, num_bytes = open_binary(source, name, stack)
        contents = examine(file, num_bytes)
        if contents.refusal:
            raise AudioError(name, contents.refusal)
        if contents.problem and on_damage is None:
            raise AudioError(name, contents.problem)
        stream = _open_parts(contents, source, file, num_bytes, name, on_damage, stack, counter)
        if not MIN_SAMPLE_RATE <= stream.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                name,
                f"has a sample rate of {stream.sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are taken",
            )
        if stream.num_channels > MAX_CHANNELS:
            raise AudioError(name, f"has {stream.num_channels} channels; at most {MAX_CHANNELS} are taken")
        counter.check_promise(stream.num_channels, stream.promised)
        logger.debug("%s: %s, read by %s", name, stream.format, stream.decoder)
        yield stream


def _open_parts(
    contents: Contents,
    source: AudioSource,
    file: BinaryIO,
    num_bytes: int,
    name: str,
    on_damage: Callable[[AudioDamage], None] | None,
    stack: contextlib.ExitStack,
    counter: LimitCounter,
) -> AudioStream:
    part, *others = contents.parts
    try:
        first = _open_part(part, file, num_bytes, stack)
    except DecodingError as error:
        file.seek(0)
        if foreign := foreign_kind(file.read(64)):
            raise AudioError(name, foreign) from error
        file.seek(0)
        unsupported = f"libsndfile cannot read it ({error}), it starts with {file.read(12)!r}"
        if others and not contents.ffmpeg_reads_all:
            raise AudioError(name, f"joins {len(contents.parts)} files, of which {unsupported}") from error
        first, others = _open_all_with_ffmpeg(source, file, name, unsupported, stack, counter), []
        part = Part(0, num_bytes)
        # ffmpeg looks for the first frames wherever they are, and says nothing of what stands in front of them.
        first.problem = first.problem or contents.unknown_beginning
    readers = [_PartReader(lambda _: first, first.num_samples, part.min_samples)]
    problem = contents.problem or first.problem
    for other in others:
        counter.check_time()
        reader, other_problem = _joined_part(other, first, file, num_bytes)
        problem = problem or other_problem
        if reader is None:
            break
        readers.append(reader)
    if problem and on_damage is None:
        raise AudioError(name, problem)
    return AudioStream(name, first, readers, problem, on_damage, stack, counter)


def _open_all_with_ffmpeg(
    source: AudioSource,
    file: BinaryIO,
    name: str,
    unsupported: str,
    stack: contextlib.ExitStack,
    counter: LimitCounter,
) -> Decoder:
    try:
        return open_with_ffmpeg(source, file, stack, counter.seconds_left())
    except DecodingError as error:
        counter.check_time()  # ffmpeg was ended for it
        raise AudioError(name, f"is not audio, damaged, or in no supported format: {unsupported}, {error}") from error


def _joined_part(part: Part, first: Decoder, file: BinaryIO, num_bytes: int) -> tuple[_PartReader | None, str]:
    """Looks at a part behind the first one: ``None`` where it cannot be read on; and what is wrong."""
    with contextlib.ExitStack() as stack:
        try:
            found = _open_part(part, file, num_bytes, stack)
        except DecodingError as error:
            return None, f"goes on at byte {part.start} with a part that libsndfile cannot read ({error})"
    if (found.sample_rate, found.num_channels) != (first.sample_rate, first.num_channels):
        return None, (
            f"goes on at byte {part.start} with {found.sample_rate} Hz and {found.num_channels} channel(s), after "
            f"{first.sample_rate} Hz and {first.num_channels}; take it apart, or convert it"
        )
    reopen = functools.partial(_open_part, part, file, num_bytes)
    return _PartReader(reopen, found.num_samples, part.min_samples), found.problem


def _open_part(part: Part, file: BinaryIO, num_bytes: int, stack: contextlib.ExitStack) -> Decoder:
    if part.misread:
        raise DecodingError(part.misread)
    is_whole_file = part.start == 0 and part.end >= num_bytes and not part.prefix
    if is_whole_file and isinstance(file, io.FileIO):
        decoder = open_with_libsndfile(file, stack)
    else:
        decoder = open_with_libsndfile(FileView(file, part.start, part.end, part.prefix), stack)
    if not part.has_length:
        decoder.num_samples = None
    elif decoder.num_samples is not None and decoder.num_samples < part.announced_samples:
        decoder.problem = (
            f"is damaged: its header announces {part.announced_samples} samples or more, of which {decoder.name} finds "
            f"{decoder.num_samples}"
        )
    return decoder
