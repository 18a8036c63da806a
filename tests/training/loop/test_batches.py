from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.training.loop.batches import (
    DataOrder,
    FrameBatches,
    TokenOrder,
    cut_by_frames,
    share_of_process,
    updates_of_epochs,
)

SIZES = {"num_records": st.integers(1, 30), "batch_size": st.integers(1, 17), "seed": st.integers(0, 5)}


@given(**SIZES)
def test_every_epoch_visits_every_record_once(num_records, batch_size, seed):
    order = DataOrder(num_records, batch_size, seed)
    stream = [index for step in range(1, 3 * num_records + 1) for index in order.batch(step)]
    for epoch in range(len(stream) // num_records):
        assert sorted(stream[epoch * num_records : (epoch + 1) * num_records]) == list(range(num_records))


@given(**SIZES, step=st.integers(1, 40))
def test_a_batch_depends_on_its_step_alone(num_records, batch_size, seed, step):
    walked = DataOrder(num_records, batch_size, seed)
    for earlier in range(1, step):
        walked.batch(earlier)
    assert DataOrder(num_records, batch_size, seed).batch(step) == walked.batch(step)


@given(world_size=st.integers(1, 6), size=st.integers(1, 6))
def test_shares_are_equal_disjoint_and_cover_the_batch(world_size, size):
    batch = list(range(world_size * size))
    shares = [share_of_process(batch, process, world_size) for process in range(world_size)]
    assert {len(share) for share in shares} == {size}
    assert sorted(index for share in shares for index in share) == batch


def test_seeds_and_epochs_shuffle_differently():
    first = DataOrder(50, 50, seed=0)
    assert first.batch(1) != first.batch(2)
    assert first.batch(1) != DataOrder(50, 50, seed=1).batch(1)


def test_epochs_are_counted_in_records():
    assert DataOrder(10, 4, seed=0).epoch(5) == 2.0


def test_nothing_to_order_is_refused():
    with pytest.raises(ValueError, match="holds no records"):
        DataOrder(0, 1, seed=0)


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(lengths=LENGTHS, frames=st.integers(50, 200), seed=st.integers(0, 3))
def test_every_epoch_visits_every_clip_once_in_batches_that_fit(lengths, frames, seed):
    batches = FrameBatches(lengths, frames, seed)
    step = 0
    for _ in range(3):
        seen: list[int] = []
        while len(seen) < len(lengths):
            step += 1
            batch = batches.batch(step)
            assert max(lengths[clip] for clip in batch) * len(batch) <= frames
            seen += batch
        assert sorted(seen) == list(range(len(lengths)))
        assert batches.epoch(step) == pytest.approx(round(batches.epoch(step)))
    assert batches.num_updates(3) == step


@given(lengths=LENGTHS, step=st.integers(1, 60), seed=st.integers(0, 3))
def test_a_batch_of_frames_depends_on_its_step_alone(lengths, step, seed):
    walked = FrameBatches(lengths, 60, seed)
    for earlier in range(1, step):
        walked.batch(earlier)
    fresh = FrameBatches(lengths, 60, seed)
    assert fresh.batch(step) == walked.batch(step)
    assert walked.batch(1) == FrameBatches(lengths, 60, seed).batch(1)


def test_epochs_and_seeds_differ():
    lengths = [10] * 40
    first = [FrameBatches(lengths, 100, 0).batch(step) for step in range(1, 5)]
    assert first != [FrameBatches(lengths, 100, 1).batch(step) for step in range(1, 5)]
    assert first != [FrameBatches(lengths, 100, 0).batch(step) for step in range(5, 9)]


def test_clips_of_similar_length_share_a_batch():
    lengths = [10 + 90 * (clip % 2) for clip in range(200)]
    batches = FrameBatches(lengths, 1000, seed=0)
    steps = range(1, batches.num_updates(1) + 1)
    padded = sum(max(lengths[c] for c in batches.batch(step)) * len(batches.batch(step)) for step in steps)
    assert padded < 1.1 * sum(lengths)


def test_a_clip_that_never_fits_is_refused_with_the_settings_to_change():
    with pytest.raises(ValueError, match=r"clip of 70 mel frames.*batches of 60.*frames_per_update.*max_seconds"):
        FrameBatches([20, 70], 60, 0)
    with pytest.raises(ValueError, match="no clips"):
        FrameBatches([], 60, 0)


@given(lengths=LENGTHS, frames=st.integers(1, 200))
def test_passes_cover_a_batch_and_fit_unless_one_clip_alone_does_not(lengths, frames):
    passes = cut_by_frames(range(len(lengths)), lengths, frames)
    assert sorted(clip for one in passes for clip in one) == list(range(len(lengths)))
    for one in passes:
        assert len(one) == 1 or max(lengths[clip] for clip in one) * len(one) <= frames


@pytest.mark.parametrize(
    ("num_epochs", "num_records", "updates", "is_told"),
    [
        (1, 10, 1, False),
        (3, 10, 3, False),
        (1, 70, 2, True),
        (1, 128, 2, False),
        (1, 6400, 100, False),
        (0.5, 10, 1, True),
    ],
)
def test_passes_that_full_updates_add_are_told(num_epochs, num_records, updates, is_told, caplog) -> None:
    assert updates_of_epochs(num_epochs, num_records, 64) == updates
    assert ("begins another pass" in caplog.text) == is_told


@given(lengths=LENGTHS, tokens=st.integers(50, 200), seed=st.integers(0, 3))
def test_updates_of_tokens_visit_every_record_once_an_epoch_and_are_as_full_as_can_be(lengths, tokens, seed):
    order = TokenOrder(lengths, tokens, seed)
    updates = [order.batch(step) for step in range(1, 60)]
    stream = [record for update in updates for record in update]
    for epoch in range(len(stream) // len(lengths)):
        assert sorted(stream[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    for update, following in itertools.pairwise(updates):
        total = sum(lengths[record] for record in update)
        assert total <= tokens
        assert len(update) == len(lengths) or total + lengths[following[0]] > tokens


@given(lengths=LENGTHS, step=st.integers(1, 30))
def test_an_update_of_tokens_depends_on_its_number_alone(lengths, step):
    walked, fresh = TokenOrder(lengths, 60, 0), TokenOrder(lengths, 60, 0)
    for earlier in range(1, step):
        walked.batch(earlier)
    assert fresh.batch(step) == walked.batch(step)
    assert fresh.epoch(step) == walked.epoch(step)


def test_a_record_longer_than_an_update_is_refused():
    with pytest.raises(ValueError, match="a record of 9 tokens exceeds tokens_per_update=8"):
        TokenOrder([3, 9], 8, 0)


def test_so_few_updates_that_they_are_an_oversight_are_told_of(caplog):
    assert updates_of_epochs(1.0, 12, 64) == 1
    assert "num_epochs=1 over 12 records makes 1 update, in which a model learns next to nothing" in caplog.text
    caplog.clear()
    assert updates_of_epochs(1.0, 640, 64) == 10
    assert not caplog.text
