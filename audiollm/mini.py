"""The embedded default model, `mini`, in place of a name that is not given."""

from __future__ import annotations

import os

from audiollm.tokenizer.checkpoints.mini import AUDIO_TOKENIZER_FOLDER, MINI, mini_folder

__all__ = ["AUDIO_TOKENIZER_FOLDER", "MINI", "audio_tokenizer_or_mini", "mini_folder", "model_or_mini"]


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
