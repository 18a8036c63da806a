"""Waveforms to codes, around a model: check, resample, cut, batch, encode, put together again."""
# Shapes: B segments, N samples, M mel bins, F mel frames, T tokens, D feature size.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.configuration import CONV_STRIDE, HOP_LENGTH, SAMPLE_RATE, UniAudioTokenizerConfig
from audiollm.tokenizer.signal.log_mel import LogMelFeatures
from audiollm.tokenizer.signal.resampling import Resampler, check_sample_rate, resample
from audiollm.tokenizer.signal.waveforms import check_waveform, check_waveforms

from .segments import Segment, batches, cut, make_segment, stack

MAX_PADDING = 0.1  # share by which the longest segment of a batch may exceed the others
CPU_BATCH_TOKENS = 400  # larger batches gain a CPU nothing: the matrices fill its cores, and leave its caches


class HasModules(Protocol):
    """A module, or what has some."""

    def modules(self) -> Iterator[nn.Module]: ...


class Quantizer(Protocol):
    """What encoding needs of a quantizer: `Codebook` and `VotingLFQ` are two."""

    def search_index(self) -> Any: ...
    def encode(self, features_BTD: Tensor, index: Any = None) -> Tensor: ...


class WaveformEncoder(HasModules, Protocol):
    """What encoding needs of a model: `UniAudioTokenizer` and `StableToken` are two."""

    @property
    def config(self) -> UniAudioTokenizerConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def log_mel(self) -> LogMelFeatures: ...
    @property
    def codebook(self) -> Quantizer: ...
    def pre_quantizer_features(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor: ...


Encoder = TypeVar("Encoder", bound=HasModules)


def encode_waveforms(
    model: WaveformEncoder,
    waveforms: Sequence[Tensor] | Tensor,
    sample_rate: int,
    batch_size: int,
    return_features: bool,
) -> Codes:
    """Encodes clips held in memory; see `UniAudioTokenizer.encode`."""
    clips = check_waveforms(waveforms)
    sample_rate = check_sample_rate(sample_rate)
    check_batch_size(batch_size)
    config = model.config
    segments: list[Segment] = []
    for index, clip in enumerate(clips):
        if sample_rate != SAMPLE_RATE:
            clip = resample(clip.to(model.device), sample_rate, SAMPLE_RATE)
        segments += cut(clip, index, config.segment_samples, config.token_stride)
    codes, features = encode_segments(model, segments, batch_size, return_features)
    codes_of_clip: list[list[Tensor]] = [[torch.zeros(0, dtype=torch.int64)] for _ in clips]
    features_of_clip = [[torch.zeros(0, config.d_model, device=model.device, dtype=model.dtype)] for _ in clips]
    for segment, segment_codes in zip(segments, codes, strict=True):
        codes_of_clip[segment.clip].append(segment_codes)
    for segment, segment_features in zip(segments, features, strict=False):
        features_of_clip[segment.clip].append(segment_features)
    return Codes.from_list(
        [torch.cat(parts)[None] for parts in codes_of_clip],
        [torch.cat(parts) for parts in features_of_clip] if return_features else None,
        num_codebooks=1,
    )


def encode_chunks(
    model: WaveformEncoder, chunks: Iterable[Tensor], sample_rate: int, batch_size: int
) -> Iterator[Tensor]:
    """Encodes a stream segment by segment; see `UniAudioTokenizer.encode_stream`."""
    sample_rate = check_sample_rate(sample_rate)
    check_batch_size(batch_size)
    segments: list[Segment] = []
    for segment in segment_stream(model, chunks, sample_rate):
        segments.append(segment)
        if len(segments) == batch_size:
            yield torch.cat(encode_segments(model, segments, batch_size)[0])
            segments = []
    if segments:
        yield torch.cat(encode_segments(model, segments, batch_size)[0])


def segment_stream(model: WaveformEncoder, chunks: Iterable[Tensor], sample_rate: int) -> Iterator[Segment]:
    """Resamples a stream and cuts it, holding at most one segment and one chunk."""
    length, stride = model.config.segment_samples, model.config.token_stride
    resampler = Resampler(sample_rate, SAMPLE_RATE)
    pending, is_first = torch.zeros(0), True
    for index, chunk in enumerate(chunks):
        chunk = check_waveform(chunk, f"chunk {index}")
        if sample_rate != SAMPLE_RATE:
            chunk = resampler.push(chunk.to(model.device))
        pending = torch.cat([pending.to(chunk.device), chunk])
        while len(pending) >= length:
            yield make_segment(pending[:length], 0, is_first, length, stride)
            is_first = False
            pending = pending[length:]
    pending = torch.cat([pending, resampler.finish().to(pending.device)])
    for rest in pending.split(length) if len(pending) else ():
        yield make_segment(rest, 0, is_first, length, stride)
        is_first = False


@torch.no_grad()
def encode_segments(
    model: WaveformEncoder, segments: Sequence[Segment], batch_size: int, return_features: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Encodes segments in batches of similar length.

    Returns:
        Codes on the CPU and, if asked for, features, per segment and in the given order.
    """
    tokens_at_once = batch_size * -(-model.config.segment_samples // model.config.token_stride)
    if model.device.type == "cpu":
        tokens_at_once = min(tokens_at_once, CPU_BATCH_TOKENS)
    codes: list[Tensor] = [torch.zeros(0, dtype=torch.int64)] * len(segments)
    features: list[Tensor] = [torch.zeros(0)] * len(segments) if return_features else []
    search_index = model.codebook.search_index()  # once for all batches
    model = in_evaluation(model)
    lengths = [segment.padded_samples for segment in segments]
    for batch in batches(lengths, tokens_at_once * model.config.token_stride, MAX_PADDING):
        valid = encode_batch(model, [segments[index] for index in batch])
        found_N = model.codebook.encode(torch.cat(valid), search_index)
        for index, segment_features, segment_codes in zip(
            batch, valid, found_N.split([len(rows) for rows in valid]), strict=True
        ):
            codes[index] = segment_codes
            if return_features:
                features[index] = segment_features
    counts = [len(segment_codes) for segment_codes in codes]
    joined = torch.cat(codes).cpu() if codes else torch.zeros(0, dtype=torch.int64)  # one transfer, not one per batch
    return list(joined.split(counts)) if codes else [], features


def in_evaluation(model: Encoder) -> Encoder:
    """The model in evaluation mode; a second view of its weights if it is in training mode.

    The mode is state of the modules, which other threads may be using: it is left as it is.
    """
    if not any(module.training for module in model.modules()):
        return model
    view: Any = _evaluation_view(cast(nn.Module, model))
    view._compiled = None  # what was compiled runs the layers of the model itself, in their mode
    return cast(Encoder, view)


def _evaluation_view(module: nn.Module) -> nn.Module:
    view = object.__new__(type(module))  # not copy.copy, which modules with parametrizations refuse
    view.__dict__ = dict(module.__dict__)
    view._modules = {name: child and _evaluation_view(child) for name, child in module._modules.items()}
    view.training = False
    return view


@contextmanager
def evaluating(model: HasModules) -> Iterator[None]:
    """Puts all modules in evaluation mode, and back into the mode that each had."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def encode_batch(model: WaveformEncoder, segments: Sequence[Segment]) -> list[Tensor]:
    """Computes what the quantizer sees of each segment, ``[T_i, D]``."""
    waveforms_BN, num_samples = stack(segments, model.device)
    features_BMF = model.log_mel(waveforms_BN, num_samples)
    mask_BF = frame_mask(model, segments, features_BMF.shape[-1])
    hidden_BTD = model.pre_quantizer_features(features_BMF, mask_BF)
    return [hidden_BTD[row, : segment.num_tokens] for row, segment in enumerate(segments)]


def frame_mask(model: WaveformEncoder, segments: Sequence[Segment], num_frames: int) -> Tensor | None:
    """Marks mel frames that start inside the clip, ``[B, F]``; None where no layer would see a masked frame."""
    pooled = model.config.pooling_factor if model.config.pooling_position == 0 else 1
    stride = HOP_LENGTH * CONV_STRIDE * pooled
    num_samples = [len(segment.waveform) for segment in segments]
    if all(-(-length // stride) * stride == num_frames * HOP_LENGTH for length in num_samples):
        return None
    starts_F = torch.arange(num_frames, device=model.device) * HOP_LENGTH
    return (starts_F < torch.tensor(num_samples, device=model.device)[:, None]).long()


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError unless ``batch_size`` is a positive whole number."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: use a whole number of at least 1")
