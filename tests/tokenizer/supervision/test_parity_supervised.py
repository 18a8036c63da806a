"""Tokenizer with text decoder: equal to the reference in evaluation, generation, one training step, and on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiollm.tokenizer import SupervisedTokenizer, UniAudioTokenizer
from audiollm.tokenizer.checkpoints.names import our_name
from audiollm.tokenizer.supervision.model import SupervisedOutput

BASE = "seq2seq_sae_before_vq"  # of which another folder may leave out what is the same
LOGITS_ATOL = 1e-3
LOSS_RTOL = 1e-5
GRADIENT_RTOL, GRADIENT_ATOL = 1e-3, 1e-6


@dataclass(frozen=True)
class Case:
    folder: Path
    io: dict[str, Tensor]
    meta: dict[str, Any]


@pytest.fixture
def case(seq2seq_folder: Path, tmp_path: Path) -> Case:
    """A checkpoint and its traces; a folder of the committed set may leave out tensors that equal the first one's."""
    folders = {BASE: seq2seq_folder.parent / BASE, seq2seq_folder.name: seq2seq_folder}
    tensors: dict[str, dict[str, Tensor]] = {"model.safetensors": {}, "io.safetensors": {}}
    for folder in folders.values() if lacks_tensors(seq2seq_folder) else [seq2seq_folder]:
        for file, gathered in tensors.items():
            gathered.update(load_file(folder / file))
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(seq2seq_folder, checkpoint)
    save_file(tensors["model.safetensors"], checkpoint / "model.safetensors", metadata={"format": "pt"})
    meta = json.loads((checkpoint / "meta.json").read_text())
    return Case(checkpoint, tensors["io.safetensors"], meta)


def lacks_tensors(folder: Path) -> bool:
    """Whether a folder holds only what differs from the first one's."""
    names = (
        json.loads((folder / "state_dict_keys.json").read_text()) if (folder / "state_dict_keys.json").is_file() else ()
    )
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return not set(names) <= set(file.keys()) if names else folder.name != BASE


@pytest.fixture
def model(case: Case) -> SupervisedTokenizer:
    return SupervisedTokenizer.from_pretrained(case.folder)


def run(model: SupervisedTokenizer, case: Case, **options: Any) -> SupervisedOutput:
    io = case.io
    return model(io["input_features"], io["attention_mask"], io["decoder_input_ids"], io["labels"], **options)


def test_logits_codes_and_loss(model: SupervisedTokenizer, case: Case) -> None:
    with torch.no_grad():
        output = run(model, case, return_logits=True)
    torch.testing.assert_close(output.logits, case.io["eval.logits"], atol=LOGITS_ATOL, rtol=0)
    hidden = case.io["eval.encoder_last_hidden_state"]
    torch.testing.assert_close(output.encoder_last_hidden_state, hidden, atol=1e-4, rtol=0)
    assert torch.equal(output.codes, case.io["eval.quantized_token_ids"])
    assert float(output.text_loss_sum / output.num_targets) == pytest.approx(case.meta["eval"]["loss"], rel=LOSS_RTOL)
    assert float(output.quantizer_loss_sum) == 0
    weights = output.frame_mask.sum(dim=1).float()
    gate_mean = (output.gate_means * weights).sum() / weights.sum()
    assert float(gate_mean) == pytest.approx(case.meta["eval"]["residual_gamma_mean"], abs=1e-5)


def test_inputs_are_made_of_labels(model: SupervisedTokenizer, case: Case) -> None:
    io = case.io
    with torch.no_grad():
        output = model(io["input_features"], io["attention_mask"], labels=io["labels"], return_logits=True)
    torch.testing.assert_close(output.logits, io["shifted.logits"], atol=LOGITS_ATOL, rtol=0)
    expected = case.meta["eval_labels_only"]["loss"]
    assert float(output.text_loss_sum / output.num_targets) == pytest.approx(expected, rel=LOSS_RTOL)


def test_greedy_text(model: SupervisedTokenizer, case: Case) -> None:
    io = case.io
    start_ids = torch.full((3,), model.config.decoder_start_token_id)
    texts = model.generate(io["input_features"], io["attention_mask"], start_ids, max_new_tokens=12, end_id=None)
    assert texts == io["greedy.ids"][:, 1:].tolist()


def test_one_training_step(model: SupervisedTokenizer, case: Case) -> None:
    io, expected = case.io, case.meta["train"]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    codebook = model.tokenizer.codebook
    codebook.recent_codes.copy_(io["train.init.codebook_used"])
    output = run(model, case)
    text_loss = output.text_loss_sum / output.num_targets
    quantizer_loss = output.quantizer_loss_sum / output.num_frames
    (text_loss + quantizer_loss).backward()
    assert text_loss.item() == pytest.approx(expected["ce_loss"], rel=LOSS_RTOL)
    assert quantizer_loss.item() == pytest.approx(expected["quantized_loss"], rel=LOSS_RTOL)
    assert torch.equal(output.codes, io["train.quantized_token_ids"])
    compare_gradients(model, case)
    for name, buffer in (("codebook", codebook.weight), ("ema_count", codebook.ema_count)):
        torch.testing.assert_close(buffer.detach(), io[f"train.{name}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(codebook.ema_weight, io["train.ema_weight"], atol=1e-5, rtol=0)
    assert torch.equal(codebook.recent_codes, io["train.codebook_used"].long())
    assert codebook.usage() == pytest.approx(expected["codebook_usage"])


def compare_gradients(model: SupervisedTokenizer, case: Case) -> None:
    names = case.meta["train"]["grad_norms"]
    for name, norm in names.items():
        gradient = parameter(model, name).grad
        assert gradient is not None, name
        assert float(gradient.norm()) == pytest.approx(norm, rel=GRADIENT_RTOL), name
        if f"train.grad.{name}" in case.io:
            recorded = case.io[f"train.grad.{name}"]
            torch.testing.assert_close(gradient, recorded, rtol=GRADIENT_RTOL, atol=GRADIENT_ATOL, msg=name)
    with_gradient = {own for own, tensor in model.named_parameters() if tensor.grad is not None}
    assert len(with_gradient) == len(names)


def parameter(model: SupervisedTokenizer, name: str) -> nn.Parameter:
    """Finds the parameter that a name of the training layout means."""
    if name.startswith("model.decoder."):
        return model.decoder.get_parameter(name.removeprefix("model.decoder."))
    ours = our_name(name)
    assert ours is not None
    return model.tokenizer.get_parameter(ours)


def test_saving_writes_the_same_checkpoint(model: SupervisedTokenizer, case: Case, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "saved")
    expected, saved = (load_file(folder / "model.safetensors") for folder in (case.folder, tmp_path / "saved"))
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (case.folder, tmp_path / "saved"))
    # transformers has renamed or dropped keys since; what decides the model is the same.
    deciding = [key for key in old if key in new and key not in ("transformers_version", "use_cache")]
    assert len(deciding) > 50
    assert {key: new[key] for key in deciding} == {key: old[key] for key in deciding}


def test_the_exported_tokenizer(model: SupervisedTokenizer, case: Case, tmp_path: Path) -> None:
    model.export_tokenizer(tmp_path / "exported")
    expected = load_file(case.folder / "exported_tokenizer" / "expected.safetensors")
    exported = UniAudioTokenizer.from_pretrained(tmp_path / "exported")
    with torch.no_grad():
        output = exported(case.io["input_features"], case.io["attention_mask"])
    assert torch.equal(output.codes, expected["export.quantized_token_ids"])
    for name in ("last_hidden_state", "pre_quantizer_hidden"):
        torch.testing.assert_close(getattr(output, name), expected[f"export.{name}"], atol=1e-4, rtol=0)
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    reference = json.loads((case.folder / "exported_tokenizer" / "config.json").read_text())
    assert config["quantize_encoder_only"] is reference["quantize_encoder_only"] is True
    if (case.folder / "exported_tokenizer" / "model.safetensors").is_file():
        published = load_file(case.folder / "exported_tokenizer" / "model.safetensors")
        own = load_file(tmp_path / "exported" / "model.safetensors")
        assert own.keys() == published.keys()
        assert all(torch.equal(own[name], value) for name, value in published.items())
