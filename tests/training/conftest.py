"""Tiny Audio-LLMs (hidden size 32, 64 codes) and conversations whose answer follows from their codes."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState, GradientState
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from audiollm.modeling import AudioLLM
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.losatok.configuration import LoSATokConfig, SemanticConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.tokenizer.zoo.sqcodec.configuration import SQCodecConfig
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.training.audio_llm.config import SFTConfig
from audiollm.training.audio_tokenizer.config import TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.codec.config import AdversarySettings, CodecTrainingConfig
from audiollm.training.decoder.config import DecoderTrainingConfig, VocoderTrainingSettings
from audiollm.training.diffusion.config import DiffusionTrainingConfig, TextSettings, TransformerSettings
from audiollm.training.losatok.config import LoSATokTrainingConfig, SemanticStageSettings, TokenizerStageSettings

from .launched_jobs import Launches

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["red", "green", "blue", "cat", "dog", "bird"]
CODEBOOK_SIZE = 64


@dataclass(frozen=True)
class Assets:
    """Folders and files that all tests of a session share; none is written to."""

    text_llm: Path
    audio_tokenizer: Path
    audio_llm: Path
    untied_audio_llm: Path
    train: Path
    dev: Path


def build_text_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and ChatML's marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def build_text_llm(tie: bool) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=tie, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config)


def build_audio_tokenizer() -> UniAudioTokenizer:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, pooling_position=1, quantize_position=1,
        quantize_vocab_size=CODEBOOK_SIZE, quantize_encoder_only=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UniAudioTokenizer(config).eval()


def make_record(number: int, generator: random.Random) -> dict[str, Any]:
    """A clip of 4 … 11 codes that all lie in the tenth of the codebook that belongs to the answer."""
    word = generator.choice(WORDS)
    codes = [WORDS.index(word) * 10 + generator.randrange(10) for _ in range(generator.randrange(4, 12))]
    question = [{"type": "audio", "codes": codes}, {"type": "text", "text": "What?"}]
    return {
        "id": f"record-{number}",
        "task": "transcribe" if number % 2 else "classify",
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": word}],
    }


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> Assets:
    folder = tmp_path_factory.mktemp("assets")
    build_audio_tokenizer().save_pretrained(folder / "audio_tokenizer")
    build_text_llm(tie=True).save_pretrained(folder / "text_llm")
    build_text_tokenizer().save_pretrained(folder / "text_llm")
    for name, tie in (("audio_llm", True), ("untied_audio_llm", False)):
        audio_tokenizer = UniAudioTokenizer.from_pretrained(folder / "audio_tokenizer")
        audio_llm = AudioLLM.create(build_text_llm(tie), build_text_tokenizer(), audio_tokenizer, seed=0)
        audio_llm.save_pretrained(folder / name)
    generator = random.Random(0)
    return Assets(
        text_llm=folder / "text_llm",
        audio_tokenizer=folder / "audio_tokenizer",
        audio_llm=folder / "audio_llm",
        untied_audio_llm=folder / "untied_audio_llm",
        train=write_records(folder / "train.jsonl", [make_record(n, generator) for n in range(40)]),
        dev=write_records(folder / "dev.jsonl", [make_record(n, generator) for n in range(100, 109)]),
    )


@pytest.fixture
def make_config(assets: Assets, tmp_path: Path) -> Callable[..., SFTConfig]:
    """A config of six short updates; every setting can be changed."""

    def make(**changes: Any) -> SFTConfig:
        settings: dict[str, Any] = {
            "model": str(assets.audio_llm),
            "train_data": str(assets.train),
            "output_dir": str(tmp_path / "run"),
            "max_steps": 6,
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "learning_rate": 1e-2,
        }
        return SFTConfig(**(settings | changes))

    return make


def tiny_decoder(dropout: float = 0.0) -> WaveformDecoderConfig:
    """A decoder for 64 codes and 20 mel channels."""
    return WaveformDecoderConfig(
        flow=FlowConfig(
            codebook_size=CODEBOOK_SIZE, embedding_size=16, num_mels=20, speaker_size=4, regulator_convolutions=1,
            encoder=TokenEncoderConfig(
                size=16, num_heads=2, feed_forward_size=32, num_blocks=1, block_size=5, dropout=dropout,
                positional_dropout=dropout, attention_dropout=dropout,
            ),
            estimator=EstimatorConfig(
                channels=(16, 16), num_heads=2, head_dim=8, blocks_per_stage=1, num_mid_stages=1, dropout=dropout
            ),
        ),
        vocoder=VocoderConfig(num_mels=20, base_channels=16, num_harmonics=2, f0_channels=16),
        mel=MelConfig(num_mels=20),
    )  # fmt: skip


def make_clip(folder: Path, number: int, seconds: float, sample_rate: int = 16000) -> dict[str, Any]:
    """A tone of one of six pitches; its codes lie in the tenth of the codebook that belongs to the pitch."""
    generator = random.Random(number)
    pitch = number % 6
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    tone = sum(np.sin(2 * math.pi * 110 * (pitch + 1) * k * time) / k for k in range(1, 5))
    noise = np.random.default_rng(number).standard_normal(len(time))
    soundfile.write(folder / f"clip_{number}.wav", (0.2 * tone + 0.01 * noise).astype(np.float32), sample_rate)
    codes = [pitch * 10 + generator.randrange(10) for _ in range(math.ceil(seconds * 25))]
    return {"id": f"clip-{number}", "audio": f"clip_{number}.wav", "codes": codes, "text": WORDS[pitch]}


@pytest.fixture(scope="session")
def decoder_parts() -> SimpleNamespace:
    """What tests of decoder training are built from."""
    return SimpleNamespace(
        make_clip=make_clip,
        write_records=write_records,
        tiny_decoder=tiny_decoder,
        build_audio_tokenizer=build_audio_tokenizer,
    )


@dataclass(frozen=True)
class DecoderCorpus:
    """Manifests of tones, and the folder with their recordings."""

    folder: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def decoder_corpus(tmp_path_factory) -> DecoderCorpus:
    folder = tmp_path_factory.mktemp("tones")
    clips = [make_clip(folder, number, 0.4 + 0.07 * (number % 8)) for number in range(26)]
    train = write_records(folder / "train.jsonl", clips[:20])
    return DecoderCorpus(folder, train, write_records(folder / "dev.jsonl", clips[20:]))


@pytest.fixture
def make_decoder_config(decoder_corpus: DecoderCorpus, tmp_path: Path) -> Callable[..., DecoderTrainingConfig]:
    """A config of six short updates of the flow model; every setting can be changed."""

    def make(**changes: Any) -> DecoderTrainingConfig:
        settings: dict[str, Any] = {
            "model": "flow",
            "train_data": str(decoder_corpus.train),
            "output_dir": str(tmp_path / "run"),
            "decoder": tiny_decoder(),
            "max_steps": 6,
            "frames_per_update": 400,
            "frames_per_pass": 400,
            "learning_rate": 1e-2,
        }
        return DecoderTrainingConfig(**(settings | changes))

    return make


# Four segments of eight frames (93 ms) per update.
SMALL_VOCODER = {
    "segment_frames": 8, "resolutions": (256, 512), "periods": (2, 3), "period_channels": 2,
    "spectrogram_resolutions": (256,), "spectrogram_channels": 2,
}  # fmt: skip


@pytest.fixture
def make_vocoder_config(make_decoder_config):
    """A config of a few short updates of the vocoder; settings of the vocoder are keywords too."""

    def make(**changes):
        own = {entry.name for entry in dataclasses.fields(VocoderTrainingSettings)}
        settings = VocoderTrainingSettings(
            **SMALL_VOCODER | {name: changes.pop(name) for name in list(changes) if name in own}
        )
        common = {"frames_per_update": 32, "frames_per_pass": 32, "learning_rate": 2e-3, "max_grad_norm": None}
        return make_decoder_config(model="vocoder", vocoder=settings, **(common | changes))

    return make


def build_whisper_tokenizer() -> WhisperTokenizerFast:
    """One token per byte, and Whisper's marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|startoftranscript|>"]
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    return WhisperTokenizerFast(tokenizer_object=backend)


def build_whisper() -> WhisperForConditionalGeneration:
    config = WhisperConfig(
        vocab_size=258, num_mel_bins=80, d_model=16, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32, max_target_positions=64, init_std=0.2,
        pad_token_id=256, bos_token_id=256, eos_token_id=256, decoder_start_token_id=257, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WhisperForConditionalGeneration(config)


@dataclass(frozen=True)
class TokenizerCorpus:
    """A tiny Whisper, and manifests of tones whose pitch is a word."""

    folder: Path
    whisper: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def tokenizer_corpus(tmp_path_factory) -> TokenizerCorpus:
    """Twenty clips to train on and six held out; every third is a sound with a caption, without words."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_whisper().save_pretrained(folder / "whisper")
    build_whisper_tokenizer().save_pretrained(folder / "whisper")
    records = []
    for number in range(26):
        record = make_clip(folder, number, 0.4 + 0.07 * (number % 8))
        del record["codes"]
        if number % 3 == 2:
            record |= {"text": "", "caption": f"a {record['text']} tone", "sound_type": "sound"}
        records.append(record)
    train, dev = folder / "train.jsonl", folder / "dev.jsonl"
    return TokenizerCorpus(
        folder, folder / "whisper", write_records(train, records[:20]), write_records(dev, records[20:])
    )


@pytest.fixture
def make_tokenizer_config(tokenizer_corpus: TokenizerCorpus, tmp_path: Path) -> Callable[..., TokenizerTrainingConfig]:
    """A config of six short quantized updates from a tiny Whisper; every setting can be changed."""

    def make(**changes: Any) -> TokenizerTrainingConfig:
        settings: dict[str, Any] = {
            "start_from": str(tokenizer_corpus.whisper),
            "quantized": True,
            "train_data": str(tokenizer_corpus.train),
            "output_dir": str(tmp_path / "run"),
            "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8),
            "max_steps": 6,
            "global_batch_size": 8,
            "micro_batch_size": 3,
            "learning_rate": 1e-2,
            "encoder_learning_rate": 1e-3,
            "decoder_learning_rate": 1e-2,
            "eval_max_new_tokens": 8,
        }
        return TokenizerTrainingConfig(**(settings | changes))

    return make


TINY_CODEC = WavTokenizerConfig(
    sample_rate=8000, num_filters=4, strides=(5, 4, 4), feature_size=8, codebook_size=16, size=32,
    intermediate_size=48, num_layers=2, num_conditions=None, has_position_net=False, n_fft=320, hop_length=80,
    num_lstm_layers=1,
)  # fmt: skip


@pytest.fixture
def make_codec_config(decoder_corpus: DecoderCorpus, tmp_path: Path) -> Callable[..., CodecTrainingConfig]:
    """A config of six short updates, of which the last three have codes; every setting can be changed."""

    def make(**changes: Any) -> CodecTrainingConfig:
        settings: dict[str, Any] = {
            "tokenizer": TINY_CODEC, "train_data": str(decoder_corpus.train), "output_dir": str(tmp_path / "run"),
            "max_steps": 6, "segment_seconds": 0.2, "segments_per_update": 4, "segments_per_pass": 4,
            "quantize_from": 4, "fit_segments": 8, "learning_rate": 3e-3, "resolutions": (256, 512), "eval_clips": 3,
            "restart_interval": 2,
        }  # fmt: skip
        return CodecTrainingConfig(**(settings | changes))

    return make


TINY_SQCODEC = SQCodecConfig(
    sample_rate=8000, num_samples=1, downsample_factors=(4, 5), downsample_kernel_sizes=(8, 10),
    upsample_factors=(5, 4), upsample_kernel_sizes=(10, 8), latent_hidden_dim=4, init_channel=4,
)  # fmt: skip
OF_CODEBOOKS = ("quantize_from", "fit_segments", "restart_interval")


@pytest.fixture
def make_sqcodec_config(make_codec_config: Callable[..., CodecTrainingConfig]) -> Callable[..., CodecTrainingConfig]:
    """The same of an SQCodec, which from the third update on plays against discriminators."""

    def make(**changes: Any) -> CodecTrainingConfig:
        plain = {name: getattr(CodecTrainingConfig, name) for name in OF_CODEBOOKS}
        adversary = AdversarySettings(start=3, windows=(256, 128), channels=2)
        return make_codec_config(**({"tokenizer": TINY_SQCODEC, "adversary": adversary, **plain} | changes))

    return make


@dataclass(frozen=True)
class LoSATokCorpus:
    """The semantic side of a LoSATok, untrained, and manifests of tones."""

    semantic: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def losatok_corpus(tmp_path_factory) -> LoSATokCorpus:
    """A teacher of 16 numbers that looks at 0.8 s, six tones to train on and two held out."""
    folder = tmp_path_factory.mktemp("losatok")
    sizes = DashengSizes(size=16, num_layers=1, num_heads=2, mlp_size=16, num_mels=16, piece_tokens=20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = SemanticConfig(feature_size=16, bottleneck_size=12, latent_size=6)
        SemanticEncoder(config, DashengTeacher(sizes)).save_pretrained(folder / "semantic")
    records = [make_clip(folder, number, 0.5 + 0.1 * (number % 5)) for number in range(8)]
    train, dev = folder / "train.jsonl", folder / "dev.jsonl"
    return LoSATokCorpus(folder / "semantic", write_records(train, records[:6]), write_records(dev, records[6:]))


SMALL_LOSATOK = {
    "decoder_size": 16, "decoder_intermediate_size": 16, "decoder_layers": 1, "num_mels": 16, "n_fft": 640,
    "mel_windows": (128, 512), "discriminator_windows": (256,), "discriminator_channels": 2,
}  # fmt: skip


@pytest.fixture
def make_losatok_config(losatok_corpus: LoSATokCorpus, tmp_path: Path) -> Callable[..., LoSATokTrainingConfig]:
    """A config of four short updates of either stage; settings of the stage are keywords too."""

    def make(stage: str = "tokenizer", **changes: Any) -> LoSATokTrainingConfig:
        kind = SemanticStageSettings if stage == "semantic" else TokenizerStageSettings
        own = {entry.name for entry in dataclasses.fields(kind)}
        given = {name: changes.pop(name) for name in list(changes) if name in own}
        defaults: dict[str, Any] = {"semantic": str(losatok_corpus.semantic), **SMALL_LOSATOK}
        if stage == "semantic":
            defaults = {"teacher": str(losatok_corpus.semantic), "bottleneck_size": 12, "latent_size": 6}
        settings: dict[str, Any] = {
            "stage": stage,
            stage: kind(**(defaults | given)),
            "train_data": str(losatok_corpus.train),
            "output_dir": str(tmp_path / "run"),
            "max_steps": 4,
            "segment_tokens": 8,
            "segments_per_update": 4,
            "segments_per_pass": 4,
            "learning_rate": 3e-3,
        }
        return LoSATokTrainingConfig(**(settings | changes))

    return make


@dataclass(frozen=True)
class DiffusionCorpus:
    """An untrained LoSATok of six numbers, and manifests of tones with texts."""

    audio_tokenizer: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session")
def dit_corpus(losatok_corpus: LoSATokCorpus, tmp_path_factory) -> DiffusionCorpus:
    """Eight tones, half of them called speech."""
    folder = tmp_path_factory.mktemp("dit")
    semantic = SemanticEncoder.from_pretrained(losatok_corpus.semantic)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoSATokConfig(
            **dataclasses.asdict(semantic.config), num_mels=16, decoder_size=16, decoder_intermediate_size=16,
            decoder_layers=1, n_fft=640,
        )  # fmt: skip
        LoSATok(config, semantic).save_pretrained(folder / "losatok")
    records = [
        make_clip(folder, number, 0.5 + 0.1 * (number % 5)) | {"sound_type": "speech" if number % 2 else "sound"}
        for number in range(10)
    ]
    train, dev = folder / "train.jsonl", folder / "dev.jsonl"
    for record in records:
        del record["codes"]
    return DiffusionCorpus(folder / "losatok", write_records(train, records[:8]), write_records(dev, records[8:]))


@pytest.fixture
def make_dit_config(dit_corpus: DiffusionCorpus, tmp_path: Path) -> Callable[..., DiffusionTrainingConfig]:
    """A config of four short updates; settings of the sections are keywords too."""

    def make(**changes: Any) -> DiffusionTrainingConfig:
        settings: dict[str, Any] = {
            "train_data": str(dit_corpus.train),
            "audio_tokenizer": str(dit_corpus.audio_tokenizer),
            "output_dir": str(tmp_path / "run"),
            "transformer": TransformerSettings(hidden_size=16, num_layers=1, num_heads=2),
            "text": TextSettings(size=8, num_layers=1, num_heads=2, max_tokens=64),
            "max_seconds": 1.0,
            "max_steps": 4,
            "frames_per_update": 80,
            "frames_per_pass": 80,
            "learning_rate": 3e-3,
        }
        return DiffusionTrainingConfig(**(settings | changes))

    return make


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """A launch that is refused half way leaves accelerate's global state behind."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _metric_modules_in_a_temporary_folder(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("metrics")
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(cache / "modules"))
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", cache / "metrics")


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    """Runs training programs under the shipped configurations, each of which is launched once."""
    launches = Launches(tmp_path_factory.mktemp("launches"))
    yield launches
    launches.stop()
