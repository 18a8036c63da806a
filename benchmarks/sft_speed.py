"""Times fine-tuning by this project and by TRL, padded and packed: same model, records and precision, in turns.

Each run is a process of its own. Reported are processor and wall time per token, the peak of memory, the share of the
processor time that the matrix products alone would take, the share of the time spent waiting for data, and the losses
side by side. Needs ``pip install trl``. Example::

    OMP_NUM_THREADS=1 python benchmarks/sft_speed.py --rounds 3 --answers audio --output sft_speed.json
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from audiollm.benchmarks.harness.figures import measure_and_show, recorded_config
from audiollm.benchmarks.speed.fine_tuning.contestants import Contestant, FinishedRun, figures_of, run_contestant
from audiollm.benchmarks.speed.fine_tuning.material import Material, make_material
from audiollm.benchmarks.speed.timing import machine_facts
from audiollm.program import run_program
from audiollm.tables import print_table

_OURS, _TRL = "audiollm.training.sft", "audiollm.benchmarks.speed.fine_tuning.trl_run"


@dataclass(frozen=True, kw_only=True)
class SFTSpeedConfig:
    """One comparison of fine-tuning."""

    layers: int = 12
    """Depth of the model."""
    hidden_size: int = 384
    """Its width."""
    heads: int = 6
    """Its attention heads."""
    answers: Literal["text", "audio"] = "text"
    """What the assistant answers in: few target tokens, or many."""
    records: int = 256
    """Records; no run sees one twice."""
    updates: int = 8
    """Updates of each run, the first of which does not count."""
    global_batch_size: int = 16
    """Records per update; packed runs of TRL have as many tokens in the mean."""
    micro_batch_size: int = 8
    """Records in one forward pass."""
    packed_tokens: int = 2048
    """Tokens of a packed row."""
    learning_rate: float = 3e-4
    """Constant, with AdamW."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """For all contestants."""
    contestants: tuple[str, ...] = ("ours", "ours packed", "TRL", "TRL packed")
    """Whom to run."""
    rounds: int = 3
    """Runs of each contestant; they alternate."""
    seed: int = 0
    """For weights, records and their order."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON instead of tables."""

    def __post_init__(self) -> None:
        if self.updates < 2 or self.rounds < 1:
            raise ValueError(f"updates={self.updates}, rounds={self.rounds}: use 2 updates and 1 round, or more")
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}: change one of them"
            )
        if self.updates * self.global_batch_size > self.records:
            raise ValueError(f"records={self.records}: {self.updates} updates of {self.global_batch_size} need more")


def make_contestants(config: SFTSpeedConfig, material: Material, mean_tokens: float) -> dict[str, Contestant]:
    """The ways to train, by name.

    Args:
        config: the comparison.
        material: what is trained on.
        mean_tokens: of a record.
    """
    ours = {
        "model": str(material.model), "train_data": str(material.records), "max_steps": config.updates,
        "global_batch_size": config.global_batch_size, "micro_batch_size": config.micro_batch_size,
        "learning_rate": config.learning_rate, "schedule": "constant", "warmup_ratio": 0.0,
        "mixed_precision": config.mixed_precision, "seed": config.seed,
    }  # fmt: skip
    packed = {"packing": "pack", "tokens_per_pass": config.packed_tokens}
    trl = {
        "model": str(material.model), "encoded": str(material.encoded), "updates": config.updates,
        "micro_batch_size": config.micro_batch_size,
        "accumulation": config.global_batch_size // config.micro_batch_size,
        "learning_rate": config.learning_rate, "mixed_precision": config.mixed_precision, "seed": config.seed,
    }  # fmt: skip
    rows = max(1, round(config.global_batch_size * mean_tokens / config.packed_tokens))
    packed_trl = {"packed_tokens": config.packed_tokens, "accumulation": rows}
    made = [
        Contestant("ours", _OURS, ours, "run/metrics.jsonl"),
        Contestant("ours packed", _OURS, ours | packed, "run/metrics.jsonl"),
        Contestant("TRL", _TRL, trl, "metrics.jsonl"),
        Contestant("TRL packed", _TRL, trl | packed_trl, "metrics.jsonl"),
    ]
    return {one.name: one for one in made}


def measure(config: SFTSpeedConfig) -> dict[str, Any]:
    """Runs all contestants in turns.

    Raises:
        ValueError: if a contestant is unknown, cannot run or failed.
    """
    if any(name.startswith("TRL") for name in config.contestants) and find_spec("trl") is None:
        raise ValueError("TRL is not installed: pip install trl, or leave it out: --contestants '[ours, ours packed]'")
    with tempfile.TemporaryDirectory(prefix="sft_speed_") as place:
        folder = Path(place)
        material = make_material(
            folder, layers=config.layers, hidden_size=config.hidden_size, heads=config.heads,
            num_records=config.records, answers=config.answers, seed=config.seed,
        )  # fmt: skip
        mean_tokens = _mean_tokens(material)
        known = make_contestants(config, material, mean_tokens)
        unknown = [name for name in config.contestants if name not in known]
        if unknown:
            raise ValueError(f"contestants: {', '.join(unknown)} unknown; choose among {', '.join(known)}")
        environment = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "TOKENIZERS_PARALLELISM": "false"}
        machine = machine_facts(load_average_before=os.getloadavg(), trl=version("trl") if find_spec("trl") else None)
        runs: dict[str, list[FinishedRun]] = {name: [] for name in config.contestants}
        for number in range(config.rounds):
            for name in config.contestants:
                place_of_run = folder / f"{name.replace(' ', '_')}_{number}"
                runs[name].append(run_contestant(known[name], place_of_run, environment))
    # Forward 2 operations per weight and token, backward twice as many; attention's products are left out.
    flops = (6 * material.layer_parameters, 6 * material.head_parameters)
    # Of processor time, which grows with the threads; the faster of the two float32 kernels is the bound.
    gemm_rate = 1e9 * max(rate for name, rate in machine["gflops"].items() if "float32" in name) / machine["threads"]
    return {
        "config": recorded_config(config),
        "machine": machine | {"load_average_after": os.getloadavg()},
        "parameters": {"layers": material.layer_parameters, "output layer": material.head_parameters},
        "tokens_per_record": mean_tokens,
        "contestants": {name: figures_of(own, skip=1, flops=flops, gemm_rate=gemm_rate) for name, own in runs.items()},
    }


def _mean_tokens(material: Material) -> float:
    lengths = [len(json.loads(line)["input_ids"]) for line in material.encoded.read_text().splitlines()]
    return sum(lengths) / len(lengths)


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Shows costs, and the losses side by side."""
    costs = Table(
        "", "processor ms/token", "wall ms/token", "peak MB", "GEMM share", "padding", "waits for data",
        title=f"fine-tuning, answers in {results['config']['answers']}",
    )  # fmt: skip
    for name, own in results["contestants"].items():
        costs.add_row(
            name,
            f"{own['processor_ms_per_token']:.3f}",
            f"{own['wall_ms_per_token']:.3f}",
            f"{own['peak_mb']:.0f}",
            *(f"{own[share]:.1%}" for share in ("gemm_share", "padding_share", "data_stall_share")),
        )
    print_table(costs, console)
    losses = Table("update", *results["contestants"], title="loss")
    for number in range(results["config"]["updates"]):
        cells = [own["losses"][number] for own in results["contestants"].values()]
        losses.add_row(str(number + 1), *(f"{loss:.4f}" for loss in cells))
    print_table(losses, console)
    console.print(results["machine"], soft_wrap=True)


def run(config: SFTSpeedConfig) -> None:
    """Times all contestants, writes the figures down and shows them."""
    measure_and_show(config, measure, print_tables)


if __name__ == "__main__":
    run_program(SFTSpeedConfig, run, level=logging.WARNING)
