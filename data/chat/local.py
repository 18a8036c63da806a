"""Models that transformers runs on this machine: text models, models that hear and answer, and captioners."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from audiollm.data.audio.reading import load_audio

from .base import ChatError, ChatMessage, ChatReply, without_thoughts

RECOGNIZER_SAMPLE_RATE = 16000  # Hz, of every model of transformers that turns speech or sound into text alone
WINDOW_SECONDS = 30


def open_local_model(source: str, *, hears: bool, device: str | None = None) -> LocalModel | LocalCaptioner:
    """Loads a checkpoint.

    Args:
        source: folder or Hub id.
        hears: whether it is given audio. Models of the Whisper kind, which take no instruction, are then captioners:
            what they write is what they were trained to write.
        device: torch device; the first GPU if there is one.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if the checkpoint is of a kind that does not answer.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
        MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    )

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = AutoConfig.from_pretrained(source).model_type
    takes_instructions = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    if hears and not takes_instructions and kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
        return LocalCaptioner(source, device)
    return LocalModel(source, device, hears=hears)


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
        from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer

        model_class, encoder_class = (
            (AutoModelForMultimodalLM, AutoProcessor) if hears else (AutoModelForCausalLM, AutoTokenizer)
        )
        model: Any = model_class.from_pretrained(source, dtype="auto")
        # Models that also speak hold the part that writes as their `thinker`.
        self._model = getattr(model, "thinker", model).to(device).eval()
        self._encoder: Any = encoder_class.from_pretrained(source)
        if getattr(self._encoder, "chat_template", None) is None:
            raise ValueError(f"{source} has no chat template, so it cannot be asked; use an instruction-tuned model")
        self._source = source
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Folder or Hub id."""
        return self._source

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        """See `audiollm.data.chat.base.ChatModel`."""
        options = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with self._lock, torch.inference_mode():
            inputs = self._encoded(messages).to(self._model.device)
            if seed is not None:
                torch.manual_seed(seed)
            token_ids = self._model.generate(**inputs, max_new_tokens=max_tokens, **options)
        num_prompt_tokens = inputs["input_ids"].shape[1]
        answer = token_ids[:, num_prompt_tokens:]
        text = without_thoughts(self._encoder.batch_decode(answer, skip_special_tokens=True)[0])
        if not text:
            raise ChatError(f"{self._source}: the reply is empty")
        return ChatReply(
            text=text,
            prompt_tokens=num_prompt_tokens,
            completion_tokens=answer.shape[1],
            is_cut=answer.shape[1] >= max_tokens,
        )

    def _encoded(self, messages: Sequence[ChatMessage]) -> Any:
        """Token ids and features ``[1, …]``."""
        heard = any(message.audio is not None for message in messages)
        chat = [self._turn(message, in_parts=heard) for message in messages]
        template = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self._encoder.apply_chat_template(chat, **template)
        return inputs.to(self._model.dtype) if heard else inputs

    def _turn(self, message: ChatMessage, in_parts: bool) -> dict[str, Any]:
        if not in_parts:
            return {"role": message.role, "content": message.text}
        content: list[dict[str, Any]] = []
        if message.audio is not None:
            sample_rate = self._encoder.feature_extractor.sampling_rate
            content.append({"type": "audio", "audio": load_audio(message.audio, sample_rate)[0].numpy()})
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
