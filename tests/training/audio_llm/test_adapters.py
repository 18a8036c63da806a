"""Adapters are merged whole and into the model that they were trained on, or refused by name."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.adapters import add_adapters, merge_adapter
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.sft import train

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def trained(assets, tmp_path_factory) -> Path:
    """An adapter as a run saves it, with weights that change something."""
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    audio_llm = AudioLLM.from_pretrained(assets.audio_llm)
    adapted = add_adapters(audio_llm, LoRASettings(r=2, target_modules=("q_proj", "v_proj")))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "adapter")
    return tmp_path / "adapter"


def change_weights(adapter: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})


def change_settings(adapter: Path, **values: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_putting_on_and_merging_an_adapter_warn_of_nothing(assets, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge_adapter(str(assets.audio_llm), adapter, "float32")
        add_adapters(AudioLLM.from_pretrained(assets.audio_llm), LoRASettings(r=2))


def test_a_whole_adapter_changes_its_layers(assets, adapter):
    before = AudioLLM.from_pretrained(assets.audio_llm).model.state_dict()
    after = merge_adapter(str(assets.audio_llm), adapter, "float32").model.state_dict()
    assert {name.split(".")[-2] for name, tensor in before.items() if not torch.equal(tensor, after[name])} == {
        "q_proj",
        "v_proj",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), rf"missing: {NAME}"),
        (lambda t: t.clear(), rf"missing: .*{NAME}"),
        (lambda t: t.update({"base_model.model.other": torch.zeros(1)}), r"unknown: base_model\.model\.other"),
        (lambda t: t.update({NAME: torch.zeros(3, 32)}), rf"{NAME} \[3, 32\] instead of \[2, 32\]"),
        (lambda t: t[NAME].fill_(torch.nan), rf"NaN or infinity in {NAME}"),
    ],
)
def test_weights_that_are_not_its_own_are_named(assets, adapter, change, message):
    change_weights(adapter, change)
    with pytest.raises(ValueError, match=message):
        merge_adapter(str(assets.audio_llm), adapter, "float32")


def test_an_adapter_is_merged_into_the_model_it_was_trained_on(assets, adapter):
    with pytest.raises(ValueError, match=rf"trained on {re.escape(str(assets.audio_llm))}, not on .*untied"):
        merge_adapter(str(assets.untied_audio_llm), adapter, "float32")
    change_settings(adapter, base_model_name_or_path=str(assets.untied_audio_llm))  # a lie that the rank cannot hide
    change_weights(adapter, lambda tensors: tensors.update({NAME: torch.zeros(2, 48)}))
    with pytest.raises(ValueError, match=rf"{NAME} \[2, 48\] instead of \[2, 32\]"):
        merge_adapter(str(assets.untied_audio_llm), adapter, "float32")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "holds no adapter"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not valid JSON"),
        (lambda folder: change_settings(folder, peft_type="IA3"), "only LORA is merged"),
        (lambda folder: change_settings(folder, r="two"), r"adapter cannot be loaded"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cut off or damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\0" * 40), "cut off or damaged"),
    ],
)
def test_damaged_files_are_named(assets, adapter, break_it, message):
    break_it(adapter)
    with pytest.raises(ValueError, match=message) as refused:
        merge_adapter(str(assets.audio_llm), adapter, "float32")
    assert str(adapter) in str(refused.value)


@pytest.mark.parametrize("untied", [False, True])
def test_of_two_phases_the_first_trains_new_rows_alone_and_the_second_goes_on_from_it(
    make_config: Any, assets: Any, tmp_path: Path, untied: bool
) -> None:
    source = assets.untied_audio_llm if untied else assets.audio_llm
    first = make_config(model=str(source), lora=LoRASettings(rows_only=True), max_steps=2, weight_decay=0.5)
    train(first)
    before, after = AudioLLM.from_pretrained(source), AudioLLM.from_pretrained(tmp_path / "run")
    rows = torch.zeros(before.model.config.vocab_size, dtype=torch.bool)
    rows[before.vocabulary.token_ids] = True
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    for name, tensor in after.model.state_dict().items():
        changed = (tensor != before.model.state_dict()[name]).reshape(len(tensor), -1).any(dim=1)
        assert not changed[~rows].any() if name in tables else not changed.any(), name
        if name in tables:
            assert changed.any()
    train(make_config(model=str(tmp_path / "run"), output_dir=str(tmp_path / "second"), max_steps=1))
    assert AudioLLM.from_pretrained(tmp_path / "second").vocabulary == before.vocabulary


def test_rows_alone_leave_no_choice_of_layers() -> None:
    with pytest.raises(ValueError, match="rows_only trains the rows of the audio vocabulary alone"):
        LoRASettings(rows_only=True, target_modules=("q_proj",))
    with pytest.raises(ValueError, match="rows_only"):
        LoRASettings(rows_only=True, train_audio_rows=False)
