"""A run of one of trl's trainers: its folder, its checkpoints, what it writes down, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from audiollm.data.files.json_document import write_json
from audiollm.training.loop.batches import updates_of_epochs
from audiollm.training.loop.checkpoints import Checkpoints, run_identity
from audiollm.training.loop.config import RunConfig
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.record import METRICS_NAME, config_as_json, open_metrics, refuse_run_of_others
from audiollm.training.loop.run import RunFolder, RunSummary, TrainingRun, launch_of, run_documents
from audiollm.training.loop.stopping import StopRequest

from .checkpoints import MarkComplete, check_same_run, find_checkpoint
from .reporting import Reporting

CHECKPOINTS = "checkpoints"


def open_trl_folder(accelerator: Accelerator, config: RunConfig) -> Path | None:
    """Makes the run's folder and seeds what is drawn at random; returns the checkpoint to go on from, if any.

    Raises:
        ResumeError: if the checkpoint to resume is not there, or the folder holds another run.
        ValueError: if the folder holds a run that is not to be resumed.
    """
    folder = Path(config.output_dir)
    checkpoint = find_checkpoint(config.resume, folder / CHECKPOINTS)
    refuse_run_of_others(folder, config, checkpoint)
    set_seed(config.seed)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    return checkpoint


def updates_of_run(config: Any, num_records: int, records_per_update: int) -> int:
    """Updates of the whole run.

    Raises:
        DataError: if an update takes more records than there are.
    """
    if records_per_update > num_records:
        raise DataError(
            f"{config.train_data} has {num_records} usable records, and an update takes {records_per_update}: lower "
            "global_batch_size"
        )
    if config.max_steps is not None:
        return int(config.max_steps)
    return updates_of_epochs(config.num_epochs, num_records, records_per_update)


def run_trl(
    accelerator: Accelerator,
    config: RunConfig,
    stop: StopRequest,
    *,
    checkpoint: Path | None,
    make: Callable[[list[Any]], Any],
    save: Callable[[Any], Path],
    total_steps: int,
    data_metadata: dict[str, Any],
    num_records: int,
) -> tuple[TrainingRun, RunSummary]:
    """Trains to the last update and saves; every process calls it.

    Args:
        accelerator: the run's processes.
        config: its settings.
        stop: what listens for a request to stop.
        checkpoint: what `open_trl_folder` returned.
        make: makes trl's trainer with some callbacks.
        save: writes what has been trained; returns the folder of the model.
        total_steps: updates of the whole run.
        data_metadata: fingerprints and sizes of the data; they must not change.
        num_records: for ``run.json``.

    Returns:
        The run, its card still to be written, and how it ended.

    Raises:
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        RunStoppedError: after a checkpoint, if the run was asked to stop.
        NonFiniteLossError: if the loss or the gradient stops being a number.
    """
    folder = Path(config.output_dir)
    checkpoints = folder / CHECKPOINTS
    identity = run_identity(
        config_as_json(config), data=data_metadata, total_steps=total_steps, launch=launch_of(accelerator)
    )
    first_step = 1 + (check_same_run(checkpoint, identity, config) if checkpoint is not None else 0)
    metrics = open_metrics(accelerator, folder, config, last_step=first_step - 1)
    reporting = Reporting(accelerator, metrics, stop)
    trainer = make([reporting, MarkComplete(checkpoints, identity)])
    documents = run_documents(
        accelerator, config, trainer.model, total_steps, data_metadata, {"num_records": num_records}
    )
    if accelerator.is_main_process:
        for name, value in documents.items():
            write_json(folder / name, value)
    stop.updates_begin()
    if first_step <= total_steps:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    else:  # it made its last update before; the Trainer would make one more
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state.global_step = total_steps
    reporting.raise_if_stopped(trainer.state.global_step, total_steps)
    if config.eval_data is not None and (reporting.evaluation is None or reporting.evaluation["step"] != total_steps):
        trainer.evaluate()
    model_folder = save(trainer)
    run = TrainingRun(
        accelerator=accelerator,
        config=config,
        folder=RunFolder(folder, Checkpoints(checkpoints, keep=config.keep_checkpoints), checkpoint),
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras={},
        first_step=first_step,
        total_steps=total_steps,
        identity=identity,
        documents=documents,
        metrics=metrics,
        stop=stop,
    )
    summary = RunSummary(
        total_steps, reporting.loss, reporting.evaluation, model_folder, folder / METRICS_NAME, total_steps, run.best
    )
    return run, summary
