"""Codes of several rates as one row: there and back, broken off, and refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.tokenizer.grouped import GroupedLayout
from audiollm.tokenizer.layout import CodeLayout

LAYOUT = GroupedLayout((("slow", CodeLayout((4, 4))), ("fast", CodeLayout((8,)))))


@settings(deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3),
    frames=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_codes_become_a_row_and_come_back(groups: list[list[int]], frames: list[int], seed: int) -> None:
    layout = GroupedLayout(tuple((f"g{n}", CodeLayout(tuple(sizes))) for n, sizes in enumerate(groups)))
    generator = torch.Generator().manual_seed(seed)
    codes = {
        name: torch.stack([torch.randint(size, (count,), generator=generator) for size in one.codebook_sizes])
        for (name, one), count in zip(layout.groups, frames, strict=False)
    }
    row = layout.to_symbols(codes)
    assert len(row) == sum(one.numel() for one in codes.values())
    assert not len(row) or 0 <= int(row.min()) <= int(row.max()) < layout.size
    back = layout.to_groups(row)
    assert back.keys() == codes.keys()
    assert all(torch.equal(back[name], one) for name, one in codes.items())
    assert GroupedLayout.from_dict(layout.to_dict()) == layout


def test_a_row_that_breaks_off_has_the_frames_that_are_whole() -> None:
    row = LAYOUT.to_symbols({"slow": torch.tensor([[1, 2], [3, 0]]), "fast": torch.tensor([[5, 6, 7]])})
    assert row.tolist() == [1, 4 + 3, 2, 4 + 0, 8 + 5, 8 + 6, 8 + 7]
    cut = LAYOUT.to_groups(row[:3], is_cut=True)
    assert cut["slow"].tolist() == [[1], [3]]
    assert cut["fast"].shape == (1, 0)
    with pytest.raises(ValueError, match=r"slow codes: .*breaks off"):
        LAYOUT.to_groups(row[:3])


@pytest.mark.parametrize(
    ("row", "message"),
    [([16], r"16 is not in \[0, 16\)"), ([-1], "-1 is not in"), ([8, 1, 4], "fast codes: "), ([1, 1], "slow codes: ")],
)
def test_symbols_that_cannot_stand_there_are_refused(row: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAYOUT.to_groups(torch.tensor(row), is_cut=True)


def test_all_groups_are_needed_each_once_and_flat() -> None:
    with pytest.raises(ValueError, match="missing: fast; unknown: quick"):
        LAYOUT.to_symbols({"slow": torch.zeros(2, 0, dtype=torch.int64), "quick": torch.zeros(1, 0, dtype=torch.int64)})
    with pytest.raises(ValueError, match="each once"):
        GroupedLayout((("a", CodeLayout((2,))), ("a", CodeLayout((2,)))))
    with pytest.raises(ValueError, match="a: code_order='delay'"):
        GroupedLayout((("a", CodeLayout((2, 2), "delay")),))
    with pytest.raises(ValueError, match="no layout of codes in groups"):
        GroupedLayout.from_dict({"codebook_sizes": [2], "order": "flat"})
