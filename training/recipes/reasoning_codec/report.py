"""Tables of the evidence, and the page that holds them, from ``results.json`` alone.

python -m audiollm.training.recipes.reasoning_codec.report --results runs/reasoning_codec_evidence/results.json \
    --page docs/experiments/reasoning_codec.md
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.page import markdown_text, render
from audiollm.data.files.atomic import atomic_write
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.training.recipes.marked_page import replace_marked
from audiollm.training.recipes.seed_tables import Column, row

BEGIN = "<!-- results: written by training/recipes/reasoning_codec/report.py -->"
END = "<!-- end of results -->"
RESULTS = "results.json"
PARTS = ("film", "codes", "stages", "table")
_ARROWS = {"more": " ↑", "less": " ↓", None: ""}
Section = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReasoningCodecReportConfig:
    """Writes the results into their page."""

    results: str = "runs/reasoning_codec_evidence/results.json"
    """What the experiment wrote."""

    page: str = "docs/experiments/reasoning_codec.md"
    """Markdown page; what stands between its two marks is replaced. A copy of the results goes to a JSON file of the
    same name."""


def write_page(config: ReasoningCodecReportConfig) -> None:
    """Writes tables and the copy of the results.

    Raises:
        ValueError: if the page has no marks, or the results are none.
    """
    results, page = json.loads(Path(config.results).read_text(encoding="utf-8")), Path(config.page)
    if not results.keys() & set(PARTS):
        raise ValueError(
            f"{config.results} is not what recipes/reasoning_codec/evidence.py writes: has none of {', '.join(PARTS)}"
        )
    text = replace_marked(page.read_text(encoding="utf-8"), BEGIN, END, results_tables(results))
    write_json(page.with_suffix(".json"), results)
    with atomic_write(page) as file:
        file.write(text)


def write_tables(results: Mapping[str, Any], folder: Path) -> str:
    """Writes results and tables; returns the tables."""
    write_json(folder / RESULTS, results)
    text = results_tables(results)
    with atomic_write(folder / "tables.md") as file:
        file.write(text)
    return text


def results_tables(results: Mapping[str, Any]) -> str:
    """All tables as Markdown, below a paragraph on when, where and on what.

    Args:
        results: of the experiment, or so much of it as has come out.
    """
    sections: Mapping[str, Callable[[Any], list[Section]]] = {
        "film": _film_sections,
        "codes": _code_sections,
        "stages": _stage_sections,
        "table": _study_sections,
    }
    return render(
        Path(__file__).with_name("tables.md.jinja"),
        date=results["date"],
        machine=results["machine"],
        torch=results["versions"]["torch"],
        seeds=results["settings"]["seeds"],
        is_complete=results.get("is_complete", True),
        data=results["data"],
        sections=[one for part, make in sections.items() if part in results for one in make(results[part])],
    )


def _film_sections(film: Mapping[str, Any]) -> list[Section]:
    columns: list[Column] = [
        ("mel distance ↓", "{:.3f}", lambda figures: figures["mel_distance"]),
        ("MCD (dB) ↓", "{:.2f}", lambda figures: figures["mcd"]),
        ("loss of the flow ↓", "{:.3f}", lambda figures: figures["flow"]),
        ("perplexity of a codebook", "{:.1f}", lambda figures: statistics.fmean(figures["perplexity"])),
    ]
    rows = [row([name], by_seed, columns) for name, by_seed in film.items()]
    title = "Reconstruction with and without FiLM, of held-out clips"
    return [_section(title, ["codec", "seeds", *(one for one, _, _ in columns)], rows)]


def _code_sections(codes: Mapping[str, Any]) -> list[Section]:
    columns: list[Column] = [
        ("answers, nats per token ↓", "{:.3f}", lambda figures: figures["understanding"]["text_nll"]),
        ("questions answered rightly (%) ↑", "{:.1f}", lambda figures: figures["answers"]["all"]),
        ("sound, nats per code ↓", "{:.3f}", lambda figures: figures["generation"]["audio_nll"]),
        ("perplexity of a code", "{:.1f}", lambda figures: math.exp(figures["generation"]["audio_nll"])),
        ("captions of sounds, nats per token ↓", "{:.3f}", lambda figures: figures["generation"]["text_nll"]),
    ]
    rows = [row([name], by_seed, columns) for name, by_seed in codes.items()]
    chance = _chance(figures["answers"] for by_seed in codes.values() for figures in by_seed.values())
    title = "A multi-stream LM on each kind of codes, after both warm-ups"
    return [_section(title, ["codes", "seeds", *(one for one, _, _ in columns)], rows, chance)]


def _stage_sections(stages: Mapping[str, Any]) -> list[Section]:
    shots = list(next(iter(next(iter(stages.values())).values()))["answers"])
    columns: list[Column] = [
        ("held-out sentences: text, nats per token ↓", "{:.3f}", lambda figures: figures["sentences"]["text_nll"]),
        ("sound, nats per code ↓", "{:.3f}", lambda figures: figures["sentences"]["audio_nll"]),
    ]
    columns += [(f"answered rightly, {number} examples (%) ↑", "{:.1f}", _answered(number)) for number in shots]
    rows = [row([name], by_seed, columns) for name, by_seed in stages.items()]
    chance = _chance(
        one for by_seed in stages.values() for figures in by_seed.values() for one in figures["answers"].values()
    )
    title = "The last stage (auditory sentences), against as many more updates of the third"
    return [_section(title, ["LM", "seeds", *(one for one, _, _ in columns)], rows, chance)]


def _answered(shots: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda figures: figures["answers"][shots]["all"]


def _chance(answers: Any) -> list[str]:
    """What guesses would reach, and of how many questions."""
    known = {(one["n"], None if one.get("chance") is None else round(one["chance"], 1)) for one in answers}
    return [f"{number} questions; guesses would answer {chance} % of them" for number, chance in sorted(known, key=str)]


def _study_sections(document: Mapping[str, Any]) -> list[Section]:
    """The study's own rows, and what a small LLM makes of each tokenizer."""
    columns = document["columns"]
    rows = []
    for one in document["rows"]:
        measure = one["measure"] if one["data"] is None else f"{one['measure']}, {one['data']}"
        cells = [_shown(one["cells"][name]) for name in columns]
        rows.append([measure, markdown_text(one["title"] + _ARROWS[one["better"]]), *cells])
    sections = [_section("Side by side", ["measure", "figure", *columns], rows)]
    for table in document["trained"]:
        rows = [[name, *(_shown(own[column]) for column in table["columns"])] for name, own in table["rows"].items()]
        sections.append(_section(table["title"], ["tokenizer", *table["columns"]], rows, table["notes"]))
    return sections


def _shown(cell: Mapping[str, Any]) -> str:
    escaped = markdown_text(cell["shown"])
    return f"**{escaped}**" if cell["is_best"] else escaped


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], remarks: Sequence[str] = ()) -> Section:
    return {"title": title, "head": [*head], "rows": [*rows], "remarks": [*remarks]}


if __name__ == "__main__":
    run_program(ReasoningCodecReportConfig, write_page, name="reasoning_codec.report")
