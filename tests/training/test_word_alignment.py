"""Words are found in codes that no label tells of, and nothing of a sentence is lost in between."""

from __future__ import annotations

import random

import pytest

from audiollm.generation.turns import turns_of
from audiollm.training.recipes.mini.alignment import SpokenCodes, WordAligner, turns

CODES_OF_A_LETTER, CODEBOOK_SIZE = 4, 128
SAID = "a kettle is on the stove and sings of hills fog rain milk jam queen zebra vow box why plum card"
WORDS = SAID.split()


def spoken(text: str, source: random.Random) -> tuple[SpokenCodes, list[int]]:
    """Every letter is one of its own codes for a few frames; pauses stand in front, behind and between some words."""
    codes, words = [], []

    def say(letter: int, word: int, frames: int) -> None:
        codes.extend(letter * CODES_OF_A_LETTER + source.randrange(CODES_OF_A_LETTER) for _ in range(frames))
        words.extend([word] * frames)

    say(0, -1, source.randrange(1, 5))
    for number, word in enumerate(text.split()):
        for letter in word.lower():
            say(1 + ord(letter) - ord("a"), number, source.randrange(1, 4))
        say(0, -1, source.randrange(3))
    return SpokenCodes(text, codes), words


@pytest.fixture(scope="module")
def corpus() -> list[tuple[SpokenCodes, list[int]]]:
    source = random.Random(0)
    return [spoken(" ".join(source.sample(WORDS, source.randrange(2, 7))), source) for _ in range(400)]


@pytest.fixture(scope="module")
def aligner(corpus) -> WordAligner:
    return WordAligner([one for one, _ in corpus], CODEBOOK_SIZE)


def test_words_are_found_without_labels(corpus, aligner):
    found = aligner.words([one for one, _ in corpus])
    pairs = [pair for words, (_, true) in zip(found, corpus, strict=True) for pair in zip(words, true, strict=True)]
    assert sum(found == true for found, true in pairs) / len(pairs) > 0.95


def test_sentences_that_it_did_not_learn_from_are_aligned_alike(aligner):
    source = random.Random(1)
    new = [spoken(" ".join(source.sample(WORDS, 5)), source) for _ in range(20)]
    found = aligner.words([one for one, _ in new])
    pairs = [pair for words, (_, true) in zip(found, new, strict=True) for pair in zip(words, true, strict=True)]
    assert sum(found == true for found, true in pairs) / len(pairs) > 0.95


def test_a_batch_is_aligned_as_each_sentence_alone(corpus, aligner):
    sentences = [one for one, _ in corpus[:7]]
    assert aligner.words(sentences) == [aligner.words([one])[0] for one in sentences]
    assert aligner.words([]) == []


def test_turns_are_the_whole_sentence(corpus, aligner):
    for (one, _), words in zip(corpus, aligner.words([one for one, _ in corpus]), strict=True):
        found = turns(one, words)
        assert "".join(text for text, _ in found) == one.text
        assert [code for _, codes in found for code in codes] == one.codes
        assert all(codes for _, codes in found)


@pytest.mark.parametrize("codes", [[], [1], [1, 2]], ids=len)
def test_a_sentence_too_short_for_its_text_is_not_aligned(aligner, codes):
    assert aligner.words([SpokenCodes("the zebra sings", codes), SpokenCodes("a", [1, 2, 3])])[0] is None


def test_what_is_aligned_can_be_reached_in_steps(aligner):
    # From the first letter on, each code gets four letters further.
    for num_codes in (1, 2, 5):
        sentences = [SpokenCodes("a" * length, [1] * num_codes) for length in range(1, 4 * num_codes + 2)]
        lengths = [len(one.text) for one, found in zip(sentences, aligner.words(sentences), strict=True) if found]
        assert lengths == list(range(1, 1 + 4 * (num_codes - 1) + 1))


def test_a_text_without_letters_is_not_aligned_and_an_unknown_letter_is_passed_over(aligner):
    assert aligner.words([SpokenCodes("– …", [1, 2, 3])]) == [[-1, -1, -1]]
    (found,) = aligner.words([SpokenCodes("é a", [1, 2, 3, 4])])
    assert set(found) <= {-1, 1}


def test_a_text_is_taught_in_the_turns_in_which_it_is_asked_for():
    """Where all words are heard, nothing else decides what is written together."""
    source, words = random.Random(0), ["a", "kettle's", "–", "...", "'", "é", "12", "5%", "²", "日本", "_"]
    aligner = WordAligner([SpokenCodes(" ".join(words), [1] * 60)], CODEBOOK_SIZE)
    for _ in range(200):
        text = " ".join(source.choices(words, k=source.randrange(1, 7)))
        said = sorted({word for word in aligner._states(text)[1] if word >= 0}) or [-1]
        assert [written for written, _ in turns(SpokenCodes(text, said), said)] == turns_of(text)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a b", [-1, 0, -1, 1, -1], [("a", [0, 1, 2]), (" b", [3, 4])]),
        ("a b", [0, 0, 1], [("a", [0, 1]), (" b", [2])]),
        ("a  b c", [-1, 1, 2], [("a b", [0, 1]), (" c", [2])]),
        ("a b c", [0, 0, -1, 2], [("a", [0, 1, 2]), (" b c", [3])]),
        ("a b c", [0, 1, -1], [("a", [0]), (" b c", [1, 2])]),
        ("a b", [-1, -1], [("a b", [0, 1])]),
        ("a", [], []),
    ],
)
def test_pauses_and_words_without_codes_have_their_place(text, words, expected):
    assert turns(SpokenCodes(text, list(range(len(words)))), words) == expected


def test_codes_of_another_codebook_are_refused():
    with pytest.raises(ValueError, match="code 64 is none of 64"):
        WordAligner([SpokenCodes("a", [1, 64])], 64)
