"""The folder of a waveform decoder, found, read, written and copied: the released layout, and our own.

Released: ``config.yaml``, ``flow.pt`` and ``hift.pt`` (or ``.safetensors``). Ours: ``config.json`` and
``model.safetensors``, whose tensors are those of the two models under ``flow.`` and ``vocoder.``. Either may lie in a
folder ``decoder/`` beside or inside the tokenizer's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from audiollm.tokenizer.checkpoints.folders import copy_listed, find_folder, read_json_object, replaced_files
from audiollm.tokenizer.checkpoints.mini import AUDIO_TOKENIZER_FOLDER, MINI, mini_folder
from audiollm.tokenizer.checkpoints.tensors import check_complete, check_shapes, read_tensors, stored_shapes
from audiollm.tokenizer.checkpoints.tokenizer import DECODER_FILES, TOKENIZER_FOLDER
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig

from .released import read_released_config, vocoder_name

DECODER_FOLDER = "decoder"
MODEL_TYPE = "waveform_decoder"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OWN_FILES = (WEIGHTS, CONFIG)  # in the order in which they appear: the one that marks the folder as a decoder's last
RELEASED_CONFIG = "config.yaml"
RELEASED_WEIGHTS = {"flow": ("flow.pt", "flow.safetensors"), "vocoder": ("hift.pt", "hift.safetensors")}


def read_decoder_config(folder: Path) -> WaveformDecoderConfig:
    """Reads the sizes of the decoder in a folder, without its weights.

    Raises:
        ValueError: if they do not fit together, or the file is refused.
    """
    if not is_own(folder):
        return read_released_config(folder / RELEASED_CONFIG)
    values = read_json_object(folder / CONFIG)
    del values["model_type"]
    try:
        return WaveformDecoderConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


# ---------------------------------------------------------------------- folders


def find_decoder(source: str | Path, **hub_options: Any) -> Path:
    """Finds the folder of a decoder: ``source`` itself, its ``decoder/``, or the same on the Hub.

    "mini" is the one that comes with this package; in the folder of an Audio-LLM, its audio tokenizer's is found.

    Args:
        source: a folder or Hub id.
        hub_options: see `find_folder`.

    Raises:
        ValueError: if there is none.
    """
    if source == MINI:
        source = mini_folder()
    folder = find_folder(source, needed=[f"{DECODER_FOLDER}/*"], kind="decoder", **hub_options)
    if not Path(source).is_dir() and not (folder / DECODER_FOLDER).is_dir():  # the decoder lies at its top
        top = [CONFIG, WEIGHTS, RELEASED_CONFIG, *(file for files in RELEASED_WEIGHTS.values() for file in files)]
        folder = find_folder(source, needed=top, kind="decoder", **hub_options)
    found = decoder_in(folder) or decoder_in(folder / AUDIO_TOKENIZER_FOLDER)
    if found is None:
        raise ValueError(
            f"{source} holds no waveform decoder: expected {RELEASED_CONFIG}, flow.pt and hift.pt, or {CONFIG} and "
            f"{WEIGHTS}, there or in its {DECODER_FOLDER}/ folder"
        )
    return found


def decoder_in(folder: Path) -> Path | None:
    """The folder itself or its ``decoder/``, whichever holds a decoder; None if neither does."""
    return next((found for found in (folder, folder / DECODER_FOLDER) if holds_decoder(found)), None)


def holds_decoder(folder: Path) -> bool:
    """Whether a folder has the configuration of a decoder in either layout."""
    return is_own(folder) or (folder / RELEASED_CONFIG).is_file()


def is_own(folder: Path) -> bool:
    """Whether a folder holds a decoder in our own layout."""
    path = folder / CONFIG
    return path.is_file() and read_json_object(path).get("model_type") == MODEL_TYPE


def decoder_beside(tokenizer: Path) -> Path | None:
    """Finds the decoder that belongs to a tokenizer's folder: in ``decoder/`` inside it, or beside ``tokenizer/``."""
    candidates = [tokenizer / DECODER_FOLDER]
    if tokenizer.name == TOKENIZER_FOLDER:
        candidates.append(tokenizer.parent / DECODER_FOLDER)
    return next((folder for folder in candidates if holds_decoder(folder)), None)


def copy_decoder_beside(source: Path, target: Path) -> None:
    """Copies the decoder that lies beside a tokenizer's folder into a copy of that folder."""
    beside = decoder_beside(source)
    if beside is not None and decoder_beside(target) is None and (target / CONFIG).is_file():
        (target / DECODER_FOLDER).mkdir()
        copy_listed(beside, target / DECODER_FOLDER, DECODER_FILES)


# ---------------------------------------------------------------------- tensors


def read_decoder_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the tensors of a decoder's folder, under our names.

    Args:
        folder: of the decoder.
        expected: its ``state_dict()``, of which only names and shapes matter; of safetensors they are compared before
            a tensor takes memory.

    Raises:
        ValueError: if a file is absent, damaged or holds code, or a tensor is missing, unknown, misshapen, no number or
            there twice.
    """
    return _read_own(folder, expected) if is_own(folder) else _read_released(folder, expected)


def _read_own(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} lacks {WEIGHTS}")
    return read_tensors(path, expected)


def _read_released(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for model, names in RELEASED_WEIGHTS.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise ValueError(f"{folder} lacks {' or '.join(names)}")
        if path.suffix == ".safetensors":
            stored = {_our_name(model, name): shape for name, shape in stored_shapes(path).items()}
            part = {name: tensor for name, tensor in expected.items() if name.startswith(f"{model}.")}
            check_shapes(part, stored, path)
        for name, tensor in read_tensors(path).items():
            ours = _our_name(model, name)
            if ours in tensors:
                raise ValueError(f"{path} holds {ours.removeprefix('vocoder.')} twice, under two names")
            tensors[ours] = tensor
    check_complete(expected, tensors, folder)
    return tensors


def _our_name(model: str, name: str) -> str:
    return f"{model}.{vocoder_name(name) if model == 'vocoder' else name}"


# ---------------------------------------------------------------------- writing


def write_decoder(config: WaveformDecoderConfig, weights: Mapping[str, Tensor], folder: str | Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``; each file appears whole or not at all.

    Raises:
        ValueError: if the folder holds the ``config.json`` of another model.
    """
    folder = Path(folder)
    _check_own(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    values = {"model_type": MODEL_TYPE, **config.to_dict()}
    with replaced_files(folder, *OWN_FILES) as staging:
        save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})
        (staging / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def copy_decoder(source: Path, target: Path) -> None:
    """Copies a decoder in our own layout, without loading it."""
    if target.exists() and source.resolve() == target.resolve():
        return
    _check_own(target)
    with replaced_files(target, *OWN_FILES) as staging:
        for name in OWN_FILES:
            shutil.copyfile(source / name, staging / name)


def _check_own(folder: Path) -> None:
    if (folder / CONFIG).is_file() and not is_own(folder):
        raise ValueError(f"{folder} holds the {CONFIG} of another model; choose an empty folder")
