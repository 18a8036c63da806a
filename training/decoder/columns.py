"""Columns computed once of every training clip and stored beside it: speaker vectors, fundamental frequency."""
# Shapes: N samples, M mel frames.

from __future__ import annotations

import logging

from torch import Tensor
from torch.nn import functional as F

from audiollm.data.audio.pitch import PitchMethod, fundamental_frequency, load_pyworld
from audiollm.data.voices.encoders import load_speaker_encoder
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.signal.mel import MelConfig

from .shards import Column, DecoderItem

logger = logging.getLogger(__name__)

# Raise when the same settings give other fundamentals, so that stored ones are not taken for them.
_PITCH_VERSION = 1


def speaker_column(name: str, decoder: WaveformDecoderConfig) -> Column:
    """The column of speaker vectors; a record's own ``speaker_vector`` goes before it.

    Args:
        name: of the encoder, as `load_speaker_encoder` knows it.
        decoder: sizes of the decoder that is to take the vectors.

    Raises:
        ValueError: if there is no such encoder, or its vectors do not fit the decoder.
    """
    encoder = load_speaker_encoder(name)
    if encoder.embedding_size != decoder.flow.speaker_size:
        raise ValueError(
            f"speaker encoder {name!r} makes vectors of {encoder.embedding_size}, but decoder.flow.speaker_size="
            f"{decoder.flow.speaker_size}: make them agree"
        )

    def compute(item: DecoderItem) -> Tensor:
        try:
            return encoder.embed(item.waveform, decoder.mel.sample_rate)
        except ValueError as error:
            # Silence has no speaker; zeros are the neutral voice, which the model has to learn as well.
            logger.warning("%s: the neutral voice stands for its speaker: %s", item.id, error)
            return item.waveform.new_zeros(encoder.embedding_size)

    return Column("speaker", {"encoder": name, "size": encoder.embedding_size}, compute)


def pitch_of_frames(
    waveform: Tensor,
    mel: MelConfig,
    *,
    method: PitchMethod = "dio",
    min_frequency: float = 60.0,
    max_frequency: float = 600.0,
) -> Tensor:
    """Estimates the fundamental frequency at the middle of every mel frame: what a vocoder's F0 predictor learns.

    Args:
        waveform: samples in [-1, 1] at the mel's sample rate, ``[N]``.
        mel: gives the sample rate and the hop between frames.
        method: see `fundamental_frequency`.
        min_frequency: lowest frequency looked for, in Hz.
        max_frequency: highest frequency looked for, in Hz.

    Returns:
        Hz, 0 where unvoiced, float32 ``[N // hop_length]``.

    Raises:
        ValueError: if pyworld is not installed or the range of frequencies is empty.
    """
    num_frames = waveform.shape[-1] // mel.hop_length
    found = fundamental_frequency(
        # The estimators' frame m is at m hops; the spectrogram's is half a hop later.
        waveform[mel.hop_length // 2 :],
        mel.sample_rate,
        frame_ms=1000 * mel.hop_length / mel.sample_rate,
        method=method,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
    ).float()
    # The half hop that is cut off can cost the last frame its estimate.
    return F.pad(found[:num_frames], (0, max(0, num_frames - len(found))))


def pitch_column(mel: MelConfig, method: PitchMethod, min_frequency: float, max_frequency: float) -> Column:
    """The fundamental frequency as something that is computed once of every prepared clip, and stored beside it.

    Raises:
        ValueError: if pyworld is not installed.
    """
    load_pyworld()  # fails here, before hours of preparing

    def compute(item: DecoderItem) -> Tensor:
        return pitch_of_frames(
            item.waveform, mel, method=method, min_frequency=min_frequency, max_frequency=max_frequency
        )

    settings = {
        "version": _PITCH_VERSION, "method": method, "min_frequency": min_frequency, "max_frequency": max_frequency,
    }  # fmt: skip
    return Column(name="f0", settings=settings, compute=compute)
