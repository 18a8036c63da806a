"""Training of a LoSATok: first SemBo, the bottleneck of a frozen teacher, then the tokenizer around it.

accelerate launch training/train_losatok.py --config training/configs/losatok_semantic.yaml --train_data … …
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.tokenizer.losatok.configuration import SAMPLE_RATE
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.prefetching import Prefetched
from audiollm.training.loop.record import METRICS_NAME
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.schedule import is_due
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.losatok.config import LoSATokTrainingConfig
from audiollm.training.losatok.semantic_stage import SemanticTrainer
from audiollm.training.losatok.start import make_semantic, make_tokenizer
from audiollm.training.losatok.tokenizer_stage import TokenizerTrainer
from audiollm.training.losatok.trainer import LoSATokRun, StageTrainer
from audiollm.training.recordings.checked import Recordings

logger = get_logger(__name__)


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
    folder = run_folder.path
    loss, evaluation = None, None
    started = time.perf_counter()
    for step, batch in run.with_progress(Prefetched(trainer.batch, run.steps)):
        line = {"event": "train", "step": step, "epoch": trainer.epoch(step), **trainer.update(step, batch)}
        line["seconds"] = time.perf_counter() - started
        line["audio_seconds_per_second"] = line["audio_seconds"] / line["seconds"]
        loss = line["loss"]
        run.write_update(line)
        if trainer.run.held_out is not None and is_due(config.eval_every, step, run.total_steps):
            evaluation = {"event": "eval", "step": step, **trainer.evaluate(step, folder / "evaluation")}
            run.write_evaluation(evaluation)
            _warn_of_collapse(run, trainer, evaluation)
        if is_due(config.save_every, step, run.total_steps):
            _save_model(run, trainer, step)
        run.save_if_due(step)
        started = time.perf_counter()
    model_step = run.load_best()
    if model_step != run.total_steps:
        _save_model(run, trainer, model_step)
    summary = RunSummary(
        run.total_steps, loss, evaluation, folder / MODEL_FOLDER, folder / METRICS_NAME, model_step, run.best
    )
    return run.finish(summary, _next_command(config, folder))


def _prepare(accelerator: Accelerator, config: LoSATokTrainingConfig) -> StageTrainer:
    """Makes the model, and reads the recordings."""
    # First, as it is the sooner to fail.
    semantic = make_semantic(config) if config.stage == "semantic" else None
    tokenizer = make_tokenizer(config) if config.stage == "tokenizer" else None

    def read(source: str) -> Recordings:
        return Recordings(
            source,
            sample_rate=SAMPLE_RATE,
            mono=config.mono,
            min_seconds=config.min_seconds,
            on_bad=config.on_bad,
            cache_bytes=config.cache_megabytes * 2**20,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
            gather=gather_object,
            progress=accelerator.is_main_process,
        )

    recordings = read(config.train_data)
    held_out = None if config.eval_data is None else read(config.eval_data)
    run = LoSATokRun(accelerator, config, recordings, held_out)
    if semantic is not None:
        return SemanticTrainer(run, semantic)
    assert tokenizer is not None
    return TokenizerTrainer(run, tokenizer)


def _warn_of_collapse(run: TrainingRun, trainer: StageTrainer, line: dict[str, Any]) -> None:
    """Says when most of the latents' dimensions tell nothing."""
    collapsed, size = line.get("collapsed_dimensions"), trainer.latent_size
    if collapsed is None or collapsed < trainer.run.config.collapse_alarm * size:
        return
    alarm = (
        f"{collapsed} of {size} latent dimensions are collapsed (below {trainer.run.config.collapsed_below} nats): "
        "lower tokenizer.kl_weight, or set tokenizer.kl_clamp"
    )
    logger.warning("update %d: %s", line["step"], alarm)
    run.write({"event": "alarm", "step": line["step"], "message": alarm})


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
    """What uses the trained model."""
    if config.stage == "semantic":
        settings = ["--stage", "tokenizer", "--tokenizer.semantic", str(folder), "--train_data", config.train_data]
        return ["accelerate", "launch", "training/train_losatok.py", *settings, "--output_dir", "RUN"]
    return ["audiollm", "tokenizers", str(folder / MODEL_FOLDER)]


if __name__ == "__main__":
    run_program(LoSATokTrainingConfig, train, name="train_losatok")
