"""Token stability: what a change does to codes is counted, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from rich.console import Console
from torch import Tensor

from audiollm.benchmarks.codes.stability import DEFAULT_CONDITIONS, KINDS, parse_condition, token_stability
from audiollm.benchmarks.stability import StabilityConfig, measure, read_clips, run, show_table
from audiollm.data.manifest import RecordError
from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig
from audiollm.tokenizer.base import AudioTokenizer, Codes

RATE = 1000  # Hz, of the tokenizer below; 10 codes per second


class LoudnessTokenizer(AudioTokenizer):
    """Each code is the rounded mean of its own 100 samples, so that a code depends on nothing else."""

    sample_rate = output_sample_rate = RATE  # type: ignore[assignment]
    frame_rate = 10.0  # type: ignore[assignment]
    num_codebooks = 1  # type: ignore[assignment]
    codebook_size = 1000  # type: ignore[assignment]
    max_segment_seconds = None  # type: ignore[assignment]
    can_decode = False  # type: ignore[assignment]
    licence_note = ""  # type: ignore[assignment]

    num_levels = 500

    def fingerprint(self) -> str:
        return "loudness"

    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Codes:
        assert sample_rate == RATE
        return Codes.from_list([self.codes_of(waveform)[None] for waveform in waveforms])

    def codes_of(self, waveform: Tensor) -> Tensor:
        frames = torch.nn.functional.pad(waveform, (0, -len(waveform) % 100)).view(-1, 100)
        return (frames.abs().mean(dim=1) * self.num_levels).round().long()

    def decode(self, codes: Codes | Tensor, speaker: Tensor | None = None, prompt: Any = None) -> Any:
        raise ValueError("cannot decode")


class PairTokenizer(LoudnessTokenizer):
    """Two codebooks: loudness, and a constant."""

    num_codebooks = 2  # type: ignore[assignment]

    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Codes:
        rows = [self.codes_of(waveform) for waveform in waveforms]
        return Codes.from_list([torch.stack([row, torch.full_like(row, 3)]) for row in rows])


class ContextTokenizer(LoudnessTokenizer):
    """The first code of what is encoded is special, as at the edge of a segment."""

    def codes_of(self, waveform: Tensor) -> Tensor:
        codes = super().codes_of(waveform)
        codes[0] += 500
        return codes


def staircase(levels: list[float]) -> Tensor:
    return torch.tensor(levels).repeat_interleave(100)


CLIP = staircase([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


def stability_of(tokenizer: AudioTokenizer, condition: str, clips: Sequence[Tensor] = (CLIP,)) -> tuple[Any, Any]:
    (row,) = token_stability(tokenizer, clips, RATE, [condition])
    return row.share_changed, row.unit_edit_distance


def test_a_shift_by_whole_codes_changes_only_what_depends_on_the_place() -> None:
    assert stability_of(LoudnessTokenizer(), "shift:2") == (0.0, 0.0)
    assert stability_of(LoudnessTokenizer(), "shift:0") == (0.0, 0.0)
    assert stability_of(ContextTokenizer(), "shift:1") == (1 / 7, 1 / 7)


def test_a_shift_within_a_code_is_compared_with_the_nearest_codes() -> None:
    # A quarter: each code takes in a quarter of the next level, except the last, which is cut short.
    assert stability_of(LoudnessTokenizer(), "shift:0.25")[0] == 1.0
    even = staircase([0.3] * 8)
    share, edits = stability_of(LoudnessTokenizer(), "shift:0.25", [even])
    assert share == pytest.approx(1 / 8)
    assert edits == pytest.approx(1 / 8)
    assert stability_of(LoudnessTokenizer(), "shift:0.75", [even]) == (0.0, 0.0)  # against the next code


def test_pieces_are_put_together_again_and_short_clips_do_not_count() -> None:
    short = CLIP[:200]
    (row,) = token_stability(LoudnessTokenizer(), [CLIP, short], RATE, ["chunks:0.3"])
    assert (row.num_clips, row.num_codes, row.share_changed) == (1, 8, 0.0)
    (row,) = token_stability(ContextTokenizer(), [CLIP, short], RATE, ["chunks:0.3"])
    assert row.share_changed == 2 / 8  # where the second and third piece begin
    (row,) = token_stability(ContextTokenizer(), [short], RATE, ["chunks:5"])
    assert (row.num_clips, row.share_changed, row.unit_edit_distance) == (0, None, None)


def test_level_changes_are_counted_as_they_are() -> None:
    assert stability_of(LoudnessTokenizer(), "gain:0") == (0.0, 0.0)
    assert stability_of(LoudnessTokenizer(), "gain:-6") == (1.0, 1.0)
    # With two codebooks half of the codes stay, but no frame does.
    assert stability_of(PairTokenizer(), "gain:-6") == (0.5, 1.0)


def test_edit_distance_lets_codes_slip() -> None:
    class Stutter(LoudnessTokenizer):
        """Repeats its first code when the clip is quieter than half scale."""

        def codes_of(self, waveform: Tensor) -> Tensor:
            loud = waveform.abs().max() > 0.5
            codes = super().codes_of(waveform / waveform.abs().max())
            return codes if loud else torch.cat([codes[:1], codes])

    share, edits = stability_of(Stutter(), "gain:-12")
    assert share == 7 / 8
    assert edits == 1 / 8


def test_more_noise_changes_more_codes_and_the_noise_is_the_same_each_time() -> None:
    clip = torch.rand(4000, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 4000)
    tokenizer = LoudnessTokenizer()
    tokenizer.num_levels = 20

    def share(condition: str) -> float:
        return stability_of(tokenizer, condition, [clip])[0]

    for colour in ("white", "pink", "brown"):
        assert share(f"{colour}:60") < share(f"{colour}:10") < share(f"{colour}:-10")
        assert share(f"{colour}:10") == share(f"{colour}:10")
    (one,), (two,) = (token_stability(tokenizer, [clip], RATE, ["white:10"], seed=seed) for seed in (1, 2))
    assert one != two


def test_figures_are_split_by_sound_type() -> None:
    silent = staircase([0.0] * 4)
    (row,) = token_stability(
        LoudnessTokenizer(), [CLIP, silent, CLIP], RATE, ["gain:-6"], sound_types=["speech", "sound", None]
    )
    assert row.share_changed_by_type == {"sound": 0.0, "speech": 1.0}
    assert row.share_changed == 16 / 20


@pytest.mark.parametrize("name", ["pinc:20", "white", "white:", "white:loud", "g711:8", "crush:1", "shift:-1", "chunks:0"])  # fmt: skip  # noqa: E501
def test_conditions_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"condition '{name}'"):
        parse_condition(name)


def test_every_kind_is_among_the_defaults() -> None:
    assert {parse_condition(name).kind for name in DEFAULT_CONDITIONS} == set(KINDS) - {"opus"}  # the slowest codec


def test_bfloat16_needs_a_tokenizer_that_has_it_and_no_clips_are_an_error() -> None:
    with pytest.raises(ValueError, match="LoudnessTokenizer"):
        token_stability(LoudnessTokenizer(), [CLIP], RATE, ["bfloat16"])
    with pytest.raises(ValueError, match="no clips"):
        token_stability(LoudnessTokenizer(), [], RATE)


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer whose codes vary, four clips and their manifest."""
    folder = tmp_path_factory.mktemp("stability")
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        max_source_positions=1500, pooling_kernel_size=2, quantize_position=1, quantize_vocab_size=24, init_std=0.3,
        quantize_encoder_only=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = UniAudioTokenizer(config).eval()
    clips = [torch.randn(16_000 + 4000 * n) * torch.linspace(0, 0.3, 16_000 + 4000 * n) for n in range(4)]
    model.fit_codebook(clips, 16_000)
    model.save_pretrained(folder / "tokenizer")
    records = []
    for number, clip in enumerate(clips):
        soundfile.write(folder / f"{number}.wav", clip.numpy(), 16_000)
        kind = ("speech", "music")[number % 2]
        records.append({"audio": f"{number}.wav", "sound_type": kind, "split": ("train", "test")[number // 2]})
    (folder / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_the_script_reports_every_condition_of_a_real_tokenizer(clips_folder: Path) -> None:
    config = StabilityConfig(audio_tokenizer=str(clips_folder / "tokenizer"), data=str(clips_folder / "clips.jsonl"))
    results = measure(config)
    assert results["config"]["audio_tokenizer"] == config.audio_tokenizer
    assert "tokenizer" not in results["config"]
    assert [row["condition"] for row in results["rows"]] == list(DEFAULT_CONDITIONS)
    assert results["num_clips"] == 4
    by_name = {row["condition"]: row for row in results["rows"]}
    assert by_name["white:10"]["share_changed"] > by_name["white:30"]["share_changed"] >= 0
    assert set(by_name["white:10"]["share_changed_by_type"]) == {"music", "speech"}
    assert by_name["bfloat16"]["share_changed"] < 0.5
    assert by_name["chunks:5"]["share_changed"] is None  # no clip is longer
    json.dumps(results, allow_nan=False)
    console = Console(record=True, width=160)
    show_table(results, console)
    assert "white:10" in console.export_text()


def test_a_manifest_of_older_corpora_is_named_with_what_to_do(
    clips_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = clips_folder / "old.jsonl"
    old.write_text((clips_folder / "clips.jsonl").read_text().replace("sound_type", "task"))
    for name, is_warned in (("clips.jsonl", False), ("old.jsonl", True)):
        caplog.clear()
        read_clips(StabilityConfig(data=str(clips_folder / name)), 16_000)
        assert ("old.jsonl: records say their sound type in `task`" in caplog.text) == is_warned
        assert ("Rename the field to `sound_type`" in caplog.text) == is_warned


def test_clips_are_chosen_by_split_and_spread_over_the_records(clips_folder: Path) -> None:
    def lengths(**options: Any) -> list[int]:
        config = StabilityConfig(audio_tokenizer="", data=str(clips_folder / "clips.jsonl"), **options)
        return [len(waveform) for waveform in read_clips(config, 16_000)[0]]

    assert lengths() == [16_000, 20_000, 24_000, 28_000]
    assert lengths(split="test") == [24_000, 28_000]
    assert lengths(max_clips=2) == [16_000, 24_000]
    with pytest.raises(RecordError, match="no records of split 'dev'"):
        lengths(split="dev")
    with pytest.raises(ValueError, match="max_clips=0"):
        lengths(max_clips=0)


def test_figures_are_printed_as_they_are_written(
    clips_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = StabilityConfig(
        audio_tokenizer=str(clips_folder / "tokenizer"), data=str(clips_folder / "clips.jsonl"), json=True,
        conditions=("gain:-12",), output=str(tmp_path / "stability.json"),
    )  # fmt: skip
    run(config)
    assert capsys.readouterr().out == (tmp_path / "stability.json").read_text()
    assert '\n  "num_clips": 4,' in (tmp_path / "stability.json").read_text()
