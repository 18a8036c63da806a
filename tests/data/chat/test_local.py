"""Chat models on this machine: tiny untrained ones of each kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from audiollm.data.chat.base import ChatError, ChatMessage
from audiollm.data.chat.local import LocalCaptioner, LocalModel
from audiollm.data.chat.opening import open_chat_model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return backend


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``text``, ``audio`` and ``whisper``: a model each that writes at random."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    text_tokenizer = tokenizer()
    text_tokenizer.save_pretrained(root / "text")
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(text_tokenizer), **TEXT)).save_pretrained(root / "text")
    extractor = WhisperFeatureExtractor(feature_size=80)
    audio = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 80, **audio},
        text_config={"model_type": "qwen2", "vocab_size": len(text_tokenizer), **TEXT},
        audio_token_index=text_tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    Qwen2AudioForConditionalGeneration(config).save_pretrained(root / "audio")
    Qwen2AudioProcessor(extractor, text_tokenizer, chat_template=TEMPLATE).save_pretrained(root / "audio")
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    special = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1}
    whisper = WhisperConfig(vocab_size=len(text_tokenizer), num_mel_bins=80, **audio, **decoder, **special)
    WhisperForConditionalGeneration(whisper).save_pretrained(root / "whisper")
    extractor.save_pretrained(root / "whisper")
    WhisperTokenizerFast(tokenizer_object=byte_level()).save_pretrained(root / "whisper")
    return root


@pytest.fixture(scope="module")
def wav() -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, np.random.default_rng(0).normal(0, 0.1, 8000), 8000, format="WAV")
    return buffer.getvalue()


QUESTION = [ChatMessage("system", "Be brief."), ChatMessage("user", "Is it?")]


def test_a_text_model_answers_and_counts(folders: Path) -> None:
    model = open_chat_model(f"hf:{folders / 'text'}", device="cpu")
    assert isinstance(model, LocalModel)
    reply = model.ask(QUESTION, max_tokens=6)
    assert reply == model.ask(QUESTION, max_tokens=6)
    prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
    assert reply.prompt_tokens == len(tokenizer()(prompt)["input_ids"])
    assert reply.completion_tokens == 6
    assert reply.is_cut
    assert model.name == str(folders / "text")


def test_temperature_draws_by_the_seed(folders: Path) -> None:
    model = open_chat_model(f"hf:{folders / 'text'}", device="cpu")
    drawn = {model.ask(QUESTION, max_tokens=6, temperature=2.0, seed=seed).text for seed in range(4)}
    assert len(drawn) > 1
    first = model.ask(QUESTION, max_tokens=6, temperature=2.0, seed=1)
    assert first == model.ask(QUESTION, max_tokens=6, temperature=2.0, seed=1)


def test_a_model_that_hears_gets_the_sound(folders: Path, wav: bytes) -> None:
    model = open_chat_model(f"hf:{folders / 'audio'}", hears=True, device="cpu")
    assert isinstance(model, LocalModel)
    with_sound = model.ask([ChatMessage("user", "What is it?", wav)], max_tokens=4)
    without = model.ask([ChatMessage("user", "What is it?")], max_tokens=4)
    assert with_sound.prompt_tokens - without.prompt_tokens == 2 + 25  # one second at 25 Hz between two marks
    assert with_sound.completion_tokens == 4


def test_a_model_of_the_whisper_kind_describes_what_it_hears(folders: Path, wav: bytes) -> None:
    model = open_chat_model(f"hf:{folders / 'whisper'}", hears=True, device="cpu")
    assert isinstance(model, LocalCaptioner)
    reply = model.ask([ChatMessage("user", "What is it?", wav)], max_tokens=5)
    assert reply.text
    with pytest.raises(ChatError, match="was given none") as stopped:
        model.ask(QUESTION, max_tokens=5)
    assert stopped.value.fatal


def test_a_model_that_cannot_be_asked_is_named(folders: Path, tmp_path: Path) -> None:
    tokenizer(template=None).save_pretrained(tmp_path / "plain")
    Qwen2ForCausalLM.from_pretrained(folders / "text").save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="plain has no chat template"):
        open_chat_model(f"hf:{tmp_path / 'plain'}", device="cpu")
    with pytest.raises(OSError, match="nowhere"):
        open_chat_model(f"hf:{tmp_path / 'nowhere'}", device="cpu")
