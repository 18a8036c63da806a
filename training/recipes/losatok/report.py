"""Tables of the evidence, and the page that holds them, from ``results.json`` alone.

python -m audiollm.training.recipes.losatok.report --results runs/losatok_evidence/results.json \
    --page docs/experiments/losatok.md
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import render
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.training.recipes.marked_page import replace_marked

BEGIN, END = "<!-- results: written by training/recipes/losatok/report.py -->", "<!-- end of results -->"
NAMES = {
    "teacher": "the teacher's own",
    "sembo": "SemBo",
    "sembo-without-relation": "SemBo without time relation",
    "pca": "PCA",
    "svd": "SVD (PCA without centring)",
    "merging": "merged channels",
}
READER = "logistic_accuracy"
Value = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True, kw_only=True)
class LoSATokReportConfig:
    """Writes the results into their page."""

    results: str = "runs/losatok_evidence/results.json"
    """What the experiment wrote."""

    page: str = "docs/experiments/losatok.md"
    """Markdown page; what stands between its two marks is replaced. A copy of the results goes to a JSON file of the
    same name."""


def write_page(config: LoSATokReportConfig) -> None:
    """Writes tables and the copy of the results.

    Raises:
        ValueError: if the page has no marks, or the results are none.
    """
    results, page = json.loads(Path(config.results).read_text(encoding="utf-8")), Path(config.page)
    if "small" not in results and "kl" not in results:
        raise ValueError(
            f"{config.results} is not what recipes/losatok/evidence.py writes: it has neither small nor kl"
        )
    text = replace_marked(page.read_text(encoding="utf-8"), BEGIN, END, results_tables(results))
    write_json(page.with_suffix(".json"), results)
    with atomic_write(page) as file:
        file.write(text)


def results_tables(results: Mapping[str, Any]) -> str:
    """All tables as Markdown, below a paragraph on when, where and on what."""
    small = results.get("small", {})
    return render(
        Path(__file__).with_name("tables.md.jinja"),
        date=results["date"],
        machine=results["machine"],
        torch=results["versions"]["torch"],
        seeds=results["settings"]["seeds"],
        data=results["data"],
        ranks=_rank_table(small) if small else None,
        small={teacher: _small_table(rows, results["data"]) for teacher, rows in small.items()},
        kl=_kl_table(results["kl"], results["data"]) if results.get("kl") else None,
    )


def _rank_table(small: Mapping[str, Any]) -> dict[str, Any]:
    head = ["teacher", "numbers", "frames", "effective rank", "share", "directions for 95 % of the variance"]
    rows = []
    for teacher, own in small.items():
        figures = own["full/teacher"]["-"]
        everything, size = figures["ranks"]["all"], figures["feature_size"]
        rank = everything["effective_rank"]
        rows.append(
            [
                teacher,
                str(size),
                f"{everything['frames']:,}",
                f"{rank:.1f}",
                f"{100 * rank / size:.0f} %",
                str(everything["directions_of_95_percent"]),
            ]
        )
    return {"head": head, "rows": rows}


def _small_table(own: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    columns: list[tuple[str, str, Value]] = [(f"{task} ↑", "{:.1f}", _probe(task)) for task in data]
    columns += [
        ("reconstruction × 1000 ↓", "{:.3f}", lambda figures: 1000 * figures["reconstruction"]),
        ("time relation × 1000 ↓", "{:.2f}", lambda figures: 1000 * figures["relation"]),
        ("effective rank", "{:.1f}", lambda figures: figures["effective_rank"]),
    ]
    rows = []
    for name, by_seed in own.items():
        size, method = name.split("/")
        rows.append([size, NAMES[method], *(_over_seeds(by_seed, form, value) for _, form, value in columns)])
    chance = next(iter(own.values()))["-"]["probes"]
    commonest = [f"{100 * chance[task]['majority_accuracy']:.1f}" for task in data]
    rows.append(["–", "the commonest class", *commonest, "–", "–", "–"])
    return {"head": ["numbers", "features", *(title for title, _, _ in columns)], "rows": rows}


def _kl_table(kl: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    columns: list[tuple[str, str, Value]] = [
        ("mel distance ↓", "{:.3f}", lambda figures: figures["mel_distance"]),
        ("MCD (dB) ↓", "{:.2f}", lambda figures: figures["mcd"]),
        ("divergence (nats per token)", "{:.1f}", lambda figures: figures["kl"]),
        ("collapsed dimensions ↓", "{:.1f}", lambda figures: figures["collapsed_dimensions"]),
        ("effective rank", "{:.1f}", lambda figures: figures["effective_rank"]),
        *((f"{task}, probe (% right) ↑", "{:.1f}", _probe(task)) for task in data),
    ]
    rows = [
        [weight, *(_over_seeds(by_seed, form, value) for _, form, value in columns)] for weight, by_seed in kl.items()
    ]
    return {"head": ["weight", *(title for title, _, _ in columns)], "rows": rows}


def _probe(task: str) -> Value:
    return lambda figures: 100 * figures["probes"][task][READER]


def _over_seeds(by_seed: Mapping[str, Mapping[str, Any]], form: str, value: Value) -> str:
    values: Sequence[float] = [value(figures) for figures in by_seed.values()]
    mean = form.format(statistics.fmean(values))
    return mean if len(values) < 2 else f"{mean} ± {form.format(statistics.stdev(values))}"


if __name__ == "__main__":
    run_program(LoSATokReportConfig, write_page, name="losatok.report")
