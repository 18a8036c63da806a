"""What a model is given, compared with its streams and vocabularies before anything is computed."""
# Shapes: B rows, S steps, K audio streams.

from __future__ import annotations

import torch
from torch import Tensor

from .configuration import UniAudioLMConfig


def check_inputs(input_ids: Tensor, stream_mask: Tensor, config: UniAudioLMConfig) -> Tensor:
    """Compares shapes and ids with the configuration.

    Args:
        input_ids: int64 ``[B, S, K + 1]``.
        stream_mask: bool or 0/1 of the same shape.
        config: of the model.

    Returns:
        The mask as bool.

    Raises:
        ValueError: naming the stream and the id that is out of range, or the shape that does not fit.
    """
    num_streams = config.num_audio_streams + 1
    if input_ids.ndim != 3 or input_ids.shape[-1] != num_streams:
        raise ValueError(
            f"input_ids has shape {list(input_ids.shape)}: expected [rows, steps, {num_streams}], "
            f"{config.num_audio_streams} audio streams and the text"
        )
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids is {input_ids.dtype}: ids are int64")
    if not input_ids.shape[0] or not input_ids.shape[1]:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}: there is no step to look at")
    mask = _as_bool(stream_mask, "stream_mask", input_ids.shape)
    _check_range(input_ids[..., :-1], mask[..., :-1], config.audio_vocab_size, "audio")
    _check_range(input_ids[..., -1:], mask[..., -1:], config.text_config.vocab_size, "text")
    return mask


def check_loss_mask(loss_mask: Tensor, stream_mask: Tensor) -> Tensor:
    """The loss mask as bool.

    Raises:
        ValueError: if it has another shape than the stream mask, or wants to learn what is not there.
    """
    mask = _as_bool(loss_mask, "loss_mask", stream_mask.shape)
    if bool((mask & ~stream_mask).any()):
        raise ValueError("loss_mask marks ids that stream_mask says are not there: nothing can be learned of them")
    return mask


def check_attention_mask(attention_mask: Tensor, past: int, input_ids: Tensor) -> Tensor:
    """The attention mask, if it covers all steps so far.

    Raises:
        ValueError: if it has another shape.
    """
    expected = [input_ids.shape[0], past + input_ids.shape[1]]
    if list(attention_mask.shape) != expected:
        raise ValueError(
            f"attention_mask has shape {list(attention_mask.shape)}: expected {expected}, all steps so far"
        )
    return attention_mask


def check_positions(position_ids: Tensor, input_ids: Tensor, *, alone: bool) -> None:
    """Compares positions with the steps.

    Raises:
        ValueError: if they have another shape, or come with a mask or caches that say something else.
    """
    if position_ids.shape != input_ids.shape[:2]:
        raise ValueError(
            f"position_ids has shape {list(position_ids.shape)}: expected {list(input_ids.shape[:2])}, one per step"
        )
    if not alone:
        raise ValueError(
            "position_ids come with attention_mask or caches: give positions alone, for sequences in one row"
        )


def _as_bool(mask: Tensor, name: str, shape: torch.Size) -> Tensor:
    if mask.shape != shape:
        raise ValueError(
            f"{name} has shape {list(mask.shape)}, but the ids have {list(shape)}: give one of the same shape"
        )
    if mask.dtype == torch.bool:
        return mask
    if bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError(f"{name} holds values other than 0 and 1")
    return mask != 0


def _check_range(ids: Tensor, mask: Tensor, size: int, what: str) -> None:
    wrong = mask & ((ids < 0) | (ids >= size))
    if bool(wrong.any()):
        row, step, stream = (int(one) for one in wrong.nonzero()[0])
        where = f"audio stream {stream}" if what == "audio" else "the text stream"
        raise ValueError(
            f"input_ids: {int(ids[row, step, stream])} in {where}, row {row}, step {step}, is not in [0, {size}): "
            "these are ids of another vocabulary"
        )
