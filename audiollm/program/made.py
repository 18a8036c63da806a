"""Configs made of what a YAML file holds: names and types are checked, and messages say where in the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from .missing_values import refuse_missing_values
from .parser import kind_of, wanted
from .spelling import did_you_mean


def made_of(
    kind: Any, given: Mapping[str, Any], where: str, *, examples: Mapping[str, str] | None = None, **ready: Any
) -> Any:
    """A config out of its settings, of which jsonargparse checks names and types.

    Args:
        kind: the dataclass.
        given: its settings as YAML has them.
        where: file and place, for messages.
        examples: by setting, what fits it, in words; by its type if it is not there.
        ready: fields that are there already.

    Raises:
        ValueError: naming the place, the setting and what is wrong: there is none of this name, or its value does not
            fit.
    """
    refuse_missing_values(where, given, kind)
    known = [field.name for field in dataclasses.fields(kind) if field.name not in ready]
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: {key!r} is not known{did_you_mean(str(key), known)}; use {', '.join(known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=set(ready))
    try:
        settings = parser.parse_object(dict(given))
        return kind(**{key: getattr(settings, key) for key in vars(settings)}, **ready)
    except ArgumentError as error:
        raise ValueError(f"{where}: {_told(error, parser, examples or {})}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _told(error: ArgumentError, parser: ArgumentParser, examples: Mapping[str, str]) -> str:
    """What jsonargparse says over several lines, as one, and what would fit."""
    found = re.search(r'Parser key "(\w+)":.* value:(?: (.*))?\Z', str(error), re.DOTALL)
    if found is None:
        return " ".join(line.strip(" -") for line in str(error).splitlines())
    key, value = found[1], found[2] or "an empty text"
    kind = next((kind_of(action) for action in parser._actions if action.dest == key), None)
    fitting = examples.get(key) or ("a text" if kind is str else wanted(kind))
    return f"{key}: {value} does not fit; give {fitting}"
