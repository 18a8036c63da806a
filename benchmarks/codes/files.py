"""Clustering of code sequences that are in a file: anybody's can be scored, without audio and tokenizer.

All readings that the published figures leave open are given side by side: three scales of the histograms, two
distances, and k-means with several seeds.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiollm.data.files.json_lines import read_numbered_lines

from .clustering import (
    DISTANCES,
    SCALES,
    Distance,
    Scale,
    class_silhouette,
    clip_silhouettes,
    cluster_codes,
    cluster_purity,
    code_histograms,
)

logger = logging.getLogger(__name__)

LABEL_KEY = "label"  # of a class, in JSONL
CODES_KEYS = ("codes", "tokens")
TOKENIZER_KEY = "audio_tokenizer"  # fingerprint of what made the codes, as audiollm tokenize writes it


@dataclass(frozen=True)
class LabelledCodes:
    """Code sequences with classes."""

    name: str
    codes: list[Any]
    """``[T_i]`` each, or ``[K, T_i]`` of several codebooks."""
    labels: list[Any]
    codebook_size: int
    num_codebooks: int = 1
    clusters: list[Any] | None = None
    """A clustering whose purity is wanted too."""


def read_labelled_codes(
    path: str | os.PathLike[str], *, codebook_size: int | None = None, label_key: str = LABEL_KEY
) -> list[LabelledCodes]:
    """Reads code sequences with classes.

    The file is JSONL with one clip a line (``codes`` or ``tokens``, and its class), or JSON with all clips in lists
    (``tokens`` or ``codes``, ``labels``, and if wanted ``vocab_size`` and ``clusters``), or several of those under
    ``cases``.

    Args:
        path: the file.
        codebook_size: V; what the file says, or else the largest code and one, if None.
        label_key: key of the class in JSONL.

    Raises:
        ValueError: the file is not of that form, naming place and field.
        OSError: it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and ("cases" in whole or "labels" in whole) and label_key != LABEL_KEY:
        raise ValueError(f"label_key={label_key}: {path} holds its classes in lists called labels; leave it out")
    if isinstance(whole, dict) and isinstance(whole.get("cases"), list):
        return [
            _set_of_clips(case, f"{path}, case {number}", codebook_size) for number, case in enumerate(whole["cases"])
        ]
    if isinstance(whole, dict) and "labels" in whole:
        return [_set_of_clips(whole, str(path), codebook_size)]
    if whole is not None:
        rows = _rows(whole, path)
    else:
        rows = [(f"{path}:{number}", row) for number, row in read_numbered_lines(path)]
    return [_from_rows(rows, path, codebook_size, label_key)]


def measure_codes(
    clips: LabelledCodes,
    *,
    scale: Scale = "l1",
    distance: Distance = "euclidean",
    num_clusters: int | None = None,
    num_restarts: int = 10,
    num_seeds: int = 10,
) -> dict[str, Any]:
    """All figures of one set of clips; settings as in `.clustering.cluster_codes`.

    Where there is one class, or as many as clips, nothing says how far classes are apart: those figures are None and
    ``problem`` says why.
    """
    description = {
        "case": clips.name,
        "n_clips": len(clips.labels),
        "n_classes": len(set(clips.labels)),
        "codebook_size": clips.codebook_size,
    }
    given = None if clips.clusters is None else cluster_purity(clips.clusters, clips.labels)
    silhouettes, problem = _silhouettes(clips)
    if problem is not None:
        logger.warning("%s: %s", clips.name, problem)
        nothing = dict.fromkeys(("silhouette", "purity", "nmi"))
        return description | nothing | _named(silhouettes, given) | {"problem": problem}
    result = cluster_codes(
        clips.codes,
        clips.labels,
        clips.codebook_size,
        num_codebooks=clips.num_codebooks,
        scale=scale,
        distance=distance,
        num_clusters=num_clusters,
        num_restarts=num_restarts,
        seeds=range(num_seeds),
    )
    kmeans = {
        "n_clusters": result.num_clusters,
        "n_init": num_restarts,
        "seeds": list(range(num_seeds)),
        "purity": list(result.purities),
        "purity_min": min(result.purities),
        "purity_max": max(result.purities),
        "nmi": list(result.nmis),
        "nmi_min": min(result.nmis),
        "nmi_max": max(result.nmis),
        "silhouette_with_cluster_labels": list(result.cluster_silhouettes),
    }
    headline = {"silhouette": result.silhouette, "purity": result.purity, "nmi": result.nmi}
    spread = {
        "purity_mean": result.purity_mean,
        "purity_range": list(result.purity_range),
        "purity_of_chance": result.purity_of_chance,
        "nmi_mean": result.nmi_mean,
    }
    histograms = code_histograms(clips.codes, clips.codebook_size, num_codebooks=clips.num_codebooks, scale=scale)
    of_clips = clip_silhouettes(histograms, clips.labels, distance=distance).tolist()
    details = {
        f"silhouette_per_clip_{scale}_{distance}": of_clips,
        f"kmeans_{scale}_euclidean": kmeans,
        "problem": None,
    }
    return description | headline | spread | _named(silhouettes, given) | details


def _named(silhouettes: Mapping[str, float | None], given: float | None) -> dict[str, Any]:
    return {"silhouette_with_class_labels": dict(silhouettes), "purity_of_given_clusters": given}


def _silhouettes(clips: LabelledCodes) -> tuple[dict[str, float | None], str | None]:
    """Silhouette of each reading, and why there is none if there is none."""
    found: dict[str, float | None] = {}
    problem = None
    for scale in SCALES:
        histograms = code_histograms(
            clips.codes,
            clips.codebook_size,
            num_codebooks=clips.num_codebooks,
            scale=scale,  # type: ignore[arg-type]
        )
        for distance in DISTANCES:
            name = f"{scale}/{distance}"
            if not 2 <= len(set(clips.labels)) < len(clips.labels):
                found[name] = None
                problem = f"{len(clips.labels)} clips of {len(set(clips.labels))} classes have no silhouette"
            else:
                found[name] = class_silhouette(histograms, clips.labels, distance=distance)  # type: ignore[arg-type]
    return found, problem


# --- reading ----------------------------------------------------------------------------------------------------------


def _rows(whole: Any, path: str | os.PathLike[str]) -> list[tuple[str, Any]]:
    if not isinstance(whole, (list, dict)):
        raise ValueError(f"{path} holds a {type(whole).__name__}; give clips with codes and their class")
    found = whole if isinstance(whole, list) else [whole]
    return [(f"{path}, clip {number}", row) for number, row in enumerate(found)]


def _from_rows(
    rows: Sequence[tuple[str, Any]], path: str | os.PathLike[str], codebook_size: int | None, label_key: str
) -> LabelledCodes:
    if not rows:
        raise ValueError(f"{path} holds no clips; give objects with codes and {label_key}")
    codes, labels = [], []
    tokenizers: dict[str, str] = {}
    for location, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{location} is a {type(row).__name__}; give an object with codes and {label_key}")
        if (tokenizer := row.get(TOKENIZER_KEY)) is not None:
            tokenizers.setdefault(str(tokenizer), location)
            if len(tokenizers) > 1:
                first, other = tokenizers.items()
                raise ValueError(
                    f"{other[1]}: its codes are of tokenizer {other[0]:.19}, those of {first[1]} of {first[0]:.19}; "
                    "codes of different tokenizers do not compare: tokenize all clips with one"
                )
        label = row.get(label_key)
        if not isinstance(label, (str, int)):
            raise ValueError(
                f"{location}: {label_key} is {label!r}; give the class of the clip, a text or a whole number"
            )
        labels.append(label)
        codes.append(_codes(_first_of(row, CODES_KEYS), location))
    return _checked(LabelledCodes(str(path), codes, labels, codebook_size or 0))


def _set_of_clips(case: Any, location: str, codebook_size: int | None) -> LabelledCodes:
    if not isinstance(case, dict):
        raise ValueError(f"{location} is a {type(case).__name__}; give an object with tokens and labels")
    codes: Any = _first_of(case, CODES_KEYS)
    labels: Any = case.get("labels")
    clusters: Any = case.get("clusters")
    for name, value in (("tokens", codes), ("labels", labels), ("clusters", [] if clusters is None else clusters)):
        if not isinstance(value, list):
            raise ValueError(f"{location}: {name} is {value!r:.60}; give a list with an entry for each clip")
    size = codebook_size or _first_of(case, ("codebook_size", "vocab_size")) or 0
    if not isinstance(size, int):
        raise ValueError(f"{location}: vocab_size is {size!r}; give a whole number")
    read = [_codes(clip_codes, f"{location}, clip {number}") for number, clip_codes in enumerate(codes)]
    return _checked(LabelledCodes(str(case.get("case", location)), read, labels, size, clusters=clusters))


def _first_of(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _codes(clip_codes: Any, location: str) -> Any:
    if not isinstance(clip_codes, list):
        raise ValueError(f"{location}: codes are {clip_codes!r:.60}; give a list of whole numbers")
    is_nested = bool(clip_codes) and all(isinstance(codebook, list) for codebook in clip_codes)
    codebooks = clip_codes if is_nested else [clip_codes]
    for codebook in codebooks:
        # bool is an int to Python, but true is no code.
        if any(isinstance(code, bool) or not isinstance(code, int) or code < 0 for code in codebook):
            raise ValueError(f"{location}: codes hold {codebook!r:.60}; give whole numbers from 0")
    lengths = [len(codebook) for codebook in codebooks]
    if len(set(lengths)) > 1:
        raise ValueError(f"{location}: its codebooks have {lengths} codes; give each the same number")
    return clip_codes


def _checked(clips: LabelledCodes) -> LabelledCodes:
    """Fills in how many codebooks and codes there are."""
    if len(clips.codes) != len(clips.labels) or not clips.labels:
        raise ValueError(
            f"{clips.name}: {len(clips.codes)} clips and {len(clips.labels)} labels; give one label for each clip, and "
            "one clip at least"
        )
    for label in (*clips.labels, *(clips.clusters or ())):
        if not isinstance(label, (str, int)):
            raise ValueError(f"{clips.name}: a label is {label!r}; give texts or whole numbers")
    nested = {len(codes) for codes in clips.codes if codes and isinstance(codes[0], list)}
    largest = max((int(np.max(codes)) for codes in clips.codes if np.size(codes)), default=0)
    return LabelledCodes(
        clips.name,
        clips.codes,
        clips.labels,
        clips.codebook_size or largest + 1,
        num_codebooks=max(nested, default=1),
        clusters=clips.clusters,
    )
