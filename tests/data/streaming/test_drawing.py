"""Draws from several sources: by weight, the same everywhere, and the same after any stop."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.streaming.drawing import Draws, MixtureOrder, RanOutError
from audiollm.data.streaming.shards import open_shards
from audiollm.data.streaming.shuffling import ShuffledSource

SIZES = {"a": 50, "b": 7, "c": 20}


def refuse(error: RecordError) -> None:
    raise error


def order(weights=(3, 1, 1), batch: int = 8, epochs=(None, None, None), seed: int = 0) -> MixtureOrder:
    sources = [
        ShuffledSource(
            open_shards([{"id": f"{name}{row}"} for row in range(size)]),
            number=number, seed=seed, window=6, epochs=epochs[number], on_damage=refuse,
        )
        for number, (name, size) in enumerate(SIZES.items())
    ]  # fmt: skip
    draws = Draws(sources, list(SIZES), weights, seed=seed)
    return MixtureOrder(draws, global_batch_size=batch, pass_size=sum(SIZES.values()))


def test_shares_follow_the_weights() -> None:
    drawn = (
        Counter(place.source for step in range(1, 501) for place in order_.batch(step)) if (order_ := order()) else {}
    )
    assert [drawn[number] / 4000 for number in range(3)] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)


def test_the_same_seed_gives_the_same_updates_and_another_one_others() -> None:
    first, again, other = order(), order(), order(seed=1)
    batches = [first.batch(step) for step in range(1, 20)]
    assert batches == [again.batch(step) for step in range(1, 20)]
    assert batches != [other.batch(step) for step in range(1, 20)]


@pytest.mark.parametrize("step", [1, 2, 9, 30])
def test_a_checkpoint_goes_on_behind_the_update_made_though_others_were_read(step: int) -> None:
    straight = order()
    expected = [straight.batch(number) for number in range(1, 41)]
    stopped = order()
    for number in range(1, step + 2):  # one ahead, as it is read while the model computes
        stopped.batch(number)
        stopped.made(number - 1)
    stopped.made(step)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = order()
    resumed.load_state_dict(state)
    assert [resumed.batch(number) for number in range(step + 1, 41)] == expected[step:]


def test_where_a_source_has_run_out_the_others_go_on(caplog) -> None:
    mixed = order(epochs=(1, 1, None))
    places = [place for step in range(1, 101) for place in mixed.batch(step)]
    assert Counter(place.source for place in places)[0] == SIZES["a"]
    assert {place.source for place in places[-100:]} == {2}
    assert sorted(record.getMessage().split()[0] for record in caplog.records) == ["a", "b"]


def test_a_run_that_needs_more_than_there_is_ends_with_a_message() -> None:
    mixed = order(epochs=(1, 1, 1))
    total = sum(SIZES.values())
    sizes = [len(mixed.batch(step)) for step in range(1, total // 8 + 2)]
    assert sizes == [8] * (total // 8) + [total % 8]
    with pytest.raises(RanOutError, match="run out before update 11: raise their epochs or tokens"):
        mixed.batch(total // 8 + 2)


def test_that_a_source_has_run_out_is_part_of_the_position() -> None:
    straight, stopped, resumed = (order(epochs=(1, 1, None)) for _ in range(3))
    expected = [straight.batch(step) for step in range(1, 31)]
    for step in range(1, 21):
        stopped.batch(step)
        stopped.made(step)
    resumed.load_state_dict(stopped.state_dict())
    assert [resumed.batch(step) for step in range(21, 31)] == expected[20:]


def test_updates_come_in_their_order() -> None:
    mixed = order()
    mixed.batch(1)
    with pytest.raises(ValueError, match="update 3 was asked for after update 1"):
        mixed.batch(3)
