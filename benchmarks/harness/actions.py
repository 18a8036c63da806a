"""What can be done with a benchmark, by name: the sub-commands of its script and of ``audiollm bench``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_type_hints

from audiollm.program import run_program

from .options import check_output

Actions = Mapping[str, Callable[[Any], None]]
"""Functions of one config, a dataclass named in their last annotation: its fields are the interface, and the first line
of the function's docstring says what it does.

The action ``run`` is what the name of the benchmark alone stands for.
"""


def run_action(actions: Actions, *, name: str, arguments: Sequence[str] | None = None) -> None:
    """Runs one of the actions of a benchmark as a program.

    Args:
        actions: by name.
        name: of the program, in messages.
        arguments: the command line; that of the process if None. Its first may name the action.

    Raises:
        SystemExit: with status 1 and one line on stderr after an error that users can mend.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(actions) == 1 and given[:1] != list(actions):
        given = [*actions, *given]
    wants_help = not given or given[0] in ("--help", "-h")
    if "run" in actions and not wants_help and given[0] not in actions:
        given = ["run", *given]
    action = _action_parser(actions, name).parse_args(given[:1]).action
    told = name if action == "run" else f"{name} {action}"
    # Results go to stdout; what is logged beside them are warnings.
    run_program(
        config_class(actions[action]),
        partial(_run_checked, actions[action]),
        name=told,
        level=logging.WARNING,
        arguments=given[1:],
        with_dashes=True,
    )


def _run_checked(action: Callable[[Any], None], config: Any) -> None:
    check_output(config)
    action(config)


def config_class(action: Callable[[Any], None]) -> type[Any]:
    """The config that an action takes."""
    function = action.func if isinstance(action, partial) else action
    found: type[Any] = get_type_hints(function)["config"]
    return found


def _action_parser(actions: Actions, name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    commands = parser.add_subparsers(dest="action", required=True)
    for name_of_action, action in actions.items():
        function = action.func if isinstance(action, partial) else action
        commands.add_parser(name_of_action, help=(function.__doc__ or "").partition("\n")[0], add_help=False)
    return parser
