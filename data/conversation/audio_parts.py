"""Audio parts of a record: every spelling of path, bytes, samples and codes becomes an ``AudioPart``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.waveforms import numpy_samples, waveform_from_array
from audiollm.data.manifest import RecordError

from .encoded_audio import DATA_SCHEME, bytes_of_data_url, path_of_url
from .problems import ConversationError, ProblemLog, kind_of
from .types import AudioPart

AUDIO_KEYS = (
    *("type", "audio", "path", "url", "audio_url", "bytes", "array", "sampling_rate", "codes", "audio_tokenizer"),
    *("offset", "duration"),
)
SEGMENT_KEYS = ("offset", "duration")
MOST_SECONDS = 1e9  # more than thirty years
DATASETS_AUDIO_KEYS = (
    "array",
    "bytes",
    "path",
    "sampling_rate",
    "offset",
    "duration",
)  # of datasets.Audio, cut
CLIP_AUDIO_KEYS = ("audio", "audio_filepath", "path", "bytes")  # of a clip record; the first that is there counts


def parse_audio_part(value: Any, *, where: str = "", base_dir: str | os.PathLike[str] | None = None) -> AudioPart:
    """Checks a single audio value, as a manifest of clips holds it.

    Args:
        value: an audio part without its type, or what stands under its key ``audio``: a path, bytes, a
            ``datasets.Audio`` value.
        where: file, line and field, for messages.
        base_dir: folder that a relative path starts from.

    Raises:
        ConversationError: names place and field.
    """
    part = value if isinstance(value, Mapping) and not set(value) <= set(DATASETS_AUDIO_KEYS) else {"audio": value}
    log = ProblemLog(where)
    parser = AudioPartParser(log, base_dir, codebook_size=None)
    audio = parser.parse({key: item for key, item in part.items() if item is not None}, "audio")
    if audio is None or log.problems:
        problem = log.problems[0]
        raise ConversationError(problem.where, f"{problem.field}: {problem.reason}")
    return audio


def clip_part(record: Any, where: str, base_dir: str | None) -> AudioPart:
    """Finds the audio of a clip record: ``{"audio": …}``, ``{"path": …}``, ``{"audio_filepath": …}`` or a bare path.

    ``offset`` and ``duration`` (seconds) beside it name a part of the recording.

    Raises:
        RecordError: if it is none; the message names the place.
    """
    if isinstance(record, str):
        value: Any = record
    elif isinstance(record, Mapping):
        keys = [key for key in CLIP_AUDIO_KEYS if record.get(key) is not None]
        if not keys:
            if record.get("messages") is not None:
                raise RecordError(
                    where,
                    "is a conversation, where clips are read: give records of audio and text, "
                    "as convert-data makes them without --task",
                )
            found = ", ".join(map(str, list(record)[:10])) or "nothing"
            raise RecordError(where, f"has neither messages nor audio; it has {found}")
        is_value = keys[0] in ("audio", "audio_filepath")
        value = record[keys[0]] if is_value else {key: record[key] for key in keys}
        return with_segment(parse_audio_part(value, where=where, base_dir=base_dir), record, where)
    else:
        raise RecordError(where, f"a record is an object or a path, not a {type(record).__name__}")
    return parse_audio_part(value, where=where, base_dir=base_dir)


def with_segment(part: AudioPart, record: Mapping[str, Any], where: str) -> AudioPart:
    """The part that a clip record's ``offset`` and ``duration`` (seconds) cut out of its recording.

    Raises:
        RecordError: one of them is no number of seconds, or the audio is no file to cut.
    """
    log = ProblemLog(where)
    given = {key: record[key] for key in SEGMENT_KEYS if record.get(key) is not None}
    segment = _segment(given, "", log)
    if log.problems:
        raise RecordError(where, f"{log.problems[0].field}: {log.problems[0].reason}")
    if not segment:
        return part
    if part.codes is not None:
        if set(segment) == {"duration"}:  # says how long the codes last
            return part
        raise RecordError(where, "offset: cuts a recording; here are codes")
    if part.cut:
        raise RecordError(where, "offset and duration stand in the record and in its audio: say them once")
    return dataclasses.replace(part, **segment)


def _segment(given: Mapping[str, Any], at: str, log: ProblemLog) -> dict[str, Any]:
    segment: dict[str, Any] = {}
    for key, value in given.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < MOST_SECONDS or (key == "duration" and not value):
            log.note(f"{at}.{key}" if at else key, f"must be seconds, {kind_of(value)} is not")
        elif key == "duration" or value:
            segment[key] = float(value)
    return segment


class AudioPartParser:
    """Reads audio parts and notes what is wrong with them; what it returns counts only if nothing is.

    Args:
        log: takes the problems.
        base_dir: folder that relative paths start from; ``None`` leaves them as they are.
        codebook_size: codes must be below this; ``None``: only not negative.
        made_by: fingerprint of the audio tokenizer that made codes which do not say it themselves.
    """

    def __init__(
        self,
        log: ProblemLog,
        base_dir: str | os.PathLike[str] | None,
        codebook_size: int | None,
        made_by: str | None = None,
    ) -> None:
        self._log = log
        self._base_dir = None if base_dir is None else os.path.abspath(base_dir)
        self._codebook_size = codebook_size
        self._made_by = made_by

    def parse(self, part: Mapping[str, Any], at: str) -> AudioPart | None:
        """Reads the part that stands in the field ``at``; its keys hold values, never ``None``."""
        num_problems = len(self._log.problems)
        values = self._values(part, at)
        kinds = [key for key in ("path", "bytes", "array", "codes") if key in values]
        if len(kinds) != 1:
            reason = f"holds {' and '.join(kinds)}" if kinds else "holds no audio"
            if len(self._log.problems) == num_problems or kinds:  # a misspelt key is the better explanation
                self._log.note(at, f"{reason}; give exactly one of path, bytes, array (with sampling_rate) or codes")
            return None
        (kind,) = kinds
        if kind != "array" and "sampling_rate" in values:
            self._log.note(f"{at}.sampling_rate", f"goes with array only; {kind} brings its own")
        if kind != "codes" and "audio_tokenizer" in values:
            self._log.note(f"{at}.audio_tokenizer", f"says what made codes; here is {kind}")
        where = f"{self._log.where}: {at}" if self._log.where else at
        segment = _segment({key: values[key] for key in SEGMENT_KEYS if key in values}, at, self._log)
        if segment and kind == "codes":
            self._log.note(f"{at}.{next(iter(segment))}", "cuts a recording; here are codes")
            return None
        if kind != "codes":
            part_read = self._recording(kind, values, at, where)
            return None if part_read is None else dataclasses.replace(part_read, **segment)
        made_by = values.get("audio_tokenizer", self._made_by)
        if made_by is not None and not isinstance(made_by, str):
            self._log.note(f"{at}.audio_tokenizer", f"must be a fingerprint (a string), not {kind_of(made_by)}")
            return None
        return self._codes(values["codes"], made_by, f"{at}.codes", where)

    def _recording(self, kind: str, values: Mapping[str, Any], at: str, where: str) -> AudioPart | None:
        if kind == "path":
            return self._path(values["path"], f"{at}.path", where)
        if kind == "bytes":
            return self._bytes(values["bytes"], f"{at}.bytes", where)
        return self._array(values["array"], values.get("sampling_rate"), at, where)

    def _values(self, part: Mapping[str, Any], at: str) -> dict[str, Any]:
        """Finds what the part holds, by kind, wherever it is written."""
        self._log.note_unknown_keys(part, AUDIO_KEYS, at)
        values = {key: part[key] for key in AUDIO_KEYS if key in part}
        values.pop("type", None)
        audio = values.pop("audio", None)
        if isinstance(audio, Mapping):
            inner = {key: item for key, item in audio.items() if item is not None}
            self._log.note_unknown_keys(inner, DATASETS_AUDIO_KEYS, f"{at}.audio")
            values |= inner
        elif isinstance(audio, (str, os.PathLike)):
            values["path"] = audio
        elif isinstance(audio, (bytes, bytearray, memoryview)):
            values["bytes"] = audio
        elif audio is not None:
            values["array"] = audio
        for key in ("url", "audio_url"):
            if key in values:
                values.setdefault("path", values.pop(key))
        # datasets writes the path beside the bytes or samples it has read from it.
        if "bytes" in values or "array" in values:
            values.pop("path", None)
        return values

    def _path(self, value: Any, at: str, where: str) -> AudioPart | None:
        if not isinstance(value, (str, os.PathLike)):
            self._log.note(at, f"must be the path of an audio file, not {kind_of(value)}")
            return None
        path = path_of_url(os.fspath(value))
        if not path:
            self._log.note(at, "must be the path of an audio file, not empty")
            return None
        if path.startswith(DATA_SCHEME):
            return self._data_url(path, at, where)
        if "://" in path:
            self._log.note(at, f"{path[:80]!r} is a URL; download the file and give its path")
            return None
        if self._base_dir is not None:
            path = os.path.normpath(os.path.join(self._base_dir, path))
        return AudioPart(path=path, where=where)

    def _data_url(self, url: str, at: str, where: str) -> AudioPart | None:
        try:
            return AudioPart(bytes=bytes_of_data_url(url), where=where)
        except ValueError as error:
            self._log.note(at, str(error))
            return None

    def _bytes(self, value: Any, at: str, where: str) -> AudioPart | None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            self._log.note(at, f"must be the bytes of an audio file, not {kind_of(value)}")
            return None
        return AudioPart(bytes=bytes(value), where=where)

    def _array(self, value: Any, sampling_rate: Any, at: str, where: str) -> AudioPart | None:
        if not isinstance(value, (np.ndarray, Tensor, list)):
            self._log.note(f"{at}.array", f"must hold samples [N], [C, N] or [N, C], not {kind_of(value)}")
            return None
        if isinstance(sampling_rate, bool) or not isinstance(sampling_rate, int) or sampling_rate <= 0:
            given = "missing" if sampling_rate is None else f"{sampling_rate!r}"
            self._log.note(f"{at}.sampling_rate", f"{given}; give the array's rate in Hz, such as 16000")
            return None
        try:
            waveform_from_array(value)
            samples = numpy_samples(value)
        except ValueError as error:  # AudioError, or rows of different lengths
            self._log.note(f"{at}.array", error.reason if isinstance(error, AudioError) else str(error))
            return None
        return AudioPart(array=samples, sampling_rate=sampling_rate, where=where)

    def _codes(self, value: Any, made_by: str | None, at: str, where: str) -> AudioPart | None:
        codes = value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
        if not isinstance(codes, (list, tuple)):
            self._log.note(at, f"must be a list of whole numbers, not {kind_of(codes)}")
            return None
        if not codes:
            self._log.note(at, "is empty; leave the audio part out")
            return None
        limit = self._codebook_size
        if all(type(code) is int for code in codes) and min(codes) >= 0 and (limit is None or max(codes) < limit):
            return AudioPart(codes=list(codes), audio_tokenizer=made_by, where=where)
        for index, code in enumerate(codes):
            if isinstance(code, (list, tuple)):
                self._log.note(
                    f"{at}[{index}]",
                    "must be a whole number, not a list; of codes of several codebooks `audiollm tokenize --code-order "
                    "flat` makes one row",
                )
                break
            if type(code) is not int:
                self._log.note(f"{at}[{index}]", f"must be a whole number, not {kind_of(code)}")
                break
            if code < 0 or (limit is not None and code >= limit):
                allowed = "0 or more" if limit is None else f"from 0 to {limit - 1} for this codebook"
                self._log.note(f"{at}[{index}]", f"{code} is out of range; codes are {allowed}")
                break
        return None
