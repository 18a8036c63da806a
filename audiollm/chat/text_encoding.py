"""Texts to ids, from many threads at once.

A fast text tokenizer keeps options of the last call (special tokens split or not, padding, truncation) as the state of
its backend, so a call in another thread changes what this one gives. Here every way of encoding has its own backend,
which no option ever changes; backends encode in parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from audiollm.data.files.text import HALF_A_CHARACTER, HALF_CHARACTERS, is_whole
from audiollm.tokenizer.locks import CopyableLock

_SHOWN = 20  # characters before a broken one, in a message


class TextEncoder:
    """Encodes texts as a text tokenizer does, without its shared state.

    Args:
        text_tokenizer: a fast one; tokens that are added to it later count too.

    Raises:
        ValueError: if it is not a fast one.
    """

    def __init__(self, text_tokenizer: PreTrainedTokenizerBase) -> None:
        if not isinstance(getattr(text_tokenizer, "backend_tokenizer", None), Tokenizer):
            raise ValueError(f"{type(text_tokenizer).__name__} is no fast text tokenizer (of the tokenizers library)")
        self._text_tokenizer = text_tokenizer
        self._backends: dict[bool, tuple[int, Tokenizer]] = {}
        self._lock = CopyableLock()

    def __getstate__(self) -> dict[str, Any]:
        # A pickled backend forgets that it splits special tokens; a copy makes backends of its own.
        return {**self.__dict__, "_backends": {}}

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts in which no special token counts as one, whatever they spell.

        Raises:
            ValueError: one of them holds half a character, see `is_whole`.
        """
        return self._encode(texts, splits_special=True, add_special_tokens=False)

    def structured(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Ids of texts in which special tokens count.

        Args:
            texts: the texts.
            add_special_tokens: let the text tokenizer add its own (such as a beginning-of-text token).

        Raises:
            ValueError: as `plain`.
        """
        return self._encode(texts, splits_special=False, add_special_tokens=add_special_tokens)

    def _encode(self, texts: Sequence[str], *, splits_special: bool, add_special_tokens: bool) -> list[list[int]]:
        backend, texts = self._backend(splits_special), list(texts)
        try:
            encodings = backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        except TypeError as error:  # UTF-8 cannot hold half a character; only now, as most texts are whole
            broken = next((text for text in texts if isinstance(text, str) and not is_whole(text)), None)
            if broken is None:
                raise
            raise ValueError(f"the text {_shown(broken)} {HALF_A_CHARACTER}") from error
        return [encoding.ids for encoding in encodings]

    def _backend(self, splits_special: bool) -> Tokenizer:
        original: Tokenizer = self._text_tokenizer.backend_tokenizer
        size = original.get_vocab_size(with_added_tokens=True)
        with self._lock:
            known_size, backend = self._backends.get(splits_special, (None, None))
            if backend is None or known_size != size:
                backend = Tokenizer.from_str(original.to_str())
                backend.encode_special_tokens = splits_special
                backend.no_padding()
                backend.no_truncation()
                self._backends[splits_special] = size, backend
            return backend


def _shown(text: str) -> str:
    """What is around the first half character of a text, escaped."""
    place = HALF_CHARACTERS.search(text)
    start = max(0, place.start() - _SHOWN) if place else 0
    return ascii(text[start : start + 2 * _SHOWN])
