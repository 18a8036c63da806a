"""trl's trainers, fed with ids of our own and configured by a run's settings; trl is an extra, imported when used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.adapters import adapter_config
from audiollm.training.loop.config import RunConfig

from .config import GRPOSettings, PreferenceConfig
from .records import Prompts
from .rewards.base import Answer, Reward, checked_worth

RewardFunction = Callable[..., list[float | None]]
Columns = dict[str, list[list[int]]]


@dataclass(frozen=True)
class Passes:
    """How an update is cut up.

    Attributes:
        size: answers or pairs per process in one pass.
        accumulated: passes of each process.
        recomputes: whether activations are computed again in the backward pass.
    """

    size: int
    accumulated: int
    recomputes: bool


_REPLACED = {"GRPOTrainer": "_tokenize_prompts", "DPOTrainer": "_prepare_dataset"}


def load_trl() -> Any:
    """The package trl.

    Raises:
        ImportError: it is not installed, or is not one whose texts can be replaced by ids.
    """
    try:
        trl = import_module("trl")
    except ImportError as error:
        raise ImportError("preference training needs trl: run `pip install 'audiollm[preference]'`") from error
    for trainer, method in _REPLACED.items():
        if not hasattr(getattr(trl, trainer), method):
            raise ImportError(
                f"trl {trl.__version__} prepares prompts in another way than 1.16, whose {trainer} has {method}: "
                "run `pip install 'audiollm[preference]'`"
            )
    return trl


def arguments(config: RunConfig, total_steps: int, passes: Passes, **own: Any) -> dict[str, Any]:
    """What trl's two configurations share.

    Args:
        config: the run.
        total_steps: updates of the whole run.
        passes: how an update is cut up.
        own: what one of them adds.
    """
    evaluates_between = config.eval_data is not None and config.eval_every is not None
    return {
        "output_dir": str(Path(config.output_dir) / "checkpoints"),
        "per_device_train_batch_size": passes.size,
        "gradient_accumulation_steps": passes.accumulated,
        "max_steps": total_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": config.min_learning_rate_ratio},
        "warmup_steps": config.warmup_ratio,  # below 1 it is a share
        "weight_decay": config.weight_decay,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "max_grad_norm": config.max_grad_norm or 0.0,  # its word for "no clipping"
        "bf16": config.mixed_precision == "bf16",
        "use_cpu": not torch.accelerator.is_available(),
        "seed": config.seed,
        "gradient_checkpointing": passes.recomputes,
        "logging_steps": config.log_every,
        "save_strategy": "steps",
        # The end saves too, as a callback asks for it.
        "save_steps": config.save_every or 2**31,
        "save_total_limit": config.keep_checkpoints,
        "eval_strategy": "steps" if evaluates_between else "no",
        "eval_steps": config.eval_every if evaluates_between else None,
        "report_to": [],
        "disable_tqdm": True,  # there is a bar already
        "accelerator_config": {"use_configured_state": True},
        "dataloader_pin_memory": torch.accelerator.is_available(),
        **own,
    }


@dataclass(frozen=True)
class Policy:
    """What answers are drawn from, and learns from their worth.

    Attributes:
        model: a causal LM, or PEFT's around one; what of it is trainable is trained.
        text_tokenizer: one that trl may change.
        token_ids: the prompts of records by their names.
        answer: what was drawn for a record, from its name and the tokens.
        suppressed: ids that are never drawn.
        adapters: what PEFT is to put on the model; None: nothing.
        trainer: what stands in front of trl's own trainer, for checkpoints of another kind.
    """

    model: Any
    text_tokenizer: Any
    token_ids: Callable[[Sequence[str]], list[list[int]]]
    answer: Callable[[str, Sequence[int]], Answer]
    suppressed: Sequence[int] = ()
    adapters: Any = None
    trainer: tuple[type, ...] = ()


def grpo_trainer(
    config: PreferenceConfig,
    audio_llm: AudioLLM,
    prompts: Prompts,
    eval_prompts: Prompts | None,
    rewards: Sequence[Reward],
    total_steps: int,
    num_processes: int,
    callbacks: list[TrainerCallback],
) -> Any:
    """trl's GRPO over records: it draws answers to their prompts, and our rewards say what they are worth.

    Args:
        config: the run, with ``grpo``.
        audio_llm: the Audio-LLM that is trained.
        prompts: of the training records.
        eval_prompts: of held-out ones.
        rewards: of ``config.grpo.rewards``, in that order.
        total_steps: updates of the whole run.
        num_processes: of the launch.
        callbacks: of the Trainer.
    """
    settings = config.grpo
    assert settings is not None
    # Training and held-out prompts have numbers of their own: a number and the letter before it say which one is meant.
    sources = {"t": prompts} | ({} if eval_prompts is None else {"e": eval_prompts})
    end_ids = _end_ids(audio_llm)

    def token_ids_of(names: Sequence[str]) -> list[list[int]]:
        return [sources[name[0]].token_ids([int(name[1:])])[0] for name in names]

    def answer(name: str, token_ids: Sequence[int]) -> Answer:
        source, number = sources[name[0]], int(name[1:])
        return Answer(
            conversation=source.conversation(number),
            token_ids=list(token_ids),
            segments=audio_llm.processor.split(list(token_ids)),
            num_reference_tokens=source.num_reference_tokens(number),
            is_cut=not token_ids or token_ids[-1] not in end_ids,
        )

    policy = Policy(
        model=audio_llm.model,
        text_tokenizer=_text_tokenizer(audio_llm),
        token_ids=token_ids_of,
        answer=answer,
        suppressed=_suppressed(audio_llm, settings, end_ids),
        adapters=None if config.lora is None else adapter_config(audio_llm, config.lora),
    )
    names = [f"t{number}" for number in prompts.usable]
    eval_names = None if eval_prompts is None else [f"e{number}" for number in eval_prompts.usable]
    return policy_trainer(
        config, settings, policy, names, eval_names, rewards, total_steps, _passes(config, num_processes), callbacks
    )


def policy_trainer(
    config: RunConfig,
    settings: GRPOSettings,
    policy: Policy,
    names: Sequence[str],
    eval_names: Sequence[str] | None,
    rewards: Sequence[Reward],
    total_steps: int,
    passes: Passes,
    callbacks: list[TrainerCallback],
) -> Any:
    """trl's GRPO of a policy.

    Args:
        config: the run.
        settings: rewards, and how answers are drawn.
        policy: what is trained.
        names: of the training records.
        eval_names: of held-out ones.
        rewards: of ``settings.rewards``, in that order.
        total_steps: updates of the whole run.
        passes: how an update is cut up.
        callbacks: of the Trainer.
    """
    trl = load_trl()
    bases = (*policy.trainer, trl.GRPOTrainer)

    class Trainer(*bases):  # type: ignore[misc]
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return policy.token_ids(prompts), None, {}

    drawn = _DrawnAnswers(policy.answer)
    functions = [
        _reward_function(settings_of.name, reward, drawn)
        for settings_of, reward in zip(settings.rewards, rewards, strict=True)
    ]
    own = {
        "num_generations": settings.num_generations,
        "num_generations_eval": settings.num_generations,
        "per_device_eval_batch_size": settings.num_generations,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "loss_type": settings.loss_type,
        "scale_rewards": settings.scale_rewards,
        "reward_weights": [reward.weight for reward in settings.rewards],
        "generation_kwargs": {"suppress_tokens": list(policy.suppressed) or None},
    }
    trainer = Trainer(
        model=policy.model,
        reward_funcs=functions,
        args=trl.GRPOConfig(**arguments(config, total_steps, passes, **own)),
        train_dataset=Dataset.from_dict({"prompt": list(names)}),
        eval_dataset=None if eval_names is None else Dataset.from_dict({"prompt": list(eval_names)}),
        processing_class=policy.text_tokenizer,
        peft_config=policy.adapters,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def dpo_trainer(
    config: PreferenceConfig,
    audio_llm: AudioLLM,
    pairs: Columns,
    eval_pairs: Columns | None,
    total_steps: int,
    num_processes: int,
    callbacks: list[TrainerCallback],
) -> Any:
    """trl's DPO over pairs of answers; see `audiollm.training.alignment.records.preference_pairs`."""
    trl = load_trl()
    settings, passes = config.dpo, _passes(config, num_processes)
    assert settings is not None

    class Trainer(trl.DPOTrainer):  # type: ignore[name-defined]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # of ids already

    own = {
        "per_device_eval_batch_size": config.micro_batch_size,
        "max_length": None,  # nothing is cut: lengths have been looked at
        "beta": settings.beta,
        "loss_type": [settings.loss_type],
    }
    trainer = Trainer(
        model=audio_llm.model,
        args=trl.DPOConfig(**arguments(config, total_steps, passes, **own)),
        train_dataset=Dataset.from_dict(pairs),
        eval_dataset=None if eval_pairs is None else Dataset.from_dict(eval_pairs),
        processing_class=_text_tokenizer(audio_llm),
        peft_config=None if config.lora is None else adapter_config(audio_llm, config.lora),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _passes(config: PreferenceConfig, num_processes: int) -> Passes:
    return Passes(config.micro_batch_size, config.accumulation_steps(num_processes), config.gradient_checkpointing)


def _text_tokenizer(audio_llm: AudioLLM) -> Any:
    """A text tokenizer that trl may change."""
    tokenizer = copy.deepcopy(audio_llm.processor.tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


def _end_ids(audio_llm: AudioLLM) -> list[int]:
    """The ids that end an answer, as trl sees it: the checkpoint's, and the text tokenizer's."""
    stored = audio_llm.model.generation_config.eos_token_id
    listed = [] if stored is None else [stored] if isinstance(stored, int) else list(stored)
    return sorted({*listed, audio_llm.processor.tokenizer.eos_token_id} - {None})


def _suppressed(audio_llm: AudioLLM, settings: GRPOSettings, end_ids: Sequence[int]) -> list[int]:
    """Ids that are never drawn: rows of no token, and those of the modality that is not wanted."""
    ids = torch.arange(audio_llm.model.get_input_embeddings().weight.shape[0])
    is_audio = audio_llm.vocabulary.is_audio(ids)
    is_end = torch.isin(ids, torch.tensor(end_ids))
    unwanted = ids >= len(audio_llm.processor.tokenizer)
    if settings.modalities == "text":
        unwanted |= is_audio
    elif settings.modalities == "audio":
        unwanted |= ~is_audio & ~is_end
    return ids[unwanted].tolist()


class _DrawnAnswers:
    """What has been drawn, taken apart once for all rewards.

    Args:
        answer: takes one apart, from the name of its record and its tokens.
    """

    def __init__(self, answer: Callable[[str, Sequence[int]], Answer]) -> None:
        self._answer = answer
        self._last: tuple[Any, list[Answer]] | None = None

    def of(self, names: Sequence[str], token_ids: Sequence[Sequence[int]]) -> list[Answer]:
        """The answers of a batch, the same objects for every reward."""
        if self._last is None or self._last[0] is not token_ids:
            pairs = zip(names, token_ids, strict=True)
            self._last = (token_ids, [self._answer(name, answer) for name, answer in pairs])
        return self._last[1]


def _reward_function(name: str, reward: Reward, drawn: _DrawnAnswers) -> RewardFunction:
    """A reward as trl calls it."""

    def worth(
        prompts: Sequence[str], completions: Any, completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float | None]:
        answers = drawn.of(prompts, completion_ids)
        return checked_worth(name, answers, reward(answers))

    worth.__name__ = name  # under which trl logs it
    return worth
