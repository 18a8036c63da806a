"""Records as rows of streams, and what the passes of an update hold."""
# Shapes: B records, S steps of the longest, K audio streams.

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.sampling import draw_share
from audiollm.training.audio_llm.records import EncodedRecord
from audiollm.uniaudio import Layout, UniAudioLMConfig, pad_batch
from audiollm.uniaudio.processor import rows_of, without_condition


def inputs_of(
    batch: Sequence[EncodedRecord], config: UniAudioLMConfig, *, packed: bool, device: torch.device
) -> dict[str, Any]:
    """The tensors of a pass, as `StreamLosses` takes them: padded rows, or one packed row with positions of its own.

    The first step of a record is no target: nothing of the record predicts it.
    """
    rows = [rows_of(one.token_ids, one.labels, one.frames, config) for one in batch]
    for row in rows:
        row.loss_mask[0] = False
    if packed:
        joined = Layout(
            torch.cat([one.input_ids for one in rows])[None],
            torch.cat([one.stream_mask for one in rows])[None],
            torch.cat([one.loss_mask for one in rows])[None],
        )
        positions = torch.cat([torch.arange(len(one)) for one in rows])[None]
        return {**_on(joined, device), "position_ids": positions.to(device)}
    return _on(pad_batch(rows, config), device)


def _on(layout: Layout, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in vars(layout).items()}


def some_without_condition(
    records: Sequence[EncodedRecord], config: UniAudioLMConfig, *, share: float, key: str
) -> list[EncodedRecord]:
    """Takes the condition away from a share of the records that have sound to learn.

    Args:
        records: of an update.
        config: of the LM.
        share: of those that lose it.
        key: of the draws, beside each record's id: the same record is drawn anew in another pass.
    """
    return [
        _bare(one, config)
        if _learns_frames(one, config) and draw_share("bare", f"{key} {one.record_id}") < share
        else one
        for one in records
    ]


def _bare(record: EncodedRecord, config: UniAudioLMConfig) -> EncodedRecord:
    ids, frames = without_condition(record.token_ids, record.labels, record.frames, config)
    return dataclasses.replace(record, token_ids=ids, frames=frames)


def _learns_frames(record: EncodedRecord, config: UniAudioLMConfig) -> bool:
    is_frame = record.token_ids >= config.text_config.vocab_size
    return bool((is_frame & (record.labels != IGNORED_LABEL)).any())


@dataclass(frozen=True)
class StreamCounts:
    """What the losses of an update are divided by, over all processes.

    Attributes:
        text_targets: text tokens that are learned.
        frames: frames that follow a step of their record, learned or not, as the published code counts them.
        learned_frames: those that are learned.
        most_text_targets: of each pass, the text targets of the process that has the most.
    """

    text_targets: int
    frames: int
    learned_frames: int
    most_text_targets: list[int]

    @classmethod
    def of(
        cls, passes: Sequence[Sequence[EncodedRecord]], accelerator: Accelerator, config: UniAudioLMConfig
    ) -> StreamCounts:
        """Counts an update; all processes call it with as many passes."""
        own = [cls.alone(batch, config) for batch in passes]
        counts = accelerator.gather(torch.tensor(own, device=accelerator.device)[None])  # [processes, passes, 3]
        text, frames, learned = counts.sum(dim=(0, 1)).tolist()
        return cls(text, frames, learned, counts[:, :, 0].amax(dim=0).tolist())

    @staticmethod
    def alone(batch: Sequence[EncodedRecord], config: UniAudioLMConfig) -> tuple[int, int, int]:
        """Text targets, frames and learned frames of the records of one pass of this process."""
        text, frames, learned = zip(*(_sizes(one, config) for one in batch), strict=True)
        return sum(text), sum(frames), sum(learned)


def _sizes(record: EncodedRecord, config: UniAudioLMConfig) -> tuple[int, int, int]:
    """Text targets, frames and learned frames; of a record that only fills a pass up, nothing."""
    is_target = record.labels[1:] != IGNORED_LABEL
    if not is_target.any():
        return 0, 0, 0
    is_frame = record.token_ids[1:] >= config.text_config.vocab_size
    return int((is_target & ~is_frame).sum()), int(is_frame.sum()), int((is_target & is_frame).sum())
