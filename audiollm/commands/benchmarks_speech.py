"""Benchmarks of spoken audio and of audio tokenizers: what ``audiollm bench`` calls for them."""

from __future__ import annotations

from typing import Literal

from .console import show


def score_seed_tts_pairs(
    *, pairs: str, language: Literal["en", "zh"], output: str | None = None, json: bool = False
) -> None:
    """Word (Mandarin: character) error rate of transcripts, exactly as seed-tts-eval computes it.

    Args:
        pairs: JSONL or JSON list of objects with id, hypothesis (what was heard) and reference (what was to be said).
        language: of the texts.
        output: file for the result as JSON.
        json: print the result without its utterances as JSON.
    """
    from audiollm.benchmarks.figures_output import write_figures
    from audiollm.benchmarks.seed_tts_pairs import read_pairs, score_pairs

    result = score_pairs(read_pairs(pairs), language) | {"pairs": pairs}
    write_figures(result, output)
    shown = {
        "utterances": result["n_items"],
        "references without words": result["num_empty_references"],
        "published figure": result["averaged"]["printed"],
        "left out of it": len(result["averaged"]["left_out"]),
        "mean of all": result["wer_of_all"],
        "errors over words": result["corpus_level"]["wer"],
        "mean without apostrophes": result["apostrophes_removed_too"],
    }
    _show_rates(shown, as_json=json, title=f"seed-tts-eval, {language}")


def score_seed_tts_voices(*, pairs: str, output: str | None = None, json: bool = False) -> None:
    """Speaker similarity of pairs of speaker vectors, as seed-tts-eval reports it.

    Args:
        pairs: JSON with pairs (a list, or one under "pairs") of objects with the vectors synthesised and prompt.
        output: file for the result as JSON.
        json: print the result without its pairs as JSON.
    """
    from audiollm.benchmarks.figures_output import write_figures
    from audiollm.benchmarks.seed_tts_voices import score_vector_file

    result = score_vector_file(pairs)
    write_figures(result, output)
    shown = {name: value for name, value in result.items() if name not in ("scores", "benchmark")}
    _show_rates(shown, as_json=json, title="speaker similarity")


def cluster(
    *,
    codes: str,
    output: str | None = None,
    codebook_size: int | None = None,
    label_key: str = "label",
    scale: Literal["l1", "counts", "l2"] = "l1",
    distance: Literal["euclidean", "cosine"] = "euclidean",
    num_clusters: int | None = None,
    num_restarts: int = 10,
    num_seeds: int = 10,
    json: bool = False,
) -> None:
    """How well histograms of codes tell classes apart: silhouette, purity and mutual information.

    Args:
        codes: JSONL of clips with codes (or tokens) and label; or JSON with lists tokens and labels.
        output: file for the result as JSON.
        codebook_size: how many codes there are; as the file says, or up to its largest code, if not given.
        label_key: key of the class in JSONL.
        scale: of the histograms: shares, counts, or length one.
        distance: of the silhouette.
        num_clusters: of k-means; the number of classes if not given.
        num_restarts: starts of k-means, of which the tightest counts.
        num_seeds: runs of k-means, to show the spread.
        json: print the result as JSON.
    """
    from audiollm.benchmarks.code_clustering import cluster_file
    from audiollm.benchmarks.figures_output import write_figures

    result = cluster_file(
        codes,
        codebook_size=codebook_size,
        label_key=label_key,
        scale=scale,
        distance=distance,
        num_clusters=num_clusters,
        num_restarts=num_restarts,
        num_seeds=num_seeds,
    )
    write_figures(result, output)
    names = ("n_clips", "n_classes", "silhouette", "purity", "purity_range", "nmi", "problem")
    for case in result.get("cases", [result]):
        shown = {name: case[name] for name in names if case.get(name) is not None}
        _show_rates(shown, as_json=json, title=case["case"])


def _show_rates(facts: dict[str, object], *, as_json: bool, title: str) -> None:
    """As ``show``; rates keep the digits that tell them apart."""
    if not as_json:
        facts = {name: f"{value:.5f}" if isinstance(value, float) else value for name, value in facts.items()}
    show(facts, as_json=as_json, title=title)
