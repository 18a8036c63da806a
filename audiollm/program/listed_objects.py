"""Settings that are lists of objects, such as rewards: refused in a line where jsonargparse would need fifteen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml

from .spelling import option_types


def refuse_malformed_lists(
    where: str, given: Mapping[str, Any], component: Callable[..., Any], prefix: str = ""
) -> None:
    """Refuses what is no list of objects with the right names, where a setting is one.

    Args:
        where: the file, for messages; "" is the command line.
        given: settings, as YAML has them; those that nest may be dotted.
        component: the function or config class that is to be made of them.
        prefix: dotted name of what holds them.

    Raises:
        ValueError: naming the setting, its value, and what it should look like.
    """
    types = option_types(component)
    for name, value in given.items():
        dotted = f"{prefix}{name}"
        item = _item_of(types.get(dotted))
        if item is not None:
            _check(f"{where}: {dotted}" if where else dotted, value, item)
        elif isinstance(value, Mapping):
            refuse_malformed_lists(where, value, component, f"{dotted}.")


def given_options(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, as they are spelt out, with the values that YAML makes of theirs."""
    pairs = [
        argument[2:].partition("=")[::2] for argument in arguments if argument.startswith("--") and "=" in argument
    ]
    pairs += [
        (option[2:], value)
        for option, value in itertools.pairwise(arguments)
        if option.startswith("--") and "=" not in option and not value.startswith("--")
    ]
    return {name: _loaded(value) for name, value in pairs}


def _loaded(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return value


def _item_of(annotation: Any) -> type | None:
    """The config class that a list or tuple holds; None if it holds something else."""
    if get_origin(annotation) not in (list, tuple):
        return None
    item = get_args(annotation)[0]
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def _check(name: str, value: Any, item: type) -> None:
    fields = dataclasses.fields(item)
    needed = [one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING]
    free = [one.name for one in fields if one.name not in needed]
    example = "[{" + ", ".join(f"{one}: …" for one in needed or free[:1]) + "}]"
    also = f" ({', '.join(free)} may stand beside {' and '.join(needed)})" if needed and free else ""
    told = f"give a list of objects, such as '{example}'{also}"
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"{name}={value}: {told}")
    for one in value:
        unknown = [str(key) for key in one if key not in needed + free]
        missing = [key for key in needed if key not in one]
        if unknown or missing:
            what = f"has no {missing[0]}" if missing else f"{unknown[0]!r} is not known"
            raise ValueError(f"{name}={value}: {what}; {told}")
