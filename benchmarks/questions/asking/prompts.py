"""How a multiple-choice question is put to a model: named prompts that never change, and the order of its options.

A prompt's id ends in a number; another wording gets another number. The hash covers everything that decides what a
model reads, so two results of one hash were asked alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audiollm.benchmarks.questions.items import QuestionItem

_PLACES = {"question", "choices", "num_choices"}
_LINE_PLACES = {"letter", "choice"}


@dataclass(frozen=True)
class QuestionPrompt:
    """One way to ask.

    Attributes:
        id: name and number, such as "mmsu-authors-1".
        template: the whole request, with the places ``{question}``, ``{choices}`` and ``{num_choices}``.
        choice_line: one option, with the places ``{letter}`` and ``{choice}``.
        separator: between options.
        missing: what stands for the option of a letter that has none; None: the letter is left out.
    """

    id: str
    template: str
    choice_line: str = "{letter}. {choice}"
    separator: str = "\n"
    missing: str | None = None

    def __post_init__(self) -> None:
        for name, places, needed in (
            ("template", _PLACES, {"question", "choices"}),
            ("choice_line", _LINE_PLACES, {"choice"}),
        ):
            found = _places(getattr(self, name), f"prompt {self.id}, {name}")
            if not needed <= found <= places:
                raise ValueError(
                    f"prompt {self.id}: {name} has the places {sorted(found)}; it needs {sorted(needed)} and may hold "
                    f"{sorted(places)}"
                )

    @property
    def sha256(self) -> str:
        """Hash of everything but the id, 64 hexadecimal digits."""
        content = dataclasses.asdict(self)
        del content["id"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def render(self, question: str, choices: Sequence[str | None]) -> str:
        """The request.

        Args:
            question: as the benchmark asks.
            choices: options in the order in which they are to be read; None where a letter has none.
        """
        lines = [
            self.choice_line.format(letter=letter, choice=self.missing if choice is None else choice)
            for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
            if choice is not None or self.missing is not None
        ]
        num_choices = sum(choice is not None for choice in choices)
        return self.template.format(question=question, choices=self.separator.join(lines), num_choices=num_choices)


def _places(template: str, where: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(f"{where}: {error}; write braces that are no place twice, {{{{ and }}}}") from error


_PROMPTS = (
    # What MMAU's authors name as their best prompt, in an answer on their issue tracker. They print neither line
    # breaks nor how options are set; lines are ours.
    QuestionPrompt(
        "mmau-authors-1", "{question}\nSelect one option from the provided choices.\n{choices}", choice_line="{choice}"
    ),
    # MMAR's authors publish no prompt of their own. Texts in place of letters suit their rule, which matches texts.
    QuestionPrompt(
        "mmar-texts-1",
        "{question}\nChoose the correct answer from these options and reply with its text alone:\n{choices}",
        choice_line="{choice}",
    ),
    # Of the MMSU paper and script. Options that are missing are printed as nothing there.
    QuestionPrompt(
        "mmsu-authors-1",
        "Choose the most suitable answer from options A, B, C, and D. You must respond with only A, B, C, or D.\n\n"
        "Question: {question}\n\n{choices}",
        missing="",
    ),
    # The default of lmms-eval's MMAU task.
    QuestionPrompt(
        "lmms-eval-letters-1",
        "{question}\n{choices}\nAnswer with the option's letter from the given choices directly.",
    ),
    # Of lmms-eval's MMAR task.
    QuestionPrompt(
        "lmms-eval-mmar-1",
        "Listen to the audio and answer the following multiple-choice question. Respond with only the letter (A, B, C, "
        "or D) of the correct option.\n{question}\n{choices}\nThe best answer is:",
    ),
    # Of the Unified Audio Schema toolkit, the likely one behind the tokenizer paper's tables.
    QuestionPrompt("uas-1", "{question}\n\n{choices}"),
    # As questions made from SAP records are asked in training (`audiollm.data.sap.questions`).
    QuestionPrompt("sap-1", "{question}\n{choices}"),
    # Of the Kimi-Audio toolkit.
    QuestionPrompt("kimi-1", "{question}\n{choices}", choice_line="({letter}) {choice}", separator=" "),
)
PROMPTS = {prompt.id: prompt for prompt in _PROMPTS}
DEFAULT_PROMPTS = {"mmau": "mmau-authors-1", "mmar": "mmar-texts-1", "mmsu": "mmsu-authors-1"}


def prompt_named(name: str | None, benchmark: str) -> QuestionPrompt:
    """The prompt of a name.

    Args:
        name: an id of `PROMPTS`, or the path of a JSON file with the fields of a `QuestionPrompt`; None: the
            benchmark's own.
        benchmark: the benchmark's name.

    Raises:
        ValueError: if there is none, or the file holds something else.
        OSError: if the file cannot be read.
    """
    if name is None:
        return PROMPTS[DEFAULT_PROMPTS[benchmark]]
    if name in PROMPTS:
        return PROMPTS[name]
    if name.endswith(".json"):
        return _read_prompt(Path(name))
    raise ValueError(f"prompt={name!r}: use one of {', '.join(PROMPTS)}, or the path of a .json file with a prompt")


def asked_choices(item: QuestionItem, shuffle_options: int | None) -> tuple[str | None, ...]:
    """The options in the order in which they are asked.

    Args:
        item: the question.
        shuffle_options: seed; the order follows from it and the question's id alone. None: the order of the data.

    Returns:
        The same options; letters without an option stay without one.
    """
    if shuffle_options is None:
        return item.choices
    present = [position for position, choice in enumerate(item.choices) if choice is not None]

    # Ranked by hashes, not shuffled by a generator: the order is the same on every machine and for any subset.
    def rank(position: int) -> bytes:
        return hashlib.sha256(f"{shuffle_options}\n{item.id}\n{position}".encode()).digest()

    choices: list[str | None] = [None] * len(item.choices)
    for position, drawn in zip(present, sorted(present, key=rank), strict=True):
        choices[position] = item.choices[drawn]
    return tuple(choices)


def _read_prompt(path: str | os.PathLike[str]) -> QuestionPrompt:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    fields = {field.name for field in dataclasses.fields(QuestionPrompt)}
    if not isinstance(content, dict) or not {"id", "template"} <= content.keys() <= fields:
        raise ValueError(f"{path} holds no prompt: give an object with id and template, and at most {sorted(fields)}")
    wrong = [name for name, value in content.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} must be text")
    prompt = QuestionPrompt(**content)
    if prompt.id in PROMPTS and prompt.sha256 != PROMPTS[prompt.id].sha256:
        raise ValueError(f"{path}: the id {prompt.id} is taken by another prompt; choose a new one")
    return prompt
