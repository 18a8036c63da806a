"""Packed rows give the loss and the gradients of the same records in a padded batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.collation import IGNORED_LABEL, collate, collate_packed
from audiollm.data.packing import best_fit
from audiollm.training.audio_llm.adapters import add_adapters
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.audio_llm.objective import TargetTokenLoss
from audiollm.training.audio_llm.packed_attention import segment_attention

from .test_families import FAMILIES, build_audio_llm, build_text_llm

LENGTHS = (5, 1, 40, 17, 23, 2)


def examples(vocabulary_size: int):
    generator = torch.Generator().manual_seed(0)
    made = []
    for length in LENGTHS:
        ids = torch.randint(0, vocabulary_size, (length,), generator=generator)
        # The first token has a label too, which nothing may predict.
        is_target = torch.rand(length, generator=generator) < 0.6
        is_target[0] = True
        made.append({"input_ids": ids, "labels": ids.where(is_target, torch.tensor(IGNORED_LABEL))})
    return made


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = TargetTokenLoss(model)(**inputs)
    loss.backward()
    return float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_packed_equals_padded(model, vocabulary_size):
    model.train()
    records = examples(vocabulary_size)
    expected, expected_gradients = loss_and_gradients(model, collate(records, pad_token_id=0))
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    with segment_attention(causal_lm):
        loss, gradients = loss_and_gradients(model, collate_packed(records))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(expected_gradients[name].abs().max())
        assert float((gradient - expected_gradients[name]).abs().max()) <= 1e-5 * max(scale, 1.0), name


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_padded_for_every_family(family):
    assert_packed_equals_padded(build_text_llm(family, tied=True), 250)


@pytest.mark.parametrize("recomputed", [False, True])
def test_packed_equals_padded_with_adapters(recomputed):
    audio_llm = build_audio_llm("qwen2", tied=False)
    if recomputed:
        audio_llm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted = add_adapters(audio_llm, LoRASettings(r=2))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide the gradients of the other half
            torch.nn.init.normal_(parameter, std=0.1)
    assert_packed_equals_padded(adapted, 250)


def test_packed_equals_padded_with_eager_attention():
    model = build_text_llm("qwen2", tied=True)
    model.set_attn_implementation("eager")
    assert_packed_equals_padded(model, 250)


def test_a_window_shorter_than_a_record_counts_within_it():
    model = build_text_llm("gemma3_text", tied=True)
    assert model.config.sliding_window < max(LENGTHS)
    assert_packed_equals_padded(model, 250)


def test_a_packed_row_outside_of_its_attention_is_refused():
    model = build_text_llm("qwen2", tied=True)
    with pytest.raises(ValueError, match="needs segment_attention"):
        TargetTokenLoss(model)(**collate_packed(examples(250)))


def test_a_model_that_keeps_the_lengths_to_itself_is_refused():
    model = build_text_llm("qwen2", tied=True)
    with segment_attention(model), pytest.raises(ValueError, match="Qwen2Attention does not tell its attention"):
        model(torch.arange(5)[None])


def test_the_name_of_the_attention_is_gone_afterwards(tmp_path):
    model = build_text_llm("qwen2", tied=True)
    with segment_attention(model):
        assert model.config._attn_implementation == "segments"
    assert model.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path)
    assert "segments" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("bad", [[], [{"input_ids": [1]}], [{"input_ids": [], "labels": []}]])
def test_rows_that_cannot_be_packed_are_refused(bad):
    with pytest.raises(ValueError, match=r"row is empty|no labels|no token ids"):
        collate_packed(bad)


# ---------------------------------------------------------------------------------------------------------- the packer

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(lengths=SIZES, budget=st.integers(50, 120))
def test_every_sequence_is_in_one_row_that_fits(lengths, budget):
    rows = best_fit(lengths, budget)
    assert sorted(one for row in rows for one in row) == list(range(len(lengths)))
    assert max(sum(lengths[one] for one in row) for row in rows) <= budget


@given(lengths=SIZES, budget=st.integers(50, 120))
def test_two_rows_that_fit_into_one_are_never_both_made(lengths, budget):
    filled = sorted(sum(lengths[one] for one in row) for row in best_fit(lengths, budget))
    assert all(first + second > budget for first, second in itertools.pairwise(filled))


def test_what_fits_nowhere_is_refused_and_not_cut():
    with pytest.raises(ValueError, match="sequence 1 of 9 tokens does not fit"):
        best_fit([3, 9], 8)
