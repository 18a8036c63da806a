"""Training of an audio tokenizer that works on waveforms, both ways: a WavTokenizer, or an SQCodec.

accelerate launch training/train_codec.py --config training/configs/codec_small.yaml --train_data … --output_dir …
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.training.codec.config import CodecTrainingConfig
from audiollm.training.codec.trainer import CodecTrainer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates
from audiollm.training.recordings.checked import read_recordings


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
    read = partial(read_recordings, accelerator, config, config.tokenizer.sample_rate)
    clips = read(config.train_data)
    eval_clips = None if config.eval_data is None else read(config.eval_data)
    trainer = CodecTrainer(accelerator, config, clips, eval_clips)
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras=trainer.extras,
        total_steps=trainer.total_steps,
        data_metadata=clips.facts,
        stop=stop,
        processes_may_change=True,
    )
    return make_updates(
        run,
        Updates(
            read=trainer.batch,
            update=trainer.update,
            epoch=trainer.epoch,
            unit="audio_seconds",
            evaluate=None if eval_clips is None else trainer.evaluate,
            alarms=trainer.alarms,
            save_model=lambda step: _save_model(run, trainer, {} if eval_clips is None else eval_clips.facts, step),
            next_command=["audiollm", "tokenize", "CLIPS", "CODES", "--audio_tokenizer", str(run_folder.path)],
        ),
    )


def _save_model(run: TrainingRun, trainer: CodecTrainer, evaluation_data: dict[str, Any], step: int) -> None:
    """Writes the tokenizer and its card; all processes call it."""
    folder: Path = run.folder.path / MODEL_FOLDER
    if run.accelerator.is_main_process:
        trainer.tokenizer.save_pretrained(folder)
    run.accelerator.wait_for_everyone()
    run.write_card(folder, "audio_tokenizer", [], step=step, evaluation_data=evaluation_data)


if __name__ == "__main__":
    run_program(CodecTrainingConfig, train, name="train_codec")
