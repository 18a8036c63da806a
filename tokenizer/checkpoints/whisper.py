"""Starts a tokenizer from a plain Whisper encoder, ready for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperConfig, WhisperModel

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer

DEFAULT_SOURCE_POSITION = 3  # the released tokenizer's


def build_from_whisper(
    whisper: str | Path | nn.Module,
    *,
    quantize_position: int,
    codebook_size: int = 8192,
    pooling_kernel_size: int | None = 2,
    pooling_type: str = "avg",
    pooling_position: int = 0,
    use_sae: bool = True,
    sae_source_position: int | None = None,
    use_adapter: bool = True,
    use_gate: bool = True,
    ema_decay: float | None = 0.95,
    restart_interval: int | None = 10,
    loss_scale: float = 10.0,
    encoder_only: bool = False,
    seed: int = 0,
    **config_values: Any,
) -> UniAudioTokenizer:
    """Puts the encoder of a Whisper model into a fresh tokenizer.

    Convolutions, positions, layers and final norm are Whisper's. New are the SAE (normal weights, zero biases, so that
    the gate starts at one half), the codebook (normal, with statistics that agree with it;
    see :func:`~audiollm.tokenizer.quantizer.kmeans.fit_codebook` for a better start) and the positions added to codes
    (sinusoids).

    Args:
        whisper: a folder or Hub id of any Whisper model in transformers' layout, or the loaded model.
        quantize_position: layer behind which the quantizer sits; half the depth is usual.
        codebook_size: V.
        pooling_kernel_size: encoder frames per code (2: 25 codes per second); None for no pooling.
        pooling_type: ``"avg"`` or ``"max"``.
        pooling_position: 0 pools in front of the first layer, as the release does (cheapest); ``quantize_position``
            pools right at the quantizer, so that the pretrained layers see what they were trained on.
        use_sae: add the SAE, fused in front of the quantizer.
        sae_source_position: its shallow layer; 3, or the layer before the quantizer if that comes earlier.
        use_adapter: see the configuration.
        use_gate: see the configuration.
        ema_decay: of the codebook; None trains it by gradient.
        restart_interval: updates between restarts of dead codes.
        loss_scale: weight of the quantizer loss.
        encoder_only: leave out the layers behind the quantizer.
        seed: for the new weights; the global generator is left alone.
        config_values: further keys of :class:`UniAudioTokenizerConfig`.

    Raises:
        ValueError: if ``whisper`` is no Whisper model or the positions do not fit its depth.
    """
    model = whisper if isinstance(whisper, nn.Module) else WhisperModel.from_pretrained(str(whisper))
    whisper_config = getattr(model, "config", None)
    if not isinstance(whisper_config, WhisperConfig):
        raise ValueError(
            f"{type(model).__name__} is not a Whisper model; pass a WhisperModel or a folder that holds one"
        )
    inherited = whisper_config.to_dict()
    for key in ("architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "_name_or_path"):
        inherited.pop(key, None)
    if use_sae and sae_source_position is None:
        sae_source_position = max(1, min(DEFAULT_SOURCE_POSITION, quantize_position - 1))
    config = UniAudioTokenizerConfig(
        **inherited
        | {
            "pooling_kernel_size": pooling_kernel_size,
            "pooling_type": pooling_type,
            "pooling_position": pooling_position,
            "quantize_vocab_size": codebook_size,
            "quantize_position": quantize_position,
            "quantize_ema_decay": ema_decay,
            "quantize_restart_interval": restart_interval,
            "quantize_loss_scale": loss_scale,
            "quantize_encoder_only": encoder_only,
            "encoder_residual_source_position": sae_source_position if use_sae else None,
            "encoder_residual_target_position": quantize_position if use_sae else None,
            "use_residual_adapter": use_sae and use_adapter,
            "use_residual_gate": use_sae and use_gate,
            "licence_note": "encoder weights start from OpenAI Whisper (MIT licence)",
        }
        | config_values
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = UniAudioTokenizer(config)
    copy_whisper_encoder(model, tokenizer)
    return tokenizer.eval()


def copy_whisper_encoder(whisper: nn.Module, tokenizer: UniAudioTokenizer) -> None:
    """Copies the encoder's weights by name; layers that the tokenizer does without are left out."""
    prefix = next((name for name in ("model.encoder.", "encoder.") if has_prefix(whisper, name)), "")
    source = {
        name.removeprefix(prefix): tensor for name, tensor in whisper.state_dict().items() if name.startswith(prefix)
    }
    target = tokenizer.encoder.state_dict()
    missing = sorted(target.keys() - source.keys())
    if missing:
        raise ValueError(f"the Whisper model lacks encoder weights: {', '.join(missing)}")
    tokenizer.encoder.load_state_dict({name: source[name] for name in target})


def has_prefix(module: nn.Module, prefix: str) -> bool:
    """Whether any parameter's name starts with ``prefix``."""
    return any(name.startswith(prefix) for name, _ in module.named_parameters())
