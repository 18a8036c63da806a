"""Times the waveform decoder against a plain path: two passes per step, one row at a time, history computed anew.

Both run in one process on the same random weights, codes and noise, in turns; the plain path spells out the published
decoder (``speed/plain/``). Measured are whole clips, the real-time factor by number of steps,
the cost of a stream by its length, and the time to the first sound. Example::

    python benchmarks/decoder_speed.py --rounds 3 --output decoder_speed.json --plot decoder_streaming.png
"""
# Shapes: T codes, M mel frames, N samples, H overtones, C mel bins.

from __future__ import annotations

import copy
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.harness.figures import recorded_config, write_figures
from audiollm.benchmarks.harness.options import refuse_below, refuse_idle
from audiollm.benchmarks.speed.decoding import build_decoder, draw_codes, time_stream
from audiollm.benchmarks.speed.flops import counted
from audiollm.benchmarks.speed.plain.decoder import PlainDecoder
from audiollm.benchmarks.speed.timing import (
    bound_seconds,
    in_turns,
    machine_facts,
    path_figures,
    set_threads,
    standard_variants,
)
from audiollm.data.files.replacing import refuse_existing
from audiollm.program import run_program
from audiollm.tables import print_table, table_console
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class DecoderSpeedConfig:
    """One comparison on a CPU; sizes default to those of the released decoder."""

    decoder: WaveformDecoderConfig = field(default_factory=WaveformDecoderConfig)
    """Sizes."""
    clip_seconds: float = 10.0
    """Length of the one clip."""
    batch_seconds: tuple[float, ...] = (1.0, 2.0, 3.0, 2.5)
    """Lengths of the clips that are decoded as one batch."""
    steps: tuple[int, ...] = (4, 6, 10)
    """Numbers of steps to give the real-time factor for; the last one is used everywhere else."""
    stream_seconds: float = 20.0
    """Length of the stream."""
    plain_history_seconds: tuple[float, ...] = (0.0, 4.0, 8.0, 16.0)
    """Histories behind which to time one block of the plain stream."""
    rounds: int = 3
    """Timings of each path; they alternate."""
    variants: tuple[Literal["bfloat16", "int8"], ...] | None = None
    """Also time decode() in these forms; bfloat16, and int8 where this processor has the kernel, if not given."""
    num_threads: int | None = None
    """Threads of torch; its own choice if not given."""
    seed: int = 0
    """For weights and codes."""
    output: str | None = None
    """File for the figures as JSON."""
    plot: str | None = None
    """PNG file for the cost of streaming."""
    overwrite: bool = False
    """Replace outputs that exist."""
    json: bool = False
    """Print the figures as JSON instead of tables."""

    def __post_init__(self) -> None:
        refuse_below(self, 1, ["steps", "rounds"])
        refuse_below(self, 0, ["clip_seconds", "batch_seconds", "stream_seconds"], reached=False)
        refuse_below(self, 0, ["plain_history_seconds"])


def compare(
    decoder: WaveformDecoder, clips: list[Tensor], config: DecoderSpeedConfig, gflops: Mapping[str, float], title: str
) -> dict[str, Any]:
    """Times all paths on one set of clips."""
    plain, steps = PlainDecoder(decoder), config.steps[-1]
    paths = {
        "plain": lambda: [plain.decode(clip, steps) for clip in clips],
        "decode": lambda: decoder.decode(clips, steps=steps),
    }
    for name in config.variants or ():
        paths[name] = partial(in_another_form(decoder, name).decode, clips, steps=steps)
    first = {name: counted(run) for name, run in paths.items()}
    seconds = in_turns(paths, config.rounds, CPU, title, has_run=True)
    bounds = bound_seconds({name: flops for name, (_, flops) in first.items()}, gflops)
    expected, made = (torch.cat(first[name][0]) for name in ("plain", "decode"))
    audio_seconds = len(made) / decoder.sample_rate
    return {
        "audio_seconds": audio_seconds,
        "largest_difference_from_plain": (made - expected).abs().max().item(),
        "loudest_sample": expected.abs().max().item(),
        "paths": path_figures(seconds, audio_seconds, bounds),
    }


def in_another_form(decoder: WaveformDecoder, name: Literal["bfloat16", "int8"]) -> WaveformDecoder:
    """A copy that computes in another number format."""
    variant = copy.deepcopy(decoder)
    return variant.to_int8() if name == "int8" else variant.prepare(torch.bfloat16)


def time_streams(decoder: WaveformDecoder, config: DecoderSpeedConfig) -> dict[str, dict[str, float]]:
    """By number format: work until the first sound, the best of the rounds, and then per second of a stream."""
    codes_T, steps = draw_codes(decoder, config.stream_seconds, seed=4), config.steps[-1]
    forms = {"float32": decoder} | {name: in_another_form(decoder, name) for name in config.variants or ()}
    found = {}
    for name, form in forms.items():
        time_stream(form, codes_T[: round(decoder.frame_rate)], steps)  # does not count
        streams = [time_stream(form, codes_T, steps) for _ in range(config.rounds)]
        rest = [chunk for stream in streams for chunk in stream[1:-1] or stream]  # the last is what was held back
        found[name] = {
            "first_sound": min(stream[0]["compute_seconds"] for stream in streams),
            "under_way": sum(one["compute_seconds"] for one in rest) / sum(one["audio_seconds"] for one in rest),
        }
    return found


def time_parts(decoder: WaveformDecoder, codes_T: Tensor, config: DecoderSpeedConfig) -> dict[str, dict[str, float]]:
    """Times flow and vocoder apart, in both paths: best of the rounds."""
    plain, steps = PlainDecoder(decoder), config.steps[-1]
    mel = decoder.mel(codes_T[None], steps=steps)
    noise_CM = torch.randn(mel.shape[1:])
    parts = {
        "plain flow": lambda: plain.flow.mel(codes_T, noise_CM, steps=steps, guidance=config.decoder.flow.guidance),
        "flow": lambda: decoder.mel(codes_T[None], noise=noise_CM[None], steps=steps),
        "plain vocoder": lambda: plain.vocode(mel[0], torch.Generator().manual_seed(0)),
        "vocoder": lambda: decoder.vocode(mel),
    }
    best = {
        name: min(seconds) for name, seconds in in_turns(parts, config.rounds, CPU, "flow and vocoder apart").items()
    }
    return {
        part: {
            "plain_seconds": best[f"plain {part}"],
            "seconds": best[part],
            "speedup": best[f"plain {part}"] / best[part],
        }
        for part in ("flow", "vocoder")
    }


def time_steps(decoder: WaveformDecoder, codes_T: Tensor, config: DecoderSpeedConfig) -> dict[str, float]:
    """Real-time factor of decode() by number of steps: median of the rounds."""
    paths: dict[str, Callable[[], Any]] = {
        str(steps): partial(decoder.decode, [codes_T], steps=steps) for steps in config.steps
    }
    audio_seconds = decoder.num_samples(len(codes_T)) / decoder.sample_rate
    return {
        name: statistics.median(seconds) / audio_seconds
        for name, seconds in in_turns(paths, config.rounds, CPU, "by steps").items()
    }


def time_plain_stream(decoder: WaveformDecoder, config: DecoderSpeedConfig) -> list[dict[str, float]]:
    """Times one block of the plain stream behind histories of several lengths."""
    plain, block_size = PlainDecoder(decoder), config.decoder.flow.encoder.block_size
    chunks = []
    for history_seconds in config.plain_history_seconds:
        # Whole blocks, as in a stream.
        num_history = round(history_seconds * decoder.frame_rate / block_size) * block_size
        codes_T = draw_codes(decoder, (num_history + block_size) / decoder.frame_rate, seed=5)
        mel_CQ = torch.randn(config.decoder.mel.num_mels, decoder.flow.num_mel_frames(num_history))
        history_T, block_T = codes_T[:num_history], codes_T[num_history:]
        start = time.perf_counter()
        waveform = plain.decode_block(history_T, mel_CQ, block_T, config.steps[-1])
        chunks.append(
            {
                "audio_seconds_before": num_history / decoder.frame_rate,
                "audio_seconds": len(waveform) / decoder.sample_rate,
                "compute_seconds": time.perf_counter() - start,
            }
        )
    return chunks


def measure(config: DecoderSpeedConfig) -> dict[str, Any]:
    """Runs all comparisons."""
    set_threads(config.num_threads)
    config = replace(config, variants=standard_variants(on_gpu=False) if config.variants is None else config.variants)
    decoder = build_decoder(config.decoder, config.seed)
    clip = draw_codes(decoder, config.clip_seconds, seed=2)
    batch = [draw_codes(decoder, seconds, seed=3) for seconds in config.batch_seconds]
    machine = machine_facts(load_average_before=os.getloadavg())
    clips = {
        f"one clip of {config.clip_seconds:g} s": [clip],
        f"{len(batch)} clips of {min(config.batch_seconds):g}-{max(config.batch_seconds):g} s": batch,
    }
    whole = {title: compare(decoder, own, config, machine["gflops"], title) for title, own in clips.items()}
    stream = time_stream(decoder, draw_codes(decoder, config.stream_seconds, seed=4), config.steps[-1])
    by_steps = {str(steps): time_stream(decoder, draw_codes(decoder, 1.0, seed=4), steps)[0] for steps in config.steps}
    return {
        "config": recorded_config(config),
        "machine": machine | {"load_average_after": os.getloadavg()},
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "whole": whole,
        "parts": time_parts(decoder, clip, config),
        "real_time_factor_by_steps": time_steps(decoder, clip, config),
        "stream": stream,
        "first_sound_by_steps": by_steps,
        "streams_by_format": time_streams(decoder, config),
        "plain_stream": time_plain_stream(decoder, config),
    }


def plot_streaming(results: dict[str, Any], path: Path) -> None:
    """Draws the seconds of work per second of sound against what has been decoded before."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = {"plain_stream": "plain: history computed anew", "stream": "decode_stream"}
    for (key, name), marker in zip(names.items(), ("o-", "s-"), strict=True):
        # The last chunk of the stream is a rest: what was held back costs little, and says nothing about the length.
        chunks = results[key] if key == "plain_stream" else results[key][:-1]
        costs = [chunk["compute_seconds"] / chunk["audio_seconds"] for chunk in chunks]
        axes.plot([chunk["audio_seconds_before"] for chunk in chunks], costs, marker, label=name, markersize=4)
    axes.axhline(1.0, color="gray", linestyle="--", linewidth=1, label="real time")
    axes.set_xlabel("seconds decoded before")
    axes.set_ylabel("seconds of work per second of sound")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Streaming, {results['config']['steps'][-1]} steps, {results['machine']['threads']} CPU threads")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Shows times and speed-ups."""
    for title, result in results["whole"].items():
        table = Table("path", "min s", "median s", "× plain (median)", "real-time factor", "of the bound", title=title)
        for name, path in result["paths"].items():
            table.add_row(
                name,
                f"{path['min_seconds']:.2f}",
                f"{path['median_seconds']:.2f}",
                f"{path['speedup_median']:.2f}",
                f"{path['real_time_factor']:.2f}",
                f"{path['share_of_bound']:.0%}",
            )
        print_table(table, console)
        console.print(
            f"largest difference from plain {result['largest_difference_from_plain']:.1e}, "
            f"loudest sample {result['loudest_sample']:.2f}"
        )
    parts = Table("part", "plain s", "s", "× plain", title="flow and vocoder apart")
    for name, part in results["parts"].items():
        parts.add_row(name, f"{part['plain_seconds']:.2f}", f"{part['seconds']:.2f}", f"{part['speedup']:.2f}")
    print_table(parts, console)
    steps = Table("steps", "real-time factor", "first sound after s of work", "its length s", title="by steps")
    for name, factor in results["real_time_factor_by_steps"].items():
        first = results["first_sound_by_steps"][name]
        steps.add_row(name, f"{factor:.2f}", f"{first['compute_seconds']:.2f}", f"{first['audio_seconds']:.2f}")
    print_table(steps, console)
    formats = Table(
        "format",
        "first sound after s of work",
        "then s per s",
        title=f"streams, {results['config']['steps'][-1]} steps",
    )
    for name, stream in results["streams_by_format"].items():
        formats.add_row(name, f"{stream['first_sound']:.2f}", f"{stream['under_way']:.2f}")
    print_table(formats, console)
    for key, title in (("stream", "decode_stream"), ("plain_stream", "plain stream")):
        table = Table("after s", "gives s", "takes s", "s per s", title=title)
        for chunk in results[key]:
            table.add_row(
                f"{chunk['audio_seconds_before']:.2f}",
                f"{chunk['audio_seconds']:.2f}",
                f"{chunk['compute_seconds']:.2f}",
                f"{chunk['compute_seconds'] / chunk['audio_seconds']:.2f}",
            )
        print_table(table, console)
    console.print(results["machine"], soft_wrap=True)


def run(config: DecoderSpeedConfig) -> None:
    """Times all paths, writes the figures down and shows them."""
    outputs = [path for path in (config.output, config.plot) if path is not None]
    if not outputs:
        refuse_idle(config, ["overwrite"], "without --output and --plot")
    for path in outputs:
        refuse_existing(path, config.overwrite)
    results = measure(config)
    text = write_figures(results, config.output)
    if config.plot is not None:
        plot_streaming(results, Path(config.plot))
    if config.json:
        sys.stdout.write(text + "\n")
    else:
        print_tables(results, table_console())


if __name__ == "__main__":
    run_program(DecoderSpeedConfig, run, level=logging.WARNING)
