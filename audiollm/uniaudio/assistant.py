"""`UniAudio`: a multi-stream LM with its processor, which answers chats in text or sound."""
# Shapes: K audio streams, T frames, N samples.

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from audiollm.chat.input import Chat, chats_of, to_conversation
from audiollm.data.conversation.types import Conversation
from audiollm.data.files.atomic import atomic_entries
from audiollm.loading import refused_by_transformers
from audiollm.mini import audio_tokenizer_or_mini, model_or_mini
from audiollm.sources.places import find_source
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.folders import find_folder, read_json_object
from audiollm.tokenizer.grouped import GroupedLayout
from audiollm.tokenizer.layout import CodeLayout

from .configuration import UniAudioLMConfig
from .modeling import UniAudioLM
from .processor import PART, PROCESSOR_CONFIG, REASONING, UniAudioProcessor, code_layout
from .stacks import check_family


@dataclass
class UniAudioAnswers:
    """Answers to chats, one entry each."""

    texts: list[str] = field(default_factory=list)
    """Empty for sound."""
    codes: list[Tensor] = field(default_factory=list)
    """int64 ``[K, T]``; empty for text."""
    reasoning: list[Tensor] = field(default_factory=list)
    """int64 ``[K, R]`` of an audio tokenizer that has such codes, too."""
    waveforms: list[Tensor] | None = None
    """float32 ``[N]`` at ``sample_rate``; only if asked for."""
    sample_rate: int | None = None
    finish_reasons: list[str] = field(default_factory=list)
    """"stop" if the answer ended by itself, "length" if a limit cut it."""


class UniAudio:
    """A multi-stream LM that reads conversations and answers them.

    Args:
        model: the LM.
        processor: turns conversations into its rows.
    """

    def __init__(self, model: UniAudioLM, processor: UniAudioProcessor) -> None:
        self.model, self.processor = model, processor

    @classmethod
    def create(
        cls,
        text_llm: PreTrainedModel | str | os.PathLike[str],
        audio_tokenizer: AudioTokenizer | str | os.PathLike[str],
        text_tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        codebooks: int | None = None,
        **options: Any,
    ) -> UniAudio:
        """Builds a multi-stream LM around a text LLM, a stream for each codebook of an audio tokenizer.

        Args:
            text_llm: as for `UniAudioLM.from_text_llm`.
            audio_tokenizer: the audio tokenizer, or its folder or Hub id.
            text_tokenizer: the text LLM's; None: it lies beside the weights.
            codebooks: use the first so many; None: all.
            options: of `UniAudioLM.from_text_llm`, such as ``local_decoder``, ``seed`` and ``dtype``.

        Raises:
            ValueError: if the text LLM is of a family that is not supported, or the audio tokenizer has no codes.
        """
        if not isinstance(audio_tokenizer, AudioTokenizer):
            place = audio_tokenizer_or_mini(os.fspath(audio_tokenizer))
            audio_tokenizer = AudioTokenizer.from_pretrained(place)
        layout = code_layout(audio_tokenizer, codebooks)
        if not isinstance(text_llm, PreTrainedModel):
            text_llm = model_or_mini(text_llm)
            with refused_by_transformers(text_llm):  # before its weights are read
                check_family(AutoConfig.from_pretrained(text_llm, trust_remote_code=False), os.fspath(text_llm))
        if text_tokenizer is None:
            if isinstance(text_llm, PreTrainedModel):
                raise ValueError("text_llm is a model: give its text_tokenizer, too")
            text_tokenizer = AutoTokenizer.from_pretrained(text_llm, trust_remote_code=False)
        pad = text_tokenizer.pad_token_id
        model = UniAudioLM.from_text_llm(
            text_llm,
            **{
                **_stream_sizes(layout),
                "text_pad": text_tokenizer.eos_token_id if pad is None else pad,
                **options,
            },
        )
        processor = UniAudioProcessor(text_tokenizer, model.config, layout, audio_tokenizer=audio_tokenizer)
        return cls(model, processor)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
        attn_implementation: str | None = None,
    ) -> UniAudio:
        """Loads what `save_pretrained`, or a run of ``training/train_uniaudio.py``, wrote.

        Args:
            path_or_hub_id: the folder of the model or of a run, or a Hub id.
            dtype: of the weights; "auto": as stored.
            device: of model and audio tokenizer; None: the CPU.
            attn_implementation: as transformers calls it; None: its choice.

        Raises:
            ValueError: if it is none, or weights are missing, unknown, misshapen or no numbers.
        """
        folder = find_folder(find_source(path_or_hub_id).model)
        config = UniAudioLMConfig.from_pretrained(require_uniaudio(folder))
        processor = UniAudioProcessor.from_pretrained(folder, config)
        options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        model = UniAudioLM.from_pretrained(folder, dtype=dtype, **options).eval()
        processor.config = model.config
        if device is not None:
            model.to(device)
            processor.audio_device = device
        return cls(model, processor)

    def save_pretrained(self, folder: str | os.PathLike[str], state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes model and processor, all or nothing.

        Args:
            folder: where to.
            state_dict: weights to write in place of the model's own.
        """
        with atomic_entries(folder) as staging:
            options = {} if state_dict is None else {"state_dict": state_dict}
            self.model.save_pretrained(staging, **options)
            self.processor.save_pretrained(staging)

    def chat(
        self,
        conversations: Chat | Sequence[Chat],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int | None = 200,
        seed: int | None = None,
    ) -> UniAudioAnswers:
        """Answers chats in text.

        Args:
            conversations: a chat or several: messages as `AudioLLM.chat` takes them, or `Conversation`s.
            max_new_tokens: most text tokens of an answer.
            temperature: 0 takes what is most likely.
            top_k: how many of the most likely ids are drawn from.
            seed: of the draws.

        Raises:
            ValueError: if a chat is malformed or cannot be laid out.
            AudioError: if a recording cannot be used.
        """
        prompts = self.processor.prompts(_conversations(conversations), self.model.device)
        written = self.model.generate(
            prompts.input_ids, prompts.stream_mask, output="text", max_new_tokens=max_new_tokens,
            temperature=temperature, top_k=top_k, seed=seed, stop_ids=self._stop_ids(),
        )  # fmt: skip
        texts = [self.processor.decode(ids) for ids in written.text_ids]
        return UniAudioAnswers(texts, finish_reasons=_reasons(written.finished))

    def answer_in_sound(
        self,
        conversations: Chat | Sequence[Chat],
        *,
        max_frames: int = 500,
        temperature: float = 0.9,
        top_k: int | None = 200,
        guidance_scale: float = 1.0,
        seed: int | None = None,
        with_waveforms: bool = True,
        **decoding: Any,
    ) -> UniAudioAnswers:
        """Answers chats in sound.

        Args:
            conversations: as for `chat`.
            max_frames: most frames of an answer, of all its audio parts together.
            temperature: 0 takes what is most likely.
            top_k: how many of the most likely codes are drawn from.
            guidance_scale: how far away from what is written without the chat; 1: not at all.
            seed: of the draws.
            with_waveforms: also decode the codes.
            decoding: options of the audio tokenizer's ``decode``.

        Raises:
            ValueError: as for `chat`, or if the audio tokenizer cannot decode.
            AudioError: if a recording cannot be used.
        """
        prompts = self.processor.prompts(_conversations(conversations), self.model.device)
        written = self.model.generate(
            prompts.input_ids, prompts.stream_mask, parts=self.processor.parts, max_frames=max_frames,
            temperature=temperature, top_k=top_k, guidance_scale=guidance_scale, seed=seed,
        )  # fmt: skip
        answers = UniAudioAnswers(codes=written.reconstruction, finish_reasons=_reasons(written.finished))
        if len(self.processor.parts) > 1:
            answers.reasoning = written.reasoning
        if with_waveforms:
            answers.waveforms = self.processor.waveforms(written.reconstruction, answers.reasoning or None, **decoding)
            answers.sample_rate = self.processor.output_sample_rate
        return answers

    def _stop_ids(self) -> list[int]:
        own = self.model.config.text_config.eos_token_id
        listed = own if isinstance(own, list) else [] if own is None else [own]
        return sorted({*listed, int(self.processor.tokenizer.eos_token_id)})


def _stream_sizes(layout: CodeLayout | GroupedLayout) -> dict[str, int]:
    """Sizes of the LM's streams, as `UniAudioLM.from_text_llm` takes them."""
    groups = dict(layout.groups) if isinstance(layout, GroupedLayout) else {PART: layout}
    largest = {name: max(one.codebook_sizes) for name, one in groups.items()}
    counts = {one.num_codebooks for one in groups.values()}
    if len(counts) > 1:
        told = "; ".join(f"{name}: {one.num_codebooks}" for name, one in groups.items())
        raise ValueError(f"the groups of the audio tokenizer share streams, and differ in codebooks: {told}")
    return {
        "reasoning_codebook_size": largest.get(REASONING, 0),
        "reconstruction_codebook_size": largest.get(PART, 0),
        "num_audio_streams": counts.pop(),
    }


def is_uniaudio(path_or_hub_id: str | os.PathLike[str]) -> bool:
    """Whether a local folder, or that of a run, holds a multi-stream LM with its processor; the Hub is not asked."""
    try:
        path = Path(find_source(path_or_hub_id).model) / PROCESSOR_CONFIG
    except ValueError:  # a run without a model, or a checkpoint: whoever loads it says so
        return False
    return path.is_file() and read_json_object(path).get("processor_class") == UniAudioProcessor.__name__


def require_uniaudio(folder: Path) -> Path:
    """The folder, if it is that of a multi-stream LM.

    Raises:
        ValueError: saying what makes one.
    """
    if not is_uniaudio(folder):
        raise ValueError(
            f"{folder} is no folder of a multi-stream LM with its processor: make one with UniAudio.create(), or train "
            "one with audiollm train-uniaudio"
        )
    return folder


def _conversations(chats: Chat | Sequence[Chat]) -> list[Conversation]:
    return [to_conversation(chat, name, None, None) for name, chat in chats_of(chats)[0]]


def _reasons(finished: Sequence[bool]) -> list[str]:
    return ["stop" if one else "length" for one in finished]
