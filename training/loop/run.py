"""A run around its updates, for every trainer: its folder, resuming, records, metrics, checkpoints and summary.

In the order of use: `running` (processes), `open_run_folder` (before anything slow), `start_run`
(when model, optimizer and data are ready), the methods of `TrainingRun`, and `RunSummary`.
"""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from audiollm.data.files.json_document import write_json
from audiollm.data.files.lock import FileInUseError, held_run_folder
from audiollm.tokenizer.checkpoints.card import Base, Kind, write_card
from audiollm.training.results.best import BestEvaluation, best_evaluation, check_metric
from audiollm.training.results.card import told_weights, training_of
from audiollm.training.results.curves import CURVES_PICTURE, write_curves
from audiollm.training.results.figures import told_scores

from .checkpoints import (
    Checkpoints,
    CheckpointState,
    Stateful,
    check_identity,
    find_checkpoint,
    load,
    read_state,
    run_identity,
    with_launch_of,
)
from .config import RunConfig
from .distributed.companions import companions
from .launch import mode_name, stop_accelerator
from .record import (
    CONFIG_NAME,
    RUN_NAME,
    MetricsLog,
    config_as_json,
    git_revision,
    open_metrics,
    package_versions,
    refuse_run_of_others,
    warn_of_unfinished_runs,
)
from .schedule import is_due
from .stopping import RunStoppedError, StopRequest

logger = get_logger(__name__)

Item = TypeVar("Item")

_SECONDS_OF_A_LOG = 10.0
"""Between two states of a progress bar that goes into a file, where each stays."""


@contextmanager
def running(accelerator: Accelerator) -> Iterator[Accelerator]:
    """Leaves the process group at the end, after everything that the run held has been freed.

    Raises:
        LostProcessError: if another process died meanwhile.
    """
    try:
        with companions(accelerator):
            yield accelerator
    finally:
        gc.collect()  # frames of an error may still hold tensors in circles, which stopping needs to be gone
        stop_accelerator(accelerator)


@contextmanager
def held_folder(accelerator: Accelerator, config: RunConfig) -> Iterator[None]:
    """Holds the run's folder for the processes of one launch, so that no second run writes into it.

    The lock is the system's: it goes with the process that holds it, however that ends.

    Raises:
        FileInUseError: a ValueError, on every process; it names the process that is at work there.
    """
    with ExitStack() as stack:
        refused: list[str | None] = [None]
        if accelerator.is_main_process:
            try:
                stack.enter_context(held_run_folder(config.output_dir))
            except (FileInUseError, OSError) as error:
                refused = [str(error)]
        broadcast_object_list(refused)
        if refused[0] is not None:
            raise FileInUseError(refused[0])
        yield
        accelerator.wait_for_everyone()  # the others still write when the first is done


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
        path: the folder; it exists.
        checkpoints: those in it.
        checkpoint: the one to go on from, or None to start from the beginning.
    """

    path: Path
    checkpoints: Checkpoints
    checkpoint: Path | None


def open_run_folder(accelerator: Accelerator, config: RunConfig) -> RunFolder:
    """Makes the run's folder and seeds what the model will be initialised with.

    Raises:
        ResumeError: if the checkpoint to resume is not there, or the folder holds another run.
        ValueError: if the folder holds a run that is not to be resumed.
    """
    folder = Path(config.output_dir)
    checkpoints = Checkpoints(folder / "checkpoints", keep=config.keep_checkpoints)
    checkpoint = find_checkpoint(config.resume, checkpoints)
    refuse_run_of_others(folder, config, checkpoint)
    if accelerator.is_main_process:
        warn_of_unfinished_runs(config)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.clear_leftovers()
    set_seed(config.seed)  # the same on every process: all of them make the same new weights
    return RunFolder(folder, checkpoints, checkpoint)


@dataclass
class TrainingRun:
    """A run between its first and its last update.

    Attributes:
        accelerator: its processes.
        config: its settings.
        folder: where it writes.
        model: the prepared model.
        optimizer: the prepared optimizer.
        extras: what its checkpoints hold beside them.
        first_step: the next update.
        total_steps: updates of the whole run.
        identity: what a resumed run must share with it.
        documents: JSON files that lie in its folder and beside every checkpoint.
        metrics: on the main process, ``metrics.jsonl``.
        stop: whether it has been asked to stop; None: nobody listens.
        best: the best evaluation so far, the same on every process.
    """

    accelerator: Accelerator
    config: RunConfig
    folder: RunFolder
    model: nn.Module
    optimizer: Any
    extras: Mapping[str, Stateful]
    first_step: int
    total_steps: int
    identity: dict[str, Any]
    documents: dict[str, Any]
    metrics: MetricsLog | None
    stop: StopRequest | None = None
    best: BestEvaluation | None = None

    def __post_init__(self) -> None:
        self._find_best()

    @property
    def steps(self) -> range:
        """Updates to make."""
        return range(self.first_step, self.total_steps + 1)

    def with_progress(self, items: Iterable[Item]) -> tqdm[Item]:
        """Shows the progress of a loop with one item per update; on the main process only."""
        return tqdm(
            items,
            total=self.total_steps,
            initial=self.first_step - 1,
            disable=not self.accelerator.is_main_process,
            unit="update",
            mininterval=0.1 if sys.stderr.isatty() else _SECONDS_OF_A_LOG,
        )

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line to the metrics."""
        if self.metrics is not None:
            self.metrics.write(line)

    def write_update(self, line: dict[str, Any]) -> None:
        """Appends an update's line, if it is one to be logged."""
        step = line["step"]
        if step % self.config.log_every == 0 or step == self.total_steps:
            self.write(line)

    def write_evaluation(self, line: dict[str, Any]) -> None:
        """Appends an evaluation's line to the metrics, says it, and draws the curves; all processes call it.

        Raises:
            ValueError: after saving a checkpoint, if it lacks the figure that decides which evaluation is the best.
        """
        self.write(line)
        refused: list[str | None] = [None]
        if self.metrics is not None:
            try:
                check_metric(line, self.config.metric_for_best)
            except ValueError as error:
                refused = [str(error)]
        broadcast_object_list(refused)
        if refused[0] is not None:
            saved = self._save(line["step"])
            raise ValueError(f"{refused[0]}; {saved} holds the run: go on with another one and --resume latest")
        self._find_best()
        if self.metrics is not None:
            is_best = self.best is not None and self.best.step == line["step"]
            told = "the best so far" if is_best else f"best so far: {self.best or 'none has the figure that decides'}"
            with logging_redirect_tqdm():  # on lines of its own, not behind the progress bar
                logger.info(
                    "evaluation after update %d of %d: %s; %s", line["step"], self.total_steps, told_scores(line), told
                )
            write_curves(self.folder.path, self.metrics.lines(), self.best)

    def _find_best(self) -> None:
        found: list[BestEvaluation | None] = [self._best_of()]
        self.best = broadcast_object_list(found)[0]

    def _best_of(self, steps: Collection[int] | None = None) -> BestEvaluation | None:
        """The best evaluation, or the best after some updates; None on processes without metrics."""
        lines = [] if self.metrics is None else self.metrics.lines()
        return best_evaluation(lines, self.config.metric_for_best, steps)

    def save_if_due(self, step: int) -> None:
        """Saves a checkpoint after an update, if one is due or the run is to stop; all processes call it.

        Raises:
            RunStoppedError: after saving, if the run was asked to stop. After its last update it just ends.
        """
        stops = step < self.total_steps and self.stop is not None and self.stop.is_asked_of_anyone(self.accelerator)
        is_wanted = self.config.load_best_at_end and self.best is not None and self.best.step == step
        if stops or is_wanted or is_due(self.config.save_every, step, self.total_steps):
            saved = self._save(step)
            if stops:
                raise RunStoppedError(
                    f"stopped as asked after update {step} of {self.total_steps}; {saved} holds it, go on with "
                    "--resume latest"
                )

    def _save(self, step: int) -> Path:
        """Saves a checkpoint after an update; all processes call it."""
        kept = self._best_of({*self.folder.checkpoints.steps(), step})
        return self.folder.checkpoints.save(
            self.accelerator, self.model, self.optimizer, CheckpointState(step, self.identity), self.documents,
            self.extras, kept_step=kept.step if kept else None,
        )  # fmt: skip

    def load_best(self) -> int:
        """After the last update: takes back the weights of the best evaluation, if the run is to end with them.

        All processes call it.

        Returns:
            The update whose weights the model has now.

        Raises:
            ResumeError: if the checkpoint is damaged.
        """
        if not self.config.load_best_at_end:
            return self.total_steps
        kept = broadcast_object_list([self._best_of(self.folder.checkpoints.steps())])[0]
        if kept != self.best:
            logger.warning(
                "no checkpoint holds the best evaluation (%s): the best of those kept is %s", self.best, kept
            )
        if kept is None or kept.step == self.total_steps:
            return self.total_steps
        checkpoint = self.folder.checkpoints.of_step(kept.step)
        trusted = self.config.trust_checkpoint
        seed = self.config.seed
        load(self.accelerator, self.model, self.optimizer, checkpoint, self.extras, trusted=trusted, seed=seed)
        return kept.step

    def write_card(
        self, model: Path, kind: Kind, bases: Sequence[Base], *, step: int, evaluation_data: Mapping[str, Any]
    ) -> None:
        """Writes the card of a saved model; the main process does it.

        Args:
            model: the model's folder.
            kind: what it is.
            bases: what the run started from.
            step: the update whose weights it has.
            evaluation_data: sizes and fingerprint of the held-out records; empty without any.
        """
        if self.metrics is None:
            return
        training = training_of(
            self.documents, self.metrics.lines(), step=step, best=self.best, evaluation_data=evaluation_data
        )
        write_card(model, kind, title=self.folder.path.resolve().name, bases=bases, training=training)

    def finish(self, summary: RunSummary, next_command: Sequence[str]) -> RunSummary:
        """Draws the curves and says what the run leaves and what uses it next; all processes call it.

        Args:
            summary: how the run ended.
            next_command: a command line, in capitals what is to be put in.
        """
        if self.metrics is not None:
            self.metrics.finish()
            write_curves(self.folder.path, self.metrics.lines(), self.best)
        weights = told_weights(summary.model_step, self.total_steps, self.best)
        logger.info("trained model: %s (its weights are %s)", summary.model_folder, weights)
        if self.best is not None:
            checkpoint = self.folder.checkpoints.of_step(self.best.step)
            logger.info("best evaluation: %s%s", self.best, f" ({checkpoint})" if checkpoint.exists() else "")
        logger.info("curves: %s, figures: %s", self.folder.path / CURVES_PICTURE, summary.metrics_file)
        logger.info("next: %s", shlex.join(next_command))
        return summary


def start_run(
    accelerator: Accelerator,
    config: RunConfig,
    folder: RunFolder,
    *,
    model: nn.Module,
    optimizer: Any,
    total_steps: int,
    data_metadata: dict[str, Any],
    run_metadata: Mapping[str, Any] = MappingProxyType({}),
    extras: Mapping[str, Stateful] = MappingProxyType({}),
    stop: StopRequest | None = None,
    processes_may_change: bool = False,
) -> TrainingRun:
    """Restores the checkpoint to resume, if any, and writes down what the run is.

    Args:
        accelerator: the run's accelerator.
        config: its settings.
        folder: what `open_run_folder` returned.
        model: the prepared model.
        optimizer: the prepared optimizer.
        total_steps: updates of the whole run.
        data_metadata: fingerprints and sizes of the data; they must not change.
        run_metadata: more for ``run.json``.
        extras: what checkpoints hold beside model and optimizer, the same on every process.
        stop: what listens for a request to stop.
        processes_may_change: whether a run may go on with another number of processes: its updates know nothing of
            them, and each process holds the whole of the model.

    Raises:
        ResumeError: if the checkpoint belongs to a different run.
    """
    identity = run_identity(
        config_as_json(config), data=data_metadata, total_steps=total_steps, launch=launch_of(accelerator)
    )
    first_step = 1
    # Different dropout on every process; a checkpoint's random state takes its place on resuming.
    set_seed(config.seed, device_specific=True)
    if folder.checkpoint is not None:
        state = read_state(folder.checkpoint)
        launched = with_launch_of(state, identity) if processes_may_change else identity
        check_identity(folder.checkpoint, state, launched, config)
        if (before := state.identity.get("launch.num_processes")) != accelerator.num_processes:
            logger.warning(
                "going on with %d processes in place of %s: the same updates, with other draws of dropout",
                *(accelerator.num_processes, before),
            )
        trusted = config.trust_checkpoint
        load(accelerator, model, optimizer, folder.checkpoint, extras, trusted=trusted, seed=config.seed)
        first_step = state.step + 1
        logger.info("resumed %s after update %d of %d", folder.checkpoint, state.step, total_steps)
    documents = run_documents(accelerator, config, model, total_steps, data_metadata, run_metadata)
    if accelerator.is_main_process:
        for name, value in documents.items():
            write_json(folder.path / name, value)
    metrics = open_metrics(accelerator, folder.path, config, last_step=first_step - 1)
    if stop is not None:
        stop.updates_begin()
    return TrainingRun(
        accelerator=accelerator,
        config=config,
        folder=folder,
        model=model,
        optimizer=optimizer,
        extras=extras,
        first_step=first_step,
        total_steps=total_steps,
        identity=identity,
        documents=documents,
        metrics=metrics,
        stop=stop,
    )


def run_documents(
    accelerator: Accelerator,
    config: RunConfig,
    model: nn.Module,
    total_steps: int,
    data_metadata: Mapping[str, Any],
    run_metadata: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What a run writes down of itself: ``config.json`` and ``run.json``; arguments as for `start_run`."""
    metadata = {
        "versions": package_versions(),
        "git_revision": git_revision(Path(__file__).resolve().parent),
        "launch": launch_of(accelerator),
        "device": str(accelerator.device),
        "num_threads": torch.get_num_threads(),
        "data": data_metadata,
        "num_updates": total_steps,
        **parameter_counts(accelerator.unwrap_model(model)),
        **run_metadata,
    }
    return {CONFIG_NAME: config_as_json(config), RUN_NAME: metadata}


def launch_of(accelerator: Accelerator) -> dict[str, Any]:
    """How a run shares its work, which a resumed one must do alike."""
    return {"mode": mode_name(accelerator), "num_processes": accelerator.num_processes}


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Attributes:
        steps: updates of the whole run.
        loss: loss of the last update; None if a resumed run had nothing left to do.
        evaluation: the last line that evaluation wrote to the metrics, if there was one. What only the main process
            scores, such as generated texts, is in it there alone.
        model_folder: the trained model.
        metrics_file: one JSON object per update and evaluation.
        model_step: the update whose weights it has: that of the best evaluation, or the last.
        best: the best evaluation of the run, if there was one.
    """

    steps: int
    loss: float | None
    evaluation: dict[str, Any] | None
    model_folder: Path
    metrics_file: Path
    model_step: int
    best: BestEvaluation | None


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Weights of a model, all and trainable ones."""
    # Under ZeRO-3 a parameter is empty here and `ds_numel` is its size.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return {
        "num_parameters": sum(size for size, _ in sizes),
        "num_trainable_parameters": sum(size for size, trainable in sizes if trainable),
    }
