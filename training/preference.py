"""Preference training of an Audio-LLM: GRPO on rewards of drawn answers, or DPO on pairs of answers, through trl.

accelerate launch training/preference.py --config training/configs/preference_grpo.yaml --model … --train_data … …
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger

from audiollm.data.conversation.loading import load_conversations
from audiollm.loading import refuse_quantized
from audiollm.mini import model_or_mini
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.tokenizer.checkpoints.card import Base
from audiollm.training.alignment.config import PreferenceConfig
from audiollm.training.alignment.methods import dpo_trainer, grpo_trainer, load_trl
from audiollm.training.alignment.records import Prompts, preference_pairs
from audiollm.training.alignment.rewards.registry import make_rewards
from audiollm.training.alignment.rewards.sounds import AnswerSounds
from audiollm.training.alignment.running import open_trl_folder, run_trl, updates_of_run
from audiollm.training.audio_llm.model import ADAPTER_FOLDER, StartingPoint, save_trained_model
from audiollm.training.audio_llm.records import EncodedRecords
from audiollm.training.audio_llm.training_data import check_records
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.launch import start_data_parallel
from audiollm.training.loop.run import RunSummary, TrainingRun, held_folder, running
from audiollm.training.loop.stopping import StopRequest, stop_requests

logger = get_logger(__name__)


@dataclass
class _Data:
    """Records of one role.

    Attributes:
        records: encoded when they are asked for.
        usable: numbers of those that are trained or evaluated on.
        metadata: fingerprints and sizes.
    """

    records: EncodedRecords
    usable: list[int]
    metadata: dict[str, Any]


def train(config: PreferenceConfig) -> RunSummary:
    """Runs a preference training from its config to the saved model; every process of a launch calls it.

    Args:
        config: the run.

    Returns:
        How it ended, the same on every process.

    Raises:
        ImportError: trl is not installed.
        LaunchError: if the processes are not the ones asked for, or shards of the weights are asked for.
        DataError: listing the records that cannot be trained on.
        ResumeError: if the checkpoint to resume belongs to a different run, or is damaged.
        FileInUseError: if another run is at work in the folder.
        RunStoppedError: after a checkpoint, if the process was asked to stop by SIGTERM or SIGUSR1.
        NonFiniteLossError: if the loss or the gradient stops being a number.
        ValueError: for other settings that cannot work.
    """
    load_trl()
    with (
        running(start_data_parallel(config, splits_optimizer=False)) as accelerator,
        held_folder(accelerator, config),
        stop_requests() as stop,
    ):
        return _train(accelerator, config, stop)


def _train(accelerator: Accelerator, config: PreferenceConfig, stop: StopRequest) -> RunSummary:
    checkpoint = open_trl_folder(accelerator, config)
    audio_llm = _load(accelerator, config)
    # trl writes ids of its own into them.
    settings_before = copy.deepcopy((audio_llm.model.config, audio_llm.model.generation_config))
    data = _read(accelerator, config, audio_llm, config.train_data, "train")
    eval_data = _read(accelerator, config, audio_llm, config.eval_data, "eval") if config.eval_data else None
    total_steps = _num_updates(config, len(data.usable))

    def make(callbacks: list[Any]) -> Any:
        return _make_trainer(accelerator, config, audio_llm, data, eval_data, total_steps, callbacks)

    run, summary = run_trl(
        accelerator,
        config,
        stop,
        checkpoint=checkpoint,
        make=make,
        save=lambda trainer: _save(accelerator, config, audio_llm, trainer, settings_before),
        total_steps=total_steps,
        data_metadata=data.metadata,
        num_records=len(data.usable),
    )
    _write_cards(run, config, {} if eval_data is None else eval_data.metadata)
    return run.finish(summary, ["audiollm", "transcribe", "RECORDING", "--model", str(summary.model_folder)])


def _load(accelerator: Accelerator, config: PreferenceConfig) -> AudioLLM:
    audio_llm = AudioLLM.from_pretrained(
        config.model, dtype=getattr(torch, config.dtype), attn_implementation=config.attn_implementation
    )
    refuse_quantized(audio_llm.model, config.model, "trained")
    audio_llm.processor.audio_device = accelerator.device
    audio_llm.processor.accepted_codes = frozenset(config.accept_codes_of)
    return audio_llm


def _read(accelerator: Accelerator, config: PreferenceConfig, audio_llm: AudioLLM, source: str, role: str) -> _Data:
    """Encodes every record once, each process its share, and finds out which can be used."""
    context_length = audio_llm.model.config.max_position_embeddings
    if config.max_length is not None and config.max_length > context_length:
        raise ValueError(f"max_length={config.max_length} exceeds the model's context of {context_length} tokens")
    records = EncodedRecords(
        load_conversations(source, codebook_size=audio_llm.vocabulary.codebook_size, for_training=True),
        audio_llm.processor,
        max_length=config.max_length or context_length,
        cache_tokens=config.cache_tokens,
    )
    checked = check_records(accelerator, records, role, on_too_long=config.on_too_long, output_dir=config.output_dir)
    return _Data(records, checked.usable, checked.metadata)


def _num_updates(config: PreferenceConfig, num_records: int) -> int:
    """Updates of the whole run; see `updates_of_run`."""
    answers = 1 if config.grpo is None else config.grpo.num_generations
    return updates_of_run(config, num_records, config.global_batch_size // answers)


def _make_trainer(
    accelerator: Accelerator,
    config: PreferenceConfig,
    audio_llm: AudioLLM,
    data: _Data,
    eval_data: _Data | None,
    total_steps: int,
    callbacks: list[Any],
) -> Any:
    num_processes = accelerator.num_processes
    if config.grpo is None:
        pairs = [
            None if one is None else preference_pairs(one.records, one.usable, audio_llm.processor)
            for one in (data, eval_data)
        ]
        assert pairs[0] is not None
        return dpo_trainer(config, audio_llm, pairs[0], pairs[1], total_steps, num_processes, callbacks)
    prompts = Prompts(data.records, data.usable)
    eval_prompts = None if eval_data is None else Prompts(eval_data.records, eval_data.usable)
    for one in (prompts, eval_prompts):
        if one is not None:
            one.check_room(config.max_length or audio_llm.model.config.max_position_embeddings, config.grpo)
    sounds = AnswerSounds(audio_llm, seed=config.seed)
    rewards = make_rewards([(reward.name, reward.options) for reward in config.grpo.rewards], sounds)
    return grpo_trainer(config, audio_llm, prompts, eval_prompts, rewards, total_steps, num_processes, callbacks)


def _save(
    accelerator: Accelerator, config: PreferenceConfig, audio_llm: AudioLLM, trainer: Any, settings_before: Any
) -> Path:
    """Writes ``model/``, and ``adapter/`` with LoRA, with the settings that the model came with."""
    audio_llm.model.config, audio_llm.model.generation_config = settings_before
    source = audio_llm.model.name_or_path
    if config.lora is not None:
        trainer.model.peft_config["default"].base_model_name_or_path = source
    start = StartingPoint(audio_llm, trainer.model, source)
    return save_trained_model(accelerator, trainer.model_wrapped, start, config, prefix="")


def _write_cards(run: TrainingRun, config: PreferenceConfig, evaluation_data: dict[str, Any]) -> None:
    """The cards of what `_save` wrote."""
    folder = Path(config.output_dir)
    bases = [Base("Audio-LLM", config.model, Path(model_or_mini(config.model)))]
    run.write_card(folder / MODEL_FOLDER, "audio_llm", bases, step=run.total_steps, evaluation_data=evaluation_data)
    if config.lora is not None:
        run.write_card(folder / ADAPTER_FOLDER, "adapter", bases, step=run.total_steps, evaluation_data=evaluation_data)


if __name__ == "__main__":
    run_program(PreferenceConfig, train, name="preference")
