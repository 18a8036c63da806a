"""The audio tokenizer of `mini`: Whisper tiny.en up to its second layer, and a codebook fitted to training clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from audiollm.data.audio.reading import load_audio
from audiollm.data.files.json_lines import read_json_lines
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.quantizer.kmeans import CodebookFit
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training.audio_tokenizer.start import START_CLIPS
from audiollm.training.audio_tokenizer.warm_start import warm_start

from .layout import MiniLayout

POSITION = 2  # of four; the third layer says no more of the words, and less of how they sound
CODEBOOK_SIZE = 8192
METRIC_SIZE = 384  # all there are
FRAMES_PER_ENTRY = 20


def make_tokenizer(layout: MiniLayout, whisper: str | Path, seed: int) -> tuple[SupervisedTokenizer, CodebookFit]:
    """Makes the tokenizer with Whisper's text decoder beside it; nothing is trained.

    Trained on texts for as long as mini can be (600 updates), its codes said less of what is spoken than Whisper's own
    second layer does, see ``docs/mini.md``. So the encoder stays Whisper's, and distances are measured where no few
    loud directions outweigh the others. Whisper's own shallow features pass the gate of the SAE, as an adapter that was
    not trained would only add noise.

    Args:
        layout: where the training clips are: those of the tokenizer, and the sentences that only the LM learns from,
            as mini is to say those most clearly.
        whisper: folder or Hub id of the Whisper model.
        seed: of what is new, and of which clips are looked at.
    """
    model = SupervisedTokenizer.from_whisper(
        whisper,
        quantize_position=POSITION,
        pooling_position=POSITION,
        sae_source_position=1,
        use_adapter=False,
        codebook_size=CODEBOOK_SIZE,
        metric_size=METRIC_SIZE,
        ema_decay=None,
        seed=seed,
    )
    clips = list(_clips(layout, CODEBOOK_SIZE * FRAMES_PER_ENTRY * model.config.token_stride, seed))
    warm_start(model, clips[:START_CLIPS])
    return model, model.tokenizer.fit_codebook(clips, SAMPLE_RATE, seed=seed)


def _clips(layout: MiniLayout, num_samples: int, seed: int) -> Iterator[Tensor]:
    """Training clips in a random order, each once, until they have so many samples, or all."""
    records = [*read_json_lines(layout.tokenizer_data("train")), *read_json_lines(layout.more_speech)]
    paths = sorted({record["audio"] for record in records})
    for index in np.random.default_rng(seed).permutation(len(paths)).tolist():
        if num_samples <= 0:
            return
        waveform = load_audio(paths[index], SAMPLE_RATE)[0]
        num_samples -= len(waveform)
        yield waveform
