"""Wordings have stable ids, differ from each other, and are chosen by the key alone."""

from __future__ import annotations

from collections import Counter

import pytest

from audiollm.prompts import INSTRUCTIONS, choose_prompt, instruction, prompt, prompts


@pytest.mark.parametrize("task", INSTRUCTIONS)
def test_ids_name_their_wording_and_no_two_wordings_agree(task):
    wordings = prompts(task)
    assert len(wordings) >= 3
    assert len({wording.text for wording in wordings}) == len({wording.hash for wording in wordings}) == len(wordings)
    assert all(prompt(wording.id) == wording for wording in wordings)


def test_recorded_hashes_still_hold():
    # A changed wording must get a new id: results name these.
    assert (prompt("transcribe/0").text, prompt("transcribe/0").hash) == ("Transcribe the recording.", "dd79aa582c75")
    assert prompt("describe/0").hash == "72a495ce851d"


def test_the_key_alone_chooses_and_keys_spread_over_all_wordings():
    assert choose_prompt("transcribe", "clip-1") == choose_prompt("transcribe", "clip-1")
    counts = Counter(choose_prompt("transcribe", f"clip-{index}").id for index in range(800))
    assert len(counts) == len(INSTRUCTIONS["transcribe"])
    assert min(counts.values()) > 60


def test_a_question_is_put_in_whatever_it_holds():
    assert instruction("question", question="Why {question}?") == "Why {question}?"
    assert all("Who?" in instruction("question", f"key {n}", question="Who?") for n in range(20))
    assert instruction("transcribe") == INSTRUCTIONS["transcribe"][0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prompts("sing"), "sing.*transcribe"),
        (lambda: prompt("transcribe/99"), "transcribe/0 to transcribe/7"),
        (lambda: prompt("transcribe"), "does not exist"),
        (lambda: instruction("question"), "needs question="),
        (lambda: instruction("transcribe", question="Who?"), "takes no question="),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(call, message):
    with pytest.raises(ValueError, match=message):
        call()
