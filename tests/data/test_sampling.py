"""Choices that never change: what runs and corpora were made with."""

import itertools

import pytest

from audiollm.data.sampling import choose, draw, draw_share, seed_of, share_of, spread


def test_what_is_drawn_is_the_same_everywhere_and_for_ever():
    assert [draw("speed", f"0 slt {number}", 4) for number in range(8)] == [2, 3, 0, 2, 2, 1, 3, 0]
    assert draw_share("voice", "0 clip-1") == pytest.approx(0.44591119117103517, abs=1e-9)
    assert seed_of(0, 3, "clip-1", "task") == 8997940147950909798
    assert share_of(0, 3, "clip-1", "task") == 8997940147950909798 / 2**64


def test_draws_are_even_and_differ_by_name_and_key():
    counts = [0] * 5
    for number in range(5000):
        counts[draw("name", str(number), 5)] += 1
    assert max(counts) - min(counts) < 200
    assert [draw("a", str(key), 100) for key in range(9)] != [draw("b", str(key), 100) for key in range(9)]
    assert seed_of("a", "bc") != seed_of("ab", "c")


def test_a_wording_follows_from_its_key():
    texts = ("What is said?", "Transcribe this.", "Write it down.")
    assert choose("transcribe", texts, None).id == "transcribe/0"
    chosen = {choose("transcribe", texts, str(key)).text for key in range(30)}
    assert chosen == set(texts)


@pytest.mark.parametrize(("num_records", "num_items"), [(10, 3), (3, 3), (2, 5), (0, 2), (7, 0)])
def test_spread_items_keep_their_order_and_distances(num_records, num_items):
    items = spread(range(num_records), num_items)
    assert len(items) == min(num_records, num_items)
    steps = [second - first for first, second in itertools.pairwise(items)]
    assert not steps or max(steps) - min(steps) <= 1
