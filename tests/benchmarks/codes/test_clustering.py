"""Clustering of code histograms: the published scorer's figures and edge cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiollm.benchmarks.codes.clustering import (
    class_silhouette,
    cluster_codes,
    cluster_purity,
    code_histograms,
    k_means,
)

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "esc_clustering" / "cases.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]


def parametrize_cases(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["case"] for case in cases])


@parametrize_cases([case for case in CASES if case["n_classes"] > 1])
def test_silhouettes_over_classes_are_those_of_the_golden_set(case: dict[str, Any]) -> None:
    for name, expected in case["silhouette_with_class_labels"].items():
        scale, distance = name.split("/")
        histograms = code_histograms(case["tokens"], case["vocab_size"], scale=scale)
        found = class_silhouette(histograms, case["labels"], distance=distance)
        assert found == pytest.approx(expected, abs=1e-9), name


@parametrize_cases(CASES)
def test_purity_of_given_clusters_is_exact(case: dict[str, Any]) -> None:
    assert cluster_purity(case["clusters"], case["labels"]) == case["purity_of_given_clusters"]


@parametrize_cases([case for case in CASES if "kmeans_l1_euclidean" in case])
def test_k_means_lies_in_the_golden_range(case: dict[str, Any]) -> None:
    expected = case["kmeans_l1_euclidean"]
    result = cluster_codes(case["tokens"], case["labels"], case["vocab_size"], seeds=expected["seeds"])
    low, high = result.purity_range
    assert expected["purity_min"] - 1e-12 <= low <= result.purity_mean <= high <= expected["purity_max"] + 1e-12
    assert expected["nmi_min"] - 1e-9 <= result.nmi <= expected["nmi_max"] + 1e-9
    assert result.silhouette == pytest.approx(case["silhouette_with_class_labels"]["l1/euclidean"], abs=1e-9)
    assert low <= result.purity <= high
    assert result.num_clusters == case["n_classes"]
    if len({tuple(sorted(clip)) for clip in case["tokens"]}) > 1:
        histograms = code_histograms(case["tokens"], case["vocab_size"])
        own = class_silhouette(histograms, k_means(histograms, case["n_classes"], seed=0).tolist())
        allowed = expected["silhouette_with_cluster_labels"]
        assert min(allowed) - 1e-9 <= own <= max(allowed) + 1e-9


def test_one_class_alone_has_no_silhouette() -> None:
    (case,) = (case for case in CASES if case["n_classes"] == 1)
    with pytest.raises(ValueError, match="10 clips of 1 classes"):
        cluster_codes(case["tokens"], case["labels"], case["vocab_size"])


def test_as_many_classes_as_clips_have_no_silhouette() -> None:
    with pytest.raises(ValueError, match="3 clips of 3 classes"):
        cluster_codes([[0], [1], [2]], ["a", "b", "c"], 4)


def test_a_clip_without_codes_stays_zero_and_codebooks_stand_in_a_row() -> None:
    histograms = code_histograms([[], [[1, 1], [0, 2]]], 3, num_codebooks=2)
    assert histograms.tolist() == [[0] * 6, [0, 0.5, 0, 0.25, 0, 0.25]]
    assert np.linalg.norm(code_histograms([[0, 1, 1]], 3, scale="l2")) == pytest.approx(1)


def test_labels_may_be_words_and_their_names_do_not_matter() -> None:
    codes = [[0, 0, 1], [0, 1], [2, 3], [2, 2, 3]]
    words = cluster_codes(codes, ["rain", "rain", "dog", "dog"], 4)
    numbers = cluster_codes(codes, [1, 1, 0, 0], 4)
    assert words == numbers
    assert words.purity == 1
    assert words.purity_of_chance < 1


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0], [4]], r"clip 1 holds codes from 4 to 4; a codebook of 4 has 0 to 3"),
        ([[0], [-1]], r"clip 1 holds codes from -1"),
        ([[0.5]], r"clip 0 are float64 of shape \[1\]; give integers \[1, T\] or \[T\]"),
        ([[[0], [1]]], r"clip 0 are int64 of shape \[2, 1\]"),
    ],
)
def test_codes_that_are_none_are_refused_by_clip(codes: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code_histograms(codes, 4)


def test_wrong_settings_name_the_value() -> None:
    with pytest.raises(ValueError, match="scale='max'"):
        code_histograms([[0]], 4, scale="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 clips and 1 labels"):
        cluster_codes([[0], [1]], ["a"], 4)
    with pytest.raises(ValueError, match="5 clusters of 4 clips"):
        cluster_codes([[0], [1], [2], [3]], ["a", "a", "b", "b"], 4, num_clusters=5)
    with pytest.raises(ValueError, match="distance='manhattan'"):
        class_silhouette(np.eye(4), [0, 0, 1, 1], distance="manhattan")  # type: ignore[arg-type]
