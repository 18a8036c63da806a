"""Training of a ReasoningCodec: reasoning codes that a text LLM understands, then codes and decoder that give sound.

accelerate launch training/train_reasoning_codec.py --config training/configs/reasoning_codec_supervised.yaml --llm … …
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.prefetching import Prefetched
from audiollm.training.loop.record import METRICS_NAME
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.schedule import is_due
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.reasoning_codec.config import ReasoningCodecTrainingConfig
from audiollm.training.reasoning_codec.grpo_stage import train_by_rewards
from audiollm.training.reasoning_codec.opening import open_codec
from audiollm.training.reasoning_codec.reconstruction_stage import make_reconstruction_trainer
from audiollm.training.reasoning_codec.stage_trainer import StageRun, StageTrainer
from audiollm.training.reasoning_codec.stages import TRAIN
from audiollm.training.reasoning_codec.supervised_stage import make_supervised_trainer

logger = get_logger(__name__)


def train(config: ReasoningCodecTrainingConfig) -> RunSummary:
    """Runs one stage from its config to the saved codec; every process of a launch calls it.

    Args:
        config: the run.

    Returns:
        How it ended, the same on every process.

    Raises:
        LaunchError: if the processes are not the ones asked for.
        DataError: listing the records that cannot be trained on.
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        FileInUseError: if another run is at work in the folder.
        RunStoppedError: after a checkpoint, if the process was asked to stop by SIGTERM or SIGUSR1.
        NonFiniteLossError: if a loss or the gradient stops being a number.
        ValueError: if it is not this stage's turn, and for other settings that cannot work.
    """
    with running(start_data_parallel(config)) as accelerator, held_folder(accelerator, config), stop_requests() as stop:
        if config.stage == "grpo":
            return train_by_rewards(accelerator, config, stop, _next_command(config))
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: ReasoningCodecTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    folder = run_folder.path
    trainer = _prepare(StageRun(accelerator, config, open_codec(config)))
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras=trainer.extras,
        total_steps=trainer.total_steps,
        data_metadata=trainer.data_metadata,
        stop=stop,
    )
    loss, evaluation = None, None
    updates = Prefetched(trainer.batch, run.steps)
    started = time.perf_counter()
    for step, batch in run.with_progress(updates):
        line = {"event": "train", "step": step, "epoch": trainer.epoch(step), **trainer.update(step, batch)}
        line["seconds"] = time.perf_counter() - started
        line["audio_seconds_per_second"] = line["audio_seconds"] / line["seconds"]
        loss = line["loss"]
        run.write_update(line)
        _warn(run, trainer, line)
        if config.eval_data is not None and is_due(config.eval_every, step, run.total_steps):
            updates.settle()  # a fast text tokenizer must not be used from two threads at once
            evaluation = {"event": "eval", "step": step, **trainer.evaluate(step, folder / "evaluation")}
            run.write_evaluation(evaluation)
            _warn(run, trainer, evaluation)
        run.save_if_due(step)
        started = time.perf_counter()
    model_step = run.load_best()
    trainer.save(folder / MODEL_FOLDER)
    run.write_card(
        folder / MODEL_FOLDER, "audio_tokenizer", _bases(config), step=model_step,
        evaluation_data=trainer.held_out_metadata,
    )  # fmt: skip
    summary = RunSummary(
        run.total_steps, loss, evaluation, folder / MODEL_FOLDER, folder / METRICS_NAME, model_step, run.best
    )
    return run.finish(summary, _next_command(config))


def _prepare(run: StageRun) -> StageTrainer:
    if run.config.stage == "supervised":
        return make_supervised_trainer(run)
    return make_reconstruction_trainer(run)


def _warn(run: TrainingRun, trainer: StageTrainer, line: dict[str, Any]) -> None:
    for alarm in trainer.alarms(line):
        logger.warning("update %d: %s", line["step"], alarm)
        run.write({"event": "alarm", "step": line["step"], "message": alarm})


def _bases(config: ReasoningCodecTrainingConfig) -> list[Base]:
    """What the run started from."""
    if config.codec is not None:
        return [Base("codec", config.codec)]
    assert config.encoders is not None
    encoders = config.encoders
    return [Base("frozen encoder", one.source) for one in (encoders.whisper, encoders.wavlm, encoders.music)]


def _next_command(config: ReasoningCodecTrainingConfig) -> list[str]:
    """What uses the trained codec."""
    if config.stage == "reconstruction":
        return ["audiollm", "tokenizers", str(Path(config.output_dir) / MODEL_FOLDER)]
    stage = "grpo" if config.stage == "supervised" else "reconstruction"
    start = ["--stage", stage, "--codec", config.output_dir, "--train_data", config.train_data, "--output_dir", "RUN"]
    return [*TRAIN.split(), *start]


if __name__ == "__main__":
    run_program(ReasoningCodecTrainingConfig, train, name="train_reasoning_codec")
