"""Supervised fine-tuning of an Audio-LLM on conversations.

accelerate launch training/sft.py --config training/configs/sft.yaml --model … --train_data … --output_dir …
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch import nn

from audiollm.data.conversation.forms import spoken_forms
from audiollm.data.conversation.loading import load_conversations
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.sampling import spread
from audiollm.mini import audio_tokenizer_or_mini, model_or_mini
from audiollm.mixture.config import is_mixture
from audiollm.modeling import AudioLLM
from audiollm.processing.audio_rate import AudioRate
from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.audio_llm.config import (
    SFTConfig,
    accumulation_steps,
    length_limit,
)
from audiollm.training.audio_llm.evaluation import generate_samples, held_out_loss, sample_lines, score_samples
from audiollm.training.audio_llm.guards import warn_of_another_form, warn_of_answers_unheard
from audiollm.training.audio_llm.listening import Listener
from audiollm.training.audio_llm.mixture_data import MixtureData
from audiollm.training.audio_llm.model import (
    ADAPTER_FOLDER,
    EXTENDED_FOLDER,
    StartingPoint,
    load_starting_point,
    save_trained_model,
)
from audiollm.training.audio_llm.objective import TargetTokenLoss, num_chunks
from audiollm.training.audio_llm.packed_attention import segment_attention
from audiollm.training.audio_llm.passes import (
    PassCounts,
    as_many_as_others,
    inputs_of,
    loss_divisor,
    passes_of_update,
    update_on_records,
)
from audiollm.training.audio_llm.records import EncodedRecord, EncodedRecords
from audiollm.training.audio_llm.text_probe import HeldOutTexts, perplexity_figures
from audiollm.training.audio_llm.training_data import ListedData, TrainingData, check_records
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.errors import DataError
from audiollm.training.loop.launch import splits_weights, start_accumulating, whole_weights
from audiollm.training.loop.non_finite import stop_unless_finite
from audiollm.training.loop.optimizer import learning_rate_figures, make_optimizer, set_learning_rates
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, open_run_folder, running, start_run
from audiollm.training.loop.stopping import StopRequest, stop_requests
from audiollm.training.loop.updates import Updates, make_updates

logger = get_logger(__name__)

_LOOKED_AT = 500  # records, for what answers in sound look like


@dataclass
class _Parts:
    """The parts of a run, as every function below needs them."""

    config: SFTConfig
    accelerator: Accelerator
    model: nn.Module  # TargetTokenLoss, prepared
    optimizer: Any
    audio_llm: AudioLLM
    data: TrainingData
    eval_records: EncodedRecords | None
    usable_eval: list[int]
    eval_texts: HeldOutTexts | None
    listener: Listener | None

    def __post_init__(self) -> None:
        self.pad_token_id: int = self.audio_llm.processor.pad_token_id
        self.vocabulary_size: int = self.audio_llm.model.config.vocab_size

    def micro_batches(self, step: int) -> list[list[EncodedRecord]] | None:
        """See `passes_of_update`."""
        return passes_of_update(self.data, self.accelerator, self.config, step)


def train(config: SFTConfig) -> RunSummary:
    """Runs a fine-tuning from its config to the saved model; every process of a launch calls it.

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
        ValueError: for other settings that cannot work.
    """
    accelerator = start_accumulating(
        config,
        lambda num_processes: accumulation_steps(config, num_processes),
        micro_batch_size=config.micro_batch_size,
        mixed_precision=config.mixed_precision,
        allows_fsdp=True,
    )
    with running(accelerator), held_folder(accelerator, config), stop_requests() as stop:
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: SFTConfig, stop: StopRequest) -> RunSummary:
    folder = open_run_folder(accelerator, config)
    with whole_weights(accelerator):
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
            "cross_entropy": accelerator.unwrap_model(parts.model).cross_entropy,
        },
        extras=parts.data.extras,
        stop=stop,
        processes_may_change=True,
    )
    if parts.eval_texts is not None and folder.checkpoint is None:
        run.write({"event": "start", "step": 0, **_probe_text(parts, parts.eval_texts)})

    def update(step: int, micro_batches: list[list[EncodedRecord]] | None) -> dict[str, Any]:
        # Kept inside each record of a packed row, until gradients are made: recomputed activations attend again.
        with segment_attention(start.audio_llm.model) if config.packing == "pack" else nullcontext():
            return update_on_records(parts.data, config, step, micro_batches, partial(_update, parts))

    def save_model(step: int) -> None:
        with whole_weights(accelerator):
            save_trained_model(accelerator, parts.model, start, config)
        _write_cards(run, parts, step)

    return make_updates(
        run,
        Updates(
            read=parts.micro_batches,
            update=update,
            epoch=parts.data.epoch,
            unit="tokens",
            evaluate=None if parts.eval_records is None else partial(_evaluate, parts),
            save_model=save_model,
            next_command=["audiollm", "transcribe", "RECORDING", "--model", str(folder.path / MODEL_FOLDER)],
        ),
    )


def _write_cards(run: TrainingRun, parts: _Parts, step: int) -> None:
    """The cards of what `save_trained_model` wrote."""
    config, folder = parts.config, Path(parts.config.output_dir)
    extends = config.audio_tokenizer is not None
    bases = [Base("text LLM" if extends else "Audio-LLM", config.model, Path(model_or_mini(config.model)))]
    if config.audio_tokenizer is not None:
        place = Path(audio_tokenizer_or_mini(config.audio_tokenizer))
        bases.append(Base("audio tokenizer", config.audio_tokenizer, place))
    held_out = {}
    if parts.eval_records is not None:
        held_out = {"records": parts.eval_records.conversations.fingerprint, "num_records": len(parts.usable_eval)}
    run.write_card(folder / MODEL_FOLDER, "audio_llm", bases, step=step, evaluation_data=held_out)
    if config.lora is not None:
        if extends:  # what the adapter is loaded onto
            bases.insert(0, Base("Audio-LLM, made of the other two", str(folder / EXTENDED_FOLDER)))
        run.write_card(folder / ADAPTER_FOLDER, "adapter", bases, step=step, evaluation_data=held_out)


def _look_at_audio(accelerator: Accelerator, audio_llm: AudioLLM, limit: str, max_length: int) -> str | None:
    """Tells what a second of audio costs; returns why codes cannot become sound, or None where they can.

    Raises:
        ValueError: if a record could hold no audio at all.
    """
    # One process looks, for all would read the same weights; the others meet what is wrong where they encode.
    audio_tokenizer = audio_llm.processor.look_at_audio_tokenizer() if accelerator.is_main_process else None
    if audio_tokenizer is None:
        return None
    rate = AudioRate.of(audio_tokenizer)
    logger.info("%s", rate.told(limit, max_length))
    rate.check_room(limit, max_length)
    return None if audio_tokenizer.can_decode else audio_tokenizer.why_no_sound


def _check_form(records: EncodedRecords, audio_llm: AudioLLM, why_no_sound: str | None) -> None:
    conversations = records.conversations
    looked_at = (conversations.check(number)[0] for number in spread(range(len(conversations)), _LOOKED_AT))
    # Broken records are left to the check that names all of them.
    readable = (one for one in looked_at if one is not None)
    forms = spoken_forms(message for one in readable for message in one.messages)
    warn_of_another_form(records.name, forms, audio_llm.speaks_in_turns)
    warn_of_answers_unheard(records.name, forms, why_no_sound)


def _prepare(accelerator: Accelerator, config: SFTConfig, start: StartingPoint) -> _Parts:
    """Checks the data, then hands model and optimizer to accelerate."""
    audio_llm = start.audio_llm
    context_length = audio_llm.model.config.max_position_embeddings

    def read(source: str, limit: str, max_length: int) -> EncodedRecords:
        return EncodedRecords(
            load_conversations(source, codebook_size=audio_llm.vocabulary.codebook_size, for_training=True),
            audio_llm.processor,
            max_length=max_length,
            limit=limit,
            vocabulary_size=audio_llm.model.config.vocab_size,
            cache_tokens=config.cache_tokens,
        )

    limit, max_length = length_limit(config, context_length)
    is_context = limit == "max_length" and config.max_length is None
    why_no_sound = _look_at_audio(accelerator, audio_llm, "context" if is_context else limit, max_length)
    eval_records: EncodedRecords | None = None
    if config.eval_data is not None:  # opened first: to encode recordings to be trained on may take hours
        eval_records = read(config.eval_data, "max_length", config.max_length or context_length)
    data: TrainingData
    if is_mixture(config.train_data):
        data = MixtureData(
            accelerator,
            config,
            audio_llm.processor,
            vocabulary_size=audio_llm.model.config.vocab_size,  # rows of its embedding
            max_length=max_length,
            limit=limit,
            speaks_in_turns=audio_llm.speaks_in_turns,
            why_no_sound=why_no_sound,
        )
    else:
        records = read(config.train_data, limit, max_length)
        _check_form(records, audio_llm, why_no_sound)
        data = ListedData(accelerator, config, records)
    usable_eval: list[int] = []
    if eval_records is not None:
        usable_eval = check_records(
            accelerator, eval_records, "eval", on_too_long=config.on_too_long, output_dir=config.output_dir,
            check_data=config.check_data,
        ).usable  # fmt: skip
    listener = None
    if config.eval_listen_samples and eval_records is not None:
        listener = Listener(accelerator, config, audio_llm, eval_records, usable_eval)
    eval_texts = None
    if config.eval_text is not None:
        eval_texts = HeldOutTexts(config.eval_text, audio_llm.processor.tokenizer, config.max_length or context_length)
    objective = TargetTokenLoss(start.trained, config.mixed_precision, splits_weights(accelerator))
    model, optimizer = accelerator.prepare(objective, make_optimizer(objective, config, accelerator.device))
    model.train()
    return _Parts(
        config=config,
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        audio_llm=audio_llm,
        data=data,
        eval_records=eval_records,
        usable_eval=usable_eval,
        eval_texts=eval_texts,
        listener=listener,
    )


def _update(parts: _Parts, step: int, micro_batches: list[list[EncodedRecord]]) -> dict[str, Any]:
    """Makes one update; returns its figures."""
    accelerator, config = parts.accelerator, parts.config
    learning_rates = set_learning_rates(parts.optimizer, step, parts.data.total_steps, config)
    micro_batches = as_many_as_others(micro_batches, accelerator, config)
    # Known before the first pass, as its gradients are already divided by it.
    counts = PassCounts.of(micro_batches, accelerator, config)
    target_tokens = counts.target_tokens
    if target_tokens == 0:
        raise DataError(f"update {step}: none of its records can be used; skipped_train.jsonl says why")
    # Every target token of the update weighs the same, wherever it is: a mean of the batches' means would count the
    # tokens of short answers more, and change with the number of processes. Undone here is that accelerate (or
    # DeepSpeed) divides by the accumulated batches, and that gradients are averaged over the processes.
    scale = loss_divisor(accelerator, config, len(micro_batches)) * accelerator.num_processes / target_tokens
    by_pass: list[tuple[list[str], torch.Tensor]] = []  # ids of its records, loss
    # ZeRO-3 gathers the output layer once per chunk of logits, so all processes must make equally many.
    for batch, num_targets in zip(micro_batches, counts.most_targets, strict=True):
        with accelerator.accumulate(parts.model):
            inputs = inputs_of(batch, config, parts.pad_token_id, accelerator.device)
            loss_sum = parts.model(**inputs, num_chunks=num_chunks(num_targets, parts.vocabulary_size))
            by_pass.append(([record.record_id for record in batch], loss_sum.detach()))
            if accelerator.sync_gradients:
                # Before the last backward pass, in which DeepSpeed already makes the update.
                total = torch.stack([loss_of_pass for _, loss_of_pass in by_pass]).sum()
                loss = float(accelerator.reduce(total, "sum")) / target_tokens
                stop_unless_finite(accelerator, config, step, "loss", loss, by_pass, unit="records")
            accelerator.backward(loss_sum * scale)
            if accelerator.sync_gradients:
                # max_norm=inf measures without clipping; DeepSpeed clips by itself and returns the norm.
                norm = accelerator.clip_grad_norm_(parts.model.parameters(), config.max_grad_norm or math.inf)
                grad_norm = float(norm)
                stop_unless_finite(accelerator, config, step, "gradient norm", grad_norm, by_pass, unit="records")
            parts.optimizer.step()
            parts.optimizer.zero_grad()
    return {
        "loss": loss,
        **learning_rate_figures(learning_rates),
        "grad_norm": grad_norm,
        "target_tokens": target_tokens,
        "tokens": counts.tokens,
        **counts.shares(config),
    }


def _evaluate(parts: _Parts, step: int) -> dict[str, Any]:
    """Held-out loss, generated samples and spoken ones; returns their figures."""
    config = parts.config
    assert parts.eval_records is not None
    loss, target_tokens = held_out_loss(
        parts.accelerator,
        parts.model,
        parts.eval_records,
        parts.usable_eval,
        batch_size=config.micro_batch_size,
        pad_token_id=parts.pad_token_id,
        vocabulary_size=parts.vocabulary_size,
    )
    line: dict[str, Any] = {"loss": loss, "target_tokens": target_tokens}
    if parts.eval_texts is not None:
        line |= _probe_text(parts, parts.eval_texts)
    if config.eval_generate_samples:
        samples = generate_samples(
            parts.accelerator,
            parts.model,
            parts.audio_llm,
            parts.eval_records,
            parts.usable_eval,
            num_samples=config.eval_generate_samples,
            batch_size=config.micro_batch_size,
            max_new_tokens=config.eval_max_new_tokens,
            seed=config.seed,
        )
        if parts.accelerator.is_main_process:
            samples_folder = Path(config.output_dir) / "samples"
            samples_folder.mkdir(exist_ok=True)
            write_json_lines(samples_folder / f"step_{step:06d}.jsonl", sample_lines(samples))
            line |= score_samples(samples, config.wer_tasks)
    if parts.listener is not None:
        line |= parts.listener.evaluate(parts.model, step)
    return line


def _probe_text(parts: _Parts, texts: HeldOutTexts) -> dict[str, Any]:
    """Perplexity on held-out texts, as a part of a line of the metrics."""
    loss, num_tokens = held_out_loss(
        parts.accelerator,
        parts.model,
        texts,
        range(len(texts)),
        batch_size=parts.config.micro_batch_size,
        pad_token_id=parts.pad_token_id,
        vocabulary_size=parts.vocabulary_size,
    )
    return perplexity_figures(loss, num_tokens)


if __name__ == "__main__":
    run_program(SFTConfig, train, name="sft")
