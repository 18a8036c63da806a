"""The script with which a shell completes commands, options, what they take, and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from audiollm.program import kind_of, names_of

from .bench import BENCHMARKS
from .training import TRAINERS, launch_parser

Shell = Literal["bash", "zsh", "fish"]


def completion_script(parser: Any, shell: Shell) -> str:
    """Writes the script.

    Args:
        parser: of the ``audiollm`` command. It is of no other use behind this.
        shell: whose.
    """
    import shtab

    commands: Mapping[str, Any] = parser._subcommands_action.choices
    commands["bench"].add_argument("benchmark", choices=tuple(BENCHMARKS))
    for name in TRAINERS:
        commands[name]._actions += launch_parser(name)._actions
    for one in (parser, *commands.values()):
        for action in one._actions:
            _prepare(action, shtab.FILE)
    script: str = shtab.complete(parser, shell)
    return script.rstrip() + "\n"


def _prepare(action: argparse.Action, files: object) -> None:
    """Says what completes an argument: its choices, or the names of files, but none for a number."""
    action.option_strings = names_of(action)
    kind = kind_of(action)
    if action.choices is None and get_origin(kind) is Literal:
        action.choices = get_args(kind)
    if action.choices is None and action.nargs != 0 and kind in (str, None):
        action.complete = files  # type: ignore[attr-defined]  # shtab looks for it
