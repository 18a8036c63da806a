"""Training of a ReasoningCodec: reasoning codes that a text LLM understands, then codes and decoder that give sound.

accelerate launch training/train_reasoning_codec.py --config training/configs/reasoning_codec_supervised.yaml --llm … …
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from accelerate import Accelerator

from audiollm.mini import model_or_mini
from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates
from audiollm.training.reasoning_codec.config import ReasoningCodecTrainingConfig
from audiollm.training.reasoning_codec.grpo_stage import train_by_rewards
from audiollm.training.reasoning_codec.opening import open_codec
from audiollm.training.reasoning_codec.reconstruction.stage import make_reconstruction_trainer
from audiollm.training.reasoning_codec.stage_trainer import StageRun, StageTrainer
from audiollm.training.reasoning_codec.supervised_stage import make_supervised_trainer

EVALUATION = "evaluation"


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
    return make_updates(
        run,
        Updates(
            read=trainer.batch,
            update=trainer.update,
            epoch=trainer.epoch,
            unit="audio_seconds",
            evaluate=None
            if config.eval_data is None
            else partial(trainer.evaluate, folder=run_folder.path / EVALUATION),
            alarms=trainer.alarms,
            save_model=lambda step: _save_model(run, trainer, config, step),
            next_command=_next_command(config),
        ),
    )


def _prepare(run: StageRun) -> StageTrainer:
    if run.config.stage == "supervised":
        return make_supervised_trainer(run)
    return make_reconstruction_trainer(run)


def _save_model(run: TrainingRun, trainer: StageTrainer, config: ReasoningCodecTrainingConfig, step: int) -> None:
    """Writes the codec, what else the stage leaves, and a card; all processes call it."""
    folder = run.folder.path / MODEL_FOLDER
    trainer.save(folder)
    held_out = trainer.held_out_metadata
    run.write_card(folder, "audio_tokenizer", _bases(config), step=step, evaluation_data=held_out)


def _bases(config: ReasoningCodecTrainingConfig) -> list[Base]:
    """What the run started from."""
    if config.codec is not None:
        sqcodec = config.reconstruction.sqcodec
        return [Base("codec", config.codec), *([] if sqcodec is None else [Base("SQCodec", sqcodec)])]
    assert config.encoders is not None
    encoders = config.encoders
    assert config.llm is not None
    heard = [Base("frozen encoder", one.source) for one in (encoders.whisper, encoders.wavlm, encoders.music)]
    return [*heard, Base("text LLM", config.llm, Path(model_or_mini(config.llm)))]


def _next_command(config: ReasoningCodecTrainingConfig) -> list[str]:
    """What uses the trained codec."""
    if config.stage == "reconstruction":
        return ["audiollm", "tokenizers", str(Path(config.output_dir) / MODEL_FOLDER)]
    stage = "grpo" if config.stage == "supervised" else "reconstruction"
    data = ["--train_data", config.train_data, "--eval_data", config.eval_data or "HELD_OUT"]
    start = ["audiollm", "train-reasoning-codec", "--config", f"reasoning_codec_{stage}", "--codec", config.output_dir]
    return [*start, *data, "--output_dir", "RUN"]


if __name__ == "__main__":
    run_program(ReasoningCodecTrainingConfig, train, name="train_reasoning_codec")
