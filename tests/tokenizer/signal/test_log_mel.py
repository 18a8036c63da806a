"""The log-mel features equal transformers' and do not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from audiollm.tokenizer.signal.log_mel import LogMelFeatures


@pytest.mark.parametrize("num_mel_bins", [80, 128])
@pytest.mark.parametrize("num_samples", [640, 1280, 16000, 48000])
def test_equal_to_transformers(num_mel_bins: int, num_samples: int, noise: Callable[..., Tensor]) -> None:
    waveform = noise(num_samples)
    extractor = WhisperFeatureExtractor(feature_size=num_mel_bins)
    expected = extractor(waveform.numpy(), sampling_rate=16000, padding="longest", return_tensors="pt").input_features
    torch.testing.assert_close(LogMelFeatures(num_mel_bins)(waveform[None]), expected, atol=1e-5, rtol=0)


def test_each_row_of_a_batch_is_as_if_alone(noise: Callable[..., Tensor]) -> None:
    log_mel = LogMelFeatures(80)
    own = [640, 6400, 3200, 12800]
    batch = torch.zeros(len(own), max(own))
    for row, num_samples in enumerate(own):
        batch[row, :num_samples] = noise(num_samples, seed=row) * 10.0**-row
    features = log_mel(batch, own)
    for row, num_samples in enumerate(own):
        alone = log_mel(batch[row : row + 1, :num_samples])[0]
        torch.testing.assert_close(features[row, :, : num_samples // 160], alone, atol=1e-6, rtol=0)
        assert (features[row, :, num_samples // 160 :] == 0).all()


def test_silence_is_finite() -> None:
    features = LogMelFeatures(80)(torch.zeros(1, 640))
    torch.testing.assert_close(features, torch.full_like(features, -1.5))


def test_dtype_of_the_model_does_not_matter(
    make_tokenizer: Callable[..., object], noise: Callable[..., Tensor]
) -> None:
    model = make_tokenizer()
    waveform = noise(6400)[None]
    before = model.log_mel(waveform)  # type: ignore[attr-defined]
    model.bfloat16()  # type: ignore[attr-defined]
    assert torch.equal(model.log_mel(waveform), before)  # type: ignore[attr-defined]
