"""Sheets for people: what is in them, and what comes of the verdicts."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.benchmarks.sap.audit import FIELDS, read_verdicts, summarize_audits, wilson_interval, write_audit
from audiollm.data.manifest import RecordError


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Ten labelled clips; one holds markup, and one's sound is lost."""
    lines = []
    for number in range(10):
        sf.write(tmp_path / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 1600), 16000)
        sap: dict[str, Any] = {
            "linguistic_content": f"text {number} <script>alert(1)</script>",
            "vocal_attributes": {"gender": "male", "accent": "x"},
            "auditory_scenes": {"events": [{"class": "dog", "type": "transient", "attributes": "far"}]},
        }
        lines.append({"id": f'c{number}"<', "audio": f"{number}.wav", "sap": sap})
    (tmp_path / "9.wav").unlink()
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_sheets_hold_the_same_sampled_clips(labels: Path, tmp_path: Path) -> None:
    assert write_audit(labels, tmp_path / "a", num_clips=4, seed=1) == 4
    rows = rows_of(tmp_path / "a" / "audit.csv")
    assert len({row["id"] for row in rows}) == 4
    assert rows[0]["gender"] == "male"
    assert rows[0]["events"] == "dog (transient): far"
    assert all(Path(row["audio"]).is_absolute() for row in rows)
    page = (tmp_path / "a" / "audit.html").read_text()
    assert page.count("<h2>") == 4
    write_audit(labels, tmp_path / "b", num_clips=4, seed=1)
    assert rows_of(tmp_path / "b" / "audit.csv") == rows
    write_audit(labels, tmp_path / "c", num_clips=4, seed=2)
    assert rows_of(tmp_path / "c" / "audit.csv") != rows
    assert write_audit(labels, tmp_path / "d", num_clips=99) == 10


def test_the_page_plays_each_clip_and_asks_about_what_is_said_only(labels: Path, tmp_path: Path) -> None:
    write_audit(labels, tmp_path / "a")
    page = (tmp_path / "a" / "audit.html").read_text()
    assert page.count('<audio controls src="data:audio/ogg;base64,') == 9
    assert "9.wav: no such file" in page
    assert "<script>alert" not in page
    names = set(re.findall(r'name="([^"]+)"', page))
    assert len(names) == 10 * 4  # words, gender, accent, events
    assert page.count('value="right"') == page.count('value="wrong"') == 40


def test_verdicts_of_spreadsheet_and_page_are_counted_together(labels: Path, tmp_path: Path) -> None:
    write_audit(labels, tmp_path / "a", num_clips=3)
    sheet = tmp_path / "a" / "audit.csv"
    rows = rows_of(sheet)
    for row, verdict in zip(rows, (" Right", "wrong", ""), strict=True):
        row["gender_verdict"] = verdict
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    saved = tmp_path / "verdicts.csv"
    saved.write_text('id,field,verdict\n"c1","gender","right"\n"c1","accent","wrong"\n')
    assert read_verdicts(saved) == [("gender", True), ("accent", False)]
    found = summarize_audits([sheet, saved])
    assert list(found) == [name for name in FIELDS if name in ("gender", "accent")]
    assert (found["gender"].right, found["gender"].judged, found["gender"].share) == (2, 3, 2 / 3)
    assert found["gender"].low < 2 / 3 < found["gender"].high


def test_the_interval_is_wilsons() -> None:
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson_interval(475, 500) == pytest.approx((0.9272, 0.9659), abs=1e-4)


def test_bad_sheets_and_labels_are_named(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_clips=0"):
        write_audit(labels, tmp_path / "a", num_clips=0)
    with pytest.raises(ValueError, match="holds no records"):
        write_audit([], tmp_path / "a")
    with pytest.raises(RecordError, match="has no sap"):
        write_audit([{"audio": "x.wav"}], tmp_path / "a")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no audit sheet: it has the columns a, b"):
        read_verdicts(sheet)
    sheet.write_text("id,gender_verdict\n1,perhaps\n")
    with pytest.raises(ValueError, match=r"sheet\.csv:2: gender_verdict is 'perhaps'"):
        read_verdicts(sheet)
    sheet.write_text("id,gender_verdict\n1,\n")
    with pytest.raises(ValueError, match="no verdicts"):
        summarize_audits([sheet])
