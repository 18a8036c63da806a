from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from audiollm.training.audio_llm import objective as objective_module
from audiollm.training.audio_llm.objective import TargetTokenLoss, count_targets, num_chunks


def tiny_model(**settings) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, **settings,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def tiny_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(0, 50, (3, 11), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 8:] = 0
    labels = input_ids.where(torch.rand(3, 11, generator=generator) < 0.6, -100)
    labels[0, 9:] = labels[1, 8:] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def naive_loss(model, batch) -> torch.Tensor:
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits[:, :-1].reshape(-1, 50), batch["labels"][:, 1:].reshape(-1), reduction="sum")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunks", [1, 3, 40])  # 40: more chunks than targets leaves some empty
def test_loss_and_gradients_equal_those_of_full_logits(tied, chunks):
    model, batch = tiny_model(tie_word_embeddings=tied), tiny_batch()
    reference = copy.deepcopy(model)
    expected = naive_loss(reference, batch)
    expected.backward()
    loss = TargetTokenLoss(model)(**batch, num_chunks=chunks)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_tokens_without_a_label_change_nothing_but_context():
    model, batch = tiny_model(), tiny_batch()
    objective = TargetTokenLoss(model)
    last_target = int((batch["labels"][0] != -100).nonzero()[-1])
    assert last_target < 10
    changed = {name: value.clone() for name, value in batch.items()}
    changed["input_ids"][0, last_target + 1 :] = 7
    torch.testing.assert_close(objective(**changed), objective(**batch))


def test_the_label_of_the_first_token_is_not_a_target():
    batch = tiny_batch()
    batch["labels"][:, 0] = 3
    assert count_targets(batch["labels"]) == int((batch["labels"][:, 1:] != -100).sum())
    without = {**batch, "labels": batch["labels"].clone()}
    without["labels"][:, 0] = -100
    objective = TargetTokenLoss(tiny_model())
    assert torch.equal(objective(**batch), objective(**without))


def test_logits_are_made_for_targets_only_and_never_more_than_the_bound(monkeypatch):
    monkeypatch.setattr(objective_module, "_LOGITS_PER_CHUNK", 50 * 4)
    model, batch = tiny_model(), tiny_batch()
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[0]))
    targets = count_targets(batch["labels"])
    with torch.no_grad():
        TargetTokenLoss(model)(**batch, num_chunks=num_chunks(targets, 50))
    assert sum(rows) == targets
    assert max(rows) <= 4


def test_the_sum_is_float32_in_bf16():
    loss = TargetTokenLoss(tiny_model().to(torch.bfloat16))(**tiny_batch())
    assert loss.dtype == torch.float32


def test_models_that_transform_their_logits_are_refused():
    model = tiny_model()
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match=r"final_logit_softcapping=30\.0"):
        TargetTokenLoss(model)


@pytest.mark.parametrize("missing", [False, True])
def test_torchs_function_and_recomputed_chunks_give_the_same(monkeypatch, missing):
    """The other tests here have torch's where it is; the figures of both are those of full logits."""
    if missing:
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    elif not hasattr(F, "linear_cross_entropy"):
        pytest.skip("torch is older")
    rows: list[int] = []
    model, batch = tiny_model(tie_word_embeddings=False), tiny_batch()
    reference = copy.deepcopy(model)
    naive_loss(reference, batch).backward()
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[0]))
    objective = TargetTokenLoss(model)
    loss = objective(**batch, num_chunks=3)
    (2.5 * loss).backward()
    torch.testing.assert_close(loss, naive_loss(reference, batch))
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2.5 * other.grad)
    assert bool(rows) is missing
    assert ("has no linear_cross_entropy" in objective.cross_entropy) is missing


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mixed_precision": "bf16"}, "round the loss to bfloat16"),
        ({"splits_weights": True}, "split over the processes"),
    ],
)
@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch is older")
def test_where_torchs_function_cannot_be_used_the_record_says_why(settings, reason):
    model = tiny_model()
    assert TargetTokenLoss(model).cross_entropy == "torch.nn.functional.linear_cross_entropy"
    assert reason in TargetTokenLoss(model, **settings).cross_entropy
    assert "round the loss" in TargetTokenLoss(model.to(torch.bfloat16)).cross_entropy


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch is older")
def test_a_wrapped_output_layer_is_called_and_not_read():
    from peft import LoraConfig, get_peft_model

    rows = {"embed_tokens": [3], "lm_head": [3]}
    adapted = get_peft_model(
        tiny_model(tie_word_embeddings=False), LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=rows)
    )
    assert "the output layer is a" in TargetTokenLoss(adapted).cross_entropy
