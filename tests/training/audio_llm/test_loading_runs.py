"""`AudioLLM.from_pretrained` takes what a run leaves: its folder, its adapter, its checkpoints; or says what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiollm.modeling import AudioLLM
from audiollm.sources.places import find_source
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.sft import train


def weights(audio_llm: AudioLLM) -> dict[str, Tensor]:
    return audio_llm.model.state_dict()


def same(first: AudioLLM, second: AudioLLM) -> bool:
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def runs(assets, tmp_path_factory) -> Path:
    """Three finished runs: of all weights, of adapters, and of a text LLM that was extended first."""
    from audiollm.training.audio_llm.config import SFTConfig

    root = tmp_path_factory.mktemp("runs")
    settings = {
        "model": str(assets.audio_llm), "train_data": str(assets.train), "max_steps": 2, "global_batch_size": 8,
        "learning_rate": 1e-2, "save_every": 1,
    }  # fmt: skip
    for name, changes in (
        ("whole", {}),
        ("adapted", {"lora": LoRASettings(r=2, target_modules=("q_proj",))}),
        ("extended", {"model": str(assets.text_llm), "audio_tokenizer": str(assets.audio_tokenizer)}),
    ):
        train(SFTConfig(**{**settings, **changes, "output_dir": str(root / name)}))
    return root


@pytest.fixture
def run(runs: Path, tmp_path: Path):
    """Copies of them, each to be changed by one test."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


def refused(folder: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern) as raised:
        AudioLLM.from_pretrained(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["whole", "adapted", "extended"])
def test_the_folder_of_a_run_is_its_trained_model(run, name):
    folder = run(name)
    assert (folder / MODEL_FOLDER).is_dir()
    assert same(AudioLLM.from_pretrained(folder), AudioLLM.from_pretrained(folder / "model"))


def test_a_run_leads_to_the_audio_tokenizer_too(run, assets):
    expected = UniAudioTokenizer.from_pretrained(assets.audio_tokenizer).fingerprint()
    assert UniAudioTokenizer.from_pretrained(run("whole")).fingerprint() == expected


def test_an_adapter_is_merged_into_the_model_it_names(run):
    folder = run("adapted")
    loaded = AudioLLM.from_pretrained(folder / "adapter")
    assert same(loaded, AudioLLM.from_pretrained(folder / "model"))
    assert not loaded.model.training


@pytest.mark.parametrize("name", ["whole", "extended"])
def test_a_checkpoint_is_the_model_as_it_was_then(run, name):
    folder = run(name)
    last, first = (AudioLLM.from_pretrained(folder / "checkpoints" / f"step_{step:06d}") for step in (2, 1))
    assert same(last, AudioLLM.from_pretrained(folder))
    assert not same(first, last)
    assert first.chat([{"role": "user", "content": "Hi"}], max_new_tokens=2).texts


def test_latest_is_the_checkpoint_that_it_names(run):
    latest = run("whole") / "checkpoints" / "latest"
    assert find_source(latest) == find_source(latest.with_name("step_000002"))
    latest.write_text("step_000001\n")
    assert same(AudioLLM.from_pretrained(latest), AudioLLM.from_pretrained(latest.with_name("step_000001")))
    for other in ("step_000009", "../model", "", "\xff" * 1000):
        latest.write_text(other, encoding="latin-1")
        refused(latest, r"latest names no checkpoint that lies beside it: give a folder such as step_000100 there")


def test_a_run_without_a_model_says_how_to_go_on(run):
    folder = run("whole")
    shutil.rmtree(folder / "model")
    latest = re.escape(str(folder / "checkpoints" / "step_000002"))
    refused(
        folder, rf"{re.escape(str(folder))} is the folder of a run.*--resume latest, or load its checkpoint {latest}$"
    )
    shutil.rmtree(folder / "checkpoints")
    refused(folder, "go on with --resume latest$")


def test_an_adapter_without_its_base_says_where_to_name_it(run, tmp_path):
    folder = run("adapted")
    path = folder / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"base_model_name_or_path": str(tmp_path / "gone")}))
    cure = rf"gone, which is not there: write .* into base_model_name_or_path of {re.escape(str(path))}"
    refused(folder / "adapter", rf"{cure}, or load {re.escape(str(folder / 'model'))}, which it was merged into$")
    shutil.rmtree(folder / "model")
    refused(folder / "adapter", rf"{cure}$")
    path.write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    refused(folder / "adapter", "names no base model: write")


def test_checkpoints_that_hold_no_model_are_refused(run):
    refused(
        run("adapted") / "checkpoints" / "step_000002", "holds adapters in the middle of a run: end it with --resume"
    )
    folder = run("whole") / "checkpoints" / "step_000001"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "/gone/away"}))
    refused(folder, "started from /gone/away, which is not there: write where it is into model of")
    (folder / "config.json").write_text(json.dumps({**config, "model": None}))
    refused(folder, "a checkpoint of another training")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "weights.safetensors").write_bytes(b"cut")
    refused(folder, "cut off or damaged")
    (folder / "weights.safetensors").unlink()
    refused(folder, "weights split by DeepSpeed")
