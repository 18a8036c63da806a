"""Options that have no effect beside others: refused, since who gives one expects something of it."""

from __future__ import annotations

import dataclasses
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
