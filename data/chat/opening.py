"""Opens a chat model by what a user writes: the URL of an endpoint, or ``hf:`` and a checkpoint for this machine."""

from __future__ import annotations

from .base import ChatModel, EndpointSettings
from .endpoint import EndpointModel
from .local import open_local_model

LOCAL_PREFIX = "hf:"


def is_endpoint(source: str) -> bool:
    """Whether a source is the URL of an endpoint."""
    return source.startswith(("http://", "https://"))


def open_chat_model(
    source: str,
    model: str | None = None,
    *,
    key_variable: str | None = None,
    hears: bool = False,
    device: str = "cpu",
    settings: EndpointSettings | None = None,
) -> ChatModel:
    """Opens a chat model.

    Args:
        source: base URL of an OpenAI-compatible server, such as ``http://localhost:8000/v1``; or ``hf:`` and a folder
            or Hub id of a checkpoint that transformers runs here.
        model: name of the model at the endpoint; None: the only one it has.
        key_variable: environment variable that holds the endpoint's key. None: no key is sent, except to OpenAI itself
            (``OPENAI_API_KEY``).
        hears: whether messages will hold audio.
        device: torch device of a local model.
        settings: how the endpoint is called.

    Raises:
        ChatError: if the endpoint cannot be reached, refuses the key or does not have the model.
        ImportError: if the client library is missing.
        ValueError: if the source is neither, or an option does not belong to it.
    """
    if source.startswith(LOCAL_PREFIX):
        given = {"model": model, "key_variable": key_variable}
        misplaced = [name for name, value in given.items() if value is not None]
        if misplaced:
            raise ValueError(f"{source} runs here: leave out {', '.join(misplaced)}, which belong to an endpoint")
        return open_local_model(source.removeprefix(LOCAL_PREFIX), hears=hears, device=device)
    if not is_endpoint(source):
        raise ValueError(f"{source!r} is no chat model: give the URL of an endpoint, or hf: and a folder or Hub id")
    return EndpointModel(source, model, key_variable=key_variable, settings=settings)
