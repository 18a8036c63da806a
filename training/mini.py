"""The model `mini` from nothing but package registries, in one command (`make mini`).

Data, tokenizer, codes, decoder (vocoder and flow model), LM, package, held-out figures, model card. What
is complete is not made again, and what was interrupted goes on where it stopped; `--only vocoder` runs one step alone.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from audiollm.data.files.json_document import write_json
from audiollm.data.files.lock import held_run_folder
from audiollm.data.records import SPLITS, Split
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.program import run_program
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_tokenizer.start import find_start
from audiollm.training.decoder.parts import join_decoder
from audiollm.training.recipes.launching import console, launch_trainer, threads_of_job
from audiollm.training.recipes.mini import data as mini_data
from audiollm.training.recipes.mini.card import write_card
from audiollm.training.recipes.mini.conversations import (
    NUM_ASKED,
    NUM_SPOKEN,
    make_aligner,
    write_conversations,
)
from audiollm.training.recipes.mini.evaluation import evaluate_mini
from audiollm.training.recipes.mini.held_out import held_out_sentences
from audiollm.training.recipes.mini.layout import MiniLayout
from audiollm.training.recipes.mini.lm import MINI_LM, make_lm
from audiollm.training.recipes.mini.package import install_package, install_samples, make_package, shrink_tokenizer
from audiollm.training.recipes.mini.samples import write_samples
from audiollm.training.recipes.mini.sampling import choose_audio_sampling, choose_flow_settings
from audiollm.training.recipes.mini.tokenizer import make_tokenizer
from audiollm.training.recipes.schedule import read_steps, run_due_steps

Step = Literal[
    "data",
    "tokenizer",
    "codes",
    "vocoder",
    "flow",
    "conversations",
    "lm",
    "judge",
    "package",
    "sampling",
    "evaluation",
    "samples",
    "card",
]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """One training of mini. How each model is trained stands in training/configs/mini_*.yaml."""

    output_dir: str = "runs/mini"
    """Folder for everything the run makes."""

    only: Step | None = None
    """Run this step alone, also when it is complete; those before it must be. None: every step that is not complete."""

    steps: dict[str, int] | None = None
    """Other numbers of updates than the configs', by step: vocoder, flow, lm, judge."""

    judge: str = "whisper-tiny.en"
    """Speech recognizer that hears the spoken sentences, and to compare transcripts with: a folder, a Hub id, or a
    name of a packaged one."""

    test_clips: int | None = 100
    """Held-out clips of each corpus that the evaluation hears. None: all, which takes the recognizer half an hour."""

    spoken_clips: int = 40
    """Of how many held-out clips the texts are spoken in the evaluation."""

    held_out: int = 60
    """How many of the held-out sentences of open vocabulary are spoken and transcribed in the evaluation, in every
    voice: 1 to 60."""

    voice_judge: str | None = None
    """Who hears the gender of what is spoken: a training checkpoint of an audio tokenizer with its SAP decoder, or
    http://…/v1#model. None: the one that the step judge trains."""

    install: bool = False
    """Put the result into this project, as what `mini` means from then on. Otherwise it stays in the run's folder."""

    jobs: int = 1
    """How many steps run at once where they don't need each other, such as vocoder and tokenizer; each gets its share
    of the processor's cores, and what it says goes to ``logs/`` in the run's folder. On two cores, 2 is faster."""

    seed: int = 0
    """Decides new weights and the order of the data."""

    def __post_init__(self) -> None:
        if not 1 <= self.jobs <= len(STEPS):
            raise ValueError(f"jobs={self.jobs}: use 1 to {len(STEPS)}")
        unknown = set(self.steps or {}) - {"vocoder", "flow", "lm", "judge"}
        if unknown:
            raise ValueError(f"steps names {', '.join(sorted(unknown))}: use vocoder, flow, lm or judge")
        if not 1 <= self.held_out <= len(held_out_sentences()):
            raise ValueError(f"held_out={self.held_out}: use 1 to {len(held_out_sentences())} sentences")


# ------------------------------------------------------------------- the steps


def run_data(layout: MiniLayout, config: MiniConfig) -> None:
    """Corpora from packages, and the records that tokenizer and vocoder learn from."""
    mini_data.build_corpora(layout)
    counts = mini_data.write_tokenizer_data(layout)
    mini_data.write_vocoder_data(layout)
    console.print(f"  more sentences for the LM: {mini_data.write_more_speech(layout)}")
    for split in SPLITS:
        console.print(f"  {split}: " + ", ".join(f"{name} {count}" for name, count in counts[split].items()))


def run_tokenizer(layout: MiniLayout, config: MiniConfig) -> None:
    """The tokenizer: Whisper's first layers, and a codebook fitted to their frames."""
    model, fit = make_tokenizer(layout, find_start("whisper-tiny.en"), config.seed)
    console.print(f"  codebook of {fit.num_frames} frames: {fit.usage:.1%} used, error {fit.quantization_error:.3f}")
    model.save_pretrained(layout.tokenizer_start)
    model.export_tokenizer(layout.tokenizer)
    # Before any codes are made: everything behind learns from the codes of what ships.
    shrink_tokenizer(layout.tokenizer)


def run_codes(layout: MiniLayout, config: MiniConfig) -> None:
    """The codes of all clips."""
    tokenizer = UniAudioTokenizer.from_pretrained(layout.tokenizer, encoder_only=True, decoder=False)
    sources = [(split, layout.tokenizer_data(split), layout.codes(split)) for split in SPLITS]
    for name, source, output in (*sources, ("more sentences", layout.more_speech, layout.more_codes)):
        report = tokenize_corpus(source, tokenizer, output, overwrite=True)
        console.print(f"  {name}: {report.tokens} codes of {report.records} clips")
    console.print(f"  clips for the flow model: {mini_data.write_flow_data(layout)}")


def run_vocoder(layout: MiniLayout, config: MiniConfig) -> None:
    """Mel to waveform."""
    data = ("--train_data", str(layout.vocoder_data("train")), "--eval_data", str(layout.vocoder_data("dev")))
    cache = ("--cache_dir", str(layout.prepared))
    _launch("train_decoder.py", "mini_vocoder.yaml", layout.vocoder, config, "vocoder", *data, *cache)


def run_flow(layout: MiniLayout, config: MiniConfig) -> None:
    """Codes to mel; joined with the vocoder to the tokenizer's decoder."""
    data = ("--train_data", str(layout.flow_data), "--eval_data", str(layout.codes("dev")))
    models = ("--audio_tokenizer", str(layout.tokenizer), "--flow.eval_vocoder", str(layout.vocoder))
    cache = ("--cache_dir", str(layout.prepared))
    _launch("train_decoder.py", "mini_flow.yaml", layout.flow, config, "flow", *data, *models, *cache)
    join_decoder(layout.flow, layout.vocoder, layout.tokenizer / "decoder")


def run_conversations(layout: MiniLayout, config: MiniConfig) -> None:
    """What the LM is asked, and the LM before its training."""
    tokenizer = UniAudioTokenizer.from_pretrained(layout.tokenizer, encoder_only=True, decoder=False)
    aligner = make_aligner([layout.codes("train"), layout.more_codes], tokenizer.codebook_size)
    options: dict[Split, dict[str, Any]] = {
        "train": {"more_speech": layout.more_codes, "num_asked": NUM_ASKED, "num_spoken": NUM_SPOKEN},
        "dev": {},
        "test": {"drawn_questions": None},
    }
    for split in SPLITS:
        count = write_conversations(layout.codes(split), layout.lm_data(split), aligner, **options[split])
        console.print(f"  {split}: {count} conversations")
    shutil.rmtree(layout.lm_start, ignore_errors=True)
    model = make_lm(layout.tokenizer, layout.lm_data("train"), layout.lm_start, MINI_LM, config.seed)
    size = sum(parameter.numel() for parameter in model.model.parameters())
    console.print(f"  LM: {size / 1e6:.2f} M parameters")


def run_lm(layout: MiniLayout, config: MiniConfig) -> None:
    """The Audio-LLM."""
    data = ("--train_data", str(layout.lm_data("train")), "--eval_data", str(layout.lm_data("dev")))
    _launch("sft.py", "mini_lm.yaml", layout.lm, config, "lm", *data, "--model", str(layout.lm_start))


def run_judge(layout: MiniLayout, config: MiniConfig) -> None:
    """The text decoder that hears, in the evaluation, whether a voice is the one that was asked for."""
    data = ("--train_data", str(layout.tokenizer_data("train")), "--eval_data", str(layout.tokenizer_data("dev")))
    start = ("--start_from", str(layout.tokenizer_start))
    _launch("train_tokenizer.py", "mini_judge.yaml", layout.judge, config, "judge", *data, *start)


def run_package(layout: MiniLayout, config: MiniConfig) -> None:
    """One small folder of all models."""
    size = make_package(layout.model, layout.tokenizer, layout.package)
    console.print(f"  {layout.package}: {size / 1e6:.2f} MB")


def run_sampling(layout: MiniLayout, config: MiniConfig) -> None:
    """How codes are decoded and drawn, chosen on the dev split and written into the package."""
    found = {
        "flow": choose_flow_settings(layout.package, layout, config.judge),
        "codes": choose_audio_sampling(layout.package, layout, config.judge),
    }
    write_json(layout.sampling, found)
    for what, choice in found.items():
        for one in choice["tried"]:
            console.print(f"  {what}, {one['settings']}: {one['wer_capped']:.1%} of the words wrong")


def run_evaluation(layout: MiniLayout, config: MiniConfig) -> None:
    """Held-out figures of what ships."""
    figures = evaluate_mini(
        layout.package,
        layout,
        judge=config.judge,
        clips_per_corpus=config.test_clips,
        spoken_clips=config.spoken_clips,
        held_out=config.held_out,
        voice_judge=config.voice_judge,
    )
    write_json(layout.evaluation, figures)


def run_samples(layout: MiniLayout, config: MiniConfig) -> None:
    """A page to listen to."""
    size = write_samples(layout.package, layout, layout.samples, config.judge)
    console.print(f"  {layout.samples / 'README.md'}: {size / 1e6:.2f} MB")


def run_card(layout: MiniLayout, config: MiniConfig) -> None:
    """The model card; with --install, the package takes the place of the project's mini, and so do its samples."""
    figures = json.loads(layout.evaluation.read_text(encoding="utf-8"))
    write_card(layout, figures, read_steps(layout.root))
    console.print(f"  {layout.package / 'README.md'}")
    if config.install:
        console.print(f"  installed: {install_package(layout.package)}, {install_samples(layout.samples)}")


RUN: dict[Step, Callable[[MiniLayout, MiniConfig], None]] = {
    "data": run_data,
    "tokenizer": run_tokenizer,
    "codes": run_codes,
    "vocoder": run_vocoder,
    "flow": run_flow,
    "conversations": run_conversations,
    "lm": run_lm,
    "judge": run_judge,
    "package": run_package,
    "sampling": run_sampling,
    "evaluation": run_evaluation,
    "samples": run_samples,
    "card": run_card,
}
# What each step needs of those before it: the vocoder needs no tokenizer, and the LM no decoder.
NEEDS: dict[Step, tuple[Step, ...]] = {
    "data": (),
    "tokenizer": ("data",),
    "codes": ("tokenizer",),
    "vocoder": ("data",),
    "flow": ("codes", "vocoder"),
    "conversations": ("codes",),
    "lm": ("conversations",),
    "judge": ("tokenizer",),
    "package": ("flow", "lm"),
    "sampling": ("package",),
    "evaluation": ("sampling", "judge"),
    "samples": ("sampling",),
    "card": ("evaluation", "samples"),
}


# -------------------------------------------------------------------- the run


def run_mini(config: MiniConfig) -> Path:
    """Runs every step that is not complete, or one; returns the package's folder.

    Raises:
        ValueError: if the folder holds something else or a run of other steps, another call is at work in it, or a
            step lacks what it needs.
    """
    layout = MiniLayout(Path(config.output_dir))
    with held_run_folder(layout.root):
        _run_steps(layout, config)
    return layout.package


def _run_steps(layout: MiniLayout, config: MiniConfig) -> None:
    _refuse_other_steps(layout.root)
    if config.jobs > 1:
        torch.set_num_threads(threads_of_job(config.jobs))

    def run(step: Step) -> None:
        RUN[step](layout, config)

    always: tuple[Step, ...] = ("card",)  # quick, and where --install is obeyed
    run_due_steps(layout.root, STEPS, NEEDS, run, only=config.only, always=always, jobs=config.jobs)


def _refuse_other_steps(folder: Path) -> None:
    """A new tokenizer beside the codes and models of an old one would be taken for theirs."""
    other = [name for name in read_steps(folder) if name not in STEPS]
    if other:
        raise ValueError(
            f"{folder} holds a run of other steps than mini has ({', '.join(other)}), made by another version: what is "
            "complete there does not fit what is not; choose another output_dir"
        )


def _launch(script: str, settings: str, run: Path, config: MiniConfig, step: str, *flags: str) -> None:
    """Runs a trainer as a user would, from where an earlier call stopped."""
    more = ("--max_steps", str(config.steps[step])) if config.steps and step in config.steps else ()
    log = run.parent / "logs" / f"{step}.log" if config.jobs > 1 else None
    launch_trainer(
        script, settings, *flags, "--output_dir", str(run), "--resume", "latest", "--seed", str(config.seed), *more,
        num_threads=None if log is None else threads_of_job(config.jobs), log=log,
    )  # fmt: skip


if __name__ == "__main__":
    run_program(MiniConfig, run_mini, name="mini", level=logging.WARNING)
