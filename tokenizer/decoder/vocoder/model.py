"""HiFT, the vocoder: mel spectrogram to waveform.

A source of harmonics and noise at the predicted fundamental is filtered by a network of residual blocks, which ends in
an inverse short-time Fourier transform (HiFTNet, Li et al., 2023, arXiv:2309.09493). Modules are named as in released
checkpoints.
"""
# Shapes: B rows, C mel bins or channels, M mel frames, F spectrum frames, N samples, H overtones.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import VocoderConfig
from audiollm.tokenizer.signal.stft import ShortTimeFourier

from .chunking import Chunk, in_chunks
from .layers import F0Predictor, ResidualBlock, as_image, hide_beyond, reach_of_block
from .source import Generators, HarmonicSource
from .weight_norm import (
    WeightNormConv1d,
    WeightNormConvTranspose1d,
    convolve_rows,
    fold_weight_norm,
    unfold_weight_norm,
)

OUTPUT_LEAKY_SLOPE = 0.01  # in front of the last convolution only
MAX_MAGNITUDE = 100.0  # of a bin: exp() of an output gone astray must not drown the waveform


class HiFTVocoder(nn.Module):
    """Turns mel spectrograms into waveforms.

    Differentiable, except that no gradient passes from the excitation to the fundamental: `predict_f0` needs a
    loss of its own. Without gradients, long inputs are worked on in chunks, with the same result.

    Args:
        config: sizes.

    Raises:
        ValueError: if an upsampling kernel does not fit its rate.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        _check_upsampling(config)
        self.config = config
        num_stages = len(config.upsample_rates)
        widths = [config.base_channels // 2**stage for stage in range(num_stages + 1)]
        self.source = HarmonicSource(config)
        self.spectrum = ShortTimeFourier(config.istft_n_fft, config.istft_hop_length)
        self.pre_conv = WeightNormConv1d(config.num_mels, config.base_channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for stage, (rate, kernel_size) in enumerate(
            zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        ):
            width = widths[stage + 1]
            self.ups.append(
                WeightNormConvTranspose1d(widths[stage], width, kernel_size, rate, padding=(kernel_size - rate) // 2)
            )
            self.source_downs.append(_source_convolution(config, stage, width))
            self.source_resblocks.append(
                ResidualBlock(
                    width, config.source_resblock_kernel_sizes[stage], config.source_resblock_dilations[stage]
                )
            )
            for block_kernel_size, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilations, strict=True
            ):
                self.resblocks.append(ResidualBlock(width, block_kernel_size, dilations))
        self.post_conv = WeightNormConv1d(widths[-1], config.istft_n_fft + 2, 7, padding=3)
        self.f0_predictor = F0Predictor(config.num_mels, config.f0_channels)
        self.reach = self._count_reach()
        """Mel frames on either side that influence a sample, the predicted fundamental not counted."""

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        source: Tensor | None = None,
        phase: Tensor | None = None,
        noise: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Makes waveforms.

        Args:
            mel: log-mel, ``[B, C, M]``.
            lengths: frames of each row, ``[B]``; all M if None. A row gives what it gives alone.
            source: excitation ``[B, 1, n]`` to use for the first n samples, such as all of them.
            phase: see `excitation`.
            noise: see `excitation`.
            generator: see `excitation`.

        Returns:
            Samples within the amplitude limit, float32, ``[B, M * hop_length]``; zero beyond a row's own length.

        Raises:
            ValueError: if a shape or a length does not fit.
        """
        num_frames = self._check_mel(mel, lengths)
        num_samples = mel.shape[-1] * self.config.hop_length
        if source is None or source.shape[-1] < num_samples:
            f0_BM = self.predict_f0(mel, num_frames)
            made_B1N = self.excitation(f0_BM, num_frames, phase=phase, noise=noise, generator=generator)
            source = made_B1N if source is None else _overwrite_start(made_B1N, source)
        return self.filter(mel, source, num_frames)

    def predict_f0(self, mel: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Predicts the fundamental frequency in Hz, float32 ``[B, M]``, from log-mel ``[B, C, M]``."""
        num_frames = self._check_mel(mel, lengths)

        def predict(part: Chunk) -> Tensor:
            with torch.autocast(mel.device.type, enabled=False):  # bfloat16 is a tenth of a semitone off
                return self.f0_predictor(part.take(mel), part.counts)

        return in_chunks(predict, mel, num_frames, self.f0_predictor.reach)

    def excitation(
        self,
        f0: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        phase: Tensor | None = None,
        noise: Tensor | None = None,
        generator: Generators = None,
        cycles: Tensor | None = None,
    ) -> Tensor:
        """Makes the excitation: sines where voiced, noise where not.

        Args:
            f0: fundamental in Hz, ``[B, M]``.
            lengths: frames of each row; only tells how much noise a row draws.
            phase: phase of each harmonic at the start in radians, ``[B, H + 1]`` or ``[B, H + 1, 1]``; drawn if None.
            noise: standard normal, ``[B, H + 1, M * hop_length]``; drawn if None, after the phase.
            generator: for the draws; one, or one per row so that a row draws what it draws alone.
            cycles: periods of the fundamental before the first sample, ``[B]``, see
                `HarmonicSource.count_cycles`; for a signal made block by block.

        Returns:
            float32 ``[B, 1, M * hop_length]``.
        """
        num_frames = _as_counts(lengths, f0)
        batch_size, total = f0.shape
        samples = [frames * self.config.hop_length for frames in num_frames or [total] * batch_size]
        if phase is None:
            phase = self.source.draw_phase(batch_size, generator)
        if noise is None:
            noise = self.source.draw_noise(samples, generator, total * self.config.hop_length)
        expected = (batch_size, self.source.num_harmonics, total * self.config.hop_length)
        if noise.shape != expected or phase.numel() != expected[0] * expected[1]:
            raise ValueError(
                f"phase {list(phase.shape)} and noise {list(noise.shape)} do not fit {list(f0.shape)} frames; "
                f"they must be {list(expected[:2])} and {list(expected)}"
            )
        phase_BH = phase.reshape(expected[:2]).to(f0.device)
        with torch.autocast(f0.device.type, enabled=False):
            return self.source(f0, phase_BH, noise.to(f0.device), cycles)

    def filter(self, mel: Tensor, source: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Filters an excitation ``[B, 1, M * hop_length]`` to the waveform ``[B, M * hop_length]``."""
        num_frames = self._check_mel(mel, lengths)
        hop_length = self.config.hop_length
        expected = [len(mel), 1, mel.shape[-1] * hop_length]
        if list(source.shape) != expected:
            raise ValueError(f"source has shape {list(source.shape)}; mel {list(mel.shape)} needs {expected}")

        def run(part: Chunk) -> Tensor:
            return self._filter(part.take(mel), part.take(source, hop_length)[:, 0], part.counts)

        return in_chunks(run, mel, num_frames, self.reach, hop_length)

    def fold_weight_norm(self) -> HiFTVocoder:
        """Computes the normalized weights once and for all, in place, for speed; what is saved stays in its layout.

        Fold before casting to a smaller dtype: the weight is then rounded once.
        """
        fold_weight_norm(self)
        return self

    def unfold_weight_norm(self) -> HiFTVocoder:
        """Goes back to separate lengths and directions, in place, to go on training."""
        unfold_weight_norm(self)
        return self

    def cast_filter(self, dtype: torch.dtype) -> HiFTVocoder:
        """Casts the filter, which is nearly all of the work, in place; pitch and excitation stay exact in float32."""
        blocks: list[nn.Module] = [self.ups, self.source_downs, self.source_resblocks, self.resblocks]
        for part in [self.pre_conv, *blocks, self.post_conv]:
            part.to(dtype)
        return self

    def _filter(self, mel_BCM: Tensor, source_BN: Tensor, num_frames_B: Tensor | None) -> Tensor:
        config = self.config
        assert self.pre_conv.bias is not None
        dtype = self.pre_conv.bias.dtype
        counts = num_frames_B
        num_samples_B = None if counts is None else counts * config.hop_length
        num_spectra_B = None if num_samples_B is None else num_samples_B // config.istft_hop_length + 1
        spectrum_BCF = self.spectrum.analyze(source_BN, num_samples_B)
        spectrum_BC1F = hide_beyond(as_image(spectrum_BCF, dtype), num_spectra_B)
        x_BC1T = hide_beyond(self.pre_conv(hide_beyond(as_image(mel_BCM, dtype), counts)), counts)
        last_stage = len(self.ups) - 1
        num_kernels = len(config.resblock_kernel_sizes)
        for stage, rate in enumerate(config.upsample_rates):
            x_BC1T = self.ups[stage](F.leaky_relu(x_BC1T, config.leaky_slope))
            counts = None if counts is None else counts * rate
            if stage == last_stage:
                # The spectrum of N samples has a frame more than N / hop: reflect one on the left.
                x_BC1T = torch.cat([x_BC1T[..., 1:2], x_BC1T], dim=-1)
                counts = None if counts is None else counts + 1
            source_BC1T = hide_beyond(self._downsample_source(spectrum_BC1F, stage), counts)
            x_BC1T = hide_beyond(x_BC1T, counts) + self.source_resblocks[stage](source_BC1T, counts)
            first, *others = self.resblocks[stage * num_kernels : (stage + 1) * num_kernels]
            x_BC1T = sum((block(x_BC1T, counts) for block in others), first(x_BC1T, counts)) / num_kernels
        # float32 from here on: the exponential and the sums of the inverse transform need the digits.
        x_BCF = self.post_conv(F.leaky_relu(x_BC1T, OUTPUT_LEAKY_SLOPE))[:, :, 0].float()
        log_magnitude_BCF, phase_BCF = x_BCF.split(config.istft_n_fft // 2 + 1, dim=1)
        magnitude_BCF = hide_beyond(log_magnitude_BCF.exp().clamp(max=MAX_MAGNITUDE), counts)
        # A sine of the phase is one function too many, but it is what the published weights were trained with.
        waveform_BN = self.spectrum.synthesize(magnitude_BCF, phase_BCF.sin(), counts)
        limit = config.amplitude_limit
        return hide_beyond(waveform_BN, num_samples_B).clamp(-limit, limit)

    def _downsample_source(self, spectrum_BC1F: Tensor, stage: int) -> Tensor:
        convolution = self.source_downs[stage]
        assert isinstance(convolution, nn.Conv1d)
        assert not isinstance(convolution.padding, str)
        stride, padding = convolution.stride[0], convolution.padding[0]
        return convolve_rows(spectrum_BC1F, convolution.weight, convolution.bias, stride, padding)

    def _check_mel(self, mel: Tensor, lengths: Tensor | Sequence[int] | None) -> list[int] | None:
        if mel.dim() != 3 or mel.shape[1] != self.config.num_mels or mel.shape[2] == 0:
            raise ValueError(
                f"mel has shape {list(mel.shape)}; it must be [B, {self.config.num_mels}, M] with at least one frame"
            )
        return _as_counts(lengths, mel[:, 0])

    def _count_reach(self) -> int:
        config = self.config
        samples = config.istft_n_fft // 2 + 3 * config.istft_hop_length  # inverse transform and post_conv
        source_samples = 0
        frame = config.istft_hop_length  # samples per frame of the stage
        blocks = zip(config.resblock_kernel_sizes, config.resblock_dilations, strict=True)
        block_reach = max(reach_of_block(*block) for block in blocks)
        source_blocks = zip(config.source_resblock_kernel_sizes, config.source_resblock_dilations, strict=True)
        source_reaches = [reach_of_block(*block) for block in source_blocks]
        for stage in reversed(range(len(config.upsample_rates))):
            samples += frame * (1 + block_reach)
            through_source = frame * (source_reaches[stage] + 2) + config.istft_n_fft // 2
            source_samples = max(source_samples, samples + through_source)
            kernel_size, rate = config.upsample_kernel_sizes[stage], config.upsample_rates[stage]
            samples += frame * math.ceil((kernel_size + rate) / 2)
            frame *= rate
        samples += 3 * frame  # pre_conv
        return math.ceil(max(samples, source_samples) / frame) + 1


def _source_convolution(config: VocoderConfig, stage: int, width: int) -> nn.Conv1d:
    """Brings the spectrum of the source, which has the rate of the last stage, to the rate of an earlier one."""
    stride = math.prod(config.upsample_rates[stage + 1 :])
    channels = config.istft_n_fft + 2
    if stride == 1:
        return nn.Conv1d(channels, width, 1)
    return nn.Conv1d(channels, width, 2 * stride, stride, padding=stride // 2)


def _check_upsampling(config: VocoderConfig) -> None:
    for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        if kernel_size < rate or (kernel_size - rate) % 2:
            raise ValueError(
                f"upsample_kernel_sizes has {kernel_size} for the rate {rate}; the kernel must exceed the rate by an "
                f"even number, such as {2 * rate if rate % 2 == 0 else 2 * rate + 1}"
            )


def _as_counts(lengths: Tensor | Sequence[int] | None, rows: Tensor) -> list[int] | None:
    """Returns the frames of each row of ``rows`` ``[B, M]``, or None where all rows are full."""
    if lengths is None:
        return None
    counts = [int(length) for length in lengths]
    if len(counts) != len(rows) or min(counts) < 1 or max(counts) > rows.shape[1]:
        raise ValueError(f"lengths {counts} do not fit {len(rows)} rows of up to {rows.shape[1]} frames")
    return None if min(counts) == rows.shape[1] else counts


def _overwrite_start(source_B1N: Tensor, start_B1N: Tensor) -> Tensor:
    return torch.cat([start_B1N.to(source_B1N), source_B1N[..., start_B1N.shape[-1] :]], dim=-1)
