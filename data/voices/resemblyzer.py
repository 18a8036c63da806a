"""The speaker encoder of the Resemblyzer package: a small LSTM, trained with the GE2E loss (arXiv:1710.10467).

Only its weights are used (Apache-2.0, Corentin Jemine and Resemble AI); they are fetched from the package index. The
pauses are found here by their level, where the package asks a voice activity detector.
"""
# Shapes: N samples, T frames, W windows, M mel bands, S size of a speaker vector.

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiollm.data.audio.waveforms import resample
from audiollm.data.packages import Package, PackageError
from audiollm.tokenizer.checkpoints.tensors import check_complete, check_finite, load_pickle
from audiollm.tokenizer.signal.mel import slaney_mel_filters

SAMPLE_RATE = 16000  # Hz, as this encoder was trained, and so are all sizes below
N_FFT = 400
HOP_LENGTH = 160
NUM_MELS = 40
EMBEDDING_SIZE = 256
WINDOW_FRAMES = 160  # 1.6 s, the length of the utterances it was trained on
WINDOW_STEP_FRAMES = 77  # 1.3 windows per second
MIN_COVERAGE = 0.75  # a last window with less sound in it is left out
WINDOWS_PER_BATCH = 64
QUIETEST_LEVEL = 10 ** (-30 / 20)  # root mean square that quieter recordings are raised to
PAUSE_FRAME_SAMPLES = 480  # 30 ms
PAUSE_LEVEL = 10 ** (-40 / 20)  # of the loudest frame; what is below is a pause
MAX_PAUSE_FRAMES = 7  # longer pauses are shortened to this many frames

_PACKAGE = Package("wheel", "resemblyzer", "0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f")
_WEIGHTS = "resemblyzer/pretrained.pt"


class ResemblyzerEncoder(nn.Module):
    """Three LSTM layers over windows of 1.6 s, whose unit vectors are averaged.

    Satisfies `SpeakerEncoder`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, EMBEDDING_SIZE, num_layers=3, batch_first=True)
        self.linear = nn.Linear(EMBEDDING_SIZE, EMBEDDING_SIZE)

    @property
    def embedding_size(self) -> int:
        """S."""
        return EMBEDDING_SIZE

    def forward(self, windows_WTM: Tensor) -> Tensor:
        """Describes windows of mel power spectra ``[W, T, M]`` by vectors ``[W, S]`` of length 1."""
        _, (hidden, _) = self.lstm(windows_WTM)
        return F.normalize(self.linear(hidden[-1]).relu(), dim=1)

    @torch.no_grad()
    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes the voice of a recording; see `embed`."""
        if waveform.dim() != 1 or not waveform.is_floating_point():
            raise ValueError(f"waveform is {waveform.dtype} {list(waveform.shape)}; give floats of one channel, [N]")
        if not bool(waveform.isfinite().all()):
            raise ValueError("waveform holds NaN or infinite samples")
        if not bool(waveform.any()):
            raise ValueError(f"there is no voice in {len(waveform)} samples of silence")
        speech = shorten_pauses(raise_level(resample(waveform, sample_rate, SAMPLE_RATE)))
        windows_WTM = self._windows(speech)
        vectors = [self(batch.to(self.linear.weight.device)) for batch in windows_WTM.split(WINDOWS_PER_BATCH)]
        return F.normalize(torch.cat(vectors).mean(dim=0), dim=0).cpu()

    def _windows(self, speech: Tensor) -> Tensor:
        """Cuts mel power spectra of the whole into overlapping windows, [W, T, M]; the last may end in silence."""
        window_samples, step_samples = WINDOW_FRAMES * HOP_LENGTH, WINDOW_STEP_FRAMES * HOP_LENGTH
        num_windows = 1 + max(0, math.ceil((len(speech) - window_samples) / step_samples))
        last_start = (num_windows - 1) * step_samples
        if num_windows > 1 and len(speech) - last_start < MIN_COVERAGE * window_samples:
            num_windows -= 1
            last_start -= step_samples
        padding = max(0, last_start + window_samples - len(speech))
        frames_TM = self._mel(F.pad(speech, (0, padding)))
        return frames_TM.unfold(0, WINDOW_FRAMES, WINDOW_STEP_FRAMES)[:num_windows].transpose(1, 2)

    def _mel(self, speech: Tensor) -> Tensor:
        window = torch.hann_window(N_FFT)
        spectrum = torch.stft(
            speech, N_FFT, HOP_LENGTH, window=window, center=True, pad_mode="constant", return_complex=True
        )
        return (self._filters @ spectrum.abs().square()).T

    @cached_property
    def _filters(self) -> Tensor:
        return slaney_mel_filters(N_FFT, NUM_MELS, SAMPLE_RATE, 0.0, SAMPLE_RATE / 2)


def raise_level(speech: Tensor) -> Tensor:
    """Amplifies a recording below -30 dB to that root mean square level; louder ones stay."""
    return speech * max(1.0, QUIETEST_LEVEL / float(speech.square().mean().sqrt()))


def shorten_pauses(speech: Tensor) -> Tensor:
    """Cuts long pauses down: frames of 30 ms more than 40 dB below the loudest, except those next to louder ones."""
    num_frames = len(speech) // PAUSE_FRAME_SAMPLES
    if num_frames == 0:
        return speech
    frames = speech[: num_frames * PAUSE_FRAME_SAMPLES].view(num_frames, PAUSE_FRAME_SAMPLES)
    level = frames.square().mean(dim=1).sqrt()
    is_loud = (level >= PAUSE_LEVEL * level.max()).float()
    is_kept = F.max_pool1d(is_loud[None, None], MAX_PAUSE_FRAMES, stride=1, padding=MAX_PAUSE_FRAMES // 2)[0, 0] > 0
    return frames[is_kept].flatten()


def fetch_resemblyzer() -> Path:
    """Fetches the weights (15.7 MB, once, into the cache folder). Raises `PackageError` if they cannot be had."""
    return _PACKAGE.extract(_WEIGHTS) / _WEIGHTS


def load_resemblyzer(device: torch.device | str = "cpu") -> ResemblyzerEncoder:
    """Fetches the weights and loads them.

    Raises:
        PackageError: the package cannot be had, or holds other weights.
    """
    return read_resemblyzer(fetch_resemblyzer()).to(device)


def read_resemblyzer(path: Path) -> ResemblyzerEncoder:
    """Loads the weights of a file; code in it is never run.

    Raises:
        PackageError: the file is damaged or holds code, or other tensors than this model's, or some with NaN.
    """
    encoder = ResemblyzerEncoder().eval()
    try:
        content = load_pickle(path)
        stored = content.get("model_state") if isinstance(content, dict) else None
        if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
            raise ValueError(f"{path} holds no tensors by name under model_state")
        # Scale and offset of the training loss; no voice needs them.
        weights = {name: tensor for name, tensor in stored.items() if not name.startswith("similarity_")}
        check_complete(encoder.state_dict(), weights, path)
        check_finite(weights, path)
    except ValueError as error:
        raise PackageError(f"{path} does not hold the weights of Resemblyzer's speaker encoder: {error}") from error
    encoder.load_state_dict(weights)
    return encoder.requires_grad_(False)
