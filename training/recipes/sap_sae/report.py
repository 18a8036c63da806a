"""Tables, pictures and page of the experiment with SAP and SAE, from its ``results.json`` alone.

python -m audiollm.training.recipes.sap_sae.report --results runs/sap_sae/results.json \
    --page docs/experiments/sap_sae.md
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from audiollm.benchmarks.harness.page import render
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.training.recipes.marked_page import replace_marked
from audiollm.training.recipes.sap_sae.summary import (
    CLASS_PROBE,
    CODE_METRICS,
    MAIN_METRICS,
    PROBE_READERS,
    PROBE_VIEWS,
    PURITY,
    SAP_METRICS,
    SILHOUETTE,
    WER,
    Metric,
    find_claims,
    gate_metric,
    mix_metric,
    probe_metric,
    show_spread,
    snrs_of,
    spread_of,
)

BEGIN, END = "<!-- results: written by training/recipes/sap_sae/report.py -->", "<!-- end of results -->"
FIGURES = {"codes": "codes and words of the variants", "gates": "mean gate by kind of sound and by level of music"}
COLOURS = {
    "untrained": "tab:gray", "asr": "tab:cyan", "asr+sae": "tab:blue", "sap": "tab:orange", "sap+sae": "tab:red",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SapSaeReportConfig:
    """Writes the experiment's results into its page."""

    results: str = "runs/sap_sae/results.json"
    """What the experiment wrote."""

    page: str = "docs/experiments/sap_sae.md"
    """Markdown page; what stands between its two marks is replaced. Pictures go to ``figures`` beside it, and a copy of
    the results to a JSON file of the same name."""


def write_page(config: SapSaeReportConfig) -> None:
    """Writes tables, pictures and the copy of the results.

    Raises:
        ValueError: if the page has no marks, or the results are none.
    """
    results, page = json.loads(Path(config.results).read_text(encoding="utf-8")), Path(config.page)
    if "runs" not in results:
        raise ValueError(f"{config.results} is not what sap_sae_experiment.py writes: it has no 'runs'")
    text = fill_page(page.read_text(encoding="utf-8"), results)
    draw_figures(results, page.parent / "figures", prefix=f"{page.stem}_")
    write_json(page.with_suffix(".json"), results)
    with atomic_write(page) as file:
        file.write(text)


def fill_page(page: str, results: Mapping[str, Any], *, stem: str = "sap_sae") -> str:
    """The page with everything between the marks replaced by the results.

    Raises:
        ValueError: if it does not have both marks, once each and in order.
    """
    pictures = "\n".join(f"![{description}](figures/{stem}_{name}.png)" for name, description in FIGURES.items())
    return replace_marked(page, BEGIN, END, f"{results_tables(results)}\n{pictures}\n")


# ----------------------------------------------------------------------- tables


def results_tables(results: Mapping[str, Any]) -> str:
    """All tables as Markdown, below a paragraph on when, where and on what."""
    runs, machine = results["runs"], results["machine"]
    with_gate, with_sap = _variants_with("gates", runs), _variants_with("sap", runs)
    gated = [figures for by_seed in with_gate.values() for figures in by_seed.values()]
    kinds = _keys_of(figures["gates"]["by_kind"] for figures in gated)
    snrs = snrs_of(gated[0]) if gated else []
    seconds = [
        sum(stage["seconds"] for stage in figures["training"].values())
        for variant, by_seed in runs.items()
        for figures in by_seed.values()
        if variant != "untrained"
    ]
    return render(
        Path(__file__).with_name("tables.md.jinja"),
        date=results["date"],
        device=machine["gpu"] or f"{machine['cores']} cores, {machine['processor']}",
        torch=machine["versions"]["torch"],
        seeds=sorted({seed for by_seed in runs.values() for seed in by_seed}, key=int),
        settings=results["settings"],
        training_minutes=statistics.fmean(seconds) / 60 if seconds else None,
        data=results["data"],
        main=_table(runs, MAIN_METRICS, [_chance_row(runs)]),
        claims=_claim_rows(runs),
        codebook=_table(runs, CODE_METRICS),
        gates_by_kind=_table(with_gate, [gate_metric(kind) for kind in kinds]) if with_gate else None,
        gates_by_snr=_table(with_gate, [mix_metric(snr) for snr in snrs]),
        descriptions=_table(with_sap, SAP_METRICS) if with_sap else None,
        class_probes=_table(runs, _probe_metrics("class")),
        type_probes=_table(runs, _probe_metrics("type", balanced=True)),
    )


def _claim_rows(runs: Mapping[str, Any]) -> list[list[str]]:
    """One row for each claim: what was measured of it, and whether it shows."""
    return [
        [
            claim.text,
            show_spread(claim.metric, claim.effect, signed=True),
            f"{claim.num_agreeing} of {claim.effect.num_seeds}" if claim.expected else "–",
            claim.verdict,
        ]
        for claim in find_claims(runs)
    ]


def _probe_metrics(what: str, *, balanced: bool = False) -> list[Metric]:
    return [probe_metric(what, view, reader, balanced=balanced) for view in PROBE_VIEWS for reader in PROBE_READERS]


def _chance_row(runs: Mapping[str, Any]) -> list[str]:
    everything = {
        f"{variant}/{seed}": figures for variant, by_seed in runs.items() for seed, figures in by_seed.items()
    }
    chances = {
        PURITY: Metric("", ("clustering", "purity_of_chance")),
        CLASS_PROBE: Metric("", ("sound_class_probes", "entries", "majority_accuracy"), is_share=True),
    }
    cells = []
    for metric in MAIN_METRICS:
        chance = chances.get(metric)
        spread = None if chance is None else spread_of(chance, everything)
        cells.append("–" if chance is None or spread is None else chance.show(spread.mean))
    cells[[metric.title for metric in MAIN_METRICS].index("type probe")] = "33.3 %"
    return ["chance", *cells]


def _table(
    runs: Mapping[str, Any], metrics: Sequence[Metric], more_rows: Sequence[Sequence[str]] = ()
) -> dict[str, Sequence[Any]]:
    """Arguments of `markdown_table`: a row for each variant, a column for each metric."""
    arrows = {True: " ↑", False: " ↓", None: ""}
    head = ["", *(metric.title + arrows[metric.higher_is_better] for metric in metrics)]
    rows = [
        [variant, *(show_spread(metric, spread_of(metric, seeds)) for metric in metrics)]
        for variant, seeds in runs.items()
    ]
    return {"head": head, "rows": [*rows, *more_rows]}


def _variants_with(key: str, runs: Mapping[str, Any]) -> dict[str, Any]:
    """The variants of which any run has such figures."""
    return {name: by_seed for name, by_seed in runs.items() if any(figures.get(key) for figures in by_seed.values())}


def _keys_of(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


# ---------------------------------------------------------------------- pictures


def draw_figures(results: Mapping[str, Any], folder: Path, *, prefix: str = "") -> None:
    """Writes ``codes.png``, bars of the main figures, and ``gates.png``; whiskers are standard deviations."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = results["runs"]
    for name, figure in (("codes", _bars(runs)), ("gates", _gates(runs))):
        FigureCanvasAgg(figure)
        figure.savefig(folder / f"{prefix}{name}.png", dpi=100)


def _bars(runs: Mapping[str, Any]) -> Figure:
    metrics = (SILHOUETTE, PURITY, CLASS_PROBE, WER)
    figure = Figure(figsize=(3 * len(metrics), 3.2), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for position, (variant, by_seed) in enumerate(runs.items()):
            spread = spread_of(metric, by_seed)
            if spread is not None:
                axes.bar(position, spread.mean, color=COLOURS[variant], yerr=spread.deviation or 0, capsize=4)
            values = [value for figures in by_seed.values() if (value := metric.of(figures)) is not None]
            axes.plot([position] * len(values), values, ".", color="black", markersize=4)
        axes.set_xticks(range(len(runs)), list(runs), rotation=30, ha="right")
        axes.set_title(f"{metric.title} ({'higher' if metric.higher_is_better else 'lower'} is better)", fontsize=10)
    return figure


def _gates(runs: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    kinds_axes, mixes_axes = figure.subplots(1, 2)
    gated = _variants_with("gates", runs)
    for number, (variant, by_seed) in enumerate(gated.items()):
        kinds = _keys_of(figures["gates"]["by_kind"] for figures in by_seed.values())
        found = {kind: spread for kind in kinds if (spread := spread_of(gate_metric(kind), by_seed)) is not None}
        style = {"color": COLOURS[variant], "label": variant, "capsize": 4}
        kinds_axes.bar(
            [position + 0.4 * number for position in range(len(found))], [spread.mean for spread in found.values()],
            width=0.38, yerr=[spread.deviation or 0 for spread in found.values()], **style,
        )  # fmt: skip
        kinds_axes.set_xticks([position + 0.2 for position in range(len(found))], list(found), rotation=20, ha="right")
        snrs = snrs_of(next(iter(by_seed.values())))
        spreads = [spread for snr in snrs if (spread := spread_of(mix_metric(snr), by_seed)) is not None]
        mixes_axes.errorbar(
            [float(snr) for snr in snrs], [spread.mean for spread in spreads], marker="o",
            yerr=[spread.deviation or 0 for spread in spreads], **style,
        )  # fmt: skip
    kinds_axes.set_ylabel("mean gate")
    mixes_axes.set_xlabel("speech above music (dB)")
    if gated:
        mixes_axes.legend()
    return figure


if __name__ == "__main__":
    run_program(SapSaeReportConfig, write_page, name="sap_sae.report")
