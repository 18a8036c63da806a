"""Opens a model under test by its name: an Audio-LLM of ours, any model of transformers, or an endpoint."""

from __future__ import annotations

import os

from audiollm.data.chat.base import EndpointSettings
from audiollm.data.chat.opening import LOCAL_PREFIX, is_endpoint
from audiollm.environment import find_device
from audiollm.uniaudio import is_uniaudio

from .audio_llm import AudioLLMUnderTest
from .base import AnswerSettings, AudioChatModel
from .endpoint import EndpointUnderTest
from .hf_model import TransformersUnderTest
from .revisions import is_audio_llm
from .uniaudio import UniAudioUnderTest


def open_audio_chat_model(
    source: str | os.PathLike[str] | None = None,
    *,
    settings: AnswerSettings | None = None,
    device: str | None = None,
    dtype: str = "auto",
    endpoint_model: str | None = None,
    key_variable: str | None = None,
    concurrency: int = 8,
    endpoint: EndpointSettings | None = None,
) -> AudioChatModel:
    """Opens a model under test.

    Args:
        source: folder or Hub id of an Audio-LLM of ours or of any model that transformers loads and whose processor has
            a chat template (``hf:`` before it: take it as the latter); the folder of a multi-stream LM of ours, or of
            the run that left it; the base URL of an OpenAI-compatible endpoint, such as ``http://localhost:8000/v1``;
            None, or "mini": the embedded model.
        settings: how answers are generated.
        device: torch device of a model that runs here; None: the first GPU, or this process's own of several.
        dtype: of its weights: "float32", "bfloat16" or "float16"; "auto": as stored.
        endpoint_model: name of the model at the endpoint; None: the only one it has.
        key_variable: environment variable that holds the endpoint's key.
        concurrency: requests to the endpoint at a time.
        endpoint: timeout and retries.

    Raises:
        ChatError: if the endpoint cannot be reached.
        OSError: if there is no such checkpoint.
        ValueError: if the model is of another kind, or an option does not belong to it.
    """
    name = "mini" if source is None else os.fspath(source)
    settings = settings or AnswerSettings()
    if is_endpoint(name):
        return EndpointUnderTest(
            name,
            endpoint_model,
            settings=settings,
            key_variable=key_variable,
            concurrency=concurrency,
            endpoint=endpoint,
        )
    given = {"endpoint_model": endpoint_model, "key_variable": key_variable, "endpoint": endpoint}
    misplaced = [option for option, value in given.items() if value is not None]
    if misplaced:
        raise ValueError(f"{name} runs here: leave out {', '.join(misplaced)}, which belong to an endpoint")
    if not name.startswith(LOCAL_PREFIX) and is_uniaudio(name):
        return UniAudioUnderTest(name, settings=settings, device=find_device(device), dtype=dtype)
    if not name.startswith(LOCAL_PREFIX) and is_audio_llm(name):
        return AudioLLMUnderTest(name, settings=settings, device=find_device(device), dtype=dtype)
    folder_or_id = name.removeprefix(LOCAL_PREFIX)
    return TransformersUnderTest(folder_or_id, settings=settings, device=find_device(device), dtype=dtype)
