"""Training checkpoints of tokenizer and text decoder: tensors, configuration, text tokenizer, restricted output.

The layout is that of the published trainer: one set of weights with ``model.encoder.`` and ``model.decoder.`` in front
of the names, Whisper's ``config.json`` with the tokenizer's keys, and the text tokenizer's files beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperFeatureExtractor

from audiollm.tokenizer.checkpoints.folders import replaced_files
from audiollm.tokenizer.checkpoints.names import TRAINING_PREFIX
from audiollm.tokenizer.checkpoints.tensors import check_finite, check_shapes
from audiollm.tokenizer.checkpoints.tokenizer import (
    RELEASED_FILES,
    released_tensors,
    shapes_in,
    weight_files,
    write_released_config,
)
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig

from .text import SapText

TRAINING_ARCHITECTURE = "WhisperVQForConditionalGeneration"
DECODER_PREFIX = "model.decoder."
OUTPUT_IDS_FILE = "output_ids.json"


class NoTextDecoderError(ValueError):
    """A tokenizer lacks the text decoder that trained it: it is ready for use, and not for training."""


def read_decoder_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the text decoder's tensors, without their prefix, after comparing their shapes by the files' headers.

    Args:
        folder: of the checkpoint.
        expected: the text decoder's ``state_dict()``, of which only names and shapes matter.

    Raises:
        NoTextDecoderError: if there is no text decoder.
        ValueError: if its tensors are missing, unknown, misshapen, or no numbers.
    """
    stored = {
        name.removeprefix(DECODER_PREFIX): shape
        for name, shape in shapes_in(folder).items()
        if name.startswith(DECODER_PREFIX)
    }
    if not stored:
        raise NoTextDecoderError(
            f"{folder} holds a tokenizer without the text decoder that trained it; continue from the training "
            "run's model folder, or start from a Whisper checkpoint"
        )
    check_shapes(expected, stored, folder)
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name.startswith(DECODER_PREFIX):
                    tensors[name.removeprefix(DECODER_PREFIX)] = file.get_tensor(name)
    check_finite(tensors, folder)
    return tensors


def read_text(folder: Path) -> SapText | None:
    """Reads the text tokenizer; None if the checkpoint has none."""
    has_text = (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()
    return SapText.from_pretrained(folder) if has_text else None


def read_output_ids(folder: Path) -> list[int] | None:
    """Reads the tokens that the decoder's output was restricted to; None if it was not.

    Raises:
        ValueError: if the file is no list of whole numbers.
    """
    path = folder / OUTPUT_IDS_FILE
    if not path.is_file():
        return None
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; copy the checkpoint again") from error
    if not isinstance(ids, list) or any(type(one) is not int for one in ids):
        raise ValueError(f"{path} is damaged: it holds no list of token ids; copy the checkpoint again")
    return ids


def write_supervised(
    folder: str | Path,
    config: UniAudioTokenizerConfig,
    tokenizer_weights: Mapping[str, Tensor],
    decoder_weights: Mapping[str, Tensor],
    *,
    dtype: torch.dtype,
    text: SapText | None,
    output_ids: list[int] | None,
    architecture: str = TRAINING_ARCHITECTURE,
) -> None:
    """Writes weights, configuration, feature extractor settings and the text tokenizer; each file whole or not at all.

    Args:
        folder: made if need be.
        config: of both parts.
        tokenizer_weights: the tokenizer's ``state_dict()``.
        decoder_weights: the text decoder's, with the embedding of the whole vocabulary. The output matrix is the
            embedding and not stored twice.
        dtype: what ``config.json`` is to say of the weights, where it says nothing yet.
        text: the text tokenizer, if there is one.
        output_ids: tokens that the output is restricted to, written beside the whole embedding; None if it is not.
        architecture: name of the class in the published trainer.
    """
    folder = Path(folder)
    tensors = {DECODER_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in decoder_weights.items()}
    tensors |= {TRAINING_PREFIX + name: tensor for name, tensor in released_tensors(tokenizer_weights).items()}
    with replaced_files(folder, *RELEASED_FILES) as staging:
        save_file(tensors, staging / "model.safetensors", metadata={"format": "pt"})
        write_released_config(config, staging, architecture, dtype)
        WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(staging)
        if text is not None:
            text.save_pretrained(staging)
        if output_ids is not None:
            (staging / OUTPUT_IDS_FILE).write_text(json.dumps(output_ids), encoding="utf-8")
        else:  # a folder that is written again must not keep the restriction of the model before
            (folder / OUTPUT_IDS_FILE).unlink(missing_ok=True)
