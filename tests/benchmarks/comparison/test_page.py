"""Markdown, HTML and JSON say the same, published figures have sources, and empty places have reasons."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from audiollm.benchmarks.codes.features import REASON
from audiollm.benchmarks.comparison.cells import Cell
from audiollm.benchmarks.comparison.page import write_pages
from audiollm.benchmarks.comparison.published import PUBLISHED_PATH, tables_beside
from audiollm.benchmarks.comparison.running import MeasuredStudy, held_study_folder, measure_study
from audiollm.benchmarks.comparison.study import DownstreamSettings, Study, UnderstandingSettings
from audiollm.benchmarks.leaderboard.published import published_tables


@pytest.fixture
def measured(study: Study, tmp_path: Path) -> MeasuredStudy:
    with held_study_folder(tmp_path / "run"):
        return measure_study(study, tmp_path / "run")


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [
        [re.sub(r"\\(.)", r"\1", re.sub(r"\*\*(.*?)\*\*", r"\1", cell)) for cell in line.strip("| ").split(" | ")]
        for line in lines
        if not line.startswith("| ---")
    ]


def html_rows(text: str) -> list[list[str]]:
    found = re.findall(r"<tr>(.*?)</tr>", text.replace("\n", ""))
    cells = (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in found if "<audio" not in row)
    return [[html.unescape(re.sub(r"</?b>", "", cell)) for cell in row] for row in cells]


def test_the_three_pages_say_the_same(measured: MeasuredStudy) -> None:
    markdown, page, document = write_pages(measured, {}, measured.folder)
    text, content = page.read_text(), json.loads(document.read_text())
    strip = [[cell.strip() for cell in row] for row in html_rows(text)]
    assert [[cell.strip() for cell in row] for row in markdown_rows(markdown.read_text().replace("|  |", "| |"))] != []
    shown = [row for row in strip if len(row) == 2 + len(content["columns"])][1:]
    assert len(shown) == len(content["rows"])
    for row, told in zip(shown, content["rows"], strict=True):
        assert told["title"] in row[1]
        assert row[2:] == [told["cells"][name]["shown"] for name in content["columns"]]
        for cell in told["cells"].values():
            assert (cell["value"] is None) == (cell["shown"] in ("", "–"))
    for told in content["rows"]:
        line = next(
            line for line in markdown.read_text().splitlines() if f"| {told['title']}" in line.replace("\\", "")
        )
        for cell in told["cells"].values():
            assert cell["shown"] in line.replace("\\", "")


def test_the_page_needs_nothing_beside_it_and_holds_sounds_and_pictures(measured: MeasuredStudy) -> None:
    _, page, _ = write_pages(measured, {}, measured.folder)
    text = page.read_text()
    assert text.count("<audio") == 4  # two recordings, each as it is and through µ-law
    assert "data:image/png;base64," in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "Tiny *study*" in text


def test_no_page_says_where_things_lie_on_this_machine(measured: MeasuredStudy, tmp_path: Path) -> None:
    for page in write_pages(measured, {}, measured.folder):
        assert str(tmp_path) not in page.read_text()


def test_a_place_is_only_empty_for_a_reason(measured: MeasuredStudy) -> None:
    markdown, _, document = write_pages(measured, {}, measured.folder)
    for row in json.loads(document.read_text())["rows"]:
        for name, cell in row["cells"].items():
            if cell["shown"] == "–":
                assert cell["reason"]
                assert name != "original"
    assert "- tiny: has no decoder: it can listen only" in markdown.read_text()


def test_the_best_of_a_row_is_bold_and_the_recordings_themselves_never_are(measured: MeasuredStudy) -> None:
    _, _, document = write_pages(measured, {}, measured.folder)
    for row in json.loads(document.read_text())["rows"]:
        best = [name for name, cell in row["cells"].items() if cell["is_best"]]
        assert "original" not in best
        values = [cell["value"] for name, cell in row["cells"].items() if name != "original"]
        differ = len({cell["shown"] for name, cell in row["cells"].items() if name != "original"}) > 1
        if row["better"] and differ and all(isinstance(value, (int, float)) for value in values):
            chosen = max(values) if row["better"] == "more" else min(values)
            assert chosen in [row["cells"][name]["value"] for name in best]
        else:
            assert not best


def test_trained_figures_are_means_with_their_spread_over_seeds(measured: MeasuredStudy) -> None:
    downstream = DownstreamSettings(seeds=(0, 1, 2), parts=(("understanding", UnderstandingSettings(train_data="x")),))
    measured = replace(measured, study=replace(measured.study, downstream=downstream))
    trained = {
        Cell("tiny", "understanding", f"seed{seed}"): {
            "loss": 1.0 + seed, "train_seconds": 10, "train_tokens": 100, "mmau": {"speech": 40.0, "all": 50.0, "n": 4},
        }
        for seed in range(3)
    }  # fmt: skip
    silent = {"loss": 4.0, "train_seconds": 10, "train_tokens": 100, "mmau": {"all": 0.0, "n": 4, "unanswered": 4}}
    trained[Cell("tiny", "understanding", "seed2")] = silent | {"loss": 3.0}
    trained |= {Cell("mu-law", "understanding", f"seed{seed}"): {REASON: "is a floor"} for seed in range(3)}
    markdown, page, document = write_pages(measured, trained, measured.folder)
    [table] = json.loads(document.read_text())["trained"]
    loss = table["rows"]["tiny"]["held-out loss (nats per token of answers)"]
    assert (loss["value"], loss["spread"], loss["shown"]) == (2.0, 1.0, "2.000 ± 1.000")
    assert "2.000 ± 1.000" in markdown.read_text()
    assert "2.000 ± 1.000" in page.read_text()
    # Who says nothing has nothing right, in every column.
    assert table["rows"]["tiny"]["MMAU speech (%)"]["value"] == pytest.approx(80 / 3)
    assert list(table["columns"])[2:4] == ["MMAU speech (%)", "MMAU all (%)"]
    assert "- mu-law: is a floor" in markdown.read_text()
    assert "UniAudio-Token tokens, Qwen2.5" in markdown.read_text()  # the published rows of the same shape


def test_published_rows_have_sources_and_are_about_tokenizers(measured: MeasuredStudy) -> None:
    tables = tables_beside(["codes", "reconstruction", "classes", "stability", "understanding", "speech"])
    assert {table.benchmark for table in tables} >= {"mmau", "mmar", "mmsu", "clustering", "reconstruction"}
    assert all(row.source for table in tables for row in table.rows)
    assert not {"Gemini 2.5 Pro", "human"} & {row.model for table in tables for row in table.rows}
    assert not published_tables(PUBLISHED_PATH).keys() & published_tables().keys()  # each figure stands in one file
    markdown, _, _ = write_pages(measured, {}, measured.folder)
    for table in tables_beside(list(measured.study.measures)):
        for row in table.rows:
            assert row.source.replace("_", r"\_") in markdown.read_text()
