"""What a run is made of: the frozen audio tokenizer, the recordings, and a model with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from audiollm.diffusion.configuration import LatentDiffusionConfig
from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.diffusion.text import count_tokens, load_text_encoder, small_text_encoder
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.loop.errors import DataError

from .clips import TextClips, statistics
from .config import DiffusionTrainingConfig


@dataclass(frozen=True)
class DiffusionRun:
    """The surroundings of a run.

    Attributes:
        accelerator: its processes.
        config: its settings.
        audio_tokenizer: frozen.
        train: recordings to train on.
        held_out: recordings to evaluate on, if any.
    """

    accelerator: Accelerator
    config: DiffusionTrainingConfig
    audio_tokenizer: AudioTokenizer
    train: TextClips
    held_out: TextClips | None


def prepare(accelerator: Accelerator, config: DiffusionTrainingConfig) -> tuple[DiffusionRun, LatentDiffusion]:
    """Opens the audio tokenizer, reads the recordings, and makes the model.

    Raises:
        DataError: listing the recordings that cannot be trained on.
        ValueError: if the audio tokenizer has no latents, or cannot decode; or settings do not fit each other.
    """
    audio_tokenizer: Any = AudioTokenizer.from_pretrained(config.audio_tokenizer, device=accelerator.device)
    if audio_tokenizer.latent_size is None:
        raise ValueError(
            f"audio_tokenizer={config.audio_tokenizer} is a {audio_tokenizer.kind}, which has codes: latents are "
            "learnt here, such as those of a LoSATok (audiollm train-losatok)"
        )
    if not audio_tokenizer.can_decode:
        raise ValueError(f"audio_tokenizer={config.audio_tokenizer} cannot decode: {audio_tokenizer.why_no_sound}")
    return assemble(accelerator, config, audio_tokenizer)


def assemble(
    accelerator: Accelerator, config: DiffusionTrainingConfig, audio_tokenizer: Any
) -> tuple[DiffusionRun, LatentDiffusion]:
    """Reads the recordings, and makes the model of an audio tokenizer's latents.

    Args:
        accelerator: of the run.
        config: the run; what it says of an audio tokenizer is not read.
        audio_tokenizer: with latents. Without a decoder the run can be trained and evaluated, but not saved, and
            ``eval_clips`` must be 0.

    Raises:
        DataError: listing the recordings that cannot be trained on.
        ValueError: if settings do not fit each other.
    """
    settings = config.text
    if settings.encoder is None:
        text_encoder, text_tokenizer = small_text_encoder(settings.size, settings.num_layers, settings.num_heads)
    else:
        text_encoder, text_tokenizer = load_text_encoder(settings.encoder)

    def read(source: str) -> TextClips:
        return TextClips(
            source,
            audio_tokenizer,
            config,
            partial(count_tokens, text_tokenizer),
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
            gather=gather_object,
            progress=accelerator.is_main_process,
        )

    train = read(config.train_data)
    held_out = None if config.eval_data is None else read(config.eval_data)
    _check_tasks(train, held_out)
    sizes = LatentDiffusionConfig(
        latent_size=audio_tokenizer.latent_size,
        frame_rate=audio_tokenizer.frame_rate,
        hidden_size=config.transformer.hidden_size,
        num_layers=config.transformer.num_layers,
        num_heads=config.transformer.num_heads,
        text_config=text_encoder.config,
        train_text_encoder=settings.encoder is None,
        max_text_tokens=settings.max_tokens,
        tasks=list(train.tasks),
        max_frames=_frames_of(config.max_seconds, audio_tokenizer),
        frames_per_character=train.frames_per_character,
        audio_tokenizer_kind=audio_tokenizer.kind,
        audio_tokenizer_fingerprint=audio_tokenizer.fingerprint(),
    )
    model = LatentDiffusion(sizes, text_encoder, text_tokenizer)
    model.set_normalisation(*statistics(train, config.normalisation_clips, progress=accelerator.is_main_process))
    return DiffusionRun(accelerator, config, audio_tokenizer, train, held_out), model


def _frames_of(seconds: float, audio_tokenizer: Any) -> int:
    """Latents of the longest clip that lasts no longer: as the tokenizer counts, so that none loses its last."""
    rate = audio_tokenizer.sample_rate
    return max(1, int(audio_tokenizer.num_frames(math.floor(seconds * rate + 1e-6), rate)))


def _check_tasks(train: TextClips, held_out: TextClips | None) -> None:
    if held_out is not None and (unknown := set(held_out.tasks) - set(train.tasks)):
        raise DataError(
            f"{held_out.name} holds records for {', '.join(sorted(unknown))}, and {train.name} only for "
            f"{', '.join(train.tasks)}: nothing is learnt for them"
        )
