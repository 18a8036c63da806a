"""Reconstruction: a recording to codes and back to sound, as one file or a stream of any length."""
# Shapes: N samples, T codes, S size of a speaker vector.

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from audiollm.data.audio.playing import audio_html
from audiollm.data.audio.reading import Mono, load_audio, probe_audio, stream_audio
from audiollm.data.audio.sources import AudioError, AudioSource, source_name
from audiollm.data.audio.writing import AudioWriter, open_audio_output, open_audio_pipe, save_audio
from audiollm.data.voices.encoders import SpeakerEncoder
from audiollm.generation.decoding import DecodingSettings, SpeechDecoder, refuse_settings, takes_settings
from audiollm.tokenizer.base import AudioTokenizer, Codes, require_one_rate
from audiollm.tokenizer.decoder.inputs import Quality

SPEAKER_SECONDS = 60.0  # of the recording that a speaker encoder hears


@dataclass(frozen=True, eq=False)
class ReconstructionResult:
    """A recording that went through its codes.

    Attributes:
        source: the original, as it was given.
        output: the file that was written, or the pipe.
        mono: which channel of the original was heard.
        codes: int64 ``[T]``, or ``[K, T]`` of several codebooks; of a tokenizer without codes its latents, float32
            ``[T, D]``.
        source_sample_rate: of the original, in Hz.
        source_seconds: how long it takes.
        sample_rate: of the output, in Hz.
        num_samples: of the output.
        first_sound_seconds: wall-clock time from the start to the first samples.
        total_seconds: wall-clock time of everything, from reading the original to the last sample.
        settings: how it was decoded.
    """

    source: AudioSource
    output: Path | BinaryIO
    mono: Mono
    codes: Tensor
    source_sample_rate: int
    source_seconds: float
    sample_rate: int
    num_samples: int
    first_sound_seconds: float
    total_seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def num_codes(self) -> int:
        """How many codes there are, of all codebooks; of latents, how many vectors."""
        return len(self.codes) if self.codes.is_floating_point() else self.codes.numel()

    @property
    def unit(self) -> str:
        """What `num_codes` counts: "codes", or "latents"."""
        return "latents" if self.codes.is_floating_point() else "codes"

    @property
    def output_seconds(self) -> float:
        """How long the output takes."""
        return self.num_samples / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Wall-clock seconds per second of sound; below 1 is faster than speech."""
        return self.total_seconds / self.output_seconds

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the sound once more, in the format of the name, as `audiollm.data.audio.writing.save_audio` does."""
        save_audio(path, *load_audio(self.output))

    def _repr_html_(self) -> str:
        """A player, for notebooks."""
        return audio_html(*load_audio(self.output), caption=str(self.output))


def reconstruct(
    source: AudioSource,
    output: str | os.PathLike[str] | BinaryIO,
    audio_tokenizer: AudioTokenizer,
    speaker: Tensor | Sequence[float] | SpeakerEncoder | None = None,
    prompt: Any = None,
    steps: int | None = None,
    seed: int = 42,
    stream: bool = False,
    *,
    guidance: float | None = None,
    quality: Quality = "exact",
    mono: Mono = "first",
) -> ReconstructionResult:
    """Encodes a recording, decodes its codes, and writes the sound.

    The output is never longer than the original: what the last code holds beyond its end is cut.

    Args:
        source: path, bytes of a file, or a seekable binary file object; of any length.
        output: file to write, ``.wav``, ``.flac``, ``.ogg``, ``.opus`` or ``.mp3``; it appears when it is complete. Or
            a pipe, which gets WAV: with ``stream`` bit by bit.
        audio_tokenizer: encodes and decodes.
        speaker: whose voice: a vector ``[S]``, or a speaker encoder, which describes the original's first minute.
            None: the decoder's neutral voice.
        prompt: a recording whose voice is taken over: a path, bytes, or what the decoder's ``prompt`` made of one.
        steps: evaluations of the decoder's flow model; fewer are faster and coarser. None: those of the quality.
        seed: of its noise.
        stream: decode while encoding. Memory does not grow with the recording, and the first sound comes early; the
            samples differ a little from those of one piece.
        guidance: strength of the flow model's guidance; None: the checkpoint's own.
        quality: ``exact``, as published, or ``fast``, see `FlowSettings`.
        mono: which channel is heard: "first", or "mean" of all.

    Raises:
        AudioError: the recording cannot be used or gives no codes, or the output cannot be written under this name.
        ValueError: the audio tokenizer cannot decode, or not with this voice or these settings.
    """
    require_one_rate(audio_tokenizer, "audio_tokenizer")
    start = time.monotonic()
    name = source_name(source)
    target = Path(output) if isinstance(output, (str, os.PathLike)) else output
    refuse_original(source, target)
    info = probe_audio(source)
    if isinstance(speaker, SpeakerEncoder):
        speaker = speaker.embed(_beginning(source, mono), info.sample_rate)
    settings = DecodingSettings(
        speaker=speaker, **_prompt_setting(prompt), steps=steps, guidance=guidance, seed=seed, quality=quality
    )
    decoder = _decoder(audio_tokenizer, settings)
    if stream:
        _refuse_without_streams(audio_tokenizer)
    recorder = _Recorder(_encode(audio_tokenizer, source, info.sample_rate, mono, stream))
    max_samples = round(info.duration_seconds * decoder.sample_rate)
    first_sound: float | None = None
    with _opened(target, decoder.sample_rate, stream) as writer:
        for waveform in decoder.decode_stream(recorder) if stream else _decode_whole(decoder, recorder):
            if first_sound is None and len(waveform):
                first_sound = time.monotonic() - start
            writer.write(waveform[: max_samples - writer.num_samples])
        if first_sound is None:
            raise AudioError(name, f"of {info.duration_seconds:.3f} s gives no codes to decode: it is too short")
    return ReconstructionResult(
        source=source,
        output=target,
        mono=mono,
        codes=torch.cat(recorder.codes, dim=-1 if audio_tokenizer.latent_size is None else 0),
        source_sample_rate=info.sample_rate,
        source_seconds=info.duration_seconds,
        sample_rate=decoder.sample_rate,
        num_samples=writer.num_samples,
        first_sound_seconds=first_sound,
        total_seconds=time.monotonic() - start,
        settings={
            "steps": steps,
            "seed": seed,
            "guidance": guidance,
            "quality": quality,
            "stream": stream,
            "speaker": speaker is not None,
            "prompt": prompt is not None,
        },
    )


def _encode(
    audio_tokenizer: AudioTokenizer, source: AudioSource, sample_rate: int, mono: Mono, stream: bool
) -> Iterator[Tensor]:
    if stream:
        yield from audio_tokenizer.encode_stream(stream_audio(source, mono=mono), sample_rate)
    else:
        waveform, _ = load_audio(source, mono=mono)
        codes_KT = audio_tokenizer.encode([waveform], sample_rate)[0]  # of latents [T, D]
        yield codes_KT[0] if audio_tokenizer.num_codebooks == 1 else codes_KT


class _Recorder:
    """Passes codes ``[n]`` or ``[K, n]`` on, and keeps them."""

    def __init__(self, codes: Iterator[Tensor]) -> None:
        self.codes: list[Tensor] = []
        self._source = codes

    def __iter__(self) -> Iterator[Tensor]:
        for chunk in self._source:
            if chunk.numel():
                self.codes.append(chunk)
                yield chunk


class _CodecDecoder:
    """A codec's own decoder, without a voice to choose; few have a flow, with steps, guidance and a seed of its noise.

    Raises:
        ValueError: for a setting that would have no effect.
    """

    def __init__(self, audio_tokenizer: AudioTokenizer, settings: DecodingSettings) -> None:
        refuse_settings(audio_tokenizer, settings)
        taken = inspect.signature(audio_tokenizer.decode).parameters
        given: dict[str, Any] = {"steps": settings.steps, "guidance": settings.guidance, "seed": settings.seed}
        self._options: dict[str, Any] = {k: v for k, v in given.items() if v is not None and k in taken}
        self.sample_rate = audio_tokenizer.output_sample_rate
        self._audio_tokenizer = audio_tokenizer

    def decode(self, rows: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """As `SpeechDecoder.decode`; codes of several codebooks are ``[K, T]``, latents ``[T, D]``."""
        clips = [codes if codes.dim() == 2 else codes[None] for row in rows for codes in row]
        given: Any = Codes.from_list(clips) if self._audio_tokenizer.latent_size is None else clips
        decoded = iter(self._audio_tokenizer.decode(given, **self._options))
        return [[next(decoded) for _ in row] for row in rows]

    def decode_stream(self, codes: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `SpeechDecoder.decode_stream`."""
        return self._audio_tokenizer.decode_stream(codes)


def _decoder(audio_tokenizer: AudioTokenizer, settings: DecodingSettings) -> SpeechDecoder | _CodecDecoder:
    """What makes sound of codes: a decoder that takes the settings of flow models, or one of codes alone.

    Raises:
        ValueError: if it cannot decode, or not with this voice or these settings.
    """
    if not audio_tokenizer.can_decode:
        raise ValueError(
            f"{audio_tokenizer.why_no_sound}, so its codes cannot become sound: load it whole, or use an audio "
            "tokenizer with one"
        )
    if takes_settings(audio_tokenizer) and audio_tokenizer.num_codebooks == 1:
        return SpeechDecoder(audio_tokenizer, settings)
    return _CodecDecoder(audio_tokenizer, settings)


def _refuse_without_streams(audio_tokenizer: AudioTokenizer) -> None:
    for can, name in ((audio_tokenizer.can_encode_stream, "encode"), (audio_tokenizer.can_decode_stream, "decode")):
        if not can:
            raise ValueError(f"stream: {type(audio_tokenizer).__name__} cannot {name} a stream; leave stream out")


def _decode_whole(decoder: SpeechDecoder | _CodecDecoder, codes: _Recorder) -> list[Tensor]:
    chunks = list(codes)
    return decoder.decode([[torch.cat(chunks, dim=-1)]])[0] if chunks else []


def _prompt_setting(prompt: Any) -> dict[str, Any]:
    """A recording is for the decoder to prepare; anything else is prepared."""
    is_recording = isinstance(prompt, (str, os.PathLike, bytes)) or hasattr(prompt, "read")
    return {"prompt_audio" if is_recording else "prompt": prompt}


def _beginning(source: AudioSource, mono: Mono) -> Tensor:
    return next(stream_audio(source, mono=mono, block_seconds=SPEAKER_SECONDS))


def refuse_original(source: AudioSource, output: Path | BinaryIO) -> None:
    """Raises `AudioError` if the output is the very file that is to be reconstructed."""
    if not isinstance(source, (str, os.PathLike)) or not isinstance(output, Path):
        return
    if output.exists() and os.path.exists(source) and os.path.samefile(source, output):
        raise AudioError(os.fspath(output), "is the original itself; give the reconstruction another name")


def _opened(output: Path | BinaryIO, sample_rate: int, is_live: bool) -> AbstractContextManager[AudioWriter]:
    if isinstance(output, Path):
        return open_audio_output(output, sample_rate)
    return open_audio_pipe(output, sample_rate, is_live=is_live)
