"""The held-out sentences cover what is asked of speech, and nothing that is trained on says what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from audiollm.data.corpora.clips import CorpusError
from audiollm.data.corpora.sources.open_sentences import open_sentences
from audiollm.data.corpora.sources.sentences import grammar_sentences
from audiollm.data.corpora.sources.synthetic import flite_program
from audiollm.data.packages import PackageError
from audiollm.training.recipes.mini.held_out import held_out_sentences, is_held_out, ngrams_of, words_of

NUM_SENTENCES = 20_000
# Those of English in the synthesizer's dictionary; its "ah" and "ax" are one.
PHONES = frozenset(
    re.findall(
        r"\w+",
        "aa ae ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh",
    )
)
NUMBER = re.compile(r"\b(one|two|three|four|five|six|seven|eight|nine|ten|forty|hundred|second|twice|half)\b", re.I)
# Written for the list and in no word list of the grammars.
NAMES = ("Guernsey", "Joshua", "Mathilda", "Chaudhury", "Leicester", "Hugo", "Roger", "Beaumont", "Heidi", "Eugene")


def independent_words(text: str) -> list[str]:
    """Words, by other means than the filter's."""
    return re.findall(r"[a-z0-9']+", text.replace("-", "").lower())


def test_there_are_sixty_different_sentences_of_all_lengths():
    sentences = held_out_sentences()
    assert len(sentences) == len({words_of(text) for text in sentences}) == 60
    for text in sentences:
        assert re.fullmatch(r"[A-Z][A-Za-z', ]*[.!?]", text), text
    lengths = {len(text.split()) for text in sentences}
    assert min(lengths) == 2
    assert max(lengths) >= 12


def test_they_have_numbers_names_questions_and_every_letter():
    sentences = held_out_sentences()
    assert sum(bool(NUMBER.search(text)) for text in sentences) >= 10
    assert all(any(name in text for text in sentences) for name in NAMES)
    assert sum(text.endswith("?") for text in sentences) >= 10
    assert set("abcdefghijklmnopqrstuvwxyz") <= set("".join(sentences).lower())
    assert len({word for text in sentences for word in independent_words(text)}) > 300


@pytest.mark.slow
def test_they_have_every_phone():
    try:
        program = flite_program()
    except (PackageError, CorpusError) as error:
        pytest.skip(f"Flite cannot be had here: {error}")
    command = [str(program), "-ps", "-o", "/dev/null", "-t", " ".join(held_out_sentences())]
    environment = {"LD_LIBRARY_PATH": str(Path(program).parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert set(result.stdout.replace("ah", "ax").split()) >= PHONES


def test_no_drawn_sentence_says_what_they_say_and_few_are_dropped():
    dropped = []

    def leave_out(text: str) -> bool:
        dropped.append(is_held_out(text))
        return dropped[-1]

    kept = [sentence.text for sentence in open_sentences(NUM_SENTENCES, examples=(), leave_out=leave_out)]
    assert 0 < sum(dropped) < 0.03 * NUM_SENTENCES
    forbidden, whole = set(), {" ".join(independent_words(text)) for text in held_out_sentences()}
    for text in whole:
        forbidden |= four_in_a_row(text)
    for text in kept:
        words = " ".join(independent_words(text))
        assert words not in whole
        assert forbidden.isdisjoint(four_in_a_row(words)), text


def four_in_a_row(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[start : start + 4]) for start in range(len(words) - 3)}


def test_few_sentences_of_the_small_grammar_are_dropped():
    sentences = grammar_sentences(2000)
    assert sum(map(is_held_out, sentences)) < 0.03 * len(sentences)


@pytest.mark.parametrize(
    ("text", "is_out"),
    [
        ("Nobody heard the doorbell.", True),
        ("NOBODY heard the doorbell", True),
        ("nobody, heard; the - doorbell", True),
        ("Thank goodness.", True),  # too short for four words, but a sentence of them
        ("Thank goodness that you are here.", False),
        ("She owes me nine-pounds.", True),
        ("The owl saw three foxes playing behind the hut.", True),
        ("The owl saw three foxes.", False),
        ("An old oak fell down.", True),
        ("", False),
    ],
)
def test_the_filter_compares_as_the_scorer_does(text, is_out):
    assert is_held_out(text) == is_out


def test_all_four_words_in_a_row_are_looked_at():
    words = words_of("One two three four five six.")
    assert len(ngrams_of(words)) == 3
    assert ngrams_of(words[:3]) == set()
