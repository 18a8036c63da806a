"""What decoding is timed with: a waveform decoder with random weights, codes, and a stream of them."""
# Shapes: T codes.

from __future__ import annotations

import time

import torch
from torch import Tensor

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.streaming.decoder import StreamingDecoder


def build_decoder(config: WaveformDecoderConfig, seed: int) -> WaveformDecoder:
    """Makes a decoder with random weights, ready for decoding."""
    torch.manual_seed(seed)
    return WaveformDecoder(config).eval().requires_grad_(False).prepare()


def draw_codes(decoder: WaveformDecoder, seconds: float, seed: int) -> Tensor:
    """Draws codes of a duration, ``[T]``."""
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(seconds * decoder.frame_rate))
    return torch.randint(decoder.codebook_size, (count,), generator=generator)


def time_stream(decoder: WaveformDecoder, codes_T: Tensor, steps: int) -> list[dict[str, float]]:
    """Decodes a stream whose codes come one by one; returns when each chunk of sound was there, and what it cost.

    A chunk is on the processor when it is there, so that the work of a GPU is in its cost.
    """
    stream = StreamingDecoder(decoder, steps=steps)
    chunks = []
    busy, num_samples = 0.0, 0
    for position in range(len(codes_T) + 1):
        start = time.perf_counter()
        is_last = position == len(codes_T)
        waveform = stream.finish() if is_last else stream.push(codes_T[position : position + 1])
        busy += time.perf_counter() - start
        if len(waveform):
            chunks.append(
                {
                    "codes_seen": min(position + 1, len(codes_T)),
                    "audio_seconds_before": num_samples / decoder.sample_rate,
                    "audio_seconds": len(waveform) / decoder.sample_rate,
                    "compute_seconds": busy,
                }
            )
            busy, num_samples = 0.0, num_samples + len(waveform)
    return chunks
