"""Folders of models: found, checked, and replaced whole.

An Audio-LLM's folder is that of its causal LM and its text tokenizer, with ``processor_config.json`` and the folder
``audio_tokenizer/`` beside them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.data.files.atomic import atomic_folder
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.card import Kind
from audiollm.tokenizer.checkpoints.folders import HUB_OPTIONS, copy_listed, find_folder, read_json_object
from audiollm.tokenizer.checkpoints.mini import MINI
from audiollm.tokenizer.checkpoints.tokenizer import (
    DECODER_FILES,
    PAPERS,
    TOKENIZER_FILES,
    TOKENIZER_FOLDER,
    copy_tokenizer_files,
    find_tokenizer,
    read_config,
)
from audiollm.tokenizer.decoder.checkpoints.files import copy_decoder_beside, holds_decoder
from audiollm.tokenizer.kinds import KINDS, UNIAUDIO_KINDS, FolderView
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.opening import find_tokenizer_folder, kind_of
from audiollm.tokenizer.sequence import OneRowTokenizer

_FILES: dict[Kind, tuple[str, ...]] = {
    "audio_llm": (*TOKENIZER_FILES, "processor_config.json", "chat_template.jinja"),
    "adapter": ("adapter_config.json", "adapter_model.safetensors", *PAPERS),
    "decoder": DECODER_FILES,
    "flow": ("config.json", "flow.safetensors", *PAPERS),
    "vocoder": ("config.json", "vocoder.safetensors", *PAPERS),
    "latent_diffusion": TOKENIZER_FILES,
}
"""What belongs to a model, and goes with it: names of files at its top."""
LATENT_DIFFUSION = "audiollm_latent_diffusion"
"""``model_type`` of a diffusion model, which has its text tokenizer and audio tokenizer in folders of its own."""
TEXT_TOKENIZER_FOLDER, AUDIO_TOKENIZER_FOLDER = "text_tokenizer", "audio_tokenizer"
_TEXT_TOKENIZER_FILES = (*TOKENIZER_FILES, "vocab.txt", "*.model", "chat_template.jinja")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def check_folder(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuses a local folder that is no Audio-LLM, naming everything that is missing; Hub ids are left to the Hub."""
    folder = Path(path_or_hub_id)
    if not folder.is_dir():
        _refuse_path(path_or_hub_id)
        return
    missing = [
        name for name in ("config.json", "tokenizer.json", "processor_config.json") if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        missing.append(WEIGHT_FILES[0])
    codec_path = None
    if (folder / "processor_config.json").is_file():
        path = folder / "processor_config.json"
        codec_path = read_json_object(path).get("codec_path")
        check_codec_path(path, codec_path)
    if codec_path is not None and not (folder / codec_path).is_dir():
        missing.append(f"{codec_path}/")
    if not missing:
        return
    hint = "make an Audio-LLM of a text LLM with AudioLLM.create() or `audiollm extend`"
    if (folder / "adapter_config.json").is_file():
        hint = "it holds a LoRA adapter: load the model that the adapter was merged into"
    elif {"processor_config.json", "tokenizer.json"} <= set(missing) and "config.json" not in missing:
        hint = "is it an audio tokenizer or a bare model? " + hint
    raise ValueError(f"{folder} is no Audio-LLM folder, it has no {', '.join(missing)}: {hint}")


def check_text_llm(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuses what cannot be extended: an Audio-LLM, which is trained as it is, or an audio tokenizer.

    Raises:
        ValueError: naming what it is, and what to do with it. Hub ids are left to the Hub.
    """
    name, folder = os.fspath(path_or_hub_id), Path(path_or_hub_id)
    wanted = "what is extended is a text LLM, such as Qwen/Qwen2.5-0.5B-Instruct"
    trained = next((found for found in (folder, folder / "model") if (found / "processor_config.json").is_file()), None)
    if name == MINI or (trained is not None and "codec_path" in read_json_object(trained / "processor_config.json")):
        raise ValueError(
            f"{name} is an Audio-LLM already: train it as it is (audiollm train --model {name}, without another "
            f"audio tokenizer); {wanted}"
        )
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(f"{name} holds an adapter alone: name the model that it was merged into; {wanted}")
    for place in (folder, folder / TOKENIZER_FOLDER):
        has_codebook = (place / "config.json").is_file() and read_json_object(place / "config.json").get(
            "quantize_vocab_size"
        )
        if has_codebook or (place.is_dir() and _is_of_another_kind(place)):
            raise ValueError(f"{name} is an audio tokenizer: name it with --audio-tokenizer; {wanted}")


def _is_of_another_kind(folder: Path) -> bool:
    """Whether a folder holds an audio tokenizer of another kind than UniAudio-Token."""
    view = FolderView(folder)
    return any(kind.matches(view) for kind in KINDS if kind.name not in UNIAUDIO_KINDS)


def _refuse_path(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuses a name that is no folder and cannot be a Hub id."""
    folder = Path(path_or_hub_id)
    looks_like_path = folder.is_absolute() or os.fspath(path_or_hub_id).startswith((".", "~")) or folder.exists()
    if looks_like_path or len(folder.parts) > 2:
        raise ValueError(f"{folder} is no folder: give an Audio-LLM folder or a Hub id such as owner/name")


def check_processor_folder(path_or_hub_id: str | os.PathLike[str], subfolder: str = "") -> None:
    """Refuses a local folder that holds no text tokenizer, and so no processor; Hub ids are left to the Hub."""
    folder = Path(path_or_hub_id)
    if not folder.is_dir():
        _refuse_path(path_or_hub_id)
    elif not any((folder / subfolder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise ValueError(f"{folder} holds no processor, it has no tokenizer.json: give an Audio-LLM folder")


def check_codec_path(path: Path, codec_path: object) -> None:
    """Refuses a place of the audio tokenizer that leads out of the folder: what lies there would be read and copied.

    Args:
        path: the ``processor_config.json`` that names it.
        codec_path: what it says; None is none.

    Raises:
        ValueError: naming file and key.
    """
    if codec_path is None:
        return
    if not isinstance(codec_path, str) or not codec_path:
        raise ValueError(f"{path}: codec_path={codec_path!r}: use the name of a folder beside it, or null")
    place = path.parent / codec_path
    if Path(codec_path).is_absolute() or not place.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(
            f"{path}: codec_path={codec_path!r} leads out of the model's folder: copy the audio tokenizer into it, or "
            "pass codec_path= yourself"
        )


@dataclass(frozen=True)
class Origin:
    """Where a processor was loaded from: a folder, or a Hub id with the arguments that reached it."""

    name: str
    hub: dict[str, Any]

    @classmethod
    def from_arguments(cls, path_or_hub_id: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Origin:
        """Keeps what transformers' ``from_pretrained`` was called with, as far as it concerns the Hub."""
        hub = {key: arguments[key] for key in HUB_OPTIONS if arguments.get(key) is not None}
        return cls(os.fspath(path_or_hub_id), hub)

    def subfolder(self, name: str) -> Path | None:
        """The folder inside it, downloaded if need be; None if there is none.

        Raises:
            ValueError: if it is neither here nor on the Hub.
        """
        folder = find_folder(self.name, needed=[f"{name}/*"], **self.hub) / name
        return folder if folder.is_dir() else None


def layout_in(path_or_hub_id: str | Path) -> CodeLayout | None:
    """The layout in which an Audio-LLM has codes of several codebooks; None for anything else.

    Args:
        path_or_hub_id: what `AudioTokenizer.from_pretrained` takes: an Audio-LLM or the run that trained it, or a
            tokenizer, also that of an Audio-LLM, which alone has no layout.

    Raises:
        ValueError: if there is no such folder, or what it says of the layout cannot be.
    """
    stated = _stated_beside_tokenizer(path_or_hub_id, "code_layout")
    return None if stated is None else CodeLayout.from_dict(stated)


def codes_known_in(path_or_hub_id: str | Path) -> str | None:
    """Fingerprint of the audio tokenizer whose codes an Audio-LLM knows; None if it is not known, or for anything else.

    Args:
        path_or_hub_id: as for `layout_in`.

    Raises:
        ValueError: if there is no such folder.
    """
    return _stated_beside_tokenizer(path_or_hub_id, "codec_fingerprint")


def _stated_beside_tokenizer(path_or_hub_id: str | Path, key: str) -> Any:
    """What an Audio-LLM says of its audio tokenizer."""
    found = find_tokenizer_folder(path_or_hub_id)
    settings = found.parent / "processor_config.json"
    if found == Path(path_or_hub_id) or not settings.is_file():
        return None
    return read_json_object(settings).get(key)


def copy_audio_tokenizer(source: Path, target: Path) -> None:
    """Copies the files: the object in memory may have been loaded without the layers that ids do not need.

    The waveform decoder comes along, also from beside a release's ``tokenizer/``.

    Raises:
        ValueError: if there is no audio tokenizer, or files of two kinds, or a link that leads out of the folder.
    """
    if target.exists() and source.resolve() == target.resolve():
        return
    with atomic_folder(target) as new:
        _copy_own_files(source, new)


def _copy_own_files(source: Path, target: Path) -> None:
    """Copies what belongs to an audio tokenizer of its kind, by name."""
    kind = kind_of(find_tokenizer_folder(source))
    copy_tokenizer_files(source, target, TOKENIZER_FILES if kind.name in UNIAUDIO_KINDS else kind.all_files)
    copy_decoder_beside(source, target)


def trained_model(folder: str | os.PathLike[str]) -> Path:
    """The model's folder: this one, or the one that a training run has left in it.

    Raises:
        ValueError: if there is no such folder, or a run has not left its model yet.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: give a model's folder, or that of the run that trained it")
    if (path / "model").is_dir():
        return path / "model"
    if (path / "checkpoints").is_dir():
        raise ValueError(f"{path} is a training run that has not left its model yet: let it end first")
    return path


def copy_model(source: Path, target: Path) -> Kind:
    """Copies a model's files, by their names, and nothing else: no checkpoints, no links, no other files.

    Args:
        source: the folder of an Audio-LLM, an adapter, an audio tokenizer, a diffusion model, a waveform decoder, or a
            part of one.
        target: an empty folder.

    Returns:
        What it is.

    Raises:
        ValueError: if it is none of them, or something is missing, or a file is a link that leads out of the folder.
    """
    kind = _kind_of(source)
    if kind == "audio_tokenizer":
        _copy_own_files(source, target)
        return kind
    copy_listed(source, target, _FILES[kind])
    if kind == "latent_diffusion":
        (target / TEXT_TOKENIZER_FOLDER).mkdir()
        copy_listed(source / TEXT_TOKENIZER_FOLDER, target / TEXT_TOKENIZER_FOLDER, _TEXT_TOKENIZER_FILES)
        copy_audio_tokenizer(source / AUDIO_TOKENIZER_FOLDER, target / AUDIO_TOKENIZER_FOLDER)
    if kind == "audio_llm":
        check_folder(source)
        codec_path = read_json_object(source / "processor_config.json").get("codec_path")
        if codec_path is not None:
            copy_audio_tokenizer(source / codec_path, target / codec_path)
    return kind


def _kind_of(folder: Path) -> Kind:
    """What a folder holds, by its files."""
    if (folder / "processor_config.json").is_file():
        return "audio_llm"
    config = folder / "config.json"
    if config.is_file() and read_json_object(config).get("model_type") == LATENT_DIFFUSION:
        return "latent_diffusion"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if _is_of_another_kind(find_tokenizer_folder(folder)):
        return "audio_tokenizer"
    if holds_decoder(folder):
        return "decoder"
    parts: tuple[Kind, ...] = ("flow", "vocoder")
    for part in parts:
        if (folder / f"{part}.safetensors").is_file():
            return part
    read_config(find_tokenizer(folder))  # refuses what is no tokenizer either
    return "audio_tokenizer"


def save_audio_tokenizer(audio_tokenizer: AudioTokenizer, target: Path) -> None:
    """Writes an audio tokenizer that is in memory.

    Raises:
        ValueError: if it is of a kind that cannot be saved.
    """
    saved: Any = audio_tokenizer.inner if isinstance(audio_tokenizer, OneRowTokenizer) else audio_tokenizer
    if not hasattr(saved, "save_pretrained"):
        raise ValueError(
            f"{type(saved).__name__} cannot be saved (it has no save_pretrained()): give the processor codec_path= "
            "instead"
        )
    with atomic_folder(target) as new:
        saved.save_pretrained(new)
