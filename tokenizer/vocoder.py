"""HiFT, the vocoder: mel spectrogram to waveform.

A source of harmonics and noise at the predicted fundamental is filtered by a network of residual blocks, which ends in
an inverse short-time Fourier transform (HiFTNet, Li et al., 2023, arXiv:2309.09493). Modules are named as in released
checkpoints.
"""
# Shapes: B rows, C mel bins or channels, M mel frames, F spectrum frames, N samples, H overtones.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder_configuration import VocoderConfig
from .harmonic_source import Generators, HarmonicSource
from .short_time_fourier import ShortTimeFourier
from .weight_norm import WeightNormConv1d, WeightNormConvTranspose1d, fold_weight_norm, unfold_weight_norm

OUTPUT_LEAKY_SLOPE = 0.01  # in front of the last convolution only
MAX_MAGNITUDE = 100.0
CHUNK_FRAMES = 1024
"""Mel frames that inference works on at once, over all rows; bounds the memory of long waveforms."""


class Snake(nn.Module):
    """Periodic activation x + sin²(αx)/α with an α per channel (Ziyin et al., 2020, arXiv:2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        alpha_C1 = self.alpha[:, None]
        scale_C1 = 1 / (alpha_C1 + 1e-9)
        if torch.is_grad_enabled():
            return x_BCT + (x_BCT * alpha_C1).sin().square() * scale_C1
        return (x_BCT * alpha_C1).sin_().square_().mul_(scale_C1).add_(x_BCT)


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution behind snakes, each pair added to its input."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def convolution(dilation: int) -> WeightNormConv1d:
            padding = dilation * (kernel_size - 1) // 2
            return WeightNormConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)

        self.conv1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.conv2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x_BCT: Tensor, num_frames_B: Tensor | None) -> Tensor:
        for index, (first, second) in enumerate(zip(self.conv1, self.conv2, strict=True)):
            inner = hide_beyond(first(self.activations1[index](x_BCT)), num_frames_B)
            x_BCT = x_BCT + hide_beyond(second(self.activations2[index](inner)), num_frames_B)
        return x_BCT


class F0Predictor(nn.Module):
    """Predicts the fundamental frequency from the mel spectrogram, in Hz; below a threshold means unvoiced."""

    def __init__(self, num_mels: int, channels: int, num_layers: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(num_layers):
            layers += [WeightNormConv1d(num_mels if index == 0 else channels, channels, 3, padding=1), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        self.reach = num_layers

    def forward(self, mel_BCM: Tensor, num_frames_B: Tensor | None) -> Tensor:
        x_BCM = mel_BCM.to(self.classifier.weight.dtype)
        for layer in self.condnet:
            x_BCM = layer(x_BCM) if isinstance(layer, nn.ELU) else hide_beyond(layer(x_BCM), num_frames_B)
        return self.classifier(x_BCM.transpose(1, 2))[..., 0].abs().float()


class HiFTVocoder(nn.Module):
    """Turns mel spectrograms into waveforms.

    Differentiable, except that no gradient passes from the excitation to the fundamental: :meth:`predict_f0` needs a
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
            phase: see :meth:`excitation`.
            noise: see :meth:`excitation`.
            generator: see :meth:`excitation`.

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

        def predict(first: int, last: int, rows: list[int], own_B: Tensor | None) -> Tensor:
            return self.f0_predictor(_take(mel, rows, first, last), own_B)[:, None]

        return self._in_chunks(predict, mel, num_frames, self.f0_predictor.reach, 1)[:, 0]

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
                :meth:`HarmonicSource.count_cycles`; for a signal made block by block.

        Returns:
            float32 ``[B, 1, M * hop_length]``.
        """
        num_frames = _as_counts(lengths, f0)
        samples = [frames * self.config.hop_length for frames in num_frames or [f0.shape[1]] * len(f0)]
        if phase is None:
            phase = self.source.draw_phase(len(f0), generator)
        if noise is None:
            noise = self.source.draw_noise(samples, generator)
        expected = (len(f0), self.source.num_harmonics, f0.shape[1] * self.config.hop_length)
        if noise.shape != expected or phase.numel() != expected[0] * expected[1]:
            raise ValueError(
                f"phase {list(phase.shape)} and noise {list(noise.shape)} do not fit {list(f0.shape)} frames; "
                f"they must be {list(expected[:2])} and {list(expected)}"
            )
        phase_BH = phase.reshape(expected[:2]).to(f0.device)
        return self.source(f0, phase_BH, noise.to(f0.device), cycles)

    def filter(self, mel: Tensor, source: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Filters an excitation ``[B, 1, M * hop_length]`` to the waveform ``[B, M * hop_length]``."""
        num_frames = self._check_mel(mel, lengths)
        hop_length = self.config.hop_length
        expected = [len(mel), 1, mel.shape[-1] * hop_length]
        if list(source.shape) != expected:
            raise ValueError(f"source has shape {list(source.shape)}; mel {list(mel.shape)} needs {expected}")

        def run(first: int, last: int, rows: list[int], own_B: Tensor | None) -> Tensor:
            part = _take(source, rows, first * hop_length, last * hop_length)
            return self._filter(_take(mel, rows, first, last), part[:, 0], own_B)[:, None]

        return self._in_chunks(run, mel, num_frames, self.reach, hop_length)[:, 0]

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
        dtype = self.source_downs[0].weight.dtype
        counts = num_frames_B
        num_samples_B = None if counts is None else counts * config.hop_length
        spectrum_BCF = self.spectrum.analyze(source_BN, num_samples_B).to(dtype)
        x_BCT = hide_beyond(self.pre_conv(hide_beyond(mel_BCM.to(dtype), counts)), counts)
        last_stage = len(self.ups) - 1
        num_kernels = len(config.resblock_kernel_sizes)
        for stage, rate in enumerate(config.upsample_rates):
            x_BCT = self.ups[stage](F.leaky_relu(x_BCT, config.leaky_slope))
            counts = None if counts is None else counts * rate
            if stage == last_stage:
                # The spectrum of N samples has a frame more than N / hop.
                x_BCT = F.pad(x_BCT, (1, 0), mode="reflect")
                counts = None if counts is None else counts + 1
            source_BCT = hide_beyond(self.source_downs[stage](spectrum_BCF), counts)
            x_BCT = hide_beyond(x_BCT, counts) + self.source_resblocks[stage](source_BCT, counts)
            blocks = self.resblocks[stage * num_kernels : (stage + 1) * num_kernels]
            x_BCT = sum((block(x_BCT, counts) for block in blocks[1:]), blocks[0](x_BCT, counts)) / num_kernels
        x_BCF = self.post_conv(F.leaky_relu(x_BCT, OUTPUT_LEAKY_SLOPE)).float()
        log_magnitude_BCF, phase_BCF = x_BCF.split(config.istft_n_fft // 2 + 1, dim=1)
        magnitude_BCF = hide_beyond(log_magnitude_BCF.exp().clamp(max=MAX_MAGNITUDE), counts)
        waveform_BN = self.spectrum.synthesize(magnitude_BCF, phase_BCF.sin(), counts)
        limit = config.amplitude_limit
        return hide_beyond(waveform_BN[:, None], num_samples_B)[:, 0].clamp(-limit, limit)

    def _in_chunks(
        self,
        run: Callable[[int, int, list[int], Tensor | None], Tensor],
        mel: Tensor,
        num_frames: list[int] | None,
        reach: int,
        scale: int,
    ) -> Tensor:
        """Runs a function of a range of frames over all of them, a chunk at a time when no gradient is asked for.

        Each chunk is computed with ``reach`` frames more on either side, which are then cut off, so that the result
        does not depend on the chunks. Rows that have ended are left out.
        """
        batch_size, total = len(mel), mel.shape[-1]
        own = num_frames or [total] * batch_size
        chunk = total if torch.is_grad_enabled() else max(CHUNK_FRAMES // batch_size, 4 * reach)
        if chunk >= total - reach:
            own_B = None if num_frames is None else torch.tensor(own, device=mel.device)
            return run(0, total, list(range(batch_size)), own_B)
        result = torch.zeros(batch_size, 1, total * scale, device=mel.device)
        start = 0
        while start < max(own):
            # A rest shorter than the context would cost more than it brings.
            stop = start + chunk if start + chunk < total - reach else total
            first, last = max(0, start - reach), min(total, stop + reach)
            rows = [row for row in range(batch_size) if own[row] > start]
            counts = [min(own[row], last) - first for row in rows]
            last = first + max(counts)
            own_B = None if min(counts) == max(counts) else torch.tensor(counts, device=mel.device)
            made = run(first, last, rows, own_B)
            kept = min(stop, last) - start
            cut = (start - first) * scale
            result[rows, :, start * scale : (start + kept) * scale] = made[..., cut : cut + kept * scale]
            start = stop
        return result

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
        block_reach = max(_reach_of_block(*block) for block in blocks)
        source_blocks = zip(config.source_resblock_kernel_sizes, config.source_resblock_dilations, strict=True)
        source_reaches = [_reach_of_block(*block) for block in source_blocks]
        for stage in reversed(range(len(config.upsample_rates))):
            samples += frame * (1 + block_reach)
            through_source = frame * (source_reaches[stage] + 2) + config.istft_n_fft // 2
            source_samples = max(source_samples, samples + through_source)
            kernel_size, rate = config.upsample_kernel_sizes[stage], config.upsample_rates[stage]
            samples += frame * math.ceil((kernel_size + rate) / 2)
            frame *= rate
        samples += 3 * frame  # pre_conv
        return math.ceil(max(samples, source_samples) / frame) + 1


def hide_beyond(x_BCT: Tensor, num_frames_B: Tensor | None) -> Tensor:
    """Sets to zero what lies beyond each row's own frames, as the padding of a row alone does. In place."""
    if num_frames_B is None:
        return x_BCT
    beyond_BT = torch.arange(x_BCT.shape[-1], device=x_BCT.device) >= num_frames_B[:, None]
    return x_BCT.masked_fill(beyond_BT[:, None], 0)


def _reach_of_block(kernel_size: int, dilations: Sequence[int]) -> int:
    """Frames on either side of an output frame that influence it."""
    return sum(kernel_size // 2 * (dilation + 1) for dilation in dilations)


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
    counts = [int(own) for own in lengths]
    if len(counts) != len(rows) or min(counts) < 1 or max(counts) > rows.shape[1]:
        raise ValueError(f"lengths {counts} do not fit {len(rows)} rows of up to {rows.shape[1]} frames")
    return None if min(counts) == rows.shape[1] else counts


def _take(rows_BCT: Tensor, rows: list[int], first: int, last: int) -> Tensor:
    part = rows_BCT[..., first:last]
    return part if len(rows) == len(rows_BCT) else part[rows]


def _overwrite_start(source_B1N: Tensor, start_B1N: Tensor) -> Tensor:
    return torch.cat([start_B1N.to(source_B1N), source_B1N[..., start_B1N.shape[-1] :]], dim=-1)
