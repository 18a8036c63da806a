"""From a folder as it was released to a ReasoningCodec: weights under the published names, and what is beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_shapes, read_tensors
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS
from audiollm.tokenizer.zoo.settings import settings_as
from audiollm.tokenizer.zoo.sqcodec.model import RELEASED as SQCODEC_WEIGHTS
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

from .configuration import ReasoningCodecConfig
from .encoders import WAVLM, WHISPER, load_encoder
from .names import as_ours, as_released, dit_size_of, is_kept, sizes_of, without_wrapper

CHECKPOINT = "ReasoningCodec*.checkpoint"
DIT_CONFIGS = ("dit_config.json", "model_config.json")
"""Files that may say how many heads the flow's transformer has."""
RELEASED_HEAD_SIZE = 64
LAST_STAGE = "reconstruction"
"""Of their training: releases have been through all of it."""
_UNDER = "model"
_ENCODER_FOLDERS = {WHISPER: "whisper-medium", WAVLM: "wavlm"}

Made = TypeVar("Made", bound=Any)


def read_released(
    make: Callable[[ReasoningCodecConfig], Made], folder: Path, encoder_only: bool, variant: str | None
) -> Made:
    """Makes a codec of a release.

    Args:
        make: makes one of its sizes, with any weights.
        folder: of the release.
        encoder_only: leave out the decoder.
        variant: of several checkpoints the one of this name, without its ending.

    Raises:
        ValueError: naming the file, or the tensors, that are missing or wrong.
    """
    path = _weights(folder, variant)
    under = None if path.name == WEIGHTS else _UNDER
    stored = read_tensors(path, under=under, keep=lambda name: is_kept(without_wrapper(name), encoder_only))
    tensors = {without_wrapper(name): one for name, one in stored.items()}
    shapes = {name: list(one.shape) for name, one in tensors.items()}
    values = sizes_of(shapes, path, encoder_only=encoder_only) | _dit_values(folder, dit_size_of(shapes))
    values |= {"encoder_only": encoder_only, "trained_stage": LAST_STAGE}
    config = settings_as(ReasoningCodecConfig, values, path)
    with torch.device("meta"):
        outline = make(config)
    names: dict[str, str] = outline.released_names()
    check_shapes(_expected(outline.weights(), names), shapes, path)
    model = make(config)
    model.load_weights({name: as_ours(released, tensors[released]) for name, released in names.items()})
    for role, name in _ENCODER_FOLDERS.items():
        if (folder / name / CONFIG).is_file():
            model.attach_encoder(role, load_encoder(role, folder / name))
    if not encoder_only and (folder / SQCODEC_WEIGHTS).is_file():
        model.attach_sqcodec(SQCodec.read(folder))
    return model


def _expected(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Weights on the meta device under their released names, in their released shapes."""
    empty = partial(torch.empty, device="meta")
    return {released: empty(as_released(released, weights[name].shape)) for name, released in names.items()}


def _weights(folder: Path, variant: str | None) -> Path:
    found = sorted(folder.glob(CHECKPOINT))
    if (folder / WEIGHTS).is_file() and not found:
        if variant is not None:
            raise ValueError(
                f"variant={variant!r} names one of several checkpoints; leave it out: {folder} holds {WEIGHTS} alone"
            )
        return folder / WEIGHTS
    wanted = [path for path in found if variant in (None, path.stem)]
    if len(wanted) == 1:
        return wanted[0]
    if not found:
        raise ValueError(f"{folder} holds no weights of a ReasoningCodec: put {CHECKPOINT} or {WEIGHTS} there")
    names = ", ".join(path.stem for path in found)
    said = "" if variant is None else f"variant={variant!r} is none of them; "
    raise ValueError(f"{folder} holds {names}: {said}say which by variant, such as variant={found[0].stem!r}")


def _dit_values(folder: Path, size: int | None) -> dict[str, Any]:
    """Heads of the flow's transformer, by its config file or, without one, as releases have them."""
    if size is None:
        return {}
    head_size, source = RELEASED_HEAD_SIZE, folder
    for name in DIT_CONFIGS:
        values = read_json_object(folder / name) if (folder / name).is_file() else {}
        if "attention_head_dim" in values:
            head_size, source = values["attention_head_dim"], folder / name
            break
    is_count = isinstance(head_size, int) and not isinstance(head_size, bool) and head_size > 0
    if not is_count or size % head_size:
        raise ValueError(
            f"{source}: heads of {head_size!r} numbers do not make up the {size} of the flow's transformer; put "
            f"{DIT_CONFIGS[0]} with its attention_head_dim there"
        )
    return {"dit_head_size": head_size, "dit_heads": size // head_size}
