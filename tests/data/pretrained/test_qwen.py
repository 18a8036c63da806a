"""The text tokenizer of Qwen2.5: ranks become the merges that they came from."""

from __future__ import annotations

import base64
import json
import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from audiollm.data.pretrained import qwen
from audiollm.data.pretrained.qwen import merges_from_ranks, qwen_tokenizer, qwen_tokenizer_from_package, read_ranks

TEXTS = [
    "the cat sat on the mat",
    "thé à la menthe",
    "Кошка сидит",
    "don't stop 123",
    "猫は座る",
    "hat that then there",
]


@pytest.fixture(scope="module")
def trained() -> tuple[dict[bytes, int], list[tuple[bytes, bytes]]]:
    """Ranks and merges of a byte-pair tokenizer trained here: the merges are what must be found again."""
    letters = qwen._byte_letters()
    bytes_of = {letter: bytes([byte]) for byte, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)

    def raw(text: str) -> bytes:
        return b"".join(bytes_of[letter] for letter in text)

    state = json.loads(tokenizer.to_str())["model"]
    return {raw(token): rank for token, rank in state["vocab"].items()}, [
        (raw(left), raw(right)) for left, right in state["merges"]
    ]


def test_merges_are_found_again(trained):
    ranks, merges = trained
    assert len(merges) > 60
    assert merges_from_ranks(ranks) == merges


def test_a_rank_that_no_merge_makes_is_refused(trained):
    ranks, _ = trained
    with pytest.raises(ValueError, match=r"b'zqx' of rank \d+ is no merge"):
        merges_from_ranks({**ranks, b"zqx": len(ranks)})


def greedy(text: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding by its definition: join the lowest-ranked neighbours until none can be joined."""
    pieces = [bytes([byte]) for byte in text]
    while True:
        joins = {index: ranks[pieces[index] + pieces[index + 1]] for index in range(len(pieces) - 1)
                 if pieces[index] + pieces[index + 1] in ranks}  # fmt: skip
        if not joins:
            return [ranks[piece] for piece in pieces]
        index = min(joins, key=lambda item: (joins[item], item))
        pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]


def test_words_get_the_ids_of_the_definition(trained):
    ranks, _ = trained
    text_tokenizer = qwen_tokenizer(ranks)
    for text in [*TEXTS, "thethethe", "…", "🎵"]:
        words = [word for word, _ in text_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        letters = qwen._byte_letters()
        expected = [token for word in words for token in greedy(bytes(letters.index(letter) for letter in word), ranks)]
        assert text_tokenizer.encode(text).ids == expected
        assert text_tokenizer.decode(expected) == text


def test_special_tokens_follow_the_ranks_and_plain_ones_survive_decoding(trained):
    ranks, _ = trained
    text_tokenizer = qwen_tokenizer(ranks)
    assert text_tokenizer.token_to_id("<|endoftext|>") == len(ranks)
    assert text_tokenizer.token_to_id("<|im_start|>") == len(ranks) + 1
    assert text_tokenizer.get_vocab_size() == len(ranks) + 22
    token_ids = text_tokenizer.encode("<|im_start|>the<tool_call><|im_end|>").ids
    assert text_tokenizer.decode(token_ids) == "the<tool_call>"
    assert text_tokenizer.decode(token_ids, skip_special_tokens=False) == "<|im_start|>the<tool_call><|im_end|>"


def test_text_is_normalised_to_nfc(trained):
    text_tokenizer = qwen_tokenizer(trained[0])
    assert text_tokenizer.encode("the\u0301").ids == text_tokenizer.encode("th\u00e9").ids


def test_ranks_are_read_and_damage_is_named(tmp_path, trained):
    ranks, _ = trained
    lines = [base64.b64encode(token) + f" {rank}".encode() for token, rank in ranks.items()]
    random.Random(0).shuffle(lines)
    path = tmp_path / "toy.tiktoken"
    path.write_bytes(b"\n".join(lines) + b"\n\n")
    assert read_ranks(path) == ranks
    path.write_bytes(b"\n".join([*lines[:3], b"!!! 7"]))
    with pytest.raises(ValueError, match=r"toy\.tiktoken:4: b'!!! 7'"):
        read_ranks(path)
    path.write_bytes(b"YQ== 0\nYg== 0\n")
    with pytest.raises(ValueError, match=r"the 2 ranks are not 0 … 1"):
        read_ranks(path)


@pytest.mark.slow
def test_the_real_qwen_tokenizer(from_package):
    text_tokenizer = AutoTokenizer.from_pretrained(from_package(qwen_tokenizer_from_package))
    assert len(text_tokenizer) == 151665
    named = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<tool_call>": 151657,
             "<|file_sep|>": 151664}  # fmt: skip
    assert {token: text_tokenizer.convert_tokens_to_ids(token) for token in named} == named
    assert (text_tokenizer.eos_token_id, text_tokenizer.pad_token_id) == (151645, 151643)
    assert text_tokenizer("Hello world").input_ids == [9707, 1879]  # as published for Qwen2 and Qwen2.5
    assert text_tokenizer("你好").input_ids == [108386]
    for text in ("Grüße, 12 345!\n\n\tif x:", "Ω≈ç√ 🎵", " leading", "don't"):
        assert text_tokenizer.decode(text_tokenizer(text).input_ids) == text
