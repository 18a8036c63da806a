"""Audits of SAP labels by people: a sheet of sampled records to fill in, and the counts of filled-in sheets.

``audit.html`` plays each clip beside its labels and gathers the verdicts; ``audit.csv`` holds the same rows for a
spreadsheet. `summarize_audits` counts the verdicts of any number of people, with an interval of confidence.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.harness.identity import require_folder
from audiollm.benchmarks.harness.page import render, sound_address
from audiollm.data.audio.channels import Mono
from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.data.files.atomic import atomic_write
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.sap.parsing import parse_sap
from audiollm.data.sap.record import SAP_ATTRIBUTES, SapRecord

FIELDS = ("linguistic_content", *SAP_ATTRIBUTES, "summary", "events")
"""What is judged, one by one."""
RIGHT, WRONG = "right", "wrong"
PLAYER_SAMPLE_RATE = 16000  # Hz; keeps a page with hundreds of clips small enough to send
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class FieldAudit:
    """How often a field was found right.

    Attributes:
        right: verdicts "right".
        judged: verdicts in all.
        low: lower bound of the 95 % interval (Wilson).
        high: its upper bound.
    """

    right: int
    judged: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Right among judged."""
        return self.right / self.judged


def sheet_paths(folder: Path) -> tuple[Path, Path]:
    """The two sheets of a folder: the table, and the page."""
    return folder / "audit.csv", folder / "audit.html"


def write_audit(labelled: Any, folder: Path, *, num_clips: int = 100, seed: int = 0, mono: Mono = "mean") -> int:
    """Writes ``audit.html`` and ``audit.csv`` of sampled records.

    Args:
        labelled: records with ``sap`` and ``audio``, as ``audiollm label`` writes them.
        folder: where to; made if it is not there.
        num_clips: records to sample; all if there are fewer.
        seed: of the sample.
        mono: which channel of a clip the page plays.

    Returns:
        How many there are in the sheets.

    Raises:
        ValueError: no records, ``num_clips`` not positive, or a bad record.
    """
    if num_clips < 1:
        raise ValueError(f"num_clips={num_clips}: use 1 or more")
    manifest = open_manifest(labelled)
    if len(manifest) == 0:
        raise ValueError(f"{manifest.name} holds no records")
    chosen = sorted(random.Random(seed).sample(range(len(manifest)), min(num_clips, len(manifest))))
    rows = [_row(manifest, index) for index in chosen]
    require_folder(folder).mkdir(parents=True, exist_ok=True)
    table, page = sheet_paths(folder)
    with atomic_write(table) as file:
        writer = csv.DictWriter(file, ["id", "audio", *(f for name in FIELDS for f in (name, f"{name}_verdict"))])
        writer.writeheader()
        writer.writerows(row | {f"{name}_verdict": "" for name in FIELDS if row[name]} for row in rows)
    clips = [_clip(manifest, index, row, mono) for index, row in zip(chosen, rows, strict=True)]
    with atomic_write(page) as file:
        file.write(render(Path(__file__).with_name("audit.html.jinja"), clips=clips, verdicts=(RIGHT, WRONG)))
    return len(rows)


def _row(manifest: Manifest, index: int) -> dict[str, str]:
    record, where = manifest[index], manifest.where(index)
    if not isinstance(record, Mapping) or "sap" not in record:
        raise RecordError(where, "has no sap; give what `audiollm label` wrote")
    part = parse_audio_part(record.get("audio"), where=where, base_dir=manifest.base_dir(index))
    return {"id": str(record.get("id", where)), "audio": part.path or "", **field_texts(parse_sap(record["sap"]))}


def field_texts(record: SapRecord) -> dict[str, str]:
    """Each of `FIELDS` as text; empty where nothing is said."""
    given = record.vocal_attributes.given if record.vocal_attributes else {}
    events = (
        f"{event.label} ({event.type})" + (f": {event.attributes}" if event.attributes else "")
        for event in record.auditory_scenes.events
    )
    return {
        "linguistic_content": record.linguistic_content or "",
        **{name: given.get(name, "") for name in SAP_ATTRIBUTES},
        "summary": record.auditory_scenes.summary or "",
        "events": "; ".join(events),
    }


def _clip(manifest: Manifest, index: int, row: Mapping[str, str], mono: Mono) -> dict[str, Any]:
    """What the page shows of a clip: its sound, or why it cannot be played, and the fields that say something."""
    part = parse_audio_part(manifest[index]["audio"], where=row["id"], base_dir=manifest.base_dir(index))
    sound, problem = None, None
    try:
        sound = sound_address(*part.load(PLAYER_SAMPLE_RATE, mono))
    except AudioError as error:
        problem = str(error)
    # The name of a field's buttons is what the page saves of them, as the script reads it.
    fields = [(name, json.dumps([row["id"], name]), row[name]) for name in FIELDS if row[name]]
    return {"id": row["id"], "sound": sound, "problem": problem, "fields": fields}


def read_verdicts(path: Path) -> list[tuple[str, bool]]:
    """Reads a filled-in sheet: ``audit.csv`` from a spreadsheet, or what the page saved.

    Returns:
        Field and whether it is right, for every verdict.

    Raises:
        ValueError: if it is neither, or a verdict is neither "right" nor "wrong"; the message names the line.
    """
    verdicts = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if not columns >= {"field", "verdict"} and not any(f"{name}_verdict" in columns for name in FIELDS):
            raise ValueError(f"{path} is no audit sheet: it has the columns {', '.join(sorted(columns)) or 'none'}")
        for row in reader:
            cells = (
                [(row["field"], row["verdict"])]
                if "field" in columns
                else [(name, row.get(f"{name}_verdict") or "") for name in FIELDS]
            )
            for name, verdict in cells:
                said = verdict.strip().lower()
                if said and said not in (RIGHT, WRONG):
                    place = f"{path}:{reader.line_num}: {name}_verdict"
                    raise ValueError(f'{place} is {verdict!r}: write "right" or "wrong", or leave it empty')
                if said:
                    verdicts.append((name, said == RIGHT))
    return verdicts


def summarize_audits(sheets: Iterable[Path]) -> dict[str, FieldAudit]:
    """Counts the verdicts of all sheets, by field.

    Raises:
        ValueError: if a sheet cannot be read, or there are no verdicts.
    """
    verdicts = [verdict for sheet in sheets for verdict in read_verdicts(sheet)]
    if not verdicts:
        raise ValueError("the sheets hold no verdicts")
    counts = {name: [right for judged, right in verdicts if judged == name] for name in FIELDS}
    return {name: _audit(found) for name, found in counts.items() if found}


def _audit(verdicts: Sequence[bool]) -> FieldAudit:
    low, high = wilson_interval(sum(verdicts), len(verdicts))
    return FieldAudit(sum(verdicts), len(verdicts), low, high)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which holds near 0 and 1 too."""
    share, spread = successes / trials, _Z * _Z / trials
    middle = share + spread / 2
    half_width = _Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, (middle - half_width) / (1 + spread)), min(1.0, (middle + half_width) / (1 + spread))
