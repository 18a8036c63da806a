"""DNSMOS P.835 (Reddy et al., 2022, arXiv:2110.01763): predicted opinion on speech, noise and the whole, 1 to 5.

Only the network is used, from the package speechmos (MIT licence, Microsoft). Windows and the fit to listeners'
scale are those of the published evaluation: windows of 9.01 s that start every second; a recording that is shorter is
doubled until it is long enough.
"""
# Shapes: N samples.

from __future__ import annotations

import math
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiollm.data.audio.waveforms import resample
from audiollm.data.packages import Package

DNSMOS_SAMPLE_RATE = 16000  # Hz, fixed by the network
WINDOW_SECONDS = 9.01
WINDOW_SAMPLES = 144160  # 9.01 s
# Coefficients of the published fit from the network's outputs to listeners' ratings, highest power first.
_FITS = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
_PACKAGE = Package("wheel", "speechmos", "0.0.1.1", "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7")
_NETWORK = "speechmos/dnsmos_models/sig_bak_ovr.onnx"


class Dnsmos:
    """The predictor; satisfies `MosPredictor`.

    Args:
        path: the network.

    Raises:
        ImportError: onnxruntime is not installed.
    """

    name = "DNSMOS P.835 overall"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            runtime: Any = import_module("onnxruntime")
        except ImportError as error:
            raise ImportError(
                "the MOS predictor dnsmos needs onnxruntime: run `pip install 'audiollm[bench]'`, or choose another "
                "predictor"
            ) from error
        options = runtime.SessionOptions()
        # onnxruntime takes all cores unless told; it does not read the variable itself.
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        self._session: Any = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def predict(self, waveform: Tensor, sample_rate: int) -> float | None:
        """Predicted rating of the whole."""
        ratings = self.ratings(waveform, sample_rate)
        return None if ratings is None else ratings["overall"]

    def ratings(self, waveform: Tensor, sample_rate: int) -> dict[str, float] | None:
        """Predicted ratings of speech, background and the whole, means over the windows.

        Args:
            waveform: float in [-1, 1], ``[N]``.
            sample_rate: Hz.

        Returns:
            None if there are no samples, or only silence.
        """
        speech = resample(waveform.detach().float().cpu(), sample_rate, DNSMOS_SAMPLE_RATE).numpy()
        if not len(speech) or not speech.any():
            return None
        while len(speech) < WINDOW_SAMPLES:
            speech = np.concatenate([speech, speech])
        # As published: seconds are floored before the window is taken off, so that a last window may not be looked at.
        num_windows = max(1, int(math.floor(len(speech) / DNSMOS_SAMPLE_RATE) - WINDOW_SECONDS) + 1)
        windows = (
            speech[start : start + WINDOW_SAMPLES]
            for start in range(0, num_windows * DNSMOS_SAMPLE_RATE, DNSMOS_SAMPLE_RATE)
        )
        outputs = [self._session.run(None, {self._input: window[None]})[0][0] for window in windows]
        fitted = {
            name: np.mean([np.polyval(fit, output[place]) for output in outputs])
            for place, (name, fit) in enumerate(_FITS.items())
        }
        return {name: float(value) for name, value in fitted.items()}


def load_dnsmos() -> Dnsmos:
    """Fetches the network (9 MB package, once, into the cache folder) and loads it.

    Raises:
        PackageError: the package cannot be had.
        ImportError: onnxruntime is not installed.
    """
    return Dnsmos(Path(_PACKAGE.extract(_NETWORK)) / _NETWORK)
