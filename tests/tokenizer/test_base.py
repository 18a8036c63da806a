"""The container of codes."""

from __future__ import annotations

import pytest
import torch

from audiollm.tokenizer import Codes


def test_from_list_and_back() -> None:
    clips = [torch.tensor([[1, 2, 3]]), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([[7]])]
    codes = Codes.from_list(clips)
    assert codes.codes.shape == (3, 1, 3)
    assert codes.lengths.tolist() == [3, 0, 1]
    assert codes.tolist() == [[1, 2, 3], [], [7]]
    assert all(torch.equal(codes[index], clip) for index, clip in enumerate(clips))
    assert len(codes) == 3
    assert int(codes.codes[2, 0, 1:].abs().sum()) == 0


def test_several_codebooks_keep_their_axis() -> None:
    assert Codes.from_list([torch.tensor([[1, 2], [3, 4]])]).tolist() == [[[1, 2], [3, 4]]]


def test_no_clips() -> None:
    codes = Codes.from_list([])
    assert (codes.codes.shape, codes.tolist()) == ((0, 1, 0), [])


def test_different_codebook_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clip 1 has codes of shape \[2, 3\]"):
        Codes.from_list([torch.zeros(1, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64)])
