"""From audio file to codes: equal to the reference for one file per call and, on the raw path, for padded batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.configuration import HOP_LENGTH
from audiollm.tokenizer.signal.resampling import resample

SURE_GAP = 1e-3  # below it, float32 rounding may decide between the two nearest entries


@pytest.fixture(scope="module")
def folder(extract_audio_token_folder: Path) -> Path:
    return extract_audio_token_folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def names(folder: Path) -> list[str]:
    return list(json.loads((folder / "meta.json").read_text())["files"])


@pytest.fixture(scope="module")
def model(parity: Path) -> UniAudioTokenizer:
    return UniAudioTokenizer.from_pretrained(parity / "encoder_a_sae_before_vq", encoder_only=True)


def read_first_channel(path: Path) -> tuple[Tensor, int]:
    waveform, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(waveform[:, 0].copy()), sample_rate


def assert_codes_equal(codes: Tensor, expected: Tensor, gap: Tensor) -> None:
    assert codes.shape == expected.shape
    wrong = (codes != expected) & (gap > SURE_GAP)
    assert not wrong.any(), f"codes differ at {wrong.nonzero().flatten().tolist()}"


def test_each_file_alone(folder: Path, names: list[str], expected: dict[str, Tensor], model: UniAudioTokenizer) -> None:
    for name in names:
        waveform, sample_rate = read_first_channel(folder / name)
        codes = model.encode(waveform, sample_rate)
        assert_codes_equal(codes[0][0], expected[f"alone.{name}"], expected[f"alone_gap.{name}"])
        assert model.num_tokens(len(waveform), sample_rate) == len(codes[0][0])


def test_a_batch_gives_what_each_file_gives_alone(
    folder: Path, names: list[str], expected: dict[str, Tensor], model: UniAudioTokenizer
) -> None:
    clips = [resample(*read_first_channel(folder / name), 16000) for name in names]
    codes = model.encode([*clips, *reversed(clips)], 16000)
    for index, name in enumerate([*names, *reversed(names)]):
        assert_codes_equal(codes[index][0], expected[f"alone.{name}"], expected[f"alone_gap.{name}"])


def test_a_file_in_chunks_gives_what_it_gives_whole(
    folder: Path, names: list[str], expected: dict[str, Tensor], model: UniAudioTokenizer
) -> None:
    for name in names:
        waveform, sample_rate = read_first_channel(folder / name)
        codes = torch.cat(list(model.encode_stream(waveform.split(7777), sample_rate)))
        assert_codes_equal(codes, expected[f"alone.{name}"], expected[f"alone_gap.{name}"])


def test_resampling_equals_the_reference(folder: Path, names: list[str], expected: dict[str, Tensor]) -> None:
    compared = 0
    for name in names:
        waveform, sample_rate = read_first_channel(folder / name)
        if f"resampled.{name}" in expected:
            reference = expected[f"resampled.{name}"]
            resampled = resample(waveform, sample_rate, 16000)
            torch.testing.assert_close(resampled[: len(reference)], reference, atol=1e-5, rtol=0)
            compared += 1
    assert compared


@pytest.mark.parametrize(("case", "batch_size"), [("joint128", 128), ("joint2", 2)])
def test_padded_batches_on_the_raw_path(
    case: str, batch_size: int, folder: Path, names: list[str], expected: dict[str, Tensor], model: UniAudioTokenizer
) -> None:
    """The reference lets the padding of a batch reach the last frames; the raw forward must do the same."""
    segments = [
        (name, piece)
        for name in names
        for piece in resample(*read_first_channel(folder / name), 16000).split(model.config.segment_samples)
    ]
    codes: dict[str, list[Tensor]] = {name: [] for name in names}
    for first in range(0, len(segments), batch_size):
        batch = segments[first : first + batch_size]
        for (name, _), row in zip(batch, encode_padded(model, [piece for _, piece in batch]), strict=True):
            codes[name].append(row)
    for name in names:
        assert_codes_equal(torch.cat(codes[name]), expected[f"{case}.{name}"], expected[f"{case}_gap.{name}"])


def encode_padded(model: UniAudioTokenizer, pieces: list[Tensor]) -> list[Tensor]:
    """Encodes a batch the reference's way: all padded with zeros to the longest, one log-mel for the padded batch."""
    stride = model.config.token_stride
    longest = -(-max(len(piece) for piece in pieces) // stride) * stride
    waveforms, mask = torch.zeros(len(pieces), longest), torch.zeros(len(pieces), longest, dtype=torch.int64)
    for row, piece in enumerate(pieces):
        waveforms[row, : len(piece)], mask[row, : len(piece)] = piece, 1
    with torch.no_grad():
        output = model(model.log_mel(waveforms), mask[:, ::HOP_LENGTH])
    return [row[: -(-len(piece) // stride)] for row, piece in zip(output.codes, pieces, strict=True)]


def test_token_counts_for_each_length(folder: Path, model: UniAudioTokenizer) -> None:
    counts = json.loads((folder / "meta.json").read_text())["token_count_by_samples"]
    for num_samples, expected_count in counts.items():
        assert model.num_tokens(int(num_samples), 16000) == expected_count
        assert int(model.encode(torch.zeros(int(num_samples)), 16000).lengths[0]) == expected_count
