"""Times encode() against a plain path: WhisperFeatureExtractor, all Whisper layers, naive quantizer, padded batches.

Both run in one process on the same random weights and the same noise, in turns. The plain path is what the published
tokenizer does: it pads a batch to its longest clip, computes the layers behind the quantizer, and computes all
distances with the entries' norms anew. Example::

    python benchmarks/tokenizer_speed.py --rounds 5 --output tokenizer_speed.json
"""
# Shapes: B segments, N samples, T tokens, D feature size, V codebook entries.

from __future__ import annotations

import copy
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.harness.figures import recorded_config, write_figures
from audiollm.benchmarks.harness.options import check_output
from audiollm.benchmarks.speed.plain.encoder import PlainEncoder
from audiollm.benchmarks.speed.timing import PartTimer, bound_seconds, in_turns, machine_facts, now, path_figures
from audiollm.environment import find_device
from audiollm.program import run_program
from audiollm.tables import print_table, table_console
from audiollm.tokenizer.configuration import SAMPLE_RATE, UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerSpeedConfig:
    """One comparison; sizes default to Whisper-base with the quantizer at half depth."""

    d_model: int = 512
    """Feature size."""
    encoder_layers: int = 6
    """Layers of the plain path; encode() needs only those up to the quantizer."""
    quantize_position: int = 3
    """Layer behind which the quantizer sits."""
    codebook_size: int = 8192
    """Codebook entries."""
    num_mel_bins: int = 80
    """Mel bins of the features."""
    use_sae: bool = True
    """Put the gated residual in front of the quantizer."""
    long_seconds: float = 60.0
    """Length of the one long file."""
    num_files: int = 64
    """Files of the batch, 1 to 30 s each."""
    plain_batch_size: int = 128
    """Segments that the plain path pads together, as the published code does."""
    rounds: int = 5
    """Timings of each path; they alternate."""
    variants: tuple[str, ...] | None = None
    """Also time encode() in these forms: bfloat16, int8, compiled; bfloat16, and int8 on a processor, if not given."""
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


def build_model(config: TokenizerSpeedConfig) -> UniAudioTokenizer:
    """Makes a tokenizer with random weights whose entries lie among features of noise."""
    torch.manual_seed(config.seed)
    model = UniAudioTokenizer(
        UniAudioTokenizerConfig(
            d_model=config.d_model,
            encoder_layers=config.encoder_layers,
            encoder_attention_heads=config.d_model // 64,
            encoder_ffn_dim=4 * config.d_model,
            num_mel_bins=config.num_mel_bins,
            pooling_kernel_size=2,
            pooling_type="avg",
            quantize_position=config.quantize_position,
            quantize_vocab_size=config.codebook_size,
            encoder_residual_source_position=1 if config.use_sae else None,
            encoder_residual_target_position=config.quantize_position if config.use_sae else None,
            use_residual_adapter=config.use_sae,
            use_residual_gate=config.use_sae,
        )
    ).eval()
    features = model.encode(make_clips([30.0] * 4, seed=1), SAMPLE_RATE, return_features=True).features
    assert features is not None
    rows_ND = torch.cat(features)
    spread_D = rows_ND.std(dim=0)
    drawn_V = torch.randint(len(rows_ND), (config.codebook_size,))
    with torch.no_grad():
        model.codebook.weight.copy_(
            rows_ND[drawn_V] + 0.3 * spread_D * torch.randn(config.codebook_size, len(spread_D))
        )
    return model


def make_clips(seconds: list[float], seed: int) -> list[Tensor]:
    """Makes noise with changing loudness and colour, at 16 kHz."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for length in seconds:
        waveform = torch.randn(int(length * SAMPLE_RATE), generator=generator)
        places = torch.arange(len(waveform)) / SAMPLE_RATE
        waveform = waveform * (0.1 + 0.09 * torch.sin(places * 7)) + 0.2 * torch.sin(places**1.5 * 600)
        clips.append(waveform)
    return clips


def parts_of_encode(model: UniAudioTokenizer, clips: list[Tensor]) -> dict[str, float]:
    """Splits one encode() into parts, by timing the model's pieces; instance attributes are put back."""
    timer = PartTimer(model.device)
    owners = [
        (model, "log_mel", "log-mel"),
        (model.encoder, "stem", "convolutions"),
        (model.encoder, "pool", "convolutions"),
        (model.codebook, "encode", "quantizer"),
        (model.codebook, "search_index", "quantizer"),
    ]
    owners += [(layer, "forward", "layers up to the quantizer") for layer in model.encoder.layers]
    if model.sae is not None:
        owners.append((model.sae, "forward", "SAE"))
    log_mel = model.log_mel
    for owner, name, part in owners:
        setattr(owner, name, timer.wrap(part, getattr(owner, name)))
    start = now(model.device)
    model.encode(clips, SAMPLE_RATE)
    total = now(model.device) - start
    for owner, name, _ in owners:
        delattr(owner, name)
    model.log_mel = log_mel
    return {**timer.seconds, "rest": total - sum(timer.seconds.values())}


def share_changed(first: list[list[int]], second: list[list[int]]) -> float:
    """Share of codes that differ between two encodings of the same clips."""
    pairs = [(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)]
    return sum(a != b for a, b in pairs) / max(1, len(pairs))


def make_variant(model: UniAudioTokenizer, name: str) -> UniAudioTokenizer:
    """Returns a copy of the model in another form."""
    variant = copy.deepcopy(model)
    if name == "bfloat16":
        for part in (variant.encoder, variant.sae):
            if part is not None:
                part.bfloat16()
    elif name == "int8":
        variant.to_int8()
    elif name == "compiled":
        variant.compile_encoder()
    else:
        raise ValueError(f"variant {name!r}: use bfloat16, int8 or compiled")
    return variant


def _standard_variants(on_gpu: bool) -> tuple[str, ...]:
    return ("bfloat16",) if on_gpu else ("bfloat16", "int8")


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
    for name in _standard_variants(on_gpu) if config.variants is None else config.variants:
        variant = make_variant(model, name)
        paths[name] = lambda variant=variant: variant.encode(clips, SAMPLE_RATE).tolist()  # type: ignore[misc]
    codes = {name: run() for name, run in paths.items()}
    seconds = in_turns(paths, config.rounds, model.device, title)
    # The codebook search, a tenth of the work, is float32 in all of them.
    # The rates are the processor's, and bound no GPU.
    bounds = {
        name: bound_seconds(run, gflops.get(name, gflops["float32"])) for name, run in paths.items() if not on_gpu
    }
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
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device = find_device(config.device)
    model = build_model(config).to(device)
    generator = torch.Generator().manual_seed(config.seed)
    lengths = (1 + 29 * torch.rand(config.num_files, generator=generator)).tolist()
    machine = machine_facts(
        load_average=os.getloadavg(),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
    )
    clips = {
        f"one file of {config.long_seconds:g} s": make_clips([config.long_seconds], seed=2),
        f"{config.num_files} files of 1-30 s": make_clips(lengths, seed=3),
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
    check_output(config)
    results = measure(config)
    text = write_figures(results, config.output)
    if config.json:
        sys.stdout.write(text + "\n")
    else:
        print_tables(results, table_console())


if __name__ == "__main__":
    run_program(TokenizerSpeedConfig, run, level=logging.WARNING)
