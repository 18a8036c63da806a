"""Causal LMs, loaded whole or refused: no weight is drawn at random, left over, misshapen or no number.

What transformers would only warn of is an error here; files are looked at before weights take memory, as far as their
headers tell.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from audiollm.tokenizer.checkpoints.folders import find_folder, read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_finite, check_loaded
from audiollm.tokenizer.checkpoints.tokenizer import shapes_in

from .fastest import fastest_dtype

# Keys of generation_config.json that transformers does not know: how audio is drawn, that it comes in turns, and the
# letters and digits, in small, of the texts that a model learned to say.
AUDIO_SAMPLING = "audio_sampling"
SPEAKS_IN_TURNS = "speaks_in_turns"
SPOKEN_CHARACTERS = "spoken_characters"
QUANTIZER = "bitsandbytes"  # the only library whose rounded weights are read and written here
_LISTED = 5
_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json")
_LAYER_KEYS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")


def load_causal_lm(
    path_or_hub_id: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str = "auto",
    attn_implementation: str | None = None,
    **hub: Any,
) -> PreTrainedModel:
    """Loads a causal LM, all of it.

    Args:
        path_or_hub_id: a folder or Hub id.
        dtype: of the weights; "auto": as stored.
        attn_implementation: as transformers calls it; None: its choice.
        hub: ``revision``, ``cache_dir``, ``token``, ``local_files_only``, ``force_download``.

    A model that was rounded to fewer bits, see `audiollm.exporting`, is loaded as it is stored, whatever the dtype.

    Raises:
        ValueError: naming the file, and the weights that are missing, unexpected, misshapen or no numbers.
        ImportError: ``attn_implementation`` needs a package, or a device, that is not there; or the library that
            rounded the weights is not.
    """
    source = os.fspath(path_or_hub_id)
    folder = Path(source)
    options = {"attn_implementation": attn_implementation} if attn_implementation is not None else {}
    shapes = None
    if folder.is_dir():
        if any(folder.glob("*.safetensors*")):  # else it has other weights
            config_file = folder / "config.json"
            found = quantizer_named_in(read_json_object(config_file)) if config_file.is_file() else None
            shapes = shapes_in(folder, rounded=found == QUANTIZER)
        check_settings(folder, None if shapes is None else len(shapes))
    check_reachable(source, **hub)
    with refused_by_transformers(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **hub)
        if shapes is not None:
            _check_shapes(source, config, shapes)
        is_rounded = quantizer_named_in(config.to_dict()) == QUANTIZER
        if is_rounded:
            require_quantizer(f"{source} is quantized, and reading it")
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype, output_loading_info=True, trust_remote_code=False, **options, **hub
            )
        except ImportError as error:
            if attn_implementation is None:
                raise
            raise ImportError(
                f"attn_implementation={attn_implementation} cannot be used here, take sdpa: {error}"
            ) from error
    check_loaded(model, report, source)
    if is_rounded:
        check_rounded(model, source)
    return model


def quantizer_named_in(config: Mapping[str, Any]) -> str | None:
    """The library that rounded the weights of an LLM, such as ``bitsandbytes``; None if nothing did.

    Args:
        config: what its ``config.json`` holds.
    """
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return None if not settings else str(getattr(method, "value", method))


def refuse_quantized(model: PreTrainedModel, source: str | os.PathLike[str], purpose: str) -> None:
    """Refuses a model whose weights were rounded to fewer bits.

    Args:
        model: the LLM.
        source: where it was loaded from.
        purpose: what cannot be done with it, such as "trained".

    Raises:
        ValueError: naming the source.
    """
    if getattr(model, "is_quantized", False):
        raise ValueError(f"{os.fspath(source)} is quantized and cannot be {purpose}: use the model it was made from")


def require_quantizer(purpose: str) -> None:
    """Raises ImportError, which says what is wanted for what, where the library that rounds weights is not there."""
    if find_spec(QUANTIZER) is None:
        raise ImportError(f"{purpose} needs {QUANTIZER}: run `pip install 'audiollm[quantize]'`")
    # What it would say at each product: that 8-bit inputs pass through float16; and that a package would be faster.
    for module in ("autograd._functions", "backends.cpu.ops"):
        logging.getLogger(f"{QUANTIZER}.{module}").setLevel(logging.ERROR)


def check_rounded(model: PreTrainedModel, source: str | os.PathLike[str]) -> None:
    """Refuses rounded weights that would be computed with as something else than they are.

    Args:
        model: an LLM whose weights were rounded.
        source: what it was made or loaded from.

    Raises:
        ValueError: if weights have no scales, or scales that are no numbers, or 4 bits in rows that do not divide into
            the library's blocks: it takes wrong scales for those on processors, without a word.
    """
    scales = {}
    for name, weight in model.named_parameters():
        if weight.is_floating_point():
            continue
        state = getattr(weight, "quant_state", None)
        scale = getattr(weight, "SCB", None) if state is None else state.absmax
        if scale is None:
            raise ValueError(f"{source} holds integers without their scales in {name}: copy or export it again")
        if state is not None and state.shape[-1] % state.blocksize:
            raise ValueError(
                f"{source}: {name} has rows of {state.shape[-1]}, which {QUANTIZER} cannot compute with in 4 bits "
                f"(only multiples of {state.blocksize}): use int8"
            )
        # Scales that were rounded themselves are integers, whose own scales count.
        nested = getattr(state, "state2", None)
        scales[name] = scale if nested is None else nested.absmax
    check_finite(scales, Path(source))


def fastest_dtype_of(path_or_hub_id: str, device: str = "cpu", **hub: Any) -> str:
    """The number format in which this machine writes tokens faster with an LLM, see `fastest_dtype`.

    Args:
        path_or_hub_id: a folder or Hub id; only its config.json is read.
        device: where it will be.
        hub: as for `load_causal_lm`.

    Raises:
        ValueError: if there is no such model, or its sizes are not told.
    """
    folder = find_folder(path_or_hub_id, needed=["config.json"], kind="model", **hub)
    with refused_by_transformers(path_or_hub_id):
        whole = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if quantizer_named_in(whole.to_dict()) == QUANTIZER:  # it computes in what it was exported with
        return str(whole.dtype or torch.float32).removeprefix("torch.")
    config = whole.get_text_config()
    size = config.hidden_size
    outputs = getattr(config, "intermediate_size", None) or 4 * size
    return fastest_dtype(size, outputs, rows=1, copies=config.num_hidden_layers, device=device)


def check_reachable(source: str, **hub: Any) -> None:
    """Asks the Hub once for what is no folder here, or in the Hub's cache.

    transformers asks six times for each file, which takes minutes where there is no network.

    Args:
        source: a folder or Hub id.
        hub: as for `load_causal_lm`.

    Raises:
        ValueError: if it is neither a folder here nor to be had from the Hub.
    """
    find_folder(source, needed=["config.json"], kind="model", **hub)


@contextmanager
def refused_by_transformers(source: str) -> Iterator[None]:
    """Makes one error with the source's name of whatever transformers and tokenizers raise over files."""
    try:
        yield
    except (OSError, ImportError, MemoryError):  # what they say names the file, the package or the lack
        raise
    except Exception as error:  # a value of a wrong type or size fails wherever it is first used
        if isinstance(error, ValueError) and str(error).startswith(source):
            raise
        what = " ".join(str(error).split())[:400] or type(error).__name__
        if isinstance(error, KeyError):
            what = f"there is no {what}"
        hint = ""
        if "trust_remote_code" in what:
            what, hint = "it wants Python of its own to be run", ": its code is never run; use a model of transformers"
        raise ValueError(f"{source} cannot be loaded: {what}{hint}") from error


def check_settings(folder: Path, num_tensors: int | None = None) -> None:
    """Refuses settings that are no JSON objects, that ask for code, or for more layers than there are tensors.

    Args:
        folder: of an LLM.
        num_tensors: weights in its files; None: unknown.

    Raises:
        ValueError: naming file and key.
    """
    for name in _SETTINGS:
        path = folder / name
        if not path.is_file():
            continue
        values = read_json_object(path)
        if name != "config.json":
            continue
        for key in _LAYER_KEYS:
            count = values.get(key)
            if count is not None and (type(count) is not int or count < 1):
                raise ValueError(f"{path}: {key}={count!r}: use a positive whole number")
            if isinstance(count, int) and num_tensors is not None and count > num_tensors:
                raise ValueError(f"{path}: {key}={count}, but the weights have {num_tensors} tensors in all")
    if (folder / "generation_config.json").is_file():
        values = read_json_object(folder / "generation_config.json")
        ours = [name for name in (AUDIO_SAMPLING, SPEAKS_IN_TURNS, SPOKEN_CHARACTERS) if name in values]
        if ours and values.get("_from_model_config"):
            # transformers drops all keys but its own from a file that says so
            raise ValueError(
                f"{folder / 'generation_config.json'}: {ours[0]} has no effect beside _from_model_config: true; "
                "remove that line"
            )
        try:
            GenerationConfig.from_pretrained(folder)
        except Exception as error:  # validation of transformers raises what it finds
            what = " ".join(str(error).split())[:400]
            raise ValueError(f"{folder / 'generation_config.json'} is refused: {what}") from error


def load_text_tokenizer(path_or_hub_id: str | os.PathLike[str], **hub: Any) -> Any:
    """Loads a text tokenizer; code beside it is never run.

    Raises:
        ValueError: if its files are damaged.
    """
    source = os.fspath(path_or_hub_id)
    check_reachable(source, **hub)
    with refused_by_transformers(source):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **hub)


def _check_shapes(source: str, config: Any, shapes: Mapping[str, list[int]]) -> None:
    """Compares with the model as its configuration makes it, before a weight takes memory.

    Weights of 4 bits, which are told by their scales, are packed and have other shapes.
    """
    packed = {name.removesuffix(".absmax") for name in shapes if name.endswith(".weight.absmax")}
    model = without_memory(config)
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [
        f"{name} {shape} instead of {expected[name]}"
        for name, shape in sorted(shapes.items())
        if name in expected and name not in packed and shape != expected[name]
    ]
    if wrong:
        raise ValueError(f"{source}: config.json does not fit the weights: {_some(wrong)}")


def without_memory(config: Any) -> PreTrainedModel:
    """The model of a configuration, whose weights have names and shapes and no values."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(json_copy(config), trust_remote_code=False)
    return model


def json_copy(config: Any) -> Any:
    """A configuration of its own: making a model writes into the one it is given."""
    return type(config).from_dict(json.loads(config.to_json_string(use_diff=False)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
