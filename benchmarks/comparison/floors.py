"""Floors: tokenizers without weights, which say how far a comparison's figures can be had without any learning.

``mulaw`` is a byte for each sample, as telephones have it; ``opus`` the bytes of Opus packets of constant size. Both
are tokenizers like others: bytes are codes in [0, 256).
"""
# Shapes: K codebooks, T frames, N samples.

from __future__ import annotations

import hashlib
import importlib
import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.signal.resampling import check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveforms

BYTES = 256
_OPUS_RATE = 16000  # Hz, at which clips are encoded
_OPUS_OUTPUT_RATE = 48000  # Hz, at which Opus decodes
_OPUS_DELAY = 104  # samples at 16 kHz that the encoder looks ahead (312 at 48 kHz, in the head of its stream)
_PACKETS_PER_SECOND = 50


@dataclass(frozen=True, kw_only=True)
class MuLawSettings:
    """µ-law: the logarithm of each sample in 8 bits."""

    sample_rate: int = 8000
    """Samples, and bytes, per second."""

    def __post_init__(self) -> None:
        check_sample_rate(self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class OpusSettings:
    """Opus with packets of constant size, 50 of them a second."""

    kbps: float = 6.0
    """Kilobits per second, 6 to 64: each packet has ``kbps * 2.5`` bytes."""

    def __post_init__(self) -> None:
        if not 6 <= self.kbps <= 64 or (self.kbps * 1000 / 8) % _PACKETS_PER_SECOND:
            raise ValueError(f"kbps={self.kbps:g}: use 6 to 64 in steps of 0.4, such as 6 or 8")


class Floor(AudioTokenizer):
    """What floors share: checked clips at the floor's own rate, and codes within their range."""

    settings: MuLawSettings | OpusSettings
    name: str

    @property
    def kind(self) -> str:
        return self.name

    @property
    def codebook_size(self) -> int:
        return BYTES

    @property
    def max_segment_seconds(self) -> float | None:
        return None

    @property
    def can_decode(self) -> bool:
        return True

    def fingerprint(self) -> str:
        facts = {"kind": self.name, **asdict(self.settings), **self._made_by()}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _made_by(self) -> dict[str, str]:
        """Versions of libraries that decide the codes."""
        return {}

    def encode(self, waveforms: Sequence[Tensor] | Tensor, sample_rate: int) -> Codes:
        """Turns waveforms into bytes; each clip's are what it would get alone.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all, in Hz.
        """
        clips = check_waveforms(waveforms)
        if check_sample_rate(sample_rate) != self.sample_rate:
            clips = [resample(clip, sample_rate, self.sample_rate) if len(clip) else clip for clip in clips]
        none = torch.zeros(self.num_codebooks, 0, dtype=torch.int64)
        encoded = [self.encode_clip(clip.cpu().float()) if len(clip) else none for clip in clips]
        return Codes.from_list(encoded, num_codebooks=self.num_codebooks)

    def decode(self, codes: Codes | Tensor, speaker: Tensor | None = None, prompt: Any = None) -> list[Tensor]:
        """Turns bytes into waveforms, float32 ``[N_i]`` at `output_sample_rate`.

        Args:
            codes: of a batch, or of one clip, int64 ``[K, T]``.
            speaker: None: there is no voice to choose.
            prompt: as ``speaker``.

        Raises:
            ValueError: for codes that are no bytes, or of another number of codebooks; for a speaker or prompt.
        """
        if speaker is not None or prompt is not None:
            raise ValueError(f"{self.name} takes neither speaker nor prompt: leave them out")
        batch = codes if isinstance(codes, Codes) else Codes.from_list([codes])
        clips = [batch[index] for index in range(len(batch))]
        for index, clip in enumerate(clips):
            if clip.shape[0] != self.num_codebooks or (
                clip.numel() and not 0 <= int(clip.min()) <= int(clip.max()) < BYTES
            ):
                raise ValueError(
                    f"clip {index} has codes of shape {list(clip.shape)}; {self.name} wants bytes in [0, {BYTES}) of "
                    f"shape [{self.num_codebooks}, T]"
                )
        return [self.decode_clip(clip) if clip.shape[1] else torch.zeros(0) for clip in clips]

    @abstractmethod
    def encode_clip(self, waveform_N: Tensor) -> Tensor:
        """Bytes of a clip that has samples, at the floor's rate: int64 ``[K, T]``."""

    @abstractmethod
    def decode_clip(self, codes_KT: Tensor) -> Tensor:
        """The waveform of a clip that has codes, float32 ``[N]``."""


class MuLaw(Floor):
    """A byte for each sample: its sign, and the logarithm of its size (ITU-T G.711, with µ = 255)."""

    name = "mulaw"
    settings: MuLawSettings

    def __init__(self, settings: MuLawSettings | None = None) -> None:
        self.settings = settings or MuLawSettings()

    @property
    def sample_rate(self) -> int:
        return self.settings.sample_rate

    @property
    def output_sample_rate(self) -> int:
        return self.settings.sample_rate

    @property
    def frame_rate(self) -> float:
        return float(self.settings.sample_rate)

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def is_causal(self) -> bool:
        return True

    @property
    def licence_note(self) -> str:
        return "none needed"

    def encode_clip(self, waveform_N: Tensor) -> Tensor:
        clipped = waveform_N.double().clamp(-1, 1)
        companded = clipped.sign() * (255 * clipped.abs()).log1p() / math.log(BYTES)
        return ((companded + 1) / 2 * 255).round().to(torch.int64)[None]

    def decode_clip(self, codes_KT: Tensor) -> Tensor:
        companded = codes_KT[0].double() / 255 * 2 - 1
        return (companded.sign() * torch.expm1(companded.abs() * math.log(BYTES)) / 255).float()


class OpusBytes(Floor):
    """The bytes of Opus packets of 20 ms (RFC 6716): as many codebooks as a packet has bytes, which is always the same.

    Raises:
        ImportError: PyAV is not installed.
    """

    name = "opus"
    settings: OpusSettings

    def __init__(self, settings: OpusSettings | None = None) -> None:
        self.settings = settings or OpusSettings()
        try:
            self._av: Any = importlib.import_module("av")
        except ImportError as error:
            raise ImportError(
                "the floor opus needs PyAV: run `pip install 'audiollm[av]'`, or take it out of the study"
            ) from error

    @property
    def sample_rate(self) -> int:
        return _OPUS_RATE

    @property
    def output_sample_rate(self) -> int:
        return _OPUS_OUTPUT_RATE

    @property
    def frame_rate(self) -> float:
        return float(_PACKETS_PER_SECOND)

    @property
    def num_codebooks(self) -> int:
        return round(self.settings.kbps * 1000 / 8 / _PACKETS_PER_SECOND)

    @property
    def licence_note(self) -> str:
        return "libopus: BSD"

    @property
    def _frame_samples(self) -> int:
        return _OPUS_RATE // _PACKETS_PER_SECOND

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        own = math.ceil(num_samples * _OPUS_RATE / check_sample_rate(sample_rate))
        return math.ceil((own + _OPUS_DELAY) / self._frame_samples) if own else 0

    def _made_by(self) -> dict[str, str]:
        return {"av": str(self._av.__version__)}

    def encode_clip(self, waveform_N: Tensor) -> Tensor:
        num_packets = self.num_frames(len(waveform_N), _OPUS_RATE)
        # The encoder looks ahead: what it hears behind the end is silence.
        padded = F.pad(waveform_N.clamp(-1, 1), (0, num_packets * self._frame_samples - len(waveform_N))).numpy()
        encoder = self._opened("w")
        packets: list[bytes] = []
        for start in range(0, len(padded), self._frame_samples):
            frame = self._av.AudioFrame.from_ndarray(
                np.ascontiguousarray(padded[None, start : start + self._frame_samples]), format="flt", layout="mono"
            )
            frame.sample_rate, frame.pts = _OPUS_RATE, start
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode(None)]
        packets = packets[:num_packets]
        sizes = {len(packet) for packet in packets}
        if len(packets) < num_packets or sizes != {self.num_codebooks}:
            raise ValueError(
                f"libopus made {len(packets)} packets of {sorted(sizes)} bytes; {num_packets} of {self.num_codebooks} "
                "were asked for: use another version of PyAV"
            )
        return torch.tensor([list(packet) for packet in packets], dtype=torch.int64).T.contiguous()

    def decode_clip(self, codes_KT: Tensor) -> Tensor:
        decoder = self._opened("r")
        frames = []
        for packet in codes_KT.T.to(torch.uint8).numpy():
            try:
                frames += decoder.decode(self._av.Packet(packet.tobytes()))
            except self._av.FFmpegError as error:
                raise ValueError(f"bytes {packet[:4].tolist()} … are no Opus packet: {error}") from error
        frames += decoder.decode(None)
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return torch.from_numpy(samples.astype(np.float32) / 2**15)

    def _opened(self, mode: str) -> Any:
        """libopus, to encode or to decode."""
        context = self._av.CodecContext.create("libopus", mode)
        context.layout = "mono"
        context.sample_rate = _OPUS_RATE if mode == "w" else _OPUS_OUTPUT_RATE
        if mode == "r":
            # The head of a stream: version, channels, samples to skip at 48 kHz, rate, gain, mapping.
            skipped = _OPUS_DELAY * _OPUS_OUTPUT_RATE // _OPUS_RATE
            rate = _OPUS_RATE.to_bytes(4, "little")
            context.extradata = b"OpusHead\x01\x01" + skipped.to_bytes(2, "little") + rate + bytes(3)
            return context
        context.format = "flt"
        context.bit_rate = round(self.settings.kbps * 1000)
        context.options = {"vbr": "off", "application": "voip", "frame_duration": str(1000 // _PACKETS_PER_SECOND)}
        context.open()
        return context
