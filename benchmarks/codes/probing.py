"""Linear probes and nearest neighbours on vectors of clips: what a simple reader can tell from a tokenizer.

The recipe is that of X-ARES (LayerNorm and a linear layer on the mean over frames; k nearest neighbours by similarity),
applied to three vectors of a clip: histogram of its codes, mean of the codebook entries, mean of what the quantizer
saw. A second linear reader, logistic regression trained to its optimum, depends on no learning rate.
"""
# Shapes: C clips, D size of a clip's vector, T frames, L classes.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from audiollm.benchmarks.metrics.waveform_pairs import bench_library

Normalisation = Literal["cosine", "published"]
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class ProbeResult:
    """How often a reader names the class of held-out clips."""

    accuracy: float
    """Share of test clips, 0 to 1."""
    accuracy_interval: tuple[float, float]
    """95 % of the accuracies when the test clips are drawn anew with replacement."""
    balanced_accuracy: float
    """Mean of the shares of each class, so that a common class weighs no more than a rare one."""
    majority_accuracy: float
    """What naming the commonest training class every time would reach."""
    num_train: int
    num_test: int
    num_classes: int
    predictions: tuple[Any, ...]
    """Class of each test clip."""

    def figures(self) -> dict[str, Any]:
        """All but the predictions."""
        return {name: value for name, value in vars(self).items() if name != "predictions"}


def masked_mean(features_CTD: Tensor, lengths: Sequence[int] | Tensor) -> Tensor:
    """Mean over the valid frames of each clip.

    Args:
        features_CTD: float, padded, ``[C, T, D]``.
        lengths: valid frames of each clip.

    Returns:
        ``[C, D]``; zeros for a clip without frames.

    Raises:
        ValueError: unless there is one length of 0 to T for each clip.
    """
    lengths_C = torch.as_tensor(lengths, device=features_CTD.device)
    num_clips, num_frames = features_CTD.shape[:2]
    if lengths_C.shape != (num_clips,) or bool((lengths_C < 0).any()) or bool((lengths_C > num_frames).any()):
        raise ValueError(
            f"lengths are {lengths_C.tolist()}; give one from 0 to {num_frames} for each of {num_clips} clips"
        )
    mask_CT = torch.arange(num_frames, device=features_CTD.device) < lengths_C[:, None]
    # where, not a product: what stands in the padding may be NaN.
    sums_CD = torch.where(mask_CT[:, :, None], features_CTD, 0).sum(dim=1)
    return sums_CD / lengths_C.clamp(min=1)[:, None]


def knn_scores(
    train_features: ArrayLike,
    train_labels: Sequence[int] | NDArray[np.int64],
    test_features: ArrayLike,
    *,
    num_classes: int,
    num_neighbours: int = 10,
    temperature: float = 0.07,
    normalisation: Normalisation = "cosine",
) -> Tensor:
    """Votes of the nearest training clips.

    Similarities of the nearest clips go through a softmax; the weights are added up by class.

    Args:
        train_features: ``[C, D]``.
        train_labels: class of each, in [0, L).
        test_features: ``[C', D]``.
        num_classes: L.
        num_neighbours: how many vote; all training clips if there are fewer.
        temperature: divides the similarities.
        normalisation: ``cosine`` scales every clip to length one. ``published`` scales each *dimension* of the training
            clips to length one over all of them, as the code behind X-ARES' published figures does.

    Returns:
        Scores, float32 ``[C', L]``; rows add up to one.

    Raises:
        ValueError: for an unknown normalisation, or no neighbours.
    """
    if normalisation not in ("cosine", "published"):
        raise ValueError(f"normalisation={normalisation!r}: use cosine or published")
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours={num_neighbours}: use at least 1")
    train_CD = F.normalize(_float_matrix(train_features), dim=1 if normalisation == "cosine" else 0)
    test_CD = F.normalize(_float_matrix(test_features), dim=1)
    similarities, neighbours = (test_CD @ train_CD.t()).topk(min(num_neighbours, len(train_CD)), dim=1)
    weights = (similarities / temperature).softmax(dim=1)
    votes = F.one_hot(torch.as_tensor(train_labels)[neighbours], num_classes)
    return (weights[:, :, None] * votes).sum(dim=1)


def knn_probe(
    train_features: ArrayLike,
    train_labels: Sequence[Any],
    test_features: ArrayLike,
    test_labels: Sequence[Any],
    *,
    num_neighbours: int = 10,
    temperature: float = 0.07,
    normalisation: Normalisation = "cosine",
) -> ProbeResult:
    """Names the class of each test clip by its nearest training clips; see `knn_scores`.

    Raises:
        ValueError: as `knn_scores`, or if features and labels do not fit each other.
    """
    classes, numbers = _number_classes(train_features, train_labels, test_features, test_labels)
    scores = knn_scores(
        train_features,
        numbers,
        test_features,
        num_classes=len(classes),
        num_neighbours=num_neighbours,
        temperature=temperature,
        normalisation=normalisation,
    )
    return judge([classes[number] for number in scores.argmax(dim=1).tolist()], train_labels, test_labels)


def linear_probe(
    train_features: ArrayLike,
    train_labels: Sequence[Any],
    test_features: ArrayLike,
    test_labels: Sequence[Any],
    *,
    validation: tuple[ArrayLike, Sequence[Any]] | None = None,
    num_epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 42,
) -> ProbeResult:
    """Trains LayerNorm and a linear layer by X-ARES' recipe: Adam, cosine to a tenth of the learning rate.

    Args:
        train_features: ``[C, D]``.
        train_labels: class of each.
        test_features: ``[C', D]``.
        test_labels: class of each; a class that training does not have is never named.
        validation: features and labels that choose the epoch. None: the last epoch counts. Published figures choose by
            the test clips themselves, which is optimistic; giving those here repeats it.
        num_epochs: passes over the training clips.
        batch_size: clips per update.
        learning_rate: at the start.
        seed: decides initial weights and order.

    Raises:
        ValueError: if features and labels do not fit each other.
    """
    classes, numbers = _number_classes(train_features, train_labels, test_features, test_labels)
    inputs, targets = _float_matrix(train_features), torch.as_tensor(numbers)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # whatever the caller draws next stays what it was
        torch.manual_seed(seed)
        model = nn.Sequential(nn.LayerNorm(inputs.shape[1]), nn.Linear(inputs.shape[1], len(classes)))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    num_updates = num_epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates, eta_min=learning_rate / 10)
    best, predicted = -1.0, [classes[0]] * len(test_labels)
    for _ in range(num_epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(batch_size):
            loss = F.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        # Without validation every epoch passes for the best so far, so that the last one counts.
        score = best + 1 if validation is None else _accuracy(_named(model, validation[0], classes), validation[1])
        if score > best:
            best, predicted = score, _named(model, test_features, classes)
    return judge(predicted, train_labels, test_labels)


def logistic_probe(
    train_features: ArrayLike,
    train_labels: Sequence[Any],
    test_features: ArrayLike,
    test_labels: Sequence[Any],
    *,
    inverse_penalty: float = 0.1,
) -> ProbeResult:
    """Logistic regression on standardized features, trained to its optimum: nothing in it is drawn at random.

    Args:
        train_features: ``[C, D]``.
        train_labels: class of each.
        test_features: ``[C', D]``.
        test_labels: class of each.
        inverse_penalty: scikit-learn's C; smaller is smoother. The default suits fewer clips than dimensions.

    Raises:
        ValueError: if features and labels do not fit each other, or there is only one class to train on.
    """
    _number_classes(train_features, train_labels, test_features, test_labels)
    if len(set(train_labels)) < 2:
        raise ValueError(f"all {len(train_labels)} training clips are {train_labels[0]!r}; a probe needs two classes")
    reader = bench_library("sklearn.pipeline").make_pipeline(
        bench_library("sklearn.preprocessing").StandardScaler(),
        bench_library("sklearn.linear_model").LogisticRegression(C=inverse_penalty, max_iter=1000),
    )
    reader.fit(np.asarray(train_features), np.asarray(train_labels))
    return judge(reader.predict(np.asarray(test_features)).tolist(), train_labels, test_labels)


def judge(predictions: Sequence[Any], train_labels: Sequence[Any], test_labels: Sequence[Any]) -> ProbeResult:
    """Counts how often predictions are right."""
    right = np.array([given == wanted for given, wanted in zip(predictions, test_labels, strict=True)])
    by_class = {label: right[[own == label for own in test_labels]].mean() for label in set(test_labels)}
    # Of equally common classes the first by name: the figure must not depend on the order of a set.
    majority = max(sorted(set(train_labels), key=str), key=list(train_labels).count)
    # One seed: the interval of the same replies is the same in every run.
    draws = np.random.default_rng(0).integers(len(right), size=(NUM_RESAMPLES, len(right)))
    low, high = np.quantile(right[draws].mean(axis=1), (0.025, 0.975))
    return ProbeResult(
        accuracy=float(right.mean()),
        accuracy_interval=(float(low), float(high)),
        balanced_accuracy=float(np.mean(list(by_class.values()))),
        majority_accuracy=float(np.mean([label == majority for label in test_labels])),
        num_train=len(train_labels),
        num_test=len(test_labels),
        num_classes=len(set(train_labels) | set(test_labels)),
        predictions=tuple(predictions),
    )


def weighted_average(scores: Mapping[str, Sequence[tuple[float, float]]]) -> list[float]:
    """Mean over tasks weighted by the size of their test sets, as X-ARES' final figure.

    Args:
        scores: task → (score, weight) for each reader, such as linear probe and kNN; all tasks in the same order.

    Returns:
        One mean per reader; none without tasks.

    Raises:
        ValueError: if tasks have different numbers of readers, or a reader's weights are all zero.
    """
    if len({len(entries) for entries in scores.values()}) > 1:
        raise ValueError(
            f"tasks have {[len(entries) for entries in scores.values()]} scores; give each the same number"
        )
    means = []
    for reader, entries in enumerate(zip(*scores.values(), strict=True)):
        total = sum(weight for _, weight in entries)
        if total <= 0:
            raise ValueError(f"the weights of reader {reader} add up to {total}; give at least one task a weight")
        means.append(sum(score * weight for score, weight in entries) / total)
    return means


def _named(model: nn.Module, features: ArrayLike, classes: Sequence[Any]) -> list[Any]:
    with torch.no_grad():
        return [classes[number] for number in model(_float_matrix(features)).argmax(dim=1).tolist()]


def _accuracy(predictions: Sequence[Any], labels: Sequence[Any]) -> float:
    return float(np.mean([given == wanted for given, wanted in zip(predictions, labels, strict=True)]))


def _float_matrix(features: ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(features, dtype=np.float32))


def _number_classes(
    train_features: ArrayLike, train_labels: Sequence[Any], test_features: ArrayLike, test_labels: Sequence[Any]
) -> tuple[list[Any], NDArray[np.int64]]:
    """The training classes in sorted order, and the number of each training clip's."""
    shapes = np.shape(train_features), np.shape(test_features)
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"features have shapes {shapes[0]} and {shapes[1]}; give [C, D] with the same D")
    if (len(train_labels), len(test_labels)) != (shapes[0][0], shapes[1][0]) or not min(shapes[0][0], shapes[1][0]):
        raise ValueError(
            f"{shapes[0][0]} and {shapes[1][0]} clips have {len(train_labels)} and {len(test_labels)} labels; give "
            "each clip its own, and at least one clip to train and to test"
        )
    classes = sorted(set(train_labels), key=str)  # sets have another order in every process
    return classes, np.array([classes.index(label) for label in train_labels], dtype=np.int64)


PROBES: dict[str, Callable[..., ProbeResult]] = {"linear": linear_probe, "logistic": logistic_probe, "knn": knn_probe}


def probe_by_parts(
    vectors_CD: NDArray[np.float64],
    labels: Sequence[str],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    readers: Sequence[str] = tuple(PROBES),
) -> dict[str, float]:
    """Accuracy of every probe, as the mean over the parts, beside that of the commonest class.

    Args:
        vectors_CD: one vector per clip, ``[C, D]``.
        labels: class of each clip.
        parts: positions to learn from and to be judged on.
        readers: which probes, of `PROBES`.
    """
    figures: dict[str, list[float]] = {}
    for train, held_out in parts:
        given = vectors_CD[train], [labels[clip] for clip in train], vectors_CD[held_out], [labels[c] for c in held_out]
        for name in readers:
            result = PROBES[name](*given)
            figures.setdefault(f"{name}_accuracy", []).append(result.accuracy)
            figures.setdefault(f"{name}_balanced_accuracy", []).append(result.balanced_accuracy)
        figures.setdefault("majority_accuracy", []).append(result.majority_accuracy)
    return {name: float(np.mean(values)) for name, values in figures.items()}
