"""The tokenizer's training on two processes, launched as users launch it: the same updates as on one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from audiollm.training.audio_tokenizer.config import TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.train_tokenizer import flat_numbers, train

from .finished_runs import metrics_of, weights_of

SCRIPT = "training/train_tokenizer.py"


def lines_of(config: TokenizerTrainingConfig, event: str = "train") -> list[dict]:
    lines = metrics_of(config.output_dir, event)
    return [flat_numbers({name: value for name, value in line.items() if name != "event"}) for line in lines]


@pytest.mark.multiprocess
@pytest.mark.parametrize("mode", ["ddp", "zero1", "zero2"])
def test_two_processes_equal_one_and_resume(make_tokenizer_config, tokenizer_corpus, launches, tmp_path, mode):
    """Five clips per update: three on one process, in two passes; two on the other, in one pass and an empty one."""
    settings = {
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0),
        "global_batch_size": 5, "micro_batch_size": 2, "save_every": 3, "output_vocabulary": "seen",
        "eval_data": str(tokenizer_corpus.dev), "eval_every": 3, "eval_samples": 2,
        "decoder_learning_rate": 1e-3, "learning_rate": 1e-3,
    }  # fmt: skip
    alone = make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings)
    train(alone)
    both = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run(mode, SCRIPT, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    record = json.loads((Path(both.output_dir) / "run.json").read_text())
    assert record["launch"] == {"mode": mode, "num_processes": 2}
    for event in ("train", "eval"):
        for line, expected in zip(lines_of(both, event), lines_of(alone, event), strict=True):
            assert line == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert sum(line["num_restarted"] for line in lines_of(both)) > 0
    expected_weights = weights_of(alone.output_dir)
    for name, tensor in weights_of(both.output_dir).items():
        if name.endswith("codebook_used"):  # which codes, not in which order
            assert set(tensor.tolist()) == set(expected_weights[name].tolist())
            continue
        torch.testing.assert_close(
            tensor, expected_weights[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )

    # The same run, killed after its third update.
    stopped = tmp_path / "stopped"
    shutil.copytree(both.output_dir, stopped)
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "checkpoints" / "step_000006")
    (stopped / "checkpoints" / "latest").write_text("step_000003")
    resumed = make_tokenizer_config(output_dir=str(stopped), resume="latest", num_processes=2, **settings)
    ended = launches.run(mode, SCRIPT, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        assert lines_of(resumed, event) == lines_of(both, event)
    for name, tensor in weights_of(both.output_dir).items():
        assert torch.equal(tensor, weights_of(resumed.output_dir)[name]), name


@pytest.mark.multiprocess
def test_a_process_without_a_clip_takes_part(make_tokenizer_config, launches, tmp_path):
    settings = {
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0),
        "global_batch_size": 1, "micro_batch_size": 1, "max_steps": 4,
    }  # fmt: skip
    alone = make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings)
    train(alone)
    both = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", SCRIPT, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for line, expected in zip(lines_of(both), lines_of(alone), strict=True):
        assert line == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.multiprocess
def test_what_shards_the_weights_is_refused(make_tokenizer_config, launches, tmp_path):
    ended = launches.run("zero3", SCRIPT, make_tokenizer_config())
    assert ended.returncode != 0
    assert "ZeRO-3 is not supported here" in ended.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
