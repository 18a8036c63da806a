"""Configuration of the multi-stream LM: that of the text LLM, of the stacks around it, of streams, marks and losses."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, LlamaConfig, PretrainedConfig

from .special_ids import SpecialIds
from .stacks import config_like, read_config

MODEL_TYPE = "uniaudio_lm"
EXPERTS = ("understanding_expert_config", "generation_expert_config")


class UniAudioLMConfig(PretrainedConfig):
    """Rebuilds a `UniAudioLM`; saved as ``config.json`` beside the weights. Defaults have the size of the paper.

    Args:
        text_config: of the text LLM (Llama, Qwen2, Qwen3, Mistral); None: the sizes of Llama 3.2 3B.
        understanding_expert_config: of the layers in front of the text LLM; None: three like its own.
        generation_expert_config: of those behind it; None: two like its own.
        local_decoder_config: of the decoder that writes the codes of a frame; None: four layers like the text LLM's.
        num_audio_streams: codes of a frame.
        reasoning_vocab_size: ids of a stream for reasoning tokens, marks included; the first of its vocabulary.
        reconstruction_vocab_size: ids of a stream for reconstruction tokens, marks included; they follow.
        special_ids: the marks, see `SpecialIds`; None: those for the default sizes.
        text_loss_weight: weight of the loss of text in the sum.
        stream_loss_weights: weight of each audio stream; None: all 1.
        audio_ignore_id: audio label that counts as nothing; None: what fills gaps (``reconstruction_pad``).
        initializer_range: spread of new weights.
        trained_stages: stages of training that the weights have been through, in their order; see
            ``training/train_uniaudio.py``.

    Raises:
        ValueError: naming the setting that does not fit: a family that is not supported, experts of another width, a
            mark outside its vocabulary, a wrong number of weights.
    """

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = dict.fromkeys(
        ("text_config", "understanding_expert_config", "generation_expert_config", "local_decoder_config"), AutoConfig
    )

    text_config: Any = None
    understanding_expert_config: Any = None
    generation_expert_config: Any = None
    local_decoder_config: Any = None
    num_audio_streams: int = 8
    reasoning_vocab_size: int = 4100
    reconstruction_vocab_size: int = 8200
    special_ids: Any = None
    text_loss_weight: float | int = 1.6
    stream_loss_weights: Any = None
    audio_ignore_id: int | None = None
    initializer_range: float = 0.02
    trained_stages: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._read_parts()
        if self.special_ids is None:
            self.special_ids = SpecialIds().to_dict()
        elif isinstance(self.special_ids, SpecialIds):
            self.special_ids = self.special_ids.to_dict()
        self.trained_stages = list(self.trained_stages or ())
        if self.stream_loss_weights is None:
            self.stream_loss_weights = [1.0] * self.num_audio_streams
        attention = {name: getattr(self, name)._attn_implementation for name in self.sub_configs}
        super().__post_init__(**kwargs)
        for name, one in attention.items():  # a model that is there already keeps its own, which this would take away
            if kwargs.get("attn_implementation") is None:
                getattr(self, name)._attn_implementation = one
        self._check_streams()
        self._check_widths()
        self.marks.check(self.reasoning_vocab_size, self.reconstruction_vocab_size, self.text_config.vocab_size)

    @property
    def marks(self) -> SpecialIds:
        """The special ids, as an object."""
        return SpecialIds.from_dict(self.special_ids)

    @property
    def audio_vocab_size(self) -> int:
        """Ids of one audio stream."""
        return self.reasoning_vocab_size + self.reconstruction_vocab_size

    @property
    def ignored_audio_id(self) -> int | None:
        """The audio label that counts as nothing, counted through the whole vocabulary of a stream."""
        pad = self.marks.reconstruction_pad
        if self.audio_ignore_id is None and pad is not None:
            return self.reasoning_vocab_size + pad
        return self.audio_ignore_id

    def offset_of(self, part: str) -> int:
        """What is added to the ids of an audio part, ``"reasoning"`` or ``"reconstruction"``."""
        return 0 if part == "reasoning" else self.reasoning_vocab_size

    def size_of(self, part: str) -> int:
        """Ids of an audio part."""
        return self.reasoning_vocab_size if part == "reasoning" else self.reconstruction_vocab_size

    def _read_parts(self) -> None:
        if self.text_config is None:
            self.text_config = paper_text_config()
            self.local_decoder_config = self.local_decoder_config or paper_local_decoder_config()
        self.text_config = read_config(self.text_config, "text_config")
        if self.understanding_expert_config is None:
            self.understanding_expert_config = config_like(self.text_config, num_hidden_layers=3)
        if self.generation_expert_config is None:
            self.generation_expert_config = config_like(self.text_config, num_hidden_layers=2)
        if self.local_decoder_config is None:
            self.local_decoder_config = config_like(self.text_config, num_hidden_layers=4)
        for name in (*EXPERTS, "local_decoder_config"):
            setattr(self, name, read_config(getattr(self, name), name))

    def _check_streams(self) -> None:
        if self.num_audio_streams < 1:
            raise ValueError(f"num_audio_streams={self.num_audio_streams}: use at least 1, the release has 8")
        if self.reasoning_vocab_size < 0 or self.reconstruction_vocab_size < 0 or self.audio_vocab_size < 1:
            raise ValueError(
                f"reasoning_vocab_size={self.reasoning_vocab_size}, reconstruction_vocab_size="
                f"{self.reconstruction_vocab_size}: use positive sizes, such as 4100 and 8200"
            )
        if len(self.stream_loss_weights) != self.num_audio_streams:
            raise ValueError(
                f"stream_loss_weights has {len(self.stream_loss_weights)} weights for {self.num_audio_streams} audio "
                "streams: give one for each"
            )
        ignored = self.audio_ignore_id
        if ignored is not None and not 0 <= ignored < self.audio_vocab_size:
            raise ValueError(f"audio_ignore_id={ignored} is not in [0, {self.audio_vocab_size})")

    def _check_widths(self) -> None:
        width = self.text_config.hidden_size
        for name in EXPERTS:
            found = getattr(self, name).hidden_size
            if found != width:
                raise ValueError(
                    f"{name}.hidden_size={found}, but the text LLM has {width}: an expert is as wide as the text LLM"
                )


def paper_text_config() -> LlamaConfig:
    """The sizes of Llama 3.2 3B, on which the paper builds."""
    return LlamaConfig(
        vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
        num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-5, max_position_embeddings=131072, bos_token_id=128000,
        eos_token_id=128001,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    )  # fmt: skip


def paper_local_decoder_config() -> LlamaConfig:
    """The released local decoder: four layers of width 2048 with 32 heads."""
    return config_like(paper_text_config(), hidden_size=2048, num_hidden_layers=4, num_attention_heads=32, head_dim=64)
