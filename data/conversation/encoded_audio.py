"""Recordings that stand in a record as text: base64, data URLs, file URLs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

FILE_SCHEME = "file://"
DATA_SCHEME = "data:"
RAW_FORMATS = ("pcm", "pcm16", "g711_ulaw", "g711_alaw")  # of the OpenAI API: samples without a header


def path_of_url(url: str) -> str:
    """The path in a ``file://`` URL, whose ``%20`` is a space; other texts are paths already."""
    return unquote(url[len(FILE_SCHEME) :]) if url.startswith(FILE_SCHEME) else url


def bytes_of_data_url(url: str) -> bytes:
    """The bytes in ``data:audio/wav;base64,…``.

    Raises:
        ValueError: it is not base64; the message is a reason, without the name of a record.
    """
    header, comma, data = url.partition(",")
    if not comma or not header.endswith(";base64"):
        raise ValueError("is a data URL, but not one of base64, such as data:audio/wav;base64,UklGR…")
    return bytes_of_base64(data)


def bytes_of_base64(text: str) -> bytes:
    """The bytes that base64 stands for; line breaks in it are allowed.

    Raises:
        ValueError: it is not base64, or empty; the message is a reason, without the name of a record.
    """
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not base64: {error}") from error
    if not content:
        raise ValueError("is empty")
    return content


def plain_audio_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Another project's audio part as one of ours, ``{"type": "audio", …}``.

    Args:
        part: ``{"type": "input_audio", "input_audio": {"data", "format"}}`` of the OpenAI API (``data`` may be a data
            URL), or ``{"type": "audio_url", "audio_url": {"url"}}`` of vLLM and others, also with the URL itself.

    Raises:
        ValueError: it is neither; the message begins with the field, as in ``input_audio.data: missing``.
    """
    kind = part["type"]
    holder = part.get(kind)
    others = [key for key in part if key not in ("type", kind)]
    if others:
        raise ValueError(f"{others[0]}: unknown key; an {kind} part has type and {kind}")
    if kind == "audio_url":
        return {"type": "audio", "url": _held_text(holder, kind, "url", ())}
    data = _held_text(holder, kind, "data", ("format",))
    sound_format = holder.get("format") if isinstance(holder, Mapping) else None
    if sound_format in RAW_FORMATS:
        raise ValueError(f"{kind}.format: {sound_format} has no header that tells its rate; give a WAV file's bytes")
    if data.startswith(DATA_SCHEME) or "://" in data:
        return {"type": "audio", "url": data}
    try:
        return {"type": "audio", "bytes": bytes_of_base64(data)}
    except ValueError as error:
        raise ValueError(f"{kind}.data: {error}") from error


def _held_text(holder: Any, kind: str, key: str, more: tuple[str, ...]) -> str:
    if isinstance(holder, str):
        return holder
    if not isinstance(holder, Mapping):
        raise ValueError(f'{kind}: must be an object with {key}, such as {{"{key}": …}}')
    unknown = [name for name, value in holder.items() if value is not None and name not in (key, *more)]
    if unknown:
        raise ValueError(f"{kind}.{unknown[0]}: unknown key; known keys are {', '.join((key, *more))}")
    value = holder.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{kind}.{key}: {'missing' if value is None else 'must be a string'}")
    return value
