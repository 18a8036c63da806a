"""The tokenizers of a study: opened from folders, made without weights, or fitted once and kept in the run's folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from audiollm.benchmarks.speech.judges.recognizers import PACKAGED
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import check_same_run
from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.whisper import load_whisper
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .floors import MuLaw, MuLawSettings, OpusBytes, OpusSettings
from .recordings import Recordings, chosen_from
from .study import KMeansSettings, TokenizerSource

FITTED_FOLDER = "fitted"
_FIT_NAME = "fit.json"

logger = logging.getLogger(__name__)


def open_entry(
    name: str, source: TokenizerSource, data: Mapping[str, Recordings], folder: Path, device: str
) -> AudioTokenizer:
    """Opens a tokenizer of a study.

    Args:
        name: in the study.
        source: a folder or Hub id, or what is to be made.
        data: of the study, that a codebook may be fitted to.
        folder: of the run; fitted tokenizers are kept in it.
        device: for its weights, if it has any.

    Raises:
        ValueError: there is no tokenizer, or one in the run's folder was fitted with other settings.
        ImportError: a package is missing.
        OSError: a checkpoint cannot be had.
    """
    if isinstance(source, MuLawSettings):
        return MuLaw(source)
    if isinstance(source, OpusSettings):
        return OpusBytes(source)
    path = str(_fitted(name, source, data, folder)) if isinstance(source, KMeansSettings) else source
    return AudioTokenizer.from_pretrained(path, device=device)


def checkpoint_of(name: str, source: TokenizerSource, folder: Path) -> str | None:
    """Where an LLM is extended from: a folder or Hub id; None of what has no checkpoint."""
    if isinstance(source, (MuLawSettings, OpusSettings)):
        return None
    return str(folder / FITTED_FOLDER / name) if isinstance(source, KMeansSettings) else source


def _fitted(name: str, source: KMeansSettings, data: Mapping[str, Recordings], folder: Path) -> Path:
    """The folder of a tokenizer whose codebook is fitted to recordings; made if it is not there."""
    recordings = data[source.data or next(iter(data))]
    target = folder / FITTED_FOLDER / name
    identity = {"kmeans": {**asdict(source), "whisper": Path(source.whisper).name}, "data": recordings.identity()}
    if target.exists():
        check_same_run(target / _FIT_NAME, identity, output=target)
        return target
    clips = chosen_from(recordings, source.split, source.max_clips)
    audio_tokenizer = _from_whisper(source)
    rate = audio_tokenizer.sample_rate
    waveforms = [clip.load(rate, recordings.settings.mono) for clip in clips]
    fit = audio_tokenizer.fit_codebook(waveforms, rate, seed=source.seed)
    logger.info("%s: %d entries fitted to %d frames of %d clips", name, source.size, fit.num_frames, len(clips))
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as staging:
        audio_tokenizer.save_pretrained(staging)
        write_json(Path(staging) / _FIT_NAME, identity)
    return target


def _from_whisper(source: KMeansSettings) -> UniAudioTokenizer:
    """Whisper's layers without anything new but the codebook, pooled to 25 Hz right at it."""
    packaged = PACKAGED.get(source.whisper)
    model: Any = load_whisper(source.whisper if packaged is None else whisper_from_package(packaged)).float()
    layers = model.config.encoder_layers
    position = min(layers, max(2, math.floor(source.depth * layers)))
    return UniAudioTokenizer.from_whisper(
        model,
        quantize_position=position,
        pooling_position=position,
        use_sae=False,
        codebook_size=source.size,
        encoder_only=True,
        seed=source.seed,
    )


# --- facts ------------------------------------------------------------------------------------------------------------


def facts_of(audio_tokenizer: AudioTokenizer) -> dict[str, Any]:
    """What a tokenizer is, without any recording; codes of several rates have no frame rate, latents no bit rate."""
    groups = audio_tokenizer.code_groups
    return {
        "kind": audio_tokenizer.kind,
        "class": type(audio_tokenizer).__name__,
        "sample_rate": audio_tokenizer.sample_rate,
        "output_sample_rate": audio_tokenizer.output_sample_rate if audio_tokenizer.can_decode else None,
        "frame_rate": audio_tokenizer.frame_rate if len(groups) < 2 else None,
        "num_codebooks": audio_tokenizer.num_codebooks,
        "codebook_sizes": list(audio_tokenizer.codebook_sizes),
        "latent_size": audio_tokenizer.latent_size,
        "tokens_per_second": sum(one.tokens_per_second for one in groups) if groups else None,
        "bitrate_bps": audio_tokenizer.bits_per_second if groups else None,
        "parameters": num_parameters(audio_tokenizer),
        "is_causal": audio_tokenizer.is_causal,
        "can_decode": audio_tokenizer.can_decode,
        "max_segment_seconds": audio_tokenizer.max_segment_seconds,
        "licence": audio_tokenizer.licence_note,
    }


def num_parameters(audio_tokenizer: AudioTokenizer) -> int:
    """Parameters, those of its decoder included; 0 of what has none."""
    modules = [
        one for one in (audio_tokenizer, getattr(audio_tokenizer, "decoder", None)) if isinstance(one, nn.Module)
    ]
    # By identity: a decoder may be a part of its tokenizer.
    parameters = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in parameters.values())
