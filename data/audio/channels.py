"""From several channels to one, and a word where the sound is in those that are not heard."""
# Shapes: n samples, C channels.

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from .sources import AudioError

logger = logging.getLogger(__name__)

Mono = Literal["mean", "first"]

# Samples are squared and summed over windows and bands; from here up the sums leave the range of float32, whose
# largest number is 3.4e38. Integers that were stored as floats reach 2e9.
MAX_AMPLITUDE = 1e15
# The result of the choice is called silent below this share of the loudest channel, 26 dB: a line without a speaker
# has its noise, and the other speaker is heard through it.
SILENT_SHARE = 0.05
MIN_HEARD_RMS = 1e-3  # of the loudest channel, or it holds no sound that one could miss: -60 dB of full scale


def checked_mono(mono: str) -> str:
    """Returns "mean" or "first".

    Raises:
        ValueError: anything else.
    """
    if mono not in ("mean", "first"):
        raise ValueError(f'mono={mono!r}: use "mean" (average of the channels) or "first" (the first channel)')
    return mono


def one_channel(channels_NC: np.ndarray, mono: str) -> np.ndarray:
    """Mixes float32 [n, C] to [n]."""
    if channels_NC.shape[1] == 1 or mono == "first":
        return np.ascontiguousarray(channels_NC[:, 0])
    # The mean and not the sum: two equal channels stay at their level, and full scale is not exceeded.
    with np.errstate(all="ignore"):  # what cannot be averaged is refused by `checked_samples`
        return channels_NC.mean(axis=1, dtype=np.float32)


def checked_samples(samples: np.ndarray, position: int, sample_rate: int | None, name: str) -> np.ndarray:
    """Returns the samples, float [n], if all of them can be worked with.

    Args:
        samples: those to look at.
        position: number of the first one in the recording.
        sample_rate: Hz, for the place in an error; ``None`` where there is none.
        name: what an error calls the recording.

    Raises:
        AudioError: NaN, infinite, or of an amplitude beyond ``MAX_AMPLITUDE``.
    """
    is_usable = np.abs(samples) <= MAX_AMPLITUDE
    if not is_usable.all():
        first = int(np.argmin(is_usable))
        where = f"sample {position + first}" + (f" ({(position + first) / sample_rate:.3f} s)" if sample_rate else "")
        is_finite = np.isfinite(samples[first])
        wanted = f"no louder than {MAX_AMPLITUDE:g} (full scale is 1)" if is_finite else "finite numbers"
        raise AudioError(name, f"holds {samples[first]} at {where}; samples must be {wanted}")
    return samples


def mono_blocks(blocks: Iterable[np.ndarray], mono: str, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Mixes and checks a recording, float32 [n, C] → [n]; warns at its end if only what is not heard holds sound.

    Raises:
        AudioError: as `checked_samples`.
    """
    position, energies = 0, _Energies()
    for block in blocks:
        samples = checked_samples(one_channel(block, mono), position, sample_rate, name)
        if block.shape[1] > 1:
            energies.add(block, samples)
        position += len(block)
        yield samples
    energies.warn_of_unheard_sound(position, mono, name)


class _Energies:
    """Sums of squares of every channel and of what they are mixed to."""

    def __init__(self) -> None:
        self.channels_C: np.ndarray | float = 0.0
        self.mixed = 0.0

    def add(self, channels_NC: np.ndarray, mixed_N: np.ndarray) -> None:
        with np.errstate(all="ignore"):  # a channel that is not heard may hold anything
            self.channels_C = self.channels_C + np.einsum("nc,nc->c", channels_NC, channels_NC)
            self.mixed += float(np.dot(mixed_N, mixed_N))

    def warn_of_unheard_sound(self, num_samples: int, mono: str, name: str) -> None:
        energies_C = np.atleast_1d(np.asarray(self.channels_C, dtype=np.float64))
        loudest = int(np.argmax(energies_C))
        loudest_rms = float(np.sqrt(energies_C[loudest] / max(1, num_samples)))
        mixed_rms = float(np.sqrt(self.mixed / max(1, num_samples)))
        if not (loudest_rms > MIN_HEARD_RMS and np.isfinite(loudest_rms) and mixed_rms < SILENT_SHARE * loudest_rms):
            return
        if mono == "first":
            logger.warning(
                '%s: the first channel is silent, but channel %d holds sound; mono="mean" (--mono mean) hears it',
                name, loudest + 1,
            )  # fmt: skip
        else:
            logger.warning(
                '%s: the channels cancel each other in their mean; mono="first" (--mono first) hears the first one',
                name,
            )
