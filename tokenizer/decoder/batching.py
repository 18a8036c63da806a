"""Batches for the flow model: rows of any number and length in groups of bounded size, long rows in windows."""
# Shapes: B rows, T codes, P prompt codes, C mel bins, M mel frames of a row, S size of a speaker vector.

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiollm.tokenizer.decoder.flow.model import FlowModel

from .inputs import DecoderInputs, FlowSettings

MAX_BATCH_FRAMES = 16_384
"""Mel frames computed together, padding included; bounds the memory of large batches."""
MAX_PADDING_SHARE = 0.1
"""Of the frames of a batch on a processor: a batch saves so little there that more padding makes it dearer than its
rows one by one. On a GPU, where small rows leave most of it idle, padding costs less than another pass."""
MAX_WHOLE_SECONDS = 60
"""Up to here a row is computed in one piece, as the published decoder computes all. Attention grows with the square of
the length, so longer rows are computed in windows."""
WINDOW_SECONDS, CONTEXT_SECONDS, LOOKAHEAD_SECONDS = 30, 6, 1
"""New sound of a window; sound before it, already made and given as a prompt; codes behind it, heard but not kept."""


def make_mels(
    flow: FlowModel, inputs: DecoderInputs, settings: FlowSettings, noises: list[Tensor] | None = None
) -> Iterator[tuple[list[int], list[Tensor], list[torch.Generator]]]:
    """Makes the mels of all rows that have codes, a group of rows at a time.

    Args:
        flow: the model.
        inputs: rows, with their speakers and prompts.
        settings: of the flow. Each row has a generator of its own with this seed, so that it draws what it draws alone.
        noises: where the flow of each row starts, ``[C, M_i]``, M_i with the prompt's frames; drawn if None.

    Yields:
        Indices of the group's rows; their mels, float32 ``[C, M_i]`` without the prompt, on the model's device; and
        their generators, for what is drawn next.
    """
    frames = num_flow_frames(flow, inputs)
    for indices in group_rows(flow, inputs):
        generators = [torch.Generator().manual_seed(settings.seed) for _ in indices]
        starts = [
            torch.randn(flow.config.num_mels, frames[index], generator=generator) if noises is None else noises[index]
            for index, generator in zip(indices, generators, strict=True)
        ]
        yield indices, _make_group(flow, inputs[indices], starts, settings), generators


def num_flow_frames(flow: FlowModel, inputs: DecoderInputs) -> list[int]:
    """Counts the mel frames that each row's flow runs over, its prompt's included."""
    return [flow.num_mel_frames(len(row) + inputs.num_prompt_codes) for row in inputs.rows]


def group_rows(flow: FlowModel, inputs: DecoderInputs) -> Iterator[list[int]]:
    """Groups rows of similar length into batches of bounded size; long rows are alone, empty ones left out.

    Args:
        flow: counts the frames.
        inputs: rows of any length.

    Yields:
        Indices into the rows.
    """
    rows, frames = inputs.rows, num_flow_frames(flow, inputs)
    max_padding = MAX_PADDING_SHARE if flow.device.type == "cpu" else 1.0
    group: list[int] = []
    num_valid = 0
    for index in sorted((index for index, row in enumerate(rows) if len(row)), key=lambda index: len(rows[index])):
        # Shortest first: this row is the longest of the group so far, so all would be padded to its length.
        num_padded = frames[index] * (len(group) + 1)
        is_wasteful = num_padded - num_valid - frames[index] > max_padding * num_padded
        if group and (is_wasteful or num_padded > MAX_BATCH_FRAMES or _is_long(flow, inputs, index)):
            yield group
            group, num_valid = [], 0
        group.append(index)
        num_valid += frames[index]
    if group:
        yield group


def _make_group(flow: FlowModel, inputs: DecoderInputs, noises: list[Tensor], settings: FlowSettings) -> list[Tensor]:
    if _is_long(flow, inputs, 0):
        return [_make_long_mel(flow, inputs, noises[0], settings)]
    mel, lengths = flow.mel(
        pad_sequence(inputs.rows, batch_first=True),
        torch.tensor([len(row) for row in inputs.rows]),
        speaker=inputs.speakers,
        prompt_codes=None if inputs.prompts is None else inputs.prompts.codes,
        prompt_mel=None if inputs.prompts is None else inputs.prompts.mel,
        noise=pad_mels(noises),
        integration=settings.integration(flow.config),
    )
    return [row[:, :length] for row, length in zip(mel, lengths.tolist(), strict=True)]


def pad_mels(mels: list[Tensor]) -> Tensor:
    """Puts ``[C, M_i]`` into one ``[B, C, M]``, 0 behind the end of shorter ones."""
    return pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2).contiguous()


def _make_long_mel(flow: FlowModel, inputs: DecoderInputs, noise_CM: Tensor, settings: FlowSettings) -> Tensor:
    """Makes the mel of one long row window by window, each frame at the place that it has in the whole row."""
    window, context, lookahead = (
        int(seconds * flow.config.frame_rate) for seconds in (WINDOW_SECONDS, CONTEXT_SECONDS, LOOKAHEAD_SECONDS)
    )
    # Windows that start with a block have the same blocks as the whole row; an encoder without blocks does not care.
    block_size = flow.config.encoder.block_size if flow.config.encoder.block_size <= context else 1
    codes_T, mel_CM = inputs.rows[0], torch.zeros(flow.config.num_mels, 0, device=flow.device)
    if inputs.prompts is not None:
        codes_T, mel_CM = torch.cat([inputs.prompts.codes[0].to(codes_T), codes_T]), inputs.prompts.mel[0]
        mel_CM = mel_CM.to(flow.device)
    num_given = mel_CM.shape[1]
    done = inputs.num_prompt_codes
    while done < len(codes_T):
        start = _window_start(flow, max(0, done - context), block_size)
        stop = min(len(codes_T), start + (done - start + window) // block_size * block_size)
        # Frames behind ``stop`` are computed and dropped: they have not seen the codes that follow them.
        end = min(len(codes_T), stop + lookahead)
        first, last = flow.num_mel_frames(start), flow.num_mel_frames(end)
        mu, mask = flow.condition(
            codes_T[None, start:end].to(flow.device), torch.tensor([end - start]), torch.tensor([last - first])
        )
        made = flow.integrate(
            mu,
            mask,
            flow.project_speaker(inputs.speakers, 1),
            mel_CM[None, :, first:],
            noise_CM[None, :, first:last],
            integration=settings.integration(flow.config),
        )
        mel_CM = torch.cat([mel_CM, made[0, :, : flow.num_mel_frames(stop) - mel_CM.shape[1]]], dim=1)
        done = stop
    return mel_CM[:, num_given:]


def _window_start(flow: FlowModel, latest: int, block_size: int) -> int:
    """The last start of a block, not behind ``latest``, whose first mel frame lies on the estimator's coarsest grid.

    The estimator halves the frame rate on its way down. Started between its grid points it would combine other pairs
    of frames than in the whole row.
    """
    stride = 2 ** (len(flow.config.estimator.channels) - 1)
    start = latest // block_size * block_size
    while flow.num_mel_frames(start) % stride:
        start -= block_size
    return start


def _is_long(flow: FlowModel, inputs: DecoderInputs, index: int) -> bool:
    num_codes = len(inputs.rows[index]) + inputs.num_prompt_codes
    return num_codes > MAX_WHOLE_SECONDS * flow.config.frame_rate
