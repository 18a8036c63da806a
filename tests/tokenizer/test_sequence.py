"""A tokenizer of several codebooks as one of a single codebook."""

import pytest
import torch

from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.sequence import SequenceTokenizer, as_one_row, layout_of
from tests.toy_codec import ToyCodec, sound

ROWS = [(2, None, "flat"), (2, None, "delay"), (8, None, "flat"), (8, None, "delay"), (8, 3, "delay"), (8, 1, "flat")]


def test_one_codebook_needs_no_wrapper() -> None:
    codec = ToyCodec(1)
    assert as_one_row(codec) is codec
    assert as_one_row(codec, 1, "delay") is codec
    assert layout_of(codec) is None


@pytest.mark.parametrize(("num_codebooks", "used", "order"), ROWS)
def test_symbols_are_the_codes_in_one_row(num_codebooks, used, order) -> None:
    codec = ToyCodec(num_codebooks)
    row = as_one_row(codec, used, order)
    layout = CodeLayout((8,) * (used or num_codebooks), order)
    clips = [sound(0.95, 1), sound(2.5, 2), torch.zeros(0), sound(0.01, 3)]
    codes, symbols = codec.encode(clips, 16000), row.encode(clips, 16000)
    assert (row.num_codebooks, row.codebook_size, row.codebook_sizes) == (1, layout.size, (layout.size,))
    assert row.frame_rate == codec.frame_rate * layout.num_codebooks
    assert row.bits_per_second == codec.frame_rate * 3 * layout.num_codebooks
    for index, clip in enumerate(clips):
        assert layout.to_codes(symbols[index][0]).equal(codes[index][: layout.num_codebooks])
        assert row.num_frames(len(clip), 16000) == symbols[index].shape[1]


@pytest.mark.parametrize(("num_codebooks", "used", "order"), ROWS)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_streams_equal_the_whole(num_codebooks, used, order, size) -> None:
    row = as_one_row(ToyCodec(num_codebooks), used, order)
    waveform = sound(1.5)
    symbols = row.encode([waveform], 16000)[0][0]
    assert torch.cat(list(row.encode_stream(waveform.split(1000), 16000))).equal(symbols)
    assert torch.cat(list(row.decode_stream(symbols.split(size)))).equal(row.decode(symbols)[0])
    assert row.can_decode_stream
    assert row.can_encode_stream


@pytest.mark.parametrize("order", ["flat", "delay"])
def test_the_first_codebooks_are_a_coarser_sound(order) -> None:
    codec, waveform = ToyCodec(8), sound(2)
    whole, first = as_one_row(codec, None, order), as_one_row(codec, 2, order)
    level = waveform.abs().reshape(-1, 1600).mean(dim=1).repeat_interleave(1600)
    fine, coarse = (one.decode(one.encode([waveform], 16000))[0] for one in (whole, first))
    assert (fine - level).abs().max() < 1e-4 < (coarse - level).abs().max() < 1 / 64


@pytest.mark.parametrize("order", ["flat", "delay"])
def test_a_row_that_breaks_off_gives_its_whole_frames(order) -> None:
    row = as_one_row(ToyCodec(2), None, order)
    symbols = row.encode([sound(1)], 16000)[0]
    short = row.decode(symbols[:, :-3])[0]
    whole = row.decode(symbols)[0]
    assert 0 < len(short) < len(whole)
    assert short.equal(whole[: len(short)])
    batch = row.decode(Codes.from_list([symbols, symbols[:, :2], symbols]))
    assert batch[0].equal(whole)
    assert batch[2].equal(whole)
    assert len(batch[1]) in (0, 1600)


def test_who_cannot_decode_says_why() -> None:
    silent = as_one_row(ToyCodec(8, decodes=False))
    assert not silent.can_decode
    assert not silent.can_decode_stream
    with pytest.raises(ValueError, match="ToyCodec has no waveform decoder"):
        silent.decode(torch.zeros(8, dtype=torch.int64))
    part = as_one_row(ToyCodec(8, first=False), 4)
    assert as_one_row(ToyCodec(8, first=False)).can_decode
    assert not part.can_decode
    with pytest.raises(ValueError, match="needs all 8 codebooks, and 4 are in use"):
        next(part.decode_stream([]))


def test_the_fingerprint_tells_tokenizers_and_layouts_apart() -> None:
    codec = ToyCodec(8)
    rows = [as_one_row(codec), as_one_row(codec, None, "delay"), as_one_row(codec, 4), as_one_row(ToyCodec(8, seed=1))]
    assert len({codec.fingerprint(), *(row.fingerprint() for row in rows)}) == 5
    assert as_one_row(ToyCodec(8)).fingerprint() == rows[0].fingerprint()


@pytest.mark.parametrize("codebooks", [0, 9, -1])
def test_codebooks_that_are_not_there_are_refused(codebooks) -> None:
    with pytest.raises(ValueError, match=rf"codebooks={codebooks}: ToyCodec has 8 codebooks; use 1 to 8"):
        as_one_row(ToyCodec(8), codebooks)
    with pytest.raises(ValueError, match="has one codebook"):
        as_one_row(ToyCodec(1), 2)


def test_a_layout_of_another_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ToyCodec has codebooks of \[8, 8\] codes, and the layout is one of 2 x 9"):
        SequenceTokenizer(ToyCodec(2), CodeLayout((9, 9)))


def test_symbols_of_another_place_are_refused() -> None:
    row = as_one_row(ToyCodec(2))
    with pytest.raises(ValueError, match=r"symbol 8 at position 0 cannot be .*codebook 0 has 0 to 7"):
        row.decode(torch.tensor([8, 0]))
