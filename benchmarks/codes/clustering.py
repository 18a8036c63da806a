"""ESC-style clustering of token histograms: how well the codes of a clip tell what kind of sound it is.

A clip becomes the histogram of its codes. The silhouette (Rousseeuw, 1987) says how much nearer clips of one class are
to each other than to the next class; the purity says how well k-means, which knows no classes, finds them. These are
what UniAudio-Token (arXiv:2605.31521) reports of ESC-10 and ESC-50; ``sound_classes.py`` is the script.
"""
# Shapes: C clips, K codebooks, T frames (T_i of one clip), V codebook entries.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from audiollm.benchmarks.metrics.waveform_pairs import bench_library

Scale = Literal["l1", "counts", "l2"]
Distance = Literal["euclidean", "cosine"]
SCALES = ("l1", "counts", "l2")
DISTANCES = ("euclidean", "cosine")
AS_THEY_ARE = "none"  # scale of vectors that are no histograms
NUM_SHUFFLES = 100  # of the labels, whose mean purity is that of chance


@dataclass(frozen=True)
class ClusteringResult:
    """Silhouette over the classes, and what k-means finds of them."""

    num_clips: int
    num_classes: int
    num_clusters: int
    scale: str
    distance: str
    silhouette: float
    """Over the class labels, -1 to 1, at the chosen distance."""
    silhouette_cosine: float
    """The same at cosine distance, which lengths of clips change least."""
    purity: float
    """Share of clips that are of the commonest class of their cluster, with the first seed."""
    purity_range: tuple[float, float]
    """Least and greatest over the seeds of k-means."""
    purity_mean: float
    """Mean over the seeds."""
    purity_of_chance: float
    """Mean purity of the same clusters after shuffling the labels: what clusters of these sizes give for nothing."""
    nmi: float
    """Normalized mutual information of clusters and classes (arithmetic mean), with the first seed."""
    nmi_mean: float
    """Mean over the seeds."""
    purities: tuple[float, ...]
    """One for each seed."""
    nmis: tuple[float, ...]
    """One for each seed."""
    cluster_silhouettes: tuple[float | None, ...]
    """Silhouette over the clusters themselves, at the chosen distance, for each seed; None where only one is filled."""


def code_histograms(
    codes: Sequence[ArrayLike], codebook_size: int, *, num_codebooks: int = 1, scale: Scale = "l1"
) -> NDArray[np.float64]:
    """Counts the codes of each clip.

    Args:
        codes: integers in [0, V), ``[T_i]`` or ``[K, T_i]`` each; a clip without any becomes a row of zeros.
        codebook_size: V.
        num_codebooks: K; the histograms of several codebooks stand one behind the other.
        scale: ``counts``, ``l1`` (shares of the tokens) or ``l2`` (rows of length one).

    Returns:
        float64 ``[C, K * V]``.

    Raises:
        ValueError: if codes are not integers, out of range or of another shape, naming the clip.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}: use one of {', '.join(SCALES)}")
    counts = np.zeros((len(codes), num_codebooks, codebook_size))
    for clip, clip_codes in enumerate(codes):
        codes_KT = _checked_codes(clip_codes, clip, num_codebooks, codebook_size)
        for codebook in range(num_codebooks):
            counts[clip, codebook] = np.bincount(codes_KT[codebook], minlength=codebook_size)
    histograms = counts.reshape(len(codes), num_codebooks * codebook_size)
    if scale == "counts":
        return histograms
    lengths = np.linalg.norm(histograms, ord=1 if scale == "l1" else 2, axis=1, keepdims=True)
    # A clip without codes stays a row of zeros; 0 / 0 would be NaN, which every distance passes on.
    return histograms / np.where(lengths == 0, 1, lengths)


def class_silhouette(
    histograms: NDArray[np.float64], labels: Sequence[Any], *, distance: Distance = "euclidean"
) -> float:
    """Mean silhouette of the clips over their class labels.

    A clip that is alone in its class counts 0. Cosine distance to a row of zeros is 1.

    Args:
        histograms: ``[C, …]``.
        labels: class of each clip.
        distance: ``euclidean`` or ``cosine``.

    Raises:
        ValueError: if there are fewer than two classes, or as many as clips, where it is not defined.
    """
    return float(np.mean(clip_silhouettes(histograms, labels, distance=distance)))


def clip_silhouettes(
    histograms: NDArray[np.float64], labels: Sequence[Any], *, distance: Distance = "euclidean"
) -> NDArray[np.float64]:
    """Silhouette of each clip, ``[C]``; arguments and errors as for `class_silhouette`."""
    _check_labels(len(histograms), labels)
    if distance not in DISTANCES:
        raise ValueError(f"distance={distance!r}: use one of {', '.join(DISTANCES)}")
    num_classes = len(set(labels))
    if not 2 <= num_classes < len(labels):
        raise ValueError(
            f"{len(labels)} clips of {num_classes} classes have no silhouette; give two classes or more, and more "
            "clips than classes"
        )
    return bench_library("sklearn.metrics").silhouette_samples(histograms, _numbered(labels), metric=distance)


def cluster_purity(clusters: Sequence[Any] | NDArray[Any], labels: Sequence[Any] | NDArray[Any]) -> float:
    """Share of clips that are of the commonest class of their cluster.

    Args:
        clusters: cluster of each clip.
        labels: class of each clip.

    Raises:
        ValueError: if there are no clips, or as many clusters as labels are not given.
    """
    _check_labels(len(clusters), labels)
    table = np.zeros((len(set(clusters)), len(set(labels))), dtype=np.int64)
    np.add.at(table, (_numbered(clusters), _numbered(labels)), 1)
    return float(table.max(axis=1).sum() / len(labels))


def cluster_codes(
    codes: Sequence[ArrayLike],
    labels: Sequence[Any],
    codebook_size: int,
    *,
    num_codebooks: int = 1,
    scale: Scale = "l1",
    distance: Distance = "euclidean",
    num_clusters: int | None = None,
    num_restarts: int = 10,
    seeds: Sequence[int] = tuple(range(10)),
) -> ClusteringResult:
    """Clusters clips by the histograms of their codes.

    Args:
        codes: as for `code_histograms`.
        labels: class of each clip.
        codebook_size: V.
        num_codebooks: K.
        scale: of the histograms.
        distance: as for `cluster_vectors`, as are the rest.
        num_clusters: of k-means.
        num_restarts: of k-means.
        seeds: of k-means.

    Raises:
        ValueError: as the functions above and `cluster_vectors`.
    """
    histograms = code_histograms(codes, codebook_size, num_codebooks=num_codebooks, scale=scale)
    return cluster_vectors(
        histograms, labels, scale=scale, distance=distance, num_clusters=num_clusters, num_restarts=num_restarts,
        seeds=seeds,
    )  # fmt: skip


def cluster_vectors(
    vectors: NDArray[np.float64],
    labels: Sequence[Any],
    *,
    scale: str = AS_THEY_ARE,
    distance: Distance = "euclidean",
    num_clusters: int | None = None,
    num_restarts: int = 10,
    seeds: Sequence[int] = tuple(range(10)),
) -> ClusteringResult:
    """Clusters clips by one vector each.

    Args:
        vectors: ``[C, …]``.
        labels: class of each clip.
        scale: what has been done to them, for the result.
        distance: of the silhouette; k-means is Euclidean always.
        num_clusters: of k-means; the number of classes if None.
        num_restarts: starts of one k-means, of which the tightest counts.
        seeds: one k-means each; the first one's figures are the result, the others show the spread.

    Raises:
        ValueError: as `class_silhouette`, or if there are no seeds, or more clusters than clips.
    """
    silhouettes = {name: class_silhouette(vectors, labels, distance=name) for name in (distance, "cosine")}
    num_clusters = num_clusters or len(set(labels))
    if not seeds or not 1 <= num_clusters <= len(labels):
        raise ValueError(
            f"{num_clusters} clusters of {len(labels)} clips with {len(seeds)} seeds: give at least one seed, and no "
            "more clusters than clips"
        )
    found = [k_means(vectors, num_clusters, num_restarts=num_restarts, seed=seed) for seed in seeds]
    purities = [cluster_purity(clusters, labels) for clusters in found]
    scores = [
        float(bench_library("sklearn.metrics").normalized_mutual_info_score(_numbered(labels), clusters))
        for clusters in found
    ]
    return ClusteringResult(
        num_clips=len(labels),
        num_classes=len(set(labels)),
        num_clusters=num_clusters,
        scale=scale,
        distance=distance,
        silhouette=silhouettes[distance],
        silhouette_cosine=silhouettes["cosine"],
        purity=purities[0],
        purity_range=(min(purities), max(purities)),
        purity_mean=float(np.mean(purities)),
        purity_of_chance=_purity_of_chance(found[0], labels),
        nmi=scores[0],
        nmi_mean=float(np.mean(scores)),
        purities=tuple(purities),
        nmis=tuple(scores),
        cluster_silhouettes=tuple(_cluster_silhouette(vectors, clusters, distance) for clusters in found),
    )


def k_means(
    histograms: NDArray[np.float64], num_clusters: int, *, num_restarts: int = 10, seed: int = 0
) -> NDArray[np.int32]:
    """Cluster of each row, ``[C]``; identical rows may leave clusters empty."""
    # scikit-learn warns of clusters that cannot be filled; k-means of fewer points says the same without noise.
    num_distinct = len(np.unique(histograms, axis=0))
    model = bench_library("sklearn.cluster").KMeans(
        n_clusters=min(num_clusters, num_distinct), n_init=num_restarts, random_state=seed
    )
    return model.fit_predict(histograms)


def _cluster_silhouette(histograms: NDArray[np.float64], clusters: NDArray[Any], distance: Distance) -> float | None:
    is_defined = 2 <= len(set(clusters.tolist())) < len(clusters)
    return class_silhouette(histograms, clusters.tolist(), distance=distance) if is_defined else None


def _purity_of_chance(clusters: NDArray[Any], labels: Sequence[Any]) -> float:
    # Shuffled labels keep the sizes of classes and clusters, which alone lift purity above one over their number.
    generator = np.random.default_rng(0)
    numbers = _numbered(labels)
    return float(np.mean([cluster_purity(clusters, generator.permutation(numbers)) for _ in range(NUM_SHUFFLES)]))


def _checked_codes(clip_codes: ArrayLike, clip: int, num_codebooks: int, codebook_size: int) -> NDArray[np.int64]:
    given = np.asarray(clip_codes)
    if given.size == 0:
        return np.zeros((num_codebooks, 0), dtype=np.int64)
    found = given[None] if given.ndim == 1 and num_codebooks == 1 else given
    if found.ndim != 2 or len(found) != num_codebooks or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"the codes of clip {clip} are {given.dtype} of shape {list(given.shape)}; give integers "
            f"[{num_codebooks}, T]" + (" or [T]" if num_codebooks == 1 else "")
        )
    if found.min() < 0 or found.max() >= codebook_size:
        raise ValueError(
            f"clip {clip} holds codes from {found.min()} to {found.max()}; a codebook of {codebook_size} has 0 to "
            f"{codebook_size - 1}"
        )
    return found.astype(np.int64)


def _check_labels(num_clips: int, labels: Sequence[Any] | NDArray[Any]) -> None:
    if num_clips != len(labels) or num_clips == 0:
        raise ValueError(
            f"{num_clips} clips and {len(labels)} labels: give one label for each clip, and one clip at least"
        )


def _numbered(labels: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    """Labels of any kind as 0, 1, …, in the order of their first appearance."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
