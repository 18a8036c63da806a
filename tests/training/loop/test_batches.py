from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.training.loop.batches import DataOrder, share_of_process

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
