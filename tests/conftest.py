"""What the command's tests share: tiny untrained checkpoints and recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from audiollm.cli import main
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer

CODEBOOK_SIZE = 64


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`codec/`, `llm/` and three recordings of one second, one of which is no audio."""
    root = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        quantize_position=1, quantize_vocab_size=CODEBOOK_SIZE, quantize_encoder_only=True, pooling_kernel_size=2,
    )  # fmt: skip
    UniAudioTokenizer(config).save_pretrained(root / "codec")
    backend = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    text_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    text_tokenizer.save_pretrained(root / "llm")
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(text_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        )
    ).save_pretrained(root / "llm")  # fmt: skip
    generator = np.random.default_rng(0)
    (root / "clips").mkdir()
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        sf.write(root / "clips" / f"{name}.wav", generator.normal(0, 0.1, int(16000 * seconds)), 16000)
    (root / "broken.wav").write_bytes(b"RIFF this is no audio")
    return root


@pytest.fixture(scope="session")
def audio_llm(folders: Path) -> Path:
    main(
        ["extend", str(folders / "llm"), str(folders / "audio-llm"), "--audio_tokenizer", str(folders / "codec"),
         "--dtype", "float32"]
    )  # fmt: skip
    return folders / "audio-llm"
