"""Speaker similarity from a file of speaker vectors, whoever made them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from audiollm.benchmarks.metrics import load_metric


def score_vector_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Scores pairs of speaker vectors.

    Args:
        path: JSON list of objects with ``synthesised`` and ``prompt``, or such a list under ``pairs``.

    Returns:
        What the metric ``speaker_similarity`` gives, and ``n_items``.

    Raises:
        ValueError: the file is not of that form, naming pair and field.
        OSError: it cannot be read.
    """
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    pairs = whole.get("pairs") if isinstance(whole, dict) else whole
    if not isinstance(pairs, list) or not pairs:
        raise ValueError(f"{path} holds no list of pairs; give objects with the vectors synthesised and prompt")
    for number, pair in enumerate(pairs):
        for name in ("synthesised", "prompt"):
            vector = pair.get(name) if isinstance(pair, dict) else None
            is_vector = isinstance(vector, list) and all(
                isinstance(value, (int, float)) and not isinstance(value, bool) for value in vector
            )
            if not is_vector:
                raise ValueError(f"{path}, pair {number}: {name} is {vector!r:.60}; give a list of numbers")
    result = load_metric("speaker_similarity").compute(
        predictions=[pair["synthesised"] for pair in pairs], references=[pair["prompt"] for pair in pairs]
    )
    return {"benchmark": "seed-tts", "n_items": len(pairs), **result}
