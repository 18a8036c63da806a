"""Reading of audio files: decode any of them, probe them, stream them in flat memory.

The format is recognised by content, never by the name of the file; `.opening` says who decodes it. Everything
that is wrong with a file is an `AudioError` that names the file and the reason.
"""
# Shapes: N samples, C channels.

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .channels import Mono, checked_mono, mono_blocks
from .damage import AudioDamage, OnDamaged, checked_on_damaged
from .limits import NO_LIMITS, AudioLimitError, AudioLimits
from .opening import AudioStream, open_stream
from .segments import Segment
from .sources import AudioError, AudioSource, source_name
from .waveforms import checked_rate, resampled_blocks

# Samples times channels that are decoded at a time (4 MB): seconds would be no bound, with 8 channels of 655,350 Hz.
MAX_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is, without its samples."""

    sample_rate: int  # Hz
    num_channels: int
    num_samples: int  # per channel
    format: str  # container and encoding, such as "WAV PCM_16"
    decoder: str = ""  # what reads it: "libsndfile", "ffmpeg" or "PyAV"

    @property
    def duration_seconds(self) -> float:
        return self.num_samples / self.sample_rate


def load_audio(
    source: AudioSource,
    sample_rate: int | None = None,
    mono: Mono = "mean",
    *,
    offset: float = 0.0,
    duration: float | None = None,
    max_seconds: float | None = None,
    on_damaged: OnDamaged = "raise",
    limits: AudioLimits = NO_LIMITS,
) -> tuple[Tensor, int]:
    """Decodes a recording, or a segment of it.

    Args:
        source: path, the bytes of a file, or a binary file object (a seekable one is read from its beginning).
        sample_rate: Hz to resample to (soxr, high quality); ``None`` keeps the recording's own.
        mono: "mean" averages the channels, "first" takes the first one.
        offset: seconds of the recording in front of what is wanted.
        duration: seconds that are wanted; ``None``: all that follows.
        max_seconds: longest that what is wanted may last; a longer one is refused before it is decoded, or as soon as
            decoding shows it. ``None``: any length.
        on_damaged: "raise", or "take" what can be decoded of a damaged file: a warning is logged that says how much;
            a function is called with the `AudioDamage` in place of the warning.
        limits: further bounds, for recordings of strangers: channels, decoded bytes, time.

    Returns:
        ``(waveform, sample_rate)``: float32 ``[N]``, N >= 1. Integer encodings are scaled to [-1, 1); float ones are
        taken as they are.

    Raises:
        AudioError: missing, a directory, empty, truncated, not audio, without samples, NaN or infinite samples; the
            recording ends before the segment does.
        AudioLimitError: an `AudioError` too: it lasts longer than ``max_seconds``, or is more than ``limits`` allow.
        ValueError: a negative or undefined number of seconds.
    """
    rate_seen: list[int] = []
    reading = _Reading(
        source, sample_rate, mono, Segment(offset, duration), max_seconds, checked_on_damaged(on_damaged), limits
    )
    waveform = np.concatenate(list(reading.blocks(None, rate_seen)))
    return torch.from_numpy(waveform), rate_seen[0] if sample_rate is None else sample_rate


def stream_audio(
    source: AudioSource,
    sample_rate: int | None = None,
    mono: Mono = "mean",
    block_seconds: float = 30.0,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    max_seconds: float | None = None,
    on_damaged: OnDamaged = "raise",
) -> Iterator[Tensor]:
    """Decodes a recording block by block, in memory that does not grow with its length.

    The concatenation of the blocks equals `load_audio`, sample for sample, resampled or not.

    Args:
        source: as for `load_audio`.
        sample_rate: Hz to resample to; ``None`` keeps the recording's own (`probe_audio` tells it).
        mono: as for `load_audio`.
        block_seconds: seconds of the recording in a block.
        offset: as for `load_audio`, as are the arguments that follow.
        duration: seconds that are wanted.
        max_seconds: longest that they may last.
        on_damaged: what is done about a damaged file.

    Yields:
        float32 ``[n]``, n >= 1; blocks differ a little in size when resampling.

    Raises:
        AudioError: as for `load_audio`, when the iteration reaches the defect.
        ValueError: ``block_seconds`` is not positive, or as for `load_audio`.
    """
    if not block_seconds > 0:
        raise ValueError(f"block_seconds={block_seconds}: use a positive duration, such as 30")
    reading = _Reading(
        source, sample_rate, mono, Segment(offset, duration), max_seconds, checked_on_damaged(on_damaged)
    )
    return (torch.from_numpy(block) for block in reading.blocks(block_seconds, []))


def probe_audio(
    source: AudioSource, *, offset: float = 0.0, duration: float | None = None, on_damaged: OnDamaged = "raise"
) -> AudioInfo:
    """Reads what a recording is from its header; decodes it only where the header does not tell the length.

    Args:
        source: as for `load_audio`.
        offset: as for `load_audio`; ``num_samples`` is that of the segment.
        duration: seconds that are wanted.
        on_damaged: as for `load_audio`.

    Raises:
        AudioError: missing, a directory, empty, truncated (as far as the file tells without being decoded), not audio,
            without samples; the recording ends before the segment does.
        ValueError: as for `load_audio`.
    """
    segment = Segment(offset, duration)
    name = source_name(source)
    with open_stream(source, name, checked_on_damaged(on_damaged)) as stream:
        num_samples = stream.num_samples
        if num_samples is None:
            num_samples = sum(len(block) for block in decoded_blocks(stream, name))
        if num_samples == 0:
            raise AudioError(name, "holds no samples (0 s of audio)")
        num_samples = segment.num_samples(num_samples, stream.sample_rate, name)
        return AudioInfo(stream.sample_rate, stream.num_channels, num_samples, stream.format, stream.decoder)


# --- from a source to blocks of one channel ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """What is read, and how."""

    source: AudioSource
    sample_rate: int | None  # Hz to resample to
    mono: str
    segment: Segment
    max_seconds: float | None
    on_damage: Callable[[AudioDamage], None] | None  # None: damage is an error
    limits: AudioLimits = NO_LIMITS

    def __post_init__(self) -> None:
        checked_rate(self.sample_rate)
        checked_mono(self.mono)
        if self.max_seconds is not None and not (math.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise ValueError(
                f"max_seconds={self.max_seconds}: use a positive number of seconds, or None for any length"
            )

    def blocks(self, block_seconds: float | None, rate_seen: list[int]) -> Iterator[np.ndarray]:
        """Yields float32 [n], n >= 1, of the wanted rate; appends the recording's own rate to ``rate_seen``."""
        name = source_name(self.source)
        with open_stream(self.source, name, self.on_damage, self.limits) as stream:
            rate_seen.append(stream.sample_rate)
            block_samples = None if block_seconds is None else max(1, round(block_seconds * stream.sample_rate))
            channels = _segment_blocks(stream, name, self.segment, self.max_seconds, block_samples)
            blocks = mono_blocks(channels, self.mono, stream.sample_rate, name)
            if block_samples is not None:
                blocks = _gathered(blocks, block_samples)
            if self.sample_rate is not None and self.sample_rate != stream.sample_rate:
                blocks = resampled_blocks(blocks, stream.sample_rate, self.sample_rate)
            yield from blocks


def _segment_blocks(
    stream: AudioStream, name: str, segment: Segment, max_seconds: float | None, block_samples: int | None
) -> Iterator[np.ndarray]:
    """Yields float32 [n, C] of a segment, which is at least one sample long, or the whole recording."""
    rate = stream.sample_rate
    first, end = segment.first_sample(rate), segment.end_sample(rate)
    if stream.num_samples is not None:
        wanted = segment.num_samples(stream.num_samples, rate, name) if stream.num_samples else 0
        _check_limit(wanted, rate, max_seconds, name, is_all=True)
    elif end is not None:
        _check_limit(end - first, rate, max_seconds, name, is_all=True)
    start = stream.skip_to(first)
    for block in decoded_blocks(stream, name, start, end, block_samples):
        position, start = start, start + len(block)
        _check_limit(start - first, rate, max_seconds, name, is_all=False)
        kept = block[max(0, first - position) :]
        if len(kept):
            yield kept
    segment.num_samples(start, rate, name)


def decoded_blocks(
    stream: AudioStream, name: str, position: int = 0, end: int | None = None, block_samples: int | None = None
) -> Iterator[np.ndarray]:
    """Yields float32 [n, C]; raises at the end if fewer samples came than the file promises.

    Args:
        stream: what is read.
        name: what an error calls it.
        position: number of the sample that the stream gives next.
        end: number of the sample in front of which to stop; ``None``: the end of the recording.
        block_samples: most samples in a block; ``None``: as many as memory is good for.
    """
    largest = max(1, MAX_BLOCK_VALUES // stream.num_channels)
    block_samples = largest if block_samples is None else min(largest, block_samples)
    stops = [stop for stop in (end, stream.num_samples) if stop is not None]
    while not stops or position < min(stops):
        block = stream.read(min([block_samples, *(stop - position for stop in stops)]))
        if not len(block):
            break
        position += len(block)
        yield block
    stream.finish(is_end=not stops or position < min(stops))
    if position == 0:
        raise AudioError(name, "holds no samples (0 s of audio)")


def _check_limit(num_samples: int, sample_rate: int, max_seconds: float | None, name: str, is_all: bool) -> None:
    if max_seconds is not None and num_samples > max_seconds * sample_rate:
        length = f"is {num_samples / sample_rate:.6g} s" if is_all else "holds more"
        raise AudioLimitError(name, f"{length} of audio; at most {max_seconds:g} s are taken here")


def _gathered(blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
    """Yields blocks of ``num_samples`` samples; the last one may be shorter."""
    held: list[np.ndarray] = []
    num_held = 0
    for block in blocks:
        while num_held + len(block) >= num_samples:
            head, block = block[: num_samples - num_held], block[num_samples - num_held :]
            yield np.concatenate([*held, head])
            held, num_held = [], 0
        if len(block):
            held.append(block)
            num_held += len(block)
    if held:
        yield np.concatenate(held)
