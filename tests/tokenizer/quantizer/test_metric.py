"""Distances measured in a linear map of the features."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.quantizer import kmeans
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.quantizer.kmeans import fit_entries, whitening
from audiollm.tokenizer.supervision.model import SupervisedTokenizer


def uneven_features(num_frames: int = 600, dim: int = 8) -> Tensor:
    """Frames around a far point, of which one direction is much louder than the others."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(num_frames, dim, generator=generator) * torch.tensor([30.0, *[1.0] * (dim - 1)])
    turned = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    return rows @ turned + 100


def mapped_covariance(features: Tensor, metric: Tensor) -> Tensor:
    mapped = features.double() @ metric.double().T
    return torch.cov(mapped.T, correction=0)


def test_all_components_have_the_same_variance_and_variance_one_together() -> None:
    features = uneven_features()
    covariance = mapped_covariance(features, whitening(features, 8))
    torch.testing.assert_close(covariance, torch.eye(8).double() / 8, atol=1e-5, rtol=1e-4)


def test_fewer_dimensions_are_the_strongest_ones() -> None:
    features = uneven_features()
    full, short = whitening(features, 8), whitening(features, 3)
    directions = torch.nn.functional.normalize(full[:3], dim=1)
    torch.testing.assert_close(torch.nn.functional.normalize(short, dim=1), directions, atol=1e-5, rtol=0)


def test_channels_that_never_vary_make_no_directions() -> None:
    features = uneven_features()
    silent = torch.cat([features, torch.full((len(features), 2), 7.0)], dim=1)
    metric = whitening(silent, 10)
    assert metric.isfinite().all()
    # Not blown up: nothing is told apart along them.
    assert mapped_covariance(silent, metric).diag()[8:].max() < 1e-6
    assert whitening(torch.full((20, 4), 3.0), 4).isfinite().all()


@pytest.mark.parametrize("size", [8, 3])
def test_the_nearest_entry_is_the_nearest_in_the_mapped_space(size: int) -> None:
    features = uneven_features()
    codebook = Codebook(20, 8, metric_size=size)
    fit_entries(codebook, features)
    assert codebook.metric is not None
    assert codebook.metric.shape == (size, 8)
    metric = codebook.metric.double()
    distances = torch.cdist(features.double() @ metric.T, codebook.weight.double() @ metric.T)
    assert torch.equal(codebook.encode(features), distances.argmin(dim=1))
    assert torch.equal(codebook.encode(features, codebook.search_index()), distances.argmin(dim=1))
    torch.testing.assert_close(codebook.points().double(), codebook.weight.double() @ metric.T, atol=1e-4, rtol=1e-5)


def test_entries_are_means_of_their_frames_in_the_features_own_space() -> None:
    features = uneven_features()
    codebook = Codebook(12, 8, metric_size=4, ema_decay=0.9)
    fit_entries(codebook, features, num_passes=60)
    codes = codebook.encode(features)
    for code in codes.unique():
        torch.testing.assert_close(codebook.weight[code], features[codes == code].mean(dim=0), atol=1e-3, rtol=1e-5)


def test_a_loud_direction_no_longer_takes_all_entries() -> None:
    features = uneven_features(2000)
    plain, fitted = Codebook(64, 8), Codebook(64, 8, metric_size=8)
    for codebook in (plain, fitted):
        fit_entries(codebook, features, num_passes=20)
    # What the quiet directions hold: the whitened features.
    whitened = torch.linalg.inv(torch.linalg.cholesky(torch.cov(features.double().T)))

    def lost(codebook: Codebook) -> float:
        left = (features - codebook.weight[codebook.encode(features)]).double() @ whitened.T
        return float(left.detach().square().sum(dim=1).mean())

    assert lost(fitted) < 0.8 * lost(plain)


def test_an_unfitted_metric_changes_no_code() -> None:
    torch.manual_seed(0)
    plain = Codebook(20, 8)
    mapped = Codebook(20, 8, metric_size=8)
    mapped.weight.data.copy_(plain.weight)
    features = torch.randn(100, 8)
    assert torch.equal(mapped.encode(features), plain.encode(features))


def test_training_moves_the_entries_and_leaves_the_metric() -> None:
    features = uneven_features()
    codebook = Codebook(20, 8, metric_size=5, ema_decay=0.5).train()
    fit_entries(codebook, features[:300])
    assert codebook.metric is not None
    metric, entries = codebook.metric.clone(), codebook.weight.detach().clone()
    codebook(features[None, 300:])
    assert torch.equal(codebook.metric, metric)
    assert not torch.equal(codebook.weight, entries)


def test_autocast_changes_no_distance() -> None:
    features = uneven_features()
    codebook = Codebook(200, 8, metric_size=8)
    fit_entries(codebook, features)
    codes, points = codebook.encode(features), codebook.points()
    with torch.autocast("cpu", torch.bfloat16):
        index = codebook.search_index()
        assert index.points.dtype == torch.float32
        assert torch.equal(codebook.points(), points)
        assert torch.equal(codebook.encode(features, index), codes)


def test_casting_and_copying_a_codebook_change_no_code() -> None:
    features = uneven_features()
    codebook = Codebook(50, 8, metric_size=4)
    fit_entries(codebook, features)
    codes = codebook.encode(features)
    for other in (copy.deepcopy(codebook).half(), copy.deepcopy(codebook).to(torch.bfloat16)):
        assert other.metric is not None
        assert other.metric.dtype == torch.float32
        assert torch.equal(other.encode(features), codes)


def test_features_that_never_vary_leave_finite_distances() -> None:
    codebook = Codebook(4, 8, metric_size=8)
    fit_entries(codebook, torch.full((20, 8), 3.0))
    codebook.weight.data.copy_(uneven_features(4))
    index = codebook.search_index()
    assert index.half_norms.isfinite().all()
    # Any orthogonal map: the nearest are those of the features themselves.
    features = uneven_features(100)
    distances = torch.cdist(features.double(), codebook.weight.double())
    assert torch.equal(codebook.encode(features, index), distances.argmin(dim=1))


def test_fewer_frames_than_dimensions_are_fitted_all_the_same() -> None:
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    codebook = Codebook(6, 8, metric_size=8)
    fit = fit_entries(codebook, features)
    assert fit.usage == 1
    assert codebook.metric is not None
    assert codebook.metric.isfinite().all()
    torch.testing.assert_close(codebook.weight[codebook.encode(features)].detach(), features)


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_counted_and_refused(size: int | None, wrong: float) -> None:
    features = uneven_features(50)
    features[[3, 7], 2] = wrong
    codebook = Codebook(20, 8, metric_size=size)
    before = codebook.weight.detach().clone()
    with pytest.raises(ValueError, match="2 of 50 frames hold NaN or infinity"):
        fit_entries(codebook, features)
    assert torch.equal(codebook.weight, before)


def test_frames_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    features = uneven_features()
    whole = whitening(features, 8)
    monkeypatch.setattr(kmeans, "COVARIANCE_ROWS", 7)
    pieces = whitening(features, 8)
    # The sign of a direction is nobody's business.
    torch.testing.assert_close(pieces.T @ pieces, whole.T @ whole, atol=1e-6, rtol=1e-4)


def test_a_metric_lacks_a_fit_until_it_has_one() -> None:
    assert not Codebook(20, 8).lacks_fit
    codebook = Codebook(20, 8, metric_size=5)
    assert codebook.lacks_fit
    fit_entries(codebook, uneven_features())
    assert not codebook.lacks_fit


# ------------------------------------------------------------------ in a tokenizer


@pytest.fixture
def mapped_tokenizer(make_tokenizer: Callable[..., UniAudioTokenizer]) -> UniAudioTokenizer:
    return make_tokenizer(quantize_metric_size=6, quantize_encoder_only=True)


@pytest.fixture
def recordings() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(length, generator=generator) * 0.2 for length in (16_000, 40_000, 5_000)]


def test_a_batch_gives_the_codes_of_single_clips(mapped_tokenizer: UniAudioTokenizer, recordings: list[Tensor]) -> None:
    together = mapped_tokenizer.encode(recordings, 16_000)
    for clip, codes in zip(recordings, together.tolist(), strict=True):
        assert mapped_tokenizer.encode([clip], 16_000).tolist() == [codes]


def test_it_is_saved_with_the_weights(
    mapped_tokenizer: UniAudioTokenizer, recordings: list[Tensor], tmp_path: Path
) -> None:
    codes = mapped_tokenizer.encode(recordings, 16_000).tolist()
    mapped_tokenizer.save_pretrained(tmp_path)
    loaded = UniAudioTokenizer.from_pretrained(tmp_path)
    assert loaded.config.quantize_metric_size == 6
    assert loaded.encode(recordings, 16_000).tolist() == codes
    assert loaded.fingerprint() == mapped_tokenizer.fingerprint()


def test_it_belongs_to_the_fingerprint(mapped_tokenizer: UniAudioTokenizer) -> None:
    before = mapped_tokenizer.fingerprint()
    assert mapped_tokenizer.codebook.metric is not None
    mapped_tokenizer.codebook.metric[0, 0] += 1e-3
    assert mapped_tokenizer.fingerprint() != before


def test_a_checkpoint_that_lost_it_is_refused(mapped_tokenizer: UniAudioTokenizer, tmp_path: Path) -> None:
    mapped_tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["codebook.metric"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"codebook\.metric"):
        UniAudioTokenizer.from_pretrained(tmp_path)


def test_a_checkpoint_that_has_one_too_many_is_refused(mapped_tokenizer: UniAudioTokenizer, tmp_path: Path) -> None:
    mapped_tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["quantize_metric_size"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"codebook\.metric"):
        UniAudioTokenizer.from_pretrained(tmp_path)


def test_exporting_says_what_the_published_code_would_pass_over(
    mapped_tokenizer: UniAudioTokenizer,
    tokenizer: UniAudioTokenizer,
    recordings: list[Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokenizer.export_released(tmp_path / "plain")
    assert "published code" not in caplog.text
    mapped_tokenizer.export_released(tmp_path / "mapped")
    assert "quantize_metric_size=6" in caplog.text
    assert "other codes" in caplog.text
    read = UniAudioTokenizer.from_pretrained(tmp_path / "mapped")
    assert read.encode(recordings, 16_000).tolist() == mapped_tokenizer.encode(recordings, 16_000).tolist()


def test_the_released_layout_does_not_know_it(tokenizer: UniAudioTokenizer, tmp_path: Path) -> None:
    tokenizer.export_released(tmp_path)
    assert "quantize_metric_size" not in json.loads((tmp_path / "config.json").read_text())
    assert "codebook.metric" not in load_file(tmp_path / "model.safetensors")


def test_a_supervised_model_exports_it(whisper_folder: Path, recordings: list[Tensor], tmp_path: Path) -> None:
    model = SupervisedTokenizer.from_whisper(whisper_folder, quantize_position=2, codebook_size=24, metric_size=6)
    model.tokenizer.fit_codebook(recordings, 16_000)
    model.save_pretrained(tmp_path / "trained")
    loaded = SupervisedTokenizer.from_pretrained(tmp_path / "trained")
    loaded.export_tokenizer(tmp_path / "exported")
    assert loaded.tokenizer.codebook.metric is not None
    assert model.tokenizer.codebook.metric is not None
    assert torch.equal(loaded.tokenizer.codebook.metric, model.tokenizer.codebook.metric)
    assert UniAudioTokenizer.from_pretrained(tmp_path / "exported").fingerprint() == model.tokenizer.fingerprint()
