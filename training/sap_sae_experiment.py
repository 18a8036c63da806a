"""Experiment with SAP and SAE: four tokenizers of one budget, with several seeds, judged on held-out clips.

The variants are trained to write transcripts (``asr``) or structured descriptions (``sap``), without or with the gated
residual (``+sae``); each from the same Whisper, on the same clips in the same order, first without, then with the
quantizer. ``untrained`` is where they start from: Whisper's features and a codebook by k-means. Example::

    python training/sap_sae_experiment.py --output_dir runs/sap_sae --seeds [0,1,2]

What is complete in the output folder is not made again, so that a stopped run can be taken up, and further seeds added.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import write_json_lines
from audiollm.program import ProgramError, run_program
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import git_revision, package_versions
from audiollm.training.recipes.launching import TRAINING, console, open_recipe_folder, run_logged
from audiollm.training.recipes.sap_sae.data import ExperimentData, build_data, read_data
from audiollm.training.recipes.sap_sae.report import draw_figures, results_tables

EVALUATION = "audiollm.training.recipes.sap_sae.evaluation"
Variant = Literal["untrained", "asr", "asr+sae", "sap", "sap+sae"]

UNTRAINED: Variant = "untrained"
VARIANTS: tuple[Variant, ...] = (UNTRAINED, "asr", "asr+sae", "sap", "sap+sae")
# What changes nothing of what comes out, or only adds to it.
FREE_SETTINGS = ("output_dir", "variants", "seeds", "num_parallel", "num_threads")


@dataclass(frozen=True, kw_only=True)
class SapSaeConfig:
    """The experiment."""

    output_dir: str = "runs/sap_sae"
    """Folder for everything the run makes."""

    data: str | None = None
    """Folder with train.jsonl, dev.jsonl and test.jsonl, whose records have audio, text, sap, sound_type and, for
    sounds, label. None: built from package registries, in the output folder."""

    variants: tuple[Variant, ...] = VARIANTS
    """Which to train."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Each decides new weights, order of the clips and start of the codebook of one run of every variant."""

    start_from: str = "whisper-tiny.en"
    """The Whisper to start from: a folder, a Hub id, or one from a package index."""

    stage1_steps: int = 60
    """Updates without the quantizer."""

    stage2_steps: int = 180
    """Updates with it."""

    asr_share: float = 0.3
    """Share of the clips that the SAP variants write a transcript of instead, so that it can be asked of all."""

    codebook_size: int = 2048
    """Entries of the codebook."""

    quantize_position: int = 2
    """Encoder layer behind which the quantizer sits."""

    pooling_position: int = 2
    """Layer behind which frames are merged into tokens: with so little training, layers that keep the frame rate they
    were trained at are far better than layers that must learn another."""

    sae_source_position: int = 1
    """Layer whose features the SAE brings back to the quantizer's."""

    stage1_config: str = str(TRAINING / "configs" / "sap_sae_stage1.yaml")
    """All other settings of the first stage."""

    stage2_config: str = str(TRAINING / "configs" / "sap_sae_stage2.yaml")
    """All other settings of the second stage."""

    num_parallel: int = 1
    """Trainings at the same time."""

    num_threads: int | None = None
    """CPU threads of each. None: the cores shared out evenly."""

    def __post_init__(self) -> None:
        for name in ("stage1_steps", "stage2_steps", "codebook_size", "num_parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use 1 or more")
        if not 0 < self.asr_share < 1:
            raise ValueError(f"asr_share={self.asr_share}: use a share between 0 and 1, such as 0.3")
        if not self.seeds or not self.variants:
            raise ValueError("nothing to train: name at least one of --variants and one of --seeds")


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def has_sae(self) -> bool:
        """Whether the variant has the gated residual."""
        return self.variant.endswith("+sae")

    @property
    def figures(self) -> Path:
        """What came out; the last thing to be written."""
        return self.folder / "figures.json"


def run_experiment(config: SapSaeConfig) -> dict[str, Any]:
    """Trains and evaluates what is missing, writes ``results.json``, tables and figures; returns the results.

    Raises:
        ValueError: if the output folder belongs to an experiment with other settings, another call is at work in it, or
            the data are not as needed.
        ProgramError: if a training fails.
    """
    settings = {name: _readable(value) for name, value in asdict(config).items() if name not in FREE_SETTINGS}
    with open_recipe_folder(Path(config.output_dir) / "experiment.json", settings) as folder:
        return _run_in(folder, config, settings)


def _run_in(folder: Path, config: SapSaeConfig, settings: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    data_folder = Path(config.data) if config.data is not None else folder / "data"
    if config.data is None:
        build_data(data_folder, folder / "corpora")
    data = read_data(data_folder)
    write_json_lines(held_out_file(folder), data.held_out)

    runs = [
        Run(variant, seed, folder / "runs" / variant / str(seed))
        for seed in config.seeds
        for variant in config.variants
    ]
    missing = [run for run in runs if not run.figures.exists()]
    console.print(f"{len(runs)} runs, {len(runs) - len(missing)} of them complete")
    with ThreadPoolExecutor(config.num_parallel) as pool:
        for run in pool.map(lambda run: make_run(run, config, data_folder), missing):
            console.print(f"{run.variant}, seed {run.seed}: {run.figures}")

    results = collect(folder, data, settings)
    results["seconds_of_this_call"] = round(time.perf_counter() - started)
    write_json(folder / "results.json", results)
    (folder / "tables.md").write_text(results_tables(results), encoding="utf-8")
    draw_figures(results, folder / "figures")
    console.print((folder / "tables.md").read_text(encoding="utf-8"))
    return results


def held_out_file(folder: Path) -> Path:
    """All held-out clips in one file, for the losses at the end of each training."""
    return folder / "held_out.jsonl"


# ------------------------------------------------------------------------ a run


def make_run(run: Run, config: SapSaeConfig, data_folder: Path) -> Run:
    """Trains and evaluates one variant, each step in a process of its own; output goes to ``log.txt``.

    Of the weights only the trained model is kept.

    Raises:
        ProgramError: if a step fails; what was said is in the log.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    commands = [
        *training_commands(run, config, data_folder),
        [
            *("-m", EVALUATION),
            *("--run", str(run.folder), "--data", str(data_folder), "--output", str(run.figures)),
        ],
    ]
    threads = config.num_threads or max(1, (os.cpu_count() or 1) // config.num_parallel)
    with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
        for command in commands:
            try:
                run_logged(command, threads, log)
            except subprocess.CalledProcessError as error:
                raise ProgramError(
                    f"`{' '.join(command)}` failed with exit status {error.returncode}; its message is at the end of "
                    f"{log.name}"
                ) from error
    for left_over in (run.folder / "stage1" / MODEL_FOLDER, *run.folder.glob("stage*/checkpoints")):
        shutil.rmtree(left_over, ignore_errors=True)
    return run


def training_commands(run: Run, config: SapSaeConfig, data_folder: Path) -> list[list[str]]:
    """The trainings of a run: two stages, or for ``untrained`` one update of learning rate zero, for the codebook."""
    shared = [
        str(TRAINING / "train_tokenizer.py"),
        *("--train_data", str(data_folder / "train.jsonl"), "--eval_data", str(held_out_file(Path(config.output_dir)))),
        *("--seed", str(run.seed), "--resume", "latest"),
        *task_flags(run.variant, config.asr_share),
    ]
    architecture = [
        *("--audio_tokenizer.quantize_position", str(config.quantize_position)),
        *("--audio_tokenizer.pooling_position", str(config.pooling_position)),
        *("--audio_tokenizer.codebook_size", str(config.codebook_size)),
        *sae_flags(run, config),
    ]
    start = ["--start_from", config.start_from, *architecture]
    stage1, stage2 = run.folder / "stage1", run.folder / "stage2"
    if run.variant == UNTRAINED:
        still = [f"--{part}learning_rate" for part in ("", "encoder_", "decoder_")]
        return [
            [
                *(shared[0], "--config", config.stage2_config, *shared[1:], *start),
                *("--output_dir", str(stage2), "--max_steps", "1"),
                *(word for flag in still for word in (flag, "0")),
                *("--audio_tokenizer.ema_decay", "0", "--audio_tokenizer.restart_interval", "0"),
            ]
        ]
    return [
        [
            *(shared[0], "--config", config.stage1_config, *shared[1:], *start),
            *("--output_dir", str(stage1), "--max_steps", str(config.stage1_steps)),
        ],
        [
            *(shared[0], "--config", config.stage2_config, *shared[1:]),
            *("--start_from", str(stage1), "--output_dir", str(stage2), "--max_steps", str(config.stage2_steps)),
        ],
    ]


def task_flags(variant: Variant, asr_share: float) -> list[str]:
    """Which texts a variant learns to write."""
    sap = 1 - asr_share if variant.startswith("sap") else 0.0
    weights = {"asr": 1 - sap, "sap": sap, "caption": 0.0, "emotion": 0.0}
    return [word for task, weight in weights.items() for word in (f"--tasks.{task}", f"{weight:g}")]


def sae_flags(run: Run, config: SapSaeConfig) -> list[str]:
    """The residual of a variant."""
    if not run.has_sae:
        return ["--audio_tokenizer.use_sae", "false"]
    source, target = str(config.sae_source_position), str(config.quantize_position)
    return ["--audio_tokenizer.sae_source_position", source, "--audio_tokenizer.sae_target_position", target]


# --------------------------------------------------------------------- results


def collect(folder: Path, data: ExperimentData, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that is complete in an experiment's folder, in the order of the variants and seeds."""
    runs: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        found = {path.parent.name: path for path in (folder / "runs" / variant).glob("*/figures.json")}
        if found:
            runs[variant] = {
                seed: json.loads(found[seed].read_text(encoding="utf-8")) for seed in sorted(found, key=int)
            }
    return {
        "settings": settings,
        "data": data.counts(),
        "machine": {
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "processor": processor_name(),
            "versions": package_versions(),
            "git_revision": git_revision(TRAINING),
        },
        "date": time.strftime("%Y-%m-%d"),
        "runs": runs,
    }


def _readable(value: Any) -> Any:
    """Paths of this repository without where it lies."""
    return value.replace(f"{TRAINING.parent}{os.sep}", "") if isinstance(value, str) else value


def processor_name() -> str | None:
    """The processor in the words of the system; None where it does not say."""
    path = Path("/proc/cpuinfo")
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


if __name__ == "__main__":
    run_program(SapSaeConfig, run_experiment, name="sap_sae_experiment")
