"""Manifests of lhotse: cuts, or recordings with supervisions; plain or compressed JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from audiollm.data.manifest import RecordError

from .base import Entry, ForeignClip, Reading, ShapeError
from .files import as_object, entries_of

RECORDINGS, SUPERVISIONS, CUTS = "recordings", "supervisions", "cuts"
ENDINGS = (".jsonl", ".jsonl.gz", ".json")
EDGE_SECONDS = 0.01  # that a supervision may reach over its cut: times are rounded where they are written
# Of a cut and a supervision: what is read, and what says nothing about the sound (precomputed features, alignments).
_CUT_KEYS = {"id", "start", "duration", "channel", "supervisions", "features", "recording", "type"}
_SUPERVISION_KEYS = {"id", "recording_id", "start", "duration", "channel", "text", "language", "speaker", "gender"}


def is_lhotse(record: Mapping[str, Any]) -> bool:
    """Whether a record is a cut, a supervision or a recording of lhotse."""
    is_cut = str(record.get("type", "")).endswith("Cut") or {"supervisions", "recording"} <= set(record)
    is_supervision = {"recording_id", "start", "duration"} <= set(record)
    return is_cut or is_supervision or {"sources", "sampling_rate", "num_samples"} <= set(record)


def is_lhotse_folder(path: str) -> bool:
    """Whether a folder holds cuts or supervisions by lhotse's names, such as ``corpus_supervisions_train.jsonl.gz``."""
    if not os.path.isdir(path):
        return False
    found = _named(path, CUTS) or _named(path, SUPERVISIONS)
    return bool(found) and is_lhotse(_first_record(found[0]) or {})


def lhotse_entries(path: str, base_dir: str | None) -> Iterator[Entry]:
    """Cuts as they are; supervisions with their recordings, and recordings alone, as cuts.

    Args:
        path: a manifest, or a folder of one pair of them.
        base_dir: the folder that relative paths start from; by default that of the manifest.

    Raises:
        RecordError: several manifests to choose from, or supervisions without their recordings.
    """
    if os.path.isdir(path):
        path = _only_manifest(path)
    first = _first_record(path)
    if first is None or "supervisions" in first or str(first.get("type", "")).endswith("Cut"):
        return entries_of(path, base_dir)
    if "sources" in first:
        sibling = _sibling(path, RECORDINGS, SUPERVISIONS)
        if sibling is not None and os.path.isfile(sibling):
            raise RecordError(path, f"holds recordings without their texts; give {sibling}")
        return (_recording_cut(entry) for entry in entries_of(path, base_dir))
    return _supervision_cuts(path, base_dir)


def read_lhotse(record: Mapping[str, Any], text_key: str | None) -> list[Reading]:
    """A cut as clips: one for each supervision, whose text is of its own stretch of sound; or the cut, if it has none.

    Raises:
        ShapeError: a mix, a cut without recording, a channel that is not its file's first, a transformed recording,
            a source that is no file, a supervision that reaches out of its cut.
    """
    kind = record.get("type")
    if kind in ("MixedCut", "PaddingCut") or "recording" not in record:
        raise ShapeError("type", f"{kind or 'a cut without recording'} has no recording; save it with lhotse first")
    recording = record["recording"]
    if not isinstance(recording, Mapping):
        raise ShapeError("recording", "must be an object with sources")
    channel = record.get("channel", 0)
    path = _file(recording, channel)
    start, duration = _seconds(record, "start", 0.0), _seconds(record, "duration", None)
    extra = {f"cut.{key}" for key in record if key not in _CUT_KEYS and record[key] is not None}
    supervisions = record.get("supervisions") or [{}]
    if not isinstance(supervisions, list) or not all(isinstance(one, Mapping) for one in supervisions):
        raise ShapeError("supervisions", "must be a list of objects")
    readings: list[Reading] = []
    for index, one in enumerate(supervisions):
        at = f"supervisions[{index}]"
        if one and one.get("channel", channel) != channel:
            raise ShapeError(f"{at}.channel", f"is {one['channel']}, and the cut's is {channel}")
        if text_key is not None and text_key not in one:
            raise ShapeError(f"{at}.{text_key}", "missing")
        offset, seconds = _part(one, start, duration, at) if one else (start, duration)
        unread = extra | {f"supervision.{key}" for key in one if key not in {*_SUPERVISION_KEYS, text_key} and one[key]}
        identifier = one.get("id", record.get("id"))
        readings.append(
            ForeignClip(
                audio=path,
                id=None if identifier is None else str(identifier),
                offset=offset,
                duration=seconds,
                text=one.get(text_key or "text"),
                language=one.get("language"),
                speaker=one.get("speaker"),
                more={"gender": one["gender"]} if one.get("gender") else {},
                unread=tuple(sorted(unread)),
            )
        )
    return readings


def _part(supervision: Mapping[str, Any], start: float, duration: float | None, at: str) -> tuple[float, float]:
    """Where a supervision lies in its recording, in seconds; its own times count from the start of the cut."""
    inside, seconds = _seconds(supervision, "start", 0.0), _seconds(supervision, "duration", duration)
    if seconds is None:
        raise ShapeError(f"{at}.duration", "missing")
    end = inside + seconds
    if inside < -EDGE_SECONDS or (duration is not None and end > duration + EDGE_SECONDS):
        raise ShapeError(at, f"reaches from {inside:g} s to {end:g} s, out of its cut of {duration:g} s")
    inside, end = max(0.0, inside), end if duration is None else min(end, duration)
    return round(start + inside, 9), round(end - inside, 9)


def _seconds(holder: Mapping[str, Any], key: str, default: Any) -> Any:
    value = holder.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ShapeError(key, f"must be seconds, not {value!r:.40}")
    return float(value)


def _file(recording: Mapping[str, Any], channel: Any) -> str:
    if recording.get("transforms"):
        raise ShapeError("recording.transforms", "change the sound when lhotse loads it; save the audio with lhotse")
    if not isinstance(channel, int):
        raise ShapeError("channel", f"{channel!r:.40}: one channel is heard here; save it with lhotse as a file")
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(one, Mapping) for one in sources):
        raise ShapeError("recording.sources", "must be a list of objects")
    source = next((one for one in sources if channel in _channels(one)), None)
    if source is None:
        raise ShapeError("channel", f"{channel} is in none of the recording's sources")
    if _channels(source)[0] != channel:
        raise ShapeError("channel", f"is channel {channel} of a file of several; save it as a file of its own")
    if source.get("type") != "file" or not isinstance(source.get("source"), str):
        raise ShapeError("recording.sources", f"is a {source.get('type')}, not a file; save the audio with lhotse")
    return str(source["source"])


def _channels(source: Mapping[str, Any]) -> list[Any]:
    channels = source.get("channels")
    return channels if isinstance(channels, list) else []


# --- supervisions and recordings --------------------------------------------------------------------------------------


def _supervision_cuts(path: str, base_dir: str | None) -> Iterator[Entry]:
    sibling = _sibling(path, SUPERVISIONS, RECORDINGS)
    if sibling is None or not os.path.isfile(sibling):
        looked = f"{sibling} is not there" if sibling else f"name it …{SUPERVISIONS}… beside …{RECORDINGS}…"
        raise RecordError(path, f"holds supervisions, whose recordings are wanted too: {looked}")
    recordings: dict[str, Any] = {}
    for entry in entries_of(sibling, base_dir):
        if entry.error is not None:
            raise entry.error
        recording = as_object(entry.value, entry.where)
        recordings[str(recording.get("id"))] = recording
    for entry in entries_of(path, base_dir):
        yield entry if entry.error is not None else _supervision_cut(entry, recordings, sibling)


def _supervision_cut(entry: Entry, recordings: Mapping[str, Any], sibling: str) -> Entry:
    if not isinstance(entry.value, Mapping):
        return Entry(entry.where, entry.base_dir, error=RecordError(entry.where, "is no supervision"))
    recording = recordings.get(str(entry.value.get("recording_id")))
    if recording is None:
        reason = f"recording_id: {entry.value.get('recording_id')!r:.80} is not in {sibling}"
        return Entry(entry.where, entry.base_dir, error=RecordError(entry.where, reason))
    cut = _cut(recording, entry.value.get("channel", 0)) | {"supervisions": [entry.value]}
    return Entry(entry.where, entry.base_dir, cut)


def _recording_cut(entry: Entry) -> Entry:
    if entry.error is not None or not isinstance(entry.value, Mapping):
        return entry
    channels = entry.value.get("channel_ids") or [0]
    return Entry(entry.where, entry.base_dir, _cut(entry.value, channels[0]))


def _cut(recording: Mapping[str, Any], channel: Any) -> dict[str, Any]:
    if isinstance(channel, list) and len(channel) == 1:
        (channel,) = channel
    facts = {"id": recording.get("id"), "start": 0.0, "duration": recording.get("duration"), "channel": channel}
    return {**facts, "recording": recording, "type": "MonoCut"}


def _first_record(path: str) -> Mapping[str, Any] | None:
    """The first record of a file that can be read, if it is an object."""
    first = next((entry.value for entry in entries_of(path, None) if entry.error is None), None)
    return first if isinstance(first, Mapping) else None


def _named(folder: str, kind: str) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if kind in name and name.endswith(ENDINGS))
    return [os.path.join(folder, name) for name in names]


def _only_manifest(folder: str) -> str:
    found = _named(folder, CUTS) or _named(folder, SUPERVISIONS)
    if len(found) != 1:
        raise RecordError(folder, f"holds several manifests of lhotse; give one of {', '.join(found)}")
    return found[0]


def _sibling(path: str, kind: str, other: str) -> str | None:
    folder, name = os.path.split(path)
    return os.path.join(folder, name.replace(kind, other)) if kind in name else None
