"""Decoding at released sizes, in ten steps: a clip, a batch, and how soon a stream is heard."""

from __future__ import annotations

import copy
import statistics
from functools import partial

import torch
from torch import Tensor

from audiollm.benchmarks.speed.decoding import build_decoder, draw_codes, time_stream
from audiollm.benchmarks.speed.flops import counted
from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.benchmarks.speed.timing import bound_seconds, in_turns, path_figures
from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.rates import float32_products

_STEPS, _ROUNDS = 10, 3
_CLIP_SECONDS, _BATCH_SECONDS, _STREAM_SECONDS = 10.0, tuple(1.0 + 0.6 * n for n in range(16)), 8.0
_FORMS = ("float32", "tf32", "bfloat16")
_SMOKE_CONFIG = WaveformDecoderConfig(
    flow=FlowConfig(
        codebook_size=32,
        embedding_size=16,
        speaker_size=8,
        encoder=TokenEncoderConfig(size=16, num_heads=2, feed_forward_size=32, num_blocks=1, block_size=7),
        estimator=EstimatorConfig(channels=(16, 24), num_heads=2, head_dim=8, blocks_per_stage=1, num_mid_stages=1),
    ),
    vocoder=VocoderConfig(base_channels=16, f0_channels=16, num_harmonics=2),
)


def measure(measurements: Measurements) -> None:
    """Every number format: the stream first, as its first sound is what is waited for."""
    settings = measurements.settings
    steps, rounds = (2, 1) if settings.smoke else (_STEPS, _ROUNDS)
    clip_seconds, batch_seconds, stream_seconds = (
        (0.4, (0.2, 0.4), 1.0) if settings.smoke else (_CLIP_SECONDS, _BATCH_SECONDS, _STREAM_SECONDS)
    )
    one = f"one clip of {clip_seconds:g} s"
    batch = f"{len(batch_seconds)} clips of {min(batch_seconds):g}-{max(batch_seconds):g} s"
    stream = f"first sound of a stream, {steps} steps"
    measurements.announce(f"{title}, {form}" for form in _FORMS for title in (stream, one, batch))
    exact = build_decoder(_SMOKE_CONFIG if settings.smoke else WaveformDecoderConfig(), seed=0).to(measurements.device)
    clips = {
        one: [draw_codes(exact, clip_seconds, seed=2)],
        batch: [draw_codes(exact, seconds, seed=3) for seconds in batch_seconds],
    }
    codes = draw_codes(exact, stream_seconds, seed=4)
    for form in _FORMS:
        decoder = copy.deepcopy(exact).prepare(torch.bfloat16) if form == "bfloat16" else exact
        with float32_products(in_tf32=form == "tf32"):
            measurements.make(f"{stream}, {form}", partial(_stream, decoder, codes, steps, rounds))
            for title, own in clips.items():
                measurements.make(
                    f"{title}, {form}", partial(_whole, decoder, own, steps, rounds, form, settings.gflops)
                )


def _stream(decoder: WaveformDecoder, codes: Tensor, steps: int, rounds: int) -> Figures:
    runs = [time_stream(decoder, codes, steps) for _ in range(rounds + 1)][1:]  # the first one fills caches
    first = [chunks[0]["compute_seconds"] for chunks in runs]
    later = [
        sum(chunk["compute_seconds"] for chunk in chunks[1:]) / sum(chunk["audio_seconds"] for chunk in chunks[1:])
        for chunks in runs
        if len(chunks) > 1
    ]
    figures: Figures = {
        "first_sound_seconds": statistics.median(first),
        "first_sound_codes": runs[0][0]["codes_seen"],
        "first_sound_length_seconds": runs[0][0]["audio_seconds"],
        "steps": steps,
    }
    told = f"{1000 * figures['first_sound_seconds']:.0f} ms of work for the first {figures['first_sound_codes']} codes"
    if later:
        figures["later_real_time_factor"] = statistics.median(later)
        told += f", then {1 / figures['later_real_time_factor']:.1f} × real time"
    return figures | {"told": told}


def _whole(
    decoder: WaveformDecoder, clips: list[Tensor], steps: int, rounds: int, form: str, gflops: dict[str, float]
) -> Figures:
    run = partial(decoder.decode, clips, steps=steps)
    made, flops = counted(run)
    seconds = in_turns({form: run}, rounds, decoder.device, has_run=True)
    audio_seconds = sum(len(waveform) for waveform in made) / decoder.sample_rate
    bounds = bound_seconds({form: flops}, gflops) if "float32" in gflops else {}
    figures: Figures = dict(path_figures(seconds, audio_seconds, bounds)[form])
    told = f"{1 / figures['real_time_factor']:.1f} × real time"
    if "share_of_bound" in figures:
        told += f", {figures['share_of_bound']:.0%} of the bound"
    return figures | {"told": told, "flops": flops, "audio_seconds": audio_seconds, "steps": steps}


if __name__ == "__main__":
    run_section(measure)
