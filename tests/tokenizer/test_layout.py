"""The codes of several codebooks as one row of symbols, and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.tokenizer.layout import CodeLayout, FrameReader, SymbolWriter


def layouts() -> st.SearchStrategy[CodeLayout]:
    sizes = st.lists(st.integers(1, 20), min_size=1, max_size=8)
    return st.builds(CodeLayout, sizes.map(tuple), st.sampled_from(["flat", "delay"]))


@st.composite
def layouts_and_codes(draw: st.DrawFn, min_frames: int = 0) -> tuple[CodeLayout, torch.Tensor]:
    layout, num_frames = draw(layouts()), draw(st.integers(min_frames, 12))
    codes = [
        draw(st.lists(st.integers(0, size - 1), min_size=num_frames, max_size=num_frames))
        for size in layout.codebook_sizes
    ]
    return layout, torch.tensor(codes, dtype=torch.int64).reshape(layout.num_codebooks, num_frames)


def test_the_rows_are_those_of_the_description() -> None:
    codes = torch.tensor([[0, 1, 2], [3, 4, 5]])
    flat, delay = CodeLayout((10, 10)), CodeLayout((10, 10), "delay")
    assert flat.to_symbols(codes).tolist() == [0, 13, 1, 14, 2, 15]
    assert delay.to_symbols(codes).tolist() == [0, 20, 1, 13, 2, 14, 20, 15]
    assert (flat.size, flat.pad, delay.size, delay.pad) == (20, None, 21, 20)


def test_one_codebook_is_its_own_row_in_any_order() -> None:
    layout = CodeLayout((7,), "delay")
    assert layout == CodeLayout((7,))
    assert layout.size == 7
    assert layout.pad is None
    assert layout.to_symbols(torch.tensor([[3, 1, 6]])).tolist() == [3, 1, 6]


@given(layouts_and_codes())
def test_codes_come_back(layout_and_codes: tuple[CodeLayout, torch.Tensor]) -> None:
    layout, codes = layout_and_codes
    row = layout.to_symbols(codes)
    assert len(row) == layout.length(codes.shape[1])
    assert layout.whole_frames(len(row)) == codes.shape[1]
    assert layout.to_codes(row).equal(codes)
    assert not len(row) or 0 <= int(row.min()) <= int(row.max()) < layout.size
    assert not len(row) or layout.frames_for(len(row)) == codes.shape[1]


@given(layouts_and_codes(), st.lists(st.integers(0, 5), max_size=20))
def test_pieces_of_any_size_give_the_same(layout_and_codes: tuple[CodeLayout, torch.Tensor], pieces: list[int]) -> None:
    layout, codes = layout_and_codes
    row, writer, reader = layout.to_symbols(codes), SymbolWriter(layout), FrameReader(layout)
    sizes = [*pieces, 10**6]
    written = [writer.take(piece) for piece in _cut(codes, sizes)]
    assert torch.cat([*written, writer.end()]).equal(row)
    assert torch.cat([reader.take(piece) for piece in _cut(row, sizes)], dim=1).equal(codes)


@given(layouts_and_codes(min_frames=1), st.data())
def test_a_row_that_is_cut_gives_its_whole_frames_and_no_more(
    layout_and_codes: tuple[CodeLayout, torch.Tensor], data: st.DataObject
) -> None:
    layout, codes = layout_and_codes
    row = layout.to_symbols(codes)
    length = data.draw(st.integers(0, len(row) - 1))
    whole = layout.to_codes(row[:length], is_cut=True)
    assert whole.equal(codes[:, : whole.shape[1]])
    assert whole.shape[1] == layout.whole_frames(length)
    if length and (layout.pad is not None or length % layout.num_codebooks):
        with pytest.raises(ValueError, match="breaks off"):
            layout.to_codes(row[:length])


@given(layouts_and_codes(min_frames=1), st.data())
def test_a_symbol_that_is_out_of_place_is_named(
    layout_and_codes: tuple[CodeLayout, torch.Tensor], data: st.DataObject
) -> None:
    layout, codes = layout_and_codes
    row = layout.to_symbols(codes)
    at = data.draw(st.integers(0, len(row) - 1))
    row[at] = data.draw(st.sampled_from([-1, layout.size, layout.size + 7]))
    with pytest.raises(ValueError, match=f"at position {at} cannot be .*codebook {at % layout.num_codebooks} has"):
        layout.to_codes(row)


@given(layouts(), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 3)), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_whatever_may_follow_makes_a_row_of_so_many_frames(layout, min_frames, more, random) -> None:  # type: ignore[no-untyped-def]
    max_frames = None if more is None else min_frames + more
    row: list[int] = []
    first_pad = -1
    for _ in range(layout.length(40)):
        following = layout.following(
            torch.tensor([len(row)]), torch.tensor([first_pad]), min_frames=min_frames, max_frames=max_frames
        )
        codebook = int(following.codebook)
        choices: list[int | None] = []
        if following.takes_code:
            first = layout.offsets[codebook]
            choices += range(first, first + layout.codebook_sizes[codebook])
        if following.takes_pad:
            assert layout.pad is not None
            choices.append(layout.pad)
        if following.may_end:
            choices.append(None)
        symbol = random.choice(choices)
        if symbol is None:
            break
        if symbol == layout.pad and codebook == 0 and first_pad < 0:
            first_pad = len(row)
        row.append(symbol)
    else:
        assert max_frames is None
        return
    num_frames = layout.to_codes(torch.tensor(row)).shape[1]
    assert min_frames <= num_frames
    assert max_frames is None or num_frames <= max_frames


def test_wrong_codes_are_named() -> None:
    layout = CodeLayout((4, 8), "delay")
    with pytest.raises(ValueError, match=r"code 4 of codebook 0, frame 1, is outside \[0, 4\)"):
        layout.to_symbols(torch.tensor([[0, 4], [7, 7]]))
    with pytest.raises(ValueError, match=r"shape \[3, 1\], but the layout has 2 codebooks"):
        layout.to_symbols(torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be integers"):
        layout.to_symbols(torch.zeros(2, 1))
    with pytest.raises(ValueError, match="a row of them is"):
        layout.to_codes(torch.zeros(2, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("sizes", "order", "message"),
    [
        ((), "flat", "at least of one"),
        ((4, 0), "flat", "at least one code"),
        ((4, 2.5), "flat", "at least one code"),
        ("44", "flat", "at least of one"),
        ((4, 4), "slanted", "use flat or delay"),
    ],
)
def test_layouts_that_cannot_be_are_refused(sizes: tuple[int, ...], order: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeLayout(sizes, order)  # type: ignore[arg-type]


@given(layouts())
def test_it_travels_as_plain_data(layout: CodeLayout) -> None:
    assert CodeLayout.from_dict(layout.to_dict()) == layout


@pytest.mark.parametrize("stated", [None, [4], {"order": "flat"}, {"codebook_sizes": [4], "order": "flat", "x": 1}])
def test_other_data_is_refused(stated: object) -> None:
    with pytest.raises(ValueError, match="no layout of codes"):
        CodeLayout.from_dict(stated)


def _cut(values: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(values[..., start : start + size])
        start += size
    return pieces
