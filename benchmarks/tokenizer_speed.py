"""Times encode() against a plain path: WhisperFeatureExtractor, all Whisper layers, naive quantizer, padded batches.

Both run in one process on the same random weights and the same noise, in turns. The plain path is what the published
tokenizer does: it pads a batch to its longest clip, computes the layers behind the quantizer, and computes all
distances with the entries' norms anew. Example::

    python benchmarks/tokenizer_speed.py --rounds 5 --output tokenizer_speed.json
"""
# Shapes: B segments, N samples, T tokens, D feature size, V codebook entries.

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.harness.figures import measure_and_show, recorded_config
from audiollm.benchmarks.harness.options import refuse_below
from audiollm.benchmarks.speed.encoding import (
    FORMS,
    TokenizerSizes,
    build_model,
    clip_lengths,
    in_another_form,
    make_clips,
    parts_of_encode,
    share_changed,
)
from audiollm.benchmarks.speed.flops import counted
from audiollm.benchmarks.speed.plain.encoder import PlainEncoder
from audiollm.benchmarks.speed.timing import (
    bound_seconds,
    in_turns,
    machine_facts,
    path_figures,
    set_threads,
    standard_variants,
)
from audiollm.environment import find_device
from audiollm.program import run_program
from audiollm.tables import print_table
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerSpeedConfig(TokenizerSizes):
    """One comparison; sizes default to Whisper-base with the quantizer at half depth."""

    long_seconds: float = 60.0
    """Length of the one long file."""
    num_files: int = 64
    """Files of the batch, 1 to 30 s each."""
    plain_batch_size: int = 128
    """Segments that the plain path pads together, as the published code does."""
    rounds: int = 5
    """Timings of each path; they alternate."""
    variants: tuple[str, ...] | None = None
    """Also time encode() in these forms: bfloat16, float16, int8, compiled; bfloat16, and int8 on a processor that has
    the kernel, if not given."""
    num_threads: int | None = None
    """Threads of torch; its own choice if not given."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    seed: int = 0
    """For weights and noise."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace outputs that exist."""
    json: bool = False
    """Print the figures as JSON instead of tables."""

    def __post_init__(self) -> None:
        refuse_below(self, 1, ["num_files", "plain_batch_size", "rounds"])
        refuse_below(self, 1 / SAMPLE_RATE, ["long_seconds"])
        if self.d_model < 64 or self.d_model % 64:
            raise ValueError(f"d_model={self.d_model}: use a multiple of 64, which is the size of a head")
        unknown = [name for name in self.variants or () if name not in FORMS]
        if unknown:
            raise ValueError(f"variants: {', '.join(unknown)} unknown; choose among {', '.join(FORMS)}")


def compare(
    model: UniAudioTokenizer,
    clips: list[Tensor],
    config: TokenizerSpeedConfig,
    gflops: Mapping[str, float],
    title: str,
) -> dict[str, Any]:
    """Times all paths on one set of clips."""
    plain = PlainEncoder(model).to(model.device).eval()
    paths: dict[str, Callable[[], list[list[int]]]] = {
        "plain": lambda: plain.encode(clips, config.plain_batch_size),
        "encode": lambda: model.encode(clips, SAMPLE_RATE).tolist(),
    }
    on_gpu = model.device.type != "cpu"
    for name in config.variants or ():
        variant = in_another_form(model, name)
        paths[name] = lambda variant=variant: variant.encode(clips, SAMPLE_RATE).tolist()  # type: ignore[misc]
    first = {name: counted(run) for name, run in paths.items()}
    codes = {name: found for name, (found, _) in first.items()}
    if "compiled" in paths:
        paths["compiled"]()  # while operations are counted, nothing is compiled
    seconds = in_turns(paths, config.rounds, model.device, title, has_run=True)
    # The codebook search, a tenth of the work, is float32 in all of them.
    # The rates are the processor's, and bound no GPU.
    bounds = {} if on_gpu else bound_seconds({name: flops for name, (_, flops) in first.items()}, gflops)
    plain.timer.seconds.clear()
    paths["plain"]()
    audio_seconds = sum(len(clip) for clip in clips) / SAMPLE_RATE
    return {
        "audio_seconds": audio_seconds,
        "paths": {
            name: figures | {"share_of_codes_changed_from_encode": share_changed(codes["encode"], codes[name])}
            for name, figures in path_figures(seconds, audio_seconds, bounds).items()
        },
        "parts_seconds": {"plain": dict(plain.timer.seconds), "encode": parts_of_encode(model, clips)},
        "distinct_codes": len({code for row in codes["encode"] for code in row}),
    }


def measure(config: TokenizerSpeedConfig) -> dict[str, Any]:
    """Runs the comparison on one long file and on many of different lengths."""
    set_threads(config.num_threads)
    device = find_device(config.device)
    on_gpu = torch.device(device).type != "cpu"
    config = replace(config, variants=standard_variants(on_gpu) if config.variants is None else config.variants)
    model = build_model(config, config.seed, device)
    machine = machine_facts(
        load_average=os.getloadavg(),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
    )
    clips = {
        f"one file of {config.long_seconds:g} s": make_clips([config.long_seconds], seed=2),
        f"{config.num_files} files of 1-30 s": make_clips(clip_lengths(config.num_files, config.seed), seed=3),
    }
    results = {title: compare(model, own, config, machine["gflops"], title) for title, own in clips.items()}
    return {"config": recorded_config(config, device=device), "machine": machine, **results}


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Shows times, speed-ups and where the time goes."""
    for title, result in results.items():
        if title in ("config", "machine"):
            continue
        table = Table(
            "path", "min s", "median s", "× plain (median)", "× real time", "of the bound", "codes changed", title=title
        )
        for name, path in result["paths"].items():
            table.add_row(
                name,
                f"{path['min_seconds']:.3f}",
                f"{path['median_seconds']:.3f}",
                f"{path['speedup_median']:.2f}",
                f"{1 / path['real_time_factor']:.0f}",
                f"{path['share_of_bound']:.0%}" if "share_of_bound" in path else "–",
                f"{path['share_of_codes_changed_from_encode']:.3%}",
            )
        print_table(table, console)
        parts = Table("part", "plain s", "encode s", title=f"{title}: where the time goes")
        plain, encode = result["parts_seconds"]["plain"], result["parts_seconds"]["encode"]
        for name in {**plain, **encode}:
            parts.add_row(name, *(f"{own.get(name, 0.0):.3f}" for own in (plain, encode)))
        print_table(parts, console)
    console.print(results["machine"], soft_wrap=True)


def run(config: TokenizerSpeedConfig) -> None:
    """Times all paths, writes the figures down and shows them."""
    measure_and_show(config, measure, print_tables)


if __name__ == "__main__":
    run_program(TokenizerSpeedConfig, run, level=logging.WARNING)
