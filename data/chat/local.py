"""Models that transformers runs on this machine: text models, models that hear and answer, and captioners."""
# Shapes: B conversations of a batch, T tokens.

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from audiollm.data.audio.reading import load_audio
from audiollm.tokenizer.checkpoints.tensors import check_loaded
from audiollm.tokenizer.checkpoints.tokenizer import check_readable

from .base import ChatError, ChatMessage, ChatReply, without_thoughts

RECOGNIZER_SAMPLE_RATE = 16000  # Hz, of every model of transformers that turns speech or sound into text alone
WINDOW_SECONDS = 30

Chat = list[dict[str, Any]]  # turns, as chat templates take them


def open_local_model(source: str, *, hears: bool, device: str = "cpu") -> LocalModel | LocalCaptioner:
    """Loads a checkpoint.

    Args:
        source: folder or Hub id.
        hears: whether it is given audio. Models of the Whisper kind, which take no instruction, are then captioners:
            what they write is what they were trained to write.
        device: torch device.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if the checkpoint is of a kind that does not answer.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
        MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    )

    kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    takes_instructions = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    if hears and not takes_instructions and kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return LocalCaptioner(source, device)
    return LocalModel(source, device, hears=hears)


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        text: without special tokens.
        prompt_tokens: of the conversation, padding left out.
        completion_tokens: of the text, with the token that ends it.
        is_cut: whether the limit was reached before the model came to an end.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    is_cut: bool


class LocalCheckpoint:
    """A model with its processor, or with its text tokenizer if it hears nothing.

    Args:
        source: folder or Hub id of a model with a chat template.
        device: torch device.
        hears: load a model that takes audio too.
        dtype: of the weights; "auto": as stored.

    Attributes:
        model: the model, or the part of it that writes.
        sample_rate: Hz, of the waveforms in conversations; 0 if the model hears nothing.
        max_samples: extractors of the Whisper kind cut longer waveforms without a word; None if there is no limit.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if the model hears nothing though it is to, or has no chat template.
    """

    def __init__(self, source: str, device: str, *, hears: bool, dtype: str = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer

        self._processor: Any = (AutoProcessor if hears else AutoTokenizer).from_pretrained(
            source, trust_remote_code=False
        )
        extractor = getattr(self._processor, "feature_extractor", None)
        if hears and extractor is None:
            raise ValueError(f"{source} has no feature extractor for audio: use an instruction-tuned model that hears")
        if getattr(self._processor, "chat_template", None) is None:
            raise ValueError(f"{source} has no chat template, so it cannot be asked; use an instruction-tuned model")
        # Answers start where the prompts of a batch end.
        (self._processor.tokenizer if hears else self._processor).padding_side = "left"
        self._hears = hears
        self.sample_rate: int = 0 if extractor is None else extractor.sampling_rate
        self.max_samples: int | None = getattr(extractor, "n_samples", None)
        check_readable(source)
        loader: Any = AutoModelForMultimodalLM if hears else AutoModelForCausalLM
        model, report = loader.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
        check_loaded(model, report, source, may_hold_more=True)
        self.config: Any = model.config
        # Models that also speak hold the part that writes as their `thinker`.
        self.model: Any = getattr(model, "thinker", model).to(device).eval()
        ends = self.model.generation_config.eos_token_id
        self._end_ids = torch.tensor(ends if ends is not None else [], dtype=torch.long).reshape(-1)

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        pads_one: bool = False,
    ) -> list[Generated]:
        """Answers conversations, all in one batch.

        Args:
            chats: each a list of turns ``{"role", "content"}``; content is a text, or parts
                ``{"type": "audio", "audio": array}`` (at ``sample_rate``) and ``{"type": "text", "text": …}``.
            max_new_tokens: answers are cut off there.
            temperature: 0 for the likeliest answer.
            seed: of what is drawn.
            pads_one: treat one conversation as several are, whose recordings are padded to the longest of them and not
                to an extractor's window.
        """
        # Not every text tokenizer can pad.
        padding: dict[str, Any] = {"padding": True} if pads_one or len(chats) > 1 else {}
        inputs = self._processor.apply_chat_template(
            list(chats),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"processor_kwargs": padding} if self._hears else padding),
        )
        inputs = inputs.to(self.model.device, self.model.dtype) if self._hears else inputs.to(self.model.device)
        draws: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature:
            draws = {"do_sample": True, "temperature": temperature}
            if seed is not None:
                torch.manual_seed(seed)
        with torch.inference_mode():
            token_ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **draws)
        answers_BT = token_ids[:, inputs["input_ids"].shape[1] :]
        is_end_BT = torch.isin(answers_BT, self._end_ids.to(answers_BT.device))
        num_before_end_B = (is_end_BT.cumsum(1) == 0).sum(1)  # padding follows the first end
        num_tokens_B = (num_before_end_B + 1).clamp(max=answers_BT.shape[1])
        return [
            Generated(text, num_prompt, num_tokens, is_cut=num_before_end >= max_new_tokens)
            for text, num_prompt, num_tokens, num_before_end in zip(
                self._processor.batch_decode(answers_BT, skip_special_tokens=True),
                inputs["attention_mask"].sum(1).tolist(),
                num_tokens_B.tolist(),
                num_before_end_B.tolist(),
                strict=True,
            )
        ]


class LocalModel:
    """A model that answers messages, one conversation at a time.

    Args:
        source: folder or Hub id of a model with a chat template.
        device: torch device.
        hears: load a model that takes audio too.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if the model is of another kind or has no chat template.
    """

    def __init__(self, source: str, device: str, *, hears: bool = False) -> None:
        self._checkpoint = LocalCheckpoint(source, device, hears=hears)
        self._source = source
        self._lock = threading.Lock()  # threads would draw from one generator, and share the memory of the device

    @property
    def name(self) -> str:
        """Folder or Hub id."""
        return self._source

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        """See `audiollm.data.chat.base.ChatModel`."""
        has_audio = any(message.audio is not None for message in messages)
        chat = [self._turn(message, in_parts=has_audio) for message in messages]
        with self._lock:
            (answer,) = self._checkpoint.generate([chat], max_new_tokens=max_tokens, temperature=temperature, seed=seed)
        text = without_thoughts(answer.text)
        if not text:
            raise ChatError(f"{self._source}: the reply is empty")
        return ChatReply(text, answer.prompt_tokens, answer.completion_tokens, is_cut=answer.is_cut)

    def _turn(self, message: ChatMessage, in_parts: bool) -> dict[str, Any]:
        if not in_parts:
            return {"role": message.role, "content": message.text}
        content: list[dict[str, Any]] = []
        if message.audio is not None:
            waveform, _ = load_audio(message.audio, self._checkpoint.sample_rate)
            content.append({"type": "audio", "audio": waveform.numpy()})
        if message.text:
            content.append({"type": "text", "text": message.text})
        return {"role": message.role, "content": content}


class LocalCaptioner:
    """A model of the Whisper kind: it hears the last message's audio and writes what it was trained to write.

    Args:
        source: folder or Hub id.
        device: torch device.

    Raises:
        OSError: if there is no such checkpoint.
    """

    def __init__(self, source: str, device: str) -> None:
        from transformers import pipeline

        self._source = source
        self._pipeline: Any = pipeline("automatic-speech-recognition", model=source, device=device)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Folder or Hub id."""
        return self._source

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        """See `audiollm.data.chat.base.ChatModel`; texts, temperature and seed mean nothing to it."""
        audio = messages[-1].audio
        if audio is None:
            raise ChatError(f"{self._source} only describes audio, but was given none", fatal=True)
        waveform, _ = load_audio(audio, RECOGNIZER_SAMPLE_RATE)
        inputs = {"raw": waveform.numpy(), "sampling_rate": RECOGNIZER_SAMPLE_RATE}
        # Beyond its window a model of this kind finds the next one by its timestamps.
        options = {"return_timestamps": True} if len(waveform) > WINDOW_SECONDS * RECOGNIZER_SAMPLE_RATE else {}
        with self._lock:
            result = self._pipeline(inputs, generate_kwargs={"max_new_tokens": max_tokens}, **options)
        text = result["text"].strip()
        if not text:
            raise ChatError(f"{self._source}: the reply is empty")
        num_tokens = len(self._pipeline.tokenizer(text, add_special_tokens=False)["input_ids"])
        return ChatReply(text=text, completion_tokens=num_tokens, is_cut=num_tokens >= max_tokens)
