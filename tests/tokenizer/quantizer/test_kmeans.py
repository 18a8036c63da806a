"""Fitting a codebook to features."""

from __future__ import annotations

import pytest
import torch

from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.quantizer.kmeans import fit_entries


def clusters(num_clusters: int, per_cluster: int, spread: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(num_clusters, 6, generator=generator) * 5
    noise = torch.randn(num_clusters * per_cluster, 6, generator=generator) * spread
    return centres, centres.repeat(per_cluster, 1) + noise


def test_more_passes_never_quantize_worse() -> None:
    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    errors = [fit_entries(Codebook(16, 6), features, num_passes=n).quantization_error for n in (0, 1, 2, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_every_entry_becomes_the_mean_of_its_frames() -> None:
    centres, features = clusters(4, 50)
    codebook = Codebook(12, 6, ema_decay=0.9)
    fit = fit_entries(codebook, features, num_passes=30)
    codes = codebook.encode(features)
    for code in codes.unique():
        torch.testing.assert_close(codebook.weight[code], features[codes == code].mean(dim=0), atol=1e-4, rtol=0)
    assert torch.cdist(centres, codebook.weight).min(dim=1).values.max() < 0.2
    assert fit.quantization_error < 1e-4
    assert fit.usage == len(codes.unique()) / 12


def test_the_moving_averages_agree_with_the_fitted_entries() -> None:
    codebook = Codebook(8, 6, ema_decay=0.9)
    fit_entries(codebook, torch.randn(64, 6))
    assert torch.equal(codebook.ema_weight, codebook.weight)
    assert torch.equal(codebook.ema_count, torch.ones(8))


def test_the_seed_decides_the_result() -> None:
    features = torch.randn(200, 6)
    first, again, other = (Codebook(16, 6) for _ in range(3))
    fit_entries(first, features, seed=1)
    fit_entries(again, features, seed=1)
    fit_entries(other, features, seed=2)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_too_little_audio_says_how_much_is_needed() -> None:
    with pytest.raises(ValueError, match=r"100 frames cannot fill a codebook of 8192.*5 minutes.*codebook_size"):
        fit_entries(Codebook(8192, 6), torch.randn(100, 6))
