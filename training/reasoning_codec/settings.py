"""Settings that a ReasoningCodec's first two stages have: its sizes, its frozen encoders, the text LLM, the rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiollm.training.loop.config import require_not_negative, require_positive
from audiollm.training.uniaudio.config import TextLoRASettings


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """A frozen encoder of a new codec."""

    source: str
    """An audio encoder of transformers, as folder or Hub id, or ``whisper-tiny.en`` or ``whisper-base`` from a package
    index."""

    layers: tuple[tuple[int, ...], ...] | None = None
    """For each of its streams the hidden states whose mean it is; 0 is what the first layer sees. None: those of the
    published codec."""


@dataclass(frozen=True, kw_only=True)
class EncodersSettings:
    """What a new codec hears by; all three are needed, as the last stage hears by the same."""

    whisper: EncoderSettings
    """Of speech, 50 vectors a second in one stream."""

    wavlm: EncoderSettings
    """Of speech, 50 vectors a second in one stream; the reasoning codes do not hear it."""

    music: EncoderSettings
    """Of all else, 25 vectors a second in two streams, of early layers and of late ones. Where it gives 50 a second,
    the mean of two is taken."""


@dataclass(frozen=True, kw_only=True)
class CodecSizes:
    """Sizes of a new codec's reasoning branch; the defaults are the published ones."""

    size: int = 768
    """Of the vectors that are quantized, also in the reconstruction."""

    query_interval: int = 5
    """Frames of 25 Hz of a reasoning code."""

    layers: int = 5
    """Transformer blocks."""

    head_size: int = 128
    """Of their attention."""

    inner_size: int = 3072
    """Of their inner layers."""

    quantizer: tuple[int, ...] = (8, 4096, 64)
    """Codebooks, entries of each, numbers of an entry."""

    def __post_init__(self) -> None:
        require_positive(self, "size", "query_interval", "layers", "head_size", "inner_size", prefix="sizes.")


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """How often a clip's texts are asked for; each time one is drawn among those that its record has."""

    sap: float = 1.0
    """The whole of its SAP record: words, voice and scene."""

    asr: float = 1.0
    """Its words."""

    caption: float = 1.0
    """Its caption."""

    emotion: float = 0.0
    """The emotion of its speaker."""

    question: float = 1.0
    """The answer of a conversation record, such as `audiollm.data.sap.question_records` makes."""

    def __post_init__(self) -> None:
        require_not_negative(self, "sap", "asr", "caption", "emotion", "question", prefix="analysis.tasks.")


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """What the text LLM is to write, and how it learns; for the first two stages."""

    tasks: TaskWeights = field(default_factory=TaskWeights)
    """Weight of each kind of text."""

    max_text_tokens: int = 512
    """Records with longer texts cannot be used."""

    lora: TextLoRASettings | None = None
    """Train adapters of the text LLM in place of all its weights. ``--analysis.lora.r 32`` is enough to switch it on.
    Settled with ``llm``: whoever goes on takes what there is."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the text LLM's frozen weights, where adapters are trained; what is trained has float32."""

    gradient_checkpointing: bool = False
    """Compute activations of the text LLM again in the backward pass: less memory, more time."""

    llm_learning_rate: float | None = None
    """Peak learning rate of the text LLM, or its adapters. None: that of the codec."""

    commitment_weight: float = 1.0
    """Weight of the squared distance between what is quantized and its entries, the mean over the codebooks."""

    feature_megabytes: int = 0
    """What the frozen encoders say is kept in memory up to this size, and computed once. A minute takes 25 MB at the
    published sizes. 0: computed each time."""

    def __post_init__(self) -> None:
        require_positive(self, "max_text_tokens", "llm_learning_rate", prefix="analysis.")
        require_not_negative(self, "commitment_weight", "feature_megabytes", prefix="analysis.")
