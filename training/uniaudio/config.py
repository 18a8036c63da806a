"""Settings of a stage of a multi-stream LM's training: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from audiollm.training.audio_llm.config import ConversationRunConfig
from audiollm.training.loop.config import require_not_negative, require_positive

from .stages import PARTS, STAGES, TEXT_PART, PartName, StageName

_BEST = ("loss", "text_loss", "text_perplexity")  # figures of an evaluation that may decide which is the best


@dataclass(frozen=True, kw_only=True)
class UniAudioSizes:
    """Sizes of what is put around a text LLM in the first stage; later ones take over what there is."""

    understanding_layers: int = 3
    """Layers of the expert in front of the text LLM."""

    generation_layers: int = 2
    """Layers of the expert behind it."""

    local_decoder_layers: int = 4
    """Layers of the decoder that writes the codes of a frame."""

    local_decoder_size: int | None = None
    """Its width. None: that of the text LLM."""

    local_decoder_heads: int | None = None
    """Its attention heads. None: as many as the text LLM has."""

    local_decoder_key_value_heads: int | None = None
    """Its heads of keys and values, of which the others are a multiple. None: as many as the text LLM has."""

    def __post_init__(self) -> None:
        names = ("understanding_layers", "generation_layers", "local_decoder_layers")
        widths = ("local_decoder_size", "local_decoder_heads", "local_decoder_key_value_heads")
        require_positive(self, *names, *widths, prefix="sizes.")

    def options(self) -> dict[str, Any]:
        """As `UniAudioLM.from_text_llm` takes them."""
        local: dict[str, Any] = {"num_hidden_layers": self.local_decoder_layers}
        if self.local_decoder_size is not None:
            local["hidden_size"] = self.local_decoder_size
        if self.local_decoder_heads is not None:
            local["num_attention_heads"] = self.local_decoder_heads
        if self.local_decoder_key_value_heads is not None:
            local["num_key_value_heads"] = self.local_decoder_key_value_heads
        return {
            "num_understanding_layers": self.understanding_layers,
            "num_generation_layers": self.generation_layers,
            "local_decoder": local,
        }


@dataclass(frozen=True, kw_only=True)
class TextLoRASettings:
    """Low-rank adapters on the linear layers of the text LLM, merged into them at the end of a run."""

    r: int = 32
    """Rank of each adapter."""

    alpha: float = 32.0
    """Adapters are scaled by alpha / r."""

    dropout: float = 0.0
    """Dropout in front of each adapter."""

    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers that get an adapter. None: all but the output layer."""

    def __post_init__(self) -> None:
        if self.r <= 0:
            raise ValueError(f"lora.r={self.r}: use a positive rank, such as 32")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha={self.alpha}: use a positive scale, such as lora.r")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout}: use a probability in [0, 1)")
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("lora.target_modules is empty: name at least one linear layer, such as q_proj")


@dataclass(frozen=True, kw_only=True)
class UniAudioTrainingConfig(ConversationRunConfig):
    """One stage of the training of a multi-stream LM around a text LLM (UniAudio 2.0)."""

    stage: StageName
    """Which of the four; they come in their order, each from the model that the one before has left."""

    model: str
    """For the first stage the text LLM to build around, a folder or Hub id; for the others what the stage before has
    left: the folder of its run, or of its model."""

    audio_tokenizer: str | None = None
    """For the first stage: the audio tokenizer whose codes the LM reads and writes, a stream for each codebook."""

    codebooks: int | None = None
    """Use the first so many codebooks of ``audio_tokenizer``. None: all."""

    sizes: UniAudioSizes = field(default_factory=UniAudioSizes)
    """Of what is put around the text LLM in the first stage."""

    trained_parts: tuple[PartName, ...] | None = None
    """What is trained. None: what the stage trains."""

    lora: TextLoRASettings | None = None
    """Adapters on the layers of the text LLM, in the last two stages. ``--lora.r 32`` is enough to switch them on."""

    text_loss_weight: float = 1.6
    """Weight of the loss of text in the sum."""

    stream_loss_weights: tuple[float, ...] | None = None
    """Weight of the loss of each audio stream, whose mean is taken. None: all 1."""

    unconditional_share: float = 0.1
    """Share of the records with sound to learn in which a pad stands in place of all that is not learned, so that
    answers can be guided away from those without a question. Another tenth in each pass."""

    learning_rate: float = 2e-4
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "codebooks")
        require_not_negative(self, "text_loss_weight")
        if not 0 <= self.unconditional_share <= 1:
            raise ValueError(f"unconditional_share={self.unconditional_share}: use a share between 0 and 1")
        if any(not (math.isfinite(one) and one >= 0) for one in self.stream_loss_weights or ()):
            raise ValueError(f"stream_loss_weights={list(self.stream_loss_weights or ())}: use zero or more for each")
        if self.codebooks is not None and self.audio_tokenizer is None:
            raise ValueError("codebooks has no effect without audio_tokenizer: the model brings its own")
        self._check_parts()
        if self.metric_for_best not in (None, *_BEST):
            raise ValueError(f"metric_for_best={self.metric_for_best}: use one of {', '.join(_BEST)}")
        if self.metric_for_best in _BEST[1:] and self.eval_text is None:
            raise ValueError(f"metric_for_best={self.metric_for_best} needs eval_text: there is no such figure without")

    def _check_parts(self) -> None:
        adapts = STAGES[self.stage].adapts_text
        if self.trained_parts is not None:
            if not self.trained_parts or len(set(self.trained_parts)) < len(self.trained_parts):
                raise ValueError(
                    f"trained_parts={list(self.trained_parts)}: name each of {', '.join(PARTS)} at most once, and one"
                )
            if TEXT_PART in self.trained_parts and not adapts:
                raise ValueError(f"trained_parts has {TEXT_PART}: stage={self.stage} leaves it as it is; take it out")
        if self.lora is None:
            return
        if not adapts:
            raise ValueError(f"lora: stage={self.stage} leaves the layers of the text LLM as they are; remove it")
        if self.trained_parts is not None and TEXT_PART in self.trained_parts:
            raise ValueError(f"lora and {TEXT_PART} in trained_parts: train the layers by one of them")

    @property
    def parts(self) -> tuple[PartName, ...]:
        """What is trained, adapters left out."""
        return STAGES[self.stage].parts if self.trained_parts is None else self.trained_parts
