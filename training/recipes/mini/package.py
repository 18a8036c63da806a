"""The finished model `mini` as a folder small enough to ship: float16 weights, and nothing that loading can make up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import audiollm
from audiollm.data.files.atomic import atomic_entries, atomic_folder
from audiollm.mini import AUDIO_TOKENIZER_FOLDER
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.checkpoints.tensors import check_finite, read_safetensors
from audiollm.tokenizer.decoder.model import WaveformDecoder

BYTE_BUDGET = 60_000_000
# Training statistics of the codebook, and positions that Whisper never trains: loading makes them up.
LEFT_OUT = ("ema_count", "ema_weight", "codebook_used", "embed_positions.weight")
LLM_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "processor_config.json",
)
WEIGHTS = "model.safetensors"
LICENCE_NOTE = (
    "offered under CC-BY-SA-3.0: trained on recordings of which some are under that licence (the model card names them "
    "all); the encoder starts from OpenAI Whisper (MIT licence)"
)


def shrink_weights(folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Rewrites ``model.safetensors`` of a folder in float16, without some tensors; what computes with it is float32.

    Args:
        folder: of a model.
        left_out: names of tensors to drop.

    Raises:
        ValueError: if the file is damaged, or a tensor holds NaN, infinity, or numbers that float16 has no place for.
    """
    path = folder / WEIGHTS
    tensors = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for name, tensor in read_safetensors(path).items()
        if name not in left_out
    }
    check_finite(tensors, path)
    with atomic_entries(folder) as staging:
        save_file(tensors, staging / WEIGHTS, metadata={"format": "pt"})


def shrink_tokenizer(folder: Path) -> None:
    """Shrinks an exported audio tokenizer; codes are to be made with what is left, as rounding changes a few.

    Args:
        folder: in the released layout, as ``export_tokenizer`` writes it.
    """
    shrink_weights(folder, LEFT_OUT)


def make_package(model: Path, audio_tokenizer: Path, package: Path) -> int:
    """Writes the folder that ships: the Audio-LLM, its processor, the audio tokenizer and the waveform decoder.

    Args:
        model: the trained Audio-LLM.
        audio_tokenizer: the shrunken audio tokenizer, with its decoder inside.
        package: folder to write; replaced if it exists.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: if it is larger than `BYTE_BUDGET`, or does not load whole; nothing is written then.
    """
    with atomic_folder(package) as folder:
        for name in (*LLM_FILES, WEIGHTS):
            shutil.copy(model / name, folder / name)
        shrink_weights(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            _compact_json(folder / name)
        # Loading obeys this: CPUs compute slowly in float16, which is only how the weights are stored.
        set_value(folder / "config.json", "dtype", "float32")
        # The package has a card of its own; those of the parts know neither data nor licence.
        without_cards = shutil.ignore_patterns("README.md")
        shutil.copytree(audio_tokenizer, folder / AUDIO_TOKENIZER_FOLDER, ignore=without_cards)
        set_value(folder / AUDIO_TOKENIZER_FOLDER / "config.json", "licence_note", LICENCE_NOTE)
        shrink_weights(folder / AUDIO_TOKENIZER_FOLDER / "decoder")
        size = folder_size(folder)
        if size > BYTE_BUDGET:
            raise ValueError(f"the package takes {size:,} bytes, more than {BYTE_BUDGET:,}:\n{_largest(folder)}")
        # What ships is whole: loading names a weight that is missing, unknown, misshapen or no number.
        AudioLLM.from_pretrained(folder)
        WaveformDecoder.from_pretrained(folder / AUDIO_TOKENIZER_FOLDER)
    return size


def install_package(package: Path) -> Path:
    """Makes a package the project's embedded model; returns where it lies.

    Raises:
        ValueError: if it is too large with its card.
    """
    size = folder_size(package)
    if size > BYTE_BUDGET:
        raise ValueError(f"{package} takes {size:,} bytes, more than {BYTE_BUDGET:,}:\n{_largest(package)}")
    target = Path(audiollm.__file__).resolve().parent / "embedded" / "mini"
    with atomic_folder(target) as folder:
        shutil.copytree(package, folder, dirs_exist_ok=True)
    return target


def install_samples(samples: Path) -> Path:
    """Makes a page of samples that of the project's documentation; returns where it lies.

    Raises:
        ValueError: if audiollm is installed without its documentation.
    """
    documentation = Path(audiollm.__file__).resolve().parents[1] / "docs"
    if not documentation.is_dir():
        raise ValueError(f"{documentation} is not there: samples are installed in a checkout of the project only")
    target = documentation / "mini_samples"
    with atomic_folder(target) as folder:
        shutil.copytree(samples, folder, dirs_exist_ok=True)
    return target


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _compact_json(path: Path) -> None:
    """Without blanks, which are a third of a text tokenizer with 8,192 codes."""
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def set_value(path: Path, key: str, value: object) -> None:
    """Rewrites a JSON file with another value for a key."""
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | {key: value}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _largest(folder: Path) -> str:
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    return "\n".join(f"{path.stat().st_size:>12,}  {path.relative_to(folder)}" for path in files[:8])
