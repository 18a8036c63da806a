"""The streaming decoder: codes to sound while they come.

Blocks of codes go through `MelStream` and
`VocoderStream`. The first block is small, so that sound begins
early; each further one is as long as all before it, up to a bound, since longer blocks waste less on looking back. A
producer that is twice as fast as the sound therefore never lets it stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.flow.solvers import Solver
from audiollm.tokenizer.decoder.inputs import (
    DEFAULT_SEED,
    FlowSettings,
    Quality,
    VoicePrompt,
    as_prompt,
    as_speakers,
)
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.quantizer.codebook import check_codes

from .mel import MelStream
from .noise import NoiseBuffer
from .reference import OVERLAP_CODES, ReferenceStream
from .vocoder import VocoderStream

FIRST_BLOCK_SECONDS, BLOCK_SECONDS, HISTORY_SECONDS, OVERLAP_SECONDS = 0.4, 2.0, 1.0, 0.2
ENCODER_HISTORY_SECONDS = 30.0
"""The token encoder is cheap: what it looks back on is bounded only to bound its memory."""

GLM4_VOICE_BLOCKS = (25, 50, 100, 150, 200)
"""Sizes of the blocks in which GLM-4-Voice's own programs decode, with ``reference=True``."""


class FlowAndVocoder(Protocol):
    """What a stream needs of a waveform decoder: its two models and their sizes."""

    config: WaveformDecoderConfig
    flow: FlowModel
    vocoder: HiFTVocoder


class StreamingDecoder:
    """Turns codes into a waveform, block by block.

    The waveform depends on the codes alone, not on how they are cut into pieces, and is as long as
    ``decoder.decode`` makes it. The cost per second is constant.

    Args:
        decoder: a `WaveformDecoder` in evaluation mode.
        block_codes: codes of a block when the stream is under way, 2 seconds if None.
        first_block_codes: codes of the first block, 0.4 seconds if None; what overlaps the next one is held back, so
            the first sound is about half as long.
        blocks: sizes of the blocks one after another, in place of these two; the last is that of all further ones.
        history_codes: codes whose mel frames a block looks back on, 1 second if None.
        overlap_codes: codes whose mel frames are held back until the next block, 0.2 seconds if None.
        speaker: speaker vector ``[S]``; None: neutral.
        prompt: a recording to go on from; every block looks back on it, so keep it to a few seconds.
        steps: evaluations of the flow's network; None: those of the quality.
        guidance: strength of classifier-free guidance; None: the checkpoint's own.
        quality: ``exact`` or ``fast``, see `FlowSettings`.
        solver: see `FlowSettings`.
        seed: of the noise.
        reference: decode exactly as published instead, with growing cost and blocks of the encoder's size; see
            `reference`. Of the sizes, only ``blocks`` may then be given.

    Raises:
        ValueError: for sizes that are too small, and whatever ``decoder.decode`` refuses.
    """

    def __init__(
        self,
        decoder: FlowAndVocoder,
        *,
        block_codes: int | None = None,
        first_block_codes: int | None = None,
        blocks: Sequence[int] | None = None,
        history_codes: int | None = None,
        overlap_codes: int | None = None,
        speaker: Any = None,
        prompt: VoicePrompt | tuple[Tensor, Tensor] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = DEFAULT_SEED,
        quality: Quality = "exact",
        solver: Solver | None = None,
        reference: bool = False,
    ) -> None:
        settings = FlowSettings(steps, guidance, seed, quality, solver)
        config, flow = decoder.config, decoder.flow
        self._codebook_size = config.flow.codebook_size
        self._waiting = torch.zeros(0, dtype=torch.int64)
        self._is_finished = False
        self._num_codes = 0  # in finished blocks
        speaker = as_speakers(speaker, 1, config.flow.speaker_size)
        prompt = as_prompt(prompt, 1, config)
        sizes = {
            "block_codes": (block_codes, BLOCK_SECONDS, 1),
            "first_block_codes": (first_block_codes, FIRST_BLOCK_SECONDS, 1),
            "history_codes": (history_codes, HISTORY_SECONDS, 0),
            "overlap_codes": (overlap_codes, OVERLAP_SECONDS, 0),
        }
        self._blocks = _checked_blocks(blocks, block_codes, first_block_codes)
        self._num_blocks = 0  # finished
        self._reference: ReferenceStream | None = None
        if reference:
            asked = [name for name, (value, _, _) in sizes.items() if value is not None]
            if asked:
                raise ValueError(f"reference=True has fixed sizes; leave out {', '.join(asked)}")
            if blocks is not None and min(blocks) <= OVERLAP_CODES:
                raise ValueError(
                    f"blocks={list(blocks)}: with reference=True, use more than {OVERLAP_CODES} codes each"
                )
            self._reference = ReferenceStream(flow, decoder.vocoder, speaker=speaker, prompt=prompt, settings=settings)
            self._block_codes = self._first_block_codes = config.flow.encoder.block_size
            return
        counts = {}
        for name, (value, seconds, least) in sizes.items():
            counts[name] = math.ceil(seconds * config.flow.frame_rate) if value is None else value
            if counts[name] < least:
                raise ValueError(f"{name}={value}: use at least {least}")
        self._block_codes = counts["block_codes"]
        self._first_block_codes = min(counts["first_block_codes"], self._block_codes)
        # Two generators, with different seeds: how much of one kind of noise is drawn must not change the other kind.
        self._mels = MelStream(
            flow,
            NoiseBuffer(config.mel.num_mels, torch.Generator().manual_seed(seed)),
            history_frames=flow.num_mel_frames(counts["history_codes"]),
            overlap_frames=flow.num_mel_frames(counts["overlap_codes"]),
            max_history_codes=math.ceil(ENCODER_HISTORY_SECONDS * config.flow.frame_rate),
            speaker=speaker,
            prompt=prompt,
            integration=settings.integration(flow.config),
        )
        self._waveforms = VocoderStream(decoder.vocoder, torch.Generator().manual_seed(seed + 1))

    @property
    def num_computed_frames(self) -> int:
        """Mel frames that the flow has computed so far, over all blocks: what the stream has cost."""
        return 0 if self._reference is not None else self._mels.num_computed_frames

    def push(self, codes: Tensor | Sequence[int]) -> Tensor:
        """Takes the next codes.

        Args:
            codes: int64 ``[n]``, any number.

        Returns:
            The samples that are ready, float32 ``[N]`` on the CPU, maybe none.

        Raises:
            ValueError: for codes that are no integers or out of range, or a stream that is finished. The stream then
                is as before and can go on.
        """
        if self._is_finished:
            raise ValueError("this stream is finished; make a new one for the next clip")
        codes = torch.as_tensor(codes)
        codes = codes.to(torch.int64) if codes.numel() == 0 else codes
        if codes.dim() != 1:
            raise ValueError(f"codes have shape {list(codes.shape)}; push the next codes of one clip as [n]")
        check_codes(codes, self._codebook_size)
        self._waiting = torch.cat([self._waiting, codes.to("cpu", torch.int64)])
        waveforms = []
        while self._is_block_ready():
            size = self._next_size()
            block, self._waiting = self._waiting[:size], self._waiting[size:]
            waveforms.append(self._decode(block, is_last=False))
        return torch.cat(waveforms) if waveforms else torch.zeros(0)

    def finish(self) -> Tensor:
        """Ends the stream.

        Returns:
            The rest of the samples, float32 ``[N]`` on the CPU.
        """
        if self._is_finished:
            return torch.zeros(0)
        self._is_finished = True
        if self._num_codes + len(self._waiting) == 0:
            return torch.zeros(0)
        return self._decode(self._waiting, is_last=True)

    def _next_size(self) -> int:
        if self._blocks is not None:
            return self._blocks[min(self._num_blocks, len(self._blocks) - 1)]
        return min(max(self._first_block_codes, self._num_codes), self._block_codes)

    def _is_block_ready(self) -> bool:
        if self._reference is not None:  # the last block must be known as such
            return len(self._waiting) > self._next_size()
        return len(self._waiting) >= self._next_size()

    def _decode(self, codes: Tensor, *, is_last: bool) -> Tensor:
        self._num_codes += len(codes)
        self._num_blocks += 1
        if self._reference is not None:
            return self._reference.decode(codes[None], is_last=is_last)[0][0].float().cpu()
        mel = self._mels.extend(codes[None], is_last=is_last)
        return self._waveforms.extend(mel, self._mels.tail)[0].float().cpu()


def _checked_blocks(
    blocks: Sequence[int] | None, block_codes: int | None, first_block_codes: int | None
) -> tuple[int, ...] | None:
    if blocks is None:
        return None
    if block_codes is not None or first_block_codes is not None:
        raise ValueError("blocks says the size of each block; leave out block_codes and first_block_codes")
    if not blocks or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in blocks):
        raise ValueError(f"blocks={list(blocks)}: give sizes of at least 1 code")
    return tuple(blocks)
