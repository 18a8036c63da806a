"""Opens any audio file, whatever it is called: libsndfile where it can, ffmpeg where it must.

:mod:`.integrity` says what the bytes hold, in how many parts, and what is wrong with them; here the parts are opened
and read one behind the other, and what comes is compared with what was promised.
"""
# Shapes: n samples, C channels.

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from audiollm.tokenizer.signal.resampling import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

from .damage import TAKE_HINT, AudioDamage
from .decoders import Decoder, DecodingError, open_with_ffmpeg, open_with_libsndfile
from .integrity import Contents, Part, examine
from .sources import AudioError, AudioSource, FileView, open_binary

logger = logging.getLogger(__name__)

MAX_CHANNELS = 256  # libsndfile's own limit is 1024; no recorder has as many


class AudioStream:
    """An opened recording, whoever decodes it; made by :func:`open_stream`.

    Args:
        name: what an error calls it.
        decoders: one per part, opened one after the other.
        promised: samples that the file announces; ``None``: it does not say.
        problem: what is wrong with it as far as its bytes tell; "" if nothing.
        on_damage: hears of damage; ``None``: damage is an error.
    """

    def __init__(
        self,
        name: str,
        first: Decoder,
        others: Iterator[Decoder],
        promised: int | None,
        problem: str,
        on_damage: Callable[[AudioDamage], None] | None,
    ) -> None:
        self.sample_rate, self.num_channels = first.sample_rate, first.num_channels
        self.format, self.decoder = first.format, first.name
        self.promised = promised
        # Of a damaged file only decoding tells.
        self.num_samples = promised if on_damage is None else None
        self._name, self._current, self._others = name, first, others
        self._problem, self._on_damage = problem, on_damage
        self._position = 0

    def skip_to(self, sample: int) -> int:
        """Moves to a sample of a recording that has not been read yet, if the decoder can; returns where it is."""
        if self._current.seek is None or self.num_samples is None or self._current.num_samples != self.num_samples:
            return 0
        self._current.seek(sample)
        self._position = sample
        return sample

    def read(self, num_samples: int) -> np.ndarray:
        """Decodes float32 [n, C]: fewer samples than wanted at the end of a part, none at the end of all.

        Raises:
            AudioError: the decoder cannot go on, and damage is an error.
        """
        try:
            block = self._current.read(num_samples)
            while not len(block):
                following = next(self._others, None)
                if following is None:
                    break
                self._current = following
                block = self._current.read(num_samples)
        except DecodingError as error:
            seconds = self._position / self.sample_rate
            place = f"decoding fails after sample {self._position} ({seconds:.3f} s)"
            reason = f"is damaged or truncated; {self.decoder} says: {error}: {place}"
            if self._on_damage is None:
                raise AudioError(self._name, f"{reason}. {TAKE_HINT}") from error
            self._problem = self._problem or reason
            return np.zeros((0, self.num_channels), np.float32)
        self._position += len(block)
        return block

    def finish(self, is_end: bool) -> None:
        """Compares what was read with what was promised, and reports damage.

        Args:
            is_end: there was no more to read.

        Raises:
            AudioError: fewer samples came than the file promises, and damage is an error.
        """
        seconds = self._position / self.sample_rate
        if is_end and self.promised is not None and self._position < self.promised:
            reason = (
                f"is truncated: its header promises {self.promised} samples but they end after sample "
                f"{self._position} ({seconds:.3f} s)"
            )
            if self._on_damage is None:
                raise AudioError(self._name, f"{reason}. {TAKE_HINT}")
            self._problem = self._problem or reason
        if self._problem and self._on_damage is not None:
            promised = None if self.promised is None else self.promised / self.sample_rate
            self._on_damage(AudioDamage(self._name, self._problem, seconds, promised))
            self._problem = ""


@contextlib.contextmanager
def open_stream(
    source: AudioSource, name: str, on_damage: Callable[[AudioDamage], None] | None = None
) -> Iterator[AudioStream]:
    """Opens a recording for the block that follows.

    Args:
        source: path, the bytes of a file, or a binary file object.
        name: what an error calls it.
        on_damage: hears of damage; ``None``: damage is an error.

    Raises:
        AudioError: missing, a directory, empty, truncated (as far as its bytes tell), not audio, or of a rate that no
            recording has; ``read`` and ``finish`` of the stream raise it too.
    """
    with contextlib.ExitStack() as stack:
        file, num_bytes = open_binary(source, name, stack)
        contents = examine(file, num_bytes)
        if contents.refusal:
            raise AudioError(name, contents.refusal)
        if contents.problem and on_damage is None:
            raise AudioError(name, f"{contents.problem}. {TAKE_HINT}")
        stream = _open_parts(contents, source, file, num_bytes, name, on_damage, stack)
        if not MIN_SAMPLE_RATE <= stream.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(
                name,
                f"has a sample rate of {stream.sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz are taken",
            )
        if stream.num_channels > MAX_CHANNELS:
            raise AudioError(name, f"has {stream.num_channels} channels; at most {MAX_CHANNELS} are taken")
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
) -> AudioStream:
    unsupported = contents.unsupported
    if not unsupported:
        try:
            first = _open_part(contents.parts[0], file, num_bytes, stack)
        except DecodingError as error:
            unsupported = f"libsndfile cannot read it ({error})"
    if unsupported:
        file.seek(0)
        head = file.read(12)
        try:
            decoder = open_with_ffmpeg(source, file, stack)
        except DecodingError as error:
            raise AudioError(
                name,
                f"is not audio, damaged, or in no supported format: {unsupported}, it starts with {head!r}, {error}",
            ) from error
        return AudioStream(name, decoder, iter(()), None, contents.problem, on_damage)
    promised = first.num_samples
    others = [_open_part(part, file, num_bytes, stack) for part in contents.parts[1:]]
    for other in others:
        promised = None if promised is None or other.num_samples is None else promised + other.num_samples
    return AudioStream(name, first, iter(others), promised, contents.problem, on_damage)


def _open_part(part: Part, file: BinaryIO, num_bytes: int, stack: contextlib.ExitStack) -> Decoder:
    is_whole_file = part.start == 0 and part.end >= num_bytes and not part.prefix
    if is_whole_file and isinstance(file, io.FileIO):
        decoder = open_with_libsndfile(file, stack)
    else:
        decoder = open_with_libsndfile(FileView(file, part.start, part.end, part.prefix), stack)
    if not part.has_length:
        decoder.num_samples = None
    return decoder
