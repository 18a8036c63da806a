"""A study of seconds: tones as recordings, a tiny tokenizer without decoder, µ-law at a low rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from transformers import WhisperConfig, WhisperModel

from audiollm.benchmarks.comparison.study import Study, read_study
from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig


def tone(pitch_hz: float, seconds: float = 0.3) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * pitch_hz * torch.arange(int(seconds * 16000)) / 16000)


def save_tiny_tokenizer(folder: Path, seed: int) -> None:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, pooling_position=1, quantize_position=1,
        quantize_vocab_size=16, quantize_encoder_only=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    tokenizer = UniAudioTokenizer(config).eval()
    tokenizer.fit_codebook([tone(pitch_hz) for pitch_hz in (200, 600, 1500, 3000)], 16000)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """The YAML of a study that compares a tiny tokenizer with µ-law."""
    folder = tmp_path / "study"
    folder.mkdir()
    save_tiny_tokenizer(folder / "tiny", seed=0)
    lines = []
    for number in range(8):
        is_low = number % 2 == 0
        soundfile.write(folder / f"{number}.wav", tone((200 if is_low else 2500) + 40 * number).numpy(), 16000)
        record = {"id": f"n{number}", "audio": f"{number}.wav", "label": "low" if is_low else "high", "text": "a tone"}
        lines.append(record | {"split": "train" if number < 4 else "test", "sound_type": "sound"})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "title": "Tiny *study*",
                "num_threads": 1,
                "tokenizers": {"tiny": "tiny", "mu-law": {"mulaw": {"sample_rate": 4000}}},
                "data": {"tones": "clips.jsonl", "few": {"path": "clips.jsonl", "split": "test", "max_clips": 2}},
                "measures": {
                    "codes": "tones",
                    "reconstruction": {
                        "data": "few", "metrics": ["mel_distance"], "asr": "none", "similarity": "none", "mos": "none",
                    },
                    "classes": {"data": "tones", "num_seeds": 2, "num_restarts": 1},
                    "stability": {"data": "few", "conditions": ["white:20", "shift:1"]},
                    "speed": {"data": "few", "rounds": 1},
                },
            }
        )
    )  # fmt: skip
    return path


@pytest.fixture
def study(study_file: Path) -> Study:
    return read_study(study_file)


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper with random weights."""
    torch.manual_seed(0)
    config = WhisperConfig(
        num_mel_bins=80, d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=60, max_target_positions=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("whisper")
    WhisperModel(config).save_pretrained(folder)
    return folder
