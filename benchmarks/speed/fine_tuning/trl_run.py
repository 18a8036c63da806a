"""Trains with TRL's SFTTrainer on records of token ids; writes a line per update as our trainer does.

A program of its own, so that memory and processor time are TRL's alone; ``benchmarks/sft_speed.py`` starts it.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from audiollm.program import run_program


@dataclass(frozen=True, kw_only=True)
class TrlRunConfig:
    """One run of TRL."""

    model: str
    """Folder of the Audio-LLM."""
    encoded: str
    """JSON lines of ``input_ids`` and ``labels``."""
    output_dir: str
    """Folder of the run."""
    metrics: str
    """JSON lines to write."""
    updates: int
    """Updates to make."""
    micro_batch_size: int
    """Records, or packed rows, in one forward pass."""
    accumulation: int
    """Forward passes of an update."""
    learning_rate: float
    """Constant."""
    packed_tokens: int | None = None
    """Pack rows of so many tokens by best fit. None: pad."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """As in our runs."""
    seed: int = 0
    """The order of the records is that of our first epoch."""


def train(config: TrlRunConfig) -> None:
    """Runs the training.

    Raises:
        ValueError: if trl is not installed.
    """
    if find_spec("trl") is None:
        raise ValueError("TRL is not installed: pip install trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class MeasuredTrainer(SFTTrainer):
        """Counts what passes through the model, and the time in which it waits for data."""

        data_seconds = 0.0
        counts = np.zeros(3, dtype=np.int64)  # target tokens, tokens, positions

        def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            batches = super().get_batch_samples(*arguments, **options)
            self.data_seconds += time.perf_counter() - started
            return batches

        def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            positions = inputs["input_ids"].numel()
            mask = inputs.get("attention_mask")
            tokens = positions if mask is None else int(mask.sum())
            self.counts += [int((inputs["labels"][:, 1:] != -100).sum()), tokens, positions]
            return super().training_step(model, inputs, *arguments, **options)

    with open(config.encoded, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    order = np.random.default_rng([config.seed, 0]).permutation(len(records))
    arguments = SFTConfig(
        output_dir=config.output_dir,
        max_steps=config.updates,
        per_device_train_batch_size=1 if config.packed_tokens else config.micro_batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.01,
        max_grad_norm=1.0,
        packing=config.packed_tokens is not None,
        packing_strategy="bfd",
        max_length=config.packed_tokens,
        gradient_checkpointing=False,
        bf16=config.mixed_precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )
    trainer = MeasuredTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            config.model, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
        ),
        args=arguments,
        train_dataset=Dataset.from_list([records[number] for number in order]),
        processing_class=AutoTokenizer.from_pretrained(config.model, trust_remote_code=False),
    )
    recorder = _Recorder(trainer, config.metrics)
    trainer.add_callback(recorder)
    trainer.train()


class _Recorder(TrainerCallback):
    """Writes a line for each update."""

    def __init__(self, trainer: Any, path: str) -> None:
        self._trainer, self._path = trainer, path
        self._started, self._used = time.perf_counter(), time.process_time()
        self._line: dict[str, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started, self._used = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        target_tokens, tokens, positions = self._trainer.counts.tolist()
        self._line = {
            "event": "train",
            "step": state.global_step,
            "target_tokens": target_tokens,
            "tokens": tokens,
            "padding_share": 1 - tokens / positions,
            "seconds": time.perf_counter() - self._started,
            "data_seconds": self._trainer.data_seconds,
            "processor_seconds": time.process_time() - self._used,
        }

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self._line | {"loss": logs["loss"]}) + "\n")
        self._trainer.counts[:] = 0
        self._trainer.data_seconds = 0.0
        self._started, self._used = time.perf_counter(), time.process_time()


if __name__ == "__main__":
    run_program(TrlRunConfig, train, level=logging.WARNING)
