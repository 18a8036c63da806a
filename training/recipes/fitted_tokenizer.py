"""An audio tokenizer without training: the layers of a Whisper encoder, and a codebook fitted to recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.clips import Clip
from audiollm.tokenizer.checkpoints.whisper import load_whisper
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.quantizer.kmeans import CodebookFit


def fitted_tokenizer(
    whisper: str | os.PathLike[str],
    clips: Sequence[Clip],
    codebook_size: int,
    seed: int,
    depth: Fraction = Fraction(3, 4),
) -> tuple[UniAudioTokenizer, CodebookFit]:
    """The tokenizer at a share of Whisper's depth, pooled to 25 Hz right at the quantizer.

    The release quantizes at half of 32 layers; half of the four or six of a small Whisper has hardly begun to hear
    words. There is no adapter, so that Whisper's own shallow features pass the gate; an untrained one would only add
    noise.

    Args:
        whisper: folder or Hub id of a Whisper model.
        clips: recordings that the codebook is fitted to, by k-means.
        codebook_size: its entries.
        seed: of what is new.
        depth: share of the encoder's layers, rounded down, of which two are the least.

    Returns:
        The tokenizer, and how well its codebook covers the recordings.
    """
    model: Any = load_whisper(os.fspath(whisper)).float()
    position = max(2, int(depth * model.config.encoder_layers))
    audio_tokenizer = UniAudioTokenizer.from_whisper(
        model,
        quantize_position=position,
        pooling_position=position,
        sae_source_position=1,
        use_adapter=False,
        codebook_size=codebook_size,
        encoder_only=True,
        seed=seed,
    )
    fit = audio_tokenizer.fit_codebook([load_audio(clip.audio, SAMPLE_RATE)[0] for clip in clips], SAMPLE_RATE)
    return audio_tokenizer, fit
