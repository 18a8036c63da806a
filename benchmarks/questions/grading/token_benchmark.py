"""TokenBenchmark, which MMAU and MMAR share: options as a list of texts, and the rule of word sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
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
from audiollm.benchmarks.questions.items import QuestionItem

from .answer_extraction import after_thinking, extract_answer
from .reply_reading import read_reply, read_verdict
from .token_matching import Words, names_option, option_words, words_of

_RULE = "*" * 30
_MISSED = Verdict(counted=True, correct=False, missing=True)


class TokenBenchmark(QuestionBenchmark):
    """A benchmark whose replies are graded by word sets and counted under several headings."""

    official_stops = True
    headings: ClassVar[Mapping[str, tuple[str, Sequence[str]]]]
    """Title of each printed table: the field it is by, and the values that the scorer knows, in printed order.

    Without known values a table is by whatever occurs.
    """
    other_groups: Sequence[str] = ()
    """Further fields to keep with a question."""

    def question_of(self, record: Mapping[str, Any], audio: str | bytes = "") -> QuestionReading:
        problems: list[FieldProblem] = []
        choices = _choices(record, problems)
        answer = record.get("answer", MISSING)
        if not isinstance(answer, str):
            problems.append(FieldProblem("answer", _not_text(answer)))
            answer = ""
        question = record.get("question")
        item = QuestionItem(
            id=str(record.get("id", "")),
            audio=audio,
            question=question if isinstance(question, str) else "",
            choices=choices,
            answer=answer,
            groups=self._groups(record, problems),
        )
        return item, problems

    def choice_fields(self, choices: Sequence[str | None]) -> dict[str, Any]:
        return {"choices": list(choices)}

    def _groups(self, record: Mapping[str, Any], problems: list[FieldProblem]) -> dict[str, str]:
        groups = {}
        for field, known in self.headings.values():
            value = _group(record.get(field))
            if value is not None:
                groups[field] = value
            if known and value not in known:
                text = "is missing" if field not in record else f"is {record[field]!r}, not one of {', '.join(known)}"
                problems.append(FieldProblem(field, text, fatal=False))
        for field in self.other_groups:
            value = _group(record.get(field))
            if value is not None:
                groups[field] = value
        return groups

    @abstractmethod
    def letter(self, reply: str, choices: Sequence[str]) -> str | None:
        """The letter that a parser of letters finds in a reply."""

    def grade(self, item: QuestionItem, reply: object, mode: Mode) -> Verdict:
        if reply is MISSING:
            return Verdict(counted=False, correct=None, missing=True) if mode == "official" else _MISSED
        if reply is None:
            return _MISSED
        if not isinstance(reply, str):
            return Verdict(counted=True, correct=False, unreadable=True)
        options = [option_words(choice) for choice in item.choices if choice is not None]
        answer = option_words(item.answer)
        if mode == "extract":
            return self._grade_extracted(item, reply, answer, options)
        words = words_of(reply)
        return _verdict(names_option(words, answer, options), words, options, reply)

    def _grade_extracted(self, item: QuestionItem, reply: str, answer: Words, options: Sequence[Words]) -> Verdict:
        """Reads the reply as for every benchmark; what other toolkits take out of it stands beside."""
        choices = [choice or "" for choice in item.choices]
        plain = extract_answer(reply)
        thoughtless = after_thinking(reply)
        extracted = plain if thoughtless == reply else extract_answer(thoughtless)
        reading = read_reply(reply, item.choices, item.answer)
        by_rule = names_option(words_of(extracted), answer, options)
        named = option_of_letter(plain, item.choices)
        plain_by_rule = by_rule if plain == extracted else names_option(words_of(plain), answer, options)
        details = {
            "extracted": plain,
            "extracted_after_think": extracted,
            "correct_extract": plain_by_rule,
            "correct_extract_after_think": by_rule,
            "correct_extract_letter": plain_by_rule or (named is not None and option_words(named) == answer),
            "letter": self.letter(reply, choices),
        }
        return read_verdict(reading, item, reply, details)

    def tables(self, counted: Tally, dropped: Tally, mode: Mode) -> dict[str, Any]:
        table: dict[str, Any] = {}
        printed: list[str] = []
        for title, (field, known) in self.headings.items():
            groups = {value: counts for (value,), counts in counted.by(field).items()}
            # The values that the scorer knows come first, in its order, and those without a question are printed, too.
            rows = {name: groups.get(name, (0, 0)) for name in dict.fromkeys((*known, *groups))}
            table[title] = {name: _row(*counts) for name, counts in rows.items()}
            printed += [_RULE, f"{title}:", *(f"{name} : {_over(*counts)}" for name, counts in rows.items())]
        table["total"] = _row(*counted.total())
        table["no_prediction_count"] = 0  # as printed: the scorer leaves such questions out before it looks
        printed += [_RULE, f"Total Accuracy: {_over(*counted.total())}", _RULE, "No prediction count: 0"]
        return {"table": table, "printed": printed}


def option_of_letter(reply: str, choices: Sequence[str | None]) -> str | None:
    """The option whose letter a reply is; None if the reply is no letter, or one without an option."""
    if len(reply) != 1 or not ("A" <= reply <= "Z" or "a" <= reply <= "z"):
        return None
    position = ord(reply.upper()) - ord("A")
    return choices[position] if position < len(choices) else None


def _verdict(correct: bool, words: Words, options: Sequence[Words], reply: str) -> Verdict:
    readable = correct or any(names_option(words, option, options) for option in options)
    missing = not readable and not reply.strip()
    return Verdict(counted=True, correct=correct, missing=missing, unreadable=not readable and not missing)


def _choices(record: Mapping[str, Any], problems: list[FieldProblem]) -> tuple[str, ...]:
    choices = record.get("choices", MISSING)
    if not isinstance(choices, list):
        problems.append(FieldProblem("choices", "is missing" if choices is MISSING else f"is {type_name(choices)}"))
        return ()
    for number, choice in enumerate(choices):
        if not isinstance(choice, str):
            problems.append(FieldProblem(f"choices[{number}]", f"is {type_name(choice)}, not text"))
    return tuple(choice if isinstance(choice, str) else "" for choice in choices)


def _not_text(value: object) -> str:
    return "is missing" if value is MISSING else f"is {type_name(value)}, not text"


def _group(value: object) -> str | None:
    """A group as text: some copies hold lists of one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        return ", ".join(map(str, value))
    return str(value)


def _percent(num_counted: int, num_right: int) -> str:
    return f"{(num_right / num_counted) * 100 if num_counted else 0:.2f}"


def _row(num_counted: int, num_right: int) -> dict[str, Any]:
    return {"accuracy": _percent(num_counted, num_right), "n": num_counted}


def _over(num_counted: int, num_right: int) -> str:
    return f"{_percent(num_counted, num_right)}% over {num_counted} samples"
