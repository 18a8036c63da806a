"""Which project's format a file or folder is in: its content tells, its name does not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

from audiollm.data.manifest import NOT_JSON, RecordError

from .advice import recordings_advice
from .base import Format
from .files import entries_of
from .formats import CLIPS, FORMATS

RECORDS_LOOKED_AT = 100


def formats_of(record: Any) -> list[str]:
    """The names of the formats that a record may be of."""
    if not isinstance(record, Mapping):
        return []
    found = [name for name, one in FORMATS.items() if not one.is_of_files and one.matches(record)]
    return [name for name in found if name != CLIPS] or found


def find_format(path: str, name: str | None = None) -> Format:
    """The format of a file or folder.

    Args:
        path: the file or folder.
        name: what the user says that it is; then nothing is looked at.

    Raises:
        RecordError: there is no such file, or its records are of no format, or may be of several.
        ValueError: there is no format of that name.
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"format {name!r} is not known; use one of {', '.join(FORMATS)}")
        return FORMATS[name]
    if not os.path.exists(path):
        raise RecordError(path, "no such file or folder")
    whole = [one.name for one in FORMATS.values() if one.opens(path)]
    if len(whole) > 1:
        raise RecordError(path, f"may be of several formats; {_choices(whole)}")
    if whole:
        return FORMATS[whole[0]]
    try:
        return FORMATS[_format_of_records(path)]
    except RecordError as error:
        if error.where == path and os.path.isdir(path) and (advice := recordings_advice(path)):
            raise RecordError(path, f"{error.reason}; {advice}") from error
        raise


def _format_of_records(path: str) -> str:
    """The format that the first records of a file agree on."""
    places: dict[str, str] = {}
    unknown: tuple[str, str] | None = None
    for entry in itertools.islice(entries_of(path, None), RECORDS_LOOKED_AT):
        if entry.error is not None:
            unknown = unknown or (entry.where, _unreadable(entry.error.reason))
            continue
        found = formats_of(entry.value)
        if len(found) > 1:
            raise RecordError(entry.where, f"may be of several formats; {_choices(found)}")
        if found:
            places.setdefault(found[0], entry.where)
        else:
            unknown = unknown or (entry.where, f"is of no known format; it has {_keys(entry.value)}")
    if len(places) > 1:
        mixed = " and ".join(f"{FORMATS[name].title} ({where})" for name, where in places.items())
        raise RecordError(path, f"mixes {mixed}; {_choices(places)}, and records of others are refused")
    if not places:
        where, reason = unknown or (path, "holds no records")
        raise RecordError(where, f"{reason}; formats are {', '.join(FORMATS)} (--format)")
    return next(iter(places))


def _unreadable(reason: str) -> str:
    return (
        f"{reason}, nor is it a table of tabs, commas or semicolons with a header"
        if reason.startswith(NOT_JSON)
        else reason
    )


def _choices(names: Any) -> str:
    return "choose with --format " + " or --format ".join(names)


def _keys(record: Any) -> str:
    return ", ".join(map(str, list(record)[:10])) if isinstance(record, Mapping) else f"a {type(record).__name__}"
