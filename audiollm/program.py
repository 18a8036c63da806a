"""Programs: a function or a config class as a command, whose user errors are one line and exit status 1."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, auto_cli, set_parsing_settings


class ProgramError(RuntimeError):
    """A failure that ends a program with its message; derive from it where none of `USER_ERRORS` says what it is.

    Attributes:
        status: what the program ends with.
    """

    status = 1


MAX_CONFIG_BYTES = 1 << 18
MAX_CONFIG_DEPTH = 32
USER_ERRORS = (ValueError, OSError, ImportError, subprocess.CalledProcessError, ProgramError)
"""What a user can cause and mend: a wrong value, a file, a missing extra, a program of ours that failed."""


def run_program(
    component: Callable[..., Any],
    run: Callable[[Any], Any] | None = None,
    *,
    name: str | None = None,
    level: int = logging.INFO,
    arguments: Sequence[str] | None = None,
    with_dashes: bool = False,
) -> Any:
    """Runs a function, or ``run`` with a config, as flags and YAML files say.

    Every parameter or field is a flag, ``--config FILE`` reads several from YAML or JSON; docstrings are the help.
    ``--num-clips`` is ``--num_clips``, ``-o`` is the option of the output, a bool is a switch (``--quiet``, ``--quiet
    false``), and a tuple takes its values as ``--seeds 0 1``, ``--seeds 0,1`` or ``--seeds [0,1]``. A flag that does
    not exist, or does not fit its type, ends with argparse's exit status 2.

    Args:
        component: the function to call, or the config class to make.
        run: what is done with the config; None returns what ``component`` returns.
        name: of the program, in its help and its errors; the script's name if None.
        level: of what is logged to stderr.
        arguments: the command line; that of the process if None.
        with_dashes: whether help and errors call options ``--num-clips``, which may be typed either way.

    Returns:
        What ``run``, or ``component``, returns.

    Raises:
        SystemExit: with status 1 and one line on stderr after an error that users can mend.
    """
    log_to_stderr(level)
    # Not at import: the setting holds for the process, and this module is imported by what is no program, too.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    options = _option_types(component) if with_dashes else ()
    with errors_as_one_line(name or Path(sys.argv[0]).stem, options):
        spelt = spelt_out(sys.argv[1:] if arguments is None else arguments, component)
        for path in _config_files(spelt):
            check_config_file(path)
        made = auto_cli(
            component,
            args=spelt,
            as_positional=False,
            return_instance=inspect.isclass(component),  # or else a config's properties become sub-commands
            prog=name,
            allow_abbrev=False,
            parser_class=DashedParser if with_dashes else ArgumentParser,
        )
        return made if run is None else run(made)


def _config_files(arguments: Sequence[str]) -> list[Path]:
    """Files that ``--config`` names; whether they are there is the parser's to say."""
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    values += [value for option, value in itertools.pairwise(arguments) if option == "--config"]
    return [Path(value) for value in values if os.path.isfile(value)]


def check_config_file(path: Path) -> None:
    """Refuses YAML whose few bytes would take minutes, gigabytes or the stack: no run's settings look like that.

    The events of the file are counted one by one, before anything is made of them.

    Raises:
        ValueError: naming the file, and what is too much in it.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; settings have at most {MAX_CONFIG_BYTES}")
    depth = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{path}: aliases (*{event.anchor}) are not accepted; write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_CONFIG_DEPTH:
                raise ValueError(f"{path} is nested more than {MAX_CONFIG_DEPTH} deep")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def log_to_stderr(level: int) -> None:
    """Starts the logging of a program, unless it has been started."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _LogLines(logging.Formatter):
    """What a program says about itself is a plain line; warnings also tell where they come from."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno != logging.INFO or not record.name.startswith("audiollm"):
            return super().format(record)
        return record.getMessage().removeprefix("[RANK 0] ")  # accelerate says so in every line, and of no other


def spelt_out(arguments: Sequence[str], component: Callable[..., Any]) -> list[str]:
    """The command line in the one spelling that jsonargparse reads.

    Args:
        arguments: the command line; what is no option of ``component`` keeps its place.
        component: the function or config class that is to be made of it.
    """
    types = _option_types(component)
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = with_named_option(rest.pop(0), types)
        if not argument.startswith("--"):
            result.append(argument)
            continue
        option, equals, value = argument.partition("=")
        annotation = types.get(option[2:])
        values = [value] if equals else []
        if annotation is bool and not equals:
            values = [rest.pop(0)] if rest and rest[0].lower() in ("true", "false", "null") else ["true"]
        elif get_origin(annotation) in (tuple, list):
            while not equals and rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            values = [_as_list(values, get_args(annotation)[0])] if values else []
        result.append("=".join([option, *values]))
    return result


def with_named_option(argument: str, options: Collection[str]) -> str:
    """An argument whose option, if it has one, is called as the parser calls it.

    ``--skip-bad`` is ``--skip_bad``; ``-o`` is the file or the folder that the program writes.

    Args:
        argument: of the command line, ``--option``, ``--option=value`` or a value.
        options: those that the program has.
    """
    option, equals, value = argument.partition("=")
    if option == "-o":
        option = next((f"--{name}" for name in ("output", "output_dir") if name in options), option)
    elif option.startswith("--"):
        named = option[2:].replace("-", "_")
        # Others keep their spelling, for the parser will quote it; it alone knows all that nests below a dot.
        option = f"--{named}" if named in options or "." in named else option
    return option + equals + value


def _is_option(argument: str) -> bool:
    """Whether it begins another option; ``-1`` and ``-0.5,0.5`` are values."""
    if not argument.startswith("-"):
        return False
    try:
        [float(value) for value in argument.split(",")]
    except ValueError:
        return True
    return False


def _option_types(component: Callable[..., Any]) -> dict[str, Any]:
    """Option (dotted where configs nest) → its type, without None."""
    hints = get_type_hints(component)
    if dataclasses.is_dataclass(component):
        hints = {field.name: hints[field.name] for field in dataclasses.fields(component)}
    types: dict[str, Any] = {}
    for name, annotation in hints.items():
        choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        kinds = [choice for choice in choices if choice is not type(None)]
        types[name] = kinds[0] if len(kinds) == 1 else annotation
        if dataclasses.is_dataclass(types[name]):
            types |= {f"{name}.{inner}": kind for inner, kind in _option_types(types[name]).items()}
    return types


def _as_list(values: Sequence[str], item_type: Any) -> str:
    """Values of a tuple as one JSON list; a list, or null, stays what it is."""
    if len(values) == 1:
        if values[0] == "null" or values[0].startswith("["):
            return values[0]
        values = [value for value in values[0].split(",") if value]
    return f"[{','.join(values if item_type in (int, float) else map(json.dumps, values))}]"


def as_option(name: str) -> str:
    """An option as the pages write it: ``--max-clips`` of ``max_clips``."""
    return f"--{name.replace('_', '-')}"


class DashedParser(ArgumentParser):
    """A parser whose help and errors call options as the pages do: ``--max-clips``, where it knows ``--max_clips``."""

    def format_help(self, *args: Any) -> str:
        return _with_dashes(super().format_help(*args))

    def format_usage(self, *args: Any) -> str:
        return _with_dashes(super().format_usage(*args))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        told = re.sub(r'(?:Parser key|Key|key) "([\w.]+)"', lambda match: self._called(match[1]), message)
        beginning, colon, names = told.partition("arguments are required: ")
        if colon:
            told = beginning + colon + ", ".join(map(self._called, names.split(", ")))
        super().error(_with_dashes(told), ex)

    def _called(self, key: str) -> str:
        """An argument as it is typed: one that is given by its place has its name alone."""
        command, _, name = key.rpartition(".")
        commands = self._subcommands_action._name_parser_map if self._subcommands_action is not None else {}
        parser = commands.get(command, self)
        return as_option(name) if f"--{name}" in parser._option_string_actions else name


def _with_dashes(text: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][a-z\d]*(?:_[a-z\d]+)+", lambda option: option[0].replace("_", "-"), text)


@contextmanager
def errors_as_one_line(name: str, options: Collection[str] = ()) -> Iterator[None]:
    """Ends the process with ``name: error: …`` on stderr and status 1 where users can mend what went wrong.

    Args:
        name: of the program.
        options: settings that an error names as ``max_clips=0: …`` and users as ``--max-clips``; they are called so.

    ``AUDIOLLM_TRACEBACK=1`` lets the error through, to see where it came from. Other errors are ours: they keep their
    traceback.
    """
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("AUDIOLLM_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"{name}: error: {_with_options(_message(error), options)}\n")
        raise SystemExit(error.status if isinstance(error, ProgramError) else 1) from error


def _with_options(message: str, options: Collection[str]) -> str:
    """A message whose beginning names settings, with the options in their place."""
    beginning, colon, rest = message.partition(": ")

    def called(match: re.Match[str]) -> str:
        return as_option(match[1]) + "=" if match[1] in options else match[0]

    return re.sub(r"(?<![^\s(])(\w+)=(?=[^\s/]*(?:[\s,]|$))", called, beginning) + colon + rest


def _message(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        return f"`{command}` failed with exit status {error.returncode}; its own message is above"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        both = f" and {os.fspath(error.filename2)}" if error.filename2 is not None else ""
        return f"{_told_path(error.filename)}{both}: {(error.strerror or 'cannot be used').lower()}"
    return str(error)


def _told_path(path: Any) -> str:
    return path if isinstance(path, str) else os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
