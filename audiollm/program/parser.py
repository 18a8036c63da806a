"""The parser of programs: options are called as the pages call them, and ``--help`` says what people ask for."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from jsonargparse._actions import NonParsingAction  # what is no setting, such as --help and --version
from jsonargparse._required import restore_suppressed_required

from .option_groups import HEADINGS, OPTION_GROUPS
from .spelling import did_you_mean


def as_option(name: str) -> str:
    """An option as the pages write it: ``--max-clips`` of ``max_clips``."""
    return f"--{name.replace('_', '-')}"


def be_verbose() -> None:
    """Logs what is done, too, and not only warnings."""
    logging.getLogger().setLevel(logging.INFO)


class _VerboseAction(NonParsingAction):
    """``--verbose``: acts as soon as it is read."""

    def __init__(self, option_strings: Sequence[str], dest: str = argparse.SUPPRESS, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, *_: Any) -> None:
        be_verbose()


class HelpFormatter(DefaultHelpFormatter):
    """Help without the types of Python: what an option is for, what fits it, and what holds if it isn't given."""

    def _expand_help(self, action: argparse.Action) -> str:
        told = action.help or ""  # as it stands: a % in it is a %
        if action.required and action.option_strings:
            return f"{told} (required)"
        shown = _shown_default(action)
        return f"{told} (default: {shown})" if shown else told

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return str(super()._format_action_invocation(action))
        called = ", ".join(names_of(action))
        return called if _is_switch(action) else f"{called} {_shown_value(action)}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return _shown_value(action) if action.option_strings else str(super()._format_args(action, default_metavar))

    def _format_usage(self, usage: Any, actions: Iterable[argparse.Action], *rest: Any) -> str:
        """The shortest command: what may be left out is listed below it."""
        needed = [action for action in actions if not action.option_strings or action.required]
        program, self._prog = self._prog, f"{self._prog} [options]"
        try:
            return str(super()._format_usage(usage, needed, *rest))
        finally:
            self._prog = program

    def _format_action(self, action: argparse.Action) -> str:
        groups: Mapping[str, Sequence[str]] = getattr(action, "command_groups", {})
        if not groups:
            return str(super()._format_action(action))
        commands = {command.dest: command for command in action._get_subactions()}  # type: ignore[attr-defined]
        parts = []
        for heading, names in groups.items():
            parts.append(f"{'':{self._current_indent}}{heading}:\n")
            self._indent()
            parts += [self._format_action(commands[name]) for name in names]
            self._dedent()
        return self._join_parts(parts)


def names_of(action: argparse.Action) -> list[str]:
    """How an option may be typed, ``-o`` of the output too; empty for what is given by its place."""
    short = ["-o"] * bool({"--output", "--output_dir"} & set(action.option_strings))
    return short + [_with_dashes(name) for name in action.option_strings]


def kind_of(action: argparse.Action) -> Any:
    """The type of an argument, without None."""
    kind = getattr(action, "_typehint", None) or action.type
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    return choices[0] if get_origin(kind) in (Union, UnionType) and len(choices) == 1 else kind


def _is_switch(action: argparse.Action) -> bool:
    return action.nargs == 0 or kind_of(action) is bool


def _shown_value(action: argparse.Action) -> str:
    """What stands for the value of an option, such as ``N`` or ``{first,mean}``."""
    if action.metavar is not None:
        return str(action.metavar)
    if action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    return _shown_kind(kind_of(action), action.option_strings[-1].rpartition(".")[2])


def _shown_kind(kind: Any, name: str) -> str:
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if get_origin(kind) in (tuple, list):
        items = ("..." if item is Ellipsis else _shown_kind(item, name.removesuffix("s")) for item in get_args(kind))
        return f"[{','.join(items)}]"
    return {int: "N", float: "X"}.get(kind, re.split("[-_]", name)[-1].upper())


def wanted(kind: Any) -> str:
    """What fits a type, in words; empty where the type says too little."""
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}" if others else last
    if get_origin(kind) in (tuple, list):
        return f"values as in {_shown_kind(kind, 'value')}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "")


def _shown_default(action: argparse.Action) -> str:
    """The default of an option where it tells something: no switch is set, and nothing is given, by default."""
    default = action.default
    if not action.option_strings or default is None or default is False or default in ("", (), argparse.SUPPRESS):
        return ""
    if isinstance(default, bool):
        return "true"
    if isinstance(default, (tuple, list)):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


@dataclass(frozen=True)
class _Section:
    """A group of arguments as argparse shows it."""

    title: str | None
    description: str | None
    _group_actions: list[argparse.Action]


def _sections(groups: Iterable[Any]) -> list[Any]:
    """The arguments of a parser under the headings of `OPTION_GROUPS`; what is none of those stays where it was."""
    told: dict[str, list[argparse.Action]] = {heading: [] for heading in OPTION_GROUPS}
    others: list[_Section] = []
    for group in groups:
        rest: list[argparse.Action] = []
        for action in group._group_actions:
            name = action.option_strings[-1][2:].replace("-", "_") if action.option_strings else ""
            (told[HEADINGS[name]] if name in HEADINGS else rest).append(action)
        others.append(_Section(_HEADINGS_OF_ARGPARSE.get(group.title, group.title), group.description, rest))
    return [*others, *(_Section(heading, None, actions) for heading, actions in told.items())]


_HEADINGS_OF_ARGPARSE = {"positional arguments": "arguments"}


def with_guess(parser: ArgumentParser, message: str) -> str:
    """A message about an option that a parser does not know, with what may have been meant by it."""
    _, colon, rest = message.partition("unrecognized arguments: ")
    unknown = next((word.partition("=")[0] for word in rest.split() if word.startswith("--")), None)
    if not colon or unknown is None:
        return message
    return message + did_you_mean(f"--{unknown[2:].replace('-', '_')}", parser._option_string_actions)


class GuessingParser(ArgumentParser):
    """A parser that says what may have been meant by an option that it does not know."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(with_guess(self, message), ex)


class DashedParser(ArgumentParser):
    """A parser whose help and errors call options as the pages do: ``--max-clips``, where it knows ``--max_clips``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, formatter_class=HelpFormatter, **settings)
        self.add_argument("--verbose", action=_VerboseAction, help="Say what is done, and show bars of loading.")

    def format_help(self, *args: Any) -> str:
        groups, self._action_groups = self._action_groups, _sections(self._action_groups)
        try:
            return _with_dashes(super().format_help(*args))
        finally:
            self._action_groups = groups

    def format_usage(self, *args: Any) -> str:
        with restore_suppressed_required():  # as jsonargparse does for its help
            return _with_dashes(super().format_usage(*args))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser: Any = self
        told = self._without_types(message)
        told = re.sub(r'(?:Parser key|Key|key) "([\w.]+)"', lambda match: self._called(match[1]), told)
        told = re.sub(r'expected "subcommand" to be one of .*', "the following arguments are required: COMMAND", told)
        beginning, colon, names = told.partition("arguments are required: ")
        if colon:
            parser = self._commands().get(names.split(", ")[0].rpartition(".")[0], self)
            told = beginning + colon + ", ".join(map(self._called, names.split(", ")))
        super(DashedParser, parser).error(_with_dashes(with_guess(parser, told)), ex)

    def _without_types(self, message: str) -> str:
        """A message about a value that does not fit, without what Python calls it."""
        told = re.match(
            r'(?:Parser key|Key|key) "([\w.]+)":\n.*Expected a .*(?:Given|Got) value: (.*)', message, re.DOTALL
        )
        if told is None:
            return message
        parser, name = self._owner(told[1])
        action = next((action for action in parser._actions if action.dest == name), None)
        fitting = wanted(kind_of(action)) if action is not None else ""
        return f"{self._called(told[1])}: give {fitting}, not {told[2]}" if fitting else message

    def _commands(self) -> Mapping[str, Any]:
        return self._subcommands_action._name_parser_map if self._subcommands_action is not None else {}

    def _owner(self, key: str) -> tuple[Any, str]:
        """The parser that knows an argument, and what it calls it."""
        command, _, name = key.partition(".")
        return (self._commands()[command], name) if command in self._commands() else (self, key)

    def _called(self, key: str) -> str:
        """An argument as it is typed: one that is given by its place has its name alone."""
        parser, name = self._owner(key)
        return as_option(name) if f"--{name}" in parser._option_string_actions else name


def _with_dashes(text: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][a-z\d]*(?:_[a-z\d]+)+", lambda option: option[0].replace("_", "-"), text)
