"""Programs: a function or a config class as a command, whose user errors are one line and exit status 1."""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import auto_cli, set_parsing_settings

from .listed_objects import given_options, refuse_malformed_lists
from .missing_values import refuse_missing_values
from .parser import DashedParser, GuessingParser, as_option
from .spelling import option_types, spelt_out


class ProgramError(RuntimeError):
    """A failure that ends a program with its message; derive from it where none of `USER_ERRORS` says what it is.

    Attributes:
        status: what the program ends with.
    """

    status = 1


INTERRUPTED_STATUS = 130
GONE_READER_STATUS = 141
"""As shells have them: 128 and the number of SIGINT or SIGPIPE."""
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
    options = option_types(component) if with_dashes else ()
    with errors_as_one_line(name or Path(sys.argv[0]).stem, options):
        spelt = spelt_out(sys.argv[1:] if arguments is None else arguments, component)
        for path in _config_files(spelt):
            settings = check_config_file(path)
            refuse_missing_values(str(path), settings, component)
            refuse_malformed_lists(str(path), settings if isinstance(settings, dict) else {}, component)
        refuse_malformed_lists("", given_options(spelt), component)
        made = auto_cli(
            component,
            args=spelt,
            as_positional=False,
            return_instance=inspect.isclass(component),  # or else a config's properties become sub-commands
            prog=name,
            allow_abbrev=False,
            parser_class=DashedParser if with_dashes else GuessingParser,
        )
        return made if run is None else run(made)


def _config_files(arguments: Sequence[str]) -> list[Path]:
    """Files that ``--config`` names; whether they are there is the parser's to say."""
    values = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    values += [value for option, value in itertools.pairwise(arguments) if option == "--config"]
    return [Path(value) for value in values if os.path.isfile(value)]


def check_config_file(path: Path) -> Any:
    """Refuses YAML whose few bytes would take minutes, gigabytes or the stack, and keys that are there twice.

    The events of the file are counted one by one, before anything is made of them: no run's settings look like that. Of
    a key that is there twice, YAML takes the last value and says nothing.

    Returns:
        What it holds.

    Raises:
        ValueError: naming the file, and what is too much in it, or is no YAML of plain values.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; settings have at most {MAX_CONFIG_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_events(path, text)
        _refuse_repeated_keys(path, yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _no_yaml(path, error) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none
        raise _no_yaml(path, error) from error


def _no_yaml(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}")


def _check_events(path: Path, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{path}: aliases (*{event.anchor}) are not accepted; write the value out")
        tag = getattr(event, "tag", None)  # as it is written; most values have none
        if tag is not None and tag not in yaml.SafeLoader.yaml_constructors:
            raise ValueError(f"{path}: tags ({tag}) are not accepted; write a plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_CONFIG_DEPTH:
            raise ValueError(f"{path} is nested more than {MAX_CONFIG_DEPTH} deep")


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(path, item)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if (first := seen.get(key.value)) is not None:
                    lines = f"line {line}" if first == line else f"lines {first} and {line}"
                    raise ValueError(f"{path}: {key.value} is there twice, in {lines}; keep one")
                seen[key.value] = line
            _refuse_repeated_keys(path, value)


def log_to_stderr(level: int) -> None:
    """Starts the logging of a program, unless it has been started."""
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: not record.name.startswith("huggingface_hub"))  # which writes there itself
    handler.setFormatter(_LogLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


# What jsonargparse says of settings that may be left out: that they are not None is no news to who has given them.
_OPTIONAL_SETTINGS = re.compile(
    r"\ADoes not validate against any of the Union subtypes\nSubtypes: .*\nErrors:\n  - (.*)\n"
    r"  - Expected a <class 'NoneType'>\nGiven value type: .*\nGiven value: .*\Z"
)


class _LogLines(logging.Formatter):
    """What a program says about itself is a plain line; warnings also tell where they come from."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno != logging.INFO or not record.name.startswith("audiollm"):
            return super().format(record)
        return record.getMessage().removeprefix("[RANK 0] ")  # accelerate says so in every line, and of no other


@contextmanager
def errors_as_one_line(name: str, options: Collection[str] = ()) -> Iterator[None]:
    """Ends the process with ``name: error: …`` on stderr and status 1 where users can mend what went wrong.

    Ctrl-C ends it in one line, and a reader of stdout that is gone without a word, each with the status that shells
    give for it.

    Args:
        name: of the program.
        options: settings that an error names as ``max_clips=0: …`` and users as ``--max-clips``; they are called so.

    ``AUDIOLLM_TRACEBACK=1`` lets the error through, to see where it came from. Other errors are ours: they keep their
    traceback.
    """
    try:
        try:
            yield
        finally:
            _flush_stdout()
    except (KeyboardInterrupt, *USER_ERRORS) as error:
        if os.environ.get("AUDIOLLM_TRACEBACK") == "1":
            raise
        raise SystemExit(_told(error, name, options)) from error


def _told(error: BaseException, name: str, options: Collection[str]) -> int:
    """Says on stderr why a program ends, and returns its exit status."""
    if isinstance(error, BrokenPipeError):  # whoever read what is written, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes what is left at its end
        return GONE_READER_STATUS
    if isinstance(error, KeyboardInterrupt):
        after_the_echo = "\n" if sys.stderr.isatty() else ""  # of ^C
        sys.stderr.write(f"{after_the_echo}{name}: interrupted\n")
        return INTERRUPTED_STATUS
    assert isinstance(error, Exception)
    sys.stderr.write(f"{name}: error: {_with_options(_message(error), options)}\n")
    return error.status if isinstance(error, ProgramError) else 1


def _flush_stdout() -> None:
    """Hands on what is written now, while it can still be told that nobody reads it."""
    if sys.stdout is not None:
        sys.stdout.flush()


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
    return _OPTIONAL_SETTINGS.sub(r"\1", str(error))


def _told_path(path: Any) -> str:
    return path if isinstance(path, str) else os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
