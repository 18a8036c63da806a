"""From a training checkpoint to the model in it: a tokenizer of the kind that its files say, and its text decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiollm.tokenizer.checkpoints.tokenizer import find_tokenizer
from audiollm.tokenizer.opening import kind_of

from .model import SupervisedModel, SupervisedTokenizer
from .stabletoken import SupervisedStableToken

CLASSES: dict[str, type[SupervisedModel]] = {
    "uniaudio": SupervisedTokenizer,
    "glm4_voice": SupervisedTokenizer,
    "stabletoken": SupervisedStableToken,
}
"""By the kind of tokenizer (`audiollm.tokenizer.kinds`): those that a text decoder trains."""


def open_supervised(source: str | Path, **options: Any) -> SupervisedModel:
    """Loads a training checkpoint of any kind of tokenizer that a text decoder trains.

    Args:
        source: a folder or Hub id.
        options: as in `SupervisedModel.from_pretrained`.

    Raises:
        NoTextDecoderError: if it holds no text decoder, as an exported tokenizer does not.
        ValueError: if it is a tokenizer of another kind, or its weights do not fit its configuration.
    """
    hub_options = {name: value for name, value in options.items() if name not in ("dtype", "device")}
    kind = kind_of(find_tokenizer(source, **hub_options))
    if kind.name not in CLASSES:
        raise ValueError(f"{source} is a {kind.title}: no text decoder trains tokenizers of this kind")
    return CLASSES[kind.name].from_pretrained(source, **options)
