"""``audiollm bench``: its registry, and scoring MMAU, MMAR and MMSU from the command line and by script."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from audiollm.benchmarks.harness.actions import config_class
from audiollm.cli import main
from audiollm.cli.bench import BENCHMARKS, benchmark_actions

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "fixtures" / "golden"
QUESTION_BENCHMARKS = ("mmau", "mmar", "mmsu")


def golden_file(name: str) -> str:
    return str(next((GOLDEN / name).glob("predictions.json*")))


def stops(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must end with a status; returns what it says, in one line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_argument_of_every_action_is_explained(benchmark: str, capsys: pytest.CaptureFixture[str]) -> None:
    for action, function in benchmark_actions(benchmark).items():
        shown = stops(["bench", benchmark, action, "--help"], 0, capsys)
        config = config_class(function)
        explained = re.findall(r'^    """([^"]+)"""$', inspect.getsource(config), re.MULTILINE)
        if len(explained) > len(dataclasses.fields(config)):
            explained.pop(0)  # of the class
        assert len(explained) == len(dataclasses.fields(config))
        for words in explained:
            assert " ".join(words.split())[:40] in shown


def test_help_lists_benchmarks_and_their_actions_and_unknown_ones_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = stops(["bench", "--help"], 0, capsys)
    assert all(name in shown for name in BENCHMARKS)
    shown = stops(["bench", "mmau", "--help"], 0, capsys)
    assert all(action in shown for action in benchmark_actions("mmau"))
    assert "mmau" in stops(["bench", "mmlu"], 2, capsys)
    assert "BENCHMARK" in stops(["bench"], 2, capsys)
    assert "predictions" in stops(["bench", "mmau", "score"], 2, capsys)
    assert "data" in stops(["bench", "mmau", "--limit", "3"], 2, capsys)  # without an action: run
    assert "give official, strict or extract, not kind" in stops(
        ["bench", "mmau", "score", "--predictions", "x", "--mode", "kind"], 2, capsys
    )


@pytest.mark.parametrize("mode", ["official", "strict", "extract"])
@pytest.mark.parametrize("name", QUESTION_BENCHMARKS)
def test_score_writes_a_result_that_says_what_it_is_of(
    name: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "out.json"
    main(["bench", name, "score", "--predictions", golden_file(name), "--mode", mode, "--output", str(output)])
    shown = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["benchmark"] == name
    assert result["mode"] == mode
    assert result["predictions"]["file"] == Path(golden_file(name)).name
    assert len(result["predictions"]["sha256"]) == 64
    assert all({"index", "id", "counted", "correct"} <= item.keys() for item in result["items"])
    assert result["n_correct"] == sum(item["correct"] is True for item in result["items"])
    assert result["n_counted"] == sum(item["counted"] for item in result["items"])
    assert result["interval"]["low"] <= result["accuracy"] <= result["interval"]["high"]
    assert all(line in shown for line in result["printed"])
    main(["bench", name, "score", "--predictions", golden_file(name), "--mode", mode, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told == {key: value for key, value in result.items() if key != "items"}


def test_errors_are_one_line_that_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nowhere.json")
    assert missing in stops(["bench", "mmau", "score", "--predictions", missing], 1, capsys)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"id": 1, ')
    assert str(broken) in stops(["bench", "mmau", "score", "--predictions", str(broken)], 1, capsys)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "holds no items" in stops(["bench", "mmar", "score", "--predictions", str(empty)], 1, capsys)
    need = ["bench", "mmsu", "score", "--predictions", golden_file("mmsu"), "--require-known-data"]
    assert "--data" in stops(need, 1, capsys)


@pytest.mark.parametrize("name", QUESTION_BENCHMARKS)
def test_the_script_does_what_the_command_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.json"
    script = str(ROOT / "benchmarks" / f"{name}.py")
    arguments = ["score", "--predictions", golden_file(name), "-o", str(output)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(script, run_name="__main__")
    main(["bench", name, *arguments[:-1], str(tmp_path / "other.json")])
    assert output.read_bytes() == (tmp_path / "other.json").read_bytes()


def test_the_folder_of_a_run_is_named_by_o(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "mmau", "--model", "mini", "--data", str(tmp_path / "none"), "-o", str(tmp_path / "out")]
    assert "no such file or folder with the questions of MMAU" in stops(command, 1, capsys)
