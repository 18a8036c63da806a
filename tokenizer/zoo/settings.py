"""Settings of a kind from plain values, as a config file holds them: the right keys and types, or an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

Settings = TypeVar("Settings")

_KINDS: dict[Any, tuple[str, Any]] = {
    int: ("a whole number of 0 or more", lambda value: _is_count(value)),
    int | None: ("a whole number of 0 or more, or null", lambda value: value is None or _is_count(value)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    str: ("a text", lambda value: isinstance(value, str)),
    tuple[int, ...]: (
        "a list of whole numbers of 1 or more",
        lambda value: isinstance(value, list | tuple) and value and all(_is_count(one) and one for one in value),
    ),
}


MANY = 1000


def require_some(settings: Any, *names: str) -> None:
    """Raises ValueError for a field that is 0."""
    for name in names:
        if not getattr(settings, name):
            raise ValueError(f"{name}=0: give 1 or more")


def require_few(settings: Any, *names: str) -> None:
    """Raises ValueError for more repetitions than any network has: making them would take for ever."""
    for name in names:
        if getattr(settings, name) > MANY:
            raise ValueError(f"{name}={getattr(settings, name)}: give {MANY} or fewer")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def settings_as(
    kind: type[Settings], values: Mapping[str, Any], source: Path, *, may_hold_more: bool = False
) -> Settings:
    """Makes a dataclass of plain values: whole numbers, truths, texts and lists of whole numbers.

    Args:
        kind: the dataclass.
        values: its fields; those with defaults may be missing.
        source: where from, for errors.
        may_hold_more: pass over other keys, such as those of a training.

    Raises:
        ValueError: naming the file and every key that is missing, unknown or of another type, or what the dataclass
            itself refuses.
    """
    hints = get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    missing = [name for name, one in fields.items() if one.default is dataclasses.MISSING and name not in values]
    unknown = [] if may_hold_more else sorted(values.keys() - fields.keys())
    if missing or unknown:
        raise ValueError(
            f"{source} does not describe this kind of tokenizer; missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}"
        )
    made = {}
    for name in fields.keys() & values.keys():
        words, fits = _KINDS[hints[name]]
        if not fits(values[name]):
            raise ValueError(f"{source}: {name}={values[name]!r} must be {words}")
        made[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
    try:
        return kind(**made)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
