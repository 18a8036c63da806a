"""What encoding is timed with: an audio tokenizer with random weights, noise, other number formats, and its parts."""
# Shapes: N samples, D feature size, V codebook entries.

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from audiollm.tokenizer.configuration import SAMPLE_RATE, UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .timing import PartTimer, now

FORMS = ("bfloat16", "float16", "int8", "compiled")
"""Of `in_another_form`."""


@dataclass(frozen=True, kw_only=True)
class TokenizerSizes:
    """Sizes of an audio tokenizer; they default to Whisper-base with the quantizer at half depth."""

    d_model: int = 512
    """Feature size."""
    encoder_layers: int = 6
    """Layers of the plain path; encode() needs only those up to the quantizer."""
    quantize_position: int = 3
    """Layer behind which the quantizer sits."""
    codebook_size: int = 8192
    """Codebook entries."""
    num_mel_bins: int = 80
    """Mel bins of the features."""
    use_sae: bool = True
    """Put the gated residual in front of the quantizer."""


RELEASED_SIZES = TokenizerSizes(d_model=1280, encoder_layers=32, quantize_position=16, num_mel_bins=128)
"""Those of the released tokenizer, which Whisper-large-v3 began."""


def build_model(sizes: TokenizerSizes, seed: int, device: torch.device | str = "cpu") -> UniAudioTokenizer:
    """Makes a tokenizer with random weights whose entries lie among features of noise.

    Args:
        sizes: of the model.
        seed: of weights and entries.
        device: where it is; weights are drawn on the processor.
    """
    torch.manual_seed(seed)
    model = UniAudioTokenizer(
        UniAudioTokenizerConfig(
            d_model=sizes.d_model,
            encoder_layers=sizes.encoder_layers,
            encoder_attention_heads=sizes.d_model // 64,
            encoder_ffn_dim=4 * sizes.d_model,
            num_mel_bins=sizes.num_mel_bins,
            pooling_kernel_size=2,
            pooling_type="avg",
            quantize_position=sizes.quantize_position,
            quantize_vocab_size=sizes.codebook_size,
            encoder_residual_source_position=1 if sizes.use_sae else None,
            encoder_residual_target_position=sizes.quantize_position if sizes.use_sae else None,
            use_residual_adapter=sizes.use_sae,
            use_residual_gate=sizes.use_sae,
        )
    ).eval()
    model.to(device)
    features = model.encode(make_clips([30.0] * 4, seed=1), SAMPLE_RATE, return_features=True).features
    assert features is not None
    rows_ND = torch.cat(features).cpu()
    spread_D = rows_ND.std(dim=0)
    drawn_V = torch.randint(len(rows_ND), (sizes.codebook_size,))
    with torch.no_grad():
        model.codebook.weight.copy_(rows_ND[drawn_V] + 0.3 * spread_D * torch.randn(sizes.codebook_size, len(spread_D)))
    return model


def make_clips(seconds: list[float], seed: int) -> list[Tensor]:
    """Makes noise with changing loudness and colour, at 16 kHz."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for length in seconds:
        waveform = torch.randn(int(length * SAMPLE_RATE), generator=generator)
        places = torch.arange(len(waveform)) / SAMPLE_RATE
        waveform = waveform * (0.1 + 0.09 * torch.sin(places * 7)) + 0.2 * torch.sin(places**1.5 * 600)
        clips.append(waveform)
    return clips


def clip_lengths(number: int, seed: int) -> list[float]:
    """Draws lengths of clips, 1 to 30 s."""
    generator = torch.Generator().manual_seed(seed)
    return (1 + 29 * torch.rand(number, generator=generator)).tolist()


def in_another_form(model: UniAudioTokenizer, name: str) -> UniAudioTokenizer:
    """Returns a copy of the model in another number format, or compiled; the codebook stays in float32.

    Raises:
        ValueError: for a name that is not among `FORMS`.
    """
    variant = copy.deepcopy(model)
    if name in ("bfloat16", "float16"):
        for part in (variant.encoder, variant.sae):
            if part is not None:
                part.to(getattr(torch, name))
    elif name == "int8":
        variant.to_int8()
    elif name == "compiled":
        variant.compile_encoder()
    else:
        raise ValueError(f"variant {name!r}: use {', '.join(FORMS[:-1])} or {FORMS[-1]}")
    return variant


def share_changed(first: list[list[int]], second: list[list[int]]) -> float:
    """Share of codes that differ between two encodings of the same clips."""
    pairs = [(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)]
    return sum(a != b for a, b in pairs) / max(1, len(pairs))


def parts_of_encode(model: UniAudioTokenizer, clips: list[Tensor]) -> dict[str, float]:
    """Splits one encode() into parts, by timing the model's pieces; instance attributes are put back."""
    timer = PartTimer(model.device)
    owners = [
        (model, "log_mel", "log-mel"),
        (model.encoder, "stem", "convolutions"),
        (model.encoder, "pool", "convolutions"),
        (model.codebook, "encode", "quantizer"),
        (model.codebook, "search_index", "quantizer"),
    ]
    owners += [(layer, "forward", "layers up to the quantizer") for layer in model.encoder.layers]
    if model.sae is not None:
        owners.append((model.sae, "forward", "SAE"))
    log_mel = model.log_mel
    for owner, name, part in owners:
        setattr(owner, name, timer.wrap(part, getattr(owner, name)))
    start = now(model.device)
    model.encode(clips, SAMPLE_RATE)
    total = now(model.device) - start
    for owner, name, _ in owners:
        delattr(owner, name)
    model.log_mel = log_mel
    return {**timer.seconds, "rest": total - sum(timer.seconds.values())}
