"""Training of an audio tokenizer that works on waveforms, both ways: a small WavTokenizer, without discriminators.

accelerate launch training/train_codec.py --config training/configs/codec_small.yaml --train_data … --output_dir …
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.program import run_program
from audiollm.training.codec.config import CodecTrainingConfig
from audiollm.training.codec.trainer import CodecTrainer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.prefetching import Prefetched
from audiollm.training.loop.record import METRICS_NAME
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.schedule import is_due
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.recordings.checked import Recordings

logger = get_logger(__name__)


def train(config: CodecTrainingConfig) -> RunSummary:
    """Runs a training from its config to the saved tokenizer; every process of a launch calls it.

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
        NonFiniteLossError: if the loss or the gradient stops being a number.
        ValueError: for other settings that cannot work.
    """
    with running(start_data_parallel(config)) as accelerator, held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: CodecTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    clips = _read(accelerator, config, config.train_data)
    eval_clips = None if config.eval_data is None else _read(accelerator, config, config.eval_data)
    trainer = CodecTrainer(accelerator, config, clips, eval_clips)
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras={"quantizer": trainer.tokenizer.quantizer},
        total_steps=trainer.total_steps,
        data_metadata=clips.facts,
        stop=stop,
        processes_may_change=True,
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
        if eval_clips is not None and is_due(config.eval_every, step, run.total_steps):
            evaluation = {"event": "eval", "step": step, **trainer.evaluate(step)}
            run.write_evaluation(evaluation)
            _warn_of_collapse(run, config, evaluation)
        run.save_if_due(step)
        started = time.perf_counter()
    model_step = run.load_best()
    _save_model(run, trainer, config, {} if eval_clips is None else eval_clips.facts, model_step)
    summary = RunSummary(
        run.total_steps, loss, evaluation, folder / MODEL_FOLDER, folder / METRICS_NAME, model_step, run.best
    )
    return run.finish(summary, ["audiollm", "tokenize", "CLIPS", "CODES", "--audio_tokenizer", str(folder)])


def _read(accelerator: Accelerator, config: CodecTrainingConfig, source: str) -> Recordings:
    return Recordings(
        source,
        sample_rate=config.tokenizer.sample_rate,
        mono=config.mono,
        min_seconds=config.min_seconds,
        on_bad=config.on_bad,
        cache_bytes=config.cache_megabytes * 2**20,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        gather=gather_object,
        progress=accelerator.is_main_process,
    )


def _warn_of_collapse(run: TrainingRun, config: CodecTrainingConfig, line: dict[str, Any]) -> None:
    """Says when most frames have one of a few codes."""
    for perplexity in line.get("perplexity", ()):
        attainable = min(config.tokenizer.codebook_size, line["num_frames"])
        if perplexity >= config.collapse_alarm * attainable:
            continue
        alarm = (
            f"the codes of {line['num_frames']} held-out frames are as varied as {perplexity:.1f} equally frequent "
            f"ones, of {attainable} that they could be: the codebook is collapsing; lower learning_rate or "
            "commitment_weight, raise segments_per_update, or use a smaller tokenizer.codebook_size"
        )
        logger.warning("update %d: %s", line["step"], alarm)
        run.write({"event": "alarm", "step": line["step"], "message": alarm})


def _save_model(
    run: TrainingRun, trainer: CodecTrainer, config: CodecTrainingConfig, evaluation_data: dict[str, Any], step: int
) -> None:
    """Writes the tokenizer and its card; all processes call it."""
    folder: Path = run.folder.path / MODEL_FOLDER
    if run.accelerator.is_main_process:
        trainer.tokenizer.save_pretrained(folder)
    run.accelerator.wait_for_everyone()
    run.write_card(folder, "audio_tokenizer", [], step=step, evaluation_data=evaluation_data)


if __name__ == "__main__":
    run_program(CodecTrainingConfig, train, name="train_codec")
