"""One model of a decoder as its training run leaves it, flow model or vocoder, and a decoder made of both.

A run's ``model`` folder holds ``config.json`` (sizes of the whole decoder) and ``flow.safetensors`` or
``vocoder.safetensors``; a part of a finished decoder can take the place of either.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_document import write_json
from audiollm.tokenizer.checkpoints.card import Base, write_card
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import read_tensors
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.training.loop.config import MODEL_FOLDER

Part = Literal["flow", "vocoder"]


def save_part(folder: Path, part: Part, config: WaveformDecoderConfig, state: dict[str, Tensor]) -> None:
    """Writes one trained model, complete or not at all.

    Args:
        folder: replaced if it exists.
        part: which of the two.
        config: sizes of the whole decoder; those of the other part are carried along.
        state: its ``state_dict``.
    """
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", config.to_dict())
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        save_file(tensors, temporary / _file_name(part))


def load_part(source: str | os.PathLike[str], part: Part) -> tuple[WaveformDecoderConfig, dict[str, Tensor]]:
    """Reads one model of a decoder.

    Args:
        source: a run's folder, its ``model`` folder, or anything that ``WaveformDecoder.from_pretrained`` loads.
        part: which of the two.

    Returns:
        Sizes of the whole decoder, and the model's ``state_dict``.

    Raises:
        ValueError: if nothing of the kind is there, or its files are damaged, or its weights missing, unknown,
            misshapen or no numbers.
    """
    path = Path(source)
    for folder in (path / MODEL_FOLDER, path):
        if (folder / _file_name(part)).exists() and (folder / "config.json").exists():
            return _read_part(folder, part)
    other: Part = "vocoder" if part == "flow" else "flow"
    if any((folder / _file_name(other)).exists() for folder in (path / MODEL_FOLDER, path)):
        raise ValueError(f"{source} is a training run of the {other}, not of the {part}: give the other folder")
    if (path / "checkpoints").exists():
        raise ValueError(f"{source} is a run that has not saved its {MODEL_FOLDER} folder yet: wait for a checkpoint")
    decoder = WaveformDecoder.from_pretrained(os.fspath(source))
    return decoder.config, getattr(decoder, part).state_dict()


def _read_part(folder: Path, part: Part) -> tuple[WaveformDecoderConfig, dict[str, Tensor]]:
    sizes = read_json_object(folder / "config.json")
    try:
        config = WaveformDecoderConfig.from_dict(sizes)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    with torch.device("meta"):  # for names and shapes
        model = getattr(WaveformDecoder(config), part)
    return config, read_tensors(folder / _file_name(part), model.state_dict())


def join_decoder(
    flow: str | os.PathLike[str], vocoder: str | os.PathLike[str], output_dir: str | os.PathLike[str]
) -> WaveformDecoder:
    """Makes one decoder of a flow model and a vocoder, and saves it.

    Args:
        flow: run or decoder to take the flow model from (averaged weights, as runs save them).
        vocoder: run or decoder to take the vocoder from.
        output_dir: folder to write, for ``WaveformDecoder.from_pretrained``.

    Returns:
        The decoder.

    Raises:
        ValueError: if the two were made for different mel spectrograms, or a folder holds no such model.
    """
    flow_config, flow_state = load_part(flow, "flow")
    vocoder_config, vocoder_state = load_part(vocoder, "vocoder")
    if flow_config.mel != vocoder_config.mel:
        raise ValueError(
            f"{flow} and {vocoder} were made for different mel spectrograms: {flow_config.mel} and "
            f"{vocoder_config.mel}; train one of them again"
        )
    config = WaveformDecoderConfig(flow=flow_config.flow, vocoder=vocoder_config.vocoder, mel=flow_config.mel)
    decoder = WaveformDecoder(config)
    decoder.flow.load_state_dict(flow_state)
    decoder.vocoder.load_state_dict(vocoder_state)
    decoder.eval()
    decoder.save_pretrained(Path(output_dir))
    bases = [Base("flow model", os.fspath(flow)), Base("vocoder", os.fspath(vocoder))]
    write_card(Path(output_dir), "decoder", title=Path(output_dir).resolve().name, bases=bases)
    return decoder


def _file_name(part: Part) -> str:
    return f"{part}.safetensors"
