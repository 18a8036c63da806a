"""The speed comparison of the decoder compares like with like, and its figures are complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.benchmarks import decoder_speed
from audiollm.benchmarks.decoder_speed import DecoderSpeedConfig, measure, plot_streaming
from audiollm.benchmarks.speed import timing
from audiollm.benchmarks.speed.decoding import build_decoder, draw_codes, time_stream
from audiollm.benchmarks.speed.plain.decoder import PlainDecoder
from audiollm.tokenizer import int8
from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)

TINY = DecoderSpeedConfig(
    decoder=WaveformDecoderConfig(
        flow=FlowConfig(
            codebook_size=32,
            embedding_size=16,
            speaker_size=8,
            encoder=TokenEncoderConfig(size=16, num_heads=2, feed_forward_size=32, num_blocks=2, block_size=7),
            estimator=EstimatorConfig(channels=(16, 24), num_heads=2, head_dim=8, blocks_per_stage=1, num_mid_stages=2),
        ),
        vocoder=VocoderConfig(base_channels=16, f0_channels=16, num_harmonics=2),
    ),
    clip_seconds=0.5,
    batch_seconds=(0.2, 0.4),
    steps=(1, 2),
    stream_seconds=1.5,
    plain_history_seconds=(0.0, 1.0),
    rounds=1,
)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds=0: use 1 or more"),
        ({"steps": ()}, "steps is empty: name at least one"),
        ({"steps": (4, 0)}, "steps=0: use 1 or more"),
        ({"batch_seconds": ()}, "batch_seconds is empty: name at least one"),
        ({"batch_seconds": (1.0, -1.0)}, "batch_seconds=-1: use more than 0"),
        ({"clip_seconds": float("inf")}, "clip_seconds=inf: use more than 0"),
        ({"stream_seconds": float("nan")}, "stream_seconds=nan: use more than 0"),
        ({"plain_history_seconds": (-1.0,)}, "plain_history_seconds=-1: use 0 or more"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_anything_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


@pytest.mark.parametrize("seconds", [0.04, 1.5])
def test_both_paths_give_the_same_waveform(seconds: float) -> None:
    decoder = build_decoder(TINY.decoder, seed=0)
    codes = draw_codes(decoder, seconds, seed=2)
    expected = PlainDecoder(decoder).decode(codes, steps=3)
    (made,) = decoder.decode([codes], steps=3)
    assert expected.std() > 0.001
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_plain_block_goes_on_from_its_history() -> None:
    decoder = build_decoder(TINY.decoder, seed=0)
    codes = draw_codes(decoder, 1.0, seed=2)
    mel = torch.randn(80, decoder.flow.num_mel_frames(14), generator=torch.Generator().manual_seed(1))
    made = PlainDecoder(decoder).decode_block(codes[:14], mel, codes[14:21], steps=2)
    expected = decoder.mel(codes[None, 14:21], prompt=(codes[None, :14], mel[None]), steps=2)
    generator = torch.Generator().manual_seed(42)
    torch.randn(80, decoder.flow.num_mel_frames(21), generator=generator)
    waveform = decoder.vocoder(expected, generator=generator)[0]
    torch.testing.assert_close(made, waveform, atol=1e-4, rtol=0)


def test_stream_is_timed_to_its_end() -> None:
    decoder = build_decoder(TINY.decoder, seed=0)
    codes = draw_codes(decoder, 3.0, seed=2)
    pieces = time_stream(decoder, codes, steps=1)
    assert sum(piece["audio_seconds"] for piece in pieces) == pytest.approx(
        decoder.num_samples(len(codes)) / decoder.sample_rate
    )
    assert pieces[0]["codes_seen"] < len(codes) / 2
    assert all(piece["compute_seconds"] > 0 for piece in pieces)


def test_figures_are_complete_and_serialisable(tmp_path: Path) -> None:
    results = json.loads(json.dumps(measure(TINY)))
    for result in results["whole"].values():
        assert set(result["paths"]) == {"plain", "decode", "bfloat16", "int8"}
        assert result["largest_difference_from_plain"] < 1e-3 * max(0.1, result["loudest_sample"])
        assert all(0 < path["min_seconds"] <= path["median_seconds"] for path in result["paths"].values())
    assert {"float32", "bfloat16"} <= set(results["streams_by_format"])
    assert all(value > 0 for stream in results["streams_by_format"].values() for value in stream.values())
    assert set(results["real_time_factor_by_steps"]) == set(results["first_sound_by_steps"]) == {"1", "2"}
    assert [piece["audio_seconds_before"] for piece in results["plain_stream"]] == pytest.approx([0, 1.12])
    plot_streaming(results, tmp_path / "stream.png")
    assert (tmp_path / "stream.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_int8_is_left_out_with_a_word_where_there_is_no_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing, "has_int8", lambda: False)
    assert timing.standard_variants(on_gpu=False) == ("bfloat16",)
    assert "int8 is left out: torch" in caplog.text


def test_int8_that_is_asked_for_is_refused_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_has_kernel", lambda: False)
    int8.input_levels.cache_clear()
    try:
        with pytest.raises(ValueError, match="has no kernel for it on this machine"):
            measure(replace(TINY, variants=("int8",)))
    finally:
        int8.input_levels.cache_clear()


@pytest.mark.parametrize("option", ["output", "plot"])
def test_figures_that_are_there_are_kept(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_speed, "measure", lambda _: pytest.fail("it is told too late"))
    path = tmp_path / "there"
    path.write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        decoder_speed.run(DecoderSpeedConfig(**{option: str(path)}))
    with pytest.raises(ValueError, match="--overwrite has no effect"):
        decoder_speed.run(DecoderSpeedConfig(overwrite=True))
    assert path.read_text() == "mine"
