"""Fine-tuning under FSDP2 makes the updates of one process: two CPU processes stand for GPUs (see fsdp_on_cpu.py)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.config import LoRASettings, SFTConfig
from audiollm.training.loop.errors import LaunchError
from audiollm.training.sft import train

from .finished_runs import metrics_of, weights_of
from .launched_jobs import ROOT, launch_environment


def run_sharded(config: SFTConfig, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a fine-tuning on two processes that shard the weights."""
    path = folder / f"{Path(config.output_dir).name}.json"
    path.write_text(json.dumps(dataclasses.asdict(config)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = launch_environment(folder) | {"ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [*launch, "tests/training/fsdp_on_cpu.py", "--config", str(path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoRASettings(r=2, target_modules=("q_proj",))])
def test_fsdp2_equals_one_process_and_resumes_to_the_same_bits(
    make_config: Any, assets: Any, tmp_path: Path, lora: LoRASettings | None
) -> None:
    """Extends the vocabulary before it is sharded, clips, evaluates, generates, saves and merges."""
    settings = {
        "model": str(assets.text_llm), "audio_tokenizer": str(assets.audio_tokenizer), "lora": lora, "max_steps": 4,
        "eval_data": str(assets.dev), "eval_every": 2, "eval_generate_samples": 3, "eval_max_new_tokens": 3,
        "save_every": 2, "gradient_checkpointing": True, "max_grad_norm": 0.5,
    }  # fmt: skip
    train(make_config(output_dir=str(tmp_path / "alone"), **settings))
    sharded = make_config(output_dir=str(tmp_path / "sharded"), num_processes=2, **settings)
    ended = run_sharded(sharded, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    record = json.loads((tmp_path / "sharded" / "run.json").read_text())
    assert record["launch"] == {"mode": "fsdp2", "num_processes": 2}
    assert record["num_parameters"] == json.loads((tmp_path / "alone" / "run.json").read_text())["num_parameters"]
    for event in ("train", "eval"):
        lines = zip(metrics_of(tmp_path / "sharded", event), metrics_of(tmp_path / "alone", event), strict=True)
        for line, expected in lines:
            for name in {"loss", "grad_norm", "target_tokens"} & expected.keys():
                assert line[name] == pytest.approx(expected[name], rel=2e-4), (event, name)
    weights, expected_weights = weights_of(tmp_path / "sharded"), weights_of(tmp_path / "alone")
    assert weights.keys() == expected_weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[name], rtol=1e-2, atol=1e-3)
    assert AudioLLM.from_pretrained(tmp_path / "sharded").vocabulary.codebook_size == 64

    # The same run, killed after its second update.
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "sharded", stopped)
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "checkpoints" / "step_000004")
    (stopped / "checkpoints" / "latest").write_text("step_000002")
    resumed = dataclasses.replace(sharded, output_dir=str(stopped), resume="latest")
    ended = run_sharded(resumed, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(stopped, None) == metrics_of(tmp_path / "sharded", None)
    for name, tensor in weights_of(stopped).items():
        assert torch.equal(tensor, weights[name]), name


def test_fsdp_without_a_gpu_is_refused_where_accelerate_would_leave_it_out(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(LaunchError, match=r"no GPU: use training/configs/accelerate/zero3\.yaml"):
        train(make_config())
