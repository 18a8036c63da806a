"""Settings of a preference run: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from audiollm.training.audio_llm.config import AudioLLMRunConfig, LoRASettings, even_accumulation
from audiollm.training.loop.config import (
    RunConfig,
    require_eval_data,
    require_given,
    require_not_negative,
    require_positive,
)

from .rewards.registry import check_reward


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """A reward of the run; what an answer is worth is the weighted sum of all of them."""

    name: str
    """``wer`` (words that are heard), ``voice`` (attributes that are heard), ``correct``, ``length``, ``form``, ``sap``
    (agreement with the record's SAP record), ``judge`` (agreement with its answer, by a chat model), or one that an
    installed package offers."""

    weight: float = 1.0
    """Its share in the sum."""

    options: dict[str, Any] = field(default_factory=dict)
    """What its factory takes, such as ``{recognizer: whisper-base}``."""

    def __post_init__(self) -> None:
        check_reward(self.name, self.options)
        if not self.weight > 0:
            raise ValueError(f"reward {self.name}: weight={self.weight}: use a positive number, or leave it out")


@dataclass(frozen=True, kw_only=True)
class GRPOSettings:
    """Answers are drawn in groups, and those that are worth more than their group's mean become likelier (Shao et al.,
    2024, arXiv:2402.03300)."""

    rewards: tuple[RewardSettings, ...]
    """What answers are worth."""

    num_generations: int = 8
    """Answers that are drawn for each record."""

    modalities: Literal["text", "audio", "both"] = "both"
    """What may be drawn. Marks of audio segments are learned, not enforced: the reward ``form`` tells broken ones."""

    max_new_tokens: int = 256
    """Longest answer, in tokens."""

    temperature: float = 1.0
    """Of drawing, and of the probabilities in the loss."""

    beta: float = 0.0
    """Weight of the divergence from the model at the start. 0: none, and no second model in memory."""

    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "dapo"
    """How tokens are averaged, as trl calls it."""

    scale_rewards: Literal["group", "batch", "none"] = "group"
    """By which spread the worth of an answer is divided."""

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("grpo.rewards is empty: name at least one, such as [{name: correct}]")
        names = [reward.name for reward in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"grpo.rewards names {next(n for n in names if names.count(n) > 1)} twice: use each once")
        require_positive(self, "max_new_tokens", "temperature", prefix="grpo.")
        require_not_negative(self, "beta", prefix="grpo.")
        if self.num_generations < 2:
            raise ValueError(
                f"grpo.num_generations={self.num_generations}: answers are compared with each other, draw 2 or more"
            )


@dataclass(frozen=True, kw_only=True)
class DPOSettings:
    """Records bring an answer and a worse one, ``rejected`` (Rafailov et al., 2023, arXiv:2305.18290)."""

    beta: float = 0.1
    """How closely the model is held to the one at the start."""

    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Of the margin between the two answers, as trl calls it."""

    def __post_init__(self) -> None:
        require_positive(self, "beta", prefix="dpo.")


@dataclass(frozen=True, kw_only=True)
class PreferenceLoRA(LoRASettings):
    """Low-rank adapters on the linear layers; the audio rows are trained already."""

    train_audio_rows: bool = False
    """Must stay false: trl reads the output layer's own weights, which such rows are not part of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_audio_rows:
            raise ValueError(
                "lora.train_audio_rows is of training/sft.py: trl's loss reads the output layer without such rows, "
                "which would be trained to nothing; leave lora out to train all weights"
            )


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig(AudioLLMRunConfig):
    """One preference run: of ``grpo`` and ``dpo``, the one that is given."""

    model: str
    """Audio-LLM to start from: a folder, a run of training/sft.py, or a Hub id."""

    grpo: GRPOSettings | None = None
    """Learn from rewards of drawn answers."""

    dpo: DPOSettings | None = None
    """Learn from pairs of answers."""

    global_batch_size: int = 32
    """Answers (GRPO) or pairs (DPO) per update, over all processes."""

    micro_batch_size: int = 4
    """Answers or pairs per process in one pass: changes memory and speed."""

    num_epochs: float = 1.0
    learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    lora: PreferenceLoRA | None = None
    """Train adapters instead of all weights. ``--lora.r 16`` is enough to switch it on."""

    max_length: int | None = None
    """Longest prompt with its answer, in tokens. None: the model's context length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given(self, "model")
        require_eval_data(self, "eval_every")
        if (self.grpo is None) == (self.dpo is None):
            raise ValueError("give grpo or dpo, one of them: --grpo.rewards '[{name: correct}]', or --dpo.beta 0.1")
        refuse_what_trl_decides(self, others="trainers")
        if self.grpo is not None:
            check_groups(self.global_batch_size, self.grpo)

    def accumulation_steps(self, num_processes: int) -> int:
        """Passes that each process accumulates for one update; see `even_accumulation`."""
        return even_accumulation(self, num_processes)


def refuse_what_trl_decides(config: RunConfig, *, others: str) -> None:
    """Refuses settings of a run that trl's trainers have in their own way.

    Args:
        config: of a run that trl makes.
        others: what such settings are of, for errors: "trainers" or "stages".

    Raises:
        ValueError: naming the setting.
    """
    for name in ("metric_for_best", "load_best_at_end", "trust_checkpoint", "shard_optimizer"):
        if getattr(config, name):
            raise ValueError(f"{name} is of the other {others}: trl keeps and reads the checkpoints of this one")
    for name in ("optimizer", "schedule"):
        if getattr(config, name) != getattr(RunConfig, name):
            raise ValueError(f"{name}={getattr(config, name)}: here it is {getattr(RunConfig, name)}, leave it out")


def check_groups(global_batch_size: int, grpo: GRPOSettings) -> None:
    """Refuses an update that would cut a group of answers in two.

    Raises:
        ValueError: naming both settings.
    """
    if global_batch_size % grpo.num_generations:
        raise ValueError(
            f"global_batch_size={global_batch_size} is not a multiple of grpo.num_generations="
            f"{grpo.num_generations}: an update compares whole groups of answers"
        )
