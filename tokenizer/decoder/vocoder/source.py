"""The excitation of the vocoder: a fundamental with its overtones where voiced, noise where not.

Neural source-filter models, Wang et al., 2019 (arXiv:1904.12088), with the constants of HiFT. Phases are kept as cycles
in float64 and reduced modulo one, so that the last second of a long waveform is as exact as the first.
"""
# Shapes: B rows, M mel frames, N samples (hop_length for each frame), H overtones.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import VocoderConfig

Generators = torch.Generator | Sequence[torch.Generator] | None


class HarmonicSource(nn.Module):
    """Makes one excitation signal from the fundamental frequency; the mix of the harmonics is learned."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.num_harmonics = config.num_harmonics + 1
        self.l_linear = nn.Linear(self.num_harmonics, 1)

    def forward(self, f0_BM: Tensor, phase_BH: Tensor, noise_BHN: Tensor, cycles_B: Tensor | None = None) -> Tensor:
        """Mixes sines and noise into one signal.

        Args:
            f0_BM: fundamental in Hz, one value per mel frame, ``[B, M]``. No gradient reaches it.
            phase_BH: phase of each harmonic at the start, in radians, ``[B, H + 1]``.
            noise_BHN: standard normal noise, ``[B, H + 1, N]``.
            cycles_B: periods of the fundamental before the first sample, float64, as
                `count_cycles` gives them; 0 if None. Carries a signal over from block to block.

        Returns:
            Excitation in (-1, 1), float32, ``[B, 1, N]``.
        """
        config = self.config
        f0_BM = f0_BM.detach().float()
        cycles_BN = self._cycles_of_samples(f0_BM, cycles_B)
        voiced_BN = (f0_BM > config.voiced_threshold).repeat_interleave(config.hop_length, dim=1)
        weight_H = self.l_linear.weight[0].float()

        # One harmonic at a time: [B, H + 1, N] sines would be the largest tensor of all.
        harmonics_BN = torch.zeros_like(cycles_BN, dtype=torch.float32)
        for order in range(self.num_harmonics):
            # Modulo one in float64, and only then float32, whose seven digits a minute of cycles would use up.
            angle_BN = (cycles_BN * (order + 1)).frac_().float().mul_(2 * math.pi)
            sine_BN = angle_BN.add_(phase_BH[:, order, None].float()).sin_()
            harmonics_BN = harmonics_BN + weight_H[order] * sine_BN
        # Unvoiced, noise takes the place of the sines, at a third of their amplitude.
        amplitude_BN = torch.where(voiced_BN, config.noise_amplitude, config.sine_amplitude / 3)
        hiss_BN = torch.matmul(weight_H, noise_BHN.float())
        mix_BN = harmonics_BN * (voiced_BN * config.sine_amplitude) + hiss_BN * amplitude_BN
        return torch.tanh(mix_BN + self.l_linear.bias.float())[:, None]

    def count_cycles(self, f0_BM: Tensor, cycles_B: Tensor | None = None) -> Tensor:
        """Returns the periods of the fundamental up to the end of the last frame, modulo one, float64 ``[B]``."""
        periods_B = f0_BM.detach().double().sum(dim=1) * (self.config.hop_length / self.config.sample_rate)
        return (periods_B if cycles_B is None else periods_B + cycles_B).frac()

    def _cycles_of_samples(self, f0_BM: Tensor, cycles_B: Tensor | None) -> Tensor:
        """Periods of the fundamental up to and including each sample, modulo one, float64 ``[B, N]``."""
        hop_length = self.config.hop_length
        step_BM = f0_BM.double() / self.config.sample_rate
        # The frequency is constant within a frame, so a sum over frames gives the cycles at each frame's start.
        before_BM = (step_BM.cumsum(dim=1) - step_BM) * hop_length
        if cycles_B is not None:
            before_BM = before_BM + cycles_B[:, None]
        sample_S = torch.arange(1, hop_length + 1, dtype=torch.float64, device=f0_BM.device)
        return (before_BM.frac()[..., None] + step_BM[..., None] * sample_S).frac_().flatten(1)

    def draw_phase(self, batch_size: int, generator: Generators = None) -> Tensor:
        """Draws phases at the start, uniform in [-pi, pi); 0 for the fundamental.

        Args:
            batch_size: B.
            generator: one for all rows, or one per row so that a row's draws do not depend on the others.

        Returns:
            float32 ``[B, H + 1]``, on the generator's device (the CPU if there is none).
        """

        def draw(rows: int, source: torch.Generator | None) -> Tensor:
            uniform = torch.rand(rows, self.num_harmonics, 1, generator=source, device=_device_of(source))
            return uniform[..., 0] * (2 * math.pi) - math.pi

        if isinstance(generator, Sequence):
            phase_BH = torch.cat([draw(1, source) for source in _one_per_row(generator, batch_size)])
        else:
            phase_BH = draw(batch_size, generator)
        phase_BH[:, 0] = 0  # drawn all the same, as published: later draws depend on how many there were
        return phase_BH

    def draw_noise(
        self, num_samples: Sequence[int], generator: Generators = None, longest: int | None = None
    ) -> Tensor:
        """Draws standard normal noise, zero beyond each row's own length.

        Args:
            num_samples: own length of each row.
            generator: one for all rows, which draws them in one call; or one per row, which draws the row's own
                length, as if the row were alone.
            longest: N; the longest row if None.

        Returns:
            float32 ``[B, H + 1, N]``.
        """
        longest = max(num_samples) if longest is None else longest
        if not isinstance(generator, Sequence):
            shape = (len(num_samples), self.num_harmonics, longest)
            return torch.randn(shape, generator=generator, device=_device_of(generator))
        generators = _one_per_row(generator, len(num_samples))
        rows = [
            torch.randn(1, self.num_harmonics, length, generator=source, device=source.device)
            for length, source in zip(num_samples, generators, strict=True)
        ]
        if len(rows) == 1 and num_samples[0] == longest:
            return rows[0]
        noise_BHN = rows[0].new_zeros(len(rows), self.num_harmonics, longest)
        for row, drawn in zip(noise_BHN, rows, strict=True):
            row[:, : drawn.shape[-1]] = drawn[0]
        return noise_BHN


def _device_of(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _one_per_row(generators: Sequence[torch.Generator], batch_size: int) -> Sequence[torch.Generator]:
    if len(generators) != batch_size:
        raise ValueError(f"{len(generators)} generators for {batch_size} rows; give one per row, or a single one")
    return generators
