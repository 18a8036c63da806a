"""CosyVoice2's speech tokenizer: from waveforms to codes, with the torch port's weights or the released ONNX file."""
# Shapes: B rows, N samples, M mel bins, F mel frames, T tokens, D feature size.

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_complete, check_finite, read_tensors, stored_shapes
from audiollm.tokenizer.configuration import HOP_LENGTH, SAMPLE_RATE
from audiollm.tokenizer.encoder.encoding import (
    CPU_BATCH_TOKENS,
    MAX_PADDING,
    check_batch_size,
    in_evaluation,
)
from audiollm.tokenizer.encoder.segments import batches
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS
from audiollm.tokenizer.quantizer.fsq import FiniteScalarQuantizer
from audiollm.tokenizer.signal.log_mel import N_FFT, LogMelFeatures, compress_range, reflect_ends
from audiollm.tokenizer.signal.resampling import check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveforms
from audiollm.tokenizer.zoo.codec import own_settings
from audiollm.tokenizer.zoo.decodable import DecodableTokenizer

from .encoder import HEAD_SIZE, SpeechEncoder, num_tokens
from .graph import read_onnx
from .windows import WINDOW_FRAMES, merge, windows

MAX_SIZE = 8192  # of any kind; more would be made one by one before their weights are found missing
ONNX_FILES = ("speech_tokenizer_v2.onnx",)
FRAMES_PER_TOKEN = 4
MIN_SAMPLES = 2 * HOP_LENGTH  # of a clip; a shorter one is followed by silence, for the spectrum's sake

Own = TypeVar("Own", bound="CosyVoice2Tokenizer")


@dataclass(frozen=True)
class _Clip:
    """A clip made ready for its spectrum: with reflected ends, and the level of its loudest cell if it is long."""

    extended: Tensor  # float32 [N + 400]
    num_frames: int
    loudest: Tensor | None = None  # [1, 1, 1]


class CosyVoice2Tokenizer(DecodableTokenizer):
    """Turns speech into codes; back into sound only with a waveform decoder that was trained for them.

    Args:
        num_mel_bins: of the log-mel features.
        size: D, a multiple of 64.
        num_blocks: of the encoder.
        num_dims: numbers of a code, each of three levels.

    Raises:
        ValueError: for sizes that do not fit.
    """

    kind_name = "cosyvoice2"
    lacks_decoder = (
        "this CosyVoice2 speech tokenizer can only encode: CosyVoice2's own flow model is another network than those "
        "this package builds (a causal one with look-ahead, at 24 kHz). Train a waveform decoder for these codes "
        "(training/train_decoder.py), put it into decoder/ in or beside this folder, or use attach_decoder(folder)"
    )

    def __init__(self, *, num_mel_bins: int = 128, size: int = 1280, num_blocks: int = 6, num_dims: int = 8) -> None:
        super().__init__()
        self.sizes = {"num_mel_bins": num_mel_bins, "size": size, "num_blocks": num_blocks, "num_dims": num_dims}
        for name, value in self.sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
                raise ValueError(f"{name}={value!r}: use a whole number from 1 to {MAX_SIZE}")
        if size % HEAD_SIZE:
            raise ValueError(f"size={size}: use a multiple of {HEAD_SIZE}, which is the size of a head")
        self.encoder = SpeechEncoder(num_mel_bins, size, num_blocks)
        # In a dictionary for the sake of the released name, quantizer._codebook.project_down.
        self.quantizer = nn.ModuleDict({"_codebook": FiniteScalarQuantizer(size, num_dims)})
        self.log_mel = LogMelFeatures(num_mel_bins)

    # ------------------------------------------------------------------- facts

    @property
    def codebook(self) -> FiniteScalarQuantizer:
        """The quantizer."""
        quantizer = self.quantizer["_codebook"]
        assert isinstance(quantizer, FiniteScalarQuantizer)
        return quantizer

    @property
    def sample_rate(self) -> int:
        return SAMPLE_RATE

    @property
    def num_codebooks(self) -> int:
        return 1

    @property
    def codebook_size(self) -> int:
        return self.codebook.codebook_size

    @property
    def frame_samples(self) -> int:
        return FRAMES_PER_TOKEN * HOP_LENGTH

    @property
    def max_segment_seconds(self) -> float:
        return WINDOW_FRAMES * HOP_LENGTH / SAMPLE_RATE

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        resampled = -(-num_samples * SAMPLE_RATE // check_sample_rate(sample_rate))
        return num_tokens(max(resampled, MIN_SAMPLES) // HOP_LENGTH) if resampled else 0

    def settings(self) -> dict[str, Any]:
        return dict(self.sizes)

    # ------------------------------------------------------------------ encode

    def forward(self, input_features: Tensor, num_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encodes log-mel features of up to 30 s.

        Args:
            input_features: as `features` gives them, ``[B, M, F]``.
            num_frames: valid frames of each row, int64 ``[B]``; None if all are.

        Returns:
            Codes, int64 ``[B, T]``, and what was quantized, ``[B, T, D]``; padded positions are filled like all others.
        """
        hidden_BTD = self.encoder(input_features, num_frames)
        return self.codebook.encode(hidden_BTD), hidden_BTD

    def features(self, waveform: Tensor) -> Tensor:
        """Computes the log-mel features of a whole clip ``[N]`` at 16 kHz, float32 ``[M, F]`` with F = N // 160.

        They are Whisper's but for their end: a clip is not padded to whole tokens, and its last frame is the last that
        begins 160 samples before its end. The floor is 8 powers of ten below the loudest cell of the whole clip, also
        of a long one. A clip of less than 320 samples is followed by silence up to those.
        """
        clip = self._clip(waveform)
        return self._window(clip, 0, clip.num_frames)

    def _clip(self, waveform_N: Tensor) -> _Clip:
        if len(waveform_N) < MIN_SAMPLES:
            waveform_N = F.pad(waveform_N, (0, MIN_SAMPLES - len(waveform_N)))
        clip = _Clip(reflect_ends(waveform_N[None], None)[0], len(waveform_N) // HOP_LENGTH)
        if clip.num_frames <= WINDOW_FRAMES:
            return clip
        # Of a long clip, window by window, twice: all of its features at once would not fit into memory.
        loudest = [
            self._logarithms(clip, first, min(first + WINDOW_FRAMES, clip.num_frames)).amax()
            for first in range(0, clip.num_frames, WINDOW_FRAMES)
        ]
        return _Clip(clip.extended, clip.num_frames, torch.stack(loudest).amax().view(1, 1, 1))

    def _logarithms(self, clip: _Clip, first: int, last: int) -> Tensor:
        part_N = clip.extended[first * HOP_LENGTH : (last - 1) * HOP_LENGTH + N_FFT]
        return self.log_mel.logarithms(part_N[None].to(self.device))

    def _window(self, clip: _Clip, first: int, last: int) -> Tensor:
        """Features of the frames from ``first`` to ``last`` of a clip, ``[M, F]``."""
        return compress_range(self._logarithms(clip, first, last), clip.loudest)[0]

    @torch.no_grad()
    def encode(
        self,
        waveforms: Sequence[Tensor] | Tensor,
        sample_rate: int,
        *,
        batch_size: int = 16,
        return_features: bool = False,
    ) -> Codes:
        """Turns waveforms into codes; each clip's codes are what it would get alone.

        Clips longer than 30 s are encoded in windows of 30 s that overlap by 4 s.

        Args:
            waveforms: float in [-1, 1], mono: a list of ``[N_i]``, one ``[N]``, or ``[B, N]``.
            sample_rate: of all waveforms, in Hz; resampled to 16 kHz where needed.
            batch_size: how much is computed at once, in windows of 30 s (or as many shorter ones as that makes).
            return_features: also return what was quantized, ``[T_i, D]`` per clip, on the model's device.

        Returns:
            Codes on the CPU; an empty clip has none. The end of a clip that is shorter than a mel frame (10 ms) gives
            none, but every clip has at least one code.

        Raises:
            ValueError: if a waveform is not a float vector or holds NaN or infinity (naming the clip), or the sample
                rate makes no sense.
        """
        waveforms = check_waveforms(waveforms)
        check_batch_size(batch_size)
        if check_sample_rate(sample_rate) != SAMPLE_RATE:
            waveforms = [
                resample(one.to(self.device), sample_rate, SAMPLE_RATE) if len(one) else one for one in waveforms
            ]
        model = in_evaluation(self)
        clips = [(index, model._clip(waveform)) for index, waveform in enumerate(waveforms) if len(waveform)]
        parts = [(index, clip, window) for index, clip in clips for window in windows(clip.num_frames)]
        found = model._encode_windows([(clip, window) for _, clip, window in parts], batch_size, return_features)
        codes: list[list[Tensor]] = [[] for _ in waveforms]
        hidden: list[list[Tensor]] = [[] for _ in waveforms]
        for (index, _, _), (codes_T, hidden_TD) in zip(parts, found, strict=True):
            codes[index].append(codes_T)
            hidden[index].append(hidden_TD)
        none_TD = torch.zeros(0, self.sizes["size"], device=self.device, dtype=self.dtype)
        return Codes.from_list(
            [merge(one)[None] for one in codes],
            [merge(one) if one else none_TD for one in hidden] if return_features else None,
            num_codebooks=1,
        )

    def _encode_windows(
        self, parts: Sequence[tuple[_Clip, tuple[int, int]]], batch_size: int, return_features: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """Codes (on the CPU) and features of windows, computed in batches of similar length."""
        results = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0))] * len(parts)
        lengths = [last - first for _, (first, last) in parts]
        most = batch_size * WINDOW_FRAMES
        if self.device.type == "cpu":
            most = min(most, CPU_BATCH_TOKENS * FRAMES_PER_TOKEN)
        for batch in batches(lengths, most, MAX_PADDING):
            rows = [self._window(parts[index][0], *parts[index][1]) for index in batch]
            features_BMF = torch.stack([F.pad(row, (0, lengths[batch[0]] - row.shape[1])) for row in rows])
            num_frames_B = torch.tensor([lengths[index] for index in batch], device=self.device)
            is_padded = lengths[batch[0]] != lengths[batch[-1]]
            codes_BT, hidden_BTD = self(features_BMF, num_frames_B if is_padded else None)
            codes_BT = codes_BT.cpu()
            for row, index in enumerate(batch):
                valid = num_tokens(lengths[index])
                seen_TD = hidden_BTD[row, :valid].clone() if return_features else torch.zeros(0, 0)
                results[index] = (codes_BT[row, :valid].clone(), seen_TD)
        return results

    encode_stream = AudioTokenizer.encode_stream
    """Refused: the floor of a long clip's features lies below its loudest cell, which may come last."""

    def encode_batch(self, waveforms_BN: Tensor) -> Tensor:
        codes: Tensor = self(torch.stack([self.features(waveform) for waveform in waveforms_BN]))[0]
        return codes[:, None]

    # ------------------------------------------------------------------- files

    @classmethod
    def read(cls: type[Own], folder: Path, *, encoder_only: bool = False) -> Own:
        path = _weight_file(folder)
        if path.suffix == ".onnx":
            tensors = read_onnx(path)
            model = cls._on_meta(sizes_of({name: list(tensor.shape) for name, tensor in tensors.items()}, path), path)
            check_complete(model.state_dict(), tensors, path)
            check_finite(tensors, path)
        else:
            config = folder / CONFIG
            if config.is_file():  # ours; the release has none
                model = cls._on_meta(own_settings(read_json_object(config)), config)
            else:
                model = cls._on_meta(sizes_of(stored_shapes(path), path), path)
            tensors = read_tensors(path, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model

    @classmethod
    def _on_meta(cls: type[Own], sizes: Mapping[str, Any], source: Path) -> Own:
        """A model without memory, of sizes out of a file."""
        try:
            with torch.device("meta"):
                return cls(**sizes)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: {error}") from error


def _weight_file(folder: Path) -> Path:
    for name in (WEIGHTS, *ONNX_FILES):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} lacks {' and '.join((WEIGHTS, *ONNX_FILES))}: copy or download one of them again")


def sizes_of(shapes: Mapping[str, Sequence[int]], source: Path) -> dict[str, int]:
    """The sizes of a checkpoint's model, which it says by the shapes of its tensors alone.

    Args:
        shapes: by name.
        source: where from, for the message.

    Raises:
        ValueError: naming the tensors without which they cannot be told.
    """
    needed = {"encoder.conv1.weight": 3, "quantizer._codebook.project_down.weight": 2}
    missing = [name for name, num_axes in needed.items() if len(shapes.get(name, ())) != num_axes]
    if missing:
        raise ValueError(f"{source} is no CosyVoice2 speech tokenizer, or half of one: it lacks {', '.join(missing)}")
    size, num_mel_bins, _ = shapes["encoder.conv1.weight"]
    blocks = [int(found[1]) for name in shapes if (found := re.match(r"encoder\.blocks\.(\d+)\.", name))]
    return {
        "num_mel_bins": num_mel_bins,
        "size": size,
        "num_blocks": max(blocks, default=-1) + 1,
        "num_dims": shapes["quantizer._codebook.project_down.weight"][0],
    }
