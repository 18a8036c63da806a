"""Shards: every record in exactly one block, read by itself, whatever the format."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.streaming import shards as shards_module
from audiollm.data.streaming.counting import NumRecords, count_records, sample
from audiollm.data.streaming.shards import Shard, open_shards


def lines(count: int, blank: str = "") -> str:
    return "".join(
        json.dumps({"id": f"r{number}", "text": "x" * (number % 23)}) + "\n" + blank for number in range(count)
    )


def ids(shard: Shard) -> list[str]:
    blocks = [shard.block(number) for number in range(shard.num_blocks)]
    return [block.record(row)["id"] for block in blocks for row in range(len(block))]


def refuse(error: RecordError) -> None:
    raise error


@pytest.fixture(params=[16, 50, 64, 10**6])
def block_bytes(request, monkeypatch) -> int:
    monkeypatch.setattr(shards_module, "BLOCK_BYTES", request.param)
    return request.param


@pytest.mark.parametrize("blank", ["", "\n", "   \n\n"])
def test_each_line_is_in_one_block_however_blocks_are_cut(tmp_path: Path, block_bytes: int, blank: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(lines(40, blank))
    (shard,) = open_shards(str(file))
    assert ids(shard) == [f"r{number}" for number in range(40)]


def test_the_last_line_needs_no_end_and_a_place_names_its_byte(tmp_path: Path, block_bytes: int) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(lines(9).rstrip("\n"))
    (shard,) = open_shards(str(file))
    assert len(ids(shard)) == 9
    last = next(block for block in map(shard.block, reversed(range(shard.num_blocks))) if len(block))
    offset = int(last.where(len(last) - 1).rpartition("byte ")[2])
    assert json.loads(file.read_bytes()[offset:])["id"] == "r8"


def test_row_groups_are_blocks_and_are_read_only_when_a_record_is(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [f"r{n}" for n in range(10)]}), file, row_group_size=4)
    (shard,) = open_shards(str(file))
    assert [len(shard.block(number)) for number in range(shard.num_blocks)] == [4, 4, 2]
    assert ids(shard) == [f"r{number}" for number in range(10)]
    assert shard.block(1).where(2) == f"{file}:row 6"


def test_a_folder_a_pattern_a_list_and_a_json_array_are_sources(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(lines(3))
    (tmp_path / "notes.txt").write_text("no records")
    for source in (str(tmp_path), str(tmp_path / "*.jsonl")):
        assert [Path(shard.name).name for shard in open_shards(source)] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "array.json").write_text(json.dumps([{"id": "r0"}, {"id": "r1"}]))
    (shard,) = open_shards(str(tmp_path / "array.json"))
    assert ids(shard) == ["r0", "r1"]
    (shard,) = open_shards([{"id": f"r{number}"} for number in range(2500)])
    assert len(ids(shard)) == 2500


def test_a_data_set_is_read_where_it_lies(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"id": ["a", "b", "c"]}).save_to_disk(tmp_path / "saved")
    (shard,) = open_shards(str(tmp_path / "saved"))
    assert ids(shard) == ["a", "b", "c"]


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nothing\.jsonl: no such file"):
        open_shards(str(tmp_path / "nothing.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds neither a saved data set"):
        open_shards(str(tmp_path / "empty"))
    (tmp_path / "a.jsonl").write_text(lines(1))
    with pytest.raises(ValueError, match=r"split=dev: .* no data set with splits"):
        open_shards(str(tmp_path / "a.jsonl"), split="dev")
    (tmp_path / "b.jsonl.gz").write_bytes(b"\x1f\x8b rest")
    with pytest.raises(RecordError, match="gunzip"):
        _ = open_shards(str(tmp_path / "b.jsonl.gz"))[0].num_blocks


@pytest.mark.parametrize("cut", [10, -30])
def test_a_parquet_file_that_is_cut_off_is_named(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [f"r{n}" for n in range(1000)]}), file)
    file.write_bytes(file.read_bytes()[:cut])
    (shard,) = open_shards(str(file))
    with pytest.raises(RecordError, match=r"a\.parquet: is damaged"):
        _ = shard.num_blocks


def test_a_damaged_row_group_is_named_with_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"some text {n * 7919}" for n in range(3000)]})
    pyarrow.parquet.write_table(table, file, row_group_size=1000, use_dictionary=False, compression="zstd")
    content = bytearray(file.read_bytes())
    middle = pyarrow.parquet.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    content[middle : middle + 200] = bytes(200)
    file.write_bytes(content)
    (shard,) = open_shards(str(file))
    assert shard.block(0).record(3)["text"]
    assert shard.block(2).record(3)["text"]
    with pytest.raises(RecordError, match=r"a\.parquet:row 1000 and those after it: is damaged"):
        shard.block(1).record(0)


def test_counts_are_exact_where_all_is_looked_at_and_near_where_not(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.jsonl").write_text(lines(500))
    pyarrow.parquet.write_table(pyarrow.table({"id": [f"r{n}" for n in range(70)]}), tmp_path / "b.parquet")
    shards = open_shards(str(tmp_path))
    counted = count_records(shards, refuse)
    assert (counted.count, counted.is_exact) == (570, True)
    monkeypatch.setattr(shards_module, "BLOCK_BYTES", 100)
    counted = count_records(open_shards(str(tmp_path)), refuse)
    assert not counted.is_exact
    assert str(counted).startswith("about ")
    assert 400 < counted.count < 800


def test_a_small_source_is_sampled_whole_and_a_large_one_all_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards_module, "BLOCK_BYTES", 1000)
    (tmp_path / "a.jsonl").write_text(lines(2000))
    shards = open_shards(str(tmp_path))
    counted = count_records(shards, refuse)
    whole = list(sample(shards, NumRecords(2000, is_exact=True), 2000, refuse))
    assert len(set(whole)) == 2000
    some = list(sample(shards, counted, 64, refuse))
    assert 32 <= len(set(some)) == len(some) <= 64
    blocks = [block for _, block, _ in some]
    assert min(blocks) == 0
    assert max(blocks) > 0.9 * shards[0].num_blocks


def test_a_folder_that_recordings_start_from_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(2))
    with pytest.raises(RecordError, match="is no folder: base_dir is where"):
        open_shards(tmp_path / "a.jsonl", base_dir=tmp_path / "lost")
