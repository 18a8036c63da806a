"""Runs the flow model over rows of any number and length: in batches of bounded size, and in windows over long rows."""
# Shapes: B rows, T codes, P prompt codes, C mel bins, M mel frames of a row, S size of a speaker vector.

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiollm.tokenizer.decoder.flow.model import FlowModel

from .inputs import VoicePrompt

MAX_BATCH_FRAMES = 16_384
"""Mel frames computed together, padding included; bounds the memory of large batches."""
MAX_WHOLE_SECONDS = 60
"""Up to here a row is computed in one piece, as the published decoder computes all. Attention grows with the square of
the length, so longer rows are computed in windows."""
WINDOW_SECONDS, CONTEXT_SECONDS, LOOKAHEAD_SECONDS = 30, 6, 1
"""New sound of a window; sound before it, already made and given as a prompt; codes behind it, heard but not kept."""


def num_flow_frames(flow: FlowModel, rows: list[Tensor], prompt: VoicePrompt | None) -> list[int]:
    """Counts the mel frames that each row's flow runs over, its prompt's included."""
    return [flow.num_mel_frames(len(row) + _num_prompt_codes(prompt)) for row in rows]


def group_rows(flow: FlowModel, rows: list[Tensor], prompt: VoicePrompt | None) -> Iterator[list[int]]:
    """Groups rows of similar length into batches of bounded size; long rows are alone, empty ones left out.

    Args:
        flow: counts the frames.
        rows: codes ``[T_i]``.
        prompt: ``[B, P]`` codes in front of the rows, if any.

    Yields:
        Indices into ``rows``.
    """
    frames = num_flow_frames(flow, rows, prompt)
    group: list[int] = []
    for index in sorted((index for index, row in enumerate(rows) if len(row)), key=lambda index: len(rows[index])):
        is_alone = _is_long(flow, rows[index], prompt) or frames[index] * (len(group) + 1) > MAX_BATCH_FRAMES
        if group and is_alone:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def make_mels(
    flow: FlowModel,
    rows: list[Tensor],
    speaker: Tensor | None,
    prompt: VoicePrompt | None,
    noises: list[Tensor],
    *,
    steps: int,
    guidance: float | None,
) -> list[Tensor]:
    """Makes the mels of one group.

    Args:
        flow: the model.
        rows: codes ``[T_i]``, none empty.
        speaker: ``[B, S]``; None: neutral.
        prompt: codes ``[B, P]`` and their mel; None: none.
        noises: where the flow of each row starts, ``[C, M_i]``, M_i with the prompt's frames.
        steps: Euler steps.
        guidance: strength of classifier-free guidance; None: the checkpoint's own.

    Returns:
        float32 ``[C, M_i]`` per row, without the prompt, on the model's device.
    """
    if _is_long(flow, rows[0], prompt):
        return [_make_long_mel(flow, rows[0], speaker, prompt, noises[0], steps, guidance)]
    mel, lengths = flow.mel(
        pad_sequence(rows, batch_first=True),
        torch.tensor([len(row) for row in rows]),
        speaker=speaker,
        prompt_codes=None if prompt is None else prompt.codes,
        prompt_mel=None if prompt is None else prompt.mel,
        noise=pad_mels(noises),
        steps=steps,
        guidance=guidance,
    )
    return [row[:, :length] for row, length in zip(mel, lengths.tolist(), strict=True)]


def pad_mels(mels: list[Tensor]) -> Tensor:
    """Puts ``[C, M_i]`` into one ``[B, C, M]``, 0 behind the end of shorter ones."""
    return pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2).contiguous()


def _make_long_mel(
    flow: FlowModel,
    codes_T: Tensor,
    speaker: Tensor | None,
    prompt: VoicePrompt | None,
    noise_CM: Tensor,
    steps: int,
    guidance: float | None,
) -> Tensor:
    """Makes the mel of a long row window by window, each frame at the place that it has in the whole row."""
    window, context, lookahead = (
        int(seconds * flow.config.frame_rate) for seconds in (WINDOW_SECONDS, CONTEXT_SECONDS, LOOKAHEAD_SECONDS)
    )
    # Windows that start with a block have the same blocks as the whole row; an encoder without blocks does not care.
    block_size = flow.config.encoder.block_size if flow.config.encoder.block_size <= context else 1
    mel_CM = torch.zeros(flow.config.num_mels, 0, device=flow.device)
    if prompt is not None:
        codes_T, mel_CM = torch.cat([prompt.codes[0].to(codes_T), codes_T]), prompt.mel[0].to(flow.device)
    num_given = mel_CM.shape[1]
    done = _num_prompt_codes(prompt)
    while done < len(codes_T):
        start = _window_start(flow, max(0, done - context), block_size)
        stop = min(len(codes_T), start + (done - start + window) // block_size * block_size)
        end = min(len(codes_T), stop + lookahead)
        first, last = flow.num_mel_frames(start), flow.num_mel_frames(end)
        mu, mask = flow.condition(
            codes_T[None, start:end].to(flow.device), torch.tensor([end - start]), torch.tensor([last - first])
        )
        made = flow.integrate(
            mu,
            mask,
            flow.project_speaker(speaker, 1),
            mel_CM[None, :, first:],
            noise_CM[None, :, first:last],
            steps=steps,
            guidance=guidance,
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


def _is_long(flow: FlowModel, row: Tensor, prompt: VoicePrompt | None) -> bool:
    return len(row) + _num_prompt_codes(prompt) > MAX_WHOLE_SECONDS * flow.config.frame_rate


def _num_prompt_codes(prompt: VoicePrompt | None) -> int:
    return 0 if prompt is None else prompt.codes.shape[-1]
