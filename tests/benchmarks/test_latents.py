"""A tokenizer with latents in the place of codes: every harness takes it, and says what it cannot tell of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from audiollm.benchmarks.codes.features import NO_CODES, REASON, encode_clips, load_encoder
from audiollm.benchmarks.codes.stability import token_stability
from audiollm.benchmarks.comparison.page import write_pages
from audiollm.benchmarks.comparison.running import held_study_folder, measure_study
from audiollm.benchmarks.comparison.study import read_study
from audiollm.benchmarks.comparison.table import NO_LATENTS, study_rows, trained_tables
from audiollm.benchmarks.reconstruction import ReconstructionConfig
from audiollm.benchmarks.reconstruction import measure as measure_reconstruction
from audiollm.benchmarks.sound_classes import SoundClassesConfig
from audiollm.benchmarks.sound_classes import measure as measure_classes
from audiollm.benchmarks.speech.reconstruction_report import report_reconstruction
from audiollm.benchmarks.stability import StabilityConfig
from audiollm.benchmarks.stability import measure as measure_stability
from audiollm.benchmarks.stability import run as run_stability
from audiollm.reconstruction import reconstruct
from audiollm.tokenizer.base import AudioTokenizer, Latents
from audiollm.tokenizer.facts import facts_of_tokenizer
from tests.tiny_losatok import tiny_losatok

from .comparison.conftest import study_file  # noqa: F401  # a fixture

RATE = 1000


class Levels(AudioTokenizer):
    """Latents of two numbers for 100 samples: their mean, and its opposite."""

    sample_rate = output_sample_rate = RATE  # type: ignore[assignment]
    frame_rate, num_codebooks, codebook_size, latent_size = 10.0, 0, 0, 2  # type: ignore[assignment]
    max_segment_seconds, can_decode, licence_note = None, False, ""  # type: ignore[assignment]

    def fingerprint(self) -> str:
        return "levels"

    def encode(self, waveforms: Any, sample_rate: int) -> Latents:
        rows = []
        for waveform in waveforms:
            means = torch.nn.functional.pad(waveform, (0, -len(waveform) % 100)).view(-1, 100).mean(dim=1)
            rows.append(torch.stack([means, -means], dim=1))
        lengths = torch.tensor([len(row) for row in rows])
        return Latents(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)

    def decode(self, codes: Any, speaker: Any = None, prompt: Any = None) -> Any:
        raise ValueError("cannot decode")


CLIP = torch.tensor([-0.4, -0.2, 0.2, 0.4]).repeat_interleave(100)


def stability_of(condition: str, clips: list[Tensor], **settings: Any) -> Any:
    [row] = token_stability(Levels(), clips, RATE, [condition], **settings)
    assert (row.num_codes, row.share_changed, row.unit_edit_distance) == (0, None, None)
    return row


def test_latents_move_as_far_as_samples_do() -> None:
    still = stability_of("gain:0", [CLIP])
    assert (still.num_latents, still.relative_change) == (4, 0)
    assert still.cosine == pytest.approx(1)
    softer = stability_of("gain:-20", [CLIP])
    assert softer.relative_change == pytest.approx(0.9**2)  # the mean is 0: squared latents are their variance
    assert softer.cosine == pytest.approx(1)
    assert stability_of("shift:2", [CLIP]).relative_change == 0
    assert stability_of("chunks:0.2", [CLIP]).relative_change == 0
    noisy = [stability_of(f"white:{level}", [CLIP.repeat(20)]).relative_change for level in (40, 10, -10)]
    assert noisy == sorted(noisy)


def test_changes_of_a_sound_type_are_over_the_variance_of_all() -> None:
    row = stability_of("gain:-20", [CLIP, CLIP / 2, CLIP], sound_types=["speech", "sound", None])
    speech, sound = row.relative_change_by_type["speech"], row.relative_change_by_type["sound"]
    assert speech == pytest.approx(4 * sound)
    assert row.relative_change == pytest.approx((2 * speech + sound) / 3)


def test_what_cannot_be_told_of_latents_is_none() -> None:
    too_short = stability_of("chunks:5", [CLIP])
    assert (too_short.num_clips, too_short.num_latents, too_short.relative_change, too_short.cosine) == (
        0,
        0,
        None,
        None,
    )
    silence = stability_of("gain:-20", [torch.zeros(300)])
    assert (silence.num_latents, silence.relative_change, silence.cosine) == (3, 0, 0)
    constant = stability_of("gain:-20", [torch.full((300,), 0.5)])
    assert constant.relative_change is None  # all frames are alike: there is no scale
    with pytest.raises(ValueError, match="Levels"):
        stability_of("bfloat16", [CLIP])


def test_a_clip_is_the_mean_of_its_latents() -> None:
    found = encode_clips(Levels(), [CLIP, CLIP[:100], CLIP[:0]], RATE)
    assert not found.has_codes
    np.testing.assert_allclose(found.vectors["latents"], [[0, 0], [-0.4, 0.4], [0, 0]], atol=1e-7)
    with pytest.raises(ValueError, match=NO_CODES):
        _ = found.usage


@pytest.fixture
def losatok(study_file: Path) -> Path:  # noqa: F811
    """A tiny LoSATok beside the clips of a study."""
    tiny_losatok().save_pretrained(study_file.parent / "losatok")
    return study_file.parent / "losatok"


def test_classes_are_probed_and_clustered_by_latents(losatok: Path) -> None:
    config = SoundClassesConfig(
        data=str(losatok.parent / "clips.jsonl"), audio_tokenizer=str(losatok), num_seeds=2, num_restarts=1
    )
    figures = measure_classes(config)
    assert figures["codes"] == {REASON: NO_CODES}
    assert figures["probes on latents"]["majority_accuracy"] == 0.5
    assert [name for name in figures if name.startswith("probes")] == ["probes on latents"]
    assert figures["clustering"]["scale"] == "none"
    assert figures["clustering"]["purity"] == 1  # two tones
    with pytest.raises(ValueError, match=r"--scale has no effect with .*losatok, which has continuous latents"):
        measure_classes(replace(config, scale="counts"))


def test_stability_is_measured_and_shown(losatok: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = StabilityConfig(
        data=str(losatok.parent / "clips.jsonl"), audio_tokenizer=str(losatok), device="cpu",
        conditions=("white:10", "shift:1", "bfloat16"), output=str(tmp_path / "out.json"),
    )  # fmt: skip
    rows = {row["condition"]: row for row in measure_stability(config)["rows"]}
    assert 0 < rows["bfloat16"]["relative_change"] < rows["white:10"]["relative_change"]
    assert 0 < rows["white:10"]["cosine"] < rows["bfloat16"]["cosine"] <= 1
    run_stability(config)
    assert "squared change of latents" in capsys.readouterr().out
    assert {row["condition"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]} == set(rows)


def test_codes_are_asked_of_it_in_vain(losatok: Path) -> None:
    with pytest.raises(ValueError, match="has latents and no codes"):
        load_encoder(str(losatok), "cpu")


def test_reconstructions_are_judged_and_have_no_bit_rate(losatok: Path, tmp_path: Path) -> None:
    config = ReconstructionConfig(
        audio_tokenizers=(str(losatok),), data=str(losatok.parent / "clips.jsonl"), output_dir=str(tmp_path / "out"),
        limit=2, asr="none", similarity="none", mos="none", metrics=("mel_distance",), device="cpu",
    )  # fmt: skip
    [row] = [row for row in measure_reconstruction(config)["rows"].values() if "tokenizer" in row]
    assert (row["bitrate_bps"], row["tokenizer"]["latent_size"], row["failures"]) == (None, 6, {})
    assert row["mel_distance"] > 0
    assert facts_of_tokenizer(tiny_losatok())["bitrate_bps"] is None
    result = reconstruct(losatok.parent / "0.wav", tmp_path / "out.wav", tiny_losatok())
    report_reconstruction(result, tmp_path / "report", metrics=("mel_distance",))
    pages = [path.read_text() for path in (tmp_path / "report").iterdir() if path.suffix in (".md", ".html")]
    assert pages
    assert all("7 of 6 numbers (23.3 per second)" in page for page in pages)


def test_it_has_a_column_among_tokenizers_with_codes(losatok: Path, study_file: Path, tmp_path: Path) -> None:  # noqa: F811
    content = yaml.safe_load(study_file.read_text())
    content["tokenizers"] = {"losatok": "losatok", "tiny": "tiny"}
    study_file.write_text(yaml.safe_dump(content))
    with held_study_folder(tmp_path / "run"):
        measured = measure_study(read_study(study_file), tmp_path / "run")
    rows = {(row.measure, row.title): row.cells for row in study_rows(measured)}
    for (measure, title), cells in rows.items():
        own, other = cells["losatok"], cells["tiny"]
        of_codes = measure == "codes" or "codes changed" in title or "edit distance" in title
        if of_codes or title in ("codebooks", "tokens per second", "bit/s"):
            assert (own.shown, own.reason) == ("–", NO_CODES), title
            assert other.value is not None, title
        elif "latents" in title or title == "numbers per frame":
            assert own.value is not None, title
            assert (other.shown, other.reason) == ("–", NO_LATENTS), title
        elif "histogram" in title or "entries" in title or "on features" in title:
            assert own.reason == NO_CODES, title
        else:
            assert own.value is not None, title
    assert rows["facts", "numbers per frame"]["losatok"].value == 6
    assert rows["facts", "kind"]["losatok"].value == "losatok"
    assert trained_tables(measured, {}) == []
    written = {path.name: path.read_text() for path in write_pages(measured, {}, tmp_path / "run")}
    assert f"- losatok: {NO_CODES}" in written["comparison.md"]
    assert "over bit rate" not in written["comparison.html"]  # one point is no curve


def test_alone_it_has_no_rows_of_codes(losatok: Path, study_file: Path, tmp_path: Path) -> None:  # noqa: F811
    content = yaml.safe_load(study_file.read_text())
    content["tokenizers"] = {"losatok": "losatok"}
    content["measures"].pop("speed")
    study_file.write_text(yaml.safe_dump(content))
    with held_study_folder(tmp_path / "run"):
        measured = measure_study(read_study(study_file), tmp_path / "run")
    titles = [row.title for row in study_rows(measured)]
    assert not [title for title in titles if "codes changed" in title or "histogram" in title]
    assert all(row.cells["losatok"].value is not None for row in study_rows(measured) if row.measure == "classes")
    write_pages(measured, {}, tmp_path / "run")
