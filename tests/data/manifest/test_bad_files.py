"""Files that are not what they are called, or not whole: named, with what to do, and never read in part in silence."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from audiollm.data.files.parquet import write_parquet as write_records
from audiollm.data.foreign.advice import conversion_advice
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
def test_a_bit_that_has_changed_in_a_shard_of_codes_is_noticed(read, tmp_path):
    """Codes hardly compress: without checksums of pages most damage would be read as other codes."""
    path, draw = tmp_path / "a.parquet", random.Random(0)
    lines = [{"id": str(number), "codes": [draw.randrange(8192) for _ in range(50)]} for number in range(50)]
    content = io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode())
    write_records(content, path, codebook_size=8192, compression="zstd")
    read(path)
    whole = path.read_bytes()
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    for place in range(start + 100, start + column.total_compressed_size, 500):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        refused(read, path, "CRC checksum|thrift")


@READERS
@pytest.mark.parametrize("column", ["text", "when", "took"])
def test_a_value_that_cannot_be_read_is_told_with_its_row(read, column, tmp_path):
    columns = {
        "text": pyarrow.array([b"a", b"\xff"], pyarrow.binary()).view(pyarrow.utf8()),
        "when": pyarrow.array([0, 2**62], pyarrow.timestamp("us")),
        "took": pyarrow.array([0, 2**62], pyarrow.duration("s")),
    }
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], column: columns[column]}), path)
    refused(read, path, rf"a\.parquet:row 1: {column}: cannot be read \(.*\); make the file again, or leave it out")


@READERS
def test_two_columns_of_one_name_are_refused(read, tmp_path):
    path = tmp_path / "a.parquet"
    columns = [pyarrow.array(["a"]), pyarrow.array(["b"])]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["id", "id"]), path)
    refused(read, path, "id")


@READERS
@pytest.mark.parametrize("facts", [b"no json", b"[1]", b'{"audio_tokenizer": 7}', b'{"audio_tokenizer": [7]}', b"\xff"])
def test_metadata_that_say_nothing_are_named(read, facts, tmp_path):
    refused(read, write_parquet(tmp_path / "a.parquet", facts), r"is damaged: its metadata .*; make the file again")


@READERS
def test_archives_say_how_they_become_records(read, tmp_path):
    refused(read, write_tar(tmp_path / "a.tar", samples(1)), "is a tar file; make codes .* with `audiollm tokenize`")
    for content, kind, program in (
        (gzip.compress(b"{}"), "gzip", "gunzip"),
        (bz2.compress(b"{}"), "bzip2", "bunzip2"),
        (lzma.compress(b"{}"), "xz", "unxz"),
        (pyarrow.compress(b"{}", codec="zstd", asbytes=True), "zstd", "unzstd"),
    ):
        (tmp_path / "a.jsonl").write_bytes(content)
        refused(read, tmp_path / "a.jsonl", f"is compressed with {kind}, .* run `{program}` on it")


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


def test_settings_with_commas_are_no_table(tmp_path):
    (tmp_path / "mix.yaml").write_text("sources: [{data: a, weight: 1},{data: b, weight: 2}]\n")
    assert conversion_advice(str(tmp_path / "mix.yaml")) == ""


@pytest.mark.parametrize("opened", [open_manifest, open_shards, open_corpus])
@pytest.mark.parametrize("source", ["a.jsonl", ".", "*.jsonl"])
def test_a_split_of_files_is_refused(opened, source, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a"}))
    with pytest.raises(ValueError, match=r"split=dev: .* is no data set with splits"):
        opened(str(tmp_path / source), split="dev")
