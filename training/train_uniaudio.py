"""Training of a multi-stream LM (UniAudio 2.0) around a text LLM, stage by stage.

accelerate launch training/train_uniaudio.py --config training/configs/uniaudio_understanding_warmup.yaml --model … …
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import nn

from audiollm.data.conversation.loading import load_conversations
from audiollm.mini import audio_tokenizer_or_mini, model_or_mini
from audiollm.mixture.config import is_mixture
from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.audio_llm.config import accumulation_steps, length_limit
from audiollm.training.audio_llm.mixture_data import MixtureData
from audiollm.training.audio_llm.objective import num_chunks
from audiollm.training.audio_llm.passes import (
    PassCounts,
    as_many_as_others,
    loss_divisor,
    passes_of_update,
    update_on_records,
)
from audiollm.training.audio_llm.records import EncodedRecord, EncodedRecords
from audiollm.training.audio_llm.text_probe import HeldOutTexts
from audiollm.training.audio_llm.training_data import ListedData, TrainingData, check_records
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.launch import start_accumulating
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import learning_rate_figures, make_optimizer, set_learning_rates
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates
from audiollm.training.uniaudio.config import UniAudioTrainingConfig
from audiollm.training.uniaudio.evaluation import held_out_figures, probe_text
from audiollm.training.uniaudio.model import StartingPoint, load_starting_point, save_trained_model
from audiollm.training.uniaudio.objective import LossWeights, StreamLosses
from audiollm.training.uniaudio.passes import StreamCounts, inputs_of, some_without_condition
from audiollm.training.uniaudio.stages import ORDER
from audiollm.uniaudio import UniAudio, UniAudioLMConfig

logger = get_logger(__name__)


@dataclass
class _Parts:
    """The parts of a run, as every function below needs them."""

    config: UniAudioTrainingConfig
    accelerator: Accelerator
    model: nn.Module  # StreamLosses, prepared
    optimizer: Any
    uniaudio: UniAudio
    data: TrainingData
    eval_records: EncodedRecords | None
    usable_eval: list[int]
    eval_texts: HeldOutTexts | None

    @property
    def lm_config(self) -> UniAudioLMConfig:
        """Of the LM: streams, marks and weights of losses."""
        return self.uniaudio.model.config

    def micro_batches(self, step: int) -> list[list[EncodedRecord]] | None:
        """See `passes_of_update`."""
        return passes_of_update(self.data, self.accelerator, self.config, step)


def train(config: UniAudioTrainingConfig) -> RunSummary:
    """Runs a stage from its config to the saved model; every process of a launch calls it.

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
        NonFiniteLossError: if the loss or the gradient stops being a number.
        ValueError: if it is not this stage's turn, and for other settings that cannot work.
    """
    accelerator = start_accumulating(
        config,
        lambda num_processes: accumulation_steps(config, num_processes),
        micro_batch_size=config.micro_batch_size,
        mixed_precision=config.mixed_precision,
        max_zero_stage=2,  # parts of the model are called by themselves, and merged where they are
    )
    with running(accelerator), held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: UniAudioTrainingConfig, stop: StopRequest) -> RunSummary:
    folder = open_run_folder(accelerator, config)
    start = load_starting_point(accelerator, config)
    parts = _prepare(accelerator, config, start)
    run = start_run(
        accelerator,
        config,
        folder,
        model=parts.model,
        optimizer=parts.optimizer,
        total_steps=parts.data.total_steps,
        data_metadata=parts.data.metadata,
        run_metadata={
            "num_records": parts.data.num_records,
            "trained_parts": [*config.parts, *(["adapters of the text LLM"] if config.lora else [])],
            "stages_before": parts.lm_config.trained_stages,
        },
        extras=parts.data.extras,
        stop=stop,
        processes_may_change=True,
    )
    if parts.eval_texts is not None and folder.checkpoint is None:
        run.write({"event": "start", "step": 0, **_probe_text(parts, parts.eval_texts)})

    def save_model(step: int) -> None:
        save_trained_model(accelerator, parts.model, start, config)
        _write_card(run, parts, step)

    return make_updates(
        run,
        Updates(
            read=parts.micro_batches,
            update=lambda step, passes: update_on_records(parts.data, config, step, passes, partial(_update, parts)),
            epoch=parts.data.epoch,
            unit="tokens",
            evaluate=None if parts.eval_records is None else partial(_evaluate, parts),
            save_model=save_model,
            next_command=_next_command(config),
        ),
    )


def _next_command(config: UniAudioTrainingConfig) -> list[str]:
    number = ORDER.index(config.stage) + 1
    if number == len(ORDER):
        return ["audiollm", "bench", "mmau", "--model", config.output_dir, "--data", "MMAU"]
    return ["audiollm", "train-uniaudio", "--config", f"uniaudio_{ORDER[number]}", "--model", config.output_dir]


def _prepare(accelerator: Accelerator, config: UniAudioTrainingConfig, start: StartingPoint) -> _Parts:
    """Checks the data, then hands model and optimizer to accelerate."""
    uniaudio = start.uniaudio
    processor = uniaudio.processor
    context_length = uniaudio.model.config.text_config.max_position_embeddings
    if accelerator.is_main_process:
        _tell_room(uniaudio, config.max_length or context_length)

    def read(source: str, limit: str, max_length: int) -> EncodedRecords:
        return EncodedRecords(
            load_conversations(source, codebook_size=processor.vocabulary.codebook_size, for_training=True),
            processor,
            max_length=max_length,
            limit=limit,
            vocabulary_size=processor.vocabulary_size,
            cache_tokens=config.cache_tokens,
        )

    limit, max_length = length_limit(config, context_length)
    eval_records: EncodedRecords | None = None
    if config.eval_data is not None:  # opened first: to encode recordings to be trained on may take hours
        eval_records = read(config.eval_data, "max_length", config.max_length or context_length)
    data: TrainingData
    if is_mixture(config.train_data):
        data = MixtureData(
            accelerator,
            config,
            processor,
            vocabulary_size=processor.vocabulary_size,
            max_length=max_length,
            limit=limit,
        )
    else:
        data = ListedData(accelerator, config, read(config.train_data, limit, max_length))
    usable_eval: list[int] = []
    if eval_records is not None:
        usable_eval = check_records(
            accelerator, eval_records, "eval", on_too_long=config.on_too_long, output_dir=config.output_dir,
            check_data=config.check_data,
        ).usable  # fmt: skip
    eval_texts = None
    if config.eval_text is not None:
        eval_texts = HeldOutTexts(config.eval_text, processor.tokenizer, config.max_length or context_length)
    objective = StreamLosses(uniaudio.model)
    model, optimizer = accelerator.prepare(objective, make_optimizer(objective, config, accelerator.device))
    model.train()
    return _Parts(
        config=config,
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        uniaudio=uniaudio,
        data=data,
        eval_records=eval_records,
        usable_eval=usable_eval,
        eval_texts=eval_texts,
    )


def _tell_room(uniaudio: UniAudio, max_length: int) -> None:
    audio_tokenizer = uniaudio.processor.look_at_audio_tokenizer()
    if audio_tokenizer is not None:
        num_streams = uniaudio.model.config.num_audio_streams
        steps = audio_tokenizer.frame_rate / num_streams
        logger.info(
            "a second of audio is %g steps of %d streams: a record of %d steps holds %.1f s at most",
            *(steps, num_streams, max_length, max_length / steps),
        )


def _update(parts: _Parts, step: int, micro_batches: list[list[EncodedRecord]]) -> dict[str, Any]:
    """Makes one update; returns its figures."""
    accelerator, config, lm_config = parts.accelerator, parts.config, parts.lm_config
    learning_rates = set_learning_rates(parts.optimizer, step, parts.data.total_steps, config)
    micro_batches = [
        some_without_condition(batch, lm_config, share=config.unconditional_share, key=f"{config.seed} {step}")
        for batch in as_many_as_others(micro_batches, accelerator, config)
    ]
    # Known before the first pass, as its gradients are already divided by it.
    counts = PassCounts.of(micro_batches, accelerator, config)
    if counts.target_tokens == 0:
        raise DataError(f"update {step}: none of its records can be used; skipped_train.jsonl says why")
    streams = StreamCounts.of(micro_batches, accelerator, lm_config)
    weights = LossWeights.of(streams, lm_config, accelerator.device)
    # Every text token and every frame of the update weighs the same, wherever it is. Undone here is that accelerate (or
    # DeepSpeed) divides by the accumulated batches, and that gradients are averaged over the processes.
    scale = loss_divisor(accelerator, config, len(micro_batches)) * accelerator.num_processes
    sums: list[torch.Tensor] = []
    by_pass: list[tuple[list[str], torch.Tensor]] = []  # ids of its records, loss
    for batch, num_targets in zip(micro_batches, streams.most_text_targets, strict=True):
        with accelerator.accumulate(parts.model):
            inputs = inputs_of(batch, lm_config, packed=config.packing == "pack", device=accelerator.device)
            chunks = num_chunks(num_targets, lm_config.text_config.vocab_size)
            measured = parts.model(**inputs, num_chunks=chunks)
            loss_of_pass = weights.loss(measured)
            sums.append(measured.detach())
            by_pass.append(([record.record_id for record in batch], loss_of_pass.detach()))
            if accelerator.sync_gradients:
                # Before the last backward pass, in which DeepSpeed already makes the update.
                total = accelerator.reduce(torch.stack(sums).sum(0), "sum")
                loss = float(weights.loss(total))
                stop_unless_finite(accelerator, config, step, "loss", loss, by_pass, unit="records")
            accelerator.backward(loss_of_pass * scale)
            if accelerator.sync_gradients:
                # max_norm=inf measures without clipping; DeepSpeed clips by itself and returns the norm.
                norm = accelerator.clip_grad_norm_(parts.model.parameters(), config.max_grad_norm or math.inf)
                grad_norm = float(norm)
                stop_unless_finite(accelerator, config, step, "gradient norm", grad_norm, by_pass, unit="records")
            parts.optimizer.step()
            parts.optimizer.zero_grad()
    return {
        "loss": loss,
        **weights.figures(total),
        **learning_rate_figures(learning_rates),
        "grad_norm": grad_norm,
        "target_tokens": counts.target_tokens,
        "tokens": counts.tokens,
        **counts.shares(config),
    }


def _evaluate(parts: _Parts, step: int) -> dict[str, Any]:
    """Losses on held-out records and texts; returns their figures."""
    assert parts.eval_records is not None
    figures = held_out_figures(
        parts.accelerator,
        parts.model,
        parts.lm_config,
        parts.eval_records,
        parts.usable_eval,
        batch_size=parts.config.micro_batch_size,
    )
    return figures if parts.eval_texts is None else figures | _probe_text(parts, parts.eval_texts)


def _probe_text(parts: _Parts, texts: HeldOutTexts) -> dict[str, Any]:
    """Perplexity on held-out texts, as a part of a line of the metrics."""
    return probe_text(parts.accelerator, parts.model, parts.lm_config, texts, batch_size=parts.config.micro_batch_size)


def _write_card(run: TrainingRun, parts: _Parts, step: int) -> None:
    config = parts.config
    extends = config.audio_tokenizer is not None
    bases = [Base("text LLM" if extends else "multi-stream LM", config.model, Path(model_or_mini(config.model)))]
    if config.audio_tokenizer is not None:
        place = Path(audio_tokenizer_or_mini(config.audio_tokenizer))
        bases.append(Base("audio tokenizer", config.audio_tokenizer, place))
    held_out = {}
    if parts.eval_records is not None:
        held_out = {"records": parts.eval_records.conversations.fingerprint, "num_records": len(parts.usable_eval)}
    run.write_card(run.folder.path / MODEL_FOLDER, "multi_stream_lm", bases, step=step, evaluation_data=held_out)


if __name__ == "__main__":
    run_program(UniAudioTrainingConfig, train, name="train_uniaudio")
