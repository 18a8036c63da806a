"""Tiny tokenizers."""

from __future__ import annotations

import json
import math
import os
import secrets
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast

from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig


@pytest.fixture(scope="session")
def announce() -> Callable[[Path, str, int], None]:
    """Makes a safetensors file announce a tensor as ``[size]``, which it then also holds, as a hole that takes no disk.

    Reading such a tensor takes the memory; the header tells its shape.
    """

    def make(path: Path, name: str, size: int) -> None:
        header: dict[str, Any] = {}
        end = 0
        for one, tensor in load_file(path).items():
            shape = [size] if one == name else list(tensor.shape)
            start, end = end, end + 4 * math.prod(shape)
            header[one] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        assert name in header
        text = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)

    return make


@pytest.fixture(scope="session")
def clips(parity: Path) -> dict[str, Tensor]:
    """Real recordings at 16 kHz, float32 ``[N]``."""
    return {name: clip.float() / 32768 for name, clip in load_file(parity / "audio" / "clips.safetensors").items()}


@pytest.fixture
def tiny_config() -> Callable[..., UniAudioTokenizerConfig]:
    """Makes a configuration of a few kilobytes; keyword arguments override."""

    def make(**overrides: Any) -> UniAudioTokenizerConfig:
        values: dict[str, Any] = {
            "d_model": 16,
            "encoder_layers": 4,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 80,
            "pooling_kernel_size": 2,
            "pooling_type": "avg",
            "quantize_vocab_size": 24,
            "quantize_position": 3,
            "quantize_ema_decay": 0.9,
            "quantize_restart_interval": 2,
            "encoder_residual_source_position": 1,
            "encoder_residual_target_position": 3,
            "use_residual_adapter": True,
            "use_residual_gate": True,
        }
        return UniAudioTokenizerConfig(**values | overrides)

    return make


@pytest.fixture
def make_tokenizer(tiny_config: Callable[..., UniAudioTokenizerConfig]) -> Callable[..., UniAudioTokenizer]:
    """Makes a tiny tokenizer whose codes vary with the sound: its entries lie among the features of noise."""

    def make(**overrides: Any) -> UniAudioTokenizer:
        torch.manual_seed(7)
        model = UniAudioTokenizer(tiny_config(**{"init_std": 0.3, **overrides})).eval()
        swelling = torch.randn(80_000) * torch.linspace(0, 1, 80_000)
        model.fit_codebook([swelling, swelling.flip(0)], 16000, num_passes=3)
        return model

    return make


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., UniAudioTokenizer]) -> UniAudioTokenizer:
    return make_tokenizer()


def make_whisper_text() -> WhisperTokenizerFast:
    """Whisper's text tokenizer in small: a token per byte, two of its marks, one timestamp."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|startoftranscript|>"]
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    backend.add_tokens([AddedToken("<|0.00|>", special=False, normalized=False)])
    return WhisperTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Whisper with its text tokenizer, as transformers saves them; random weights."""
    folder = tmp_path_factory.mktemp("whisper")
    config = WhisperConfig(
        vocab_size=259, num_mel_bins=80, d_model=16, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_layers=4, decoder_attention_heads=2, decoder_ffn_dim=24, max_source_positions=100, init_std=0.2,
        max_target_positions=24, pad_token_id=256, bos_token_id=256, eos_token_id=256, decoder_start_token_id=257,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        WhisperForConditionalGeneration(config).save_pretrained(folder)
    make_whisper_text().save_pretrained(folder)
    return folder


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """Makes seeded noise whose loudness drifts, float32 ``[N]``."""

    def make(num_samples: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        swell = torch.sin(torch.arange(num_samples) / 3000) * 0.2 + 0.25
        return torch.randn(num_samples, generator=generator) * swell

    return make


@pytest.fixture
def in_two_processes() -> Callable[[Callable[[int, Path], None], Path], None]:
    """Runs ``function(rank, folder)`` in two processes of one gloo group; an exception in either fails the test."""

    def run(function: Callable[[int, Path], None], folder: Path) -> None:
        # They meet at a file: a port that is free now may be taken a moment later. A new name, as the file stays.
        store = str(folder / f"store-{secrets.token_hex(4)}")
        # fork: a spawned process could not import the test module.
        mp.start_processes(run_rank, args=(store, function, folder), nprocs=2, start_method="fork")

    return run


def run_rank(rank: int, store: str, function: Callable[[int, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    function(rank, folder)
    dist.barrier()
    dist.destroy_process_group()
    # gloo's thread may free a tensor while the interpreter shuts down, which aborts the process: leave without that.
    os._exit(0)
