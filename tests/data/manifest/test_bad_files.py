"""Files that are not what they are called, or not whole: named, with what to do, and never read in part in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from audiollm.data.manifest import RecordError, open_manifest
from audiollm.data.streaming.shards import open_shards
from audiollm.data.tokenizing.source import open_corpus
from tests.data.tokenizing.corpora import samples, write_tar


def write_parquet(path: Path, facts: bytes | None = None, num_rows: int = 20) -> Path:
    table = pyarrow.table({"id": [str(number) for number in range(num_rows)]})
    if facts is not None:
        table = table.replace_schema_metadata({b"audiollm": facts})
    pyarrow.parquet.write_table(table, path, row_group_size=5, use_dictionary=False)
    return path


def read_all(path: Path) -> None:
    """Reads a source as a list of records is read, makers of codes included."""
    manifest = open_manifest(path)
    list(manifest.code_makers())
    list(manifest)


def stream_all(path: Path) -> None:
    """The same as a source of a mixture."""
    for shard in open_shards(path):
        _ = shard.code_maker
        for number in range(shard.num_blocks):
            block = shard.block(number)
            for row in range(len(block)):
                block.record(row)


def refused(read, path: Path, reason: str) -> None:
    with pytest.raises(RecordError, match=reason) as raised:
        read(path)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)


READERS = pytest.mark.parametrize("read", [read_all, stream_all])


@READERS
def test_a_parquet_file_without_its_beginning_is_no_text(read, tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[30:])
    refused(read, path, "is no parquet file, or has lost its beginning; make the file again")


@READERS
def test_a_damaged_row_group_is_told_with_its_cause(read, tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    start = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    refused(read, path, "deserialize thrift")


@READERS
@pytest.mark.parametrize("facts", [b"no json", b"[1]", b'{"audio_tokenizer": 7}', b'{"audio_tokenizer": [7]}', b"\xff"])
def test_metadata_that_say_nothing_are_named(read, facts, tmp_path):
    refused(read, write_parquet(tmp_path / "a.parquet", facts), r"is damaged: its metadata .*; make the file again")


@READERS
def test_archives_say_how_they_become_records(read, tmp_path):
    refused(read, write_tar(tmp_path / "a.tar", samples(1)), "is a tar file; make codes .* with `audiollm tokenize`")
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b"{}"))
    refused(read, tmp_path / "a.jsonl", "is compressed with gzip, .* run `gunzip` on it")


@READERS
def test_files_of_a_folder_that_are_left_alone_are_said(read, tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "README.md").write_text("about it")
    read(tmp_path)
    assert caplog.text == ""
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "c.tar").write_bytes(b"")
    read(tmp_path)
    assert "2 files are not read, such as b.jsonl.gz: only .jsonl, .ndjson, .parquet are" in caplog.text


@READERS
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"num_shards": "many"}'])
def test_a_job_of_codes_that_cannot_be_read_is_named(read, content, tmp_path):
    write_parquet(tmp_path / "codes-00000-of-00001.parquet")
    (tmp_path / ".job").mkdir()
    (tmp_path / ".job" / "job.json").write_text(content)
    with pytest.raises(RecordError, match=r"job\.json: is damaged .*: tokenize again"):
        read(tmp_path)


@READERS
def test_a_pattern_that_matches_nothing_is_no_name_on_the_hub(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordError, match=r"shards/\*: no such file or folder"):
        read("shards/*")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("change", ["grows", "shrinks", "goes"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path, name, change):
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_text("".join(json.dumps({"id": number}) + "\n" for number in range(20)))
    else:
        write_parquet(path)
    (shard,) = open_shards(path)
    assert shard.block(0).record(0)
    _ = shard.identity
    if change == "goes":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content + b"\n" if change == "grows" else content[:-8])
    reason = "cannot be opened: No such file" if change == "goes" else r"has changed while it was read \(from [\d,]+ to"
    with pytest.raises(RecordError, match=rf"{name}: {reason}"):
        shard.block(0).record(0)


@READERS
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", json.dumps({"id": "a"}).encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("a.yaml", b"sources: [{data: a.jsonl}]", "is YAML, and no file of records"),
    ],
)
def test_text_that_holds_no_records_is_named_for_what_it_is(read, name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(read, tmp_path / name, reason)


@pytest.mark.parametrize("opened", [open_manifest, open_shards, open_corpus])
@pytest.mark.parametrize("source", ["a.jsonl", ".", "*.jsonl"])
def test_a_split_of_files_is_refused(opened, source, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a"}))
    with pytest.raises(ValueError, match=r"split=dev: .* is no data set with splits"):
        opened(str(tmp_path / source), split="dev")
