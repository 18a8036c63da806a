"""Tables of the evidence, and the page that holds them, from ``results.json`` alone.

python -m audiollm.training.recipes.losatok.report --results runs/losatok_evidence/results.json \
    --page docs/experiments/losatok.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import png, render
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.training.recipes.marked_page import replace_marked
from audiollm.training.recipes.seed_tables import Column, Value, over_seeds, row

from .curves import curves_figure

BEGIN, END = "<!-- results: written by training/recipes/losatok/report.py -->", "<!-- end of results -->"
NAMES = {
    "teacher": "the teacher's own",
    "sembo": "SemBo",
    "sembo-without-relation": "SemBo without time relation",
    "pca": "PCA",
    "svd": "SVD (PCA without centring)",
    "merging": "merged channels",
}
SPACES = {"latents": "latents", "mel": "mel", "features": "features of the teacher"}
RESULTS, CURVES = "results.json", "curves.png"
PARTS = ("small", "kl", "dit")
FIGURES = "figures"  # beside the page
READER = "logistic_accuracy"


@dataclass(frozen=True, kw_only=True)
class LoSATokReportConfig:
    """Writes the results into their page."""

    results: str = "runs/losatok_evidence/results.json"
    """What the experiment wrote."""

    page: str = "docs/experiments/losatok.md"
    """Markdown page; what stands between its two marks is replaced. A copy of the results goes to a JSON file of the
    same name, the picture of the curves into the folder figures/ beside it."""


def write_page(config: LoSATokReportConfig) -> None:
    """Writes tables and the copy of the results.

    Raises:
        ValueError: if the page has no marks, or the results are none.
    """
    results, page = json.loads(Path(config.results).read_text(encoding="utf-8")), Path(config.page)
    if not results.keys() & set(PARTS):
        raise ValueError(
            f"{config.results} is not what recipes/losatok/evidence.py writes: it has none of {', '.join(PARTS)}"
        )
    picture = f"{FIGURES}/{page.stem}_{CURVES}"
    text = replace_marked(page.read_text(encoding="utf-8"), BEGIN, END, results_tables(results, picture))
    write_json(page.with_suffix(".json"), results)
    _write_curves(results, page.parent / picture)
    with atomic_write(page) as file:
        file.write(text)


def write_tables(results: Mapping[str, Any], folder: Path) -> str:
    """Writes results, tables and, of transformers, the picture of their curves; returns the tables."""
    write_json(folder / RESULTS, results)
    text = results_tables(results, CURVES)
    with atomic_write(folder / "tables.md") as file:
        file.write(text)
    _write_curves(results, folder / CURVES)
    return text


def _write_curves(results: Mapping[str, Any], path: Path) -> None:
    if results.get("dit"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(curves_figure(results["dit"], SPACES, READER)))


def results_tables(results: Mapping[str, Any], picture: str) -> str:
    """All tables as Markdown, below a paragraph on when, where and on what.

    Args:
        results: of the experiment, or so much of it as has come out.
        picture: address of the curves.
    """
    small, dit = results.get("small", {}), results.get("dit")
    return render(
        Path(__file__).with_name("tables.md.jinja"),
        date=results["date"],
        machine=results["machine"],
        torch=results["versions"]["torch"],
        seeds=results["settings"]["seeds"],
        is_complete=results.get("is_complete", True),
        data=results["data"],
        ranks=_rank_table(small) if small else None,
        small={teacher: _small_table(rows, results["data"]) for teacher, rows in small.items()},
        kl=_kl_table(results["kl"], results["data"]) if results.get("kl") else None,
        dit=_dit_table(dit, results["data"]) if dit else None,
        steps=_last(next(iter(next(iter(dit.values())).values())))["step"] if dit else None,
        picture=picture,
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
    columns: list[Column] = [(f"{task} ↑", "{:.1f}", _probe(task)) for task in data]
    columns += [
        ("reconstruction × 1000 ↓", "{:.3f}", lambda figures: 1000 * figures["reconstruction"]),
        ("time relation × 1000 ↓", "{:.2f}", lambda figures: 1000 * figures["relation"]),
        ("effective rank", "{:.1f}", lambda figures: figures["effective_rank"]),
    ]
    rows = []
    for name, by_seed in own.items():
        size, method = name.split("/")
        rows.append([size, NAMES[method], *(over_seeds(by_seed, form, value) for _, form, value in columns)])
    chance = next(iter(own.values()))["-"]["probes"]
    commonest = [f"{100 * chance[task]['majority_accuracy']:.1f}" for task in data]
    rows.append(["–", "the commonest class", *commonest, "–", "–", "–"])
    return {"head": ["numbers", "features", *(title for title, _, _ in columns)], "rows": rows}


def _kl_table(kl: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    columns: list[Column] = [
        ("mel distance ↓", "{:.3f}", lambda figures: figures["mel_distance"]),
        ("MCD (dB) ↓", "{:.2f}", lambda figures: figures["mcd"]),
        ("divergence (nats per token)", "{:.1f}", lambda figures: figures["kl"]),
        ("collapsed dimensions ↓", "{:.1f}", lambda figures: figures["collapsed_dimensions"]),
        ("effective rank", "{:.1f}", lambda figures: figures["effective_rank"]),
        *((f"{task}, probe (% right) ↑", "{:.1f}", _probe(task)) for task in data),
        *((f"made: {title}", form, _of_generation(value)) for title, form, value in _made_columns(data)),
    ]
    rows = [row([weight], by_seed, columns) for weight, by_seed in kl.items()]
    return {"head": ["weight", "seeds", *(title for title, _, _ in columns)], "rows": rows}


def _dit_table(dit: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    columns: list[Column] = [
        ("weights (millions)", "{:.2f}", lambda figures: figures["weights"] / 1e6),
        ("loss", "{:.3f}", lambda figures: _last(figures)["loss"]),
        *_made_columns(data),
        *((f"{task}, on the numbers themselves ↑", "{:.1f}", _own_probe(task)) for task in data),
    ]
    rows, spaces = [], dict[str, tuple[str, Mapping[str, Any]]]()
    for name, by_seed in dit.items():
        space, width = name.split("/")
        size = str(next(iter(by_seed.values()))["size"])
        rows.append(row([f"{SPACES[space]}, made", size, width], by_seed, columns))
        spaces.setdefault(space, (size, by_seed))
    # What a perfect transformer would reach: recordings that went into the space and, where they can, back to sound.
    heard = [("heard", form, _heard(value)) for _, form, value in _heard_columns(data)]
    for space, (size, by_seed) in spaces.items():
        [*known] = (over_seeds(by_seed, form, value) for _, form, value in heard)
        rows.append([f"{SPACES[space]}, of recordings", size, "–", str(len(by_seed)), "–", "–", "–", *known])
        rows[-1] += ["–"] * len(data)
    return {"head": ["frames", "numbers", "width", "seeds", *(title for title, _, _ in columns)], "rows": rows}


def _made_columns(data: Mapping[str, Any]) -> list[Column]:
    """Of what a transformer makes after its last update."""
    return [
        ("loss over that of a linear reader ↓", "{:.3f}", lambda figures: _last(figures)["relative_loss"]),
        *((title, form, _of_last(_heard(value))) for title, form, value in _heard_columns(data)),
    ]


def _heard_columns(data: Mapping[str, Any]) -> list[Column]:
    """Of what the teacher hears."""
    return [
        ("distance heard ↓", "{:.3f}", lambda heard: heard["distance"]),
        *((f"{task} heard (%) ↑", "{:.1f}", _probe(task)) for task in data),
    ]


def _heard(value: Value) -> Value:
    return lambda figures: value(figures["heard"])


def _of_last(value: Value) -> Value:
    return lambda figures: value(_last(figures))


def _of_generation(value: Value) -> Value:
    return lambda figures: value(figures["generation"])


def _own_probe(task: str) -> Value:
    return _of_last(_probe(task))


def _last(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """The end of a curve."""
    point: Mapping[str, Any] = figures["curve"][-1]
    return point


def _probe(task: str) -> Value:
    return lambda figures: 100 * figures["probes"][task][READER]


if __name__ == "__main__":
    run_program(LoSATokReportConfig, write_page, name="losatok.report")
