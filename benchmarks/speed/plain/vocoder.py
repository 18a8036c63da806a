"""The vocoder spelled out with torch's own transforms and without any care for speed or memory.

Works on the weights of a `HiFTVocoder`: weight normalization is
computed in every call, one row at a time, everything at once. What the fast path is timed and tested against.
"""
# Shapes: C mel bins or channels, M mel frames, F spectrum frames, N samples, H overtones; no batch.

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder


class PlainVocoder:
    """One row at a time, from a state dict with ``weight_g`` and ``weight_v``."""

    def __init__(self, vocoder: HiFTVocoder) -> None:
        self.config = vocoder.config
        self.weights = vocoder.state_dict()

    @torch.no_grad()
    def __call__(self, mel_CM: Tensor, phase_H: Tensor, noise_HN: Tensor) -> Tensor:
        """Makes one waveform ``[N]``."""
        return self.filter(mel_CM, self.excite(self.predict_f0(mel_CM), phase_H, noise_HN))

    def predict_f0(self, mel_CM: Tensor) -> Tensor:
        """Predicts the fundamental in Hz, ``[M]``."""
        x = mel_CM[None]
        for index in range(0, 10, 2):
            x = F.elu(self._convolve(f"f0_predictor.condnet.{index}", x, padding=1))
        classifier = self.weights["f0_predictor.classifier.weight"], self.weights["f0_predictor.classifier.bias"]
        return F.linear(x[0].t(), *classifier)[:, 0].abs()

    def excite(self, f0_M: Tensor, phase_H: Tensor, noise_HN: Tensor) -> Tensor:
        """Makes the excitation ``[N]``; the phase is summed up sample by sample, in float64."""
        config = self.config
        f0_N = f0_M.repeat_interleave(config.hop_length)
        voiced_N = (f0_N > config.voiced_threshold).float()
        harmonics = []
        for order in range(config.num_harmonics + 1):
            cycles_N = torch.cumsum(f0_N.double() * (order + 1) / config.sample_rate, dim=0) % 1
            harmonics.append(config.sine_amplitude * torch.sin(2 * math.pi * cycles_N + phase_H[order]).float())
        amplitude_N = voiced_N * config.noise_amplitude + (1 - voiced_N) * config.sine_amplitude / 3
        mixed_HN = torch.stack(harmonics) * voiced_N + amplitude_N * noise_HN
        mix = self.weights["source.l_linear.weight"], self.weights["source.l_linear.bias"]
        return torch.tanh(F.linear(mixed_HN.t(), *mix))[:, 0]

    def filter(self, mel_CM: Tensor, source_N: Tensor) -> Tensor:
        """Filters the excitation, ``[N]``."""
        config = self.config
        window = torch.hann_window(config.istft_n_fft, device=mel_CM.device)
        spectrum_1FC = torch.stft(
            source_N[None], config.istft_n_fft, config.istft_hop_length, window=window, return_complex=True
        )
        spectrum = torch.cat([spectrum_1FC.real, spectrum_1FC.imag], dim=1)
        x = self._convolve("pre_conv", mel_CM[None], padding=3)
        stages = list(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
        for stage, (rate, kernel_size) in enumerate(stages):
            weight, bias = self._weight_of(f"ups.{stage}")
            x = F.conv_transpose1d(
                F.leaky_relu(x, config.leaky_slope), weight, bias, rate, padding=(kernel_size - rate) // 2
            )
            if stage == len(stages) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            stride = math.prod(config.upsample_rates[stage + 1 :])
            name = f"source_downs.{stage}"
            source = F.conv1d(
                spectrum, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding=stride // 2
            )
            x = x + self._block(f"source_resblocks.{stage}", source, config.source_resblock_dilations[stage])
            num_blocks = len(config.resblock_dilations)
            blocks = [
                self._block(f"resblocks.{stage * num_blocks + index}", x, dilations)
                for index, dilations in enumerate(config.resblock_dilations)
            ]
            x = torch.stack(blocks).sum(dim=0) / num_blocks
        x = self._convolve("post_conv", F.leaky_relu(x), padding=3)
        bins = config.istft_n_fft // 2 + 1
        magnitude, phase = x[:, :bins].exp().clamp(max=100.0), x[:, bins:].sin()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        waveform = torch.istft(spectrum, config.istft_n_fft, config.istft_hop_length, window=window)
        return waveform[0].clamp(-config.amplitude_limit, config.amplitude_limit)

    def _block(self, name: str, x: Tensor, dilations: tuple[int, ...]) -> Tensor:
        for index, dilation in enumerate(dilations):
            inner = self._snake(f"{name}.activations1.{index}", x)
            inner = self._convolve(f"{name}.conv1.{index}", inner, dilation=dilation)
            inner = self._snake(f"{name}.activations2.{index}", inner)
            x = x + self._convolve(f"{name}.conv2.{index}", inner)
        return x

    def _snake(self, name: str, x: Tensor) -> Tensor:
        alpha = self.weights[f"{name}.alpha"][:, None]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    def _convolve(self, name: str, x: Tensor, padding: int | None = None, dilation: int = 1) -> Tensor:
        weight, bias = self._weight_of(name)
        if padding is None:
            padding = dilation * (weight.shape[-1] - 1) // 2
        return F.conv1d(x, weight, bias, padding=padding, dilation=dilation)

    def _weight_of(self, name: str) -> tuple[Tensor, Tensor]:
        length, direction = self.weights[f"{name}.weight_g"], self.weights[f"{name}.weight_v"]
        return length * direction / direction.norm(dim=(1, 2), keepdim=True), self.weights[f"{name}.bias"]
