"""Reads and writes checkpoints of the waveform decoder: the released layout, and our own.

Released: ``config.yaml``, ``flow.pt`` and ``hift.pt`` (or ``.safetensors``). Ours: ``config.json`` and
``model.safetensors``, whose tensors are those of the two models under ``flow.`` and ``vocoder.``. Either may lie in a
folder ``decoder/`` beside or inside the tokenizer's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from audiollm.tokenizer.checkpoints.tensors import check_complete, read_tensors
from audiollm.tokenizer.checkpoints.tokenizer import torch_dtype
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder

from .released import read_released_config, vocoder_name

DECODER_FOLDER = "decoder"
MODEL_TYPE = "waveform_decoder"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
RELEASED_CONFIG = "config.yaml"
RELEASED_WEIGHTS = {"flow": ("flow.pt", "flow.safetensors"), "vocoder": ("hift.pt", "hift.safetensors")}


def load_decoder(
    source: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    **hub_options: Any,
) -> WaveformDecoder:
    """Loads a decoder for decoding; see :meth:`WaveformDecoder.from_pretrained` for arguments and errors."""
    decoder = read_decoder(find_decoder(source, **hub_options))
    return decoder.prepare(torch_dtype(dtype) or torch.float32).to(device or "cpu").eval()


def read_decoder(folder: Path) -> WaveformDecoder:
    """Builds the decoder of a folder, in float32 and with weight normalization, as it is trained.

    Raises:
        ValueError: as :meth:`WaveformDecoder.from_pretrained`.
    """
    config = read_decoder_config(folder)
    tensors = _read_own(folder) if is_own(folder) else _read_released(folder)
    with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
        decoder = WaveformDecoder(config)
    check_complete(decoder, tensors, folder)
    decoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return decoder.eval()


def read_decoder_config(folder: Path) -> WaveformDecoderConfig:
    """Reads the sizes of the decoder in a folder, without its weights.

    Raises:
        ValueError: if they do not fit together, or the file is refused.
    """
    if not is_own(folder):
        return read_released_config(folder / RELEASED_CONFIG)
    values = _read_json(folder / CONFIG)
    del values["model_type"]
    try:
        return WaveformDecoderConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


# ---------------------------------------------------------------------- folders


def find_decoder(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Finds the folder of a decoder: ``source`` itself, its ``decoder/``, or the same on the Hub.

    Raises:
        ValueError: if there is none.
    """
    folder = Path(source)
    if folder.is_file():
        raise ValueError(f"{source} is a file; pass the folder that holds it, with the decoder's configuration")
    if not folder.is_dir():
        folder = _download(
            str(source),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
    found = decoder_in(folder)
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
    return path.is_file() and _read_json(path).get("model_type") == MODEL_TYPE


def _download(name: str, **options: Any) -> Path:
    """Fetches ``decoder/`` of a repository, or the decoder at its top where there is no such folder."""
    top = [CONFIG, WEIGHTS, RELEASED_CONFIG, *(file for files in RELEASED_WEIGHTS.values() for file in files)]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[f"{DECODER_FOLDER}/*"], **options))
        if not (folder / DECODER_FOLDER).is_dir():
            folder = Path(snapshot_download(name, allow_patterns=top, **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{name} is neither a folder here nor a decoder on the Hub: {error}") from error
    return folder


# ---------------------------------------------------------------------- tensors


def _read_own(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder} lacks {WEIGHTS}")
    return read_tensors(path)


def _read_released(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for model, names in RELEASED_WEIGHTS.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise ValueError(f"{folder} lacks {' or '.join(names)}")
        for name, tensor in read_tensors(path).items():
            ours = f"{model}.{vocoder_name(name) if model == 'vocoder' else name}"
            if ours in tensors:
                raise ValueError(f"{path} holds {ours.removeprefix('vocoder.')} twice, under two names")
            tensors[ours] = tensor
    return tensors


# ---------------------------------------------------------------------- writing


def save_decoder(decoder: WaveformDecoder, folder: str | Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``; each file appears whole or not at all.

    Raises:
        ValueError: if the folder holds the ``config.json`` of another model.
    """
    folder = Path(folder)
    _check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in decoder.state_dict().items()}
    values = {"model_type": MODEL_TYPE, **decoder.config.to_dict()}
    with tempfile.TemporaryDirectory(prefix=".decoder-", dir=folder) as staging:
        save_file(tensors, Path(staging) / WEIGHTS, metadata={"format": "pt"})
        (Path(staging) / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        for name in (WEIGHTS, CONFIG):
            os.replace(Path(staging) / name, folder / name)


def copy_decoder(source: Path, target: Path) -> None:
    """Copies a decoder in our own layout, without loading it."""
    if target.exists() and source.resolve() == target.resolve():
        return
    _check_own(target)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".decoder-", dir=target) as staging:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(source / name, Path(staging) / name)
        for name in (WEIGHTS, CONFIG):
            os.replace(Path(staging) / name, target / name)


def _check_own(folder: Path) -> None:
    if (folder / CONFIG).is_file() and not is_own(folder):
        raise ValueError(f"{folder} holds the {CONFIG} of another model; choose an empty folder")


def convert_decoder(source: str | Path, output: str | Path) -> Path:
    """Converts a released decoder to safetensors and JSON, in float32 and without changing a weight.

    Args:
        source: a folder or Hub id, as for :meth:`WaveformDecoder.from_pretrained`.
        output: folder to write; made if need be.

    Returns:
        The folder written.

    Raises:
        ValueError: if the decoder cannot be loaded, or the folder belongs to another model.
    """
    decoder = read_decoder(find_decoder(source))
    save_decoder(decoder, output)
    return Path(output)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}, not an object with the model's settings")
    return values
