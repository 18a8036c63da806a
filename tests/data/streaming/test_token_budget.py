"""Updates of a number of tokens: full, the same however they are read, and the same after any stop."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.manifest import RecordError
from audiollm.data.streaming.drawing import Draws, RanOutError
from audiollm.data.streaming.shards import open_shards
from audiollm.data.streaming.shuffling import Place, ShuffledSource
from audiollm.data.streaming.token_budget import LEFT_OUT, Round, TokenBudgetOrder

SIZES = {"a": 50, "b": 7, "c": 20}
BUDGET = 100


def refuse(error: RecordError) -> None:
    raise error


def length(place: Place) -> int:
    """Tokens of a record; every eleventh cannot be used."""
    number = 31 * place.source + 7 * place.row + place.epoch
    return LEFT_OUT if number % 11 == 0 else 5 + number * number % 96


class Reader:
    """Draws and agrees on rounds as a run does, some of them ahead."""

    def __init__(self, round_size: int = 10, ahead: int = 0, epochs: int | None = None, budget: int = BUDGET) -> None:
        sources = [
            ShuffledSource(
                open_shards([{"id": f"{name}{row}"} for row in range(size)]),
                number=number, seed=0, window=6, epochs=epochs, on_damage=refuse,
            )
            for number, (name, size) in enumerate(SIZES.items())
        ]  # fmt: skip
        draws = Draws(sources, list(SIZES), [3, 1, 1], seed=0)
        self.order = TokenBudgetOrder(
            draws, tokens_per_update=budget, round_size=round_size, pass_size=sum(SIZES.values())
        )
        self._ahead, self._rounds = ahead, list[Round]()
        self.places: dict[int, Place] = {}

    def update(self, step: int) -> list[Place]:
        while (numbers := self.order.batch(step)) is None:
            while len(self._rounds) <= self._ahead:
                self._rounds.append(self.order.draw_round())
            agreed = self._rounds.pop(0)
            self.places |= {agreed.first + index: place for index, place in enumerate(agreed.places)}
            self.order.add_lengths([length(place) for place in agreed.places])
        return [self.places[number] for number in numbers]

    def updates(self, first: int, last: int) -> list[list[Place]]:
        found = []
        for step in range(first, last + 1):
            found.append(self.update(step))
            self.order.made(step)
        return found


EXPECTED = Reader().updates(1, 40)


def test_updates_hold_what_has_room_and_the_next_record_has_none() -> None:
    tokens = [sum(map(length, places)) for places in EXPECTED]
    assert all(0 < count <= BUDGET for count in tokens)
    for count, following in zip(tokens, EXPECTED[1:], strict=False):
        assert count + length(following[0]) > BUDGET


def test_no_draw_is_left_out_and_none_comes_twice() -> None:
    drawn = [place for places in EXPECTED for place in places]
    assert max(Counter(drawn).values()) == 1
    draws = Reader().order._drawing
    assert drawn == [draws.next() for _ in drawn]


@given(round_size=st.integers(1, 60), ahead=st.integers(0, 3))
def test_neither_the_size_of_rounds_nor_reading_ahead_changes_updates(round_size: int, ahead: int) -> None:
    assert Reader(round_size, ahead).updates(1, 20) == EXPECTED[:20]


@given(stop=st.integers(0, 30), round_size=st.integers(1, 40), ahead=st.integers(0, 2), other=st.integers(1, 40))
def test_a_checkpoint_goes_on_behind_the_update_made(stop: int, round_size: int, ahead: int, other: int) -> None:
    stopped = Reader(round_size, ahead)
    stopped.updates(1, stop)
    stopped.update(stop + 1)  # cut, and not made
    state = json.loads(json.dumps(stopped.order.state_dict()))
    resumed = Reader(other)
    resumed.order.load_state_dict(state)
    assert resumed.updates(stop + 1, 35) == EXPECTED[stop:35]
    again = Reader()
    again.order.load_state_dict(json.loads(json.dumps(resumed.order.state_dict())))
    assert again.updates(36, 40) == EXPECTED[35:]


def test_a_run_that_needs_more_than_there_is_ends_with_a_message() -> None:
    reader = Reader(epochs=1)
    places: list[Place] = []

    def go_on() -> None:
        for step in range(1, 1000):
            places.extend(reader.update(step))
            reader.order.made(step)

    with pytest.raises(RanOutError, match=r"run out before update \d+: raise their epochs or tokens"):
        go_on()
    assert len(places) == len(set(places)) == sum(SIZES.values())


def test_epochs_are_counted_in_draws() -> None:
    reader = Reader()
    num_draws = sum(map(len, reader.updates(1, 10)))
    assert reader.order.epoch(10) == num_draws / sum(SIZES.values())


def test_what_memory_holds_of_the_past_stays_small() -> None:
    reader = Reader()
    reader.updates(1, 200)
    assert len(reader.order._starts) < 5
    assert len(reader.order._ends) == 1


def test_updates_come_in_their_order_and_longer_records_are_refused() -> None:
    with pytest.raises(ValueError, match="update 3 was asked for after update 0"):
        Reader().order.batch(3)
    with pytest.raises(ValueError, match="a record of 120 tokens exceeds tokens_per_update=100"):
        Reader().order.add_lengths([3, 120])
