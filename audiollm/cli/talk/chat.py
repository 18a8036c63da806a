"""``audiollm chat``: talk with a model in the terminal, in this process or behind a URL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from audiollm.cli.console import Precision, check_model_folder, load_audio_llm, settled


def chat(
    model: str | None = None,
    *,
    url: str | None = None,
    key_variable: str | None = None,
    name: str | None = None,
    speak: bool = False,
    voice: str | None = None,
    output_dir: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    dtype: Precision | None = None,
    device: str | None = None,
) -> None:
    """Talk with a model in the terminal, in this process or behind a URL: text, recordings, spoken answers.

    Each line is a question, or a command: /help lists them. Lines that come through a pipe are answered on stdout.

    Args:
        model: Audio-LLM folder or Hub id, which may be given by its place; the small embedded one if not given.
        url: of a server to talk with instead, such as http://localhost:8000/v1 (audiollm serve, or any with OpenAI's
            interface; extra label).
        key_variable: environment variable with the key that the server wants; none is sent if not given.
        name: of a model on the server, where it has several.
        speak: answers have sound beside their text, as after /speak on.
        voice: who speaks and how, in words or by a name that the server knows; answers are spoken then.
        output_dir: folder that gets the sound of every answer; if not given, sound is played, or saved in the current
            folder where no program plays it (aplay, paplay, ffplay, play or afplay).
        max_new_tokens: longest answer, in tokens; what the model or the server takes if not given.
        temperature: above 0; draws the words of answers too, and lower is more cautious.
        seed: of what is drawn.
        dtype: precision of the LLM; by default float32 or bfloat16, whichever this machine writes faster in.
        device: torch device; the first GPU when there is one.
    """
    if temperature is not None and temperature <= 0:
        raise ValueError(f"--temperature={temperature:g}: use a number above 0, or leave it out")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens={max_new_tokens}: use 1 or more")
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    generation = {key: value for key, value in given.items() if value is not None}
    if url is None:
        _refuse("--url, a server", key_variable=key_variable, name=name)
        check_model_folder(model or "mini")
    else:
        _refuse("a model in this process, not for --url", model=model, dtype=dtype, device=device)
    is_typed = sys.stdin is not None and sys.stdin.isatty()
    if sys.stdin is None:
        raise ValueError("chat reads questions from stdin, which is closed")

    from .devices import Player
    from .loop import Chat
    from .terminals import Piped, Typed
    from .turns import AnswerError

    try:
        partner = (
            _in_process(model or "mini", dtype or "fastest", device, generation)
            if url is None
            else _remote(url, key_variable, name, generation)
        )
    except AnswerError as error:
        raise ValueError(str(error)) from error
    terminal = Typed() if is_typed else Piped()
    if is_typed:
        terminal.tell(f"{partner.name}: ask something, or /help")
    talk = Chat(
        partner,
        terminal,
        is_spoken=speak or voice is not None,
        voice=voice,
        folder=output_dir,
        player=Player.found() if output_dir is None else None,
    )
    num_failed = talk.run()
    if is_typed:
        terminal.show("\n")
    elif num_failed:
        raise ValueError(f"{num_failed} of the lines could not be answered")


def _refuse(what: str, **options: str | None) -> None:
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"--{option.replace('_', '-')} is for {what}: leave it out")


def _in_process(model: str, dtype: Precision, device: str | None, generation: dict[str, Any]) -> Any:
    from .in_process import InProcess

    shown = Path(model).name if os.path.isdir(model) else model
    return InProcess(load_audio_llm(model, settled(dtype, model, device), device), shown, generation)


def _remote(url: str, key_variable: str | None, name: str | None, generation: dict[str, Any]) -> Any:
    from .remote import Remote, key_of

    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--url {url}: begin it with http:// or https://")
    return Remote(url, key_of(key_variable), name, generation)
