"""Prompts that never change, and options in an order that follows from a seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiollm.benchmarks.questions.asking.prompts import (
    DEFAULT_PROMPTS,
    PROMPTS,
    QuestionPrompt,
    asked_choices,
    prompt_named,
)
from audiollm.benchmarks.questions.items import QuestionItem

RECORDED = {
    "mmau-authors-1": "7d36f5e9",
    "mmar-texts-1": "74473be7",
    "mmsu-authors-1": "a933d37b",
    "lmms-eval-letters-1": "c3202ee2",
    "lmms-eval-mmar-1": "abdb2fe5",
    "uas-1": "e7ccc20d",
    "sap-1": "e6a50413",
    "kimi-1": "f476711b",
}


def item(number: int, choices: tuple[str | None, ...] = ("a", "b", "c", "d")) -> QuestionItem:
    return QuestionItem(f"q{number}", "x.wav", "What?", choices, "a", {})


def test_a_prompt_that_has_a_number_never_changes() -> None:
    assert {name: prompt.sha256[:8] for name, prompt in PROMPTS.items()} == RECORDED


def test_every_part_of_a_prompt_counts_in_its_hash_and_its_name_does_not() -> None:
    plain = QuestionPrompt("a", "{question}{choices}")
    assert QuestionPrompt("b", "{question}{choices}").sha256 == plain.sha256
    others = [
        QuestionPrompt("a", "{question} {choices}"),
        QuestionPrompt("a", "{question}{choices}", choice_line="{choice}"),
        QuestionPrompt("a", "{question}{choices}", separator=" "),
        QuestionPrompt("a", "{question}{choices}", missing=""),
    ]
    assert len({prompt.sha256 for prompt in (plain, *others)}) == 5


def test_the_mmsu_prompt_is_the_published_one() -> None:
    text = PROMPTS["mmsu-authors-1"].render("Who?", ("a man", None, "a woman", None))
    assert text == (
        "Choose the most suitable answer from options A, B, C, and D. You must respond with only A, B, C, or D.\n\n"
        "Question: Who?\n\nA. a man\nB. \nC. a woman\nD. "
    )


def test_letters_without_options_are_left_out_where_the_prompt_does_not_print_them() -> None:
    assert PROMPTS["uas-1"].render("Who?", (None, "None", None, "")) == "Who?\n\nB. None\nD. "
    assert PROMPTS["kimi-1"].render("{x}?", ("{y}", "z")) == "{x}?\n(A) {y} (B) z"


@pytest.mark.parametrize("name", list(PROMPTS))
def test_every_prompt_holds_the_question_and_each_option(name: str) -> None:
    choices = ("ant", "bee", "cat", "dog", "elk")
    text = PROMPTS[name].render("Which of them?", choices)
    assert "Which of them?" in text
    assert [text.count(choice) for choice in choices] == [1] * 5
    assert sorted(choices, key=text.index) == list(choices)


def test_every_benchmark_has_a_prompt_of_its_own() -> None:
    for benchmark, name in DEFAULT_PROMPTS.items():
        assert prompt_named(None, benchmark) is PROMPTS[name]
    assert prompt_named("uas-1", "mmau").id == "uas-1"
    with pytest.raises(ValueError, match=r"prompt='usa-1': use one of mmau-authors-1.*\.json"):
        prompt_named("usa-1", "mmau")


def test_a_prompt_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"id": "mine-1", "template": "{choices}? {question}"}))
    assert prompt_named(str(path), "mmau").render("Q", ("x", "y")) == "A. x\nB. y? Q"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "no JSON"),
        ('["id"]', "holds no prompt"),
        ('{"id": "x", "template": "{question}{choices}", "choice": ""}', "holds no prompt"),
        ('{"id": "x", "template": 3}', "template must be text"),
        ('{"id": "x", "template": "{question}"}', r"template has the places \['question'\]; it needs"),
        ('{"id": "x", "template": "{question}{choices}{answer}"}', "answer"),
        ('{"id": "x", "template": "{question}{choices}{"}', "template: .*write braces"),
        ('{"id": "uas-1", "template": "{question}{choices}"}', "uas-1 is taken"),
    ],
)
def test_a_file_that_holds_no_prompt_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem):
        prompt_named(str(path), "mmau")


def test_the_order_of_options_follows_from_seed_and_question_alone() -> None:
    orders = [asked_choices(item(number), 7) for number in range(200)]
    assert orders == [asked_choices(item(number), 7) for number in range(200)]
    assert all(sorted(order) == ["a", "b", "c", "d"] for order in orders)  # type: ignore[type-var]
    assert len(set(orders)) == 24
    assert orders != [asked_choices(item(number), 8) for number in range(200)]
    for letter in range(4):  # every option comes to stand at every letter about equally often
        first = sum(order[letter] == "a" for order in orders)
        assert 30 <= first <= 70
    assert asked_choices(item(0), None) == ("a", "b", "c", "d")


def test_shuffling_leaves_letters_without_options_alone() -> None:
    seen = {asked_choices(item(number, (None, "x", None, "y")), 0) for number in range(50)}
    assert seen == {(None, "x", None, "y"), (None, "y", None, "x")}
    repeated = asked_choices(item(0, ("x", "x", "None", "")), 3)
    assert sorted(repeated) == ["", "None", "x", "x"]  # type: ignore[type-var]
