"""Training of an audio tokenizer: a text decoder must write what was heard, first from features, then from codes.

accelerate launch training/train_tokenizer.py --config training/configs/tokenizer_stage1.yaml --train_data … …
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object

from audiollm.data.files.atomic import atomic_folder
from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base, Kind
from audiollm.tokenizer.supervision.model import SupervisedModel, SupervisedTokenizer
from audiollm.training.audio_tokenizer.config import TokenizerTrainingConfig, passes_per_update
from audiollm.training.audio_tokenizer.evaluation import evaluate_tokenizer
from audiollm.training.audio_tokenizer.monitor import TokenizerMonitor
from audiollm.training.audio_tokenizer.plots import draw_run
from audiollm.training.audio_tokenizer.records import TokenizerRecords
from audiollm.training.audio_tokenizer.start import (
    initialise_codebook,
    load_start,
    make_ready,
    parts_of,
    settings_of,
    warm_start_on,
)
from audiollm.training.audio_tokenizer.trainer import TokenizerObjective, TokenizerUpdater, UpdateReader
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_accumulating
from audiollm.training.loop.optimizer import make_optimizer
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates

logger = get_logger(__name__)


def train(config: TokenizerTrainingConfig) -> RunSummary:
    """Runs a training from its config to the saved model; every process of a launch calls it.

    Args:
        config: the run.

    Returns:
        How it ended.

    Raises:
        LaunchError: if the processes are not the ones asked for.
        DataError: listing the records that cannot be trained on.
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        FileInUseError: if another run is at work in the folder.
        RunStoppedError: after a checkpoint, if the process was asked to stop by SIGTERM or SIGUSR1.
        NonFiniteLossError: if the loss or the gradient stops being a number.
        ValueError: for other settings that cannot work.
    """
    accelerator = start_accumulating(
        config,
        lambda num_processes: passes_per_update(config, num_processes),
        micro_batch_size=config.micro_batch_size,
        mixed_precision="no",  # the objective chooses
        max_zero_stage=2,
        broadcast_buffers=False,  # the codebook's agree by themselves
    )
    with running(accelerator), held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: TokenizerTrainingConfig, stop: StopRequest) -> RunSummary:
    run_folder = open_run_folder(accelerator, config)
    folder = run_folder.path
    start = load_start(config)
    model = start.model.to(accelerator.device)
    records, eval_records = _read_data(accelerator, config, model)
    if config.warm_start and start.is_fresh:  # on resuming too: checkpoints lack frozen weights
        warm_start_on(model, records, config.seed)
    seen = set(records.token_ids) | set(eval_records.token_ids if eval_records is not None else ())
    make_ready(model, config, seen)
    has_entries = isinstance(model, SupervisedTokenizer)
    starts_anew = config.initialise_codebook != "keep" and run_folder.checkpoint is None
    if isinstance(model, SupervisedTokenizer) and config.quantized and starts_anew:
        initialise_codebook(accelerator, model, records, config)
    objective = TokenizerObjective(model, config.mixed_precision)
    prepared, optimizer = accelerator.prepare(
        objective, make_optimizer(model, config, accelerator.device, parts_of(model))
    )
    prepared.train()
    codebook = model.tokenizer.codebook
    monitor = TokenizerMonitor(
        codebook.codebook_size,
        restart_interval=codebook.restart_interval if config.quantized and has_entries else None,
        ema_decay=codebook.ema_decay if has_entries else None,
        is_voted=not has_entries,
    )
    read = UpdateReader(accelerator, config, records, model)
    run = start_run(
        accelerator,
        config,
        run_folder,
        model=prepared,
        optimizer=optimizer,
        extras={"codebook": codebook, "monitor": monitor} if config.quantized else {"monitor": monitor},
        total_steps=read.total_steps,
        data_metadata=_data_metadata(records, model),
        run_metadata={"audio_tokenizer": dataclasses.asdict(settings_of(model))},
        stop=stop,
    )
    updater = TokenizerUpdater(accelerator, config, prepared, model, optimizer, run.total_steps)

    def evaluate(step: int) -> dict[str, Any]:
        assert eval_records is not None
        with objective.autocast():
            return _evaluate(accelerator, config, model, eval_records, step)

    def alarms(line: dict[str, Any]) -> list[str]:
        if line["event"] != "train":
            return []
        # A vote's loss falls below zero as its codes become even, so only the text's has a scale.
        return monitor.update(line if has_entries else line | {"loss": line["text_loss"]})

    def save_model(step: int) -> None:
        _save_model(accelerator, run, model)
        _write_card(run, config, {} if eval_records is None else _data_metadata(eval_records, model), step)

    return make_updates(
        run,
        Updates(
            read=read,
            update=updater.update,
            epoch=read.epoch,
            unit="audio_seconds",
            evaluate=None if eval_records is None else evaluate,
            alarms=alarms,
            draw=lambda: draw_run(folder),
            save_model=save_model,
            next_command=_next_command(config, folder),
        ),
    )


def _read_data(
    accelerator: Accelerator, config: TokenizerTrainingConfig, model: SupervisedModel
) -> tuple[TokenizerRecords, TokenizerRecords | None]:
    def read(source: str, role: str) -> TokenizerRecords:
        assert model.text is not None
        records = TokenizerRecords(
            source,
            model.text,
            tasks=dataclasses.asdict(config.tasks),
            max_seconds=config.max_seconds,
            max_text_tokens=config.max_text_tokens,
            on_bad=config.on_bad,
            mono=config.mono,
            cache_bytes=config.cache_megabytes * 2**20,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
            gather=gather_object,
            progress=accelerator.is_main_process,
        )
        if accelerator.is_main_process:
            records.write_skipped(Path(config.output_dir), role)
        return records

    train_records = read(config.train_data, "train")
    return train_records, None if config.eval_data is None else read(config.eval_data, "eval")


def _data_metadata(records: TokenizerRecords, model: SupervisedModel) -> dict[str, Any]:
    metadata = {
        "records": records.fingerprint,
        "num_clips": len(records),
        "num_skipped": len(records.skipped),
        "hours": round(records.seconds / 3600, 4),
    }
    output_ids = model.decoder.output_ids  # they decide the shape of the trained weights
    if output_ids is not None:
        metadata |= {
            "num_output_tokens": len(output_ids),
            "output_tokens": hashlib.sha256(json.dumps(output_ids).encode()).hexdigest(),
        }
    return metadata


def _evaluate(
    accelerator: Accelerator,
    config: TokenizerTrainingConfig,
    model: SupervisedModel,
    records: TokenizerRecords,
    step: int,
) -> dict[str, Any]:
    assert model.text is not None
    return evaluate_tokenizer(
        model,
        records,
        model.text,
        step=step,
        folder=Path(config.output_dir) / "evaluation",
        num_clips=config.eval_clips,
        num_samples=config.eval_samples,
        batch_size=config.micro_batch_size,
        max_new_tokens=config.eval_max_new_tokens,
        pad_to_seconds=config.pad_to_seconds,
        seed=config.seed,
        accelerator=accelerator,
    )


def _save_model(accelerator: Accelerator, run: TrainingRun, model: SupervisedModel) -> None:
    """Writes the trained model; all processes hold it whole, one writes."""
    if accelerator.is_main_process:
        with atomic_folder(run.folder.path / MODEL_FOLDER) as folder:
            model.save_pretrained(folder)
    accelerator.wait_for_everyone()


def _write_card(run: TrainingRun, config: TokenizerTrainingConfig, held_out: dict[str, Any], step: int) -> None:
    model = run.folder.path / MODEL_FOLDER
    bases = [Base("Whisper model or training checkpoint", config.start_from)]
    kind: Kind = "audio_tokenizer" if config.quantized else "feature_tokenizer"
    run.write_card(model, kind, bases, step=step, evaluation_data=held_out)


def _next_command(config: TokenizerTrainingConfig, folder: Path) -> list[str]:
    """What uses the trained model next: a tokenizer goes to work, a model without codes learns to have some."""
    if config.quantized:
        return ["audiollm", "export-tokenizer", str(folder), "TOKENIZER"]
    second_stage = ["audiollm", "train-tokenizer", "--config", "tokenizer_stage2"]
    start = ["--start_from", str(folder / MODEL_FOLDER)]
    return [*second_stage, *start, "--train_data", config.train_data, "--output_dir", "RUN"]


if __name__ == "__main__":
    run_program(TokenizerTrainingConfig, train, name="train_tokenizer")
