"""How options may be typed: with ``-`` or ``_``, switches alone, tuples as one value or as several."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def spelt_out(arguments: Sequence[str], component: Callable[..., Any]) -> list[str]:
    """The command line in the one spelling that jsonargparse reads.

    Args:
        arguments: the command line; what is no option of ``component`` keeps its place.
        component: the function or config class that is to be made of it.
    """
    types = option_types(component)
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


def option_types(component: Callable[..., Any]) -> dict[str, Any]:
    """Option (dotted where configs nest) → its type, without None."""
    return {name: _without_none(annotation) for name, annotation in annotations_of(component).items()}


def annotations_of(component: Callable[..., Any]) -> dict[str, Any]:
    """Option (dotted where configs nest) → what it is annotated with."""
    hints = get_type_hints(component)
    if dataclasses.is_dataclass(component):
        hints = {field.name: hints[field.name] for field in dataclasses.fields(component)}
    annotations: dict[str, Any] = {}
    for name, annotation in hints.items():
        annotations[name] = annotation
        kind = _without_none(annotation)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            annotations |= {f"{name}.{inner}": its for inner, its in annotations_of(kind).items()}
    return annotations


def _without_none(annotation: Any) -> Any:
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [choice for choice in choices if choice is not type(None)]
    return kinds[0] if len(kinds) == 1 else annotation


def _as_list(values: Sequence[str], item_type: Any) -> str:
    """Values of a tuple as one JSON list; a list, or null, stays what it is."""
    if len(values) == 1:
        if values[0] == "null" or values[0].startswith("["):
            return values[0]
        values = [value for value in values[0].split(",") if value]
    return f"[{','.join(values if item_type in (int, float) else map(json.dumps, values))}]"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What may be meant by a name that does not exist, as in ``; did you mean data?``; "" where nothing is alike."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
