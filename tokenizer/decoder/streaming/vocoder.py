"""The vocoder over a growing mel: every sample is computed with all the frames that it hears.

The excitation goes on in phase: counted cycles and the excitation of the frames on the left are carried over. On the
right, the frames that the flow holds back serve as a preview. Where the final frames differ from the preview, the two
waveforms are faded into each other.

Shapes: B = 1 row, C mel channels, M mel frames, N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder

from .noise import NoiseBuffer


class VocoderStream:
    """Makes the waveform of a growing mel.

    Args:
        vocoder: in evaluation mode.
        generator: draws the phases at the start and the noise.
    """

    def __init__(self, vocoder: HiFTVocoder, generator: torch.Generator) -> None:
        config = vocoder.config
        self._vocoder = vocoder
        self._hop_length = config.hop_length
        # Filter and pitch both look at the mel on the left; the excitation there is carried over and needs no more.
        self._context_frames = max(vocoder.reach, vocoder.f0_predictor.reach)
        self._phase = vocoder.source.draw_phase(1, generator)
        self._noise = NoiseBuffer(vocoder.source.num_harmonics, generator, config.hop_length)
        device = next(vocoder.parameters()).device
        self._left_mel = torch.zeros(1, config.num_mels, 0, device=device)
        self._left_source = torch.zeros(1, 1, 0, device=device)
        self._ahead = torch.zeros(1, 0, device=device)  # samples behind the last given ones, from the preview
        self._cycles: Tensor | None = None
        self._num_frames = 0

    @torch.no_grad()
    def extend(self, mel: Tensor, preview: Tensor) -> Tensor:
        """Computes the samples of further frames.

        Args:
            mel: the next frames, log-mel ``[1, C, M]``.
            preview: what will probably follow ``[1, C, any]``; none at the end.

        Returns:
            ``[1, M * hop_length]``.
        """
        num_frames, hop_length = mel.shape[2], self._hop_length
        if num_frames == 0:
            return self._ahead[:, :0]
        num_left = self._left_mel.shape[2]
        whole = torch.cat([self._left_mel, mel, preview], dim=2)
        f0 = self._vocoder.predict_f0(whole)[:, num_left:]
        made = self._vocoder.excitation(
            f0,
            phase=self._phase,
            noise=self._noise.take(self._num_frames, self._num_frames + f0.shape[1]),
            cycles=self._cycles,
        )
        source = torch.cat([self._left_source, made], dim=2)
        waveform = self._vocoder.filter(whole, source)[:, num_left * hop_length :]
        waveform = _fade(self._ahead, waveform)
        num_samples = num_frames * hop_length

        self._cycles = self._vocoder.source.count_cycles(f0[:, :num_frames], self._cycles)
        self._num_frames += num_frames
        end = num_left + num_frames
        begin = max(0, end - self._context_frames)
        self._left_mel = whole[:, :, begin:end]
        self._left_source = source[:, :, begin * hop_length : end * hop_length]
        # The next call fades from these samples of the preview to the final ones.
        self._ahead = waveform[:, num_samples : num_samples + hop_length]
        return waveform[:, :num_samples]


def _fade(before: Tensor, now: Tensor) -> Tensor:
    """Fades from the samples of the preview to the final ones."""
    num_samples = before.shape[1]
    weight = torch.arange(1, num_samples + 1, device=now.device) / (num_samples + 1)
    return torch.cat([torch.lerp(before, now[:, :num_samples], weight), now[:, num_samples:]], dim=1)
