"""Pictures of sound: waveform and mel spectrogram of every version of a clip, one beside the other."""
# Shapes: C mel bins, M mel frames, N samples.

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from audiollm.tokenizer.signal.mel import MelConfig, MelSpectrogram

QUIETEST_LOG_MEL, LOUDEST_LOG_MEL = -10.0, 2.0


def clip_stem(number: int, clip_id: str) -> str:
    """What the names of a clip's files begin with: its number, and as much of its id as a name may hold."""
    return f"{number:03d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', clip_id)[-80:]}"


def draw_clip(path: Path, title: str, waveforms: Mapping[str, Tensor], mel: MelConfig) -> None:
    """Writes a PNG: per version a waveform and the mel spectrogram below it, all on the same scales.

    Args:
        path: the file.
        title: over all.
        waveforms: by name, float ``[N]`` in [-1, 1] at the mel's sample rate.
        mel: the spectrogram.
    """
    figure = Figure(figsize=(4.5 * len(waveforms), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(waveforms), squeeze=False, sharex=True, sharey="row", height_ratios=(1, 2))
    spectrogram = MelSpectrogram(mel)
    for column, (name, given) in enumerate(waveforms.items()):
        # Padded to a window: a clip that is shorter has no spectrogram.
        waveform = F.pad(given, (0, max(0, mel.n_fft - len(given))))
        seconds = len(waveform) / mel.sample_rate
        axes[0, column].plot(np.arange(len(waveform)) / mel.sample_rate, waveform.float().numpy(), linewidth=0.4)
        axes[0, column].set_title(name.replace("_", " "))
        axes[0, column].set_ylim(-1, 1)
        with torch.no_grad():
            log_mel_CM = spectrogram(waveform.float()).numpy()
        axes[1, column].imshow(
            log_mel_CM, origin="lower", aspect="auto", extent=(0, seconds, 0, mel.num_mels), vmin=QUIETEST_LOG_MEL,
            vmax=LOUDEST_LOG_MEL, interpolation="nearest",
        )  # fmt: skip
        axes[1, column].set_xlabel("seconds")
    axes[0, 0].set_ylabel("amplitude")
    axes[1, 0].set_ylabel("mel band")
    figure.suptitle(title if len(title) <= 100 else title[:99] + "…")
    figure.savefig(path, dpi=100)
