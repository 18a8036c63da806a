"""The speed comparison compares like with like, and leaves the model as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.benchmarks import tokenizer_speed
from audiollm.benchmarks.speed.encoding import build_model, in_another_form, make_clips, parts_of_encode, share_changed
from audiollm.benchmarks.speed.plain.encoder import PlainEncoder
from audiollm.benchmarks.tokenizer_speed import TokenizerSpeedConfig, measure
from audiollm.tokenizer.modeling import UniAudioTokenizer

TINY = TokenizerSpeedConfig(
    d_model=64, encoder_layers=2, quantize_position=1, codebook_size=32, num_files=3, rounds=1, long_seconds=35.0
)


def test_both_paths_give_the_same_codes_where_no_padding_leaks() -> None:
    model = build_model(TINY, seed=0)
    clips = make_clips([35.0], seed=2)
    codes = model.encode(clips, 16000).tolist()
    assert len(set(codes[0])) > 5
    assert share_changed(codes, PlainEncoder(model).encode(clips, 128)) == 0.0


def test_timing_the_parts_leaves_the_model_as_it_was() -> None:
    model = build_model(TINY, seed=0)
    clips = make_clips([2.0], seed=2)
    before, attributes = model.encode(clips, 16000).codes, set(vars(model.encoder))
    parts = parts_of_encode(model, clips)
    assert all(seconds >= 0 for seconds in parts.values())
    assert set(vars(model.encoder)) == attributes
    assert torch.equal(model.encode(clips, 16000).codes, before)


def test_figures_are_complete_and_serialisable() -> None:
    results = json.loads(json.dumps(measure(TINY)))
    for title in ("one file of 35 s", "3 files of 1-30 s"):
        assert set(results[title]["paths"]) == {"plain", "encode", "bfloat16", "int8"}
        for path in results[title]["paths"].values():
            assert 0 < path["min_seconds"] <= path["median_seconds"]
            assert path["share_of_bound"] > 0
    assert results["config"]["codebook_size"] == 32


def test_float16_and_what_is_compiled_are_timed_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UniAudioTokenizer, "compile_encoder", lambda self: None)
    tiny = replace(TINY, variants=("float16", "compiled"), num_files=1, long_seconds=1.0)
    paths = measure(tiny)["one file of 1 s"]["paths"]
    assert set(paths) == {"plain", "encode", "float16", "compiled"}
    assert paths["compiled"]["share_of_codes_changed_from_encode"] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds=0: use 1 or more"),
        ({"num_files": 0}, "num_files=0: use 1 or more"),
        ({"plain_batch_size": -1}, "plain_batch_size=-1: use 1 or more"),
        ({"long_seconds": -3.0}, "long_seconds=-3: use 6.25e-05 or more"),
        ({"long_seconds": float("inf")}, "long_seconds=inf: use"),
        ({"d_model": 50}, "d_model=50: use a multiple of 64"),
        ({"d_model": 0}, "d_model=0: use a multiple of 64"),
        ({"variants": ("int4",)}, "variants: int4 unknown; choose among bfloat16, float16, int8, compiled"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_anything_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="variant 'int4': use bfloat16, float16, int8 or compiled"):
        in_another_form(build_model(TINY, seed=0), "int4")


def test_figures_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_speed, "measure", lambda _: pytest.fail("it is told too late"))
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        tokenizer_speed.run(TokenizerSpeedConfig(output=str(tmp_path / "there")))
