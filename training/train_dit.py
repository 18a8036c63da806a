"""Training of a diffusion transformer that makes an audio tokenizer's latents of texts, by flow matching.

accelerate launch training/train_dit.py --config training/configs/dit.yaml --audio_tokenizer … --train_data … …
"""

from __future__ import annotations

import time
from pathlib import Path

from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.diffusion.config import DiffusionTrainingConfig
from audiollm.training.diffusion.start import prepare
from audiollm.training.diffusion.trainer import DiffusionTrainer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.prefetching import Prefetched
from audiollm.training.loop.record import METRICS_NAME
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.schedule import is_due
from audiollm.training.loop.stopping import StopRequest, stop_requests


def train(config: DiffusionTrainingConfig) -> RunSummary:
    """Runs the training from its config to the saved model; every process of a launch calls it.

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


def _train(accelerator: Accelerator, config: DiffusionTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    trainer = DiffusionTrainer(*prepare(accelerator, config))
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras=trainer.extras,
        total_steps=trainer.total_steps,
        data_metadata=trainer.run.train.facts | {"audio_tokenizer": trainer.run.audio_tokenizer.fingerprint()},
        stop=stop,
    )
    folder = run_folder.path
    loss, evaluation = None, None
    started = time.perf_counter()
    batches = Prefetched(trainer.batch, run.steps)
    for step, batch in run.with_progress(batches):
        line = {"event": "train", "step": step, "epoch": trainer.epoch(step), **trainer.update(step, batch)}
        line["seconds"] = time.perf_counter() - started
        line["audio_seconds_per_second"] = line["audio_seconds"] / line["seconds"]
        loss = line["loss"]
        run.write_update(line)
        evaluates = trainer.run.held_out is not None and is_due(config.eval_every, step, run.total_steps)
        saves = is_due(config.save_every, step, run.total_steps)
        if evaluates or saves:
            batches.settle()  # both tokenizers are not for two threads
        if evaluates:
            evaluation = {"event": "eval", "step": step, **trainer.evaluate(step, folder / "evaluation")}
            run.write_evaluation(evaluation)
        if saves:
            _save_model(run, trainer, step)
        run.save_if_due(step)
        started = time.perf_counter()
    model_step = run.load_best()
    if model_step != run.total_steps:
        _save_model(run, trainer, model_step)
    summary = RunSummary(
        run.total_steps, loss, evaluation, folder / MODEL_FOLDER, folder / METRICS_NAME, model_step, run.best
    )
    return run.finish(summary, _next_command(folder))


def _save_model(run: TrainingRun, trainer: DiffusionTrainer, step: int) -> None:
    """Writes the model as it is after an update, and its card; all processes call it."""
    config, folder = trainer.run.config, run.folder.path / MODEL_FOLDER
    trainer.save(folder)
    held_out = {} if trainer.run.held_out is None else trainer.run.held_out.facts
    bases = [Base("audio tokenizer", config.audio_tokenizer)]
    if config.text.encoder is not None:
        bases.append(Base("text encoder", config.text.encoder))
    run.write_card(folder, "latent_diffusion", bases, step=step, evaluation_data=held_out)


def _next_command(folder: Path) -> list[str]:
    """What uses the trained model."""
    return ["audiollm", "generate-audio", "TEXT", "--model", str(folder), "-o", "OUTPUT.wav"]


if __name__ == "__main__":
    run_program(DiffusionTrainingConfig, train, name="train_dit")
