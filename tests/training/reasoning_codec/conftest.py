"""Tiny frozen encoders, tones whose records follow from their pitch, and short runs of the first stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from audiollm.training.reasoning_codec.config import ReasoningCodecTrainingConfig
from audiollm.training.reasoning_codec.settings import AnalysisSettings, CodecSizes, EncoderSettings, EncodersSettings

RATE = 24000
PITCHES = {"red": 200, "green": 400, "blue": 900}
SIZES = CodecSizes(size=64, layers=1, head_size=32, inner_size=32, quantizer=(2, 16, 8))
SPEECH = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def save_encoders(folder: Path) -> EncodersSettings:
    """Encoders of 16 numbers with random weights; Whisper hears 8 s in place of 30."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whisper = WhisperConfig(
            d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, bos_token_id=0,
            eos_token_id=0, decoder_start_token_id=1, init_std=0.2, max_source_positions=400,
        )  # fmt: skip
        WhisperModel(whisper).save_pretrained(folder / "whisper")
        WhisperFeatureExtractor(feature_size=80, chunk_length=8).save_pretrained(folder / "whisper")
        WavLMModel(WavLMConfig(**SPEECH, num_hidden_layers=2)).save_pretrained(folder / "wavlm")
        HubertModel(HubertConfig(**SPEECH, num_hidden_layers=3)).save_pretrained(folder / "music")
        Wav2Vec2FeatureExtractor().save_pretrained(folder / "music")
    return EncodersSettings(
        whisper=EncoderSettings(source=str(folder / "whisper")),
        wavlm=EncoderSettings(source=str(folder / "wavlm"), layers=((2,),)),
        music=EncoderSettings(source=str(folder / "music"), layers=((1,), (3,))),
    )


def clip(folder: Path, number: int) -> dict[str, Any]:
    """A tone of 0.3 s to 0.9 s, whose SAP record has the word of its pitch."""
    word = list(PITCHES)[number % len(PITCHES)]
    times = np.arange(int((0.3 + 0.2 * (number % 4)) * RATE)) / RATE
    path = folder / f"clip-{number}.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * PITCHES[word] * times), RATE)
    return {"id": f"clip-{number}", "audio": str(path), "sap": {"linguistic_content": word}}


def question(clip_record: dict[str, Any]) -> dict[str, Any]:
    """The same as a conversation."""
    asked = [{"type": "audio", "path": clip_record["audio"]}, {"type": "text", "text": "Which?"}]
    answer = clip_record["sap"]["linguistic_content"]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"id": f"{clip_record['id']}/asked", "messages": messages}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Material:
    """What all tests of a session share."""

    encoders: EncodersSettings
    clips: list[dict[str, Any]]
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Nine tones to train on, three of them asked about too, and three held out."""
    folder = tmp_path_factory.mktemp("reasoning-codec")
    clips = [clip(folder, number) for number in range(12)]
    train = write(folder / "train.jsonl", [*clips[:9], *map(question, clips[:3])])
    dev = write(folder / "dev.jsonl", [*clips[9:], question(clips[9])])
    return Material(save_encoders(folder), clips, train, dev)


@pytest.fixture
def make_stage(material: Material, assets: Any, tmp_path: Path) -> Callable[..., ReasoningCodecTrainingConfig]:
    """A config of four short updates of the first stage; every setting can be changed."""

    def make(**changes: Any) -> ReasoningCodecTrainingConfig:
        settings: dict[str, Any] = {
            "stage": "supervised", "train_data": str(material.train), "output_dir": str(tmp_path / "run"),
            "max_steps": 4, "global_batch_size": 6, "micro_batch_size": 4, "learning_rate": 3e-3, "eval_samples": 1,
            "eval_max_new_tokens": 8,
            "analysis": AnalysisSettings(feature_megabytes=64),
        }  # fmt: skip
        if "codec" not in changes:
            settings |= {"encoders": material.encoders, "sizes": SIZES, "llm": str(assets.text_llm)}
        return ReasoningCodecTrainingConfig(**(settings | changes))

    return make
