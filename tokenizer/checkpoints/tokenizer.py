"""Reads and writes tokenizer checkpoints: the released layout, full training checkpoints, and our own."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import sinusoids

from audiollm.tokenizer.configuration import HOP_LENGTH, MODEL_TYPE, SAMPLE_RATE, UniAudioTokenizerConfig
from audiollm.tokenizer.decoder.attached import DecoderSlot, HubFolder, decoder_beside
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.quantizer.codebook import RECENT_CODES_PER_ENTRY
from audiollm.tokenizer.signal.log_mel import N_FFT

from .names import is_left_out, our_name, released_name
from .tensors import check_complete, check_finite

logger = logging.getLogger(__name__)

RELEASED_ARCHITECTURE = "WhisperVQEncoder"
WEIGHTS_INDEX = "model.safetensors.index.json"


def load_tokenizer(
    source: str | Path,
    *,
    encoder_only: bool = False,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: UniAudioTokenizerConfig | None = None,
    decoder: bool | str | Path = True,
    **hub_options: Any,
) -> UniAudioTokenizer:
    """Loads a tokenizer; see :meth:`UniAudioTokenizer.from_pretrained` for arguments and errors."""
    folder = find_folder(source, **hub_options)
    config = copy.deepcopy(config) if config is not None else read_config(folder)
    if encoder_only:
        config.quantize_encoder_only = True
    with torch.device("meta"):  # no memory and no random initialisation for weights about to be replaced
        model = UniAudioTokenizer(config)
    tensors = read_tensors(folder, config)
    tensors |= default_tensors(model, tensors)
    check_complete(model, tensors, folder)
    # The published trainer leaves chance values in its running sums; codes do not depend on those.
    check_finite({name: tensor for name, tensor in tensors.items() if not name.startswith("codebook.ema_")}, folder)
    target = torch_dtype(dtype)
    for name, tensor in tensors.items():
        keep = not tensor.is_floating_point() or (target is None and not name.startswith("codebook."))
        tensors[name] = tensor if keep else tensor.to(torch.float32 if name.startswith("codebook.") else target)
    model.load_state_dict(tensors, assign=True)
    model.config.dtype = model.dtype
    model.name_or_path = str(source)
    model = model.to(device or "cpu").eval()
    if decoder is True:
        model.attach_decoder(find_decoder_slot(source, folder, target, hub_options))
    elif decoder is not False:
        model.attach_decoder(decoder)
    return model


def torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Returns the dtype meant by a dtype, its name, or None (float32); None stands for the checkpoint's own."""
    if dtype == "auto":
        return None
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise ValueError(f"dtype={dtype!r}: use 'float32', 'bfloat16', 'float16' or 'auto'")
        return found
    return dtype or torch.float32


# ---------------------------------------------------------------------- folders


def find_decoder_slot(
    source: str | Path, folder: Path, dtype: torch.dtype | None, hub_options: dict[str, Any]
) -> DecoderSlot | None:
    """Finds the waveform decoder that came with a tokenizer.

    Args:
        source: what was asked for, a folder or Hub id.
        folder: where the tokenizer was found.
        dtype: for the decoder.
        hub_options: as they were given.

    Returns:
        Its configuration and where its weights are; None if there is none.

    Raises:
        ValueError: if its configuration is refused.
    """
    found = decoder_beside(folder)
    if found is None:
        return None
    hub = None
    snapshot = next((parent for parent in found.parents if parent.parent.name == "snapshots"), None)
    if not Path(source).is_dir() and snapshot is not None:
        names = ("cache_dir", "token", "local_files_only")
        # The commit of the configuration, whatever the branch points at when the weights are needed.
        options = {"revision": snapshot.name} | {name: hub_options[name] for name in names if name in hub_options}
        hub = HubFolder(str(source), found.relative_to(snapshot).as_posix(), options)
    return DecoderSlot.from_folder(found, hub=hub, dtype=dtype)


def find_folder(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
    **from_auto: Any,
) -> Path:
    """Finds the folder with ``config.json``: ``source`` itself, or its ``tokenizer/`` as in a release.

    Raises:
        ValueError: if there is none.
        TypeError: for an option that is not known.
    """
    for option in ("_from_auto", "trust_remote_code", "adapter_kwargs", "code_revision"):
        from_auto.pop(option, None)  # what transformers' auto classes add
    if from_auto:
        raise TypeError(f"from_pretrained() got unknown options: {', '.join(sorted(from_auto))}")
    folder = Path(source)
    if folder.is_file():
        raise ValueError(f"{source} is a file; pass the folder that holds config.json and model.safetensors")
    if not folder.is_dir():
        try:
            downloaded = snapshot_download(
                str(source),
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=["*.json", "*.safetensors", *(f"{place}decoder/config.yaml" for place in ("", "*/"))],
                ignore_patterns=[f"{place}decoder/*.safetensors" for place in ("", "*/")],  # fetched when used
            )
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ValueError(f"{source} is neither a folder here nor a checkpoint on the Hub: {error}") from error
        folder = Path(downloaded)
    folder = folder / subfolder
    for candidate in (folder, folder / "tokenizer"):
        if (candidate / "config.json").is_file():
            return candidate
    raise ValueError(
        f"{folder} holds no tokenizer: expected config.json and model.safetensors there or in its tokenizer/ folder"
    )


def read_config(folder: Path) -> UniAudioTokenizerConfig:
    """Reads ``config.json`` of the released layout or of our own.

    Raises:
        ValueError: if it is not a tokenizer's, or its values do not fit together.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}, not an object with the model's settings")
    model_type = values.pop("model_type", None)
    if model_type not in ("whisper", MODEL_TYPE):
        raise ValueError(f"{path} describes a {model_type!r} model, not a UniAudio tokenizer")
    if not values.get("quantize_vocab_size"):
        raise ValueError(
            f"{path} describes a plain Whisper model without a quantizer; "
            "start a tokenizer from it with UniAudioTokenizer.from_whisper"
        )
    if model_type == "whisper":  # keys left out of a released file have Whisper's defaults, not ours
        values = {**WhisperConfig().to_dict(), **values}
        check_preprocessor(folder, values["num_mel_bins"])
    for key in ("architectures", "torch_dtype", "dtype", "transformers_version", "model_type"):
        values.pop(key, None)
    try:
        return UniAudioTokenizerConfig(**values)
    except TypeError as error:
        raise ValueError(f"{path} holds a value of a wrong type: {error}") from error


def check_preprocessor(folder: Path, num_mel_bins: int) -> None:
    """Raises ValueError if ``preprocessor_config.json`` is there and asks for other features than Whisper's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return
    values = json.loads(path.read_text(encoding="utf-8"))
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
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} lacks weight files that {WEIGHTS_INDEX} names: {', '.join(missing)}")
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has a config.json but no model.safetensors; save the weights as safetensors")
    return files


def read_tensors(folder: Path, config: UniAudioTokenizerConfig) -> dict[str, Tensor]:
    """Reads the tensors that the model needs, under our names; names nobody knows are kept for the error message."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    ours = our_name(name)
                    if ours is not None and not is_left_out(ours, config):
                        tensors[ours] = file.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    recent = tensors.get("codebook.recent_codes")
    if recent is not None:
        tensors["codebook.recent_codes"] = recent.long()  # float32 in the released layout
    return tensors


def default_tensors(model: UniAudioTokenizer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Makes up what a checkpoint may lack: training statistics, SAE parts that are switched off, fixed positions."""
    config = model.config
    codebook = tensors.get("codebook.weight")
    defaults: dict[str, Tensor] = {
        "codebook.num_updates": torch.zeros((), dtype=torch.int64),
        "codebook.recent_codes": torch.zeros(RECENT_CODES_PER_ENTRY * config.quantize_vocab_size, dtype=torch.int64),
    }
    if config.quantize_ema_decay is not None and codebook is not None:
        defaults["codebook.ema_count"] = torch.ones(len(codebook))
        defaults["codebook.ema_weight"] = codebook.float().clone()
    # Whisper never trains these, so that small checkpoints may leave them out.
    positions = "encoder.embed_positions.weight"
    dtype = tensors["encoder.conv1.weight"].dtype if "encoder.conv1.weight" in tensors else torch.float32
    defaults[positions] = sinusoids(*model.state_dict()[positions].shape).to(dtype)
    unused = [
        part
        for part, is_used in (("sae.adapter.", config.use_residual_adapter), ("sae.gate.", config.use_residual_gate))
        if not is_used
    ]
    for name, tensor in model.state_dict().items():
        if name.startswith(tuple(unused)):
            defaults[name] = torch.zeros(tensor.shape)
    return {name: tensor for name, tensor in defaults.items() if name not in tensors}


# ---------------------------------------------------------------------- writing


def export_released(model: UniAudioTokenizer, folder: str | Path) -> None:
    """Writes the encoder-only checkpoint in the released layout: config, weights and feature extractor settings.

    Layers behind the quantizer and the final norm are left out, as in a release.
    """
    if model.config.quantizer_bypassed:
        logger.warning("the tokenizer written to %s was trained without its quantizer: its codes mean little", folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.config)
    config.quantize_encoder_only = True
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        released = released_name(name)
        if released is not None and not is_left_out(name, config):
            tensor = tensor.float() if released == "codebook_used" else tensor
            tensors[released] = tensor.detach().cpu().contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_released_config(config, folder, RELEASED_ARCHITECTURE, model.dtype)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)


def write_released_config(config: UniAudioTokenizerConfig, folder: Path, architecture: str, dtype: torch.dtype) -> None:
    """Writes ``config.json`` as the published code reads it: a Whisper configuration with further keys."""
    values = config.to_dict() | {"model_type": "whisper", "architectures": [architecture]}
    values["torch_dtype"] = str(values.pop("dtype", None) or dtype).removeprefix("torch.")
    if not values["quantizer_bypassed"]:  # a key of ours
        del values["quantizer_bypassed"]
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
