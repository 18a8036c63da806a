"""Probes: the published scorer's figures, and readers that learn what can be learnt and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiollm.benchmarks.codes.probing import (
    judge,
    knn_probe,
    knn_scores,
    linear_probe,
    logistic_probe,
    masked_mean,
    weighted_average,
)

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "linear_probe" / "cases.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_masked_mean_is_that_of_the_golden_set() -> None:
    case = CASES["masked_mean"]
    assert case["layout"] == "clip x dim x time"
    found = masked_mean(torch.tensor(case["features"]).transpose(1, 2), case["lengths"])
    np.testing.assert_allclose(found, case["pooled"], atol=1e-5)


def test_padding_never_reaches_the_mean() -> None:
    features = torch.full((2, 3, 4), float("nan"))
    features[0, :2] = 1.0
    pooled = masked_mean(features, [2, 0])
    assert pooled.tolist() == [[1.0] * 4, [0.0] * 4]
    with pytest.raises(ValueError, match=r"\[4, 0\]; give one from 0 to 3"):
        masked_mean(features, [4, 0])


@pytest.mark.parametrize("normalisation", ["published", "cosine"])
def test_nearest_neighbours_are_those_of_the_golden_set(normalisation: Any) -> None:
    case = CASES["knn"]
    for expected in case[f"results_{normalisation}"]:
        settings: dict[str, Any] = {
            "num_neighbours": expected["k"], "temperature": expected["temperature"], "normalisation": normalisation,
        }  # fmt: skip
        given = case["train_features"], case["train_labels"], case["test_features"]
        scores = knn_scores(*given, num_classes=case["n_classes"], **settings)
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
        result = knn_probe(*given, case["test_labels"], **settings)
        assert list(result.predictions) == expected["predicted"]
        assert result.accuracy == pytest.approx(expected["accuracy"], abs=1e-5)


@pytest.mark.parametrize("case", CASES["weighted_average"])
def test_the_weighted_average_is_that_of_the_golden_set(case: dict[str, Any]) -> None:
    assert weighted_average(case["scores"]) == pytest.approx(case["expected"], abs=1e-5)


def test_an_average_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="reader 1 add up to 0"):
        weighted_average({"a": [(0.5, 1), (0.5, 0)]})
    with pytest.raises(ValueError, match=r"\[1, 2\] scores"):
        weighted_average({"a": [(0.5, 1)], "b": [(0.5, 1), (0.1, 1)]})


# ----------------------------------------------------------------- the readers

READERS = [linear_probe, logistic_probe, knn_probe]


def clusters(seed: int, num_clips: int = 240, spread: float = 0.7) -> tuple[np.ndarray, list[str]]:
    """Clips of three classes around three points of a space of 40 dimensions."""
    centres = np.random.default_rng(100).normal(size=(3, 40))
    generator = np.random.default_rng(seed)
    numbers = generator.integers(3, size=num_clips)
    points = centres[numbers] + spread * generator.normal(size=(num_clips, 40))
    return points, [("bird", "dog", "rain")[number] for number in numbers]


@pytest.mark.parametrize("probe", READERS)
def test_a_reader_learns_what_is_there(probe: Any) -> None:
    result = probe(*clusters(0), *clusters(1, 60))
    assert result.accuracy > 0.85
    assert (result.num_train, result.num_test, result.num_classes) == (240, 60, 3)
    low, high = result.accuracy_interval
    assert low <= result.accuracy <= high


@pytest.mark.parametrize("probe", READERS)
def test_a_reader_finds_nothing_where_nothing_is(probe: Any) -> None:
    noise = np.random.default_rng(2).normal(size=(600, 40))
    _, labels = clusters(3, 600)
    result = probe(noise[:300], labels[:300], noise[300:], labels[300:])
    assert abs(result.accuracy - 1 / 3) < 0.1


@pytest.mark.parametrize("probe", READERS)
def test_a_reader_repeats_itself_and_leaves_the_random_state_alone(probe: Any) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = probe(*clusters(0), *clusters(1, 30))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert probe(*clusters(0), *clusters(1, 30)) == first


def test_validation_chooses_the_epoch() -> None:
    train, test = clusters(0, 200, spread=2.0), clusters(1, 200, spread=2.0)
    last = linear_probe(*train, *test, num_epochs=12, learning_rate=0.1)
    optimistic = linear_probe(*train, *test, validation=test, num_epochs=12, learning_rate=0.1)
    assert optimistic.accuracy > last.accuracy


def test_classes_that_training_lacks_count_as_wrong() -> None:
    features, labels = clusters(0)
    result = linear_probe(features, labels, features[:20], [*labels[:10], *["unheard"] * 10])
    assert result.accuracy <= 0.5
    assert result.num_classes == 4


def test_shares_are_of_clips_or_of_classes() -> None:
    result = judge(["a", "a", "a", "a"], ["a", "a", "b"], ["a", "a", "a", "b"])
    assert result.accuracy == 0.75
    assert result.balanced_accuracy == 0.5
    assert result.majority_accuracy == 0.75
    assert "predictions" not in result.figures()


@pytest.mark.parametrize("probe", READERS)
def test_features_and_labels_must_fit(probe: Any) -> None:
    features, labels = clusters(0)
    with pytest.raises(ValueError, match=r"\(240, 40\) and \(2, 4\); give \[C, D\] with the same D"):
        probe(features, labels, np.zeros((2, 4)), ["dog", "dog"])
    with pytest.raises(ValueError, match="240 and 3 clips have 239 and 3 labels"):
        probe(features, labels[1:], features[:3], labels[:3])


def test_wrong_settings_name_the_value() -> None:
    with pytest.raises(ValueError, match="normalisation='max'"):
        knn_probe(*clusters(0), *clusters(1), normalisation="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_neighbours=0"):
        knn_probe(*clusters(0), *clusters(1), num_neighbours=0)
    with pytest.raises(ValueError, match="all 2 training clips are 'dog'"):
        logistic_probe(np.eye(2), ["dog", "dog"], np.eye(2), ["dog", "dog"])
