"""What metrics of made sound look through: embedders, classifiers, and pairs of a sound and a text encoder.

Figures of different ones cannot be compared: name what was used beside the figure. Any callable of the same form can
take their place.
"""
# Shapes: N samples, F vectors, D size, C classes.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoProcessor,
    ClapModel,
    PreTrainedModel,
)

from audiollm.data.audio.waveforms import resample
from audiollm.tokenizer.checkpoints.tensors import check_loaded
from audiollm.tokenizer.losatok.front_ends import cut_pieces, extend
from audiollm.tokenizer.losatok.opening import load_teacher

Embedder = Callable[[Tensor, int], Tensor]
"""From a waveform ``[N]`` and its sample rate in Hz to vectors ``[F, D]``."""
Classifier = Callable[[Tensor, int], Tensor]
"""From a waveform ``[N]`` and its sample rate in Hz to probabilities ``[C]``."""


class TextScorer(Protocol):
    """Vectors of sounds and of texts that can be compared, as those of CLAP."""

    def embed_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Of a waveform ``[N]``: ``[D]``."""

    def embed_text(self, text: str) -> Tensor:
        """``[D]``"""


class FeatureEmbedder:
    """The features of a frozen encoder, one vector per frame.

    Args:
        source: whatever `audiollm.tokenizer.losatok.opening.load_teacher` takes: an audio encoder of transformers, one
            of our tokenizers, ``mini``, a LoSATok.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, source: str) -> None:
        self._teacher = load_teacher(source).eval()

    @torch.no_grad()
    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        samples = resample(waveform, sample_rate, 16000)[None]
        pieces = cut_pieces(extend(samples), samples.shape[1], self._teacher.piece_tokens)
        loudest = self._teacher.loudest_of(pieces)
        return torch.cat([self._teacher(piece, loudest) for piece in pieces], dim=1)[0]


class LabelClassifier:
    """A classifier of sounds of transformers, such as an Audio Spectrogram Transformer.

    Args:
        source: folder or Hub id.

    Raises:
        ValueError: if weights are missing.
    """

    def __init__(self, source: str) -> None:
        self._extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False)
        model, report = AutoModelForAudioClassification.from_pretrained(
            source, trust_remote_code=False, output_loading_info=True
        )
        check_loaded(model, report, source, instead="name a classifier of sounds")
        self._model: PreTrainedModel = model.eval()

    @torch.no_grad()
    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        rate = self._extractor.sampling_rate
        samples = resample(waveform, sample_rate, rate).numpy()
        inputs = self._extractor(samples, sampling_rate=rate, return_tensors="pt")
        # Of several labels at once, too: the divergence is of one distribution (as in AudioGen, arXiv:2209.15352).
        return self._model(**inputs).logits[0].softmax(dim=-1)


class ClapScorer:
    """CLAP of transformers.

    Args:
        source: folder or Hub id, such as laion/clap-htsat-unfused.

    Raises:
        ValueError: if weights are missing.
    """

    def __init__(self, source: str) -> None:
        self._processor: Any = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        model, report = ClapModel.from_pretrained(source, output_loading_info=True)
        check_loaded(model, report, source, instead="name a CLAP of transformers")
        self._model: Any = model.eval()

    @torch.no_grad()
    def embed_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Of a waveform ``[N]``: ``[D]``."""
        rate = self._processor.feature_extractor.sampling_rate
        samples = resample(waveform, sample_rate, rate).numpy()
        inputs = self._processor.feature_extractor(samples, sampling_rate=rate, return_tensors="pt")
        return _vector(self._model.get_audio_features(**inputs))

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """``[D]``"""
        return _vector(self._model.get_text_features(**self._processor.tokenizer([text], return_tensors="pt")))


def _vector(made: Any) -> Tensor:
    """The only row of what a model gives, a tensor or an output that pools one."""
    rows: Tensor = made if isinstance(made, Tensor) else made.pooler_output
    return rows[0]
