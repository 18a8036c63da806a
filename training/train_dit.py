"""Training of a diffusion transformer that makes an audio tokenizer's latents of texts, by flow matching.

accelerate launch training/train_dit.py --config training/configs/dit.yaml --audio_tokenizer … --train_data … …
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.diffusion.config import DiffusionTrainingConfig
from audiollm.training.diffusion.start import prepare
from audiollm.training.diffusion.trainer import DiffusionTrainer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates


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
    has_held_out = trainer.run.held_out is not None
    return make_updates(
        run,
        Updates(
            read=trainer.batch,
            update=trainer.update,
            epoch=trainer.epoch,
            unit="audio_seconds",
            evaluate=partial(trainer.evaluate, folder=run_folder.path / "evaluation") if has_held_out else None,
            save_model=lambda step: _save_model(run, trainer, step),
            saves_along=True,
            next_command=_next_command(run_folder.path, trainer.run.train.tasks),
        ),
    )


def _save_model(run: TrainingRun, trainer: DiffusionTrainer, step: int) -> None:
    """Writes the model as it is after an update, and its card; all processes call it."""
    config, folder = trainer.run.config, run.folder.path / MODEL_FOLDER
    trainer.save(folder)
    held_out = {} if trainer.run.held_out is None else trainer.run.held_out.facts
    bases = [Base("audio tokenizer", config.audio_tokenizer)]
    if config.text.encoder is not None:
        bases.append(Base("text encoder", config.text.encoder))
    run.write_card(folder, "latent_diffusion", bases, step=step, evaluation_data=held_out)


def _next_command(folder: Path, tasks: Sequence[str]) -> list[str]:
    """What uses the trained model; one of several tasks has to be named."""
    task = ["--task", tasks[-1].replace("_", "-")] if len(tasks) > 1 else []
    return ["audiollm", "generate-audio", "TEXT", "--model", str(folder), *task, "-o", "OUTPUT.wav"]


if __name__ == "__main__":
    run_program(DiffusionTrainingConfig, train, name="train_dit")
