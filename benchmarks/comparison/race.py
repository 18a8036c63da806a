"""How long tokenizers take: all of them in turns, in one run on one machine, so that a busy moment meets all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from audiollm.benchmarks.codes.features import REASON
from audiollm.benchmarks.speed.timing import in_turns, path_figures
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.machine.processor import describe_processor

from .measures import NO_DECODER
from .recordings import Recordings, shortened
from .study import SpeedSettings


def machine_identity(device: str) -> dict[str, Any]:
    """What figures of speed are only compared within."""
    return {
        **describe_processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def race(
    audio_tokenizers: Mapping[str, AudioTokenizer], recordings: Recordings, settings: SpeedSettings, device: str
) -> dict[str, Any]:
    """Times encoding and decoding of the same recordings, given at each tokenizer's own rate.

    Returns:
        By tokenizer ``encode`` and ``decode``: seconds, and their share of the sound's own length
        (``real_time_factor``).
    """
    chosen = shortened(recordings, settings.max_clips)
    paths: dict[str, Callable[[], Any]] = {}
    audio_seconds = 0.0
    for name, audio_tokenizer in audio_tokenizers.items():
        rate = audio_tokenizer.sample_rate
        waveforms = [clip.load(rate, chosen.settings.mono) for clip in chosen.clips]
        audio_seconds = sum(len(waveform) for waveform in waveforms) / rate
        paths[f"{name}/encode"] = lambda one=audio_tokenizer, waveforms=waveforms, rate=rate: one.encode(  # type: ignore[misc]
            waveforms, rate
        )
        if audio_tokenizer.can_decode:
            codes = audio_tokenizer.encode(waveforms, rate)
            paths[f"{name}/decode"] = lambda one=audio_tokenizer, codes=codes: one.decode(codes)  # type: ignore[misc]
    seconds = in_turns(paths, settings.rounds, torch.device(device), "encoding and decoding in turns")
    figures = path_figures(seconds, audio_seconds, {})
    absent = {REASON: NO_DECODER}
    return {
        "audio_seconds": audio_seconds,
        "num_clips": len(chosen.clips),
        "tokenizers": {
            name: {part: figures.get(f"{name}/{part}", absent) for part in ("encode", "decode")}
            for name in audio_tokenizers
        },
    }
