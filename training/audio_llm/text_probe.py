"""What a fine-tuning does to the ability to deal with text: perplexity on held-out texts, before and along the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from audiollm.data.files.text import HALF_A_CHARACTER, is_whole
from audiollm.data.manifest import open_manifest
from audiollm.training.loop.errors import DataError

from .records import EncodedRecord


class HeldOutTexts:
    """Texts as records all of whose tokens count; long ones are several records, so that nothing is left out.

    Args:
        source: a ``.txt`` file with one text a line, or records with a ``text`` in any format of manifests.
        text_tokenizer: the LLM's.
        max_length: tokens of a record at most.

    Raises:
        DataError: a record has no text or one with half a character, there is none at all, or a file is not UTF-8.
    """

    def __init__(self, source: str, text_tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._records: list[EncodedRecord] = []
        for where, text in _texts(source):
            if not is_whole(text):
                raise DataError(f"{where}: text {HALF_A_CHARACTER}")
            # What a text spells stays text: no special tokens are read in it.
            token_ids = text_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for start in range(0, len(token_ids), max_length):
                part = np.asarray(token_ids[start : start + max_length], dtype=np.int32)
                if len(part) > 1:  # of one token alone nothing is predicted
                    self._records.append(EncodedRecord(where, where, part, part))
        if not self._records:
            raise DataError(f"{source} holds no text of two tokens or more")

    def __len__(self) -> int:
        return len(self._records)

    def encode(self, indexes: Sequence[int]) -> list[EncodedRecord]:
        """The records of these numbers."""
        return [self._records[index] for index in indexes]


def perplexity_figures(loss: float, num_tokens: int) -> dict[str, Any]:
    """What a line of metrics says of held-out texts.

    Args:
        loss: in nats per token.
        num_tokens: that were predicted.
    """
    return {"text_loss": loss, "text_perplexity": math.exp(min(loss, 700.0)), "num_text_tokens": num_tokens}


def _texts(source: str) -> list[tuple[str, str]]:
    """The texts, each with its place."""
    if source.endswith(".txt"):
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{source} is not UTF-8 text (byte {error.start}: {error.reason})") from error
        return [(f"{source}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    manifest = open_manifest(source)
    texts = []
    for index in range(len(manifest)):
        record = manifest[index]
        text = record.get("text") if hasattr(record, "get") else None
        if not isinstance(text, str):
            raise DataError(f"{manifest.where(index)}: no text to measure perplexity on (text is {text!r})")
        texts.append((manifest.where(index), text))
    return texts
