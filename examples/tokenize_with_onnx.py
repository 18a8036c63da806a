"""Turns recordings into codes by the ONNX graph that `audiollm export --format onnx` writes, without torch.

audiollm export mini tokenizer-onnx --format onnx
python examples/tokenize_with_onnx.py tokenizer-onnx recording.wav

It needs numpy, soundfile, soxr and onnxruntime, and nothing of audiollm: copy what you need.
"""
# Shapes: N samples, M mel bins, F mel frames, T codes.

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr


class OnnxTokenizer:
    """Recordings to codes. What the graph must be used with stands in its metadata."""

    def __init__(self, folder: Path) -> None:
        self.session = onnxruntime.InferenceSession(
            folder / "audio_tokenizer.onnx", providers=onnxruntime.get_available_providers()
        )
        self.facts = self.session.get_modelmeta().custom_metadata_map
        self.filters_MK = np.load(folder / "mel_filters.npy")
        self.sample_rate = self.number("sample_rate")

    def number(self, name: str) -> int:
        return int(json.loads(self.facts[name]))

    def encode(self, waveform_N: np.ndarray) -> np.ndarray:
        """Codes int64 ``[T]`` of samples in [-1, 1] at ``sample_rate``; longer ones are cut into segments."""
        length = self.number("segment_samples")
        pieces = [
            self.encode_segment(waveform_N[at : at + length], at == 0) for at in range(0, len(waveform_N), length)
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def encode_segment(self, waveform_N: np.ndarray, is_first: bool) -> np.ndarray:
        hop, frames_per_token = self.number("hop_length"), self.number("frames_per_token")
        stride = hop * frames_per_token
        tokens = -(-len(waveform_N) // stride)
        # The rest of a recording that was cut is followed by silence, a short recording by its own reflection.
        padded = tokens if is_first else min(tokens + 1, -(-self.number("segment_samples") // stride))
        samples_N = np.pad(waveform_N.astype(np.float32), (0, padded * stride - len(waveform_N)))
        features_MF = self.log_mel(samples_N)
        # Frames that begin behind the end are masked.
        starts_F = np.arange(features_MF.shape[1]) * hop
        mask_F = (starts_F < len(waveform_N)).astype(np.int64)
        feeds = {"input_features": features_MF[None], "attention_mask": mask_F[None]}
        return self.session.run(["codes"], feeds)[0][0, :tokens]

    def log_mel(self, samples_N: np.ndarray) -> np.ndarray:
        """Whisper's features, float32 ``[M, F]``."""
        size, hop = self.number("n_fft"), self.number("hop_length")
        window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
        extended = np.pad(samples_N, size // 2, mode="reflect")
        frames_FS = np.lib.stride_tricks.sliding_window_view(extended, size)[::hop][: len(samples_N) // hop]
        power_KF = np.abs(np.fft.rfft(frames_FS * window, axis=1)).T ** 2
        log_MF = np.log10(np.maximum(self.filters_MK @ power_KF, 1e-10))
        return ((np.maximum(log_MF, log_MF.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def read(path: Path, sample_rate: int) -> np.ndarray:
    """The first channel of a recording."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples[:, 0], rate, sample_rate) if rate != sample_rate else samples[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what audiollm export --format onnx wrote")
    parser.add_argument("recordings", nargs="+", type=Path)
    arguments = parser.parse_args()

    tokenizer = OnnxTokenizer(arguments.folder)
    for path in arguments.recordings:
        codes = tokenizer.encode(read(path, tokenizer.sample_rate)).tolist()
        print(json.dumps({"audio": str(path), "codes": codes, "audio_tokenizer": tokenizer.facts["fingerprint"]}))


if __name__ == "__main__":
    main()
