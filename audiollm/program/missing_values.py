"""Settings in a file that have a name and no value, which jsonargparse lets pass whatever their type."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from .spelling import annotations_of


def refuse_missing_values(where: str, settings: Any, component: Callable[..., Any]) -> None:
    """Refuses null, or nothing behind the colon, where a setting needs a value.

    Args:
        where: the file, for messages.
        settings: what it holds; what is no mapping is left to the parser.
        component: the function or config class that is to be made of them.

    Raises:
        ValueError: naming the setting.
    """
    annotations = annotations_of(component)
    for name in _without_value(settings, ""):
        if name in annotations and not _may_be_none(annotations[name]):
            raise ValueError(f"{where}: {name} has no value (null): give one, or remove the line")


def _without_value(settings: Any, prefix: str) -> list[str]:
    """Dotted names of what is null."""
    if not isinstance(settings, Mapping):
        return []
    names = []
    for name, value in settings.items():
        if value is None:
            names.append(f"{prefix}{name}")
        names += _without_value(value, f"{prefix}{name}.")
    return names


def _may_be_none(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_may_be_none(choice) for choice in get_args(annotation))
    return annotation in (None, type(None), Any)
