"""Stability of a tokenizer's codes or latents: encodes clips clean and under many conditions; tells what changes.

Example::

    python benchmarks/stability.py --audio-tokenizer tokenizer --data clips.jsonl --split test --output stability.json
    python benchmarks/stability.py --audio-tokenizer tokenizer --data clips.jsonl --conditions white:20,shift:0.5,mp3
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.codes.features import load_encoder
from audiollm.benchmarks.codes.stability import DEFAULT_CONDITIONS, DRAWN_KINDS, parse_condition, token_stability
from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import recorded_config, write_figures
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.data.audio.channels import Mono
from audiollm.data.conversation.audio_parts import parse_audio_part
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.records import SOUND_TYPES
from audiollm.environment import find_device
from audiollm.tables import print_table, table_console

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """One tokenizer on one set of clips."""

    data: str
    """Clips: records with ``audio`` (JSONL, parquet, …)."""
    audio_tokenizer: str = "mini"
    """Audio tokenizer folder or Hub id; the embedded one if not given."""
    split: str | None = None
    """Only records whose ``split`` is this."""
    max_clips: int | None = 200
    """Use so many clips, evenly spread over the records. None: all."""
    conditions: tuple[str, ...] = DEFAULT_CONDITIONS
    """What to do to the clips, as ``kind`` or ``kind:amount``, such as white:20,shift:0.5,mp3; a wide choice if not
    given."""
    seed: int = 0
    """For noise and rooms."""
    mono: Mono = "first"
    """Which channel is heard: the first one, as tokenizers hear it, or the mean of all."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON."""

    def __post_init__(self) -> None:
        for name in self.conditions:
            parse_condition(name)
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: use 1 or more, or none for all")
        if not any(parse_condition(name).kind in DRAWN_KINDS for name in self.conditions):
            refuse_idle(self, ["seed"], "with these conditions, for which nothing is drawn")


def read_clips(config: StabilityConfig, sample_rate: int) -> tuple[list[Tensor], list[str | None]]:
    """Returns waveforms ``[N]`` (of the channel that ``mono`` says) and sound types.

    Raises:
        RecordError: a record has no audio, or none is left.
        AudioError: a recording cannot be used.
    """
    manifest = open_manifest(config.data)
    numbers = [n for n in range(len(manifest)) if config.split in (None, _record(manifest, n).get("split"))]
    if not numbers:
        raise RecordError(manifest.name, f"holds no records of split {config.split!r}" if config.split else "is empty")
    if config.max_clips is not None and len(numbers) > config.max_clips:
        # Spread evenly, not the first ones: records often stand sorted by source or class.
        numbers = [numbers[place * len(numbers) // config.max_clips] for place in range(config.max_clips)]
    waveforms, types, has_old_types = [], [], False
    for number in numbers:
        record = _record(manifest, number)
        part = parse_audio_part(record.get("audio"), where=manifest.where(number), base_dir=manifest.base_dir(number))
        waveforms.append(part.load(sample_rate, config.mono)[0])
        types.append(record.get("sound_type"))
        has_old_types |= types[-1] is None and record.get("task") in SOUND_TYPES
    if has_old_types:
        logger.warning(
            "%s: records say their sound type in `task`, where it is not looked for: there are no figures by sound "
            "type. Rename the field to `sound_type`",
            manifest.name,
        )
    return waveforms, types


def _record(manifest: Manifest, number: int) -> Mapping[str, Any]:
    record = manifest[number]
    if not isinstance(record, Mapping):
        raise RecordError(manifest.where(number), "a record is an object with `audio`")
    return record


def measure(config: StabilityConfig) -> dict[str, Any]:
    """Loads tokenizer and clips; returns all figures."""
    device = find_device(config.device)
    audio_tokenizer = load_encoder(config.audio_tokenizer, device, may_lack_codes=True)
    waveforms, types = read_clips(config, audio_tokenizer.sample_rate)
    rows = token_stability(
        audio_tokenizer, waveforms, audio_tokenizer.sample_rate, config.conditions, sound_types=types, seed=config.seed
    )
    return {
        "config": recorded_config(config, device=device, tokenizer_fingerprint=audio_tokenizer.fingerprint()),
        "num_clips": len(waveforms),
        "seconds": sum(len(waveform) for waveform in waveforms) / audio_tokenizer.sample_rate,
        "rows": [asdict(row) for row in rows],
    }


def show_table(results: Mapping[str, Any], console: Console) -> None:
    """Shows a row per condition."""
    if any(row.get("num_latents") for row in results["rows"]):
        _show_latents(results["rows"], console)
        return
    types = sorted({name for row in results["rows"] for name in row["share_changed_by_type"]})
    table = Table(title="share of codes that change")
    for name in ("condition", "clips", "codes", "all", "edit distance", *types):
        table.add_column(name, no_wrap=name == "condition")
    for row in results["rows"]:
        shares = [row["share_changed"], row["unit_edit_distance"], *map(row["share_changed_by_type"].get, types)]
        cells = ("" if share is None else f"{share:.2%}" for share in shares)
        table.add_row(row["condition"], str(row["num_clips"]), str(row["num_codes"]), *cells)
    print_table(table, console)


def _show_latents(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    types = sorted({name for row in rows for name in row["relative_change_by_type"]})
    table = Table(title="squared change of latents, over their variance")
    for name in ("condition", "clips", "frames", "all", "cosine", *types):
        table.add_column(name, no_wrap=name == "condition")
    for row in rows:
        changes = [row["relative_change"], row["cosine"], *map(row["relative_change_by_type"].get, types)]
        cells = ("" if change is None else f"{change:.4f}" for change in changes)
        table.add_row(row["condition"], str(row["num_clips"]), str(row["num_latents"]), *cells)
    print_table(table, console)


def run(config: StabilityConfig) -> None:
    """Share of codes that change (or how far latents move) under noise, codecs, shifts, cuts, and bfloat16."""
    results = measure(config)
    text = write_figures(results, config.output)
    if config.json:
        sys.stdout.write(text + "\n")
    else:
        show_table(results, table_console())


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="stability")
