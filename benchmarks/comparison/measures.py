"""What is measured of one tokenizer on some recordings: codes in use, reconstruction, classes, stability."""
# Shapes: K codebooks, T frames, N samples, S size of a speaker vector.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiollm.benchmarks.codes.classes import class_figures
from audiollm.benchmarks.codes.features import NO_CODES, REASON
from audiollm.benchmarks.codes.stability import token_stability
from audiollm.benchmarks.speech.judges.judging import NONE, SpeechJudges
from audiollm.benchmarks.speech.kept import Original, kept_figures
from audiollm.benchmarks.speech.reconstruction_report import check_report
from audiollm.benchmarks.speech.table import without_recordings
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.writing import save_audio
from audiollm.data.voices.encoders import SpeakerEncoder, load_speaker_encoder
from audiollm.tokenizer.base import AudioTokenizer, GroupedCodes
from audiollm.tokenizer.checkpoints.fingerprint import decoder_fingerprint as fingerprint_of
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .recordings import Recordings
from .study import (
    ORIGINAL,
    ClassesSettings,
    MeasureSettings,
    ReconstructionSettings,
    StabilitySettings,
)

SOUNDS_FOLDER = "sounds"
NO_DECODER = "has no decoder: it can listen only"
SEVERAL_RATES = (
    "has codes of several rates: this figure is of one, so compare the groups one by one, each in its folder"
)


def sound_identity(audio_tokenizer: AudioTokenizer) -> str | None:
    """A hash of what decides the sound of codes; None of what cannot decode."""
    if not audio_tokenizer.can_decode:
        return None
    decoder: Any = getattr(audio_tokenizer, "decoder", None)
    if hasattr(decoder, "fingerprint"):
        own: str = decoder.fingerprint()
        return own
    if isinstance(audio_tokenizer, torch.nn.Module):  # whose decoder is among its weights
        return fingerprint_of({"kind": audio_tokenizer.kind}, audio_tokenizer.state_dict())
    return audio_tokenizer.fingerprint()


# --- codes ------------------------------------------------------------------------------------------------------------


def code_use(audio_tokenizer: AudioTokenizer, recordings: Recordings) -> dict[str, Any]:
    """Which codes occur in some recordings, by codebook, and how many bits they take.

    Returns:
        ``usage`` (share of all codes that occur), ``entropy_bits`` (of a frame: the sum over codebooks; None where
        there are several rates of frames), ``entropy_bitrate_bps``, ``tokens_per_second``, ``by_codebook`` and
        ``coverage`` (share of all tokens that the commonest 1 %, 2 %, … of the codes make up). Of a tokenizer with
        latents, why there are none.
    """
    if audio_tokenizer.latent_size is not None:
        return {REASON: NO_CODES}
    rate = audio_tokenizer.sample_rate
    waveforms = [clip.load(rate, recordings.settings.mono) for clip in recordings.clips]
    encoded = audio_tokenizer.encode(waveforms, rate)
    counts, by_codebook, bits, bits_per_second, num_tokens = [], [], [], 0.0, 0
    groups = audio_tokenizer.code_groups
    for group, codes in zip(groups, encoded if isinstance(encoded, GroupedCodes) else [encoded], strict=True):
        frames_KT = torch.cat([codes[index] for index in range(len(codes))], dim=1).numpy()
        own = [np.bincount(row, minlength=size) for row, size in zip(frames_KT, group.codebook_sizes, strict=True)]
        used = [_use(count) for count in own]
        bits.append(sum(one["entropy_bits"] for one in used))
        bits_per_second += bits[-1] * group.frame_rate
        num_tokens += int(frames_KT.size)
        counts += own
        by_codebook += used
    seconds = sum(len(waveform) for waveform in waveforms) / rate
    return {
        "usage": sum(int((count > 0).sum()) for count in counts) / sum(len(count) for count in counts),
        "entropy_bits": bits[0] if len(groups) == 1 else None,
        "entropy_bitrate_bps": bits_per_second,
        "tokens_per_second": num_tokens / seconds,
        "num_tokens": num_tokens,
        "seconds": seconds,
        "num_clips": len(waveforms),
        "by_codebook": by_codebook,
        "coverage": _coverage(np.concatenate(counts)),
    }


def _use(counts_V: np.ndarray) -> dict[str, float]:
    shares = counts_V[counts_V > 0] / max(1, counts_V.sum())
    entropy = float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0
    return {
        "size": len(counts_V),
        "usage": float((counts_V > 0).mean()),
        "entropy_bits": entropy,
        "perplexity": 2**entropy,
    }


def _coverage(counts: np.ndarray, num_points: int = 100) -> list[float]:
    summed = np.concatenate([[0], np.cumsum(np.sort(counts)[::-1])]) / max(1, counts.sum())
    return [float(summed[round(point / num_points * len(counts))]) for point in range(1, num_points + 1)]


# --- reconstruction ---------------------------------------------------------------------------------------------------


def load_judges(settings: ReconstructionSettings, device: str) -> SpeechJudges:
    """The judges of reconstructions, all of which must be there.

    Raises:
        ValueError: a judge cannot be had; the message names the setting with which to leave it out.
    """
    check_report(settings.metrics, None, None)
    given = {"asr": settings.asr, "similarity": settings.similarity, "mos": settings.mos}
    for name, judge in given.items():
        alone = {other: judge if other == name else NONE for other in given}
        try:
            SpeechJudges(alone["asr"], alone["similarity"], alone["mos"], language=settings.language, device=device)
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(
                f"measures.reconstruction.{name}: {judge} cannot be had ({' '.join(str(error).split())}); make it "
                f"available, or write `{name}: {NONE}` to leave it out of the table"
            ) from error
    return SpeechJudges(settings.asr, settings.similarity, settings.mos, language=settings.language, device=device)


def write_originals(recordings: Recordings, folder: Path) -> list[Original]:
    """The recordings as files of one channel, so that all columns are judged from files."""
    originals = []
    for number, (clip, text) in enumerate(zip(recordings.clips, recordings.texts, strict=True)):
        path = sounds_of(folder, ORIGINAL, recordings.name) / f"{number:06d}.wav"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_audio(path, *clip.audio.load(mono=recordings.settings.mono))
        originals.append(Original(f"{number:06d}", str(path), text))
    return originals


def sounds_of(folder: Path, tokenizer: str, data: str) -> Path:
    """Where the sounds of a column lie in the folder of a run."""
    return folder / SOUNDS_FOLDER / tokenizer / data


def original_figures(
    judges: SpeechJudges, originals: Sequence[Original], settings: ReconstructionSettings, folder: Path, data: str
) -> dict[str, Any]:
    """What the judges say of the recordings themselves: the best that can be had."""
    paths = {original.id: original.path for original in originals}
    return _judged(judges, originals, paths, settings, folder, ORIGINAL, data)


def reconstruction_figures(
    audio_tokenizer: AudioTokenizer,
    judges: SpeechJudges,
    originals: Sequence[Original],
    settings: ReconstructionSettings,
    folder: Path,
    tokenizer: str,
    data: str,
) -> dict[str, Any]:
    """Encodes and decodes the recordings, keeps the sounds, and has them judged.

    Returns:
        ``wer``, ``similarity``, ``mos`` and the distances; how many there are and are missing; ``failures`` by id.
    """
    if not audio_tokenizer.can_decode:
        return {REASON: NO_DECODER}
    speaker = _speaker_encoder(audio_tokenizer, settings)
    paths, failures = {}, {}
    for original in originals:
        path = sounds_of(folder, tokenizer, data) / f"{original.id}.wav"
        paths[original.id] = str(path)
        try:
            waveform, sample_rate = round_trip(audio_tokenizer, *load_audio(original.path), speaker, settings)
        except (ValueError, RuntimeError) as error:
            failures[original.id] = f"{type(error).__name__}: {error}"
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, waveform, sample_rate)
    figures = _judged(judges, originals, paths, settings, folder, tokenizer, data)
    return figures | {"failures": failures, "voice": None if speaker is None else settings.speaker_encoder}


def round_trip(
    audio_tokenizer: AudioTokenizer,
    waveform: Tensor,
    sample_rate: int,
    speaker: SpeakerEncoder | None,
    settings: ReconstructionSettings,
) -> tuple[Tensor, int]:
    """A recording to codes and back, cut to its own length: float32 ``[N]`` and its rate.

    Raises:
        ValueError: it is too short for a code, or the decoder refuses its codes.
    """
    codes = audio_tokenizer.encode([waveform], sample_rate)
    if not int(codes.lengths[0]):
        raise ValueError(f"{len(waveform)} samples give no codes: it is too short")
    voice = None if speaker is None else speaker.embed(waveform, sample_rate)
    options: Mapping[str, Any] = (
        {"steps": settings.steps, "seed": settings.seed} if isinstance(audio_tokenizer, UniAudioTokenizer) else {}
    )
    [made] = audio_tokenizer.decode(codes, voice, **options)
    rate = audio_tokenizer.output_sample_rate
    return made[: round(len(waveform) / sample_rate * rate)].float().cpu(), rate


def _speaker_encoder(audio_tokenizer: AudioTokenizer, settings: ReconstructionSettings) -> SpeakerEncoder | None:
    size = getattr(getattr(audio_tokenizer, "decoder", None), "speaker_size", None)
    if settings.voice == "none" or size is None:
        return None
    encoder = load_speaker_encoder(settings.speaker_encoder)
    return encoder if encoder.embedding_size == size else None


def _judged(
    judges: SpeechJudges,
    originals: Sequence[Original],
    paths: Mapping[str, str],
    settings: ReconstructionSettings,
    folder: Path,
    tokenizer: str,
    data: str,
) -> dict[str, Any]:
    figures = kept_figures(
        judges,
        originals,
        paths,
        folder / "judged" / tokenizer / data,
        metrics=settings.metrics,
        language=settings.language,
        result_folder=folder,
    )
    told = without_recordings(figures) | {"judges": judges.names}
    return told | {"similarity": figures["similarity"]["mean"], "mos": figures["mos"]["mean"]}


# --- the rest ---------------------------------------------------------------------------------------------------------


def classes(audio_tokenizer: AudioTokenizer, recordings: Recordings, settings: ClassesSettings) -> dict[str, Any]:
    """Whether codes or latents tell classes apart: `class_figures`."""
    return class_figures(
        audio_tokenizer,
        recordings.labelled,
        mono=recordings.settings.mono,
        scale=settings.scale,
        distance=settings.distance,
        num_restarts=settings.num_restarts,
        num_seeds=settings.num_seeds,
    )


def stability(audio_tokenizer: AudioTokenizer, recordings: Recordings, settings: StabilitySettings) -> dict[str, Any]:
    """What changes of codes or latents under each condition, by its name: `StabilityRow`."""
    rate = audio_tokenizer.sample_rate
    waveforms = [clip.load(rate, recordings.settings.mono) for clip in recordings.clips]
    rows = token_stability(
        audio_tokenizer,
        waveforms,
        rate,
        settings.conditions,
        sound_types=[clip.sound_type for clip in recordings.clips],
        seed=settings.seed,
    )
    return {"conditions": {row.condition: asdict(row) for row in rows}}


def why_none(audio_tokenizer: AudioTokenizer, measure: str) -> str | None:
    """Why one of `PLAIN` means nothing of a tokenizer; None if it does."""
    return SEVERAL_RATES if measure != "codes" and len(audio_tokenizer.code_groups) > 1 else None


PLAIN: Mapping[str, Callable[[AudioTokenizer, Recordings, Any], dict[str, Any]]] = {
    "codes": lambda audio_tokenizer, recordings, _: code_use(audio_tokenizer, recordings),
    "classes": classes,
    "stability": stability,
}
"""Measures that need a tokenizer and recordings only."""


def settings_identity(settings: MeasureSettings) -> dict[str, Any]:
    """Settings as a cell holds them; which data it is of, it says by itself."""
    return {name: value for name, value in asdict(settings).items() if name != "data"}
