"""Clustering of code sequences that are in a file: anybody's codes can be scored, without audio and tokenizer.

Example::

    python benchmarks/clustering.py --codes codes.jsonl --output clustering.json
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from audiollm.benchmarks.codes.clustering import Distance, Scale
from audiollm.benchmarks.codes.files import measure_codes, read_labelled_codes
from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import write_figures
from audiollm.benchmarks.harness.identity import file_identity
from audiollm.facts import show_facts


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """One file of code sequences."""

    codes: str
    """JSONL of clips with codes (or tokens) and label; or JSON with lists tokens and labels."""
    output: str | None = None
    """File for the result as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    codebook_size: int | None = None
    """How many codes there are; as the file says, or up to its largest code, if not given."""
    label_key: str = "label"
    """Key of the class in JSONL."""
    scale: Scale = "l1"
    """Of the histograms that k-means clusters and whose silhouette is the headline: shares, counts, or length one."""
    distance: Distance = "euclidean"
    """Of the silhouette."""
    num_clusters: int | None = None
    """Of k-means; the number of classes if not given."""
    num_restarts: int = 10
    """Starts of k-means, of which the tightest counts."""
    num_seeds: int = 10
    """Runs of k-means, to show the spread."""
    json: bool = False
    """Print the result as JSON."""


def cluster_file(config: ClusteringConfig) -> dict[str, Any]:
    """Scores a file of code sequences.

    Returns:
        The figures of `measure_codes`; those of each case under ``cases`` where the file holds several.

    Raises:
        ValueError: the file is not of the form that `read_labelled_codes` reads, naming place and field.
        OSError: it cannot be read.
    """
    settings = {
        name: getattr(config, name) for name in ("scale", "distance", "num_clusters", "num_restarts", "num_seeds")
    }
    sets = read_labelled_codes(config.codes, codebook_size=config.codebook_size, label_key=config.label_key)
    measured = [measure_codes(clips, **settings) for clips in sets]
    found = measured[0] if len(measured) == 1 else {"cases": measured}
    return {"benchmark": "clustering", "settings": settings, **found, "predictions": file_identity(config.codes)}


def run(config: ClusteringConfig) -> None:
    """How well histograms of codes tell classes apart: silhouette, purity and mutual information."""
    result = cluster_file(config)
    write_figures(result, config.output)
    names = ("n_clips", "n_classes", "silhouette", "purity", "purity_range", "nmi", "problem")
    for case in result.get("cases", [result]):
        shown = {name: case[name] for name in names if case.get(name) is not None}
        show_facts(shown, title=case["case"], as_json=config.json)


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="clustering")
