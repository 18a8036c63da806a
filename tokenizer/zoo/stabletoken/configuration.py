"""Configuration of StableToken: that of UniAudio-Token's encoder, with the keys of a quantizer that votes."""

from __future__ import annotations

from typing import Any

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.quantizer.lfq import bits_of


class StableTokenConfig(UniAudioTokenizerConfig):
    """Rebuilds a `StableToken`; keys and meanings are those of the released ``config.json``.

    Args:
        num_voters: linear maps that vote on each bit.
        num_clean_input: of them, those that hear the clean clip in training.
        use_projection_bias: whether they have a bias.
        layernorm_after_quantize: whether the final norm is applied behind the quantizer; it is in the file either way.
        sample_minimization_weight: of the entropy of each frame in the quantizer's loss.
        batch_maximization_weight: of the entropy of the codebook, which the loss makes large.
        quantize_consensus_coefficient: of the distance of each voter from the mean of all. Ours: the release computes
            that and adds it nowhere.

    Raises:
        ValueError: as of the base class; if the codebook's size is no power of two or the voters do not fit.
    """

    model_type = "stabletoken"

    licence_note: str = (
        "released StableToken weights: MIT-style licence with the clause that they are not intended for use within the "
        "European Union; read the checkpoint's own licence"
    )

    num_voters: int = 5
    num_clean_input: int = 3
    use_projection_bias: bool = True
    layernorm_after_quantize: bool = False
    sample_minimization_weight: float | int = 1.0
    batch_maximization_weight: float | int = 1.0
    quantize_consensus_coefficient: float | int = 0.25

    # Of the release, where they differ from UniAudio-Token's.
    pooling_kernel_size: int | None = 2
    pooling_type: str = "avg"
    pooling_position: int = 16
    quantize_encoder_only: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not 1 <= self.num_clean_input <= self.num_voters:
            raise ValueError(f"num_clean_input={self.num_clean_input}: use 1 to num_voters={self.num_voters}")
        try:
            bits_of(self.quantize_vocab_size)
        except ValueError as error:
            raise ValueError(f"quantize_vocab_size: {error}") from error
        if self.has_sae or self.quantize_ema_decay is not None:
            raise ValueError(
                "StableToken has neither an SAE nor a codebook of averages: set encoder_residual_source_position, "
                "encoder_residual_target_position and quantize_ema_decay to null"
            )

    @property
    def has_final_norm(self) -> bool:
        """Whether the checkpoint holds the norm behind the last layer."""
        return True

    @property
    def num_code_positions(self) -> int:
        """Rows of the position table added to the quantized frames: as many as in front of the pooling."""
        return self.max_source_positions
