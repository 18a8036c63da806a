"""Tables of the experiment with a real LLM, and the page they go into, from its ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import render
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.training.recipes.launching import TRAINING
from audiollm.training.recipes.marked_page import replace_marked
from audiollm.training.recipes.sap_sae.summary import Metric, show_spread, spread_of

BEGIN, END = "<!-- results: written by training/real.py -->", "<!-- end of results -->"
PAGE = Path("docs/real_llm.md")
UNMEASURED = "–"
# Variant and moment → head of its column.
COLUMNS = {
    ("pretrained", "before"): "the LLM extended, untrained",
    ("pretrained", "after"): "the LLM, adapters trained",
    ("random", "after"): "random weights, all trained",
    ("random_lora", "after"): "random weights, adapters trained",
}


def install_results(results: Mapping[str, Any], project: Path = TRAINING.parent) -> Path:
    """Writes the results into the project's page, and a copy of them to a JSON file beside it.

    Args:
        results: what `training/real.py` collected.
        project: the checkout.

    Returns:
        The page.

    Raises:
        ValueError: if this is no checkout, or its page has no marks.
    """
    page = project / PAGE
    if not page.is_file():
        raise ValueError(f"{page} is not there: results are installed in a checkout of the project only")
    text = replace_marked(page.read_text(encoding="utf-8"), BEGIN, END, results_tables(results))
    write_json(page.with_suffix(".json"), results)
    with atomic_write(page) as file:
        file.write(text)
    return page


def results_tables(results: Mapping[str, Any]) -> str:
    """All tables as Markdown, below a paragraph on when, where and on what."""
    runs = results["runs"]
    columns = {place: head for place, head in COLUMNS.items() if _has(runs, *place)}
    return render(
        Path(__file__).with_name("tables.md.jinja"),
        results=results,
        seeds=sorted({seed for by_seed in runs.values() for seed in by_seed}, key=int),
        scores={
            "head": ["held out", "questions", "commonest answer", *columns.values()],
            "rows": [*_word_error_rates(runs, columns), *_accuracies(runs, columns), *_losses(runs, columns)],
        },
        work={"head": ["", *(head for (_, moment), head in columns.items() if moment == "after")], "rows": _work(runs)},
        examples={"head": ["said", *columns.values()], "rows": _examples(runs, columns)},
    )


def _has(runs: Mapping[str, Any], variant: str, moment: str) -> bool:
    return any(moment in figures for figures in runs.get(variant, {}).values())


def _word_error_rates(runs: Mapping[str, Any], columns: Mapping[tuple[str, str], str]) -> list[list[str]]:
    found = _any_figures(runs)["wer"]
    return [
        [f"word error rate, {corpus}", f"{own['clips']}", UNMEASURED, *_cells(runs, columns, "wer", corpus, "wer")]
        for corpus, own in found.items()
    ]


def _accuracies(runs: Mapping[str, Any], columns: Mapping[tuple[str, str], str]) -> list[list[str]]:
    return [
        [f"accuracy, {task}", f"{own['questions']}", _percent(own["majority"]),
         *_cells(runs, columns, "accuracy", task, "accuracy")]
        for task, own in _any_figures(runs)["accuracy"].items()
    ]  # fmt: skip


def _cells(runs: Mapping[str, Any], columns: Mapping[tuple[str, str], str], *path: str) -> list[str]:
    metrics = {place: Metric(" ".join(path), (place[1], *path), is_share=True) for place in columns}
    return [show_spread(metric, spread_of(metric, runs[variant])) for (variant, _), metric in metrics.items()]


def _losses(runs: Mapping[str, Any], columns: Mapping[tuple[str, str], str]) -> list[list[str]]:
    """Loss of the held-out answers after training, and perplexity of held-out texts at both moments."""
    loss = Metric("loss", ("training", "held_out_loss"))
    losses, perplexities = [], []
    for variant, moment in columns:
        losses.append(show_spread(loss, spread_of(loss, runs[variant])) if moment == "after" else UNMEASURED)
        perplexity = Metric("perplexity", ("training", "text_perplexity", moment))
        perplexities.append(show_spread(perplexity, spread_of(perplexity, runs[variant])))
    return [
        ["loss, nats per answer token", "", UNMEASURED, *losses],
        ["perplexity of held-out texts", "", UNMEASURED, *perplexities],
    ]


def _work(runs: Mapping[str, Any]) -> list[list[str]]:
    rows = {
        "weights": ("parameters",),
        "of them trained": ("training", "trained_parameters"),
        "updates": ("training", "updates"),
        "tokens read": ("training", "tokens"),
        "tokens learned": ("training", "target_tokens"),
        "hours": ("training", "hours"),
        "seconds per update": ("training", "seconds_per_update"),
        "processor seconds per update": ("training", "processor_seconds_per_update"),
    }
    variants = [variant for variant, moment in COLUMNS if moment == "after" and _has(runs, variant, moment)]
    table = []
    for name, path in rows.items():
        metric = Metric(name, path)
        table.append([name, *(show_spread(metric, spread_of(metric, runs[variant])) for variant in variants)])
    return table


def _examples(runs: Mapping[str, Any], columns: Mapping[tuple[str, str], str]) -> list[list[str]]:
    """What the models of the first seed make of the same recordings."""
    heard: dict[tuple[str, str], Sequence[Mapping[str, str]]] = {}
    for variant, moment in columns:
        first = min(runs[variant], key=int)
        heard[variant, moment] = runs[variant][first][moment]["examples"]
    said = [example["said"] for example in _any_figures(runs)["examples"]]
    return [
        [_quoted(text), *(_quoted(found[number]["heard"]) for found in heard.values())]
        for number, text in enumerate(said)
    ]


def _any_figures(runs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Figures of some model: what was asked was the same of all."""
    figures: Mapping[str, Any] = next(figures["after"] for own in runs.values() for figures in own.values())
    return figures


def _quoted(text: str, longest: int = 120) -> str:
    return f"“{text if len(text) <= longest else text[:longest] + '…'}”" if text else "(nothing)"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
