"""Activation memory of a tokenizer's training: what one clip keeps between its forward and its backward pass.

python -m audiollm.training.audio_tokenizer.memory --seconds 30 --tokens 200 --mixed_precision bf16

Weights, gradients and optimizer come on top: 16 bytes per trainable weight, 4 per frozen one, and with bf16 2 more per
weight for copies of it. What is left of a device's memory, divided by what this prints, is the ``micro_batch_size``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperModel

from audiollm.program import run_program
from audiollm.tokenizer.configuration import HOP_LENGTH, SAMPLE_RATE
from audiollm.tokenizer.supervision.model import SupervisedTokenizer

logger = logging.getLogger(__name__)

_PAD, _START, _FIRST = 0, 1, 2  # token ids


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Sizes of a Whisper; by default those of large-v3."""

    d_model: int = 1280
    """Feature size."""

    heads: int = 20
    """Attention heads of every layer."""

    encoder_layers: int = 32
    """Layers of the encoder."""

    decoder_layers: int = 32
    """Layers of the text decoder."""

    num_mel_bins: int = 128
    """Channels of the input."""

    def __post_init__(self) -> None:
        if self.d_model % self.heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of heads={self.heads}: change one of them")
        if min(self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError("encoder_layers and decoder_layers: use 1 or more")


def activation_bytes(
    size: ModelSize,
    *,
    seconds: float = 30.0,
    tokens: int = 200,
    mixed_precision: Literal["no", "bf16"] = "no",
    gradient_checkpointing: bool = False,
) -> int:
    """Measures what a forward pass keeps for the backward pass of each clip, on this machine's CPU.

    Two clips are compared with one, so that what a pass keeps once (copies of weights) is left out. Small models are
    measured and the layers that they lack are added: all layers of a kind keep the same. With gradient checkpointing,
    one layer at a time keeps what it needs while it is computed again; it is counted in.

    Args:
        size: the model.
        seconds: length of the clip, padding included.
        tokens: length of its text.
        mixed_precision: as in a run.
        gradient_checkpointing: as in a run.

    Returns:
        Bytes; each storage counts once.
    """

    def kept(encoder_layers: int, decoder_layers: int, checkpointing: bool) -> int:
        model = _random_model(size, encoder_layers, decoder_layers)
        model.checkpoint_gradients(checkpointing)
        one, two = (_kept_bytes(model, clips, seconds, tokens, mixed_precision == "bf16") for clips in (1, 2))
        return two - one

    def layers(checkpointing: bool) -> tuple[int, int, int]:
        """Of a model with two layers each; of one more in the encoder; of one more in the decoder."""
        both = kept(2, 2, checkpointing)
        return both, kept(3, 2, checkpointing) - both, kept(2, 3, checkpointing) - both

    both, of_encoder, of_decoder = layers(gradient_checkpointing)
    total = both + (size.encoder_layers - 2) * of_encoder + (size.decoder_layers - 2) * of_decoder
    if gradient_checkpointing:
        total += max(layers(False)[1:])
    return total


def _random_model(size: ModelSize, encoder_layers: int, decoder_layers: int) -> SupervisedTokenizer:
    config = WhisperConfig(
        vocab_size=100,  # logits exist in chunks only
        num_mel_bins=size.num_mel_bins,
        d_model=size.d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.d_model,
        decoder_ffn_dim=4 * size.d_model,
        max_target_positions=2048,
        pad_token_id=_PAD,
        bos_token_id=_PAD,
        eos_token_id=_PAD,
        decoder_start_token_id=_START,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whisper = WhisperModel(config)
    # The codebook's size changes what the codebook takes, and nothing that a clip does.
    model = SupervisedTokenizer.from_whisper(whisper, quantize_position=1, sae_source_position=1, codebook_size=64)
    model.tokenizer.codebook.deferred = True
    return model.train()


def _kept_bytes(model: SupervisedTokenizer, num_clips: int, seconds: float, tokens: int, bf16: bool) -> int:
    num_frames = -(-round(seconds * SAMPLE_RATE) // (4 * HOP_LENGTH)) * 4
    features = torch.zeros(num_clips, model.config.num_mel_bins, num_frames)
    # A frame is masked, as in a batch with a longer clip, so that attention takes its mask.
    mask = torch.ones(num_clips, num_frames, dtype=torch.int64)
    mask[:, -4:] = 0
    token_ids = torch.full((num_clips, tokens), _FIRST)
    of_model = {_storage(one) for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in of_model:
            kept[_storage(tensor)] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        output = model(features, mask, token_ids, token_ids, example_ids=torch.arange(num_clips))
    assert output.text_loss_sum.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def measure(
    size: ModelSize | None = None,
    seconds: float = 30.0,
    tokens: int = 200,
    mixed_precision: Literal["no", "bf16"] = "no",
) -> None:
    """Measures the activation memory of one clip, with and without gradient checkpointing.

    Args:
        size: the model; Whisper-large-v3 by default.
        seconds: length of the clip.
        tokens: length of its text.
        mixed_precision: as in a run.
    """
    for checkpointing in (False, True):
        kept = activation_bytes(
            size or ModelSize(),
            seconds=seconds,
            tokens=tokens,
            mixed_precision=mixed_precision,
            gradient_checkpointing=checkpointing,
        )
        logger.info("gradient_checkpointing %s: %.0f MB per clip", str(checkpointing).lower(), kept / 1e6)


if __name__ == "__main__":
    run_program(measure, name="memory")
