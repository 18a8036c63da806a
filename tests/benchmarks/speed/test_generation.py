"""The comparison of generation gives the same tokens either way, and complete figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from audiollm.benchmarks.speed import generation, token_times
from audiollm.benchmarks.speed.generation import GenerationSpeedConfig, make_prompts, make_ways, measure
from audiollm.benchmarks.speed.token_times import make_model

TINY = GenerationSpeedConfig(shapes=("tiny",), rows=(1, 2), prompt_tokens=4, new_tokens=5, rounds=1)


def test_figures_are_complete_and_the_tokens_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_times, "_STREAM_BYTES", 1_000_000)
    results = json.loads(json.dumps(measure(TINY)))
    assert set(results["results"]) == {
        f"tiny, {answers}, {rows} at once" for answers in ("text", "audio") for rows in (1, 2)
    }
    for title, result in results["results"].items():
        drawn = {"ours, drawn"} if "audio" in title else set()
        assert set(result["ways"]) == {"plain", "plain, masked", "ours"} | drawn
        for way in result["ways"].values():
            assert 0 < way["min_seconds"] <= way["median_seconds"]
            assert way["share_of_bound"] > 0
        assert result["ways"]["plain, masked"]["share_of_tokens_of_ours"] == 1.0
    assert results["machine"]["gigabytes_per_second"] > 0


def test_every_answer_has_the_length_that_is_counted() -> None:
    model = make_model("tiny", generation.torch.float32, seed=0)
    for answers in ("text", "audio"):
        prompts = make_prompts(model, 2, 4, answers, seed=0)  # type: ignore[arg-type]
        for run in make_ways(model, prompts, answers, 6, seed=0).values():  # type: ignore[arg-type]
            assert run().shape == (2, 6)


def test_unknown_shapes_and_empty_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape 'huge': use mini, SmolLM2-135M, Qwen2\.5-0\.5B, tiny"):
        make_model("huge", generation.torch.float32, seed=0)
    with pytest.raises(ValueError, match="rounds=0: use 1 or more"):
        GenerationSpeedConfig(rounds=0)
    with pytest.raises(ValueError, match="rows is empty: name at least one"):
        GenerationSpeedConfig(rows=())
    with pytest.raises(ValueError, match=r"seed=18446744073709551616: use a whole number of 64 bits"):
        GenerationSpeedConfig(seed=2**64)
    with pytest.raises(ValueError, match="num_threads=0: use 1 or more"):
        measure(replace(TINY, num_threads=0))


def test_figures_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "measure", lambda _: pytest.fail("it is told too late"))
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        generation.run(GenerationSpeedConfig(output=str(tmp_path / "there")))
