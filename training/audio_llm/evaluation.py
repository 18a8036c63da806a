"""Held-out loss, and generated answers scored by word error rate and exact match."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from audiollm.benchmarks.metrics import load_metric
from audiollm.data.collation import IGNORED_LABEL, Example, collate
from audiollm.data.conversation.types import Conversation
from audiollm.generation.result import GenerationResult
from audiollm.modeling import AudioLLM
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.launch import gathered_outside_layers, splits_weights

from .objective import num_chunks
from .records import EncodedRecord, EncodedRecords


@dataclass(frozen=True)
class GeneratedSample:
    """One held-out record, answered by the model in training."""

    id: str
    task: str | None
    reference: str
    prediction: str


class Records(Protocol):
    """Held-out records or texts."""

    def encode(self, indexes: Sequence[int]) -> list[EncodedRecord]:
        """The records of these numbers, as ids."""


def held_out_loss(
    accelerator: Accelerator,
    model: nn.Module,
    records: Records,
    usable: Sequence[int],
    *,
    batch_size: int,
    pad_token_id: int,
    vocabulary_size: int,
) -> tuple[float, int]:
    """Mean loss per target token over all held-out records; all processes must call it.

    Args:
        accelerator: the run's accelerator.
        model: the prepared `TargetTokenLoss`.
        records: the held-out data.
        usable: numbers of the records to use.
        batch_size: records per process and forward pass.
        pad_token_id: id that fills short records up.
        vocabulary_size: rows of the output layer, which bounds the logits held at once.

    Returns:
        The loss in nats per token, and the number of target tokens.
    """
    batches, weights = equal_shares(usable, batch_size, accelerator)
    most = torch.tensor(0, device=accelerator.device)
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    model.eval()
    with torch.no_grad():
        for indexes, weight in zip(batches, weights, strict=True):
            encoded = records.encode(indexes)
            num_targets = sum(record.num_targets for record in encoded)
            # Under ZeRO-3 every chunk gathers the output layer: all processes make equally many.
            most = accelerator.gather(torch.tensor([num_targets], device=accelerator.device)).max()
            batch = collate([record.example() for record in encoded], pad_token_id=pad_token_id)
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            loss_sum = model(**batch, num_chunks=num_chunks(int(most), vocabulary_size))
            totals += weight * torch.tensor([float(loss_sum), num_targets], dtype=torch.float64, device=totals.device)
    model.train()
    loss_total, target_total = accelerator.reduce(totals, "sum").tolist()
    return loss_total / target_total, int(target_total)


def generate_samples(
    accelerator: Accelerator,
    model: nn.Module,
    audio_llm: AudioLLM,
    records: EncodedRecords,
    usable: Sequence[int],
    *,
    num_samples: int,
    batch_size: int,
    max_new_tokens: int,
    seed: int,
) -> list[GeneratedSample]:
    """Answers held-out records greedily; all processes must call it, and all get all samples.

    Records whose last turn is not plain text are left out; see `generate_answers`.

    Args:
        accelerator: the run's accelerator.
        model: the prepared `TargetTokenLoss`.
        audio_llm: the Audio-LLM whose model is inside it.
        records: the held-out data.
        usable: numbers of the records to choose from.
        num_samples: how many to answer.
        batch_size: records per process and batch.
        max_new_tokens: longest answer, in tokens; fewer where the context ends.
        seed: decides which records are drawn.

    Returns:
        The samples in the order of the data.
    """
    chosen = draw_records(
        records,
        usable,
        num_records=num_samples,
        seed=seed,
        is_wanted=lambda conversation: reference_answer(conversation) is not None,
    )
    if not chosen:
        return []
    answered = generate_answers(
        accelerator, model, audio_llm, records, chosen, batch_size=batch_size, max_new_tokens=max_new_tokens
    )
    mine = [
        (index, _sample(records.conversations[index], text))
        for indexes, answers in answered
        for index, text in zip(indexes, answers.texts, strict=True)
    ]
    gathered = dict(gather_object(mine))
    return [gathered[index] for index in chosen]


def draw_records(
    records: EncodedRecords,
    usable: Sequence[int],
    *,
    num_records: int,
    seed: int,
    is_wanted: Callable[[Conversation], bool],
) -> list[int]:
    """Chooses held-out records to be answered, the same at every evaluation.

    Args:
        records: the held-out data.
        usable: numbers of the records to choose from.
        num_records: how many.
        seed: decides which are drawn.
        is_wanted: whether a record can be chosen.

    Returns:
        Their numbers in order; fewer where there are not so many.
    """
    # Drawn, not every n-th: data often alternate between tasks.
    drawn = (usable[position] for position in np.random.default_rng(seed).permutation(len(usable)))
    wanted = (index for index in drawn if is_wanted(records.conversations[index]))
    return sorted(itertools.islice(wanted, num_records))


def generate_answers(
    accelerator: Accelerator,
    model: nn.Module,
    audio_llm: AudioLLM,
    records: EncodedRecords,
    chosen: Sequence[int],
    *,
    batch_size: int,
    max_new_tokens: int,
    **generation: Any,
) -> list[tuple[list[int], GenerationResult]]:
    """Answers held-out records in the place of their last assistant turn; all processes must call it.

    The prompt is the record as training sees it. Under ZeRO-3 the processes generate in step, as each forward pass
    gathers the weights from all. Batches are the same on any number of processes.

    Args:
        accelerator: the run's accelerator.
        model: the prepared `TargetTokenLoss`.
        audio_llm: the Audio-LLM whose model is inside it.
        records: the held-out data.
        chosen: numbers of the records to answer, one at least.
        batch_size: records per process and batch.
        max_new_tokens: longest answer, in tokens; fewer where the context ends.
        generation: further settings of `AudioLLM.generate`.

    Returns:
        This process's share: batches of records, and the answers to them.
    """
    batches, weights = equal_shares(chosen, batch_size, accelerator)
    context_length = audio_llm.model.config.max_position_embeddings
    answered: list[tuple[list[int], GenerationResult]] = []
    model.eval()
    with torch.no_grad(), accelerator.autocast(), gathered_outside_layers(accelerator, model):
        for indexes, weight in zip(batches, weights, strict=True):
            prompts: list[Example] = [{"input_ids": prompt_token_ids(record)} for record in records.encode(indexes)]
            batch = collate(prompts, pad_token_id=audio_llm.processor.pad_token_id, padding_side="left")
            answers = audio_llm.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=min(max_new_tokens, context_length - batch["input_ids"].shape[1]),
                synced_gpus=splits_weights(accelerator),
                **generation,
            )
            if weight:
                answered.append((indexes, answers))
    model.train()
    return answered


def score_samples(samples: Sequence[GeneratedSample], wer_tasks: Sequence[str]) -> dict[str, Any]:
    """Scores generated answers.

    Args:
        samples: answers and references.
        wer_tasks: tasks scored by word error rate; all others by exact match.

    Returns:
        ``wer`` over the transcription tasks; ``accuracy`` over the rest and ``accuracy_by_task``. None where there is
        nothing to score.
    """
    transcripts = [sample for sample in samples if sample.task in wer_tasks]
    answers = [sample for sample in samples if sample.task not in wer_tasks]
    tasks = sorted({sample.task or "" for sample in answers})
    return {
        "wer": _compute("wer", transcripts),
        "accuracy": _compute("accuracy", answers),
        "accuracy_by_task": {t: _compute("accuracy", [s for s in answers if (s.task or "") == t]) for t in tasks},
        "num_samples": len(samples),
    }


def prompt_token_ids(record: EncodedRecord) -> list[int]:
    """The token ids before the last run of targets: what the model has read when it starts its last answer."""
    start, _ = _last_answer(record)
    return record.token_ids[:start].tolist()


def answer_token_ids(record: EncodedRecord) -> list[int]:
    """The token ids of the last run of targets: the record's own last answer, its end included."""
    start, end = _last_answer(record)
    return record.token_ids[start:end].tolist()


def _last_answer(record: EncodedRecord) -> tuple[int, int]:
    is_target = record.labels != IGNORED_LABEL
    end = len(is_target) - int(is_target[::-1].argmax())
    start = end
    while start > 0 and is_target[start - 1]:
        start -= 1
    return start, end


def reference_answer(conversation: Conversation) -> str | None:
    """Text of the last message if the assistant says it and it holds only text, else None."""
    message = conversation.messages[-1]
    texts = [getattr(part, "text", None) for part in message.content]
    if message.role != "assistant" or not texts or None in texts:
        return None
    return "".join(text for text in texts if text is not None)


def sample_lines(samples: Sequence[GeneratedSample]) -> list[dict[str, Any]]:
    """The samples as JSON objects."""
    return [asdict(sample) for sample in samples]


def _sample(conversation: Conversation, prediction: str) -> GeneratedSample:
    reference = reference_answer(conversation)
    assert reference is not None
    return GeneratedSample(conversation.id, conversation.task, reference.strip(), prediction.strip())


def _compute(metric: str, samples: Sequence[GeneratedSample]) -> float | None:
    if not samples:
        return None
    scores = load_metric(metric).compute(
        predictions=[sample.prediction for sample in samples], references=[sample.reference for sample in samples]
    )
    return scores[metric]


def equal_shares(
    indexes: Sequence[int], batch_size: int, accelerator: Accelerator
) -> tuple[list[list[int]], list[float]]:
    """This process's batches, as many as every other process has; repeated ones that fill up weigh 0."""
    batches = [list(indexes[start : start + batch_size]) for start in range(0, len(indexes), batch_size)]
    missing = -len(batches) % accelerator.num_processes
    weighted = [(batch, 1.0) for batch in batches] + [(batches[0], 0.0)] * missing
    order = share_of_process(list(range(len(weighted))), accelerator.process_index, accelerator.num_processes)
    return [weighted[n][0] for n in order], [weighted[n][1] for n in order]
