"""Estimates of memory against what torch's own counter of allocations says of real updates, and their properties."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.adapters import add_adapters
from audiollm.training.audio_llm.config import LoRASettings, SFTConfig
from audiollm.training.audio_llm.memory import PassShape, estimate_memory, largest_micro_batch
from audiollm.training.audio_llm.model import recompute_activations
from audiollm.training.audio_llm.objective import TargetTokenLoss, num_chunks
from audiollm.training.speed.estimate import EstimateConfig, estimate, extended_config
from audiollm.vocabulary import AudioVocabulary

SHAPE = PassShape(rows=4, tokens=96, targets=200)
VOCABULARY = AudioVocabulary(codebook_size=512, first_code_id=1490, start_id=1488, end_id=1489)


def small(**changes: Any) -> Qwen2Config:
    sizes = {
        "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    return Qwen2Config(**(sizes | changes))


def settings(**changes: Any) -> SFTConfig:
    required = {"model": "m", "train_data": "t", "output_dir": "o", "global_batch_size": 8, "micro_batch_size": 4}
    return SFTConfig(**(required | changes))


def peak_of_real_updates(config: SFTConfig, model_config: Any, shape: PassShape, num_passes: int) -> int:
    """Bytes that torch has allocated at most in two updates, weights included, by its profiler's events of memory."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model = AutoModelForCausalLM.from_config(copy.deepcopy(model_config), dtype=getattr(torch, config.dtype))
        if config.gradient_checkpointing:
            recompute_activations(model)
        audio_llm: Any = type("Extended", (), {"model": model, "vocabulary": VOCABULARY})
        objective = TargetTokenLoss(model if config.lora is None else add_adapters(audio_llm, config.lora)).train()
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        labels = torch.full((shape.rows, shape.tokens), -100)
        labels.view(-1)[: shape.targets + shape.rows] = 1
        ids = torch.ones(shape.rows, shape.tokens, dtype=torch.long)
        chunks = num_chunks(shape.targets, model.config.vocab_size)
        for _ in range(2):
            for _ in range(num_passes):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.mixed_precision == "bf16"):
                    loss = objective(ids, torch.ones_like(ids), labels, num_chunks=chunks)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes", "num_passes"),
    [
        ({}, {}, 1),
        ({}, {}, 2),
        ({"tie_word_embeddings": False, "num_hidden_layers": 6}, {"gradient_checkpointing": True}, 1),
        ({}, {"mixed_precision": "bf16"}, 1),
        ({"hidden_size": 256, "intermediate_size": 1024}, {"dtype": "bfloat16"}, 1),
        ({"hidden_size": 256}, {"lora": LoRASettings(r=8)}, 1),
    ],
)
def test_estimates_are_within_15_percent_of_what_torch_allocates(model, changes, num_passes):
    config = settings(**changes)
    found = estimate_memory(config, small(**model), VOCABULARY, SHAPE, num_passes=num_passes)
    measured = peak_of_real_updates(config, small(**model), SHAPE, num_passes)
    assert found.total == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"mixed_precision": "bf16"}, {"lora": LoRASettings(r=8)}])
def test_logits_in_pieces_take_less_than_all_at_once(changes):
    shape = PassShape(rows=8, tokens=512, targets=4088)
    assert num_chunks(shape.targets, 32768) > 1
    found = estimate_memory(settings(**changes), small(vocab_size=32768), VOCABULARY, shape, num_passes=2)
    assert 0 < found.activations < 2 * shape.targets * 32768 * 4  # the logits in float32 and their gradient


def test_weights_gradients_and_optimizer_are_what_they_are_known_to_take():
    model = AutoModelForCausalLM.from_config(small())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    found = estimate_memory(settings(), small(), None, SHAPE, num_passes=2)
    assert found.num_parameters == found.num_trainable == num_parameters
    assert found.weights == pytest.approx(4 * num_parameters, rel=0.01)
    assert found.gradients == pytest.approx(4 * num_parameters, rel=0.01)  # of the pass before
    assert found.optimizer == pytest.approx(8 * num_parameters, rel=0.01)
    assert found.exchange == 0


def test_what_processes_share_is_divided_and_what_they_exchange_is_added():
    alone = estimate_memory(settings(), small(), None, SHAPE, num_passes=2)
    by_layout = {
        layout: estimate_memory(settings(), small(), None, SHAPE, layout, 4, 2)
        for layout in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    }
    assert by_layout["ddp"].exchange == pytest.approx(alone.gradients, rel=0.01)
    assert by_layout["zero1"].optimizer == by_layout["fsdp2"].optimizer == pytest.approx(alone.optimizer / 4, abs=1)
    assert by_layout["zero1"].gradients == alone.gradients
    assert by_layout["zero2"].gradients == pytest.approx(alone.gradients / 4, abs=1)
    assert by_layout["zero2"].weights == alone.weights
    assert by_layout["zero3"].weights == pytest.approx(alone.weights / 4, abs=1)
    assert all(one.activations == alone.activations for one in by_layout.values())
    split = estimate_memory(settings(shard_optimizer=True), small(), None, SHAPE, "ddp", 4, 2)
    assert alone.optimizer / 4 <= split.optimizer < alone.optimizer  # into whole weights
    assert split.exchange == by_layout["ddp"].exchange


def test_lora_and_checkpointing_take_less_and_a_longer_record_more():
    whole = estimate_memory(settings(), small(), VOCABULARY, SHAPE)
    lora = estimate_memory(settings(lora=LoRASettings(r=4, train_audio_rows=False)), small(), VOCABULARY, SHAPE)
    assert lora.optimizer < whole.optimizer / 20
    deep = small(num_hidden_layers=8)
    kept = estimate_memory(settings(), deep, None, SHAPE)
    recomputed = estimate_memory(settings(gradient_checkpointing=True), deep, None, SHAPE)
    assert recomputed.activations < kept.activations / 2
    longer = dataclasses.replace(SHAPE, tokens=2 * SHAPE.tokens)
    assert estimate_memory(settings(), small(), None, longer).activations > 1.5 * whole.activations


def test_the_largest_micro_batch_is_the_last_that_fits():
    asked: list[int] = []

    def takes(size: int) -> int:
        asked.append(size)
        return 10 * size

    assert largest_micro_batch(takes, [1, 2, 4, 8, 16, 32], 85) == 8
    assert largest_micro_batch(takes, [1, 2, 4], 5) is None
    assert len(asked) <= 6


def test_the_program_needs_settings_only(assets, capsys, monkeypatch):
    """Neither weights nor records are opened: of an extended text LLM the rows are counted."""
    extended = AudioLLM.from_pretrained(assets.audio_llm)
    monkeypatch.setattr("audiollm.loading.AutoModelForCausalLM.from_pretrained", None)
    config = EstimateConfig(
        model=str(assets.text_llm), audio_tokenizer=str(assets.audio_tokenizer), tokens_per_record=64, memory=1.0,
        global_batch_size=8, micro_batch_size=2, processes=2, launch="zero2", json=True,
    )  # fmt: skip
    facts = estimate(config)
    assert json.loads(capsys.readouterr().out) == facts
    assert facts["largest_micro_batch_that_fits"] == 4
    assert facts["launch"] == "zero2"
    assert facts["total_gib"] > facts["activations_gib"] > 0
    model_config, vocabulary = extended_config(config)
    assert model_config.vocab_size == extended.model.config.vocab_size
    assert vocabulary == extended.vocabulary


def test_what_cannot_be_estimated_is_refused(assets):
    with pytest.raises(ValueError, match=r"is a text LLM: name the audio tokenizer"):
        estimate(EstimateConfig(model=str(assets.text_llm)))
    with pytest.raises(ValueError, match=r"tokens_per_record=9999 exceeds the model's context of 256"):
        estimate(EstimateConfig(model=str(assets.audio_llm), tokens_per_record=9999))
    with pytest.raises(ValueError, match=r"target_share=0"):
        EstimateConfig(model="m", target_share=0.0)


@pytest.mark.parametrize("size", [2**62, 2**80])
@pytest.mark.parametrize("packs", [True, False])
def test_sizes_beyond_all_counting_are_refused_in_words(assets, size, packs):
    sizes = {"packing": "pack", "tokens_per_pass": size} if packs else {"global_batch_size": size}
    if not packs:
        sizes["micro_batch_size"] = size
    with pytest.raises(ValueError, match=r"a pass of [\d,]+ rows of [\d,]+ tokens, .* more bytes than can be counted"):
        estimate(EstimateConfig(model=str(assets.audio_llm), **sizes))


def test_layouts_that_no_run_can_have_are_refused_as_a_run_refuses_them(assets):
    with pytest.raises(ValueError, match="launch=single is one process, not 2: use ddp"):
        EstimateConfig(model="m", launch="single", processes=2)
    with pytest.raises(ValueError, match="optimizer=muon looks at whole matrices, which launch=zero3 cuts up"):
        EstimateConfig(model="m", launch="zero3", processes=2, optimizer="muon")
    with pytest.raises(ValueError, match=r"tokens_per_record=64 exceeds tokens_per_pass=50"):
        estimate(EstimateConfig(model=str(assets.audio_llm), tokens_per_record=64, tokens_per_pass=50))
