"""The embedded default model, `mini`: where it lies; small enough that every command works offline."""

from __future__ import annotations

import os
from pathlib import Path

MINI = "mini"
"""The name that stands for the embedded model wherever a folder or Hub id is asked for."""
AUDIO_TOKENIZER_FOLDER = "audio_tokenizer"
"""Where the audio tokenizer lies in the folder of any Audio-LLM."""
_FOLDER = Path(__file__).resolve().parent / "embedded" / MINI


def mini_folder() -> Path:
    """The Audio-LLM folder of the embedded model; its audio tokenizer lies in ``audio_tokenizer``.

    Raises:
        ValueError: if this installation came without it.
    """
    if not (_FOLDER / "config.json").is_file():
        raise ValueError(
            f"this installation lacks the embedded model ({_FOLDER} has no config.json): install audiollm again, train "
            "it with `make mini MINI_FLAGS=--install=true` in the source tree, or name another model"
        )
    return _FOLDER


def model_or_mini(name: str | os.PathLike[str] | None) -> str:
    """What an Audio-LLM is loaded from: the embedded model for None or "mini", else the folder or Hub id itself.

    Raises:
        ValueError: if the embedded model is asked for and absent.
    """
    return str(mini_folder()) if name is None or name == MINI else os.fspath(name)


def audio_tokenizer_or_mini(name: str | os.PathLike[str] | None) -> str:
    """The same for an audio tokenizer.

    Raises:
        ValueError: if the embedded model is asked for and absent.
    """
    return str(mini_folder() / AUDIO_TOKENIZER_FOLDER) if name is None or name == MINI else os.fspath(name)
