from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from audiollm.training.recordings.checked import Recordings
from audiollm.training.recordings.segments import SegmentOrder, cut_segment


def test_segments_depend_on_seed_update_and_place_alone_and_stay_inside():
    order = SegmentOrder([3, 40], segment_frames=8, segments_per_update=4, seed=5)
    drawn = [order.segment(step, place)[:2] for step in range(1, 300) for place in range(4)]
    assert drawn == [order.segment(step, place)[:2] for step in range(1, 300) for place in range(4)]
    assert drawn != [
        SegmentOrder([3, 40], 8, 4, seed=6).segment(step, place)[:2] for step in range(1, 300) for place in range(4)
    ]
    assert {first for clip, first in drawn if clip == 0} == {0}
    assert {first for clip, first in drawn if clip == 1} == set(range(33))
    # By duration: 3 frames of 43.
    assert Counter(clip for clip, _ in drawn)[0] / len(drawn) == pytest.approx(3 / 43, abs=0.03)
    assert order.epoch(10) == pytest.approx(10 * 4 * 8 / 43)
    assert order.num_updates(2.0) == math.ceil(2 * 43 / 32)


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="no clips"):
        SegmentOrder([], 8, 4, seed=0)


def test_what_is_cut_out_lies_in_its_recording_with_silence_behind_the_end(decoder_corpus):
    recordings = Recordings(str(decoder_corpus.train), sample_rate=8000)
    lengths = [-(-recordings.num_samples(index) // 80) for index in range(len(recordings))]
    order = SegmentOrder(lengths, segment_frames=max(lengths), segments_per_update=4, seed=0)
    for position in range(8):
        clip, first, generator = order.segment(1, position)
        segment = cut_segment(recordings, order, 1, position, frame_samples=80)
        assert (first, segment.id) == (0, recordings.id(clip))  # the longest fills a segment, and all begin at theirs
        length = recordings.num_samples(clip)
        assert torch.equal(segment.waveform[:length], recordings.waveform(clip))
        assert segment.waveform[length:].abs().sum() == 0
        assert segment.waveform.shape == (max(lengths) * 80,)
        assert torch.equal(segment.generator.get_state(), generator.get_state())
