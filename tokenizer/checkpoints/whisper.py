"""What a tokenizer takes over from a plain Whisper model: its settings, and the weights of its two halves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from transformers import WhisperConfig, WhisperModel

from .tensors import check_loaded
from .tokenizer import check_readable

# Keys of a Whisper configuration that say what the file is, not what the model is.
KEYS_OF_THE_FILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "_name_or_path")


def load_whisper(source: str | Path | nn.Module) -> nn.Module:
    """Loads a Whisper model, or checks one that is loaded.

    Args:
        source: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.

    Raises:
        ValueError: if it is no Whisper model, or not all of one.
    """
    if isinstance(source, nn.Module):
        model = source
    else:
        check_readable(source)
        try:
            model, report = WhisperModel.from_pretrained(
                str(source),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
        except OSError as error:
            raise ValueError(
                f"{source} is neither a folder with a Whisper model nor one on the Hub: {error}"
            ) from error
        check_loaded(model, report, source, may_hold_more=True)
    if not isinstance(getattr(model, "config", None), WhisperConfig):
        raise ValueError(
            f"{type(model).__name__} is not a Whisper model; pass a WhisperModel or a folder that holds one"
        )
    return model


def settings_of_whisper(config: WhisperConfig) -> dict[str, Any]:
    """Returns the keys of a Whisper configuration that a tokenizer inherits."""
    return {key: value for key, value in config.to_dict().items() if key not in KEYS_OF_THE_FILE}


def take_encoder_weights(encoder: nn.Module, whisper: nn.Module) -> None:
    """Copies the weights of a Whisper model's encoder into a tokenizer's, by name; layers it does without are left out.

    Args:
        encoder: of the tokenizer.
        whisper: as `load_whisper` gives it.

    Raises:
        ValueError: listing the weights that the Whisper model lacks.
    """
    weights = whisper.state_dict()
    found = tensors_of_whisper(weights, "encoder") or weights  # of an encoder alone, all are
    expected = encoder.state_dict()
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise ValueError(f"the Whisper model lacks encoder weights: {', '.join(missing)}")
    encoder.load_state_dict({name: found[name] for name in expected})


def tensors_of_whisper(weights: Mapping[str, Tensor], part: Literal["encoder", "decoder"]) -> dict[str, Tensor]:
    """Picks one half out of a Whisper state dict, without the prefix of its names; empty if there is none."""
    prefixes = (f"model.{part}.", f"{part}.")  # of a model with the head that writes text, and of one without
    prefix = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in weights)), None)
    if prefix is None:
        return {}
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
