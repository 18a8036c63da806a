"""The leaderboard: what is found, whose figures compare, and whether they can be traced to predictions."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.harness.identity import file_identity
from audiollm.benchmarks.leaderboard.board import Leaderboard, build_leaderboard
from audiollm.benchmarks.leaderboard.page import html_page, legend, markdown_page, write_pages
from audiollm.benchmarks.leaderboard.published import published_tables
from audiollm.benchmarks.leaderboard.result_files import find_results
from audiollm.benchmarks.leaderboard.rows import LeaderboardRow, conditions_key, marks_of
from audiollm.cli import main

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"


def questions(name: str, **fields: Any) -> list[dict[str, Any]]:
    """Three questions of MMAU, as predictions."""
    return [
        {
            "id": f"{name}{number}", "question": "What?", "choices": ["dog", "cat"], "answer": answer,
            "task": task, "difficulty": "easy", "sub-category": "animals", "model_output": reply, **fields,
        }
        for number, (task, answer, reply) in enumerate(
            [("sound", "dog", "dog"), ("music", "cat", "dog"), ("speech", "cat", "cat")]
        )
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one result of MMAU in two modes."""
    folder = tmp_path / "results"
    (folder / "mmau").mkdir(parents=True)
    predictions = folder / "mmau" / "predictions.json"
    predictions.write_text(json.dumps(questions("q")))
    for mode in ("official", "strict"):
        score(predictions, folder / "mmau" / f"{mode}.json", mode)
    return folder


def score(predictions: Path, output: Path, mode: str = "official") -> None:
    main(["bench", "mmau", "score", "--predictions", str(predictions), "--mode", mode, "--output", str(output)])


def ours(board: Leaderboard, title: str = "MMAU test-mini") -> list[LeaderboardRow]:
    table = next(table for table in board.tables if table.title == title)
    return [row for row in table.rows if row.origin == "ours"]


# --- published figures ------------------------------------------------------------------------------------------------


def test_every_published_row_has_model_source_and_figures() -> None:
    tables = published_tables()
    assert list(tables) == ["mmau", "mmar", "mmsu", "clustering", "reconstruction", "controllable-tts", "seed-tts"]
    for table in tables.values():
        for row in table.rows:
            assert row.model
            assert row.source
            assert any(value is not None for value in row.values.values())
        rows = [(row.model, row.source, row.data) for row in table.rows]
        assert len(rows) == len(set(rows)), f"{table.benchmark}: a row is there twice"


def test_published_shares_of_discrete_tokens_are_whole_numbers_of_questions() -> None:
    sizes = {
        "mmau": {"speech": 333, "sound": 333, "music": 334, "all": 1000},
        "mmar": {"speech": 294, "sound": 165, "music": 206, "all": 1000},
        "mmsu": {"perception": 2580, "reasoning": 2420, "all": 5000},
    }
    for benchmark, counts in sizes.items():
        rows = [row for row in published_tables()[benchmark].rows if row.input == "discrete, one codebook"]
        assert len(rows) == 5
        for row in rows:
            for column, count in counts.items():
                value = row.values[column]
                assert isinstance(value, float)
                right = round(value / 100 * count)
                assert abs(100 * right / count - value) < 0.0051, f"{row.model}: {column}"


def test_published_means_agree_with_their_parts_or_say_so() -> None:
    weights = {"mmau": {"speech": 333, "sound": 333, "music": 334}, "mmsu": {"perception": 2580, "reasoning": 2420}}
    for benchmark, sizes in weights.items():
        for row in published_tables()[benchmark].rows:
            parts = [row.values[name] for name in sizes]
            total = row.values["all"]
            if isinstance(total, float) and all(isinstance(part, float) for part in parts):
                mean = sum(size * row.values[name] for name, size in sizes.items()) / sum(sizes.values())  # type: ignore[operator]
                assert (abs(mean - total) < 0.12) != ("the parts give" in (row.note or "")), row.model
    for row in published_tables()["controllable-tts"].rows:
        for name in ("SIM", "WER", "MOS"):
            mean = (row.values[f"{name} en"] + row.values[f"{name} zh"]) / 2  # type: ignore[operator]
            assert mean == pytest.approx(row.values[f"{name} mean"], abs=0.0051)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"source": "hearsay"}, "source is 'hearsay'"),
        ({"values": [1.0]}, "4 values"),
        ({"values": [None] * 4}, "no figure"),
        ({"values": ["61", 1, 1, 1]}, "speech: '61' is no figure"),
        ({"colour": "red"}, "unknown fields colour"),
    ],
)
def test_published_rows_that_are_wrong_are_named(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    row = {"model": "m", "source": "s", "values": [1.0, 2.0, 3.0, 2.0]}
    table = {"benchmark": "mmau", "title": "", "columns": ["speech", "sound", "music", "all"], "unit": "", "note": ""}
    path = tmp_path / "published.json"
    path.write_text(json.dumps({"sources": {"s": "a source"}, "tables": [{**table, "rows": [row, row | change]}]}))
    with pytest.raises(ValueError, match=f"mmau, row 1.*{complaint}"):
        published_tables(path)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_files_that_are_no_results_are_named_with_the_reason(results: Path) -> None:
    (results / "cut.json").write_text('{"benchmark": "mmau", ')
    (results / "other.json").write_text('{"colour": "red"}')
    (results / "list.json").write_text("[1, 2]")
    (results / "bytes.json").write_bytes(b'{"a": "\xff"}')
    half = json.loads((results / "mmau" / "strict.json").read_text())
    del half["accuracy"]
    (results / "half.json").write_text(json.dumps(half))
    (results / "odd.json").write_text(json.dumps({**half, "accuracy": 0.5, "table": 7}))
    reasons = {file.path.name: file.reason for file in build_leaderboard(results).unread}
    assert set(reasons) == {"cut.json", "other.json", "list.json", "bytes.json", "half.json", "odd.json"}
    assert "not JSON" in reasons["cut.json"]
    assert "it holds colour" in reasons["other.json"]
    assert "UTF-8" in reasons["bytes.json"]
    assert "without accuracy" in reasons["half.json"]
    page = markdown_page(build_leaderboard(results), results)
    assert all(f"{name}: " in page for name in reasons)


def test_predictions_and_other_parts_of_runs_are_no_complaint(results: Path) -> None:
    (results / "mmau" / "check.json").write_text(json.dumps({"sha256": "0", "n_audio_checked": 3}))
    found = find_results(results)
    assert [path.name for path in found.parts] == ["check.json", "predictions.json"]
    assert not found.unread


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "nowhere")])


# --- rows -------------------------------------------------------------------------------------------------------------


def test_our_rows_hold_the_figures_and_counts_of_the_result(results: Path) -> None:
    row = next(row for row in ours(build_leaderboard(results)) if row.conditions["grading"] == "official")
    assert row.figures == {"speech": 100, "sound": 100, "music": 0, "all": pytest.approx(200 / 3)}
    assert {name: row.facts[name] for name in ("asked", "missing", "unreadable")} == {
        "asked": "3", "missing": "0", "unreadable": "0",
    }  # fmt: skip
    assert re.fullmatch(r"[\d.]+ to [\d.]+", row.facts["95 % interval"])
    assert row.is_traceable


def test_only_rows_of_the_same_data_mode_and_prompt_share_a_mark(results: Path) -> None:
    path = results / "mmau" / "official.json"
    content = json.loads(path.read_text())
    same = content | {
        "data": {"sha256": "9f18fda99f8dbc2b" + "0" * 48, "known_as": "test-mini of 2025-08-09"},
        "prompt": {"id": "mmau-authors-1", "sha256": "a" * 64},
        "model": {"name": "tiny"},
    }
    variants = {
        "one": same,
        "two": same | {"model": {"name": "other"}},
        "data": same | {"data": {"sha256": "b" * 64, "known_as": None}},
        "prompt": same | {"prompt": {"id": "mmau-authors-1", "sha256": "c" * 64}},
        "mode": same | {"mode": "strict"},
        "shuffled": same | {"shuffle_options": 3},
        "limited": same | {"limit": 10},
    }
    for name, variant in variants.items():
        (results / "mmau" / f"{name}.json").write_text(json.dumps(variant))
    board = build_leaderboard(results)
    table = board.tables[0]
    marks = marks_of(table.rows)
    by_source = {row.source: marks[conditions_key(row)] for row in table.rows if row.origin == "ours"}
    assert by_source["one.json"] == by_source["two.json"]
    assert len({by_source[f"{name}.json"] for name in variants}) == len(variants) - 1
    of_others = {marks[conditions_key(row)] for row in table.rows if row.origin == "published"}
    assert not of_others & set(by_source.values())
    told = "\n".join(legend(table))
    assert "9f18fda99f8d, test-mini of 2025-08-09" in told
    assert "not a known version" in told
    page = markdown_page(board, results)
    assert rf"66.67 \[{by_source['data.json']}\]" in page


def test_two_files_of_unknown_data_do_not_share_a_mark(results: Path) -> None:
    other = results / "other.json"
    other.write_text(json.dumps(questions("other")))
    score(other, results / "other_result.json")
    rows = [row for row in ours(build_leaderboard(results)) if row.conditions["grading"] == "official"]
    assert len(rows) == 2
    assert len(marks_of(rows)) == 2


def test_sets_of_ones_own_do_not_stand_beside_published_rows(results: Path) -> None:
    path = results / "mmau" / "official.json"
    own = json.loads(path.read_text()) | {"data": {"sha256": "d" * 64, "known_as": None, "own_set": True}}
    (results / "mmau" / "own.json").write_text(json.dumps(own))
    tables = {table.title: table for table in build_leaderboard(results).tables}
    assert "own.json" not in {row.source for row in tables["MMAU test-mini"].rows}
    rows = tables["MMAU test-mini: sets of one's own in its layout"].rows
    assert {row.source for row in rows} == {"own.json"}
    assert {row.origin for row in rows} == {"ours", "baseline"}


def test_guesses_are_rows_and_the_same_guess_is_one(results: Path) -> None:
    table = build_leaderboard(results).tables[0]
    guesses = [row for row in table.rows if row.origin == "baseline" and row.source.endswith(".json")]
    assert {row.model: row.figures["all"] for row in guesses} == {
        "always the first option": pytest.approx(100 / 3), "a random option": pytest.approx(50),
    }  # fmt: skip
    assert len(guesses) == 2


def test_what_a_judge_says_has_its_own_column(results: Path, chat_server: Any) -> None:
    chat_server.answer = lambda request: "yes"
    main(
        ["bench", "mmau", "judge", "--predictions", str(results / "mmau" / "predictions.json"),
         "--judge", chat_server.url, "--output", str(results / "mmau" / "judge.json"), "--votes", "1"]
    )  # fmt: skip
    board = build_leaderboard(results)
    rows = ours(board)
    assert len(rows) == 2
    assert all(row.facts["by a judge"].startswith("100.00 % of 3 (tiny") for row in rows)
    assert all(row.figures["all"] == pytest.approx(200 / 3) for row in rows)
    assert not board.untraceable
    for mode in ("official", "strict"):
        (results / "mmau" / f"{mode}.json").unlink()
    (alone,) = ours(build_leaderboard(results))
    assert not alone.figures
    assert alone.facts["by a judge"]


# --- traces -----------------------------------------------------------------------------------------------------------


def test_predictions_that_changed_or_are_gone_are_marked(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = results / "mmau" / "predictions.json"
    main(["report", str(results), "--strict"])
    predictions.write_text(predictions.read_text() + " ")
    rows = ours(build_leaderboard(results))
    assert all("has changed" in str(row.traces[0].problem) for row in rows)
    predictions.unlink()
    board = build_leaderboard(results)
    assert all("is missing" in str(row.traces[0].problem) for row in ours(board))
    for page in (markdown_page(board, results), html_page(board, results)):
        assert page.count("NOT TRACEABLE") >= 2
    main(["report", str(results)])
    with pytest.raises(SystemExit):
        main(["report", str(results), "--strict"])
    assert "2 figures not be traced" in capsys.readouterr().err


def test_predictions_elsewhere_below_the_folder_are_found_by_their_hash(results: Path) -> None:
    predictions = results / "mmau" / "predictions.json"
    (results / "decoy").mkdir()
    (results / "decoy" / predictions.name).write_text("[]")
    (results / "far").mkdir()
    predictions.rename(results / "far" / predictions.name)
    (row, _) = ours(build_leaderboard(results))
    assert row.traces[0].path == results / "far" / predictions.name


# --- other benchmarks -------------------------------------------------------------------------------------------------


def test_results_of_every_scorer_from_files_are_shown_and_traced(results: Path) -> None:
    files = {"en.json": "seed_tts_wer/en.json", "clips.json": "esc_clustering/cases.json"}
    for name, place in files.items():
        (results / name).write_bytes((GOLDEN / place).read_bytes())
    main(
        ["bench", "seed-tts", "wer", "--pairs", str(results / "en.json"), "--language", "en",
         "--output", str(results / "tts" / "wer.json")]
    )  # fmt: skip
    main(
        ["bench", "clustering", "--codes", str(results / "clips.json"), "--num-seeds", "1", "--num-restarts", "1",
         "--output", str(results / "clusters.json")]
    )  # fmt: skip
    board = build_leaderboard(results)
    assert board.num_results == 4
    assert not board.untraceable
    (spoken,) = ours(board, "SEED-TTS-eval")
    assert spoken.figures["WER en"] == pytest.approx(61.326, abs=0.001)
    assert len(ours(board, "Clustering of token histograms: our runs")) > 3
    assert [file.path.name for file in board.unread] == ["clips.json", "en.json"]


def reconstruction(folder: Path, data: str) -> dict[str, Any]:
    verdicts = folder / "verdicts.jsonl"
    verdicts.parent.mkdir(parents=True, exist_ok=True)
    verdicts.write_text("{}\n")
    row = {
        "n_items": 3, "missing": ["2"], "wer": 0.05, "similarity": {"mean": 0.7}, "mos": {"mean": 3.5}, "stoi": 0.9,
        "predictions": file_identity(verdicts, folder), "items": [], "distances": [],
    }  # fmt: skip
    return {
        "benchmark": "reconstruction", "data": {"file": data, "sha256": "d" * 64}, "n_items": 3,
        "judges": {"asr": "whisper", "language": "en", "speaker_encoder": None, "mos_predictor": "dnsmos"},
        "rows": {"ground truth": row, "mini": row | {"tokenizer": {"frame_rate": 25}, "bitrate_bps": 325}},
        "config": {"data": data, "language": "en", "split": None},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "column"), [("test-clean.jsonl", "WER test-clean"), ("seed_en.jsonl", "WER SEED en"), ("own.jsonl", None)]
)
def test_reconstructions_are_in_the_papers_columns_only_on_its_data(
    data: str, column: str | None, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(reconstruction(tmp_path, data)))
    board = build_leaderboard(tmp_path)
    assert [row.figures["WER"] for row in ours(board, "Reconstruction: our runs")] == [5, 5]
    in_paper = ours(board, "Reconstruction")
    assert [row.figures.get(column) for row in in_paper] == ([5, 5] if column else [])
    assert not board.untraceable


# --- pages ------------------------------------------------------------------------------------------------------------


class _Links(HTMLParser):
    """Keeps what a page refers to, and its unclosed tags."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_both_pages_are_complete_and_link_to_predictions_only(results: Path, tmp_path: Path) -> None:
    pages = write_pages(build_leaderboard(results), tmp_path / "out" / "page.html")
    assert [path.name for path in pages] == ["page.md", "page.html"]
    parsed = _Links()
    text = pages[1].read_text()
    parsed.feed(text)
    assert not parsed.open
    assert set(parsed.links) == {"../results/mmau/predictions.json"}
    sha256 = file_identity(results / "mmau" / "predictions.json")["sha256"]
    for page in pages:
        content = page.read_text()
        assert sha256 in content
        assert "UniAudio-Token" in content
        assert "README of Step-Audio 2" in content


def test_names_cannot_become_markup(results: Path) -> None:
    path = results / "mmau" / "official.json"
    name = "<script>alert(1)</script> | [x](y)"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"name": name}}))
    board = build_leaderboard(results)
    assert "<script>" not in html_page(board, results)
    lines = [line for line in markdown_page(board, results).splitlines() if "alert" in line]
    head = next(line for line in markdown_page(board, results).splitlines() if line.startswith("| model"))
    assert len(re.findall(r"(?<!\\)\|", lines[0])) == len(re.findall(r"(?<!\\)\|", head))
    assert r"\[x\](y)" in lines[0]
