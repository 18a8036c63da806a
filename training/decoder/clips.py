"""Clips of a decoder's training, made of a manifest: codes, and the waveform and mel that belong to them, aligned."""
# Shapes: T codes, M mel frames, N samples at the mel's rate (always M times the hop length).

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.data.audio.channels import Mono
from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.waveforms import resample
from audiollm.data.conversation.audio_parts import parse_audio_part, with_segment
from audiollm.data.conversation.types import AudioPart
from audiollm.data.manifest import Manifest, RecordError
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram

NUM_LOADERS = 2  # threads; decoding and resampling work without Python's lock
MAX_CLIP_SECONDS = 600.0  # a shard of such clips still fits into memory
CODE_TOLERANCE = 2  # tokenizers pad the end of a clip, each in its own way


@dataclass(frozen=True)
class ClipFormat:
    """What clips are turned into.

    Attributes:
        mel: the mel spectrogram; its sample rate is the waveform's.
        frame_rate: codes per second, in Hz.
        codebook_size: codes must be below this.
        mono: which waveform of several channels; the one that the codes were made from.
        min_seconds: shorter clips are refused.
    """

    mel: MelConfig
    frame_rate: float
    codebook_size: int
    mono: Mono = "first"
    min_seconds: float = 0.2

    def num_mel_frames(self, num_codes: int) -> int:
        """Mel frames of ``num_codes`` codes, by the float32 rule that decoding uses."""
        frames = np.float32(num_codes) / np.float32(self.frame_rate) * np.float32(self.mel.sample_rate)
        return int(frames / np.float32(self.mel.hop_length))


@dataclass(frozen=True)
class PreparedClip:
    """One clip, ready to be stored."""

    id: str
    where: str  # file and line, for messages
    text: str | None
    codes: Tensor  # [T] int64
    waveform: Tensor  # [N] float32
    mel: Tensor  # [num_mels, M] float32
    speaker: Tensor | None  # [S] float32


@dataclass(frozen=True)
class _Clip:
    """One clip on its way."""

    id: str
    where: str
    text: str | None
    codes: Tensor | None
    speaker: Tensor | None
    waveform: Tensor  # at the recording's own rate
    sample_rate: int


def prepare_clips(
    manifest: Manifest,
    indices: Sequence[int],
    clip_format: ClipFormat,
    audio_tokenizer: AudioTokenizer | None = None,
    fingerprint: str | None = None,
) -> Iterator[PreparedClip | AudioError | RecordError]:
    """Reads, encodes and aligns clips.

    Args:
        manifest: clip records: ``audio`` (or ``path``), optionally ``id``, ``codes``, ``text`` and ``speaker_vector``.
        indices: which of them.
        clip_format: what to turn them into.
        audio_tokenizer: encodes the clips that come without codes.
        fingerprint: of the audio tokenizer. Clips whose codes are marked as another's are refused.

    Yields:
        Per record, in order: the clip, or why it cannot be used.
    """
    loaded: list[_Clip | AudioError | RecordError] = []
    with ThreadPoolExecutor(NUM_LOADERS, thread_name_prefix="load") as executor:
        loaded = list(executor.map(lambda index: _load(manifest, index, clip_format, fingerprint), indices))
    loaded = _encode(loaded, audio_tokenizer)
    spectrogram = MelSpectrogram(clip_format.mel)
    for clip in loaded:
        if not isinstance(clip, _Clip):
            yield clip
            continue
        try:
            yield _align(clip, clip_format, spectrogram)
        except (AudioError, RecordError) as error:
            yield error


def _load(
    manifest: Manifest, index: int, clip_format: ClipFormat, fingerprint: str | None
) -> _Clip | AudioError | RecordError:
    where = manifest.where(index)
    try:
        record = manifest[index]
        part = _audio_of(record, where, manifest.base_dir(index))
        fields: Mapping[str, Any] = record if isinstance(record, Mapping) else {"id": record}
        waveform, sample_rate = part.load(mono=clip_format.mono)
        seconds = len(waveform) / sample_rate
        if not clip_format.min_seconds <= seconds <= MAX_CLIP_SECONDS:
            limits = f"clips of {clip_format.min_seconds} to {MAX_CLIP_SECONDS:.0f} s can be trained on"
            raise RecordError(where, f"lasts {seconds:.3f} s; {limits}")
        return _Clip(
            id=str(fields.get("id", where)),
            where=where,
            text=fields.get("text"),
            codes=_codes_of(fields, where, clip_format.codebook_size, fingerprint),
            speaker=_speaker_of(fields, where),
            waveform=waveform,
            sample_rate=sample_rate,
        )
    except (AudioError, RecordError) as error:
        return error


def _audio_of(record: Any, where: str, base_dir: str | None) -> AudioPart:
    if isinstance(record, str):
        return parse_audio_part(record, where=where, base_dir=base_dir)
    if not isinstance(record, Mapping):
        raise RecordError(where, f"a record is an object or a path, not a {type(record).__name__}")
    for key in ("audio", "path"):
        if record.get(key) is not None:
            return with_segment(parse_audio_part(record[key], where=where, base_dir=base_dir), record, where)
    found = ", ".join(map(str, list(record)[:10])) or "nothing"
    raise RecordError(where, f"has no audio, which is what a decoder learns to make; it has {found}")


def _codes_of(fields: Mapping[str, Any], where: str, codebook_size: int, fingerprint: str | None) -> Tensor | None:
    codes = fields.get("codes")
    if codes is None:
        return None
    made_by = fields.get("audio_tokenizer")
    if made_by is not None and fingerprint is not None and made_by != fingerprint:
        raise RecordError(
            where, f"codes: were made by another audio tokenizer ({made_by}) than the one named ({fingerprint})"
        )
    try:
        row = np.atleast_2d(np.asarray(codes))
    except (ValueError, OverflowError) as error:  # rows of different lengths, numbers beyond 64 bits
        raise RecordError(where, "codes: must be one list of whole numbers") from error
    if row.dtype.kind not in "iu" or row.ndim != 2 or row.shape[0] != 1 or not row.size:
        raise RecordError(where, "codes: must be one codebook's list of whole numbers, and not empty")
    if row.min() < 0 or row.max() >= codebook_size:
        value = row.min() if row.min() < 0 else row.max()
        raise RecordError(where, f"codes: {value} is out of range; codes are from 0 to {codebook_size - 1}")
    return torch.from_numpy(row[0].astype(np.int64))


def _speaker_of(fields: Mapping[str, Any], where: str) -> Tensor | None:
    if fields.get("speaker_vector") is None:
        return None
    try:
        vector = np.asarray(fields["speaker_vector"], dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError(where, "speaker_vector: must be one list of finite numbers") from error
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise RecordError(where, "speaker_vector: must be one list of finite numbers")
    return torch.from_numpy(vector)


def _encode(
    clips: Sequence[_Clip | AudioError | RecordError], audio_tokenizer: AudioTokenizer | None
) -> list[_Clip | AudioError | RecordError]:
    """Fills in missing codes; one call of the audio tokenizer per sample rate."""
    encoded = list(clips)
    by_rate: dict[int, list[int]] = {}
    for position, clip in enumerate(clips):
        if not isinstance(clip, _Clip) or clip.codes is not None:
            continue
        if audio_tokenizer is None:
            encoded[position] = RecordError(
                clip.where, "has no codes: run `audiollm tokenize` on the manifest, or name an audio_tokenizer"
            )
        else:
            by_rate.setdefault(clip.sample_rate, []).append(position)
    for sample_rate, positions in by_rate.items():
        assert audio_tokenizer is not None  # else nothing is grouped
        waveforms = [clip.waveform for clip in map(clips.__getitem__, positions) if isinstance(clip, _Clip)]
        codes = audio_tokenizer.encode(waveforms, sample_rate)
        for number, position in enumerate(positions):
            clip = clips[position]
            assert isinstance(clip, _Clip)
            encoded[position] = dataclasses.replace(clip, codes=codes[number][0])
    return encoded


def _align(clip: _Clip, clip_format: ClipFormat, spectrogram: MelSpectrogram) -> PreparedClip:
    """Cuts or pads the waveform with silence to exactly the mel frames that decoding its codes gives."""
    assert clip.codes is not None  # _encode filled them in
    mel = clip_format.mel
    seconds = len(clip.waveform) / clip.sample_rate
    expected = math.ceil(seconds * clip_format.frame_rate)
    if abs(len(clip.codes) - expected) > CODE_TOLERANCE:
        raise RecordError(
            clip.where,
            f"has {len(clip.codes)} codes, but its {seconds:.3f} s of audio make {expected} "
            f"at {clip_format.frame_rate:g} codes per second: are audio and codes of the same clip?",
        )
    num_frames = clip_format.num_mel_frames(len(clip.codes))
    if num_frames * mel.hop_length <= mel.n_fft:
        raise RecordError(clip.where, f"has only {len(clip.codes)} codes, less than one window of the mel spectrogram")
    waveform = resample(clip.waveform, clip.sample_rate, mel.sample_rate)
    # Pads, or cuts where the number is negative.
    waveform = F.pad(waveform, (0, num_frames * mel.hop_length - len(waveform)))
    with torch.no_grad():
        log_mel = spectrogram(waveform[None])[0]
    return PreparedClip(
        clip.id, clip.where, clip.text, clip.codes, waveform.contiguous(), log_mel.contiguous(), clip.speaker
    )
