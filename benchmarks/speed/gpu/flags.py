"""Flags of a config class by argparse alone, for machines that are lent with little more than torch installed."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any


def run_program(
    component: Callable[..., Any],
    run: Callable[[Any], Any],
    *,
    level: int = logging.INFO,
    arguments: Sequence[str] | None = None,
) -> Any:
    """Runs ``run`` with a config as flags say: what `audiollm.program.run_program` does, without files of settings.

    Args:
        component: a dataclass of switches, numbers, texts and tuples of texts, all with defaults.
        run: what is done with it.
        level: of what is logged to stderr.
        arguments: the command line; that of the process if None.

    Raises:
        SystemExit: with one line on stderr after a ValueError or OSError.
    """
    logging.basicConfig(level=level)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for field in dataclasses.fields(component):  # type: ignore[arg-type]
        kind = str(field.type)
        options: dict[str, Any] = {"nargs": "+"} if kind.startswith("tuple") else {}
        if kind == "bool":
            options = {"action": "store_true"}
        elif kind == "float":
            options = {"type": float}
        spellings = dict.fromkeys((f"--{field.name}", f"--{field.name.replace('_', '-')}"))
        parser.add_argument(*spellings, default=field.default, help=f"default: {field.default}", **options)
    try:
        return run(component(**vars(parser.parse_args(arguments))))
    except (ValueError, OSError) as error:
        raise SystemExit(f"{parser.prog}: error: {error}") from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{parser.prog}: interrupted\n")
        raise SystemExit(130) from error
