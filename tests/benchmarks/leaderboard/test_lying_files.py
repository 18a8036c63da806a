"""Results that contradict themselves, places that hold no results, and outputs that are files: each is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from audiollm.benchmarks.leaderboard.result_files import find_results
from audiollm.benchmarks.questions.grading.scoring import score_file
from audiollm.benchmarks.questions.registry import benchmark_named
from audiollm.benchmarks.questions.report import write_result
from audiollm.cli.app import main

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "official.json"
    write_result(score_file(benchmark_named("mmau"), str(GOLDEN / "mmau" / "predictions.json"), mode="official"), path)
    return path


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in told
    assert "[Errno" not in told
    return told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_items", 3),
        ("n_counted", 10**6),
        ("n_correct", -1),
        ("n_correct", 10**6),
        ("accuracy", 0.99),
        ("accuracy", "x"),
    ],
)
def test_a_result_whose_numbers_contradict_its_items_is_not_shown(result: Path, field: str, value: object) -> None:
    assert len(find_results(result.parent).results) == 1
    result.write_text(json.dumps(json.loads(result.read_text()) | {field: value}))
    found = find_results(result.parent)
    assert not found.results
    assert field in found.unread[0].reason


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_figure_that_is_no_number_is_not_shown(result: Path, number: str) -> None:
    content = json.loads(result.read_text())
    result.write_text(json.dumps(content | {"accuracy": float(number.lower())}))
    (unread,) = find_results(result.parent).unread
    assert number in unread.reason


def test_a_place_without_results_is_an_error_that_says_what_is_expected(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.json").write_text("[]")
    for place in ("empty", "file.json"):
        told = error_of(capsys, "report", str(tmp_path / place))
        assert place in told
        assert "give a folder with result files" in told
    assert not list(tmp_path.rglob("leaderboard*"))


def test_results_without_common_names_are_listed(result: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "strict.json").write_bytes(result.read_bytes())
    told = error_of(capsys, "compare-results", str(result.parent), str(other))
    assert "official.json in the old, strict.json in the new" in told


@pytest.mark.parametrize("name", ["mmau", "mmar", "mmsu"])
def test_predictions_that_are_no_file_are_named(name: str, tmp_path: Path, capsys) -> None:
    for place, problem in ((tmp_path, "is a folder"), (tmp_path / "nosuch", "is not there")):
        told = error_of(capsys, "bench", name, "score", "--predictions", str(place))
        assert f"{place} {problem}: give a file of predictions" in told


@pytest.mark.parametrize("below", ["", "/inside"])
def test_an_output_folder_that_is_a_file_is_named(below: str, tmp_path: Path, capsys) -> None:
    file = tmp_path / "file"
    file.write_text("")
    told = error_of(capsys, "bench", "mmau", "predict", "--data", str(tmp_path), "-o", f"{file}{below}")
    assert f"{file} is a file: give a folder for the output" in told


def test_scores_of_a_part_say_of_how_many(tmp_path: Path, capsys) -> None:
    records = json.loads((GOLDEN / "mmau" / "predictions.json").read_text(encoding="utf-8"))[:5]
    for number, record in enumerate(records):
        record |= {"id": f"q{number}", "audio_id": f"{number}.wav"}
    data = tmp_path / "mmau-test-mini.json"
    data.write_text(json.dumps(records))
    header = {"kind": "run", "benchmark": "mmau", "limit": 2}
    header["data_sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
    replies = [
        {"kind": "prediction", "id": f"q{n}", "prediction": "A", "choices": records[n]["choices"]} for n in (0, 1)
    ]
    log = tmp_path / "predictions.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in (header, *replies)))
    main(["bench", "mmau", "score", "--predictions", str(log), "--data", str(data), "--mode", "strict"])
    assert "2 of 5 questions" in capsys.readouterr().out
