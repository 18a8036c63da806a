"""Files of a checkpoint, read as what they may be only: named weights, and tensors and plain values.

Each is compared with what it is to be loaded into before anything is changed. What is cut off, altered, of another
shape or no number is refused by the file's name; nothing in a file is ever run.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from audiollm.tokenizer.checkpoints.tensors import (
    DAMAGED,
    load_pickle,
    read_safetensors,
    stored_shapes,
    without_numbers,
)

from .distributed.sharding import sharded_state
from .errors import ResumeError

CHECKSUM = "crc32"  # in the metadata of a file of weights

_FACTORS = {"row_var": -1, "col_var": -2}  # of Adafactor: moments of rows and of columns, and their axis of size 1
_TABLES = ("qmap", "absmax")  # of 8-bit optimizers: what the bytes of a moment stand for, by blocks of it


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the weights of a checkpoint; names and shapes are compared before any of them takes memory.

    Args:
        path: a safetensors file.
        expected: the model's weights, of which names and shapes matter.

    Raises:
        ResumeError: if the file is damaged, or its weights are others, of other shapes, or no numbers.
    """
    try:
        shapes = stored_shapes(path)
    except ValueError as error:
        raise ResumeError(f"{path} is absent, cut off or damaged: {error.__cause__}") from error
    unmatched = sorted(shapes.keys() ^ expected.keys())
    if unmatched:
        raise ResumeError(f"{path}: weights do not match the model: {_some(unmatched)}")
    misshapen = [
        f"{name} {shapes[name]} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if shapes[name] != list(tensor.shape)
    ]
    if misshapen:
        raise ResumeError(f"{path}: weights do not match the model: {_some(misshapen)}")
    weights = read_safetensors(path)
    with safe_open(path, framework="np") as file:
        noted = (file.metadata() or {}).get(CHECKSUM)
    if noted not in (None, checksum(weights)):  # None: by a version that noted none
        raise ResumeError(f"{path} is damaged: its weights are not those that were saved")
    _refuse_no_numbers(path, weights)
    return weights


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 over the bytes of tensors, in the order of their names: safetensors files hold none."""
    found = 0
    for _, tensor in sorted(tensors.items()):
        found = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def read_values(path: Path) -> Any:
    """Reads tensors and plain values; anything else in the file is refused before any of it runs.

    Raises:
        ResumeError: if the file is absent, damaged, or holds code.
    """
    try:
        values = load_pickle(path)
        if (damaged := _damaged_entry(path)) is not None:
            raise ValueError(f"{path} is damaged in {damaged}")
        return values
    except (ValueError, OSError) as error:
        raise ResumeError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _damaged_entry(path: Path) -> str | None:
    """The first entry of what ``torch.save`` wrote whose checksum is wrong: torch writes them, and does not look."""
    if not zipfile.is_zipfile(path):  # written by torch before 1.6
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def load_part(path: Path, part: Any) -> None:
    """Gives an optimizer, or another part of a run, back the state in a file.

    Raises:
        ResumeError: if the file is damaged, or holds the state of something else.
    """
    state = read_values(path)
    try:
        if hasattr(part, "param_groups"):
            _check_optimizer(path, state, part)
        else:
            _check_like(path, state, part.state_dict(), "")
        _refuse_no_numbers(path, _tensors(state, ""))
        part.load_state_dict(sharded_state(state, part) if hasattr(part, "param_groups") else state)
    except ResumeError:
        raise
    except DAMAGED as error:
        raise ResumeError(f"{path} does not hold the state of this run: {' '.join(str(error).split())}") from error


def _check_optimizer(path: Path, state: Any, optimizer: Any) -> None:
    """Moments must have the shapes of their weights, which torch does not ask when it loads them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        raise ResumeError(f"{path} holds no state of an optimizer")
    sizes = [len(group["params"]) for group in state["param_groups"]]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise ResumeError(f"{path} is of an optimizer of {sum(sizes)} weights in {len(sizes)} groups, not of this one")
    for number, moments in state["state"].items():
        if not isinstance(number, int) or not 0 <= number < len(parameters):
            raise ResumeError(f"{path} holds moments of a weight number {number!r}, of {len(parameters)}")
        for name, moment in moments.items():
            if not isinstance(moment, Tensor) or name == "step" or name.startswith(_TABLES):
                continue
            shape = list(parameters[number].shape)
            if name in _FACTORS:
                shape[_FACTORS[name]] = 1
            if list(moment.shape) != shape:
                raise ResumeError(f"{path}: {name} of weight {number} is {list(moment.shape)} instead of {shape}")


def _check_like(path: Path, state: Any, current: Any, where: str) -> None:
    """Refuses tensors that are absent or have other shapes than those that they take the place of."""
    if isinstance(current, Tensor):
        if not isinstance(state, Tensor):
            raise ResumeError(f"{path}: {where or 'it'} is a {type(state).__name__} instead of a tensor")
        if state.shape != current.shape:
            raise ResumeError(f"{path}: {where} is {list(state.shape)} instead of {list(current.shape)}")
    elif isinstance(current, Mapping):
        if not isinstance(state, Mapping):
            raise ResumeError(f"{path}: {where or 'it'} is a {type(state).__name__} instead of named values")
        for name, value in current.items():
            if isinstance(value, Tensor | Mapping):
                if name not in state:
                    raise ResumeError(f"{path} lacks {where}{name}")
                _check_like(path, state[name], value, f"{where}{name}." if isinstance(value, Mapping) else name)


def _tensors(value: Any, where: str) -> dict[str, Tensor]:
    """Every tensor in nested values, by its path."""
    if isinstance(value, Tensor):
        return {where: value}
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {}
    found: dict[str, Tensor] = {}
    for name, inner in items:
        found |= _tensors(inner, f"{where}.{name}" if where else str(name))
    return found


def _refuse_no_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    wrong = without_numbers(tensors)
    if wrong:
        raise ResumeError(f"{path} holds NaN or infinity in {_some(wrong)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def check_deepspeed_files(folder: Path, *, trusted: bool) -> None:
    """Reads everything that DeepSpeed is about to unpickle, through torch's restricted unpickler.

    DeepSpeed itself unpickles without restriction, so that a file could run anything.

    Args:
        folder: of the checkpoint.
        trusted: whether the user vouches for the files, so that they are not looked at.

    Raises:
        ResumeError: if a file is damaged, or holds more than tensors, plain values and DeepSpeed's own settings.
    """
    if trusted:
        return
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and re.search(r"\.(pt|pth|pkl|bin)$", path.name)
    )
    if not files:
        raise ResumeError(f"{folder} holds no states of DeepSpeed")
    with torch.serialization.safe_globals(_deepspeed_globals()):
        for path in files:
            try:
                read_values(path)
            except ResumeError as error:
                raise ResumeError(
                    f"{error}. DeepSpeed would run what is in it; if you know who wrote it, add --trust_checkpoint"
                ) from error


def _deepspeed_globals() -> list[Any]:
    """What DeepSpeed's own states name beside tensors; making them runs nothing of the file's."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler  # an extra, and slow to import
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
