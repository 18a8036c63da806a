"""Training of a LoSATok: first SemBo, the bottleneck of a frozen teacher, then the tokenizer around it.

accelerate launch training/train_losatok.py --config training/configs/losatok_semantic.yaml --train_data … …
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates
from audiollm.training.losatok.config import LoSATokTrainingConfig, SemanticStageSettings
from audiollm.training.losatok.semantic_stage import SemanticTrainer
from audiollm.training.losatok.start import make_semantic, make_tokenizer
from audiollm.training.losatok.tokenizer_stage import TokenizerTrainer
from audiollm.training.losatok.trainer import LoSATokRun, StageTrainer
from audiollm.training.recordings.checked import read_recordings


def train(config: LoSATokTrainingConfig) -> RunSummary:
    """Runs one stage from its config to the saved model; every process of a launch calls it.

    Args:
        config: the run.

    Returns:
        How it ended, the same on every process.

    Raises:
        LaunchError: if the processes are not the ones asked for.
        DataError: listing the recordings that cannot be trained on.
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        FileInUseError: if another run is at work in the folder.
        RunStoppedError: after a checkpoint, if the process was asked to stop by SIGTERM or SIGUSR1.
        NonFiniteLossError: if a loss or the gradient stops being a number.
        ValueError: for other settings that cannot work.
    """
    with running(start_data_parallel(config)) as accelerator, held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: LoSATokTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    trainer = _prepare(accelerator, config)
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras=trainer.extras,
        total_steps=trainer.total_steps,
        data_metadata=trainer.run.train.facts,
        stop=stop,
    )
    has_held_out = trainer.run.held_out is not None
    return make_updates(
        run,
        Updates(
            read=trainer.batch,
            update=trainer.update,
            epoch=trainer.epoch,
            unit="audio_seconds",
            evaluate=partial(trainer.evaluate, folder=run_folder.path / "evaluation") if has_held_out else None,
            alarms=lambda line: _collapse_alarms(trainer, line),
            save_model=lambda step: _save_model(run, trainer, step),
            saves_along=True,
            next_command=_next_command(config, run_folder.path),
        ),
    )


def _prepare(accelerator: Accelerator, config: LoSATokTrainingConfig) -> StageTrainer:
    """Makes the model, and reads the recordings."""
    # First, as it is the sooner to fail.
    semantic = make_semantic(config) if config.stage == "semantic" else None
    tokenizer = make_tokenizer(config) if config.stage == "tokenizer" else None

    read = partial(read_recordings, accelerator, config, SAMPLE_RATE)
    recordings = read(config.train_data)
    held_out = None if config.eval_data is None else read(config.eval_data)
    run = LoSATokRun(accelerator, config, recordings, held_out)
    if semantic is not None:
        return SemanticTrainer(run, semantic)
    assert tokenizer is not None
    return TokenizerTrainer(run, tokenizer)


def _collapse_alarms(trainer: StageTrainer, line: dict[str, Any]) -> Iterator[str]:
    """Says when most of the latents' dimensions tell nothing."""
    collapsed, size = line.get("collapsed_dimensions"), trainer.latent_size
    if line["event"] != "eval" or collapsed is None or collapsed < trainer.run.config.collapse_alarm * size:
        return
    yield (
        f"{collapsed} of {size} latent dimensions are collapsed (below {trainer.run.config.collapsed_below} nats): "
        "lower tokenizer.kl_weight, or set tokenizer.kl_clamp"
    )


def _save_model(run: TrainingRun, trainer: StageTrainer, step: int) -> None:
    """Writes the model as it is after an update, and its card; all processes call it."""
    config, folder = trainer.run.config, run.folder.path / MODEL_FOLDER
    trainer.save(folder)
    held_out = {} if trainer.run.held_out is None else trainer.run.held_out.facts
    if config.stage == "semantic":
        bases = [Base("teacher", str(config.semantic.teacher))]
        run.write_card(folder, "semantic_encoder", bases, step=step, evaluation_data=held_out)
    else:
        bases = [Base("semantic side", str(config.tokenizer.semantic))]
        run.write_card(folder, "latent_tokenizer", bases, step=step, evaluation_data=held_out)


def _next_command(config: LoSATokTrainingConfig, folder: Path) -> list[str]:
    """What uses the trained model: of the first stage the second one, by the config that is as large."""
    if config.stage == "semantic":
        size = "" if config.semantic.latent_size == SemanticStageSettings.latent_size else "small_"
        second_stage = ["audiollm", "train-losatok", "--config", f"losatok_{size}tokenizer"]
        data = ["--train_data", config.train_data, "--eval_data", config.eval_data or "EVAL_DATA"]
        return [*second_stage, "--tokenizer.semantic", str(folder), *data, "--output_dir", "RUN"]
    return ["audiollm", "tokenizers", str(folder / MODEL_FOLDER)]


if __name__ == "__main__":
    run_program(LoSATokTrainingConfig, train, name="train_losatok")
