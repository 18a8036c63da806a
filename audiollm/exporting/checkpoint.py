"""One folder of everything: adapters merged, weights in the number format asked for, or rounded to 8 or 4 bits.

Rounded are the linear layers inside the LLM, by bitsandbytes: it computes on processors as well as on GPUs, and
transformers saves and loads what it rounds. The rows of text and audio tokens, in front of the layers and behind them,
keep their 16 bits: a code has one row, which nothing averages out.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal, get_args

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from audiollm.folders import check_folder
from audiollm.loading import QUANTIZER, check_rounded, quantizer_named_in, refused_by_transformers, require_quantizer
from audiollm.modeling import AudioLLM
from audiollm.sources.places import ModelSource, find_source
from audiollm.tokenizer.checkpoints.card import Base, write_card
from audiollm.tokenizer.checkpoints.folders import copy_listed, find_folder, read_json_object
from audiollm.tokenizer.checkpoints.tokenizer import PAPERS

from .places import check_output, new_folder

NumberFormat = Literal["bfloat16", "float16", "float32", "int8", "int4"]
_ROUNDED = ("int8", "int4")
_REST = torch.bfloat16  # of what is not rounded, and what 4-bit weights are computed in


def export_checkpoint(
    source: str | os.PathLike[str], output: str | os.PathLike[str], number_format: NumberFormat = "bfloat16"
) -> Path:
    """Writes an Audio-LLM as one folder that `AudioLLM`, plain transformers and others load.

    Args:
        source: what `AudioLLM.from_pretrained` takes: a folder or Hub id, "mini", or the folder of a run, of an adapter
            (which is merged) or of a checkpoint.
        output: folder to write; must not exist or be empty, and lie outside the model.
        number_format: of the LLM's weights; "int8" and "int4" round those of its linear layers, and leave the rest in
            bfloat16. The audio tokenizer goes along as it is.

    Returns:
        The folder.

    Raises:
        ValueError: if a folder is no Audio-LLM or is quantized already, if something is missing, if the output cannot
            be taken, or if rows of weights do not divide into the blocks of "int4".
        ImportError: for "int8" and "int4", if bitsandbytes is not installed.
    """
    if number_format not in get_args(NumberFormat):
        raise ValueError(f"number_format={number_format!r}: use one of {', '.join(get_args(NumberFormat))}")
    name, found = os.fspath(source), find_source(source)
    for folder in (name, found.model):
        check_output(output, folder)
    if number_format in _ROUNDED:
        require_quantizer(f"--format {number_format}")
    check_folder(found.model)
    _refuse_rounded(found.model)
    dtype = _REST if number_format in _ROUNDED else getattr(torch, number_format)
    audio_llm = AudioLLM.from_pretrained(source, dtype=dtype)
    if number_format in _ROUNDED:
        audio_llm = AudioLLM(_rounded(audio_llm.model, number_format, name), audio_llm.processor)
    with new_folder(output, name) as staging:
        audio_llm.save_pretrained(staging)
        _write_papers(staging, name, found, Path(output).resolve().name, number_format)
    return Path(output)


def _refuse_rounded(model: str) -> None:
    """Refuses a model that was rounded before: more rounding would only lose more."""
    folder = find_folder(model, needed=["config.json"], kind="model")
    method = quantizer_named_in(read_json_object(folder / "config.json"))
    if method is not None:
        raise ValueError(f"{model} is quantized already, by {method}: export the model that it was made from")


def _rounded(model: PreTrainedModel, number_format: str, name: str) -> PreTrainedModel:
    """The same LLM with rounded linear layers. transformers rounds while it loads, so it is written down first."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with refused_by_transformers(name):
            rounded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=_REST,
                quantization_config=_settings(number_format),
                device_map={"": "cpu"},  # else a GPU, if there is one
                trust_remote_code=False,
            )
    assert quantizer_named_in(rounded.config.to_dict()) == QUANTIZER
    check_rounded(rounded, name)
    return rounded


def _settings(number_format: str) -> BitsAndBytesConfig:
    if number_format == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=_REST
    )


def _write_papers(staging: Path, name: str, found: ModelSource, title: str, number_format: str) -> None:
    """The model's licence and those whom it names go along, and a card; an adapter's card would load the adapter."""
    is_whole = found.adapter is None and found.weights is None
    if Path(found.model).is_dir():
        copy_listed(Path(found.model), staging, PAPERS if is_whole else PAPERS[1:])
    if not (staging / PAPERS[0]).is_file():
        base = Base("Audio-LLM", found.model if is_whole else name, Path(found.model))
        write_card(staging, "audio_llm", title=title, bases=[base], note=f"Exported with weights in {number_format}.")
