"""A study goes on where it was: no cell is computed twice, none of other settings is mixed in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.benchmarks.codes.features import REASON
from audiollm.benchmarks.comparison import measures, running
from audiollm.benchmarks.comparison.cells import Cell
from audiollm.benchmarks.comparison.measures import code_use
from audiollm.benchmarks.comparison.recordings import read_recordings
from audiollm.benchmarks.comparison.running import MeasuredStudy, held_study_folder, measure_study
from audiollm.benchmarks.comparison.study import DataSettings, KMeansSettings, ReconstructionSettings, Study
from audiollm.benchmarks.comparison.table import study_rows
from audiollm.tokenizer.base import AudioTokenizer, Codes
from tests.tokenizer.reasoningcodec.conftest import make as make_reasoning_codec

from .conftest import save_tiny_tokenizer


def run(study: Study, folder: Path) -> MeasuredStudy:
    with held_study_folder(folder):
        return measure_study(study, folder)


def figures(measured: MeasuredStudy) -> dict[str, Any]:
    """All but what the clock says."""
    return {f"{cell.tokenizer} {cell.name}": one for cell, one in measured.figures.items() if cell.measure != "speed"}


def test_every_cell_is_there_or_has_its_reason(study: Study, tmp_path: Path) -> None:
    measured = run(study, tmp_path / "run")
    found = figures(measured)
    assert set(found) == {
        "original reconstruction@few",
        *(
            f"{name} {cell}"
            for name in ("tiny", "mu-law")
            for cell in ("facts", "codes@tones", "reconstruction@few", "classes@tones", "stability@few")
        ),
    }
    assert "no decoder" in found["tiny reconstruction@few"][REASON]
    assert found["mu-law reconstruction@few"]["mel_distance"] > found["original reconstruction@few"]["mel_distance"]
    assert found["mu-law facts"]["bitrate_bps"] == 32000
    assert found["mu-law stability@few"]["conditions"]["shift:1"]["share_changed"] < 0.1
    speed = measured.figures[Cell("all", "speed", "few")]["tokenizers"]
    assert speed["mu-law"]["encode"]["real_time_factor"] > 0
    assert "no decoder" in speed["tiny"]["decode"][REASON]


@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_a_killed_study_goes_on_and_computes_nothing_twice(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = run(study, tmp_path / "whole")
    written: list[Cell] = []
    cells_written = running.Cells.written

    def killed(self: Any, cell: Cell, *arguments: Any) -> Any:
        if len(written) == killed_at:
            raise KeyboardInterrupt
        written.append(cell)
        return cells_written(self, cell, *arguments)

    monkeypatch.setattr(running.Cells, "written", killed)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "killed")
    monkeypatch.setattr(running.Cells, "written", cells_written)
    resumed = run(study, tmp_path / "killed")
    assert figures(resumed) == figures(whole)
    assert resumed.num_computed == whole.num_computed - killed_at
    again = run(study, tmp_path / "killed")
    assert again.num_computed == 0
    assert figures(again) == figures(whole)


def test_more_of_a_study_is_added_and_the_rest_kept(study: Study, tmp_path: Path) -> None:
    one = {name: source for name, source in study.tokenizers.items() if name == "tiny"}
    run(replace(study, tokenizers=one), tmp_path / "run")
    measured = run(study, tmp_path / "run")
    # Five cells of the floor, and speed, which all have to run for together.
    assert measured.num_computed == 6


def test_changed_settings_are_refused_by_name_and_change_nothing(study: Study, tmp_path: Path) -> None:
    run(study, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.json")}
    stability = replace(study.measures["stability"], seed=1)
    with pytest.raises(ValueError, match=r"stability@few\.json was begun with another settings\.seed \(0, now 1\)"):
        run(replace(study, measures={**study.measures, "stability": stability}), tmp_path / "run")
    data = replace(study.data["few"], max_clips=3)
    with pytest.raises(ValueError, match=r"data\.num_clips \(2, now 3\); data\.max_clips \(2, now 3\)"):
        run(replace(study, data={**study.data, "few": data}), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.json")} == before


def test_another_tokenizer_of_the_same_name_is_refused(study: Study, study_file: Path, tmp_path: Path) -> None:
    run(study, tmp_path / "run")
    shutil.rmtree(study_file.parent / "tiny")
    save_tiny_tokenizer(study_file.parent / "tiny", seed=1)
    with pytest.raises(ValueError, match="was begun with another tokenizer"):
        run(study, tmp_path / "run")


def test_a_folder_of_something_else_is_refused(study: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something that is no study"):
        run(study, tmp_path / "other")


@pytest.mark.parametrize("judge", ["asr", "similarity", "mos"])
def test_a_judge_that_cannot_be_had_is_told_before_anything_is_computed(
    study: Study, tmp_path: Path, judge: str
) -> None:
    settings: Any = replace(study.measures["reconstruction"], **{judge: str(tmp_path / "nobody")})
    with pytest.raises(
        ValueError, match=rf"measures\.reconstruction\.{judge}: .*nobody cannot be had.*`{judge}: none`"
    ):
        run(replace(study, measures={**study.measures, "reconstruction": settings}), tmp_path / "run")
    assert not (tmp_path / "run" / "cells").exists()


def test_data_without_classes_are_told_before_anything_is_computed(study: Study, tmp_path: Path) -> None:
    data = replace(study.data["tones"], label_key="colour")
    with pytest.raises(ValueError, match=r"has 0 classes \('colour'\)"):
        run(replace(study, data={**study.data, "tones": data}), tmp_path / "run")
    assert not (tmp_path / "run" / "cells").exists()


def test_a_codebook_is_fitted_once_and_kept(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_whisper: Path
) -> None:
    source = KMeansSettings(whisper=str(tiny_whisper), size=8, data="tones", split="train")
    small = replace(study, tokenizers={"fitted": source}, measures={"codes": study.measures["codes"]})
    first = run(small, tmp_path / "run")
    monkeypatch.setattr("audiollm.benchmarks.comparison.entries._from_whisper", None)  # it is not asked again
    second = run(small, tmp_path / "run")
    assert first.tokenizers["fitted"].fingerprint == second.tokenizers["fitted"].fingerprint
    other = replace(small, tokenizers={"fitted": replace(source, size=4)})
    with pytest.raises(ValueError, match=r"kmeans\.size \(8, now 4\)"):
        run(other, tmp_path / "run")


class TwoCodebooks(AudioTokenizer):
    """Each tenth of a second two codes: how loud it is, and always 3."""

    sample_rate = output_sample_rate = 16000  # type: ignore[assignment]
    frame_rate, num_codebooks, codebook_size = 10.0, 2, 8  # type: ignore[assignment]
    codebook_sizes = (8, 4)  # type: ignore[assignment]
    max_segment_seconds, can_decode, licence_note = None, False, "none"  # type: ignore[assignment]

    def fingerprint(self) -> str:
        return "two"

    def encode(self, waveforms: Any, sample_rate: int) -> Codes:
        clips = []
        for waveform in waveforms:
            num_frames = len(waveform) // 1600
            clips.append(torch.stack([torch.arange(num_frames) % 8, torch.full((num_frames,), 3)]))
        return Codes.from_list(clips)

    def decode(self, codes: Any, speaker: Any = None, prompt: Any = None) -> Any:
        raise ValueError("cannot")


def test_codes_of_several_codebooks_are_counted_by_codebook(study: Study) -> None:
    recordings = read_recordings("tones", study.data["tones"], Path())
    found = code_use(TwoCodebooks(), recordings)  # 8 clips of 3 frames: codes 0, 1, 2
    first, second = found["by_codebook"]
    assert first["usage"] == 3 / 8
    assert first["perplexity"] == pytest.approx(3)
    assert (second["usage"], second["entropy_bits"]) == (1 / 4, 0)
    assert found["usage"] == 4 / 12
    assert found["entropy_bitrate_bps"] == pytest.approx(10 * first["entropy_bits"])
    assert found["tokens_per_second"] == pytest.approx(20)
    assert found["coverage"] == sorted(found["coverage"])
    assert found["coverage"][-1] == 1


def test_codes_of_several_rates_are_counted_and_what_needs_one_is_refused_by_name(study: Study, tmp_path: Path) -> None:
    make_reasoning_codec().save_pretrained(tmp_path / "codec")
    chosen = {name: study.measures[name] for name in ("codes", "classes", "stability", "reconstruction")}
    measured = run(replace(study, tokenizers={"two": str(tmp_path / "codec")}, measures=chosen), tmp_path / "run")
    facts = measured.tokenizers["two"].facts
    assert (facts["frame_rate"], facts["tokens_per_second"]) == (None, 2 * 5 + 4 * 12.5)
    found = measured.figures[Cell("two", "codes", "tones")]
    bits = [one["entropy_bits"] for one in found["by_codebook"]]
    assert found["entropy_bitrate_bps"] == pytest.approx(5 * sum(bits[:2]) + 12.5 * sum(bits[2:]))
    assert found["entropy_bits"] is None
    assert found["num_tokens"] == 8 * (2 * 2 + 4 * 4)  # clips of 0.3 s
    for measure, data in (("classes", "tones"), ("stability", "few")):
        assert measured.figures[Cell("two", measure, data)] == {REASON: measures.SEVERAL_RATES}
    assert measured.figures[Cell("two", "reconstruction", "few")]["mel_distance"] > 0
    empty = {row.title: row.cells["two"].reason for row in study_rows(measured) if row.cells["two"].value is None}
    assert empty["frames per second"] == empty["entropy of a frame (bits)"] == measures.SEVERAL_RATES


def test_recordings_are_chosen_evenly_and_by_what_records_say(study_file: Path) -> None:
    path = str(study_file.parent / "clips.jsonl")
    chosen = read_recordings("x", DataSettings(path=path, max_clips=4), Path())
    assert [clip.id for clip in chosen.clips] == ["n0", "n2", "n4", "n6"]
    assert [clip.id for clip in read_recordings("x", DataSettings(path=path, split="test"), Path()).clips] == [
        "n4",
        "n5",
        "n6",
        "n7",
    ]
    with pytest.raises(ValueError, match="no recordings of language 'fr'"):
        read_recordings("x", DataSettings(path=path, language="fr"), Path())


def test_a_clip_that_cannot_be_decoded_is_counted_and_named(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail_once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no memory")
        return round_trip(*arguments)

    round_trip = measures.round_trip
    monkeypatch.setattr(measures, "round_trip", fail_once)
    settings = study.measures["reconstruction"]
    assert isinstance(settings, ReconstructionSettings)
    measured = run(replace(study, measures={"reconstruction": settings}), tmp_path / "run")
    found = measured.figures[Cell("mu-law", "reconstruction", "few")]
    assert found["failures"] == {"000000": "RuntimeError: no memory"}
    assert found["missing"] == ["000000"]
    content = json.loads((tmp_path / "run" / "cells" / "mu-law" / "reconstruction@few.json").read_text())
    assert content["figures"]["n_items"] == 2
