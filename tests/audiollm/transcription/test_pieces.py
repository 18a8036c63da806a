"""Pieces cover a recording without gap or overlap, are no longer than asked for, and end in pauses."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from audiollm.data.audio.reading import load_audio
from audiollm.transcription.activity import FRAME_SECONDS, LevelActivity, SileroActivity, activity_of
from audiollm.transcription.pieces import pieces_of

SPEECH = Path(__file__).parents[3] / "data/corpora/sample/asterisk"


def _noise(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * rate), generator=generator)


def _blocks(waveform: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    result, position = [], 0
    while position < len(waveform):
        size = sizes[len(result) % len(sizes)]
        result.append(waveform[position : position + size])
        position += size
    return result


@pytest.mark.parametrize("rate", [100, 8000, 16000, 22050])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 7.99, 8.0, 8.04, 31.7])
@pytest.mark.parametrize("sizes", [[1 << 20], [997, 3, 16000]], ids=["one block", "odd blocks"])
def test_pieces_cover_the_recording(rate, seconds, sizes):
    waveform = _noise(seconds, rate)
    if not len(waveform):
        pytest.skip("no sample at this rate")
    pieces = list(pieces_of(_blocks(waveform, sizes), rate, longest_seconds=8))
    assert torch.equal(torch.cat([piece.waveform for piece in pieces]), waveform)
    assert pieces[0].start == 0
    assert pieces[-1].end == len(waveform) / rate
    for one, following in itertools.pairwise(pieces):
        assert one.end == following.start
        assert 4 <= one.end - one.start <= 8
    assert pieces[-1].end - pieces[-1].start <= 8
    assert (len(pieces) == 1) == (len(waveform) <= 8 * rate)


def test_cuts_do_not_depend_on_the_blocks():
    waveform = _noise(40, 8000)
    cuts = [
        [piece.end for piece in pieces_of(_blocks(waveform, sizes), 8000, longest_seconds=7)]
        for sizes in ([320000], [8000], [1, 4001])
    ]
    assert cuts[0] == cuts[1] == cuts[2]
    assert len(cuts[0]) > 5


def test_a_cut_lies_in_the_pause():
    rate = 16000
    waveform = _noise(20, rate)
    waveform[6 * rate : round(6.4 * rate)] *= 0.01
    first = next(pieces_of([waveform], rate, longest_seconds=10))
    assert 6.05 < first.end < 6.35


def test_a_recording_of_the_longest_length_stays_whole():
    assert len(list(pieces_of([_noise(28, 16000)], 16000))) == 1


def test_silence_is_not_active():
    rate = 8000
    waveform = torch.cat([_noise(5, rate), torch.zeros(30 * rate), _noise(5, rate)])
    pieces = list(pieces_of([waveform], rate, longest_seconds=5))
    assert pieces[0].is_active
    assert pieces[-1].is_active
    assert sum(not piece.is_active for piece in pieces) >= 4
    assert torch.equal(torch.cat([piece.waveform for piece in pieces]), waveform)


def test_memory_does_not_grow_with_the_length():
    rate = 8000
    peaks = []
    for minutes in (2, 20):
        tracemalloc.start()
        for _ in pieces_of((_noise(10, rate, seed) for seed in range(minutes * 6)), rate):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]  # of 10 times the length


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.5, float("nan"), float("inf")])
def test_no_length_for_a_piece_is_refused(seconds):
    with pytest.raises(ValueError, match="longest_seconds"):
        pieces_of([_noise(1, 8000)], 8000, longest_seconds=seconds)


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="level, silero"):
        pieces_of([_noise(1, 8000)], 8000, pauses="webrtc")


def test_a_missing_detector_names_its_cure(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "silero_vad", None)
    with pytest.raises(ImportError, match=r"pip install 'audiollm\[vad\]'"):
        activity_of("silero", 16000)


@pytest.fixture
def speech() -> torch.Tensor:
    """Read speech, 16 kHz."""
    return load_audio(sorted(SPEECH.rglob("*.opus"))[0], 16000)[0]


def test_silero_hears_speech_and_leaves_torch_its_threads(speech):
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        activity = SileroActivity(16000)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    scores = activity.scores(speech.numpy(), is_last=True)
    assert (scores >= activity.threshold).mean() > 0.5
    assert (SileroActivity(16000).scores(_noise(4, 16000).numpy(), is_last=True) < 0.5).mean() > 0.9


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("measure", [LevelActivity, SileroActivity])
def test_scores_keep_to_the_time_of_the_samples(measure, rate):
    if measure is SileroActivity:
        pytest.importorskip("silero_vad")
    activity, frame = measure(rate), round(FRAME_SECONDS * rate)
    num_scores = sum(len(activity.scores(_noise(1, rate).numpy(), is_last=second == 29)) for second in range(30))
    assert num_scores == -(-30 * rate // frame)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_levels_are_decibels(offset):
    square = np.tile(np.float32([0.1, -0.1]), 512) + np.float32(offset)
    assert LevelActivity(16000).scores(square) == pytest.approx([-20.0, -20.0], abs=1e-3)


@pytest.mark.parametrize("seconds", [0.01, 3.0, 12.34])
def test_an_offset_changes_no_cut_and_is_no_sound(seconds):
    rate = 16000
    waveform = _noise(seconds, rate)
    waveform[len(waveform) // 3 :][: rate // 2] *= 0.001
    plain, shifted = (
        [(piece.start, piece.end, piece.is_active) for piece in pieces_of([one], rate, longest_seconds=2)]
        for one in (waveform, waveform + 0.4)
    )
    assert plain == shifted
    assert not any(piece.is_active for piece in pieces_of([torch.full((len(waveform),), 0.4)], rate))
