"""The embedded default model, `mini`: where it lies; small enough that everything works offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

MINI = "mini"
"""The name that stands for the embedded model wherever a folder or Hub id is asked for."""
AUDIO_TOKENIZER_FOLDER = "audio_tokenizer"
"""Where the audio tokenizer lies in the folder of any Audio-LLM."""
_FOLDER = Path(str(files("audiollm"))).resolve() / "embedded" / MINI


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
