"""Speaker vectors of the training clips, by a speaker encoder, computed once and stored beside them."""

from __future__ import annotations

import logging

from torch import Tensor

from audiollm.data.voices.encoders import load_speaker_encoder
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig

from .shards import Column, DecoderItem

logger = logging.getLogger(__name__)


def speaker_column(name: str, decoder: WaveformDecoderConfig) -> Column:
    """The column of speaker vectors; a record's own ``speaker_vector`` goes before it.

    Args:
        name: of the encoder, as :func:`audiollm.data.voices.encoders.load_speaker_encoder` knows it.
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
