"""The families of text LLMs that the documentation says can be extended: each learns, is saved and answers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.adapters import add_adapters
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.audio_llm.objective import TargetTokenLoss
from audiollm.vocabulary import TURN_END

from ..conftest import build_audio_tokenizer

ROOT = Path(__file__).resolve().parents[3]
NUM_TEXT_TOKENS = 258
SIZES = {
    "vocab_size": NUM_TEXT_TOKENS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256,
    "eos_token_id": 257, "pad_token_id": None,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "llama": {},
    "mistral": {},
    "gemma3_text": {"head_dim": 8, "sliding_window": 16},
    "smollm3": {},
    "phi3": {},
}
NAMES = {
    "qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3-MoE", "llama": "Llama", "mistral": "Mistral",
    "gemma3_text": "Gemma3", "smollm3": "SmolLM3", "phi3": "Phi3",
}  # fmt: skip
QUESTION = {
    "role": "user",
    "content": [{"type": "audio", "codes": [1, 2, 3]}, {"type": "text", "text": "What was said?"}],
}
EXAMPLE = {"id": "example", "messages": [QUESTION, {"role": "assistant", "content": "red"}]}


def build_plain_text_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, a start and an end of text; neither a chat template nor marks of turns."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def build_text_llm(family: str, tied: bool) -> Any:
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family], tie_word_embeddings=tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def build_audio_llm(family: str, tied: bool = True) -> AudioLLM:
    return AudioLLM.create(build_text_llm(family, tied), build_plain_text_tokenizer(), build_audio_tokenizer())


def example_of(audio_llm: AudioLLM) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = audio_llm.processor.encode_conversation(parse_conversation(EXAMPLE))
    return torch.tensor([encoded.token_ids]), torch.tensor([encoded.labels])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_extended_trained_saved_and_asked(family: str, tied: bool, tmp_path: Path) -> None:
    text_llm = build_text_llm(family, tied)
    text_ids = torch.arange(20)[None]
    before = text_llm(text_ids).logits[..., :NUM_TEXT_TOKENS].detach()
    audio_llm = AudioLLM.create(text_llm, build_plain_text_tokenizer(), build_audio_tokenizer())
    model: Any = audio_llm.model
    # Text is what it was, and tables are tied or not as they were.
    assert torch.equal(model(text_ids).logits[..., :NUM_TEXT_TOKENS], before)
    tables = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (tables[0] is tables[1]) is tied
    # The loss without full logits is the model's own, and every weight learns by it.
    token_ids, labels = example_of(audio_llm)
    logits = model(token_ids).logits[0, :-1].float()
    loss = TargetTokenLoss(model)(token_ids, torch.ones_like(token_ids), labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[0, 1:], reduction="sum"))
    loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.step()
    with torch.no_grad():
        assert TargetTokenLoss(model)(token_ids, torch.ones_like(token_ids), labels) < loss
    # What is saved answers as what was trained, in text and in codes.
    audio_llm.save_pretrained(tmp_path)
    loaded = AudioLLM.from_pretrained(tmp_path)
    for options in ({"max_new_tokens": 6}, {"modalities": {"audio"}, "max_seconds": 0.2, "seed": 1}):
        answers = [one.chat([QUESTION], **options) for one in (audio_llm, loaded)]
        assert torch.equal(*(torch.as_tensor(answer.token_ids[0]) for answer in answers))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.model_type == family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_tokenizer_without_template_and_marks_gets_ours(family: str) -> None:
    audio_llm = build_audio_llm(family)
    rendered = audio_llm.processor.apply_chat_template([QUESTION], add_generation_prompt=True, tokenize=False)
    assert rendered.endswith("<|im_start|>assistant\n")
    [turn_end] = audio_llm.processor.text_tokenizer.encode(TURN_END, add_special_tokens=False)
    assert {257, turn_end} <= set(audio_llm.model.generation_config.eos_token_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_reach_every_linear_layer_unless_they_are_named(family: str, caplog: pytest.LogCaptureFixture) -> None:
    audio_llm = build_audio_llm(family, tied=False)
    model: Any = audio_llm.model
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    stacked = [weight for weight in model.parameters() if weight.dim() == 3]
    Accelerator(cpu=True)  # its logger wants one
    with caplog.at_level(logging.WARNING):
        adapted = add_adapters(audio_llm, LoRASettings(r=2))
    assert sum(name.endswith("lora_A") for name, _ in adapted.named_modules()) == len(linear) - 1  # not the output
    assert bool(stacked) is (family == "qwen3_moe") is ("get no adapters" in caplog.text)
    token_ids, labels = example_of(audio_llm)
    TargetTokenLoss(adapted)(token_ids, torch.ones_like(token_ids), labels).backward()
    assert all(weight.grad is not None for weight in adapted.parameters() if weight.requires_grad)


def test_layers_that_a_family_does_not_have_are_named() -> None:
    with pytest.raises(ValueError, match=r"Phi3ForCausalLM has no linear layers q_proj; choose among .*qkv_proj"):
        add_adapters(build_audio_llm("phi3"), LoRASettings(r=2, target_modules=("q_proj", "self_attn.o_proj")))


def test_a_loss_of_the_router_is_not_left_out_in_silence() -> None:
    model = build_text_llm("qwen3_moe", tied=True)
    model.config.output_router_logits = True
    with pytest.raises(ValueError, match="output_router_logits"):
        TargetTokenLoss(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_documentation_names_every_family(family: str) -> None:
    assert NAMES[family] in (ROOT / "docs" / "audio_llm.md").read_text(encoding="utf-8")
