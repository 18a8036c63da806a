"""Options that have no effect beside others: refused, since who gives one expects something of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from audiollm.data.files.replacing import refuse_existing
from audiollm.program import as_option


def refuse_idle(config: Any, names: Sequence[str], where: str) -> None:
    """Refuses options that nothing will be read of.

    Args:
        config: a dataclass; an option is given if its value is not the default.
        names: of fields that have no effect.
        where: what makes it so, such as "with an endpoint".

    Raises:
        ValueError: naming the options.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    given = [as_option(name) for name in names if getattr(config, name) != defaults[name]]
    if given:
        have, them = ("has", "it") if len(given) == 1 else ("have", "them")
        raise ValueError(f"{', '.join(given)} {have} no effect {where}: leave {them} out")


def refuse_below(config: Any, least: float, names: Sequence[str], *, reached: bool = True) -> None:
    """Refuses numbers that make no sense, alone or in lists, and empty lists.

    Args:
        config: a dataclass.
        least: that they may be.
        names: of fields: numbers, or tuples of them.
        reached: whether they may be ``least`` itself.

    Raises:
        ValueError: naming the option and the value.
    """
    for name in names:
        given = getattr(config, name)
        values = given if isinstance(given, tuple) else (given,)
        if not values:
            raise ValueError(f"{name} is empty: name at least one")
        for value in values:
            if not (least < value < math.inf or (reached and value == least)):
                raise ValueError(
                    f"{name}={value:g}: use " + (f"{least:g} or more" if reached else f"more than {least:g}")
                )


def check_output(config: Any) -> None:
    """Refuses an output that exists, where an action takes ``overwrite``; without an output that says nothing.

    Raises:
        ValueError: see above.
    """
    if not hasattr(config, "overwrite"):
        return  # the action goes on with what is there, or refuses it itself
    if config.output is None:
        refuse_idle(config, ["overwrite"], "without --output")
    else:
        refuse_existing(config.output, config.overwrite)
