"""What is known of audio tokenizers: of every kind, and of one that is open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from .base import AudioTokenizer
from .kinds import KINDS


def facts_of_kinds() -> list[dict[str, str]]:
    """Each kind with its sizes, what it needs, the files by which it is known, and the licence of its weights."""
    return [
        {
            "kind": kind.name,
            "title": kind.title,
            "sizes": kind.facts,
            "needs": kind.needs,
            "licence": kind.licence,
            "files": kind.looks_for,
        }
        for kind in KINDS
    ]


def facts_of_tokenizer(audio_tokenizer: AudioTokenizer) -> dict[str, Any]:
    """Sizes, rates and abilities of a tokenizer.

    Args:
        audio_tokenizer: of any kind; sizes of one without codes are of its latents.

    Returns:
        Plain values by name; ``frame_rate`` is None where there are several, which ``code_groups`` tells.
        ``bitrate_bps`` counts each code as the logarithm of the size of its codebook, and is None of latents;
        ``parameters`` counts weights that are loaded, codebooks among them.
    """
    groups = audio_tokenizer.code_groups
    sizes = audio_tokenizer.codebook_sizes if groups else ()
    tokenizer: Any = audio_tokenizer
    several = {"code_groups": [str(one) for one in groups]} if len(groups) > 1 else {}
    return {
        "kind": audio_tokenizer.kind,
        "class": type(audio_tokenizer).__name__,
        "num_codebooks": len(sizes),
        "codebook_sizes": list(sizes),
        "latent_size": audio_tokenizer.latent_size,
        "sample_rate": audio_tokenizer.sample_rate,
        "output_sample_rate": audio_tokenizer.output_sample_rate if audio_tokenizer.can_decode else None,
        "frame_rate": None if several else audio_tokenizer.frame_rate,
        **several,
        "tokens_per_second": sum(one.tokens_per_second for one in groups),
        "bitrate_bps": sum(one.bits_per_second for one in groups) if groups else None,
        "parameters": _num_weights(tokenizer) if isinstance(tokenizer, nn.Module) else None,
        "is_causal": audio_tokenizer.is_causal,
        "max_segment_seconds": audio_tokenizer.max_segment_seconds,
        "can_decode": audio_tokenizer.can_decode,
        "can_encode_stream": audio_tokenizer.can_encode_stream,
        "can_decode_stream": audio_tokenizer.can_decode_stream,
        "licence": audio_tokenizer.licence_note or None,
        "fingerprint": audio_tokenizer.fingerprint(),
    }


def bitrate_bps(frame_rate: float, codebook_sizes: Sequence[int]) -> float:
    """Bits per second of codes."""
    return frame_rate * sum(math.log2(size) for size in codebook_sizes)


def _num_weights(module: nn.Module) -> int:
    """Parameters, and the entries of codebooks that are kept as buffers."""
    entries = [one for name, one in module.named_buffers() if name.endswith((".embed", ".embed_sum"))]
    return sum(one.numel() for one in (*module.parameters(), *entries))
