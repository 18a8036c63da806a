"""The order of a source: every record once an epoch, shuffled within bounds, and the same after any stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.streaming import shards as shards_module
from audiollm.data.streaming.shards import open_shards
from audiollm.data.streaming.shuffling import Place, ShuffledSource

FILES = {"a": 37, "b": 5, "empty": 0, "c": 23}
NUM_RECORDS = sum(FILES.values())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(shards_module, "BLOCK_BYTES", 120)
    for name, count in FILES.items():
        records = [{"id": f"{name}{number}"} for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def refuse(error: RecordError) -> None:
    raise error


def opened(folder: Path, **settings) -> ShuffledSource:
    return ShuffledSource(open_shards(str(folder)), **{"window": 11, "seed": 3, "on_damage": refuse} | settings)


def drawn(source: ShuffledSource, count: int) -> list[str]:
    places = [source.next() for _ in range(count)]
    return [source.record(place)[0]["id"] for place in places if place is not None]


@pytest.mark.parametrize("window", [1, 7, 11, NUM_RECORDS, 1000])
def test_each_epoch_has_every_record_once_in_an_order_of_its_own(folder: Path, window: int) -> None:
    source = opened(folder, window=window)
    epochs = [drawn(source, NUM_RECORDS) for _ in range(3)]
    everything = sorted(f"{name}{number}" for name, count in FILES.items() for number in range(count))
    assert [sorted(epoch) for epoch in epochs] == [everything] * 3
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("stop", [0, 1, 10, 11, 12, 22, NUM_RECORDS - 1, NUM_RECORDS, NUM_RECORDS + 1, 100, 131])
def test_a_position_says_all_that_is_needed_to_go_on(folder: Path, stop: int) -> None:
    straight = opened(folder)
    expected = drawn(straight, 200)
    stopped = opened(folder)
    drawn(stopped, stop)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = opened(folder)
    resumed.load_state_dict(state)
    assert drawn(resumed, 200 - stop) == expected[stop:]
    assert resumed.state_dict() == straight.state_dict()


def test_going_on_reads_no_more_than_the_window(folder: Path, monkeypatch) -> None:
    source = opened(folder, window=5)
    drawn(source, 32)
    read: list[int] = []
    resumed = opened(folder, window=5)
    resumed.load_state_dict(source.state_dict())
    original = shards_module._JsonLinesContent.block
    monkeypatch.setattr(
        shards_module._JsonLinesContent, "block", lambda self, number: read.append(number) or original(self, number)
    )
    drawn(resumed, 1)
    num_blocks = sum(shard.num_blocks for shard in resumed.shards)
    assert 0 < len(read) <= 3 < num_blocks


def test_another_seed_or_number_is_another_order(folder: Path) -> None:
    orders = [drawn(opened(folder, **change), 30) for change in ({}, {"seed": 4}, {"number": 1})]
    assert len(set(map(tuple, orders))) == 3
    assert orders[0] == drawn(opened(folder), 30)


def test_blocks_behind_the_window_are_let_go(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards_module, "BLOCK_BYTES", 40)
    source = opened(folder, window=5)
    most = 0
    for _ in range(3 * NUM_RECORDS):
        source.next()
        most = max(most, len(source._blocks._blocks) + len(source._blocks._before))
    assert most <= 10 < sum(shard.num_blocks for shard in source.shards)


def test_a_source_runs_out_after_its_epochs_or_records(folder: Path) -> None:
    source = opened(folder, epochs=2)
    assert len(drawn(source, 1000)) == 2 * NUM_RECORDS
    assert source.has_run_out
    assert source.next() is None
    limited = opened(folder)
    limited.max_records = 9
    assert len(drawn(limited, 1000)) == 9
    assert limited.next() is None


def test_an_empty_source_is_refused_and_does_not_go_round_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(RecordError, match=r"a\.jsonl: holds no records"):
        opened(tmp_path).next()


def test_a_damaged_file_stops_or_is_left_out(folder: Path) -> None:
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RecordError, match=r"broken\.parquet: is damaged"):
        drawn(opened(folder), 2 * NUM_RECORDS)
    damaged: list[RecordError] = []
    source = opened(folder, on_damage=damaged.append)
    assert len(set(drawn(source, NUM_RECORDS))) == NUM_RECORDS
    assert {Path(error.where).name for error in damaged} == {"broken.parquet"}


def test_places_are_plain_numbers(folder: Path) -> None:
    place = opened(folder, number=2).next()
    assert place is not None
    assert place == Place(2, 0, *place[2:])
    assert all(type(value) is int for value in place)
