"""Settings that every trainer has, with their checks; each trainer's config class adds its own and changes defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, get_args

from audiollm.training.results.best import higher_is_better

MODEL_FOLDER = "model"  # in a run's folder: the trained model

OptimizerName = Literal["adamw", "muon", "adafactor", "sgd", "lion", "adamw_8bit", "lion_8bit"]
TrackerName = Literal["tensorboard", "wandb", "mlflow"]  # accelerate's names, and those of the packages
ScheduleName = Literal["cosine", "linear", "constant", "warmup_stable_decay"]

# Name → class in bitsandbytes, whose optimizers are for GPUs.
OPTIMIZERS_OF_BITSANDBYTES = {"lion": "Lion", "adamw_8bit": "AdamW8bit", "lion_8bit": "Lion8bit"}
OPTIMIZERS_OF_WHOLE_MATRICES = ("muon", "adafactor")
# No run is longer; more is a slip of the pen, over which counting updates would never end.
MAX_EPOCHS, MAX_STEPS = 100_000, 10**12
# Which `shard_optimizer` can split: one object with one list of groups, whose state is plain tensors.
SPLIT_OPTIMIZERS = ("adamw", "adafactor", "sgd")
_WITHOUT_BETAS = ("adafactor", "sgd")
_WITH_MOMENTUM = ("muon", "sgd")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    train_data: str
    """Records to train on: a JSONL or parquet file, a folder saved by ``datasets``, or a Hub id."""

    output_dir: str
    """Folder of the run: metrics, checkpoints, evaluations and the trained model."""

    eval_data: str | None = None
    """Held-out clips, in the same formats. None: no evaluation."""

    num_epochs: float | None = 1.0
    """Passes over the training data, when ``max_steps`` is not given. With a resumed run that was over, more passes
    go on from its end; the learning rate then follows the schedule of the longer run."""

    max_steps: int | None = None
    """Number of updates; takes the place of ``num_epochs``."""

    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""

    warmup_ratio: float = 0.03
    """Share of the updates over which the learning rate rises linearly."""

    schedule: ScheduleName = "cosine"
    """How the learning rate goes on from its peak: down a ``cosine`` or ``linear``, ``constant``, or constant and then
    down linearly over the last updates (``warmup_stable_decay``)."""

    decay_ratio: float | None = None
    """Share of the updates over which ``warmup_stable_decay`` goes down. None: 0.2."""

    min_learning_rate_ratio: float = 0.1
    """The learning rate ends at this share of the peak."""

    optimizer: OptimizerName = "adamw"
    """``muon`` takes the matrices of hidden layers, and AdamW the rest. ``lion``, ``adamw_8bit`` and ``lion_8bit`` are
    those of bitsandbytes and need a GPU. ``adafactor`` scales its steps by the size of the weights: its learning rate
    is relative, such as 0.01."""

    shard_optimizer: bool = False
    """Under data parallelism each process keeps the optimizer's state of its share of the weights only, as ZeRO-1
    does, and updates these. The updates stay the same to the bit."""

    muon_learning_rate: float | None = None
    """Peak learning rate of the matrices that ``muon`` takes; its steps are as large as AdamW's at the same rate. None:
    that of the other weights."""

    momentum: float | None = None
    """Decay rate of the momentum of ``muon`` and ``sgd``. None: 0.95 and 0.9."""

    weight_decay: float = 0.01
    """Weight decay, decoupled except in sgd; not applied to norms and biases."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments of AdamW, also beside Muon, and of Lion."""

    max_grad_norm: float | None = 1.0
    """Gradients are clipped to this global L2 norm. None: no clipping."""

    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 computes in bfloat16 and keeps float32 weights."""

    seed: int = 0
    """Decides the initial weights, the data order, dropout and everything drawn at random."""

    eval_every: int | None = None
    """Updates between evaluations. None: only after the last update."""

    save_every: int | None = None
    """Updates between checkpoints. None: only after the last update."""

    keep_checkpoints: int = 2
    """Newest checkpoints to keep. That of the best evaluation is kept beside them, if one was saved after it."""

    metric_for_best: str | None = None
    """Figure of the evaluations that says which is the best, such as ``wer``, or ``accuracy_by_task/describe`` of an
    inner object. None: ``loss``, or ``mel_distance`` where there is none."""

    load_best_at_end: bool = False
    """End with the weights of the best evaluation in place of the last ones; then a checkpoint is saved after every
    evaluation that is the best so far."""

    resume: str | None = None
    """``latest``, or a checkpoint folder, to go on from. ``latest`` in a fresh folder starts from the beginning."""

    trust_checkpoint: bool = False
    """Resume DeepSpeed's states, which can run code, without a look at what is in them."""

    log_every: int = 1
    """Updates between lines of metrics.jsonl. A line describes its own update, not an average."""

    trackers: tuple[TrackerName, ...] = ()
    """Where the numbers go beside metrics.jsonl. What is named must be installed."""

    num_processes: int | None = None
    """Refuse to start on any other number of processes."""

    def __post_init__(self) -> None:
        require_given(self, "train_data", "output_dir")
        require_positive(
            self, "num_epochs", "max_steps", "max_grad_norm", "eval_every", "save_every", "keep_checkpoints",
            "log_every", "num_processes",
        )  # fmt: skip
        for name, most in (("num_epochs", MAX_EPOCHS), ("max_steps", MAX_STEPS)):
            if (value := getattr(self, name)) is not None and value > most:
                raise ValueError(f"{name}={value} is more than any run makes: use at most {most:,}")
        # Not the learning rate, which may be zero where a trainer has several.
        require_not_negative(self, "weight_decay", "seed")
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed}: use a number below 2**32")
        for name in ("warmup_ratio", "min_learning_rate_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a share between 0 and 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            first, second = type(self).betas
            raise ValueError(f"betas={self.betas}: use two numbers in [0, 1), such as {first} and {second}")
        self._check_optimizer()
        self._check_schedule()
        if self.num_epochs is None and self.max_steps is None:
            raise ValueError("neither num_epochs nor max_steps is given: say how long to train")
        require_eval_data(self, "eval_every", "metric_for_best", "load_best_at_end")
        if self.metric_for_best is not None:
            higher_is_better(self.metric_for_best)  # refuses what is not known
        self._check_trackers()

    def _check_trackers(self) -> None:
        known = get_args(TrackerName)
        # A word in place of a list would be taken for one of letters.
        if isinstance(self.trackers, str) or not set(self.trackers) <= set(known):
            raise ValueError(f"trackers={self.trackers!r}: use a list of {', '.join(known)}")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers={self.trackers!r} names one twice: remove it")

    def _check_optimizer(self) -> None:
        require_positive(self, "muon_learning_rate")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum}: use a number in [0, 1), such as 0.9")
        if self.muon_learning_rate is not None and self.optimizer != "muon":
            raise _without_effect("muon_learning_rate", "optimizer", self.optimizer)
        if self.momentum is not None and self.optimizer not in _WITH_MOMENTUM:
            raise _without_effect("momentum", "optimizer", self.optimizer)
        if self.optimizer in _WITHOUT_BETAS and self.betas != type(self).betas:
            raise _without_effect("betas", "optimizer", self.optimizer)
        if self.shard_optimizer and self.optimizer not in SPLIT_OPTIMIZERS:
            raise ValueError(
                f"shard_optimizer does not split optimizer: {self.optimizer}: use {', '.join(SPLIT_OPTIMIZERS)}, or "
                "leave it out"
            )

    def _check_schedule(self) -> None:
        if self.schedule == "constant" and self.min_learning_rate_ratio != type(self).min_learning_rate_ratio:
            raise _without_effect("min_learning_rate_ratio", "schedule", self.schedule)
        if self.decay_ratio is None:
            return
        if self.schedule != "warmup_stable_decay":
            raise _without_effect("decay_ratio", "schedule", self.schedule)
        if not 0 < self.decay_ratio <= 1 - self.warmup_ratio:
            raise ValueError(
                f"decay_ratio={self.decay_ratio}: use a share above 0 that leaves room for the warm-up, "
                f"{1 - self.warmup_ratio:g} or less"
            )


def _without_effect(name: str, cause: str, value: str) -> ValueError:
    return ValueError(f"{name} has no effect with {cause}: {value}; remove it")


def require_given(config: object, *names: str) -> None:
    """Refuses an empty path.

    Raises:
        ValueError: naming the field.
    """
    for name in names:
        if not getattr(config, name):
            raise ValueError(f"{name} is empty: give a path")


def require_positive(config: object, *names: str, prefix: str = "") -> None:
    """Refuses zero, negative numbers, NaN and infinity; None passes.

    Args:
        config: what has the fields.
        names: the fields.
        prefix: what stands before their names in flags, such as ``vocoder.``.

    Raises:
        ValueError: naming the field and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value > 0 and _is_finite(value)):
            raise ValueError(f"{prefix}{name}={value}: use a {'positive' if value <= 0 else 'finite'} number")


def _is_finite(value: float) -> bool:
    """As `math.isfinite`, which takes no whole number that no float holds."""
    return isinstance(value, int) or math.isfinite(value)


def require_not_negative(config: object, *names: str, prefix: str = "") -> None:
    """Refuses negative numbers, NaN and infinity; see `require_positive`.

    Args:
        config: what has the fields.
        names: the fields.
        prefix: what stands before their names in flags.

    Raises:
        ValueError: naming the field and its value.
    """
    for name in names:
        value = getattr(config, name)
        if not (value >= 0 and _is_finite(value)):
            raise ValueError(f"{prefix}{name}={value}: use {'zero or more' if value < 0 else 'a finite number'}")


def require_eval_data(config: RunConfig, *names: str) -> None:
    """Refuses settings of evaluations that have nothing to evaluate on.

    Args:
        config: the run.
        names: its fields, those of inner settings dotted.

    Raises:
        ValueError: naming the field that needs ``eval_data``.
    """
    for name in names:
        if config.eval_data is None and attrgetter(name)(config):
            raise ValueError(f"{name} needs eval_data: name a file of held-out records")
