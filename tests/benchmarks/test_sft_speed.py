"""The comparison of fine-tuning counts what it says, and refuses what it cannot run."""

from __future__ import annotations

import json

import pytest

from audiollm.benchmarks import sft_speed
from audiollm.benchmarks.sft_speed import SFTSpeedConfig, make_contestants, measure, run
from audiollm.benchmarks.speed.fine_tuning.contestants import Contestant, FinishedRun, figures_of, run_contestant
from audiollm.benchmarks.speed.fine_tuning.material import make_material
from audiollm.training.audio_llm.config import SFTConfig

TINY = {"layers": 1, "hidden_size": 16, "heads": 2, "records": 6, "updates": 2, "global_batch_size": 2}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    return make_material(folder, layers=1, hidden_size=16, heads=2, num_records=6, answers="audio", seed=0)


def test_the_records_are_the_same_for_all(material):
    encoded = [json.loads(line) for line in material.encoded.read_text().splitlines()]
    records = [json.loads(line) for line in material.records.read_text().splitlines()]
    assert len(encoded) == len(records) == 6
    for ids, record in zip(encoded, records, strict=True):
        targets = [label for label in ids["labels"] if label != -100]
        assert len(targets) > len(record["messages"][1]["content"][0]["codes"])
    assert material.layer_parameters == 4 * 16 * 16 + 3 * 16 * 64
    assert material.head_parameters % 16 == 0


def test_our_settings_are_those_of_the_trainer(material, tmp_path):
    config = SFTSpeedConfig(**TINY, micro_batch_size=2, packed_tokens=600)
    made = make_contestants(config, material, mean_tokens=100.0)
    for name in ("ours", "ours packed"):
        SFTConfig(**made[name].settings, output_dir=str(tmp_path))
    assert made["TRL packed"].settings["accumulation"] == 1


def lines(step_costs):
    return [
        {"tokens": 100, "target_tokens": 10, "seconds": cost, "processor_seconds": cost, "data_seconds": cost / 10,
         "padding_share": 0.2, "loss": 1.0}
        for cost in step_costs
    ]  # fmt: skip


def test_costs_are_medians_over_runs_without_the_first_update():
    runs = [FinishedRun(lines([9.0, cost, cost]), peak_bytes=int(cost * 1e6)) for cost in (1.0, 2.0, 6.0)]
    figures = figures_of(runs, skip=1, flops=(3, 20), gemm_rate=100.0)
    assert figures["processor_ms_per_token"] == pytest.approx(20.0)
    assert figures["processor_ms_per_token_range"] == pytest.approx([10.0, 60.0])
    assert figures["gemm_share"] == pytest.approx((3 * 200 + 20 * 20) / 100 / 4)
    assert figures["data_stall_share"] == pytest.approx(0.1)
    assert figures["peak_mb"] == pytest.approx(2.0)


def test_a_contestant_that_fails_is_named_with_what_it_said(tmp_path):
    broken = Contestant("broken", "audiollm.no_such_module", {}, "metrics.jsonl")
    with pytest.raises(ValueError, match=r"broken ended with status 1:\n.*no_such_module"):
        run_contestant(broken, tmp_path / "broken", {})


def test_what_cannot_run_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="2 updates of 16 need more"):
        SFTSpeedConfig(records=20, updates=2)
    monkeypatch.setattr(sft_speed, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="TRL is not installed: pip install trl"):
        measure(SFTSpeedConfig())


@pytest.mark.slow
def test_all_contestants_learn_the_same(tmp_path, capsys):
    pytest.importorskip("trl")
    settings = TINY | {"layers": 2, "hidden_size": 64, "records": 40, "updates": 3, "global_batch_size": 8}
    run(SFTSpeedConfig(**settings, micro_batch_size=4, packed_tokens=600, rounds=1, output=str(tmp_path / "a.json")))
    contestants = json.loads((tmp_path / "a.json").read_text())["contestants"]
    ours, packed, trl, _ = contestants.values()
    assert packed["losses"] == pytest.approx(ours["losses"], rel=1e-4)
    assert trl["losses"] == pytest.approx(ours["losses"], rel=1e-3)
    assert trl["tokens"] == ours["tokens"] == packed["tokens"]
    assert all(one["peak_mb"] > 100 for one in contestants.values())
    assert "TRL packed" in capsys.readouterr().out
