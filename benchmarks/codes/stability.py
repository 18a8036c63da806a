"""Stability under conditions: what changes of a clip's codes when it is degraded, shifted, cut or encoded in bfloat16.

StableToken (Song et al., 2025, arXiv:2509.22220) found that codes of speech change a lot under noise that no listener
minds, and measures it as unit edit distance; the share of codes changed is the same without letting codes slip in time.
Of a tokenizer with latents in the place of codes it is how far they move. ``stability.py`` is the script.
"""
# Shapes: K codebooks, D latent size, T frames (T_i of one clip), N samples.

from __future__ import annotations

import copy
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jiwer
import numpy as np
from torch import Tensor, nn

from audiollm.data.audio.degradation import (
    CODECS,
    NOISE_COLOURS,
    coloured_noise,
    crush,
    mix_at_snr,
    reverberate,
    transmit,
)
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.modeling import UniAudioTokenizer

logger = logging.getLogger(__name__)

KINDS: dict[str, str] = {
    **dict.fromkeys(NOISE_COLOURS, "noise at so many dB below the clip"),
    "crush": "bits per sample",
    "reverberation": "seconds of decay by 60 dB",
    "gain": "dB",
    "shift": "codes by which the clip starts later; a share of one, or several",
    "chunks": "seconds of pieces that are encoded each on its own",
    **dict.fromkeys(CODECS, ""),
    "bfloat16": "",
}
"""What can be done to a clip, and what the number after it means; none where that is empty."""

DRAWN_KINDS = (*NOISE_COLOURS, "reverberation")  # what a seed decides
DEFAULT_CONDITIONS = (
    "white:30", "white:20", "white:10", "pink:20", "brown:20", "crush:8", "reverberation:0.3", "gain:-12",
    "g711", "gsm", "vorbis", "mp3", "shift:0.25", "shift:0.5", "shift:1", "chunks:5", "chunks:1", "bfloat16",
)  # fmt: skip
DIRECT_TO_REVERBERANT_DB = 6.0


@dataclass(frozen=True)
class Condition:
    """One thing done to all clips.

    Attributes:
        name: as it is written, ``kind`` or ``kind:amount``.
        kind: a key of ``KINDS``.
        amount: the number; 0 where the kind has none.
    """

    name: str
    kind: str
    amount: float


@dataclass(frozen=True)
class StabilityRow:
    """What one condition did to the codes, or the latents; None where no clip is long enough for it."""

    condition: str
    num_clips: int
    num_codes: int
    """Codes compared, all codebooks together."""
    share_changed: float | None
    """Share of codes that differ from those of the clean clip at the same time; None of latents."""
    unit_edit_distance: float | None
    """Codes to substitute, insert and delete per code of the clean clips; None of latents."""
    share_changed_by_type: dict[str, float] = field(default_factory=dict)
    """The share for each sound type, where the clips have one."""
    num_latents: int = 0
    """Frames of latents compared."""
    relative_change: float | None = None
    """Mean squared distance of latents from those of the clean clip at the same time, over the variance of those: 0 if
    nothing changes, 2 between frames that have nothing to do with each other. None of codes."""
    cosine: float | None = None
    """Mean cosine of both; None of codes."""
    relative_change_by_type: dict[str, float] = field(default_factory=dict)
    """The relative change for each sound type, where the clips have one."""


def parse_condition(name: str) -> Condition:
    """Reads ``white:20``, ``shift:0.5``, ``g711`` and the like.

    Raises:
        ValueError: for an unknown kind, or a number that is missing, superfluous or makes no sense.
    """
    kind, colon, amount = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"condition {name!r}: {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if not KINDS[kind]:
        if colon:
            raise ValueError(f"condition {name!r}: {kind} takes no number")
        return Condition(name, kind, 0.0)
    try:
        value = float(amount)
    except ValueError:
        raise ValueError(f"condition {name!r}: write {kind}:<number> ({KINDS[kind]}), such as {kind}:8") from None
    least = {"crush": 2.0, "reverberation": 0.01, "shift": 0.0, "chunks": 0.01}.get(kind, -100.0)
    if not least <= value <= 100.0:
        raise ValueError(f"condition {name!r}: use a number between {least:g} and 100 ({KINDS[kind]})")
    return Condition(name, kind, value)


def token_stability(
    audio_tokenizer: AudioTokenizer,
    waveforms: Sequence[Tensor],
    sample_rate: int,
    conditions: Sequence[str] = DEFAULT_CONDITIONS,
    *,
    sound_types: Sequence[str | None] | None = None,
    seed: int = 0,
) -> list[StabilityRow]:
    """Compares the codes (or latents) of clips with those of the same clips under each condition.

    Args:
        audio_tokenizer: any; ``bfloat16`` needs one that is a network of torch.
        waveforms: float32 ``[N_i]`` each, at least one frame long.
        sample_rate: of all of them, in Hz.
        conditions: ``kind`` or ``kind:amount``, see ``KINDS``.
        sound_types: of each clip, to split the figures by; None for one that has none.
        seed: draws noise and rooms, the same ones for every tokenizer.

    Returns:
        A row per condition, in order.

    Raises:
        ValueError: if there are no clips, or a condition makes no sense.
    """
    if not waveforms:
        raise ValueError("no clips: token stability needs at least one")
    parsed = [parse_condition(name) for name in conditions]
    types = list(sound_types) if sound_types is not None else [None] * len(waveforms)
    clean = _encode(audio_tokenizer, waveforms, sample_rate)
    row = _row if audio_tokenizer.latent_size is None else _latents_row
    return [row(_pairs(audio_tokenizer, waveforms, clean, sample_rate, one, seed), types, one.name) for one in parsed]


# Codes [K, T] (or latents [D, T]) of a clean clip and of the same stretch of it under a condition; None: too short.
_Pair = tuple[np.ndarray, np.ndarray] | None


def _encode(audio_tokenizer: AudioTokenizer, waveforms: Sequence[Tensor], sample_rate: int) -> list[np.ndarray]:
    found = audio_tokenizer.encode(list(waveforms), sample_rate)
    if audio_tokenizer.latent_size is None:
        return [found[index].numpy() for index in range(len(found))]
    return [found[index].double().numpy().T for index in range(len(found))]


def _pairs(
    audio_tokenizer: AudioTokenizer,
    waveforms: Sequence[Tensor],
    clean: Sequence[np.ndarray],
    sample_rate: int,
    condition: Condition,
    seed: int,
) -> list[_Pair]:
    if condition.kind == "bfloat16":
        return list(zip(clean, _encode(_in_bfloat16(audio_tokenizer), waveforms, sample_rate), strict=True))
    if condition.kind == "chunks":
        return _chunked(audio_tokenizer, waveforms, clean, sample_rate, condition.amount)
    if condition.kind == "shift":
        return _shifted(audio_tokenizer, waveforms, clean, sample_rate, condition.amount)
    # A stream of draws for each condition and clip, so that neither depends on what else is asked for; crc32, because
    # hash() of a text differs from process to process.
    degraded = [
        degrade(waveform, sample_rate, condition, np.random.default_rng([seed, zlib.crc32(condition.name.encode()), i]))
        for i, waveform in enumerate(waveforms)
    ]
    return list(zip(clean, _encode(audio_tokenizer, degraded, sample_rate), strict=True))


def degrade(waveform: Tensor, sample_rate: int, condition: Condition, generator: np.random.Generator) -> Tensor:
    """Returns a clip under a condition that changes its samples and not its length, ``[N]``."""
    kind, amount = condition.kind, condition.amount
    if kind in NOISE_COLOURS:
        noise = coloured_noise(len(waveform), sample_rate, kind, generator)
        return mix_at_snr(waveform, noise, amount)
    if kind == "crush":
        return crush(waveform, round(amount))
    if kind == "gain":
        return waveform * 10 ** (amount / 20)
    if kind == "reverberation":
        return reverberate(
            waveform, sample_rate, decay_seconds=amount,
            direct_to_reverberant_db=DIRECT_TO_REVERBERANT_DB, generator=generator,
        )  # fmt: skip
    return transmit(waveform, sample_rate, kind)  # type: ignore[arg-type]


def _shifted(
    audio_tokenizer: AudioTokenizer,
    waveforms: Sequence[Tensor],
    clean: Sequence[np.ndarray],
    sample_rate: int,
    shift: float,
) -> list[_Pair]:
    """Clips without their beginning, against the codes that start nearest to the new one."""
    skipped = round(shift * sample_rate / audio_tokenizer.frame_rate)
    late = round(shift)  # a clip that starts half a code late or more begins nearer to the next code
    rests = [w[skipped:] if own.shape[1] > late else w[:0] for w, own in zip(waveforms, clean, strict=True)]
    pieces = [rest for rest in rests if len(rest)]
    codes = iter(_encode(audio_tokenizer, pieces, sample_rate) if pieces else [])
    pairs = [(own[:, late:], next(codes)) if len(rest) else None for own, rest in zip(clean, rests, strict=True)]
    # What is left of a code at the end may round up to one more: that is no change of any code.
    return [pair and (pair[0][:, : pair[1].shape[1]], pair[1][:, : pair[0].shape[1]]) for pair in pairs]


def _chunked(
    audio_tokenizer: AudioTokenizer,
    waveforms: Sequence[Tensor],
    clean: Sequence[np.ndarray],
    sample_rate: int,
    seconds: float,
) -> list[_Pair]:
    """Clips cut into pieces of whole codes, against the clip as the tokenizer cuts it itself."""
    size = round(max(1, round(seconds * audio_tokenizer.frame_rate)) * sample_rate / audio_tokenizer.frame_rate)
    pieces = [list(waveform.split(size)) if len(waveform) > size else [] for waveform in waveforms]
    flat = [piece for own in pieces for piece in own]
    codes = iter(_encode(audio_tokenizer, flat, sample_rate) if flat else [])
    return [
        (own, np.concatenate([next(codes) for _ in cut], axis=1)) if cut else None
        for own, cut in zip(clean, pieces, strict=True)
    ]


def _in_bfloat16(audio_tokenizer: AudioTokenizer) -> AudioTokenizer:
    if not isinstance(audio_tokenizer, nn.Module):
        raise ValueError(
            f"condition 'bfloat16' works for tokenizers that are networks of torch, not for "
            f"{type(audio_tokenizer).__name__}: leave it out"
        )
    variant: Any = copy.deepcopy(audio_tokenizer)
    if not isinstance(variant, UniAudioTokenizer):
        return cast(AudioTokenizer, variant.bfloat16())
    for part in (variant.encoder, variant.sae):  # the codebook searches in float32 whatever the rest computes in
        if part is not None:
            part.bfloat16()
    return variant


def _row(pairs: Sequence[_Pair], types: Sequence[str | None], condition: str) -> StabilityRow:
    counted = [(_count(*pair), own_type) for pair, own_type in zip(pairs, types, strict=True) if pair is not None]
    if not counted:
        logger.warning("%s: no clip is long enough for it", condition)
    names = sorted({own_type for _, own_type in counted if own_type is not None})
    shares = {name: _share([count for count, own_type in counted if own_type == name]) for name in names}
    counts = [count for count, _ in counted]
    num_units = sum(count.num_units for count in counts)
    return StabilityRow(
        condition=condition,
        num_clips=len(counts),
        num_codes=sum(count.num_codes for count in counts),
        share_changed=_share(counts),
        unit_edit_distance=sum(count.num_edits for count in counts) / num_units if num_units else None,
        share_changed_by_type={name: share for name, share in shares.items() if share is not None},
    )


@dataclass(frozen=True)
class _Count:
    num_codes: int
    num_changed: int
    num_units: int  # frames of the clean clip
    num_edits: int


def _share(counts: Sequence[_Count]) -> float | None:
    num_codes = sum(count.num_codes for count in counts)
    return sum(count.num_changed for count in counts) / num_codes if num_codes else None


def _count(clean_KT: np.ndarray, other_KT: np.ndarray) -> _Count:
    # One may have a code more at its end. The share leaves it out; the edit distance, which may shift, counts it.
    length = min(clean_KT.shape[1], other_KT.shape[1])
    changed = clean_KT[:, :length] != other_KT[:, :length]
    # jiwer aligns words: the codes of all codebooks at one time are one.
    reference, hypothesis = (["-".join(map(str, frame)) for frame in codes.T] for codes in (clean_KT, other_KT))
    edits = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return _Count(
        num_codes=changed.size,
        num_changed=int(changed.sum()),
        num_units=len(reference),
        num_edits=edits.substitutions + edits.insertions + edits.deletions,
    )


def _latents_row(pairs: Sequence[_Pair], types: Sequence[str | None], condition: str) -> StabilityRow:
    counted = [(_moved(*pair), own_type) for pair, own_type in zip(pairs, types, strict=True) if pair is not None]
    if not counted:
        logger.warning("%s: no clip is long enough for it", condition)
    # Over the variance of all of them, also for each type: a type that hardly varies is none that changes more.
    variance = _variance([clean_TD for (clean_TD, _, _), _ in counted])
    names = sorted({own_type for _, own_type in counted if own_type is not None})
    changes = {
        name: _relative_change([moved for moved, own_type in counted if own_type == name], variance) for name in names
    }
    moved = [moved for moved, _ in counted]
    num_latents = sum(len(distances_T) for _, distances_T, _ in moved)
    return StabilityRow(
        condition=condition,
        num_clips=len(moved),
        num_codes=0,
        share_changed=None,
        unit_edit_distance=None,
        num_latents=num_latents,
        relative_change=_relative_change(moved, variance),
        cosine=float(np.concatenate([cosines_T for _, _, cosines_T in moved]).mean()) if num_latents else None,
        relative_change_by_type={name: change for name, change in changes.items() if change is not None},
    )


# Of one clip: clean latents [T, D], squared distances of frames to theirs [T], and cosines [T].
_Moved = tuple[np.ndarray, np.ndarray, np.ndarray]


def _moved(clean_DT: np.ndarray, other_DT: np.ndarray) -> _Moved:
    length = min(clean_DT.shape[1], other_DT.shape[1])
    clean_TD, other_TD = clean_DT.T[:length], other_DT.T[:length]
    lengths_T = np.linalg.norm(clean_TD, axis=1) * np.linalg.norm(other_TD, axis=1)
    # Of a frame of zeros there is no direction: it agrees with nothing.
    cosines_T = (clean_TD * other_TD).sum(axis=1) / np.where(lengths_T == 0, 1, lengths_T)
    return clean_TD, ((clean_TD - other_TD) ** 2).sum(axis=1), cosines_T


def _variance(clips: Sequence[np.ndarray]) -> float:
    frames_ND = np.concatenate(clips) if clips else np.zeros((0, 1))
    return float(frames_ND.var(axis=0).sum()) if len(frames_ND) else 0.0


def _relative_change(moved: Sequence[_Moved], variance: float) -> float | None:
    distances_N = np.concatenate([distances_T for _, distances_T, _ in moved]) if moved else np.zeros(0)
    if not len(distances_N):
        return None
    change = float(distances_N.mean())
    if variance > 0:
        return change / variance
    return 0.0 if change == 0 else None  # where clean frames are all the same, nothing says what much is
