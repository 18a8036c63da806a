"""Runs a trainer as a process of its own, and reads what it cost from its metrics and from the system."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TOLD_LINES = 8  # of what a process that failed has said


@dataclass(frozen=True)
class Contestant:
    """One way to fine-tune.

    Attributes:
        name: in the tables.
        module: the program, as ``python -m`` takes it.
        settings: what its config says; ``output_dir`` is added.
        metrics: where in the folder of a run it writes a line per update.
    """

    name: str
    module: str
    settings: Mapping[str, Any]
    metrics: str


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Attributes:
        lines: of its updates.
        peak_bytes: most memory of its process.
    """

    lines: list[dict[str, Any]]
    peak_bytes: int


def run_contestant(contestant: Contestant, folder: Path, environment: Mapping[str, str]) -> FinishedRun:
    """Trains once.

    Args:
        contestant: who.
        folder: of the run; it is made.
        environment: more variables of the process.

    Raises:
        ValueError: with the last lines that the process said, if it failed.
    """
    folder.mkdir(parents=True)
    metrics = folder / contestant.metrics
    config = folder.with_suffix(".json")
    settings = dict(contestant.settings) | {"output_dir": str(folder / "run")}
    if contestant.metrics == "metrics.jsonl":
        settings["metrics"] = str(metrics)
    config.write_text(json.dumps(settings))
    log = folder.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", contestant.module, "--config", str(config)],
            env={**os.environ, **environment}, stdout=said, stderr=said,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-_TOLD_LINES:])
        raise ValueError(f"{contestant.name} ended with status {process.returncode}:\n{last}")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return FinishedRun([line for line in lines if line["event"] == "train"], usage.ru_maxrss * unit)


def figures_of(runs: Sequence[FinishedRun], *, skip: int, flops: tuple[int, int], gemm_rate: float) -> dict[str, Any]:
    """Sums runs of one contestant up: median and spread over the runs, of all updates but the first.

    Args:
        runs: at least one.
        skip: first updates that do not count.
        flops: operations for a token in the layers, and for a target token in the output layer.
        gemm_rate: operations per second of matrix products on this machine.
    """
    costs = [_costs(run.lines[skip:], flops, gemm_rate) for run in runs]
    return {
        **{name: statistics.median(cost[name] for cost in costs) for name in costs[0]},
        "processor_ms_per_token_range": [
            min(cost["processor_ms_per_token"] for cost in costs),
            max(cost["processor_ms_per_token"] for cost in costs),
        ],
        "peak_mb": statistics.median(run.peak_bytes for run in runs) / 1e6,
        "losses": [line["loss"] for line in runs[0].lines],
        "tokens": [line["tokens"] for line in runs[0].lines],
    }


def _costs(lines: Sequence[Mapping[str, Any]], flops: tuple[int, int], gemm_rate: float) -> dict[str, float]:
    totals = {
        name: sum(line[name] for line in lines)
        for name in ("tokens", "target_tokens", "seconds", "processor_seconds", "data_seconds")
    }
    useful = flops[0] * totals["tokens"] + flops[1] * totals["target_tokens"]
    return {
        "processor_ms_per_token": 1000 * totals["processor_seconds"] / totals["tokens"],
        "wall_ms_per_token": 1000 * totals["seconds"] / totals["tokens"],
        "gemm_share": useful / gemm_rate / totals["processor_seconds"],
        "data_stall_share": totals["data_seconds"] / totals["seconds"],
        "padding_share": statistics.fmean(line["padding_share"] for line in lines),
    }
