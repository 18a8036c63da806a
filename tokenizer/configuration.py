"""Configuration of the UniAudio-Token encoder: a Whisper configuration plus quantizer, pooling and SAE keys.

Key names and meanings are those of the released checkpoints, so their ``config.json`` can be read as it is.
A *position* n means "after encoder layer n" (1-based); position 0 is in front of the first layer.
"""

from __future__ import annotations

import math
import os
from typing import Any

from transformers import WhisperConfig
from transformers.activations import ACT2FN

MODEL_TYPE = "uniaudio_tokenizer"
SAMPLE_RATE = 16000  # Hz; every Whisper encoder
HOP_LENGTH = 160  # samples per mel frame
CONV_STRIDE = 2  # mel frames per encoder frame, before pooling
RELEASE_LICENCE_NOTE = (
    "released UniAudio-Token weights: MIT-style licence with the clause that they are not intended for use within the "
    "European Union; read the checkpoint's own licence"
)
WHISPER_LICENCE_NOTE = "encoder weights start from OpenAI Whisper (MIT licence)"
MAX_SEGMENT_SAMPLES = 30 * SAMPLE_RATE  # Whisper's window


class UniAudioTokenizerConfig(WhisperConfig):
    """Rebuilds a `UniAudioTokenizer`; saved as ``config.json`` beside the weights.

    Args:
        pooling_kernel_size: encoder frames merged into one token; None for no pooling.
        pooling_type: ``"max"`` or ``"avg"``.
        pooling_position: where pooling happens; at most ``quantize_position``.
        quantize_vocab_size: codebook size V.
        quantize_position: where the quantizer sits, 1 to ``encoder_layers``.
        quantize_commit_coefficient: weight of the commitment loss.
        quantize_loss_scale: weight of the whole quantizer loss.
        quantize_ema_decay: decay of the codebook statistics; None trains the codebook by gradient.
        quantize_restart_interval: updates between restarts of dead codes; None never restarts.
        quantize_metric_size: dimensions of the linear map of the features in which distances to entries are measured,
            fitted with the codebook; None: distances of the features themselves, as in every released checkpoint. Ours
            alone: the published code would find other codes with a checkpoint that has it.
        quantize_encoder_only: the model ends at the quantizer.
        quantizer_bypassed: features passed by the quantizer so far (the first stage of training), so that codes mean
            little yet; written only where it is true.
        quantize_causal_encoder: layers in front of the quantizer see no later frame.
        quantize_causal_block_size: a frame also sees the rest of its block of this many frames (before pooling).
        encoder_causal_attention: no layer sees a later frame.
        encoder_causal_convolution: the convolutions see no later frame.
        encoder_residual_source_position: layer whose output the SAE adds; None for no SAE.
        encoder_residual_target_position: layer to whose output the SAE adds it.
        use_residual_adapter: pass the source through a two-layer adapter.
        use_residual_gate: weight it by a learned gate per channel and frame.
        use_commit_loss: whether training adds the quantizer loss to its own.
        codebook_gaussian_init: kept for the released layout; new codebooks are always drawn from a Gaussian.
        skip_language_detection: kept for the released layout; it concerns the text decoder.
        licence_note: what a user should know about the licence of the weights.

    Raises:
        ValueError: if positions, kernel or codebook do not fit together, naming the key and the fix.
    """

    model_type = MODEL_TYPE

    pooling_kernel_size: int | None = None
    pooling_type: str = "max"
    pooling_position: int = 0
    quantize_vocab_size: int = 8192
    quantize_position: int = 16
    quantize_commit_coefficient: float | int = 0.25
    quantize_loss_scale: float | int = 1.0
    quantize_ema_decay: float | int | None = None
    quantize_restart_interval: int | None = None
    quantize_metric_size: int | None = None
    quantize_encoder_only: bool = False
    quantizer_bypassed: bool = False
    quantize_causal_encoder: bool = False
    quantize_causal_block_size: int | None = None
    encoder_causal_attention: bool = False
    encoder_causal_convolution: bool = False
    encoder_residual_source_position: int | None = None
    encoder_residual_target_position: int | None = None
    use_residual_adapter: bool = False
    use_residual_gate: bool = False
    use_commit_loss: bool = True
    codebook_gaussian_init: bool = False
    skip_language_detection: bool = False
    licence_note: str = RELEASE_LICENCE_NOTE

    # Whisper's own defaults describe its smallest model; these are the released tokenizer's (Whisper-large-v3).
    num_mel_bins: int = 128
    d_model: int = 1280
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads ``config.json`` for ``from_pretrained``.

        Raises:
            ValueError: if it is another model's, whose values would be taken for ours or left at their defaults.
        """
        values, others = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if not values.get("quantize_vocab_size"):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no configuration of an audio tokenizer (no "
                "quantize_vocab_size): name its own folder, such as audio_tokenizer/ in that of an Audio-LLM"
            )
        return values, others

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_network()
        self._check_sizes()
        self._check_positions()

    def _check_network(self) -> None:
        require_positive(self, "d_model", "encoder_ffn_dim", "num_mel_bins", "max_source_positions")
        if self.activation_function not in ACT2FN:
            raise ValueError(f"activation_function={self.activation_function!r}: transformers has none, e.g. 'gelu'")
        for name in ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use 0 to 1")

    def _check_sizes(self) -> None:
        if self.quantize_vocab_size < 1:
            raise ValueError(f"quantize_vocab_size={self.quantize_vocab_size}: use a positive codebook size, e.g. 8192")
        if self.pooling_kernel_size is not None and self.pooling_kernel_size < 1:
            raise ValueError(f"pooling_kernel_size={self.pooling_kernel_size}: use a positive number, or null for none")
        if self.pooling_type not in ("max", "avg"):
            raise ValueError(f"pooling_type={self.pooling_type!r}: use 'max' or 'avg'")
        if self.quantize_ema_decay is not None and not 0 < self.quantize_ema_decay < 1:
            raise ValueError(f"quantize_ema_decay={self.quantize_ema_decay}: use a value between 0 and 1, or null")
        if self.quantize_restart_interval is not None and self.quantize_restart_interval < 1:
            raise ValueError(f"quantize_restart_interval={self.quantize_restart_interval}: use at least 1, or null")
        if self.quantize_metric_size is not None and not 1 <= self.quantize_metric_size <= self.d_model:
            raise ValueError(f"quantize_metric_size={self.quantize_metric_size}: use 1 to {self.d_model}, or null")
        block_size = self.quantize_causal_block_size
        if block_size is not None and block_size < self.pooling_factor:
            raise ValueError(
                f"quantize_causal_block_size={block_size} is smaller than pooling_kernel_size="
                f"{self.pooling_kernel_size}: a block must hold at least one token"
            )
        if self.encoder_attention_heads < 1:
            raise ValueError(f"encoder_attention_heads={self.encoder_attention_heads}: use at least 1")
        if self.d_model % self.encoder_attention_heads:
            raise ValueError(
                f"d_model={self.d_model} is not a multiple of encoder_attention_heads={self.encoder_attention_heads}"
            )

    def _check_positions(self) -> None:
        if not 1 <= self.quantize_position <= self.encoder_layers:
            raise ValueError(
                f"quantize_position={self.quantize_position}: the encoder has {self.encoder_layers} layers, "
                f"use 1 to {self.encoder_layers}"
            )
        if self.pooling_kernel_size is not None and not 0 <= self.pooling_position <= self.quantize_position:
            raise ValueError(
                f"pooling_position={self.pooling_position} must lie between 0 and "
                f"quantize_position={self.quantize_position}: pool in front of the quantizer"
            )
        source, target = self.encoder_residual_source_position, self.encoder_residual_target_position
        if (source is None) != (target is None):
            raise ValueError(
                f"encoder_residual_source_position={source} and encoder_residual_target_position={target}: "
                "set both, or neither for a model without SAE"
            )
        if source is not None and target is not None and not 1 <= source <= target:
            raise ValueError(
                f"encoder_residual_source_position={source} must be at least 1 and at most "
                f"encoder_residual_target_position={target}"
            )

    @property
    def pooling_factor(self) -> int:
        """Encoder frames per token; 1 without pooling."""
        return self.pooling_kernel_size or 1

    @property
    def token_stride(self) -> int:
        """Samples per token."""
        return HOP_LENGTH * CONV_STRIDE * self.pooling_factor

    @property
    def frame_rate(self) -> float:
        """Tokens per second, in Hz."""
        return SAMPLE_RATE / self.token_stride

    @property
    def num_code_positions(self) -> int:
        """Rows of the position table added to the quantized frames."""
        return math.ceil(self.max_source_positions / self.pooling_factor)

    @property
    def segment_samples(self) -> int:
        """Longest piece encoded at once, in samples: 30 s, or less where the position table is shorter."""
        # A segment is padded to a whole token, and that must not run past the last position.
        limit = min(MAX_SEGMENT_SAMPLES, self.max_source_positions * HOP_LENGTH * CONV_STRIDE)
        padded = math.ceil(limit / self.token_stride) * self.token_stride
        if padded <= self.max_source_positions * HOP_LENGTH * CONV_STRIDE:
            return limit
        return limit // self.token_stride * self.token_stride

    @property
    def has_sae(self) -> bool:
        """Whether the SAE exists at all (it may sit behind the quantizer)."""
        return self.encoder_residual_target_position is not None

    @property
    def has_final_norm(self) -> bool:
        """Whether there is a norm behind the last layer."""
        return not self.quantize_encoder_only

    @property
    def sae_is_active(self) -> bool:
        """Whether the SAE reaches the codes, that is, sits in front of the quantizer."""
        target = self.encoder_residual_target_position
        return target is not None and target <= self.quantize_position


def require_positive(config: Any, *names: str) -> None:
    """Raises ValueError naming the first of these fields that is not above zero."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)}: use a positive number")
