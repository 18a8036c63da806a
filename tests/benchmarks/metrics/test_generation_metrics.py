"""Metrics of made sound against closed forms, and the models that they look through."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.metrics.distances import frechet_distance, kl_divergence
from audiollm.benchmarks.metrics.embedders import ClapScorer, FeatureEmbedder, LabelClassifier

RATES = {"prediction_sample_rate": 16000, "reference_sample_rate": 16000}


def vectors(num: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, size))


def whitened(values: np.ndarray) -> np.ndarray:
    """Of mean 0, and with the unit matrix as covariance, exactly."""
    centred = values - values.mean(axis=0)
    return centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T


def test_frechet_distance_of_scaled_and_shifted_sets_is_the_closed_form() -> None:
    unit = whitened(vectors(200, 5))
    assert frechet_distance(unit, unit) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(unit + 2, unit) == pytest.approx(5 * 4)
    scales = np.array([1.0, 2, 3, 4, 5])
    assert frechet_distance(unit * scales, unit) == pytest.approx(((scales - 1) ** 2).sum())
    # Of covariances that do not commute: by the eigenvalues of their product.
    first, second = unit @ np.diag(scales), unit @ vectors(5, 5, seed=1)
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
    expected = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_frechet_distance_of_fewer_vectors_than_numbers_is_a_number() -> None:
    assert 0 <= frechet_distance(vectors(3, 8), vectors(4, 8, seed=1)) < math.inf
    for made, wanted, message in (
        (vectors(1, 2), vectors(2, 2), "two or more"),
        (vectors(2, 2), vectors(2, 3), "2 and 3 numbers"),
        (np.full((2, 2), np.nan), vectors(2, 2), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            frechet_distance(made, wanted)


def test_divergence_is_the_closed_form() -> None:
    assert kl_divergence([0.2, 0.8], [0.2, 0.8]) == pytest.approx(0)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kl_divergence([0.25, 0.75], [0.5, 0.5]) == pytest.approx(expected)
    assert kl_divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.log(1e7), rel=1e-3)  # not infinite
    for made, wanted, message in (
        ([0.5], [0.5, 0.5], "of one size"), ([2.0, -1.0], [0.5, 0.5], "softmax"), ([0.2, 0.2], [0.5, 0.5], "softmax"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            kl_divergence(made, wanted)


def frames(waveform: Tensor, sample_rate: int) -> Tensor:
    return waveform.reshape(-1, 2)


def test_fad_is_the_distance_of_all_vectors_whatever_the_numbers_of_recordings() -> None:
    made, real = vectors(40, 2), vectors(30, 2, seed=1)
    clips = [made[:10].ravel(), made[10:].ravel()]
    scores = load_metric("fad").compute(predictions=clips, references=[real.ravel()], embedder=frames, **RATES)
    assert scores["fad"] == pytest.approx(frechet_distance(made, real), rel=1e-5)
    assert (scores["num_vectors"], scores["num_reference_vectors"]) == (40, 30)
    with pytest.raises(ValueError, match="there are no references"):
        load_metric("fad").compute(predictions=clips, references=[], embedder=frames, **RATES)
    with pytest.raises(ValueError, match=r"must give \[F, D\]"):
        load_metric("fad").compute(predictions=clips, references=clips, embedder=lambda one, rate: one, **RATES)


def test_kl_is_the_mean_over_pairs() -> None:
    def classifier(waveform: Tensor, sample_rate: int) -> Tensor:
        return torch.stack([waveform[0], 1 - waveform[0]])

    scores = load_metric("kl").compute(
        predictions=[[0.25, 0.0], [0.5, 0.0]], references=[[0.5], [0.5]], classifier=classifier, **RATES
    )
    assert scores["scores"] == pytest.approx([kl_divergence([0.25, 0.75], [0.5, 0.5]), 0], abs=1e-6)
    assert scores["kl"] == pytest.approx(sum(scores["scores"]) / 2)


def test_clap_score_is_the_mean_cosine_of_sound_and_text() -> None:
    class Scorer:
        def embed_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
            return waveform

        def embed_text(self, text: str) -> Tensor:
            return torch.tensor([1.0, 0.0]) if text == "right" else torch.tensor([0.0, 1.0])

    scores = load_metric("clap_score").compute(
        predictions=[[2.0, 0.0], [3.0, 0.0], [1.0, 1.0]], references=["right", "up", "up"], scorer=Scorer(),
        prediction_sample_rate=16000,
    )  # fmt: skip
    assert scores["scores"] == pytest.approx([1, 0, math.sqrt(0.5)])


# --- what they look through -------------------------------------------------------------------------------------------


def test_features_of_a_frozen_encoder_embed(tmp_path) -> None:
    sounds = [0.1 * torch.randn(9000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    made = FeatureEmbedder("mini")(sounds[0], 16000)
    assert made.shape[1] == 384
    scores = load_metric("fad").compute(
        predictions=[sounds[0].numpy()], references=[sounds[0].numpy()], embedder=FeatureEmbedder("mini"), **RATES
    )
    assert scores["fad"] == pytest.approx(0, abs=1e-3)


def save_classifier(folder) -> str:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(4, 4, 4),
        conv_stride=(8, 8, 5), conv_kernel=(8, 8, 5), num_feat_extract_layers=3, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=4, num_labels=3,
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True).save_pretrained(folder)
    return str(folder)


def test_a_classifier_of_transformers_gives_probabilities(tmp_path) -> None:
    heard = LabelClassifier(save_classifier(tmp_path))(0.1 * torch.randn(8000), 8000)
    assert heard.shape == (3,)
    assert float(heard.sum()) == pytest.approx(1, rel=1e-4)


def save_clap(folder, text_tokenizer: Callable[[], object]) -> str:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    config = ClapConfig(
        text_config={
            "vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 40,
        },
        audio_config={
            "patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 1, 1], "spec_size": 256, "num_mel_bins": 64,
        },
        projection_dim=8,
    )  # fmt: skip
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)  # as of the model that is not fused
    text_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_clap_of_transformers_gives_vectors_of_one_size(tmp_path) -> None:
    from transformers import ByT5Tokenizer

    scorer = ClapScorer(save_clap(tmp_path, lambda: ByT5Tokenizer(extra_ids=0)))
    assert scorer.embed_audio(0.1 * torch.randn(16000), 16000).shape == scorer.embed_text("rain").shape == (8,)
