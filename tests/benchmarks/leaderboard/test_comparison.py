"""Comparing results: what changed, whether it is chance, and what must not be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiollm.benchmarks.leaderboard.comparison.comparison import Comparison, compare_sets
from audiollm.benchmarks.leaderboard.comparison.paired_tests import bootstrap_difference, fisher, mcnemar
from audiollm.cli import main


def mmau(right: Sequence[bool | None], **fields: Any) -> dict[str, Any]:
    """A result of MMAU: right, wrong, or not counted."""
    counted = [one for one in right if one is not None]
    cell = {"accuracy": f"{100 * sum(counted) / len(counted):.2f}", "n": len(counted)}
    return {
        "benchmark": "mmau", "mode": "official", "predictions": {"file": "p.json", "sha256": "0"},
        "data": {"sha256": "d" * 64, "known_as": None}, "prompt": {"id": "mmau-authors-1", "sha256": "e" * 64},
        "n_items": len(right), "n_counted": len(counted), "n_correct": sum(counted), "n_missing": 0, "n_unreadable": 0,
        "accuracy": sum(counted) / len(counted), "table": {"Task-wise Accuracy": {"sound": cell}, "total": cell},
        "items": [
            {"index": number, "id": f"q{number}", "counted": one is not None, "correct": one}
            for number, one in enumerate(right)
        ],
    } | fields  # fmt: skip


def spoken(rates: Mapping[str, float], **fields: Any) -> dict[str, Any]:
    mean = sum(rates.values()) / len(rates)
    return {
        "benchmark": "seed-tts", "rule": "r", "language": "en", "n_items": len(rates), "averaged": {}, "wer": mean,
        "wer_of_all": mean,
        "items": [{"index": n, "id": name, "wer": rate} for n, (name, rate) in enumerate(rates.items())],
    } | fields  # fmt: skip


def compared(tmp_path: Path, old: Mapping[str, Any], new: Mapping[str, Any], **options: Any) -> Comparison:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(content))
    (comparison,) = compare_sets(*paths, **options).comparisons
    return comparison


# --- chance -----------------------------------------------------------------------------------------------------------


def test_mcnemar_is_the_coin_of_the_items_that_changed() -> None:
    # 1 lost, 9 won: 2 * (1 + 10) / 2**10.
    old = [True] * 50 + [True] + [False] * 9
    tested = mcnemar(old, [True] * 50 + [False] + [True] * 9)
    assert tested.p_value == pytest.approx(2 * 11 / 1024)
    assert tested.beyond_chance
    assert mcnemar(old, old).p_value == 1


def test_a_test_finds_chance_in_one_of_twenty_cases_at_most() -> None:
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        old, new = generator.random((2, 60)) < 0.5
        found += mcnemar(old.tolist(), new.tolist()).beyond_chance
    assert found <= 20


def test_a_paired_bootstrap_sees_what_is_the_same_for_all_items() -> None:
    generator = np.random.default_rng(0)
    old = {f"u{number}": float(rate) for number, rate in enumerate(generator.random(50))}
    tested = bootstrap_difference(old, {name: rate + 0.01 for name, rate in old.items()})
    assert tested is not None
    assert tested.beyond_chance
    assert tested.interval == pytest.approx((0.01, 0.01))
    few = bootstrap_difference({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0})
    assert few is not None
    assert not few.beyond_chance
    assert bootstrap_difference({"a": 0.0}, {"b": 0.0}) is None


def test_counts_alone_are_compared_as_of_different_items() -> None:
    tested = fisher((90, 100), (60, 100))
    assert tested is not None
    assert tested.beyond_chance
    assert "not paired" in tested.test
    assert fisher((0, 0), (1, 2)) is None


# --- comparing --------------------------------------------------------------------------------------------------------


def test_items_that_changed_are_named(tmp_path: Path) -> None:
    comparison = compared(tmp_path, mmau([True, True, False, False, True]), mmau([True, False, True, True, None]))
    figures = {figure.name: figure for figure in comparison.figures}
    assert figures["accuracy"].old == 0.6
    assert figures["accuracy"].new == 0.75
    assert figures["accuracy"].gain == pytest.approx(0.15)
    assert figures["accuracy"].tested is not None
    assert figures["accuracy"].tested.num_items == 4
    assert comparison.lost["accuracy"] == ["q1"]
    assert comparison.won["accuracy"] == ["q2", "q3"]
    assert comparison.unpaired["accuracy"] == ["q4"]
    assert figures["task, sound"].old == 0.6


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        ({"data": {"sha256": "f" * 64, "known_as": None}}, "data"),
        ({"data": None}, "data"),
        ({"mode": "strict"}, "mode"),
        ({"prompt": {"id": "mmau-authors-1", "sha256": "f" * 64}}, "prompt"),
        ({"shuffle_options": 7}, "shuffled options"),
        ({"limit": 2}, "limit"),
    ],
)
def test_other_data_modes_and_prompts_are_refused_by_name(
    change: dict[str, Any], condition: str, tmp_path: Path
) -> None:
    old, new = mmau([True, False]), mmau([True, True], **change)
    comparison = compared(tmp_path, old, new)
    assert comparison.is_refused
    assert list(comparison.different) == [condition]
    assert not comparison.figures
    allowed = compared(tmp_path, old, new, allow_different=True)
    assert not allowed.is_refused
    assert list(allowed.different) == [condition]
    assert allowed.won["accuracy"] == ["q1"]


def test_other_questions_are_refused_even_where_the_data_are_not_known(tmp_path: Path) -> None:
    comparison = compared(tmp_path, mmau([True, False], data=None), mmau([True, False, True], data=None))
    assert list(comparison.different) == ["items"]


def test_less_is_better_where_errors_are_counted(tmp_path: Path) -> None:
    old = {f"u{number}": 0.5 for number in range(12)}
    comparison = compared(tmp_path, spoken(old), spoken(dict.fromkeys(old, 0.25) | {"u3": 0.75}))
    figure = comparison.figures[0]
    assert (figure.name, figure.better) == ("wer", "lower")
    assert figure.gain == pytest.approx(2.5 / 12)
    assert comparison.lost["wer"] == ["u3"]
    assert len(comparison.won["wer"]) == 11


def test_likeness_and_opinion_are_paired_by_utterance_over_the_seeds(tmp_path: Path) -> None:
    def result(gain: float) -> dict[str, Any]:
        runs = [
            {
                "seed": seed, "missing": [], "items": [],
                "verdicts": [{"id": f"u{n}", "similarity": n / 100 + seed + gain, "mos": None} for n in range(12)],
            }
            for seed in (0, 1)
        ]  # fmt: skip
        means = {"wer": 0.1, "wer_missing_as_wrong": 0.1, "similarity": 0.5 + gain, "mos": 3.0 + gain}
        return {
            "benchmark": "seed-tts", "meta": {"sha256": "d" * 64}, "language": "en", "judges": {}, "n_items": 12,
            "summary": {name: {"mean": mean} for name, mean in means.items()} | {"num_runs": 2, "num_missing": 0},
            "runs": runs, "ground_truth": None, "system": {}, "config": {},
        }  # fmt: skip

    figures = {figure.name: figure for figure in compared(tmp_path, result(0.0), result(0.25)).figures}
    tested = figures["similarity"].tested
    assert tested is not None
    assert tested.interval == pytest.approx((0.25, 0.25))
    assert tested.beyond_chance
    assert figures["predicted MOS"].tested is None  # no utterance has a value


def test_results_of_different_benchmarks_do_not_compare(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mmau .* seed-tts"):
        compared(tmp_path, mmau([True]), spoken({"a": 0.1}))


def test_folders_are_compared_file_by_file(tmp_path: Path) -> None:
    contents = {"same.json": mmau([True, False]), "mmau/changed.json": mmau([True] * 3), "gone.json": mmau([True])}
    for folder, names in (("old", list(contents)), ("new", list(contents)[:2])):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(contents[name]))
    (tmp_path / "new" / "fresh.json").write_text(json.dumps(mmau([False])))
    (tmp_path / "new" / "cut.json").write_text("{")
    sets = compare_sets(tmp_path / "old", tmp_path / "new")
    assert [comparison.name for comparison in sets.comparisons] == ["mmau/changed.json", "same.json"]
    assert (sets.only_old, sets.only_new) == (["gone.json"], ["fresh.json"])
    assert len(sets.unread) == 1


# --- the command ------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, old: Mapping[str, Any], new: Mapping[str, Any], *options: str) -> int:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(content))
    try:
        main(["compare-results", *map(str, paths), *options])
    except SystemExit as stop:
        return int(str(stop.code))
    return 0


def test_the_exit_status_tells_a_fall_below_the_threshold(tmp_path: Path) -> None:
    old, new = mmau([True] * 50 + [False] * 50), mmau([True] * 48 + [False] * 52)
    assert run(tmp_path, old, new) == 0
    assert run(tmp_path, old, new, "--fail-below=-0.03") == 0
    assert run(tmp_path, old, new, "--fail-below=-0.01") == 1
    assert run(tmp_path, old, new, "--fail-below", "0", "--beyond-chance") == 0
    worse = mmau([True] * 30 + [False] * 70)
    assert run(tmp_path, old, worse, "--fail-below", "0", "--beyond-chance") == 1
    assert run(tmp_path, old, mmau([True] * 50 + [False] * 50, mode="strict")) == 1


def test_a_rate_that_rises_or_is_gone_fails(tmp_path: Path) -> None:
    old = spoken({"a": 0.1, "b": 0.2})
    assert run(tmp_path, old, spoken({"a": 0.1, "b": 0.3}), "--fail-below", "0") == 1
    assert run(tmp_path, old, spoken({"a": 0.1, "b": 0.1}), "--fail-below", "0") == 0
    assert run(tmp_path, old, old | {"wer_of_all": None, "wer": None}, "--fail-below", "0") == 1


def test_everything_is_in_the_output_and_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "comparison.json"
    assert run(tmp_path, mmau([True, False]), mmau([False, True]), "--output", str(output)) == 0
    (comparison,) = json.loads(output.read_text())["comparisons"]
    assert (comparison["lost"], comparison["won"]) == ({"accuracy": ["q0"]}, {"accuracy": ["q1"]})
    assert "accuracy, lost: q0" in capsys.readouterr().out
