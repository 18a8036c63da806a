"""Which option a reply names, read in the same way for every benchmark: the one reader of the extract mode.

What a reply states as its answer counts before what it says otherwise; in either, the text of an option (by word sets,
see `token_matching`) counts before a letter. A first line that is an option and nothing else is the answer, whatever is
explained behind it; a list of all options says nothing of which is meant. Nothing is guessed: a thought without an end,
several options, a letter without an option and a letter that is denied are unreadable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiollm.benchmarks.questions.base import Verdict
from audiollm.benchmarks.questions.items import QuestionItem

from .answer_extraction import extract_answer
from .denials import is_denied, is_doubted, without_denied, without_struck_out
from .thoughts import without_thoughts
from .token_matching import names_option, option_words, words_of

UNFINISHED_THOUGHT, SEVERAL, NOTHING = "unfinished thought", "several options", "no option"


class ReplyReading(NamedTuple):
    """What a reply names.

    Attributes:
        option: the text of the option; None if it is unreadable.
        letter: of the option; None if it is unreadable, or the text is none of the options.
        how: "stated text", "stated letter", "text" or "letter"; or why there is none: ``UNFINISHED_THOUGHT``,
            ``SEVERAL`` or ``NOTHING``.
    """

    option: str | None
    letter: str | None
    how: str


# Where a reply states its answer; what is stated is the rest of the line, or what the marks enclose.
_TAGGED = re.compile(r"<(?:final_)?(answer|response)>(.*?)(?:</(?:final_)?\1>|\Z)", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_IN_JSON = re.compile(r"[\"'](?:final_?)?(?:answer|option|choice)[\"']\s*:\s*(?:\"([^\"]*)\"|'([^']*)'|(\w+))", re.I)
_NAME = r"(?:answer|option|choice)"
_SENTENCE = re.compile(
    rf"\b{_NAME}\s*(?:\([^()\n]*\)\s*)?(?:(?:is|would\s+be|must\s+be|should\s+be|was)\b[^\S\n]*[:\-]?|[:=\-])|"
    rf"答案(?:是|为|為|：|:|应该是|應該是)+|(?:我)?(?<!不)(?:选择|選擇|应选|應選|选|選)(?:项|項)?[:：]?(?=\W{{0,4}}[A-Za-z])|"
    r"\bI\s+(?:(?:would|will|must)\s+)?(?:choose|pick|select)\b(?=\W{0,4}(?:(?:option|choice)\W+)?[A-Z]\b)",
    re.IGNORECASE,
)  # fmt: skip
_BOLD_LETTER = re.compile(r"\*\*\W{0,3}(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\b\W{0,3})?([A-Z])\b\W{0,3}\*\*")
# "A or" before another statement: the two are one.
_JOINED = re.compile(r"(?:\b(?:or|and)|/|或|和)\s*(?:the\s+)?(?:\w+\s+)?\Z", re.IGNORECASE)

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm)\b|\\[()\[\]]|<\|[^|<>]*\|>|[*_`$\"“”{}]")
_WHOLE = re.compile(r"\W*(?:(?:the\s+)?(?:option|choice|answer|letter|选项|選項)\b\W*)?([A-Za-z])\W*", re.IGNORECASE)
# The text of an option behind its letter, or behind the number of a list.
_LISTED = re.compile(r"\W*(?:(?:option|choice)\b\W*)?[A-Z]\W+(.+)", re.IGNORECASE)
_BULLET = re.compile(r"\W*(?:\d+[.)]|[-+•])\s+(.+)")
# What may follow a letter A that is no article.
_NO_NOUN = (
    r"(?:according|although|and|as|based|because|but|due|fits?|for|given|here|instead|is|matches|maybe|nor|not|only|or|"
    r"perhaps|possibly|probably|rather|seems|since|so|sounds|that|though|was|which|while|with)\b"
)
# Letters of other scripts may touch it; parts of words, abbreviations, notes and keys are none.
_LONE = re.compile(
    rf"(?<![A-Za-zÀ-ɏ0-9'’.\-–])(?!A\s+(?!{_NO_NOUN})[^\W\d_])([A-Z])"
    r"(?!['’]?[A-Za-zÀ-ɏ0-9]|\.[A-Za-z]\b|[#♯♭+]|[\-–]\w|\s+(?:major|minor|sharp|flat)\b)"
)
_NAMED = re.compile(r"(?:\b(?:[Oo]ption|[Cc]hoice|[Ll]etter)|选项|選項)\s*[(\[]?\s*([A-Z])(?![A-Za-z0-9'’])")
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]|(?<![A-Za-z0-9'’.\-(\[])([A-Za-z])\)")
_PRONOUN = "I"
# A stated letter is the answer, whatever is said of other letters behind it; unless these are offered as well.
_FIRST = re.compile(rf"\W*(?:(?:option|choice|letter)\b\W*)?(?!A\s+(?!{_NO_NOUN})[^\W\d_])([A-Z])(?![A-Za-z0-9'’#♯♭+])")
_REASON = re.compile(
    r"\W{0,3}\s*(?:because|since|due\s+to|given|rather\s+than|instead\s+of|(?<=[,;(\s])not)\b", re.IGNORECASE
)
_OFFERED = re.compile(
    r"\W*(?:(?:or|and)\b|或者|还是|還是|以及|[/,&|或和与與及、])\W*(?:(?:option|choice)\W*)?[A-Z](?![A-Za-z0-9'’])"
)


def read_reply(reply: str, choices: Sequence[str | None], answer: str = "") -> ReplyReading:
    """Reads the option that a reply names.

    Args:
        reply: text with or without thoughts, markup, reasons.
        choices: one entry a letter; None where a letter has no option.
        answer: the right answer, which counts as one more text where it is none of the options.
    """
    thoughtless = without_thoughts(reply)
    if thoughtless is None:
        return ReplyReading(None, None, UNFINISHED_THOUGHT)
    thoughtless = without_struck_out(thoughtless)
    texts = [choice for choice in choices if choice is not None]
    if answer and answer not in texts:
        texts.append(answer)
    before, after = _around_listing(thoughtless, choices)
    stated = _stated(thoughtless if after is None else f"{before}\n{after}")
    if stated is not None:
        option, found = _read(stated, choices, texts, is_stated=True, is_all=False)
        if option is not None:
            return ReplyReading(option, _letter_of(option, choices), f"stated {found}")
        if found == SEVERAL:
            return ReplyReading(None, None, SEVERAL)
    if after is None:
        option, found = _read(thoughtless, choices, texts, is_stated=False, is_all=True)
    else:
        option, found = _option_of_line(after.strip() or before, choices)
        if option is None and after.strip():  # what leads to a list may name an option without choosing it
            option, found = _read(after, choices, texts, is_stated=False, is_all=False)
    found = SEVERAL if after is not None and option is None else found
    return ReplyReading(option, None if option is None else _letter_of(option, choices), found)


def _stated(text: str) -> str | None:
    """The last thing that a text states as its answer; None if it states none."""
    for pattern in (_TAGGED, _BOXED, _IN_JSON):
        found = list(pattern.finditer(text))
        if found:
            return next((group for group in reversed(found[-1].groups()) if group), "")
    sentences = [match for match in _SENTENCE.finditer(text) if not is_doubted(text, match.start())]
    while len(sentences) > 1 and _JOINED.search(text, sentences[-2].end(), sentences[-1].start()):
        sentences.pop()
    if sentences:
        return text[sentences[-1].end() :].lstrip().split("\n", 1)[0]
    bold = set(_BOLD_LETTER.findall(text))
    return bold.pop() if len(bold) == 1 else None


def _read(
    text: str, choices: Sequence[str | None], texts: Sequence[str], *, is_stated: bool, is_all: bool
) -> tuple[str | None, str]:
    """The option that a text names and how; or None and why. ``is_all``: the text is all of the reply."""
    option, found = _of_lines(text, choices)
    if option is not None or found == SEVERAL:
        return option, found
    extracted = extract_answer(text)
    # By the published rule of words, "not a piano" names the piano; denials count where that rule finds no option.
    for wording in (extracted, without_denied(extracted, texts)):
        if (option := _of_text(wording, texts)) is not None:
            return option, "text"
    letters = _letters(text, is_stated=is_stated)
    if len(letters) == 1:
        position = ord(letters.pop()) - ord("A")
        option = choices[position] if position < len(choices) else None
        return option, "letter" if option is not None else NOTHING
    if letters:
        return None, SEVERAL
    # An option without words, such as "+", is named by any reply that names no other: the published rule of words.
    words = words_of(extracted)
    options = [option_words(one) for one in texts]
    wordless = [one for one, own in zip(texts, options, strict=True) if not own and names_option(words, own, options)]
    return (wordless[0], "text") if wordless and is_all else (None, NOTHING)


def _around_listing(text: str, choices: Sequence[str | None]) -> tuple[str, str | None]:
    """What stands before and behind the first list of all options, one a line; all and None if there is none."""
    lines = _lines(text)
    wanted = {choice for choice in choices if choice is not None}
    if not 1 < len(wanted) <= len(lines):
        return text, None
    options = [_option_of_line(line, choices)[0] for line in lines]
    for start in range(len(lines) - len(wanted) + 1):
        if options[start] is not None and set(options[start : start + len(wanted)]) == wanted:
            return "\n".join(lines[:start]), "\n".join(lines[start + len(wanted) :])
    return text, None


def _of_lines(text: str, choices: Sequence[str | None]) -> tuple[str | None, str]:
    """The option that is the whole first of several lines, and how; ``SEVERAL`` if others are other options."""
    lines = _lines(text)
    if len(lines) < 2:
        return None, NOTHING
    read = [_option_of_line(line, choices) for line in lines]
    if len({option for option, _ in read} - {None}) > 1:
        return None, SEVERAL
    if read[0][0] is None or _OFFERED.match("\n".join(lines[1:])):
        return None, NOTHING
    return read[0]


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _option_of_line(line: str, choices: Sequence[str | None]) -> tuple[str | None, str]:
    """The option that a line is, without anything else, and whether by its text or its letter."""
    line = _MARKUP.sub("", unicodedata.normalize("NFKC", line)).strip()
    bare = (match[1] for match in (_LISTED.fullmatch(line), _BULLET.fullmatch(line)) if match)
    for text in (line, *bare):
        for choice in choices:
            if choice is not None and _is_option(text, choice):
                return choice, "text"
    letter = _WHOLE.fullmatch(line)
    position = ord(letter[1].upper()) - ord("A") if letter else len(choices)
    return (choices[position] if position < len(choices) else None), "letter"


def _is_option(text: str, choice: str) -> bool:
    words = words_of(text)
    return text.strip().casefold() == choice.strip().casefold() or (bool(words) and words == option_words(choice))


def _of_text(text: str, texts: Sequence[str]) -> str | None:
    bare = text.strip().casefold()
    for one in texts:
        if bare and bare == one.strip().casefold():
            return one
    words = words_of(text)
    options = [option_words(one) for one in texts]
    named = (one for one, own in zip(texts, options, strict=True) if own and names_option(words, own, options))
    return next(named, None)


def _letters(text: str, *, is_stated: bool) -> set[str]:
    """The letters that a text names, in capitals; those it denies are left out."""
    text = _MARKUP.sub("", unicodedata.normalize("NFKC", text)).strip()
    if whole := _WHOLE.fullmatch(text):
        return {whole[1].upper()}
    if is_stated and not _SENTENCE.search(text):
        first = _FIRST.match(text)
        if first and not _OFFERED.match(text, first.end()) and not is_denied(text, first.start(1), first.end()):
            return {first[1]}
    if not is_stated and (first := _FIRST.match(text)) and _REASON.match(text, first.end()):
        return {first[1]}
    named = set()
    for pattern in (_BRACKETED, _NAMED, _LONE):
        for match in pattern.finditer(text):
            letter = (match[1] or match[match.lastindex or 1]).upper()
            is_pronoun = pattern is _LONE and letter == _PRONOUN
            if not is_pronoun and not is_denied(text, match.start(), match.end()):
                named.add(letter)
    return named


def _letter_of(option: str, choices: Sequence[str | None]) -> str | None:
    return chr(ord("A") + choices.index(option)) if option in choices else None


def read_verdict(reading: ReplyReading, item: QuestionItem, reply: str, details: Mapping[str, Any]) -> Verdict:
    """The verdict on a reply that was read, with how it was read beside ``details``."""
    option = reading.option
    told = {**details, "option_read": reading.letter, "read_from": reading.how}
    is_blank = not reply.strip()
    return Verdict(
        counted=True,
        correct=option is not None and is_same_option(option, item.answer),
        missing=option is None and is_blank,
        unreadable=option is None and not is_blank,
        details=told,
    )


def is_same_option(one: str, other: str) -> bool:
    """Whether two texts are one option: equal, or of equal words."""
    return one == other or option_words(one) == option_words(other)
