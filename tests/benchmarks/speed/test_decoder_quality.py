"""The comparison of ways to integrate the flow: how ways are written, what they cost, what is called worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.benchmarks.speed.decoder_quality import (
    DecoderQualityConfig,
    Judges,
    QualityClip,
    Way,
    judge,
    measure,
    mel_distance,
    num_passes,
    print_tables,
    worse_than,
)
from audiollm.tables import table_console
from audiollm.tokenizer.decoder.configuration import FlowConfig
from audiollm.tokenizer.decoder.flow.solvers import Integration

SAMPLE = Path(__file__).parents[3] / "data/corpora/sample"


def test_a_way_says_what_differs_from_the_checkpoint() -> None:
    config = FlowConfig(guidance=0.4, cosine_schedule=False)
    assert Way.read("euler@10", config) == Way(Integration(10, 0.4, "euler", 0.0))
    assert Way.read("dpm@5,sway=-0.5,guided_until=0.25", config).integration == Integration(5, 0.4, "dpm", -0.5, 0.25)
    assert Way.read("dpm@5,history=1.5", config) == Way(Integration(5, 0.4, "dpm", 0.0), 1.5)
    assert Way.read("euler@4,dtype=int8", config) == Way(Integration(4, 0.4, "euler", 0.0), dtype="int8")


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("euler", "no way to integrate"),
        ("euler@", "no way to integrate"),
        ("dpm@5;sway=1", "no way to integrate"),
        ("rk@4", "solver='rk' is unknown"),
        ("heun@3", "steps=3: the solver heun"),
        ("dpm@5,seed=1", "sets seed: use sway, guided_until, history or dtype"),
        ("dpm@5,dtype=int4", "dtype=int4: use float32, bfloat16, int8"),
        ("dpm@5,sway=much", "could not convert string to float: 'much'"),
        ("dpm@5,sway=3", "sway=3"),
        ("dpm@5,sway=1,sway=0", "sets something twice"),
        ("dpm@5,history=-1", "history=-1: use seconds, 0 or more"),
        ("dpm@5,history=nan", "history=nan: use seconds"),
        ("dpm@5,history=inf", "history=inf: use seconds"),
    ],
)
def test_what_is_no_way_is_refused_before_anything_is_loaded(way: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderQualityConfig(data="none.jsonl", ways=(way,))


def test_no_way_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="ways is empty: name at least one to compare with euler@10"):
        DecoderQualityConfig(data="none.jsonl", ways=())


def test_recordings_that_no_opinion_can_be_had_of_are_told() -> None:
    clip = QualityClip(torch.zeros(8), torch.zeros(1), torch.zeros(2, 3), None)
    with pytest.raises(ValueError, match=r"DNSMOS has no opinion of any recording.*--mos false"):
        judge([clip], [clip.mel], [clip.waveform], 16000, Judges(None, None, lambda *_: None))


def test_one_noise_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two different"):
        DecoderQualityConfig(data="none.jsonl", seeds=(1, 1))


def test_a_guided_evaluation_costs_two_passes() -> None:
    assert num_passes(Integration(10, 0.7)) == 20
    assert num_passes(Integration(10, 0.0)) == 10
    assert num_passes(Integration(4, 0.7, "heun", sway=0.0, guided_until=0.5)) == 5  # asked at 0, 0.5, 0.5 and 1
    assert num_passes(Integration(4, 0.7, sway=0.0, guided_until=0.5)) == 6


def test_worse_is_beyond_the_published_spread_and_on_its_wrong_side() -> None:
    published = {"mean": {"wer": 0.2, "dnsmos": 3.0}, "spread": {"wer": 0.01, "dnsmos": 0.1}}
    assert worse_than({"mean": {"wer": 0.205, "dnsmos": 2.95}}, published) == []
    assert worse_than({"mean": {"wer": 0.1, "dnsmos": 4.0}}, published) == []
    assert worse_than({"mean": {"wer": 0.22, "dnsmos": 2.8}}, published) == ["wer", "dnsmos"]


def test_mels_are_compared_over_the_frames_of_both() -> None:
    assert mel_distance(torch.ones(2, 5), torch.zeros(2, 7)) == 1.0


def test_mini_is_measured_from_recordings_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "clips.jsonl"
    recordings = sorted((SAMPLE / "asterisk/en").glob("*.opus"))[:2]
    data.write_text("".join(json.dumps({"audio": str(path), "text": "hello"}) + "\n" for path in recordings))
    settings: dict[str, Any] = {"asr": None, "similarity": False, "mos": False}
    ways = ("dpm@2", "euler@10,history=1", "euler@10,dtype=bfloat16")
    results = measure(DecoderQualityConfig(data=str(data), ways=ways, seeds=(0, 1), **settings))
    assert results["num_clips"] == 2
    assert list(results["ways"]) == ["euler@10", *ways]
    assert 0 < results["ways"]["euler@10,dtype=bfloat16"]["from_published"][0] < 0.1
    assert 0 < results["ways"]["euler@10,history=1"]["from_published"][0] < 0.2
    published = results["ways"]["euler@10"]
    assert published["from_published"] == [0.0, 0.0]
    assert published["worse"] == []
    assert results["ways"]["dpm@2"]["from_published"][0] > 0
    assert results["originals"]["mel_distance"] == 0.0
    print_tables(results, table_console())
    assert "dpm@2" in capsys.readouterr().out


def test_a_record_without_audio_and_an_empty_file_are_named(tmp_path: Path) -> None:
    data = tmp_path / "clips.jsonl"
    settings: dict[str, Any] = {"asr": None, "similarity": False, "mos": False, "data": str(data)}
    data.write_text('{"text": "hello"}\n')
    with pytest.raises(ValueError, match="record 1 has no audio"):
        measure(DecoderQualityConfig(**settings))
    data.write_text("")
    with pytest.raises(ValueError, match="holds no recordings"):
        measure(DecoderQualityConfig(**settings))
