"""Which records make a unit: every record in exactly one, of about the length that is asked for."""

import itertools
import random

import pyarrow
import pyarrow.parquet
import pytest

from audiollm.data.manifest import Records, open_manifest
from audiollm.data.tokenizing.jobs import plan as plans
from audiollm.data.tokenizing.jobs.plan import Plan, make_plan
from audiollm.data.tokenizing.source import open_corpus
from tests.data.tokenizing.corpora import sound
from tests.data.tokenizing.test_corpus import write_lines


def seconds(record):
    return record["duration"]


@pytest.mark.parametrize("seed", range(3))
def test_units_follow_each_other_hold_every_record_once_and_keep_to_their_length(seed):
    drawn = random.Random(seed)
    records = [{"id": str(n), "audio": "a.wav", "duration": drawn.choice([2.0, 30.0, 400.0])} for n in range(500)]
    units = make_plan(Records(records), shard_hours=0.1).units()
    assert [unit.number for unit in units] == list(range(len(units)))
    assert [index for unit in units for index in range(unit.start, unit.stop)] == list(range(500))
    for unit in units:
        inside = records[unit.start : unit.stop]
        assert sum(map(seconds, inside)) <= 360 or len(inside) == 1
    for unit, following in itertools.pairwise(units):
        assert sum(map(seconds, records[unit.start : following.start + 1])) > 360  # one more would be too many


def test_a_plan_is_the_same_after_writing_and_reading():
    records = [{"id": str(n % 70), "audio": "a.wav", "duration": 30.0} for n in range(100)]
    plan = make_plan(Records(records), shard_hours=0.1)
    assert Plan.from_dict(plan.to_dict()).units() == plan.units()


def test_lengths_come_from_the_record_else_from_the_size_of_the_file_else_from_a_guess(tmp_path):
    (tmp_path / "a.wav").write_bytes(sound(3.0))
    of = plans._seconds_of
    assert of({"audio": "x.wav", "duration": 7}, None) == 7
    assert of({"audio": "x.wav", "num_samples": 32_000, "sample_rate": 16_000}, None) == 2
    assert of({"audio": "a.wav"}, str(tmp_path)) == pytest.approx(3.0, abs=0.01)
    assert of(str(tmp_path / "a.wav"), None) == pytest.approx(3.0, abs=0.01)
    assert of({"messages": [], "audio_seconds": 5.5}, None) == 5.5
    for unknown in (
        {"audio": "x.wav"},
        {"messages": []},
        None,
        {"audio": {"bytes": b"1"}},
        {"audio": "x", "duration": "?"},
    ):
        assert of(unknown, str(tmp_path)) == plans.UNKNOWN_SECONDS


def test_ids_that_come_again_are_found_wherever_they_are_and_each_belongs_to_its_unit(tmp_path):
    ids = ["a", "b", "a", "c", "b", "a", None, None]
    records = [{"id": identifier, "audio": f"{n}.wav", "duration": 1.0} for n, identifier in enumerate(ids)]
    plan = make_plan(open_corpus(write_lines(tmp_path / "clips.jsonl", records)), shard_hours=2.5 / 3600)
    assert plan.repeated == {2: 0, 4: 1, 5: 0}
    assert [unit.repeated for unit in plan.units()] == [{}, {2: 0}, {4: 1, 5: 0}, {}]


def test_records_that_cannot_be_read_have_their_place_too(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_text('{"audio": "a.wav", "duration": 1}\n{broken\n{"audio": "b.wav", "duration": 1}\n')
    (unit,) = make_plan(open_corpus(path), shard_hours=1.0).units()
    assert (unit.start, unit.stop, unit.repeated) == (0, 3, {})


def test_sound_inside_a_table_is_not_read_to_make_a_plan(tmp_path):
    table = pyarrow.table({"id": ["a", "b"], "audio": [{"bytes": sound(), "path": None}] * 2, "duration": [2.0, 2.0]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    rows = open_manifest(tmp_path / "rows.parquet")
    assert rows.without_sound()[0] == {"id": "a", "duration": 2.0}
    assert len(make_plan(rows, shard_hours=3.0 / 3600).units()) == 2
