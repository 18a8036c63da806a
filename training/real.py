"""A real text LLM learns to hear, from package registries alone (`make real`): SmolLM2-135M-Instruct.

Its vocabulary is extended by the codes of a tokenizer on whisper-base; adapters and audio rows are trained on real
recordings, and so is, for the same number of updates on the same data, the same architecture from random weights. Both
are scored on what neither has heard, and on texts. What is complete is not made again; further seeds and variants add
to what is there. ``--only pretrained-1-train`` runs one step alone.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from audiollm.benchmarks.speed.timing import machine_facts
from audiollm.data.files.json_document import write_json
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.program import run_program
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_tokenizer.start import find_start
from audiollm.training.loop.record import git_revision, package_versions
from audiollm.training.recipes.fitted_tokenizer import fitted_tokenizer
from audiollm.training.recipes.launching import (
    TRAINING,
    console,
    launch_trainer,
    open_recipe_folder,
    threads_of_job,
)
from audiollm.training.recipes.real.data import build_corpora, load_clips, write_records, write_texts
from audiollm.training.recipes.real.layout import Moment, RealLayout, Trial, Variant
from audiollm.training.recipes.real.report import install_results, results_tables
from audiollm.training.recipes.real.scoring import score_model, training_figures
from audiollm.training.recipes.real.start import PACKAGED_LLM, find_llm, make_start
from audiollm.training.recipes.schedule import run_due_steps

VARIANTS: tuple[Variant, ...] = get_args(Variant)
CONFIGS: dict[Variant, str] = {
    "pretrained": "real_smollm2_lora.yaml",
    "random": "real_random.yaml",
    "random_lora": "real_smollm2_lora.yaml",
}
# May differ between calls into one folder: they say how much is made, and how, but not what.
FREE_SETTINGS = ("output_dir", "variants", "seeds", "only", "jobs", "install")


@dataclass(frozen=True, kw_only=True)
class RealConfig:
    """The experiment. How each variant is trained stands in training/configs/real_*.yaml."""

    output_dir: str = "runs/real"
    """Folder for everything the run makes."""

    variants: tuple[Variant, ...] = ("pretrained", "random")
    """``pretrained``: adapters and audio rows of the LLM. The same architecture from random weights is ``random`` with
    all weights trained, which is what one would do with it, and ``random_lora`` with adapters and audio rows alone,
    which differs from the first in nothing but the weights it starts from."""

    seeds: tuple[int, ...] = (1,)
    """Each decides new rows, random weights, adapters and the order of the data of one run of every variant."""

    steps: int = 600
    """Updates of every training, about 2,000 tokens each."""

    mixed_precision: Literal["no", "bf16"] = "no"
    """``bf16`` multiplies matrices of every training in bfloat16: several times as fast on processors with AMX and on
    GPUs, many times slower on others (``audiollm doctor --bench`` tells)."""

    llm: str = PACKAGED_LLM
    """The text LLM: the one from a package, or a folder or Hub id."""

    whisper: str = "whisper-base"
    """Whose encoder hears: one from a package, or a folder or Hub id."""

    codebook_size: int = 2048
    """Codes, which are fitted to the training recordings."""

    synthetic: int = 3000
    """Sentences read by synthesizers that are learned beside the recordings; they are scored apart. 0: none."""

    small: bool = False
    """Only the recordings that ship with the project, and few questions: to see it work."""

    only: str | None = None
    """Run this step alone, also when it is complete; those before it must be. None: every step that is not complete."""

    jobs: int = 1
    """How many steps run at once where they don't need each other; each gets its share of the processor's cores."""

    install: bool = False
    """Put the results into docs/real_llm.md."""

    def __post_init__(self) -> None:
        for name in ("steps", "codebook_size", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use 1 or more")
        if self.synthetic < 0:
            raise ValueError(f"synthetic={self.synthetic}: use 0 or more")
        if not self.seeds or not self.variants:
            raise ValueError("nothing to train: name at least one of --variants and one of --seeds")
        if self.only is not None and self.only not in steps_of(self):
            raise ValueError(f"only={self.only} is no step: use one of {', '.join(steps_of(self))}")


@dataclass(frozen=True)
class Step:
    """What is done, and which steps must be complete before."""

    run: Callable[[RealLayout, RealConfig], None]
    needs: tuple[str, ...] = ()


# ---------------------------------------------------------------- the shared steps


def run_llm(layout: RealLayout, config: RealConfig) -> None:
    """The text LLM, converted and kept in the cache."""
    console.print(f"  {find_llm(config.llm)}")


def run_data(layout: RealLayout, config: RealConfig) -> None:
    """Corpora from packages, and texts that none of them says."""
    if not config.small:
        build_corpora(layout, config.synthetic)
    console.print(f"  held-out texts: {write_texts(layout, small=config.small)}")
    _, report = load_clips(layout, config.synthetic, config.small)
    console.print(f"  {report}")


def run_tokenizer(layout: RealLayout, config: RealConfig) -> None:
    """The audio tokenizer: Whisper's encoder, and a codebook of the training recordings."""
    clips, _ = load_clips(layout, config.synthetic, config.small)
    train = [clip for clip in clips if clip.split == "train"]
    audio_tokenizer, fit = fitted_tokenizer(find_start(config.whisper), train, config.codebook_size, seed=0)
    audio_tokenizer.save_pretrained(layout.tokenizer)
    write_json(layout.codebook_fit, asdict(fit))
    console.print(f"  {config.codebook_size} codes, {100 * fit.usage:.1f} % of them in use, fitted to {fit.num_frames}")


def run_codes(layout: RealLayout, config: RealConfig) -> None:
    """The codes of all clips."""
    clips, _ = load_clips(layout, config.synthetic, config.small)
    tokenizer = UniAudioTokenizer.from_pretrained(layout.tokenizer, encoder_only=True, decoder=False)
    report = tokenize_corpus([clip.audio for clip in clips], tokenizer, layout.codes, overwrite=True)
    console.print(f"  {report.tokens} codes of {report.records} clips")


def run_records(layout: RealLayout, config: RealConfig) -> None:
    """What the models are asked."""
    clips, _ = load_clips(layout, config.synthetic, config.small)
    for side, facts in write_records(layout, clips, small=config.small).items():
        tasks = ", ".join(f"{count} {task}" for task, count in facts["records_by_task"].items())
        console.print(f"  {side.replace('_', ' ')}: {facts['clips']} clips, {facts['minutes']} min; {tasks}")


def run_results(layout: RealLayout, config: RealConfig) -> None:
    """All figures in one file; with --install, in the project's page."""
    results = collect(layout, config)
    write_json(layout.results, results)
    console.print(results_tables(results))
    console.print(f"  {layout.results}")
    if config.install:
        console.print(f"  installed: {install_results(results)}")


# ----------------------------------------------------------------- of each training


def run_start(layout: RealLayout, config: RealConfig, trial: Trial) -> None:
    """The extended model."""
    shutil.rmtree(layout.start(trial), ignore_errors=True)
    is_random = trial.variant != "pretrained"
    llm = find_llm(config.llm)
    size = make_start(llm, layout.tokenizer, layout.start(trial), random_weights=is_random, seed=trial.seed)
    write_json(layout.start_facts(trial), {"parameters": size})
    console.print(f"  {trial}: {size / 1e6:.1f} M parameters")


def run_train(layout: RealLayout, config: RealConfig, trial: Trial) -> None:
    """The training; of its weights only the trained model is kept."""
    log = layout.root / "logs" / f"{trial}.log" if config.jobs > 1 else None
    launch_trainer(
        "sft.py",
        CONFIGS[trial.variant],
        *("--model", str(layout.start(trial)), "--output_dir", str(layout.run(trial)), "--resume", "latest"),
        *("--train_data", str(layout.train), "--eval_data", str(layout.held_out), "--eval_text", str(layout.texts)),
        *("--max_steps", str(config.steps), "--mixed_precision", config.mixed_precision, "--seed", str(trial.seed)),
        num_threads=None if log is None else threads_of_job(config.jobs),
        log=log,
    )
    shutil.rmtree(layout.run(trial) / "checkpoints", ignore_errors=True)


def run_scores(layout: RealLayout, config: RealConfig, trial: Trial, moment: Moment) -> None:
    """Held-out figures of the model as it lies in its folder."""
    clips, _ = load_clips(layout, config.synthetic, config.small)
    english = next(clip for clip in clips if clip.split != "train" and clip.language == "en" and clip.text)
    folder = layout.start(trial) if moment == "before" else layout.model(trial)
    scores = score_model(folder, layout.train, layout.held_out, str(english.audio), english.text or "")
    write_json(layout.scores(trial, moment), scores)
    rates = ", ".join(f"{name} {100 * own['wer']:.1f} %" for name, own in scores["wer"].items())
    console.print(f"  {trial}, {moment}: word error rate {rates}")


def steps_of(config: RealConfig) -> dict[str, Step]:
    """Every step by name, in an order in which they can run."""
    steps = {
        "llm": Step(run_llm),
        "data": Step(run_data),
        "tokenizer": Step(run_tokenizer, ("data",)),
        "codes": Step(run_codes, ("tokenizer",)),
        "records": Step(run_records, ("codes",)),
    }
    scored: list[str] = []
    for seed in config.seeds:
        for variant in config.variants:
            own = steps_of_trial(Trial(variant, seed))
            steps |= own
            scored += [name for name in own if name.endswith(("before", "after"))]
    return steps | {"results": Step(run_results, tuple(scored))}


def steps_of_trial(trial: Trial) -> dict[str, Step]:
    """Steps of one training. Random weights are not scored untrained: what they say takes long, and is nothing."""

    def scores(moment: Moment) -> Callable[[RealLayout, RealConfig], None]:
        return lambda layout, config: run_scores(layout, config, trial, moment)

    start, train = f"{trial}-start", f"{trial}-train"
    steps = {start: Step(lambda layout, config: run_start(layout, config, trial), ("llm", "tokenizer"))}
    if trial.variant == "pretrained":
        steps[f"{trial}-before"] = Step(scores("before"), (start, "records"))
    steps[train] = Step(lambda layout, config: run_train(layout, config, trial), (start, "records"))
    steps[f"{trial}-after"] = Step(scores("after"), (train,))
    return steps


# ---------------------------------------------------------------------- the run


def run_real(config: RealConfig) -> Path:
    """Runs every step that is not complete, or one; returns the file of results.

    Raises:
        ValueError: if the folder holds a run of other settings or something else, another call is at work in it, or a
            step lacks what it needs.
    """
    layout = RealLayout(Path(config.output_dir))
    settings = {name: value for name, value in asdict(config).items() if name not in FREE_SETTINGS}
    with open_recipe_folder(layout.settings, settings):
        if config.jobs > 1:
            torch.set_num_threads(threads_of_job(config.jobs))
        steps = steps_of(config)
        run_due_steps(
            layout.root,
            list(steps),
            {name: step.needs for name, step in steps.items()},
            lambda name: steps[name].run(layout, config),
            only=config.only,
            always=("results",),  # which further seeds and variants add to
            jobs=config.jobs,
        )
    return layout.results


def collect(layout: RealLayout, config: RealConfig) -> dict[str, Any]:
    """The figures of every finished training in the folder, in the order of variants and seeds."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE_SETTINGS}
    runs: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        seeds = sorted(int(path.parent.name) for path in (layout.root / "trials" / variant).glob("*/after.json"))
        if seeds:
            runs[variant] = {str(seed): figures_of(layout, Trial(variant, seed)) for seed in seeds}
    return {
        "command": command_of(config, sorted({int(seed) for by_seed in runs.values() for seed in by_seed}), list(runs)),
        "settings": settings,
        "data": _read(layout.data_facts),
        "codebook": _read(layout.codebook_fit),
        "machine": machine_facts(versions=package_versions(), git_revision=git_revision(TRAINING)),
        "date": time.strftime("%Y-%m-%d"),
        "runs": runs,
    }


def command_of(config: RealConfig, seeds: Sequence[int], variants: Sequence[str]) -> str:
    """The command that makes such results in one call."""
    defaults = asdict(RealConfig())
    given = {name: value for name, value in asdict(config).items() if name not in FREE_SETTINGS}
    given |= {"seeds": tuple(seeds), "variants": tuple(variants)}
    flags = [
        word
        for name, value in given.items()
        if value != defaults[name]
        for word in (f"--{name}", json.dumps(value, separators=(",", ":")) if isinstance(value, tuple) else str(value))
    ]
    return shlex.join(["python", "training/real.py", *flags])


def figures_of(layout: RealLayout, trial: Trial) -> dict[str, Any]:
    """Scores before (where they were made) and after, and what the training says of itself."""
    moments: tuple[Moment, ...] = get_args(Moment)
    scores = {moment: layout.scores(trial, moment) for moment in moments}
    return {moment: _read(path) for moment, path in scores.items() if path.exists()} | {
        "parameters": _read(layout.start_facts(trial))["parameters"],
        "training": training_figures(layout.run(trial)),
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_program(RealConfig, run_real, name="real", level=logging.WARNING)
