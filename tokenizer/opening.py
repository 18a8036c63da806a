"""From a folder or Hub id to the audio tokenizer that lies there, of whatever kind its own files say it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints.folders import HUB_OPTIONS, find_folder
from .checkpoints.mini import AUDIO_TOKENIZER_FOLDER, MINI, mini_folder
from .kinds import CONFIG, KINDS, PARTS, UNIAUDIO_KINDS, FolderView, TokenizerKind

if TYPE_CHECKING:
    import torch

TOKENIZER_FOLDER = "tokenizer"
"""Where a release keeps its tokenizer, beside its ``decoder/``."""
_OF_OTHER_MODELS = ("llm*.pt", "flow*.pt", "hift*.pt", "campplus.onnx", "CosyVoice-BlankEN/*", "llm_*.checkpoint")
"""What lies beside a tokenizer on the Hub, gigabytes in all: other parts of CosyVoice2 or UniAudio 2.0."""
_LATER = tuple(f"{place}decoder/*{ending}" for place in ("", "*/") for ending in (".safetensors", ".pt"))
"""Weights of a waveform decoder, which are fetched when it is first used."""
_NEEDED = ("*.json", "*.safetensors", "*.yaml", "*.yml", "*.ckpt", "*.pt", "*.pth", "*.checkpoint", "*.onnx")


def open_tokenizer(
    path_or_hub_id: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    encoder_only: bool = False,
    fingerprint: str | None = None,
    **options: Any,
) -> Any:
    """Loads the audio tokenizer that a folder holds.

    Args:
        path_or_hub_id: a folder (a tokenizer's own, its release's or its Audio-LLM's), a Hub id, or "mini".
        dtype: of the weights; float32 if None.
        device: where to put the model; the CPU if None.
        encoder_only: leave out what only decoding needs.
        fingerprint: of the audio tokenizer that is meant; another one is refused.
        options: of the kind, ``subfolder``, and ``revision``, ``cache_dir``, ``token`` … as in huggingface_hub.

    Returns:
        An `audiollm.tokenizer.base.AudioTokenizer`.

    Raises:
        ValueError: if there is no tokenizer, or there are files of two kinds, or half a checkpoint, or it is another
            one than meant.
        TypeError: for an option that neither its kind nor the Hub knows.
    """
    hub_options = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    subfolder = options.get("subfolder") or ""
    folder = find_tokenizer_folder(path_or_hub_id, hub_options, subfolder=subfolder)
    kind = kind_of(folder)
    module, _, name = kind.class_path.partition(":")
    tokenizer_class = getattr(importlib.import_module(module), name)
    source = path_or_hub_id
    if kind.name not in UNIAUDIO_KINDS:  # whose decoder may lie beside the tokenizer's folder
        source = folder
        options.pop("subfolder", None)
    return tokenizer_class.from_pretrained(
        source, dtype=dtype, device=device, encoder_only=encoder_only, fingerprint=fingerprint, **options
    )


def find_tokenizer_folder(
    path_or_hub_id: str | Path, hub_options: dict[str, Any] | None = None, *, subfolder: str = ""
) -> Path:
    """Finds the folder that holds a tokenizer's own files: the one that is named, or in it, as in an Audio-LLM.

    Args:
        path_or_hub_id: a folder or Hub id, or "mini".
        hub_options: as in huggingface_hub.
        subfolder: of it.

    Raises:
        ValueError: if there is no such folder.
    """
    source = mini_folder() if path_or_hub_id == MINI else path_or_hub_id
    folder = find_folder(
        source, needed=_NEEDED, passed_over=(*_OF_OTHER_MODELS, *_LATER), kind="tokenizer", **(hub_options or {})
    )
    folder = folder / subfolder
    if (folder / "run.json").is_file():  # of a training: what came out of it
        folder = folder / "model"
    # An Audio-LLM has a config.json of its own, so what lies in it comes first.
    for candidate in (folder / AUDIO_TOKENIZER_FOLDER, folder / TOKENIZER_FOLDER):
        if candidate.is_dir() and any(kind.matches(FolderView(candidate)) for kind in KINDS):
            return candidate
    return folder


def keeps_decoder(path_or_hub_id: str | Path) -> bool:
    """Whether ``encoder_only`` leaves a tokenizer of this kind able to decode, as it drops other layers alone.

    Raises:
        ValueError: if there is no tokenizer.
    """
    return kind_of(find_tokenizer_folder(path_or_hub_id)).name in UNIAUDIO_KINDS


def kind_of(folder: Path) -> TokenizerKind:
    """Tells the kind of tokenizer that a folder holds, by its files alone.

    Raises:
        ValueError: naming the part that lies there alone, or what was looked for where nothing fits, and all kinds
            that fit where several do.
    """
    view = FolderView(folder)
    found = [kind for kind in KINDS if kind.matches(view)]
    if len(found) == 1:
        return found[0]
    if found:
        some = "; ".join(f"{kind.title}: {kind.looks_for}" for kind in found)
        raise ValueError(f"{folder} holds files of {len(found)} kinds of tokenizers ({some}): give each its own folder")
    model_type = view.config.get("model_type")
    if model_type in PARTS:
        raise ValueError(f"{folder} holds no audio tokenizer, but {PARTS[model_type]}")
    own = "" if model_type is None else f"{CONFIG} there describes a {model_type!r} model. "
    looked = "; ".join(f"{kind.title}: {kind.looks_for}" for kind in KINDS)
    raise ValueError(f"{folder} holds no audio tokenizer. {own}Looked for: {looked}")
