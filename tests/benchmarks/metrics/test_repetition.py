"""Loops of a recognizer, told from speech that repeats itself; and what they may cost a mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.benchmarks.metrics.repetition import MIN_CHARACTERS, MIN_REPEATS, is_looped, longest_repetition
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair, score_pairs
from audiollm.benchmarks.speech.words import word_figures

SENTENCE = "the cat sat on the mat"


@given(
    before=st.text(max_size=20),
    piece=st.text(alphabet="abcdefgh 跳舞唱歌", min_size=1, max_size=40).filter(lambda text: not text.isspace()),
    num_repeats=st.integers(MIN_REPEATS + 1, 60),
    after=st.text(max_size=20),
)
def test_a_piece_that_follows_itself_is_found_wherever_it_stands(before, piece, num_repeats, after):
    looped = f"{before} {' '.join([piece] * num_repeats)} {after}"
    size = sum(map(str.isalnum, piece)) * num_repeats
    assert longest_repetition(looped).num_characters >= size
    assert is_looped(looped, SENTENCE) or size < MIN_CHARACTERS
    assert not is_looped(looped, looped)


@pytest.mark.parametrize(
    "text",
    ["", "no, no, no, no", "ha ha ha ha ha ha", SENTENCE, f"{SENTENCE}. {SENTENCE}.", "one two three " * 2,
     "aaaaah", "今天天气很好，我们去公园吧。", "tick tock tick tock tick"],
)  # fmt: skip
def test_speech_is_no_loop(text):
    assert not is_looped(text, SENTENCE)


LONG = "Number %d of these sentences is unlike the others, as it says a thing of its own. "


@pytest.mark.parametrize("num_sentences", [1, 2, 3, 5])
@pytest.mark.parametrize("num_repeats", [3, 4, 9])
@pytest.mark.parametrize("cut", [0, 7])
def test_sentences_that_come_again_and_again_are_a_loop(num_sentences, num_repeats, cut):
    piece = "".join(LONG % number for number in range(num_sentences))
    looped = piece * num_repeats + piece[:cut]
    assert is_looped(looped, SENTENCE)
    assert is_looped(looped, "")
    assert not is_looped(looped, looped)
    assert not is_looped("".join(LONG % (7 * number) for number in range(1, 2)) + piece, piece)


def test_a_loop_is_named_and_its_cost_stands_capped_beside_the_published_figure():
    pairs = [TextPair("loop", "the cat " * 200, SENTENCE), TextPair("good", SENTENCE, SENTENCE)]
    result = score_pairs(pairs, "en")
    assert result["looped"] == ["loop"]
    assert result["wer"] > 30  # as published
    assert result["wer_capped"] == 0.5
    assert [item["wer_capped"] for item in result["items"]] == [1.0, 0.0]
    assert [item["looped"] for item in result["items"]] == [True, False]


@pytest.mark.parametrize("language", ["en", "de", "ja"])
def test_every_language_has_both_figures(language, tmp_path):
    texts = {"a": SENTENCE, "b": SENTENCE}
    figures = word_figures(texts, {"a": "the cat " * 200, "b": SENTENCE}, language, tmp_path)
    assert figures["wer"] > 1
    assert figures["wer_capped"] == 0.5
    assert figures["looped"] == ["a"]
