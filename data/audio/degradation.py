"""Degradations of recordings: noise, other sounds, rooms, coarse samples, codecs.

Every function leaves its input as it is and returns as many samples as it got, in step with them.
"""
# Shapes: N samples.

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
import soundfile
import torch
from torch import Tensor

from .waveforms import resample

NoiseColour = Literal["white", "pink", "brown"]
Codec = Literal["g711", "gsm", "vorbis", "mp3", "opus"]

NOISE_COLOURS: tuple[NoiseColour, ...] = get_args(NoiseColour)
CODECS: tuple[Codec, ...] = get_args(Codec)

LOWEST_HZ = 20.0  # coloured noise is flat below: nobody hears it, but it would hold most of brown noise's power
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # exponent of 1 / frequency, in amplitude
_DELAY_SECONDS = 0.003  # of the first reflection: a wall half a metre away
_DECAY = 6.907755  # ln(1000): 60 dB in amplitude
# Rate that a codec is defined for (None: the recording's own), container, encoding, compression level.
_CODECS: dict[str, tuple[int | None, str, str, float | None]] = {
    "g711": (8000, "WAV", "ULAW", None),
    "gsm": (8000, "WAV", "GSM610", None),
    "vorbis": (None, "OGG", "VORBIS", 0.9),
    "mp3": (None, "MP3", "MPEG_LAYER_III", 0.9),
    "opus": (None, "OGG", "OPUS", 0.9),
}


def coloured_noise(num_samples: int, sample_rate: int, colour: NoiseColour, generator: np.random.Generator) -> Tensor:
    """Makes noise whose power density falls with frequency not at all, as 1/f or as 1/f².

    Args:
        num_samples: N.
        sample_rate: Hz.
        colour: "white", "pink" or "brown".
        generator: draws it.

    Returns:
        float32 ``[N]`` of mean power 1.

    Raises:
        ValueError: for another colour, or no samples.
    """
    if colour not in _SLOPES:
        raise ValueError(f"noise {colour!r}: use one of {', '.join(_SLOPES)}")
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: use at least 1")
    if colour == "white":
        noise = generator.standard_normal(num_samples)
    else:
        padded = 1 << (num_samples - 1).bit_length()  # a length that is quick to transform, whatever N
        frequencies = np.fft.rfftfreq(max(padded, 2), 1 / sample_rate)
        spectrum = np.fft.rfft(generator.standard_normal(max(padded, 2)))
        noise = np.fft.irfft(spectrum / np.maximum(frequencies, LOWEST_HZ) ** _SLOPES[colour])[:num_samples]
    power = float(np.mean(noise**2))
    return torch.from_numpy((noise / np.sqrt(power)).astype(np.float32))


def mix_at_snr(signal: Tensor, other: Tensor, snr_db: float) -> Tensor:
    """Adds ``other`` below ``signal``: their mean powers over the whole clip differ by ``snr_db``.

    Args:
        signal: float ``[N]``, unchanged in level.
        other: float ``[M]``, M >= 1, at the same sample rate; repeated or cut to N samples.
        snr_db: level of the signal above the other, in dB; negative: the other is louder.

    Returns:
        ``[N]``; peaks may exceed 1. The signal itself where one of the two is silent, and has no level to go by.

    Raises:
        ValueError: if there is nothing to mix, or the level is not a finite number.
    """
    if not np.isfinite(snr_db):
        raise ValueError(f"snr_db={snr_db}: use a finite number of dB")
    if not len(other):
        raise ValueError("nothing to mix with: the other clip holds no samples")
    other = other.repeat(-(-len(signal) // len(other)))[: len(signal)]
    # Of what is mixed in, after it was cut: a part may be much louder than the whole.
    own_power, other_power = _power(signal), _power(other)
    if own_power == 0 or other_power == 0:
        return signal
    return signal + other * (own_power / other_power / 10 ** (snr_db / 10)) ** 0.5


def reverberate(
    waveform: Tensor,
    sample_rate: int,
    *,
    decay_seconds: float,
    direct_to_reverberant_db: float,
    generator: np.random.Generator,
) -> Tensor:
    """Puts a clip into a room made up of noise that decays exponentially.

    Args:
        waveform: float ``[N]``.
        sample_rate: Hz.
        decay_seconds: time in which the room's sound falls by 60 dB.
        direct_to_reverberant_db: level of the sound itself above that of the room.
        generator: draws the room.

    Returns:
        ``[N]``, of the clip's own mean power. The sound itself is not delayed; what rings on behind the end is cut.

    Raises:
        ValueError: if the decay takes no time.
    """
    if not decay_seconds > 0:
        raise ValueError(f"decay_seconds={decay_seconds}: use a positive time, such as 0.3")
    delay = round(_DELAY_SECONDS * sample_rate)
    length = max(1, round(decay_seconds * sample_rate))
    tail = generator.standard_normal(length) * np.exp(-_DECAY * np.arange(length) / length)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    room = np.concatenate([[1.0], np.zeros(delay), tail])
    # float64: a second of room adds up 16,000 products for each sample. Padded to the length of the whole convolution:
    # else the transform wraps the end around to the beginning.
    samples = waveform.double().numpy()
    padded = 1 << (len(samples) + len(room)).bit_length()
    spectrum = np.fft.rfft(samples, padded) * np.fft.rfft(room, padded)
    wet = torch.from_numpy(np.fft.irfft(spectrum, padded)[: len(samples)].astype(np.float32))
    power = _power(wet)
    return wet * (_power(waveform) / power) ** 0.5 if power else wet


def crush(waveform: Tensor, bits: int) -> Tensor:
    """Rounds samples to ``2 ** bits`` steps between the clip's own extremes, so that quiet clips survive as loud ones.

    Args:
        waveform: float ``[N]``.
        bits: depth, 2 or more.

    Raises:
        ValueError: for fewer bits.
    """
    if bits < 2:
        raise ValueError(f"bits={bits}: use 2 or more")
    peak = waveform.abs().max()
    steps = 2 ** (bits - 1) - 1  # on either side of zero, so that silence stays silence
    return waveform if peak == 0 else (waveform / peak * steps).round() / steps * peak


def transmit(waveform: Tensor, sample_rate: int, codec: Codec) -> Tensor:
    """Encodes and decodes a clip.

    Args:
        waveform: float ``[N]``.
        sample_rate: Hz; the telephone's codecs (g711, gsm) halve it to 8 kHz on the way.
        codec: "g711" (µ-law), "gsm" (full rate), "vorbis", "mp3" or "opus", the last three at low bit rates.

    Raises:
        ValueError: for another codec, or a rate that the codec does not have.
    """
    if codec not in _CODECS:
        raise ValueError(f"codec {codec!r}: use one of {', '.join(_CODECS)}")
    own_rate, container, encoding, level = _CODECS[codec]
    rate = own_rate or sample_rate
    peak = max(1.0, float(waveform.abs().max()))  # codecs cut off what exceeds full scale
    sent = resample(waveform / peak, sample_rate, rate) if rate != sample_rate else waveform / peak
    file = io.BytesIO()
    try:
        soundfile.write(file, sent.numpy(), rate, format=container, subtype=encoding, compression_level=level)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{codec} at {rate} Hz: {error.error_string}; resample the clip, such as to 16000 Hz"
        ) from error
    file.seek(0)
    received = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
    if rate != sample_rate:
        received = resample(received, rate, sample_rate)
    return torch.nn.functional.pad(received, (0, len(waveform) - len(received))) * peak  # block codecs fill up the end


def _power(waveform: Tensor) -> float:
    # float64: squares of quiet samples vanish beside those of loud ones in a float32 sum over minutes.
    return float(waveform.double().square().mean())
