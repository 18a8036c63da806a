"""The one reader of the extract mode: every common shape, alike for all benchmarks, nothing guessed."""

from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.benchmarks.questions.base import Verdict
from audiollm.benchmarks.questions.grading.reply_reading import read_reply
from audiollm.benchmarks.questions.items import QuestionItem
from audiollm.benchmarks.questions.registry import BENCHMARKS, benchmark_named

CHOICE_SETS = (
    ("Guitar", "Piano", "Drums", "Flute"),
    ("A dog barks", "A cat", "Rain on a roof", "The wind"),
    ("yes", "no"),
    ("3", "4", "5", "7"),
    ("唱歌", "跳舞", "跑步", "画画"),
    ("C major", "G major", "A minor", "E minor"),
    ("male", "female", None, "neither of them"),
    ("+", "-", "×", "÷"),
)
LETTER_SHAPES = (
    "{b}", "({b})", "{b})", "{b}.", "{b}:", "[{b}]", "**{b}**", "**{b}.**", "'{b}'", '"{b}"', "`{b}`",
    " \n({b})\n", "{small}", "({small})", "{small})", "{small}.", "{wide}", "（{wide}）", "（{b}）", "{b}、", "{b}。",
    "Option {b}", "option {small}.", "Option ({b})", "Choice {b}.", "I choose option {b}.",
    "I would go with {b}.", "The answer is {b}.", "The answer is ({b})", "The answer is: {b}",
    "the answer is **{b}**.", "The answer is option {b}.", "The correct answer is {b}",
    "The correct option is ({b}).", "The best choice is {b}.", "So the answer must be {b}", "Answer: {b}",
    "Answer: ({b})", "answer - {b}", "**Answer:** {b}", "**Answer: {b}**", "Final answer: {b}",
    "My final answer is: **{b}**", "### Answer:\n{b}", "Answer:\n\n({b})", "Reasons first.\nAnswer: {b}",
    "<answer>{b}</answer>", "<answer>({b})</answer>", "<answer>\n{b}.\n</answer>", "<Answer>{b}</Answer>",
    "<answer>{b}", "<response>{b}</response>", "<think>keys</think><answer>{b}</answer>",
    "<think>keys, or {other}</think>\n{b}", "<thinking>{other}?</thinking>The answer is {b}.",
    "Maybe {other}.</think>{b}", "<think>\n</think>\n\n**{b}**", r"\boxed{{{b}}}", r"\boxed{{\text{{{b}}}}}",
    r"$\boxed{{\mathrm{{{b}}}}}$", r"So \(\boxed{{{b}}}\).", '{{"answer": "{b}"}}',
    '```json\n{{"answer": "{b}"}}\n```', "{{'answer': '{b}'}}", '{{"reason": "x", "answer": "({b})"}}',
    "答案是{b}", "答案是{b}。", "答案：{b}", "答案为（{b}）", "正确答案是 {b}", "我选{b}", "选项{b}", "{b}<|im_end|>",
    "The answer is {b}, not {other}.", "Not {other}. The answer is {b}.", "It is not {other}, it is {b}.",
    "The answer is {other}. No, wait: the answer is {b}.", "The answer is {b} because {other} is too loud.",
    # What is denied or struck out is no answer, wherever that is said.
    "{other} is wrong. {b}.", "{other} is incorrect; {b} is correct.", "Option {other} can be ruled out. Option {b}.",
    "({other}) does not fit, ({b}) does.", "It can't be {other}; it's {b}.", "~~{other}~~ {b}",
    "<del>{other}</del> {b}",
    "I don't think it is {other}. The answer is {b}.", "{b} because {other} is too loud.", "{b}, since {other} is loud",
    "{b} rather than {other}", "{b} (not {other})", "Between {other} and {b}, I choose {b}.",
    "I doubt it's {other}: {b}",
    "选{b}，因为{other}太吵", "{other}不对，选{b}", "不选{other}。{b}", "~~({other})~~\n({b})", "{other} ✗ {b}",
    # Other marks of thoughts.
    "<think >{other}</think >{b}", '<think type="x">{other}</think>{b}', "[THINK]{other}[/THINK]{b}",
    "◁think▷The answer is {other}◁/think▷{b}", "<reflection>{other}</reflection>{b}", "<|think|>{other}<|/think|>{b}",
    "<analysis>{other}?</analysis>\n<answer>{b}</answer>", "<thoughts>{other}</thoughts>({b})",
    "<|begin_of_thought|>{other}<|end_of_thought|>{b}",
    "<|channel|>analysis<|message|>{other}<|end|><|start|>assistant<|channel|>final<|message|>{b}",
    # Other languages and markup.
    "Réponse : {b}", "La réponse est {b}.", "Die Antwort lautet {b}.", "Respuesta: {b}",
    "À mon avis, {b}", "Ответ: {b}",
    "正解は{b}です。", "정답은 {b}입니다.", "Đáp án: {b}", r"\fbox{{{b}}}", "【{b}】", "[[{b}]]", "> {b}", "1. {b}",
    "___{b}___",
)  # fmt: skip
TEXT_SHAPES = (
    "{choice}", "{choice}.", "Final answer: {choice}", "<answer>{choice}</answer>", r"\boxed{{{choice}}}",
    "**{choice}**", "<think>hm</think>{choice}", '{{"answer": "{choice}"}}', "({b}) {choice}", "{b}) {choice}",
    "{b}. {choice}", "{b}: {choice}", "**{b}. {choice}**", "<answer>{b}. {choice}</answer>",
    "Answer: ({b}) {choice}", "答案是{b}：{choice}",
)  # fmt: skip
# An option alone on the first line, and reasons behind it, which may name the others.
EXPLAINED_SHAPES = tuple(
    first + reasons
    for first in (
        "{b}", "{b}.", "({b})", "**{b}**", "{b})", "\n{b}:", "`{b}`", "{small}", "{wide}", "Option {b}",
        "<think>x</think>\n{b}",
    )
    for reasons in (
        "\n\nBecause of what is heard.", "\nI hear it clearly, and {other} does not fit.", "\r\n\r\nBecause.",
        "\n\nBecause ({other}) would be louder.\n\nSo I am sure.", "\n\nExplanation: it is not {other}.",
    )
)  # fmt: skip
EXPLAINED_TEXTS = tuple(
    first + "\n\nBecause of what is heard; ({other}) does not fit."
    for first in ("{choice}", "{choice}.", "({b}) {choice}", "{b}. {choice}", "**{b}) {choice}**", "{b}: {choice}")
)
LISTINGS = (
    "{b}) {choice}", "{b}. {choice}", "({b}) {choice}", "{b}: {choice}", "- {choice}", "{choice}", "{b}",
    "**{b}.** {choice}", "* {b}) {choice}", "Option {b}: {choice}", "{number}. {choice}", "| {b} | {choice} |",
    "({small}) {choice}", "{wide}、{choice}",
)  # fmt: skip
AROUND_LISTINGS = (
    "{all}", "{all}\n", "\n\n{all}", "Options:\n{all}", "The choices are:\n\n{all}\n\nI cannot tell.",
    "<answer>\n{all}\n</answer>", "Answer:\n{all}", "<think>hm</think>{all}", "```\n{all}\n```",
)  # fmt: skip
CHOSEN = (
    "{all}\n\n{b}", "{all}\nThe answer is {b}.", "{all}\n\n({b}) {choice}", "{b}\n\n{all}", "{b}. {choice}\n{all}",
    "{all}\n\nAnswer: {b}", "The answer is ({b}).\n\n{all}", "{all}\n\n{b}\n\nBecause of what is heard.",
)  # fmt: skip
UNREADABLE = (
    "<think>{b}", "<think>It is {b}. The answer is {b}", "<think>x</think>{b}<think>no", "<Thinking>\n({b})",
    "{b} or {other}", "({b}) or ({other})", "{b}/{other}", "{b}, {other}", "both {b} and {other}",
    "**{b}** or **{other}**", "The answer is {b} or {other}.", "The answer is {b} or the answer is {other}",
    "<answer>{b} or {other}</answer>", "not {b}", "Not ({b}).", "The answer is not {b}.", "It isn't {b}.",
    "Neither {b} nor {other}", "I can rule out {b}.", "The answer isn't option {b}", "答案不是{b}", "Z", "(Z)",
    "The answer is Z.", "Option Z", r"\boxed{{Z}}", "<answer>Z</answer>", "A xylophone sounds",
    "A Xylophone sounds.", "The answer is a xylophone", "I hear something", "???", "I", "I think so I do",
    "U.S.A.", "B-side C-sharp", "9",
    "{b} is wrong.", "{b} is incorrect", "({b}) is not the answer", "Option {b} is not right", "{b} is ruled out",
    "Option {b} can be excluded.", "({b}) does not fit", "Anything but {b}", "I don't think it's {b}.",
    "I do not think the answer is {b}", "I doubt it is {b}", "~~{b}~~", "不选{b}", "{b}不对", "{b}是错的",
    "排除{b}", "非{b}",
    "Ce n'est pas {b}.", "Nicht {b}", "Non è {b}", "Не {b}", "选{b}或者{other}", "{b}还是{other}", "{b} maybe {other}",
    "[THINK]The answer is {b}", "◁think▷The answer is {b}", "<analysis>The answer is {b}", "<think >{b}",
    "<|channel|>analysis<|message|>The answer is {b}", "<|begin_of_thought|>{b}", "<|think|>{b}",
)  # fmt: skip


def asked(choices: tuple[str | None, ...], answer: str) -> QuestionItem:
    return QuestionItem(id="q", audio="", question="Which?", choices=choices, answer=answer, groups={})


def verdict_of_all(item: QuestionItem, reply: str) -> Verdict:
    """The verdict of every benchmark, which is the same one."""
    verdicts = [benchmark_named(name).grade(item, reply, "extract") for name in BENCHMARKS]
    told = {
        (one.counted, one.correct, one.missing, one.unreadable, one.details["option_read"], one.details["read_from"])
        for one in verdicts
        if one.details is not None
    }
    assert len(told) == 1, (reply, told)
    return verdicts[0]


def filled(shape: str, choices: tuple[str | None, ...], position: int) -> str:
    present = [place for place, choice in enumerate(choices) if choice is not None]
    other = next(place for place in present if place != position)
    letter = string.ascii_uppercase[position]
    return shape.format(
        b=letter,
        small=letter.lower(),
        wide=chr(ord(letter) + 0xFEE0),
        other=string.ascii_uppercase[other],
        choice=choices[position],
    )


def listed(choices: tuple[str | None, ...], line: str) -> str:
    """All options, one a line."""
    present = [place for place, choice in enumerate(choices) if choice is not None]
    return "\n".join(filled(line.replace("{number}", str(place + 1)), choices, place) for place in present)


def cases(shapes: tuple[str, ...]) -> list[tuple[str, tuple[str | None, ...], int]]:
    return [
        (shape, choices, position)
        for shape, choices in itertools.product(shapes, CHOICE_SETS)
        for position, choice in enumerate(choices)
        if choice is not None
    ]


@pytest.mark.parametrize(
    "shapes",
    [LETTER_SHAPES, TEXT_SHAPES, EXPLAINED_SHAPES, EXPLAINED_TEXTS],
    ids=["letters", "texts of options", "explained letters", "explained texts"],
)
def test_every_shape_is_read_and_alike_by_all_benchmarks(shapes: tuple[str, ...]) -> None:
    missed = []
    for shape, choices, position in cases(shapes):
        answer = choices[position]
        assert answer is not None
        reply = filled(shape, choices, position)
        if not verdict_of_all(asked(choices, answer), reply).correct:
            missed.append((reply, choices, read_reply(reply, choices)))
    assert not missed, (len(missed), missed[:20])


def test_what_names_no_option_or_several_is_unreadable_whatever_the_answer_is() -> None:
    guessed = []
    for shape, choices, position in cases(UNREADABLE):
        if choices == ("+", "-", "×", "÷"):
            continue  # the published rule of words reads any words as the first option without any
        reply = filled(shape, choices, position)
        answer = choices[position]
        assert answer is not None
        verdict = verdict_of_all(asked(choices, answer), reply)
        if verdict.correct or not verdict.unreadable:
            guessed.append((reply, choices, read_reply(reply, choices)))
    assert not guessed, (len(guessed), guessed[:20])


@pytest.mark.parametrize("line", LISTINGS)
def test_a_list_of_all_options_is_no_choice_unless_one_is_chosen_beside_it(line: str) -> None:
    guessed, missed = [], []
    for choices in CHOICE_SETS:
        all_options = listed(choices, line)
        for shape in AROUND_LISTINGS:
            reply = shape.replace("{all}", all_options)
            for answer in filter(None, choices):
                verdict = verdict_of_all(asked(choices, answer), reply)
                if verdict.correct or not verdict.unreadable:
                    guessed.append((reply, read_reply(reply, choices)))
        for shape, _, position in (case for case in cases(CHOSEN) if case[1] is choices):
            reply = filled(shape.replace("{all}", "LIST"), choices, position).replace("LIST", all_options)
            answer = choices[position]
            assert answer is not None
            if not verdict_of_all(asked(choices, answer), reply).correct:
                missed.append((reply, read_reply(reply, choices)))
    assert not guessed, (len(guessed), guessed[:9])
    assert not missed, (len(missed), missed[:9])


@pytest.mark.parametrize("shape", ["{b}\n{other}", "{b}\nor\n{other}", "{b}\n\nor {other}", "{b}) {choice}\n\n{other}"])
def test_an_option_beside_another_on_lines_of_their_own_is_unreadable(shape: str) -> None:
    for choices in CHOICE_SETS:
        answer = choices[0]
        assert answer is not None
        verdict = verdict_of_all(asked(choices, answer), filled(shape, choices, 0))
        assert verdict.unreadable, (choices, verdict)


@pytest.mark.parametrize("shape", ["{b}", "({b})", "The answer is {b}.", "<answer>{b}</answer>"])
def test_options_that_are_letters_are_named_by_their_text(shape: str) -> None:
    choices = ("C", "D", "E", "G")
    assert verdict_of_all(asked(choices, "D"), shape.format(b="D")).correct
    assert verdict_of_all(asked(choices, "E"), shape.format(b="D")).correct is False
    assert verdict_of_all(asked(choices, "D"), shape.format(b="B")).correct  # no option's text


@given(
    reply=st.text(alphabet=st.sampled_from("ABab()[]{}<>*\\.:,'\" \nnotrhewisk/think答案是选")), place=st.integers(0, 3)
)
def test_no_reply_breaks_the_reader_and_all_benchmarks_agree(reply: str, place: int) -> None:
    choices = CHOICE_SETS[0]
    answer = choices[place]
    assert answer is not None
    if reply.strip():
        verdict_of_all(asked(choices, answer), reply)


@pytest.mark.parametrize(
    "piece", ["answer is ", "(A ", "<think>", "A or ", "not ", "\\boxed{", "**", "</think>", '"answer": ']
)
def test_long_replies_are_read_in_linear_time(piece: str) -> None:
    assert read_reply(piece * 20_000, CHOICE_SETS[0]).how
