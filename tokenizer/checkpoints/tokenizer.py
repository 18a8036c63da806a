"""Tokenizer checkpoints, found, read and written: the released layout, full training checkpoints, and our own."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import sinusoids

from audiollm.tokenizer.configuration import HOP_LENGTH, MODEL_TYPE, SAMPLE_RATE, UniAudioTokenizerConfig
from audiollm.tokenizer.quantizer.usage import RECENT_CODES_PER_ENTRY
from audiollm.tokenizer.signal.log_mel import N_FFT

from .folders import PAPERS, copy_listed, find_folder, read_json_object, replaced_files
from .glm4_voice import GLM4_VOICE_LICENCE, is_glm4_voice
from .mini import AUDIO_TOKENIZER_FOLDER, MINI, mini_folder
from .names import is_left_out, our_name, released_name
from .tensors import check_shapes, stored_shapes

logger = logging.getLogger(__name__)

AnyConfig = TypeVar("AnyConfig", bound=UniAudioTokenizerConfig)

RELEASED_ARCHITECTURE = "WhisperVQEncoder"
RELEASED_FILES = ("preprocessor_config.json", "model.safetensors", "config.json")  # the last tells that it is complete
MAX_LAYERS = 4096
MAX_POSITIONS = 1_000_000  # more than five hours of frames; they are made up where a checkpoint lacks them
# What belongs to a tokenizer, and to the decoder in it, and is copied with them.
TOKENIZER_FILES = (
    "config.json", "preprocessor_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "normalizer.json", "added_tokens.json", "special_tokens_map.json", "output_ids.json", *PAPERS,
)  # fmt: skip
DECODER_FILES = (
    "config.json", "model.safetensors", "config.yaml", "flow.pt", "hift.pt", "flow.safetensors", "hift.safetensors",
    *PAPERS,
)  # fmt: skip
_POSITIONS = "encoder.embed_positions.weight"
WEIGHT_FILES = "model*.safetensors*"  # in one file or in parts with an index
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FOLDER = "tokenizer"  # of a release
FROM_AUTO_CLASSES = ("_from_auto", "trust_remote_code", "adapter_kwargs", "code_revision")  # transformers adds these


# ---------------------------------------------------------------------- folders


def find_tokenizer(source: str | Path, *, subfolder: str = "", **options: Any) -> Path:
    """Finds the folder with ``config.json``: ``source`` itself, or in it, as in a release or an Audio-LLM.

    Args:
        source: a folder or Hub id, or "mini".
        subfolder: of it.
        options: where ``source`` is on the Hub, see `find_folder`.

    Raises:
        ValueError: if there is none.
        TypeError: for an option that is not known.
    """
    options = {name: value for name, value in options.items() if name not in FROM_AUTO_CLASSES}
    source = mini_folder() if source == MINI else source
    # The decoder's weights are fetched when they are first used.
    decoders = ("decoder/", "*/decoder/")
    folder = find_folder(
        source,
        needed=["*.json", "*.safetensors", *(f"{place}config.yaml" for place in decoders)],
        passed_over=[f"{place}*.safetensors" for place in decoders],
        **options,
    )
    folder = folder / subfolder
    if (folder / "run.json").is_file():  # of a training: the tokenizer, or the Audio-LLM, that came out of it
        folder = folder / "model"
    # An Audio-LLM has a config.json of its own, so what lies in it comes first.
    for candidate in (folder / AUDIO_TOKENIZER_FOLDER, folder, folder / TOKENIZER_FOLDER):
        if (candidate / "config.json").is_file():
            return candidate
    raise ValueError(
        f"{folder} holds no tokenizer: expected config.json and model.safetensors there or in its "
        f"{TOKENIZER_FOLDER}/ folder"
    )


def read_config(folder: Path) -> UniAudioTokenizerConfig:
    """Reads ``config.json`` of a `UniAudioTokenizer`; see `read_config_as`."""
    return read_config_as(UniAudioTokenizerConfig, folder)


def read_config_as(config_class: type[AnyConfig], folder: Path) -> AnyConfig:
    """Reads ``config.json`` of the released layout or of our own.

    Args:
        config_class: of the tokenizer.
        folder: of the checkpoint.

    Raises:
        ValueError: if it is not a tokenizer's, or its values do not fit together.
    """
    path = folder / "config.json"
    values = read_json_object(path)
    model_type = values.pop("model_type", None)
    if model_type not in ("whisper", MODEL_TYPE):
        raise ValueError(f"{path} describes a {model_type!r} model, not a UniAudio tokenizer")
    if not values.get("quantize_vocab_size"):
        raise ValueError(
            f"{path} describes a plain Whisper model without a quantizer; "
            "start a tokenizer from it with UniAudioTokenizer.from_whisper"
        )
    if model_type == "whisper":  # keys left out of a released file have Whisper's defaults, not ours
        if is_glm4_voice(values):
            values = {"licence_note": GLM4_VOICE_LICENCE, **values}
        values = {**WhisperConfig().to_dict(), **values}
        check_preprocessor(folder, values["num_mel_bins"])
    for key in ("architectures", "torch_dtype", "dtype", "transformers_version", "model_type"):
        values.pop(key, None)
    _check_layers(path, values)
    try:
        return config_class(**values)
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} holds a value of a wrong type: {error}") from error
    except Exception as error:  # transformers checks fields by errors of huggingface_hub's own, which are no ValueError
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _check_layers(path: Path, values: Mapping[str, Any]) -> None:
    """A billion layers are made one by one before their weights are found missing; positions are made up."""
    for key in ("encoder_layers", "decoder_layers", "num_hidden_layers"):
        count = values.get(key)
        if isinstance(count, int) and count > MAX_LAYERS:
            raise ValueError(f"{path}: {key}={count}; no tokenizer has more than {MAX_LAYERS}")
    positions = values.get("max_source_positions")
    if isinstance(positions, int) and positions > MAX_POSITIONS:
        raise ValueError(f"{path}: max_source_positions={positions}; no tokenizer has more than {MAX_POSITIONS}")


def check_preprocessor(folder: Path, num_mel_bins: int) -> None:
    """Raises ValueError if ``preprocessor_config.json`` is there and asks for other features than Whisper's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return
    values = read_json_object(path)
    expected = {
        "feature_size": num_mel_bins,
        "sampling_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "hop_length": HOP_LENGTH,
    }
    for key, value in expected.items():
        if values.get(key, value) != value:
            raise ValueError(f"{path}: {key}={values[key]}, but this encoder works with {key}={value}")


# ---------------------------------------------------------------------- tensors


def weight_files(folder: Path) -> list[Path]:
    """Lists the safetensors files of a checkpoint, sharded or not.

    Raises:
        ValueError: if there are none, or one that the index names is absent.
    """
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        names = _names_in_index(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks weight files that {WEIGHTS_INDEX} names: {', '.join(missing)}")
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has a config.json but no model.safetensors; save the weights as safetensors")
    return files


def _names_in_index(index: Path) -> list[str]:
    """Weight files that an index names; each must lie beside it."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map that says which file holds which tensor")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} puts {tensor} into {name!r}: only safetensors files of its own folder are read")
    return sorted(set(weight_map.values()))


def check_readable(source: str | Path) -> None:
    """Refuses a model's folder with a safetensors file that is cut off, damaged or missing; headers alone are read.

    A Hub id, or a folder of weights of another kind, is passed over.

    Raises:
        ValueError: naming the file.
    """
    folder = Path(source)
    if folder.is_dir() and any(folder.glob("*.safetensors*")):
        shapes_in(folder)


def copy_tokenizer_files(source: Path, target: Path, files: Sequence[str] = TOKENIZER_FILES) -> None:
    """Copies what belongs to a tokenizer, or to a release: their files by name, and those of a decoder beside them.

    Args:
        source: the tokenizer's folder, or that of its release.
        target: an existing folder.
        files: names of the tokenizer's own.

    Raises:
        ValueError: if one of them is a link that leads out of the folder.
    """
    decoder, inner = "decoder", f"{TOKENIZER_FOLDER}/decoder"
    places = {"": files, TOKENIZER_FOLDER: files, decoder: DECODER_FILES, inner: DECODER_FILES}
    for place, names in places.items():
        if not (source / place).is_dir():
            continue
        if not (source / place).resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{source / place} is a link that leads out of {source}: put the folder itself there")
        (target / place).mkdir(exist_ok=True)
        copy_listed(source / place, target / place, names)


def shapes_in(folder: Path, *, rounded: bool = False) -> dict[str, list[int]]:
    """Shapes of all tensors in a checkpoint's files, under the names there, by their headers alone.

    Args:
        folder: of the checkpoint.
        rounded: whether weights may be integers, see `stored_shapes`.

    Raises:
        ValueError: if a file is absent, cut off or damaged, or a tensor lies in two of them.
    """
    shapes: dict[str, list[int]] = {}
    origin: dict[str, str] = {}
    for path in weight_files(folder):
        for name, shape in stored_shapes(path, rounded=rounded).items():
            if name in shapes:
                raise ValueError(f"{folder} holds {name} twice, in {origin[name]} and {path.name}: remove one of them")
            shapes[name], origin[name] = shape, path.name
    return shapes


def read_tensors(folder: Path, config: UniAudioTokenizerConfig, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the tensors that the model needs, under our names, after comparing their shapes by the files' headers.

    Args:
        folder: of the checkpoint.
        config: of the tokenizer.
        expected: the tokenizer's ``state_dict()``, of which only names and shapes matter.

    Raises:
        ValueError: if a file is damaged, or tensors are missing, unknown, misshapen or there twice.
    """
    stored: dict[str, list[int]] = {}
    for name, shape in shapes_in(folder).items():
        ours = our_name(name)
        if ours is None or is_left_out(ours, config):
            continue
        if ours in stored:
            raise ValueError(f"{folder} holds {ours} twice, under two names: remove one of them")
        stored[ours] = shape
    check_shapes(expected, stored, folder, may_lack=_names_made_up(config, expected))
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                ours = our_name(name)
                if ours in stored:
                    tensors[ours] = file.get_tensor(name)
    recent = tensors.get("codebook.recent_codes")
    if recent is not None:
        tensors["codebook.recent_codes"] = recent.long()  # float32 in the released layout
    return tensors


def _names_made_up(config: UniAudioTokenizerConfig, expected: Mapping[str, Tensor]) -> set[str]:
    """What a checkpoint may lack: training statistics, SAE parts that are switched off, fixed positions."""
    names = {"codebook.num_updates", "codebook.recent_codes", _POSITIONS}
    if config.quantize_ema_decay is not None:
        names |= {"codebook.ema_count", "codebook.ema_weight"}
    return names | set(_unused(config, expected))


def _unused(config: UniAudioTokenizerConfig, expected: Mapping[str, Tensor]) -> list[str]:
    parts = {"sae.adapter.": config.use_residual_adapter, "sae.gate.": config.use_residual_gate}
    unused = tuple(part for part, is_used in parts.items() if not is_used)
    return [name for name in expected if name.startswith(unused)]


def default_tensors(
    config: UniAudioTokenizerConfig, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Makes up what a checkpoint may lack: training statistics, SAE parts that are switched off, fixed positions.

    Args:
        config: of the tokenizer.
        expected: the tokenizer's ``state_dict()``, of which only names and shapes matter.
        tensors: what `read_tensors` found; these are not made up.
    """
    defaults: dict[str, Tensor] = {
        "codebook.num_updates": torch.zeros((), dtype=torch.int64),
        "codebook.recent_codes": torch.zeros(RECENT_CODES_PER_ENTRY * config.quantize_vocab_size, dtype=torch.int64),
    }
    if config.quantize_ema_decay is not None:
        # Every entry seen once: training that goes on from here begins with averages that agree with the entries.
        codebook = tensors["codebook.weight"]
        defaults["codebook.ema_count"] = torch.ones(len(codebook))
        defaults["codebook.ema_weight"] = codebook.float().clone()
    # Whisper never trains these, so that small checkpoints may leave them out.
    defaults[_POSITIONS] = sinusoids(*expected[_POSITIONS].shape).to(tensors["encoder.conv1.weight"].dtype)
    defaults |= {name: torch.zeros(expected[name].shape) for name in _unused(config, expected)}
    return {name: tensor for name, tensor in defaults.items() if name in expected and name not in tensors}


# ---------------------------------------------------------------------- writing


def write_released(
    config: UniAudioTokenizerConfig,
    weights: Mapping[str, Tensor],
    folder: str | Path,
    dtype: torch.dtype,
    *,
    architecture: str = RELEASED_ARCHITECTURE,
) -> None:
    """Writes an encoder-only checkpoint in the released layout: config, weights and feature extractor settings.

    Each file appears whole or not at all. Layers behind the quantizer and the final norm are left out, as in a release.

    Args:
        config: of the tokenizer.
        weights: its ``state_dict()``.
        folder: made if need be.
        dtype: what ``config.json`` is to say of the weights, where it says nothing yet.
        architecture: the class of the published code that reads it.
    """
    if config.quantizer_bypassed:
        logger.warning("the tokenizer written to %s was trained without its quantizer: its codes mean little", folder)
    if config.quantize_metric_size is not None:
        logger.warning(
            "the tokenizer written to %s measures distances by its codebook.metric (quantize_metric_size=%d): the "
            "published code passes that over and would find other codes",
            *(folder, config.quantize_metric_size),
        )
    config = copy.deepcopy(config)
    config.quantize_encoder_only = True
    tensors = {name: tensor for name, tensor in weights.items() if not is_left_out(name, config)}
    with replaced_files(Path(folder), *RELEASED_FILES) as staging:
        save_file(released_tensors(tensors), staging / "model.safetensors", metadata={"format": "pt"})
        write_released_config(config, staging, architecture, dtype)
        feature_extractor_of(config).save_pretrained(staging)


def feature_extractor_of(config: UniAudioTokenizerConfig) -> WhisperFeatureExtractor:
    """Makes transformers' feature extractor for an audio tokenizer; what it gives is what ``forward`` takes."""
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins)


def released_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a tokenizer under their released names, ready to be saved."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        released = released_name(name)
        if released is not None:
            # The published code keeps its memory of codes in float32.
            tensor = tensor.float() if released == "codebook_used" else tensor
            tensors[released] = tensor.detach().cpu().contiguous()
    return tensors


def write_released_config(config: UniAudioTokenizerConfig, folder: Path, architecture: str, dtype: torch.dtype) -> None:
    """Writes ``config.json`` as the published code reads it: a Whisper configuration with further keys."""
    values = config.to_dict() | {"model_type": "whisper", "architectures": [architecture]}
    values["torch_dtype"] = str(values.pop("dtype", None) or dtype).removeprefix("torch.")
    for key in ("quantizer_bypassed", "quantize_metric_size"):  # of ours
        if not values[key]:
            del values[key]
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
