"""Ids that come twice in tar files: no clip is lost for it, and no two of the codes are called the same."""

import json
import random

import pyarrow.parquet
import pytest

from audiollm.data.files.lock import locked_file
from audiollm.data.files.parquet import read_facts
from audiollm.data.tokenizing.jobs import repeated_ids
from audiollm.data.tokenizing.source import open_corpus
from tests.data.tokenizing.corpora import samples, sound, write_tar
from tests.data.tokenizing.jobs import killed_job
from tests.data.tokenizing.jobs.test_job import rows, run
from tests.data.tokenizing.test_corpus import read_lines


def member(index, identifier):
    """A sample whose JSON brings an id."""
    return [(f"{index}.wav", sound(seed=index)), (f"{index}.json", json.dumps({"id": identifier}).encode())]


@pytest.fixture
def tars(tmp_path):
    """Three files that have "y" in common; "x" is twice in the first."""
    paths = [tmp_path / name for name in ("a.tar", "b.tar", "c.tar")]
    write_tar(paths[0], [*member(0, "x"), *member(1, "y"), *member(2, "x")])
    write_tar(paths[1], [*member(3, "y"), *member(4, "z")])
    write_tar(paths[2], [*member(5, "y"), *member(6, "ünï 🎵")])
    return [str(path) for path in paths]


EXPECTED = ["x", "y", "b.tar/y", "z", "c.tar/y", "ünï 🎵"]


def codes_by_seed(codes):
    """The codes of all clips, whatever they are called."""
    return sorted(str(row["codes"]) for row in rows(codes))


def test_clips_of_another_file_get_an_id_of_their_own_and_those_of_the_same_file_are_listed(tars, tmp_path, caplog):
    codes = tmp_path / "codes"
    report = run(tars, codes, skip_bad=True)
    assert (report.records, report.skipped, report.renamed) == (6, 1, 2)
    assert [row["id"] for row in rows(codes)] == EXPECTED
    assert "2 clips have an id that another tar file has too; it now begins with that file, as in b.tar/y for y" in (
        caplog.text
    )
    (entry,) = read_lines(tmp_path / "codes.rejected.jsonl")
    assert "its id is taken by" in entry["reason"]
    for path in codes.glob("*.parquet"):
        assert read_facts(path)["records"] == pyarrow.parquet.read_metadata(path).num_rows
        assert str(pyarrow.parquet.read_schema(path).field("codes").type) == "list<element: int16>"


def test_going_on_with_a_finished_job_renames_nothing_again(tars, tmp_path):
    codes = tmp_path / "codes"
    run(tars, codes, skip_bad=True)
    before = {path.name: path.read_bytes() for path in codes.glob("*.parquet")}
    assert run(tars, codes, skip_bad=True).renamed == 0
    assert {path.name: path.read_bytes() for path in codes.glob("*.parquet")} == before


def test_a_call_that_is_killed_between_two_files_is_gone_on_with(tars, tmp_path, monkeypatch):
    codes, write = tmp_path / "codes", repeated_ids._write_ids
    written = []

    def killed(path, ids):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, ids)

    monkeypatch.setattr(repeated_ids, "_write_ids", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tars, codes, skip_bad=True)
    monkeypatch.undo()
    assert run(tars, codes, skip_bad=True).renamed == 1
    assert [row["id"] for row in rows(codes)] == EXPECTED


def test_parts_of_a_job_rename_once_all_are_there(tars, tmp_path):
    codes = tmp_path / "codes"
    reports = [run(tars, codes, skip_bad=True, num_shards=2, shard=part) for part in (0, 1)]
    assert [report.renamed for report in reports] == [0, 2]
    assert [row["id"] for row in rows(codes)] == EXPECTED


def test_one_of_several_calls_renames(tars, tmp_path, caplog):
    codes = tmp_path / "codes"
    (codes / ".job").mkdir(parents=True)
    caplog.set_level("INFO")
    with locked_file(codes / ".job" / "ids"):
        assert run(tars, codes, skip_bad=True).renamed == 0
    assert "another call looks for ids" in caplog.text
    assert run(tars, codes, skip_bad=True).renamed == 2


def test_an_id_that_is_taken_as_well_is_not_taken_again(tmp_path):
    write_tar(tmp_path / "a.tar", [*member(0, "y"), *member(1, "b.tar/y")])
    write_tar(tmp_path / "b.tar", [*member(2, "y"), *member(3, "b.tar/y")])
    run([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")], tmp_path / "codes")
    ids = [row["id"] for row in rows(tmp_path / "codes")]
    assert len(set(ids)) == 4
    assert ids[:2] == ["y", "b.tar/y"]


def test_numbers_as_ids_become_texts_where_one_is_renamed(tmp_path):
    write_tar(tmp_path / "a.tar", member(0, 7))
    write_tar(tmp_path / "b.tar", member(1, 7))
    run([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")], tmp_path / "codes")
    assert [str(row["id"]) for row in rows(tmp_path / "codes")] == ["7", "b.tar/7"]


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "000.tar", samples(2, first=2 * number))
    write_tar(tmp_path / "one" / "001.tar", samples(1, first=9))
    report = run(str(tmp_path / "*" / "*.tar"), tmp_path / "codes")
    assert report.renamed == 0
    names = ["one/000.tar", "one/000.tar", "one/001.tar", "two/000.tar", "two/000.tar"]
    assert [row["id"].partition("/clips")[0] for row in rows(tmp_path / "codes")] == names
    twice = [str(tmp_path / "one" / "000.tar")] * 2
    with pytest.raises(ValueError, match=r"000\.tar is there twice: name each tar file once"):
        open_corpus(twice)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    """Many files with the same ids, done in any order."""
    draw = random.Random(0)
    names = []
    for number in range(6):
        ids = draw.sample(range(9), 5)
        names.append(str(tmp_path / f"{number}.tar"))
        write_tar(names[-1], [part for place, one in enumerate(ids) for part in member(9 * number + place, f"i{one}")])
    (tmp_path / "tars").mkdir()
    for name in names:
        (tmp_path / "tars" / name.rpartition("/")[2]).symlink_to(name)
    alone, both = tmp_path / "alone", tmp_path / "both"
    first = killed_job.tokenize(tmp_path / "tars", alone)
    second = killed_job.tokenize(tmp_path / "tars", both, processes=2)
    assert first.renamed == second.renamed > 0
    assert rows(alone) == rows(both)
    assert len({row["id"] for row in rows(both)}) == 30
    assert codes_by_seed(alone) == codes_by_seed(both)
