"""Examples of the tokenizer's training as one padded batch; what stands beside a clip has no influence on it."""
# Shapes: B clips, N samples, M mel bins, F mel frames, S positions of the text decoder.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiollm.data.collation import IGNORED_LABEL
from audiollm.tokenizer.configuration import HOP_LENGTH, SAMPLE_RATE
from audiollm.tokenizer.encoder.segments import Segment, stack
from audiollm.tokenizer.signal.log_mel import LogMelFeatures

from .records import TokenizerExample


@dataclass(frozen=True)
class TokenizerBatch:
    """What one forward pass takes, and whose it is."""

    input_features: Tensor  # [B, M, F] float32
    attention_mask: Tensor  # [B, F] int64, 1 for mel frames that start inside the clip
    decoder_input_ids: Tensor  # [B, S] int64
    labels: Tensor  # [B, S] int64, -100 behind the end of a target
    example_ids: Tensor  # [B] int64, position of each clip in the whole update
    num_codes: Tensor  # [B] int64, codes that belong to the clip and not to its padding
    ids: list[str]
    wheres: list[str]  # file and line
    tasks: list[str]
    sound_types: list[str]
    num_samples: list[int]  # without padding
    noisy_features: Tensor | None = None  # [B, M, F] float32, of the same clips with noise

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_targets(self) -> int:
        """Tokens that count in the loss."""
        return int((self.labels != IGNORED_LABEL).sum())

    @property
    def num_frames(self) -> int:
        """Frames that the quantizer counts, all clips together."""
        return int(self.num_codes.sum())

    @property
    def seconds(self) -> float:
        """Duration of the clips, without padding."""
        return sum(self.num_samples) / SAMPLE_RATE

    def to(self, device: torch.device | str) -> TokenizerBatch:
        """The same batch with its tensors on ``device``."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **values | {name: value.to(device) for name, value in tensors.items()})


def collate_examples(
    examples: Sequence[TokenizerExample],
    log_mel: LogMelFeatures,
    *,
    token_stride: int,
    pad_id: int,
    pad_to_seconds: float | None = None,
    positions: Sequence[int] | None = None,
) -> TokenizerBatch:
    """Computes features and pads.

    A clip is filled up to whole codes only, as ``encode()`` does it; behind that its features are zero and masked, so
    that it is heard in a batch as it is alone. With ``pad_to_seconds`` every clip is followed by so much silence
    instead, as the reference trains.

    Args:
        examples: the clips, at least one.
        log_mel: the tokenizer's ``log_mel``.
        token_stride: samples per code, ``config.token_stride``.
        pad_id: fills up ``decoder_input_ids``; nothing learns from it.
        pad_to_seconds: length of all clips; None for the longest of the batch.
        positions: position of each clip in the update, which must not depend on how the update is cut into passes;
            0, 1, … if None.

    Raises:
        ValueError: for an empty batch, or a clip longer than ``pad_to_seconds``.
    """
    if not examples:
        raise ValueError("no examples: a batch needs at least one clip")
    pieces = [_segment(example, token_stride, pad_to_seconds) for example in examples]
    features_BMF = _features(pieces, log_mel)
    num_samples = [len(example.waveform) for example in examples]
    starts_F = torch.arange(features_BMF.shape[-1]) * HOP_LENGTH
    token_ids = [torch.tensor(example.token_ids) for example in examples]
    return TokenizerBatch(
        input_features=features_BMF,
        # A frame is real if it starts within the clip: the last one may reach into the padding.
        attention_mask=(starts_F < torch.tensor(num_samples)[:, None]).long(),
        decoder_input_ids=_padded([ids[:-1] for ids in token_ids], pad_id),
        labels=_padded([ids[1:] for ids in token_ids], IGNORED_LABEL),
        example_ids=torch.arange(len(examples)) if positions is None else torch.tensor(list(positions)),
        num_codes=torch.tensor([piece.num_tokens for piece in pieces]),
        ids=[example.id for example in examples],
        wheres=[example.where for example in examples],
        tasks=[example.task for example in examples],
        sound_types=[example.sound_type for example in examples],
        num_samples=num_samples,
        noisy_features=_noisy_features(examples, pieces, log_mel),
    )


def _noisy_features(
    examples: Sequence[TokenizerExample], pieces: Sequence[Segment], log_mel: LogMelFeatures
) -> Tensor | None:
    """Of the clips with noise, in the places of those without; None if the examples have none."""
    noisy = [
        dataclasses.replace(piece, waveform=example.noisy_waveform)
        for example, piece in zip(examples, pieces, strict=True)
        if example.noisy_waveform is not None
    ]
    return _features(noisy, log_mel) if noisy else None


def _features(pieces: Sequence[Segment], log_mel: LogMelFeatures) -> Tensor:
    waveforms_BN, num_padded = stack(pieces, torch.device("cpu"))
    return log_mel(waveforms_BN, num_padded)


def _segment(example: TokenizerExample, token_stride: int, pad_to_seconds: float | None) -> Segment:
    num_codes = -(-len(example.waveform) // token_stride)
    padded_codes = num_codes
    if pad_to_seconds is not None:
        padded_codes = -(-round(pad_to_seconds * SAMPLE_RATE) // token_stride)
        if padded_codes < num_codes:
            raise ValueError(
                f"{example.where}: lasts {len(example.waveform) / SAMPLE_RATE:.2f} s, longer than "
                f"pad_to_seconds={pad_to_seconds:g}; raise it or lower max_seconds"
            )
    return Segment(example.waveform, 0, num_codes, padded_codes * token_stride)


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
