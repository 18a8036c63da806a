"""The text side of supervision: a Whisper text tokenizer with a start token for each task.

A target is the task's start token, the text, end-of-text; one start token takes the place of Whisper's prompt of
language, task and timestamps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import WhisperConfig, WhisperTokenizerFast

START_TOKENS = {
    "asr": "<|startoftranscript|>",
    "emotion": "<|emotion|>",
    "caption": "<|startofcaption|>",
    "sap": "<|startofsap|>",
}
TASKS = tuple(START_TOKENS)
ADDED_TOKENS = tuple(token for task, token in START_TOKENS.items() if task != "asr")  # Whisper has the first
END_TOKEN = "<|endoftext|>"
DEFAULT_MAX_POSITIONS = 448  # of every Whisper released by OpenAI


class SapText:
    """Turns the text of a task into token ids and back.

    Args:
        tokenizer: any Whisper text tokenizer; start tokens that it lacks are added to it, in this order: emotion,
            caption, sap.
        max_target_positions: positions of the decoder; `encode` cuts targets to one token more, because inputs
            are all but the last token and labels all but the first.

    Raises:
        ValueError: if the tokenizer has no ``<|startoftranscript|>`` or ``<|endoftext|>``.
    """

    def __init__(self, tokenizer: WhisperTokenizerFast, *, max_target_positions: int = DEFAULT_MAX_POSITIONS) -> None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in (START_TOKENS["asr"], END_TOKEN) if token not in vocabulary]
        if missing:
            raise ValueError(f"the text tokenizer lacks {' and '.join(missing)}; take that of a Whisper checkpoint")
        tokenizer.add_special_tokens(
            {"extra_special_tokens": [token for token in ADDED_TOKENS if token not in vocabulary]},
            replace_extra_special_tokens=False,
        )
        self._tokenizer = tokenizer
        self.max_target_positions = max_target_positions
        vocabulary = tokenizer.get_vocab()
        self._start_ids = {task: vocabulary[token] for task, token in START_TOKENS.items()}
        self.end_id: int = vocabulary[END_TOKEN]
        """Id of end-of-text."""
        self.pad_id: int = self.end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        """Id that fills up decoder inputs; labels are filled with -100."""

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, max_target_positions: int | None = None, **hub_options: Any
    ) -> SapText:
        """Loads the text tokenizer of a Whisper or training checkpoint.

        Args:
            source: a folder or Hub id.
            max_target_positions: of the decoder; what the checkpoint's ``config.json`` says if None.
            hub_options: ``revision``, ``cache_dir``, ``token`` and ``local_files_only``, as in transformers.

        Raises:
            ValueError: if there is no text tokenizer, or not one of Whisper's kind.
        """
        try:
            tokenizer = WhisperTokenizerFast.from_pretrained(str(source), **hub_options)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"{source} holds no Whisper text tokenizer (tokenizer.json, or vocab.json and merges.txt): {error}"
            ) from error
        if max_target_positions is None:
            max_target_positions = _positions_of(source, hub_options)
        return cls(tokenizer, max_target_positions=max_target_positions)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the text tokenizer, start tokens included; `from_pretrained` gives the same ids again."""
        self._tokenizer.save_pretrained(os.fspath(folder))

    def __len__(self) -> int:
        """Entries of the vocabulary, start tokens included: the least vocabulary size of a decoder."""
        return len(self._tokenizer)

    def start_id(self, task: str) -> int:
        """Returns the id of a task's start token.

        Raises:
            ValueError: if there is no such task.
        """
        if task not in self._start_ids:
            raise ValueError(f"task={task!r}: use one of {', '.join(TASKS)}")
        return self._start_ids[task]

    def encode(self, task: str, text: str, max_length: int | None = None) -> list[int]:
        """Makes the target of one clip: start token, text, end-of-text.

        Whisper's texts begin with a space, so one is put in front. What looks like a special token in the text is
        spelt out: data cannot end a target or start another task.

        Args:
            task: ``"asr"``, ``"sap"``, ``"caption"`` or ``"emotion"``.
            text: of any length; an empty one gives the start token and end-of-text.
            max_length: longer targets are cut to this many tokens; ``max_target_positions + 1`` if None.

        Raises:
            ValueError: if there is no such task.
        """
        start_id = self.start_id(task)
        text = text.strip()
        ids: list[int] = []
        if text:
            ids = self._tokenizer(" " + text, add_special_tokens=False, split_special_tokens=True).input_ids
        limit = self.max_target_positions + 1 if max_length is None else max_length
        return [start_id, *ids, self.end_id][:limit]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Turns token ids into text: all up to the first end-of-text, special tokens left out."""
        ids: list[int] = []
        for token_id in token_ids:
            if token_id == self.end_id:
                break
            ids.append(int(token_id))
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()


def _positions_of(source: str | Path, hub_options: dict[str, Any]) -> int:
    try:
        values, _ = WhisperConfig.get_config_dict(str(source), **hub_options)
    except OSError:  # a tokenizer on its own
        return DEFAULT_MAX_POSITIONS
    return int(values.get("max_target_positions") or DEFAULT_MAX_POSITIONS)
