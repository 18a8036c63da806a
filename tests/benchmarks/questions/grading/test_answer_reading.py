"""Reading answers out of replies: words, marked answers, letters; and the bootstrap of the shares they add up to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.benchmarks.questions.grading.answer_extraction import after_thinking, extract_answer
from audiollm.benchmarks.questions.grading.bootstrap import mean_interval, share_interval
from audiollm.benchmarks.questions.grading.letter_reading import letter_among_four, letter_at_an_end, letter_of_option
from audiollm.benchmarks.questions.grading.token_matching import is_right, words_of

OPTIONS = ["A bird", "A dog", "Rain", "Dog"]


@settings(max_examples=50)
@given(reply=st.text(), answer=st.text(), choices=st.lists(st.text(), max_size=5))
def test_the_rule_is_its_definition(reply: str, answer: str, choices: list[str]) -> None:
    wrong = [words_of(choice) for choice in choices if words_of(choice) != words_of(answer)]
    has_all = words_of(answer) <= words_of(reply)
    has_wrong = bool(words_of(reply) & (frozenset().union(*wrong) - words_of(answer)))
    assert is_right(reply, answer, choices) == (bool(words_of(reply)) and has_all and not has_wrong)


@given(st.text())
def test_no_reply_breaks_the_readers(reply: str) -> None:
    extracted = extract_answer(reply)
    assert "\n" not in extracted
    assert extracted == extracted.strip()
    assert letter_among_four(reply) in {None, *"ABCD"}
    assert letter_of_option(reply, OPTIONS) in {None, *"ABCD"}
    assert letter_at_an_end(reply) in {None, *"ABCD"}


def test_a_lower_cased_dotted_capital_is_two_words() -> None:
    assert words_of("İzmir") == {"i", "zmir"}
    assert words_of("dog_bark 3.5 Straße") == {"dog_bark", "3", "5", "straße"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: rain", "rain"),
        ("  The correct answer is - **Rain**", "Rain"),
        ("the correct answer is Rain.", "Rain"),
        ("correct choice is: 'Rain'", "Rain"),
        ("Answer:\n\n  Rain  falls ", "Rain falls"),
        ("Answer:\nnot this\n**Rain**", "Rain"),
        ("Answer: dog\nWait.\nAnswer: rain", "rain"),
        ("It is **dog** or **rain**", "rain"),
        ("\n\nRain!\nI heard it.", "Rain"),
        ("Answer:", "Answer"),
        ("The answer is rain", "The answer is rain"),
        ("", ""),
        (". . . " * 50_000, ""),
    ],
)
def test_the_marked_answer_is_taken_out(reply: str, answer: str) -> None:
    assert extract_answer(reply) == answer


def test_thinking_ends_at_its_first_end() -> None:
    assert after_thinking("<think>a</think>b</think>c") == "b</think>c"
    assert after_thinking("no thought") == "no thought"


def test_letters_that_are_not_there_are_not_guessed() -> None:
    assert letter_among_four("I cannot listen to recordings") is None
    assert letter_of_option("sorry", OPTIONS) is None
    assert letter_at_an_end("") is None
    assert letter_among_four("(B) and (C)") == "B"  # neither stands alone: the first
    assert letter_among_four("A B C") == "C"
    assert letter_of_option("(C), no: (A)", OPTIONS) == "A"
    assert letter_of_option("(A), no: (C)", OPTIONS) == "C"
    assert letter_of_option("after some time a bird sings", OPTIONS) == "A"


def test_the_interval_covers_the_share_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    share, num_items, covered = 0.4, 200, 0
    for _ in range(100):
        interval = share_interval(int(random.binomial(num_items, share)), num_items)
        assert interval is not None
        covered += interval.low <= share <= interval.high
    assert 0.88 < covered / 100 < 0.99


def test_both_intervals_agree_and_repeat() -> None:
    values = np.arange(400) < 150
    by_share, by_mean = share_interval(150, 400), mean_interval(values)
    assert by_share == share_interval(150, 400)
    assert by_share is not None
    assert by_mean is not None
    assert abs(by_share.low - by_mean.low) < 0.01
    assert abs(by_share.high - by_mean.high) < 0.01
    assert by_share != share_interval(150, 400, seed=1)


def test_intervals_of_nothing_and_of_impossible_counts() -> None:
    assert share_interval(0, 0) is None
    assert mean_interval([]) is None
    with pytest.raises(ValueError, match="3 of 2"):
        share_interval(3, 2)
