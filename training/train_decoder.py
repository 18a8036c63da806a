"""Training of a waveform decoder's flow model or vocoder.

accelerate launch training/train_decoder.py --config training/configs/decoder_flow.yaml --train_data … --output_dir …
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.decoder.base import DecoderRun, DecoderTrainer
from audiollm.training.decoder.clips import ClipFormat
from audiollm.training.decoder.columns import speaker_column
from audiollm.training.decoder.config import DecoderTrainingConfig
from audiollm.training.decoder.flow.trainer import FlowTrainer
from audiollm.training.decoder.parts import load_part
from audiollm.training.decoder.shards import Column, DecoderItems, prepare_items
from audiollm.training.decoder.vocoder.trainer import VocoderTrainer, vocoder_columns
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates


def train(config: DecoderTrainingConfig) -> RunSummary:
    """Runs a training from its config to the saved model; every process of a launch calls it.

    Args:
        config: the run.

    Returns:
        How it ended, the same on every process.

    Raises:
        LaunchError: if the processes are not the ones asked for.
        DataError: listing the clips that cannot be trained on.
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        FileInUseError: if another run is at work in the folder.
        RunStoppedError: after a checkpoint, if the process was asked to stop by SIGTERM or SIGUSR1.
        NonFiniteLossError: if the loss or the gradient stops being a number.
        ValueError: for other settings that cannot work.
    """
    with running(start_data_parallel(config)) as accelerator, held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: DecoderTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    trainer, decoder_run = _prepare(accelerator, config)
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=trainer.model,
        optimizer=trainer.optimizer,
        extras=trainer.extras,
        total_steps=trainer.total_steps,
        data_metadata=_data_facts(decoder_run.train_items),
        stop=stop,
    )
    has_held_out = decoder_run.eval_items is not None
    return make_updates(
        run,
        Updates(
            read=trainer.batch,
            update=trainer.update,
            epoch=trainer.epoch,
            unit="mel_frames",
            evaluate=partial(trainer.evaluate, folder=run_folder.path / "evaluation") if has_held_out else None,
            save_model=lambda step: _save_model(run, trainer, decoder_run, step),
            saves_along=True,
            next_command=_next_command(config, run_folder.path),
        ),
    )


def _save_model(run: TrainingRun, trainer: DecoderTrainer, decoder_run: DecoderRun, step: int) -> None:
    """Writes the model as it is after an update, and its card; all processes call it."""
    config, folder = decoder_run.config, run.folder.path / MODEL_FOLDER
    trainer.save(folder)
    bases = [] if config.start_from is None else [Base("waveform decoder", config.start_from)]
    if config.audio_tokenizer is not None:
        bases.append(Base("audio tokenizer whose codes it knows", config.audio_tokenizer))
    held_out = {} if decoder_run.eval_items is None else _data_facts(decoder_run.eval_items)
    run.write_card(folder, config.model, bases, step=step, evaluation_data=held_out)


def _next_command(config: DecoderTrainingConfig, folder: Path) -> list[str]:
    """What makes a decoder of the trained model and one of the other kind."""
    run = str(folder)
    flow, vocoder = (run, "VOCODER_RUN") if config.model == "flow" else ("FLOW_RUN", run)
    join = ["python", "-m", "audiollm.training.decoder.join"]  # from any folder
    return [*join, "--flow", flow, "--vocoder", vocoder, "--output_dir", "DECODER"]


def _prepare(accelerator: Accelerator, config: DecoderTrainingConfig) -> tuple[DecoderTrainer, DecoderRun]:
    """Reads or prepares the data, and makes the model."""
    weights = None
    if config.start_from is not None:
        sizes, weights = load_part(config.start_from, config.model)
        config = dataclasses.replace(config, decoder=sizes)
    audio_tokenizer = _load_audio_tokenizer(config)
    columns = _columns(config)
    train_items = _prepare_items(accelerator, config, config.train_data, audio_tokenizer, columns)
    eval_items = None
    if config.eval_data is not None:
        eval_items = _prepare_items(accelerator, config, config.eval_data, audio_tokenizer, columns)
    codebook = None if audio_tokenizer is None else audio_tokenizer.codebook.points()
    run = DecoderRun(accelerator, config, train_items, eval_items, codebook)
    trainer: DecoderTrainer = FlowTrainer(run, weights) if config.model == "flow" else VocoderTrainer(run, weights)
    return trainer, run


def _load_audio_tokenizer(config: DecoderTrainingConfig) -> UniAudioTokenizer | None:
    """Loads the tokenizer that the clips are encoded with, and checks that the decoder is made for it."""
    if config.audio_tokenizer is None:
        return None
    audio_tokenizer = UniAudioTokenizer.from_pretrained(config.audio_tokenizer, encoder_only=True).eval()
    flow = config.decoder.flow
    for name in ("codebook_size", "frame_rate"):
        theirs, ours = getattr(audio_tokenizer, name), getattr(flow, name)
        if theirs != ours:
            raise ValueError(
                f"{config.audio_tokenizer} has {name}={theirs}, but decoder.flow.{name}={ours}: make them agree"
            )
    return audio_tokenizer


def _columns(config: DecoderTrainingConfig) -> list[Column]:
    """What the clips need beside codes, waveform and mel."""
    if config.model == "flow":
        if config.flow.speaker_encoder is None:
            return []
        return [speaker_column(config.flow.speaker_encoder, config.decoder)]
    return vocoder_columns(config)


def _prepare_items(
    accelerator: Accelerator,
    config: DecoderTrainingConfig,
    source: str,
    audio_tokenizer: UniAudioTokenizer | None,
    columns: list[Column],
) -> DecoderItems:
    flow = config.decoder.flow
    return prepare_items(
        source,
        ClipFormat(config.decoder.mel, flow.frame_rate, flow.codebook_size, config.mono, config.min_seconds),
        config.cache_dir or Path(config.output_dir) / "prepared",
        audio_tokenizer=audio_tokenizer,
        columns=columns,
        on_bad=config.on_bad,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        wait_for_everyone=accelerator.wait_for_everyone,
        progress=accelerator.is_main_process,
    )


def _data_facts(items: DecoderItems) -> dict[str, Any]:
    return {"prepared": items.fingerprint, "num_clips": len(items)}


if __name__ == "__main__":
    run_program(DecoderTrainingConfig, train, name="train_decoder")
