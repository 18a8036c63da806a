"""The flow model over a growing row of codes, at a bounded cost per code.

The token encoder keeps keys and values, so a code is encoded once. The flow runs over windows: the frames of the new
codes, behind a bounded history. Frames of the history are finished; what is remembered of them is their whole way from
noise to mel. In a new window they go that way again, so at every step the new frames see just what they would have seen
if all had been computed together, up to the influence of later frames on earlier ones. The last frames of a window have
seen no codes behind them yet. They are held back, computed again in the next window, and blended.

Shapes: B = 1 row, T codes, C mel channels, M mel frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.tokenizer.decoder.flow.token_encoder import TokenEncoderCache
from audiollm.tokenizer.decoder.inputs import VoicePrompt

from .noise import NoiseBuffer


class EncodedCodes:
    """Encodes codes as they come; keeps the projected output of a prompt and of the latest codes.

    Args:
        flow: the model.
        num_prompt_codes: codes at the beginning that are never forgotten.
        max_history: codes in front of a block that the encoder sees; also its largest block.
    """

    def __init__(self, flow: FlowModel, num_prompt_codes: int, max_history: int) -> None:
        self._flow = flow
        self._num_prompt_codes = num_prompt_codes
        self._block_size = min(flow.config.encoder.block_size, max_history)
        self._cache: TokenEncoderCache = flow.encoder.new_cache(max_history)
        self._waiting = torch.zeros(1, 0, dtype=torch.int64, device=flow.device)  # codes of the unfinished block
        nothing = torch.zeros(1, 0, flow.config.num_mels, device=flow.device, dtype=flow.dtype)
        self._prompt = self._ending = self._kept = nothing
        self._first = 0  # code at which the kept ones begin
        self.num_codes = 0

    def push(self, codes: Tensor) -> None:
        """Encodes the next codes ``[1, T]``."""
        self.num_codes += codes.shape[1]
        self._waiting = torch.cat([self._waiting, codes], dim=1)
        while self._waiting.shape[1] >= self._block_size:
            block, self._waiting = self._waiting[:, : self._block_size], self._waiting[:, self._block_size :]
            self._kept = torch.cat([self._kept, self._encode(block, self._cache)], dim=1)
        self._ending = self._kept[:, :0]
        if self._waiting.shape[1]:  # a first view of the unfinished block, for now without its later codes
            self._ending = self._encode(self._waiting, self._cache.copy())

    def forget_before(self, code: int) -> None:
        """Drops codes that will not be asked for again, except the prompt's."""
        num_done = self._first + self._kept.shape[1]
        code = min(code, num_done)
        if code <= max(self._first, self._num_prompt_codes):
            return
        if self._first == 0:
            self._prompt = self._kept[:, : self._num_prompt_codes].clone()
        self._kept = self._kept[:, code - self._first :].clone()  # a view would keep all of the old memory
        self._first = code

    def at(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns kept outputs ``[1, K, C]`` and where in them the given codes (int64, any shape) lie."""
        skipped = self._first - self._prompt.shape[1]
        indices = torch.where(codes >= self._first, codes - skipped, codes)
        return torch.cat([self._prompt, self._kept, self._ending], dim=1), indices

    def _encode(self, codes: Tensor, cache: TokenEncoderCache) -> Tensor:
        encoded, _ = self._flow.encoder.forward_block(self._flow.input_embedding(codes), cache)
        return self._flow.encoder_proj(encoded)


class MelStream:
    """Makes the mel of a growing row of codes.

    Args:
        flow: the model, in evaluation mode.
        noise: ``[1, C, M]`` for frames of the prompt and of the mel, drawn as it is needed.
        history_frames: finished frames that a window looks back on.
        overlap_frames: frames held back at the end of a window.
        max_history_codes: codes that the encoder looks back on.
        speaker: speaker vector ``[1, S]``; None: neutral.
        prompt: a recording to go on from, codes ``[1, P]`` and mel ``[1, C, Q]``; it stays in front of every window.
        integration: how the flow is integrated; None: as published.
    """

    @torch.no_grad()
    def __init__(
        self,
        flow: FlowModel,
        noise: NoiseBuffer,
        *,
        history_frames: int,
        overlap_frames: int,
        max_history_codes: int,
        speaker: Tensor | None = None,
        prompt: VoicePrompt | None = None,
        integration: Integration | None = None,
    ) -> None:
        self._flow, self._noise = flow, noise
        self._history_frames, self._overlap_frames = history_frames, overlap_frames
        self._integration = flow.published_integration if integration is None else integration
        self._stride = 2 ** (len(flow.config.estimator.channels) - 1)
        num_prompt_codes = 0 if prompt is None else prompt.codes.shape[1]
        self._encoded = EncodedCodes(flow, num_prompt_codes, max_history_codes)
        self._speaker = flow.project_speaker(speaker, 1)
        nothing = torch.zeros(1, flow.config.num_mels, 0, device=flow.device)
        self._given = nothing if prompt is None else prompt.mel.to(flow.device)
        self._next = self._given.shape[2]  # the first frame that is not finished; counts the prompt's
        # Points on the way from noise to mel, [evaluations + 1, 1, C, frames].
        self._prompt: Tensor | None = None
        self._history = self._tail = nothing.expand(self._integration.evaluations + 1, -1, -1, -1)
        self.num_computed_frames = 0
        """Frames that the estimator has seen so far, over all windows: what the stream has cost."""
        if prompt is not None:
            self._encoded.push(prompt.codes.to(flow.device))

    @property
    def tail(self) -> Tensor:
        """The frames that are held back, as they are now: ``[1, C, M]``."""
        return self._tail[-1]

    @torch.no_grad()
    def extend(self, codes: Tensor, *, is_last: bool = False) -> Tensor:
        """Computes a window.

        Args:
            codes: the next codes, int64 ``[1, T]``, maybe none.
            is_last: no codes will come; nothing is held back.

        Returns:
            The frames that are now finished, ``[1, C, M]``, maybe none.
        """
        if codes.shape[1]:
            self._encoded.push(codes.to(self._flow.device))
            stop = self._flow.num_mel_frames(self._encoded.num_codes)
            if stop > self._next:
                self._tail = _blend(self._tail, self._window(stop))
        num_frames = self._tail.shape[-1]
        num_finished = num_frames if is_last else max(0, num_frames - self._overlap_frames)
        finished, self._tail = self._tail[..., :num_finished], self._tail[..., num_finished:]
        self._next += num_finished
        self._remember(finished)
        self._encoded.forget_before(int((self._next - self._history.shape[-1]) * self._codes_per_frame))
        return finished[-1]

    def _remember(self, finished: Tensor) -> None:
        """Appends finished states to the history and drops its oldest, so that windows start where strides do.

        The estimator's stages halve the frame rate; a window from an odd frame on would pair other frames than the
        whole row does.
        """
        history = torch.cat([self._history, finished], dim=3)
        num_dropped = max(0, history.shape[-1] - self._history_frames)
        start = self._next - history.shape[-1] + num_dropped - self._given.shape[2]
        num_dropped += -start % self._stride
        self._history = history[..., num_dropped:]

    def _window(self, stop: int) -> Tensor:
        """Computes the states of the frames from the first unfinished one to ``stop``."""
        flow, num_given = self._flow, self._given.shape[2]
        start = self._next - self._history.shape[-1]
        frames = torch.cat([torch.arange(num_given), torch.arange(start, stop)])
        # Not as many frames as the whole row's count says, which is unknown: at most one frame is said differently.
        codes = (frames.double() * self._codes_per_frame).long().clamp(max=self._encoded.num_codes - 1)
        encoded, indices = self._encoded.at(codes.to(flow.device))
        mu = flow.length_regulator(encoded, indices[None], None)
        is_first = self._prompt is None
        num_known = 0 if is_first else num_given + self._history.shape[-1]
        noise = self._noise.take(0 if is_first else self._next, stop).to(flow.device)
        states = flow.decoder.trace(
            F.pad(noise, (num_known, 0)),  # known frames start from their own noise, which is among their states
            mu,
            self._speaker,
            F.pad(self._given.to(mu), (0, len(frames) - num_given)),
            self._integration,
            known=None if self._prompt is None else torch.cat([self._prompt, self._history], dim=3),
        )
        self.num_computed_frames += len(frames)
        if is_first:
            self._prompt, num_known = states[..., :num_given], num_given
        return states[..., num_known:]

    @property
    def _codes_per_frame(self) -> float:
        return self._flow.config.frame_rate / self._flow.mel_config.frame_rate


def _blend(before: Tensor, now: Tensor) -> Tensor:
    """Fades from what the frames were in the window before to what they are now, over all frames of the former."""
    num_frames = before.shape[-1]
    # Never quite 0 or 1: both ends join frames that are all of one window or all of the other.
    weight = torch.arange(1, num_frames + 1, device=now.device) / (num_frames + 1)
    return torch.cat([torch.lerp(before, now[..., :num_frames], weight.to(now)), now[..., num_frames:]], dim=3)
