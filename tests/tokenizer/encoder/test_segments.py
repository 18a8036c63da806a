"""Long clips are cut and short ones batched without losing or mixing anything."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.tokenizer.encoder.segments import batches, count_tokens, cut

LENGTH, STRIDE = 4800, 640


@given(st.integers(0, 20000))
def test_cutting_keeps_every_sample_and_counts_every_token(num_samples: int) -> None:
    waveform = torch.arange(num_samples)
    pieces = cut(waveform, 3, LENGTH, STRIDE)
    assert torch.equal(torch.cat([torch.zeros(0, dtype=torch.int64), *(piece.waveform for piece in pieces)]), waveform)
    assert sum(piece.num_tokens for piece in pieces) == count_tokens(num_samples, LENGTH, STRIDE)
    for piece in pieces:
        assert piece.clip == 3
        assert piece.padded_samples % STRIDE == 0
        assert len(piece.waveform) <= piece.padded_samples <= -(-LENGTH // STRIDE) * STRIDE


@given(
    st.lists(st.integers(1, LENGTH), max_size=30),
    st.integers(1, 4 * LENGTH),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_batches_hold_each_segment_once_within_the_limits(
    lengths: list[int], max_samples: int, max_padding: float
) -> None:
    found = list(batches(lengths, max_samples, max_padding))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        padded = [lengths[index] for index in batch]
        assert len(batch) == 1 or max(padded) * len(batch) <= max_samples
        assert max(padded) <= min(padded) * (1 + max_padding)
