"""A recording through its codes and back: the sound, and how far it is from the original."""
# Shapes: N samples, M mel bins, T frames or codes.

from __future__ import annotations

from dataclasses import dataclass

import torch

from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.serving.sound.uploads import Recording
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram
from audiollm.tokenizer.signal.resampling import resample

from .hearing import beginning


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What the codes keep."""

    original: Recording
    """The part that was encoded."""
    rebuilt: Recording
    """The sound of its codes, no longer than that."""
    num_codes: int
    bits_per_second: float
    """Of the codes."""
    mel_distance: float | None
    """As `mel_distance` says; None for a recording shorter than a window."""


def rebuild(tokenizer: AudioTokenizer, recording: Recording, seed: int = 0) -> Rebuilt:
    """Encodes the first 30 seconds of a recording, and decodes the codes.

    Args:
        tokenizer: does both.
        recording: samples and their rate.
        seed: of the decoder's noise.

    Raises:
        ValueError: if the tokenizer has no decoder, or the recording gives no code.
    """
    decoder = SpeechDecoder(tokenizer, DecodingSettings(seed=seed))
    original = beginning(recording)
    [codes_T] = tokenizer.encode([original.waveform], original.sample_rate)[0]
    if not len(codes_T):
        raise ValueError(f"the recording is {original.duration_seconds:.3f} s long: too short to give a code")
    [waveform] = decoder.decode([[codes_T]])[0]
    longest = round(original.duration_seconds * decoder.sample_rate)
    rebuilt = Recording(waveform[:longest], decoder.sample_rate)
    return Rebuilt(original, rebuilt, len(codes_T), tokenizer.bits_per_second, mel_distance(rebuilt, original))


@torch.no_grad()
def mel_distance(first: Recording, second: Recording) -> float | None:
    """Mean absolute difference of two natural-log mel spectrograms at 22.05 kHz, as the benchmarks have it.

    0 is equal, 0.69 a factor of two everywhere. The longer one is cut. None where one is shorter than a window.
    """
    mel = MelSpectrogram(MelConfig())
    waveforms = [resample(one.waveform, one.sample_rate, mel.config.sample_rate) for one in (first, second)]
    length = min(len(one) for one in waveforms)
    if length < mel.config.n_fft:
        return None
    one, other = (mel(waveform[:length]) for waveform in waveforms)
    return float((one - other).abs().mean())
