"""Block-wise decoding exactly as published: for comparisons.

Every block is computed with all codes before it and all mel frames made so far as its prompt, so the cost per block
grows with the length of the stream. Further, each block after the first gives the mel frame at its beginning twice,
one frame of sound per block is lost, and the two halves of the fade add up to a little more than one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.inputs import FlowSettings, VoicePrompt
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder

OVERLAP_CODES = 5  # held back of every block, decoded again with the next and faded
CACHED_MEL_FRAMES = 1  # of the block before, in front of the vocoder's input


class ReferenceStream:
    """The published scheme, one block after another.

    Args:
        flow: the model, in evaluation mode.
        vocoder: the same.
        speaker: speaker vector ``[1, S]``; None: neutral.
        prompt: a recording to go on from, codes ``[1, P]`` and mel ``[1, C, Q]``; None: none.
        settings: of the flow, with the seed of the noise of every block.

    Raises:
        ValueError: if the encoder's blocks are no longer than what overlaps.
    """

    def __init__(
        self,
        flow: FlowModel,
        vocoder: HiFTVocoder,
        *,
        speaker: Tensor | None,
        prompt: VoicePrompt | None,
        settings: FlowSettings,
    ) -> None:
        block_size = flow.config.encoder.block_size
        if block_size <= OVERLAP_CODES:
            raise ValueError(
                f"the published scheme holds back {OVERLAP_CODES} codes of every block, but this decoder's blocks have "
                f"{block_size}; stream without reference=True"
            )
        self._flow, self._vocoder = flow, vocoder
        self._speaker, self._settings = speaker, settings
        if prompt is None:
            prompt = VoicePrompt(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, flow.config.num_mels, 0))
        self._codes, self._mel = prompt.codes, prompt.mel.to(flow.device)
        self._num_overlap_frames = flow.num_mel_frames(OVERLAP_CODES)
        # The published window is numpy's: symmetric, and computed in float64.
        window = torch.hamming_window(2 * self._num_overlap_frames, periodic=False, dtype=torch.float64)
        self._fade_in, self._fade_out = window.to(self._mel).chunk(2)
        self._hop_length = flow.mel_config.hop_length
        self._overlap: Tensor | None = None
        self._cached_mel = self._mel[:, :, :0]
        self._cached_source: Tensor | None = None

    @torch.no_grad()
    def decode(self, codes: Tensor, *, is_last: bool) -> tuple[Tensor, Tensor]:
        """Decodes a block.

        Args:
            codes: int64 ``[1, T]``.
            is_last: whether it ends the stream.

        Returns:
            ``(samples [1, N], mel [1, C, M])``, the mel as the published decoder gives it, cached frame and all.
        """
        # Anew for every block: the published program reseeds, so all blocks start from the same noise.
        generator = torch.Generator().manual_seed(self._settings.seed)
        mel, _ = self._flow.mel(
            codes,
            speaker=self._speaker,
            prompt_codes=self._codes,
            prompt_mel=self._mel,
            generator=generator,
            integration=self._settings.integration(self._flow.config),
        )
        if self._overlap is not None:
            num_frames = self._num_overlap_frames
            faded = mel[:, :, :num_frames] * self._fade_in + self._overlap * self._fade_out
            mel = torch.cat([faded, mel[:, :, num_frames:]], dim=2)
        mel = torch.cat([self._cached_mel, mel], dim=2)
        if not is_last:
            kept = mel.shape[2] - self._num_overlap_frames
            mel, self._overlap = mel[:, :, :kept], mel[:, :, kept:]
        waveform, source = self._vocode(mel, generator)
        if not is_last:
            self._cached_mel = mel[:, :, -CACHED_MEL_FRAMES:]
            cached_samples = CACHED_MEL_FRAMES * self._hop_length
            self._cached_source = source[:, :, -cached_samples:]
            waveform = waveform[:, :-cached_samples]
        self._codes = torch.cat([self._codes, codes], dim=1)
        self._mel = torch.cat([self._mel, mel], dim=2)
        return waveform, mel

    def _vocode(self, mel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns samples and excitation; the latter begins with that of the cached frame."""
        source = self._vocoder.excitation(self._vocoder.predict_f0(mel), generator=generator)
        if self._cached_source is not None:
            source = torch.cat([self._cached_source, source[:, :, self._cached_source.shape[2] :]], dim=2)
        return self._vocoder.filter(mel, source), source
