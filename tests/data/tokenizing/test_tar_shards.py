"""WebDataset's tar shards as records: whole samples, and every kind of damage by name."""

import json
import random

import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.tokenizing.source import open_corpus
from tests.data.tokenizing.corpora import samples, sound, write_tar
from tests.data.tokenizing.test_corpus import FakeTokenizer, read_lines, write_clip


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        write_tar(folder / f"{number:03d}.tar", samples(4, first=4 * number))
    return folder


def readable(corpus):
    """The records that can be read, and the reasons of the others."""
    records, reasons = [], []
    for index in range(len(corpus)):
        try:
            records.append(corpus[index])
        except RecordError as error:
            reasons.append(str(error))
    return records, reasons


def test_a_sample_holds_sound_fields_and_text_and_can_be_read_in_any_order(shards):
    corpus = open_corpus(shards)
    assert len(corpus) == 12
    order = list(range(12))
    random.Random(0).shuffle(order)
    for index in order:
        key = f"clips/{index:04d}"
        assert corpus[index] == {
            "id": f"{index // 4:03d}.tar/{key}",
            "speaker": f"s{index}",
            "text": f"words {index}",
            "audio": {"bytes": sound(seed=index)},
        }
        assert corpus.where(index) == f"{shards}/{index // 4:03d}.tar: {key}"


def test_one_file_a_list_a_pattern_and_a_folder_are_the_same(shards):
    paths = sorted(str(path) for path in shards.glob("*.tar"))
    whole = list(open_corpus(shards))
    assert list(open_corpus(paths)) == list(open_corpus(f"{shards}/*.tar")) == whole
    assert list(open_corpus(paths[1])) == whole[4:8]


def test_tar_shards_become_codes_with_all_fields(shards, tmp_path):
    report = tokenize_corpus(shards, FakeTokenizer(), tmp_path / "codes.jsonl", progress=False)
    records = read_lines(tmp_path / "codes.jsonl")
    assert (report.records, len({record["id"] for record in records})) == (12, 12)
    assert [record["text"] for record in records] == [f"words {index}" for index in range(12)]
    assert all(len(record["codes"]) == 5 for record in records)


def test_recordings_beside_tar_files_are_read_as_before_and_the_tar_files_named(shards, caplog):
    write_clip(shards / "a.wav")
    corpus = open_corpus(shards)
    assert [record["id"] for record in corpus] == ["a.wav"]
    assert "tar files are left out, because a.wav lies beside them" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.77, 0.99])
def test_of_a_file_that_is_cut_off_anywhere_no_sample_is_lost_without_a_word(tmp_path, share):
    path = write_tar(tmp_path / "a.tar", samples(8))
    whole, content = list(open_corpus(path)), path.read_bytes()
    path.write_bytes(content[: int(len(content.rstrip(b"\0")) * share)])
    records, reasons = readable(open_corpus(path))
    assert records == whole[: len(records)]
    assert len(records) < 8
    assert len(reasons) == 1
    assert "damaged" in reasons[0]
    assert "make it again" in reasons[0]


def test_a_file_without_an_end_mark_is_half_written(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(2))
    content = path.read_bytes()
    path.write_bytes(content[: -(-len(content.rstrip(b"\0")) // 512) * 512])
    records, reasons = readable(open_corpus(path))
    assert len(records) == 1
    assert "ends without an end mark" in reasons[0]


def test_a_damaged_header_is_noticed_though_what_follows_cannot_be_found(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(4))
    content = bytearray(path.read_bytes())
    content[content.index(b"clips/0002.json")] = 7
    path.write_bytes(content)
    records, reasons = readable(open_corpus(path))
    assert [record["text"] for record in records] == ["words 0", "words 1"]
    assert "0002" in reasons[0]
    assert "no header of a tar file" in reasons[0]


BAD = {
    "two sounds": ([("a.wav", b"1"), ("a.flac", b"2")], "wav and flac"),
    "dots": ([("a.1.wav", b"1"), ("a.2.wav", b"2")], r"1\.wav and 2\.wav; a sample is what is called the same up to"),
    "none": ([("a.txt", b"words")], "no sound, but txt"),
    "member twice": ([("a.wav", b"1"), ("a.wav", b"2")], r"holds a\.wav twice"),
    "json": ([("a.wav", b"1"), ("a.json", b"{broken")], "is not JSON"),
    "list": ([("a.wav", b"1"), ("a.json", b"[1]")], "must hold an object, not a list"),
    "conversation": ([("a.wav", b"1"), ("a.json", b'{"messages": []}')], "holds a conversation"),
    "picture": ([("a.wav", b"1"), ("a.jpg", b"\xff\xd8")], r"a\.jpg is neither sound nor UTF-8 text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_sample_is_named_and_those_around_it_are_read(tmp_path, kind):
    members, reason = BAD[kind]
    path = write_tar(tmp_path / "a.tar", [*samples(1), *members, *samples(1, first=1)])
    records, reasons = readable(open_corpus(path))
    assert [record["text"] for record in records] == ["words 0", "words 1"]
    with pytest.raises(RecordError, match=reason):
        raise RecordError(reasons[0])


def test_the_fingerprint_tells_files_apart(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(2))
    before = open_corpus(path).fingerprint
    assert open_corpus(path).fingerprint == before
    write_tar(path, samples(2, first=1))
    assert open_corpus(path).fingerprint != before


def test_the_json_may_bring_the_id(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.wav", sound()), ("a.json", json.dumps({"id": "mine"}).encode())])
    assert open_corpus(path)[0]["id"] == "mine"
