"""MMSU (Wang et al., 2025, arXiv:2506.04779): questions about spoken language, 47 tasks of perception and reasoning.

Not the part of VoiceBench of the same name, which reads questions of MMLU-Pro aloud.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from audiollm.benchmarks.questions.base import (
    MISSING,
    FieldProblem,
    Mode,
    QuestionBenchmark,
    QuestionReading,
    Tally,
    Verdict,
    type_name,
)
from audiollm.benchmarks.questions.grading.answer_extraction import after_thinking, extract_answer
from audiollm.benchmarks.questions.grading.letter_reading import letter_at_an_end
from audiollm.benchmarks.questions.grading.reply_reading import read_reply, read_verdict
from audiollm.benchmarks.questions.items import CustomQuestion, QuestionItem

_LETTERS = "ABCD"
_GROUPS = ("category", "sub-category", "sub-sub-category", "task_name", "linguistics_sub_discipline")
_FINE_HEADINGS = (
    ("category",),
    ("category", "sub-category"),
    ("category", "sub-sub-category"),
    ("category", "task_name"),
)


class Mmsu(QuestionBenchmark):
    """MMSU: 5,000 questions, options A to D, two of which may be missing."""

    name = "mmsu"
    title = "MMSU"
    prediction_key = "response"
    audio_key = "audio_path"
    audio_folder = "audio"
    file_names = ("mmsu.jsonl",)
    known_revisions: ClassVar[Mapping[str, str]] = {}
    published_census: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "category": {"Perception": 2580, "Reasoning": 2420},
        "sub-category": {"Linguistics": 3655, "Paralinguistics": 1345},
    }
    parquet_first = True  # recordings are published twice and differ; those in the parquet files are the right ones
    official_stops = False

    def question_of(self, record: Mapping[str, Any], audio: str | bytes = "") -> QuestionReading:
        problems: list[FieldProblem] = []
        choices = tuple(_choice(record, f"choice_{letter.lower()}", problems) for letter in _LETTERS)
        answer = record.get("answer_gt", MISSING)
        if not isinstance(answer, str):
            problems.append(
                FieldProblem("answer_gt", "is missing" if answer is MISSING else f"is {type_name(answer)}, not text")
            )
        elif answer not in choices:
            problems.append(FieldProblem("answer_gt", f"is {answer!r}, which is none of the options", fatal=False))
        question = record.get("question")
        groups = {heading: str(record[heading]) for heading in _GROUPS if record.get(heading) is not None}
        for heading in ("category", "sub-category"):
            if heading not in groups:
                problems.append(FieldProblem(heading, "is missing", fatal=False))
        item = QuestionItem(
            id=str(record.get("id", "")),
            audio=audio,
            question=question if isinstance(question, str) else "",
            choices=choices,
            answer=answer if isinstance(answer, str) else "",
            groups=groups,
        )
        return item, problems

    def record_of(self, custom: CustomQuestion) -> dict[str, Any] | None:
        if custom.sound_type != "speech":
            return None
        is_content = custom.field == "linguistic_content"
        return {
            "id": custom.id, "task_name": custom.field, "audio_path": custom.audio, "question": custom.question,
            **self.choice_fields(custom.choices), "answer_gt": custom.answer,
            "category": "Perception", "sub-category": "Linguistics" if is_content else "Paralinguistics",
            "sub-sub-category": "Semantics" if is_content else "Speaker Traits",
            "linguistics_sub_discipline": "Semantics" if is_content else "None",
        }  # fmt: skip

    def choice_fields(self, choices: Sequence[str | None]) -> dict[str, Any]:
        return {f"choice_{letter}": choice for letter, choice in itertools.zip_longest(_LETTERS.lower(), choices)}

    def grade(self, item: QuestionItem, reply: object, mode: Mode) -> Verdict:
        if reply is MISSING:
            return Verdict(counted=True, correct=False, missing=True)
        if mode == "extract":
            return _grade_extracted(item, reply)
        # What the script cannot read it leaves out of every count; only the official mode does so too.
        unreadable = Verdict(mode != "official", False if mode != "official" else None, unreadable=True)
        if not isinstance(reply, str):
            return unreadable
        # With nothing in place of a line end: which character stands second-last decides, see `letter_at_an_end`.
        text = reply.replace("\n", "").strip()
        # "None" is what a script writes that turns a missing reply into text.
        if not text or text == "None":
            return Verdict(counted=True, correct=False, missing=True)
        letter = letter_at_an_end(text)
        if letter is None:
            return unreadable
        choice = _option(item, letter)
        return Verdict(counted=True, correct=choice is not None and choice == item.answer, details={"letter": letter})

    def tables(self, counted: Tally, dropped: Tally, mode: Mode) -> dict[str, Any]:
        sub: dict[str, dict[str, str]] = {}
        for (category, name), counts in counted.by("category", "sub-category").items():
            sub.setdefault(category, {})[name] = _share(*counts)
        categories = {name: _share(*counts) for (name,), counts in counted.by("category").items()}
        num_counted, num_right = counted.total()
        official = {
            "sub": sub,
            "category": categories,
            "overall": _share(num_counted, num_right),
            "total_count": num_counted,
        }
        printed = [
            f"Category: {category}, Sub-category: {name}, Accuracy: {share}"
            for category, shares in sub.items()
            for name, share in shares.items()
        ]
        printed += [f"Category: {name}, Average Accuracy: {share}" for name, share in categories.items()]
        printed += [f"Overall Accuracy: {official['overall']}", f"Total count: {num_counted}"]
        nothing_dropped = _fine_table(counted, dropped)
        return {
            "table": official if mode == "official" else nothing_dropped,
            "printed": printed,
            "table_unreadable_as_wrong": nothing_dropped,
            "paper_table": _paper_table(counted),
        }


def _grade_extracted(item: QuestionItem, reply: object) -> Verdict:
    if reply is None or (isinstance(reply, str) and not reply.strip()):
        return Verdict(counted=True, correct=False, missing=True)
    if not isinstance(reply, str):
        return Verdict(counted=True, correct=False, unreadable=True)
    details = {"extracted_after_think": extract_answer(after_thinking(reply))}
    return read_verdict(read_reply(reply, item.choices, item.answer), item, reply, details)


def _option(item: QuestionItem, letter: str) -> str | None:
    position = _LETTERS.index(letter)
    return item.choices[position] if position < len(item.choices) else None


def _choice(record: Mapping[str, Any], field: str, problems: list[FieldProblem]) -> str | None:
    choice = record.get(field)
    if choice is None or isinstance(choice, str):
        return choice
    if choice != choice:  # not a number: how pandas writes null
        return None
    problems.append(FieldProblem(field, f"is {type_name(choice)}, not text", fatal=False))
    return str(choice)


def _share(num_counted: int, num_right: int) -> str:
    return f"{num_right / num_counted if num_counted else 0:.4f}"


def _row(num_counted: int, num_right: int) -> dict[str, Any]:
    accuracy = round(num_right / num_counted, 6) if num_counted else 0.0
    return {"correct": num_right, "n": num_counted, "accuracy": accuracy}


def _fine_table(counted: Tally, dropped: Tally) -> dict[str, Any]:
    """All questions by everything the benchmark is divided by; those that were dropped count as wrong."""
    table: dict[str, Any] = {}
    for headings in ((), *_FINE_HEADINGS):
        groups, wrong = counted.by(*headings), dropped.by(*headings)
        for values in sorted(groups.keys() | wrong.keys()):
            (num_counted, num_right), (num_dropped, _) = groups.get(values, (0, 0)), wrong.get(values, (0, 0))
            name = " / ".join(("+".join(headings), *values)) if headings else "all"
            table[name] = _row(num_counted + num_dropped, num_right)
    return table


def _paper_table(tally: Tally) -> dict[str, Any]:
    """Perception and reasoning by semantics, phonology and paralinguistics, as the paper and its board show them."""
    columns: dict[str, dict[str, str]] = {
        "Semantics": {"sub-category": "Linguistics", "sub-sub-category": "Semantics"},
        "Phonology": {"sub-category": "Linguistics", "sub-sub-category": "Phonology"},
        "Paralinguistics": {"sub-category": "Paralinguistics"},
        "average": {},
    }
    table: dict[str, Any] = {
        category: {column: _row(*tally.total({"category": category} | where)) for column, where in columns.items()}
        for category in ("Perception", "Reasoning")
    }
    return table | {"overall": _row(*tally.total())}
