"""Tables at any width: what is printed of a figure is the figure."""

from __future__ import annotations

import random
import re

import pytest

from audiollm.benchmarks.leaderboard.comparison import paired_tests
from audiollm.benchmarks.leaderboard.comparison.comparison import ComparedFigure, ComparedSets, Comparison
from audiollm.benchmarks.leaderboard.comparison.table import show_comparisons
from audiollm.benchmarks.questions.report import show_result
from audiollm.benchmarks.speech.table import show_speech_table
from audiollm.cli.console import show_diagnosis
from audiollm.facts import show_facts

NUMBER = re.compile(r"\d[\d.,]*\d|\d")
WIDTHS = range(20, 201)
JUDGES = {"asr": "whisper-large-v3", "speaker_encoder": "resemblyzer", "mos_predictor": "dnsmos"}


def speech_rows() -> dict[str, dict]:
    draw = random.Random(0)
    return {
        f"seed {seed}": {
            "wer": draw.random() * 17, "similarity": {"mean": draw.random()}, "mos": {"mean": 1 + 4 * draw.random()},
            "stoi": draw.random(), "mel_distance": draw.random() * 100, "bitrate_bps": 325.123, "n_items": 123456,
            "missing": ["a"] * 12, "wer_capped": draw.random(), "looped": ["a"],
        }
        for seed in (0, 1)
    }  # fmt: skip


def comparisons() -> ComparedSets:
    tested = paired_tests.TestedDifference("exact McNemar, paired by item", 1234567, 0.0123456, None, True)
    figures = tuple(
        ComparedFigure(f"task-wise, speech {n}", 0.123456, 0.654321, 0.530865, "higher", True, tested) for n in range(3)
    )
    return ComparedSets([Comparison("results/official.json", "questions", {}, is_refused=False, figures=figures)])


def question_result() -> dict:
    return {
        "benchmark": "mmau", "mode": "extract", "printed": ["Total Accuracy: 56.78% over 12345 samples"],
        "interval": {"low": 0.512345, "high": 0.612345, "level": 0.95}, "accuracy": 0.567812, "n_correct": 1234567,
        "n_counted": 2345678, "n_items": 3456789, "n_missing": 12345, "n_unreadable": 23456, "n_problems": 3,
        "n_replies_cut": 17, "n_recordings_cut": 18, "baselines": {"first_option": 0.25, "random": 0.2501},
        "n_read_from": {"letter": 1234567, "stated letter": 987654},
        "predictions": {"file": "replies.jsonl", "sha256": "0123456789abcdef" * 4}, "data": None, "prompt": None,
        "model": None,
    }  # fmt: skip


FACTS = {
    "tokens a second": 1234567.8,
    "share": 0.123456789,
    "path": "/a/long/path/of/results/run12345/file678.json",
    "n": 10**15,
}
DIAGNOSIS = {
    "system": {"python": "3.11.9", "memory": "128,000,000,000 bytes"}, "devices": {"cpu": "16 cores of 2,300 MHz"},
    "required": {"torch": "2.13.0"}, "optional": {"soundfile": "0.14.0"}, "tools": {}, "missing": [],
}  # fmt: skip
PRINTED = {
    "speech": lambda: show_speech_table(speech_rows(), JUDGES),
    "comparison": lambda: show_comparisons(comparisons()),
    "questions": lambda: show_result(question_result(), None),
    "facts": lambda: show_facts(FACTS, title="facts"),
    "doctor": lambda: show_diagnosis(DIAGNOSIS),
}


@pytest.mark.parametrize("name", PRINTED)
def test_every_printed_figure_is_a_real_one_at_every_width(name: str, monkeypatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    PRINTED[name]()
    real = set(NUMBER.findall(capsys.readouterr().out))
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        PRINTED[name]()
        out = capsys.readouterr().out
        told = [line for line in out.splitlines() if not line.startswith("left out")]
        assert set(NUMBER.findall("\n".join(told))) <= real, width
        assert "…" not in out, width


def test_what_is_left_out_of_a_narrow_table_is_named_and_nothing_of_a_wide_one(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    show_speech_table(speech_rows(), JUDGES)
    narrow = capsys.readouterr().out
    assert re.search(r"left out.*: .*recordings, missing, capped WER ↓, looped; .*COLUMNS.*JSON", narrow)
    monkeypatch.setenv("COLUMNS", "200")
    show_speech_table(speech_rows(), JUDGES)
    wide = capsys.readouterr().out
    assert "left out" not in wide
    assert "123444" in wide
    assert max(map(len, wide.splitlines())) <= 200
