"""Configuration of a `LatentDiffusion`: its sizes, its text encoder, and the latents that it was trained for."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig

from audiollm.folders import LATENT_DIFFUSION
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.tokenizer.zoo.settings import require_few

Task = Literal["text_to_speech", "text_to_audio", "text_to_music"]
TASKS: tuple[Task, ...] = get_args(Task)
"""What a text can be: words to be said, or what is heard in a sound, or in music."""


class LatentDiffusionConfig(PretrainedConfig):
    """Rebuilds a `LatentDiffusion`; saved as ``config.json`` beside the weights.

    The defaults make 212 million weights without the text encoder, about the 208 million of LoSATok's paper
    (arXiv:2605.27840), which does not say how they are arranged.

    Args:
        latent_size: numbers of a latent.
        frame_rate: latents per second, in Hz.
        hidden_size: width.
        num_layers: blocks.
        num_heads: of an attention; they divide the width.
        time_size: sinusoids that tell the time of the flow.
        text_config: of the text encoder.
        train_text_encoder: whether the text encoder learns too; else it stays as it was.
        max_text_tokens: longest text, in tokens of the text encoder.
        tasks: those that it was trained for, of `TASKS`.
        max_frames: longest clip that it was trained on, in latents; it makes none that is longer.
        frames_per_character: latents of a character that is said, from the training data; None: unknown.
        sigma_min: share of the noise left at the end of the path.
        sway: how far sampling draws times towards the noise, see `Integration`.
        steps: evaluations of the network when nothing is said.
        guidance: strength of guidance when nothing is said; 0 is none. The papers' scale is this plus 1.
        audio_tokenizer_kind: the kind of audio tokenizer whose latents these are.
        audio_tokenizer_fingerprint: its hash; another one is refused.
        initializer_range: spread of new weights.

    Raises:
        ValueError: naming the setting that does not fit.
    """

    model_type = LATENT_DIFFUSION
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    latent_size: int = 128
    frame_rate: float | int = 25.0
    hidden_size: int = 1024
    num_layers: int = 12
    num_heads: int = 16
    time_size: int = 256
    text_config: Any = None
    train_text_encoder: bool = False
    max_text_tokens: int = 512
    tasks: Any = ("text_to_audio",)
    max_frames: int = 250
    frames_per_character: float | int | None = None
    sigma_min: float | int = 1e-6
    sway: float | int = 0.0
    steps: int = 20
    guidance: float | int = 2.0
    audio_tokenizer_kind: str | None = None
    audio_tokenizer_fingerprint: str | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            values = dict(self.text_config)
            if "model_type" not in values:
                raise ValueError("text_config has no model_type: give that of a text encoder of transformers")
            try:
                self.text_config = AutoConfig.for_model(values.pop("model_type"), **values)
            except StrictDataclassError as error:
                raise ValueError(f"text_config: {' '.join(str(error).split())}") from error
        if not isinstance(self.text_config, PretrainedConfig | None):
            raise ValueError(f"text_config={self.text_config!r}: give that of a text encoder of transformers")
        if not isinstance(self.tasks, list | tuple):
            raise ValueError(f"tasks={self.tasks!r}: use a list of {', '.join(TASKS)}")
        self.tasks = list(self.tasks)
        attention = getattr(self.text_config, "_attn_implementation", None)
        super().__post_init__(**kwargs)
        if self.text_config is not None and attention is not None and kwargs.get("attn_implementation") is None:
            # A text encoder that is there already keeps its own, which this would take away.
            self.text_config._attn_implementation = attention
        self._check()

    def _check(self) -> None:
        names = ("latent_size", "hidden_size", "num_layers", "num_heads", "time_size", "max_text_tokens", "max_frames",
                 "steps")  # fmt: skip
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: use a positive number, a whole one")
        require_few(self, "num_layers")
        rates = ("frame_rate",) if self.frames_per_character is None else ("frame_rate", "frames_per_character")
        for name in rates:
            if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: use a positive number")
        if not _is_number(self.sigma_min) or not 0 <= self.sigma_min < 1:
            raise ValueError(f"sigma_min={self.sigma_min!r}: use a share of noise in [0, 1), such as 1e-6")
        Integration(self.steps, self.guidance, sway=self.sway)  # refuses what cannot be sampled with
        for name in ("audio_tokenizer_kind", "audio_tokenizer_fingerprint"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name}={getattr(self, name)!r}: use a text, or leave it out")
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} does not make {self.num_heads} heads of an even size: use a multiple "
                f"of {2 * self.num_heads}"
            )
        if self.time_size % 2 or self.time_size < 4:
            raise ValueError(f"time_size={self.time_size}: use an even number from 4 on, such as 256")
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks={self.tasks}: use one or more of {', '.join(TASKS)}, each once")

    @property
    def head_dim(self) -> int:
        """Numbers of a head."""
        return self.hidden_size // self.num_heads

    @property
    def max_seconds(self) -> float:
        """Longest sound that it makes, a prompt included."""
        return self.max_frames / self.frame_rate

    def task_id(self, task: str) -> int:
        """The number of a task, from 1 on; 0 stands for none.

        Raises:
            ValueError: if it was not trained for it.
        """
        if task not in self.tasks:
            raise ValueError(f"task={task!r}: this model was trained for {', '.join(self.tasks)}")
        return int(self.tasks.index(task)) + 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
