"""Programs: a function or a config class as a command, whose user errors are one line and exit status 1."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli, set_parsing_settings

USER_ERRORS: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, subprocess.CalledProcessError)
"""What a user can cause and mend: a wrong value, a file, a missing extra, a program started by ours that failed."""


class ProgramError(RuntimeError):
    """A failure that ends a program with its message; derive from it where none of ``USER_ERRORS`` says what it is."""


def run_program(
    component: Callable[..., Any],
    run: Callable[[Any], Any] | None = None,
    *,
    name: str | None = None,
    level: int = logging.INFO,
    arguments: Sequence[str] | None = None,
) -> Any:
    """Runs a function, or ``run`` with a config, as flags and YAML files say.

    Every parameter or field is a flag, ``--config FILE`` reads several from YAML or JSON; docstrings are the help.
    A flag that does not exist, or does not fit its type, ends with argparse's exit status 2.

    Args:
        component: the function to call, or the config class to make.
        run: what is done with the config; None returns what ``component`` returns.
        name: of the program, in messages of errors; the script's name if None.
        level: of what is logged to stderr.
        arguments: the command line; that of the process if None.

    Returns:
        What ``run``, or ``component``, returns.

    Raises:
        SystemExit: with status 1 and one line on stderr after an error that users can mend.
    """
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Not at import: the setting holds for the process, and this module is imported by what is no program, too.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    with errors_as_one_line(name or Path(sys.argv[0]).stem):
        made = auto_cli(
            component,
            args=None if arguments is None else list(arguments),
            as_positional=False,
            allow_abbrev=False,
        )
        return made if run is None else run(made)


@contextmanager
def errors_as_one_line(name: str) -> Iterator[None]:
    """Ends the process with ``name: error: …`` on stderr and status 1 where users can mend what went wrong.

    ``AUDIOLLM_TRACEBACK=1`` lets the error through, to see where it came from. Other errors are ours: they keep their
    traceback.
    """
    try:
        yield
    except (*USER_ERRORS, ProgramError) as error:
        if os.environ.get("AUDIOLLM_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"{name}: error: {_message(error)}\n")
        raise SystemExit(1) from error


def _message(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        return f"`{command}` failed with exit status {error.returncode}; its own message is above"
    return str(error)
