"""What an Audio-LLM is loaded from: its folder or Hub id, or the folder of a run, of an adapter or of a checkpoint.

A run of ``training/sft.py`` leaves ``model/`` (the trained Audio-LLM), with LoRA ``adapter/``, with a text LLM to begin
with ``extended/``, and ``checkpoints/step_…`` with the run's ``config.json`` beside the weights; the file
``checkpoints/latest`` names the last of them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from audiollm.mini import model_or_mini
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_complete, check_finite, read_safetensors

from .adapters import ADAPTER_CONFIG, with_adapter

MODEL_FOLDER, EXTENDED_FOLDER = "model", "extended"
_CHECKPOINT_STATE, _CHECKPOINT_WEIGHTS = "checkpoint.json", "weights.safetensors"
_LATEST, _CHECKPOINT_NAME = "latest", re.compile(r"step_\d+")  # a file that names the checkpoint saved last
_MOST_BYTES = 100  # of it
_PREFIX = "model."  # of the LLM's weights in a checkpoint: what is trained there is a loss around it


@dataclass(frozen=True)
class ModelSource:
    """Where the parts of an Audio-LLM are.

    Attributes:
        model: folder or Hub id of the Audio-LLM.
        adapter: folder of an adapter that is merged into it.
        weights: file of a checkpoint whose weights take the place of its own.
    """

    model: str
    adapter: Path | None = None
    weights: Path | None = None

    def applied_to(self, model: PreTrainedModel) -> PreTrainedModel:
        """The LLM with what comes on top of it.

        Raises:
            ValueError: if adapter or checkpoint are damaged, or belong to another model.
        """
        if self.adapter is not None:
            return with_adapter(model, self.model, self.adapter)
        if self.weights is not None:
            _take_weights(model, self.weights)
        return model


def find_source(path_or_hub_id: str | os.PathLike[str] | None) -> ModelSource:
    """Finds out what a folder is.

    Args:
        path_or_hub_id: what `AudioLLM.from_pretrained` takes.

    Raises:
        ValueError: if it is a run that has not ended, or a checkpoint or adapter that cannot be put together.
    """
    name = model_or_mini(path_or_hub_id)
    folder = Path(name)
    if folder.name == _LATEST and folder.is_file():
        return _of_checkpoint(_named_by(folder))
    if (folder / _CHECKPOINT_STATE).is_file():
        return _of_checkpoint(folder)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        return ModelSource(_base_of_adapter(folder), adapter=folder)
    if (folder / MODEL_FOLDER / "config.json").is_file():
        return ModelSource(str(folder / MODEL_FOLDER))
    if (folder / "run.json").is_file():
        raise ValueError(f"{folder} is the folder of a run that has no {MODEL_FOLDER}/ yet: {_what_of_run(folder)}")
    return ModelSource(name)


def _named_by(latest: Path) -> Path:
    """The checkpoint that a run's ``latest`` names, beside which it lies."""
    with latest.open("rb") as file:
        name = file.read(_MOST_BYTES).decode(errors="replace").strip()
    checkpoint = latest.parent / name
    if not _CHECKPOINT_NAME.fullmatch(name) or not (checkpoint / _CHECKPOINT_STATE).is_file():
        raise ValueError(f"{latest} names no checkpoint that lies beside it: give a folder such as step_000100 there")
    return checkpoint


def _what_of_run(folder: Path) -> str:
    checkpoints = sorted(folder.glob(f"checkpoints/step_*/{_CHECKPOINT_STATE}"), key=lambda path: path.stat().st_mtime)
    go_on = "go on with --resume latest"
    return f"{go_on}, or load its checkpoint {checkpoints[-1].parent}" if checkpoints else go_on


def _base_of_adapter(folder: Path) -> str:
    """The Audio-LLM that an adapter was trained on; beside the adapter too, where a run was moved."""
    path = folder / ADAPTER_CONFIG
    base = read_json_object(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{folder} holds a LoRA adapter that names no base model: write the Audio-LLM's folder into "
            f"base_model_name_or_path of {path}"
        )
    base = model_or_mini(base)
    if Path(base).is_dir():
        return base
    if _looks_like_path(base):
        merged = folder.parent / MODEL_FOLDER
        other = f", or load {merged}, which it was merged into" if (merged / "config.json").is_file() else ""
        raise ValueError(
            f"{folder} holds a LoRA adapter of {base}, which is not there: write that Audio-LLM's folder into "
            f"base_model_name_or_path of {path}{other}"
        )
    return base


def _of_checkpoint(folder: Path) -> ModelSource:
    config = read_json_object(folder / "config.json")
    base = config.get("model")
    if not isinstance(base, str):
        raise ValueError(f"{folder} is a checkpoint of another training than of an Audio-LLM: resume its run")
    if config.get("lora") is not None or not (folder / _CHECKPOINT_WEIGHTS).is_file():
        kind = "adapters" if config.get("lora") is not None else "weights split by DeepSpeed"
        raise ValueError(
            f"{folder} holds {kind} in the middle of a run: end it with --resume {folder}, then load the run"
        )
    if config.get("audio_tokenizer") is not None:
        beside = folder.parent.parent / EXTENDED_FOLDER
        base = str(beside if beside.is_dir() else Path(str(config.get("output_dir"))) / EXTENDED_FOLDER)
    base = model_or_mini(base)
    if not Path(base).is_dir() and _looks_like_path(base):
        raise ValueError(
            f"{folder} is a checkpoint of a run that started from {base}, which is not there: write where it is into "
            f"model of {folder / 'config.json'}"
        )
    return ModelSource(base, weights=folder / _CHECKPOINT_WEIGHTS)


def _looks_like_path(name: str) -> bool:
    """Whether a name that is no folder cannot be a Hub id either."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or len(Path(name).parts) > 2


def _take_weights(model: PreTrainedModel, path: Path) -> None:
    stored: dict[str, Tensor] = {name.removeprefix(_PREFIX): one for name, one in read_safetensors(path).items()}
    parameters: dict[str, Any] = dict(model.named_parameters())  # tied ones once, as in a checkpoint
    check_complete(parameters, stored, path)
    check_finite(stored, path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
