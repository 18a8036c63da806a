"""Manifests of lhotse and others as corpora."""

import gzip
import json

import pytest

from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.tokenizing.source import open_corpus
from tests.data.tokenizing.corpora import sound, write_cuts
from tests.data.tokenizing.test_corpus import FakeTokenizer, read_lines


@pytest.fixture
def cuts(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.wav").write_bytes(sound(seed=index))
    return write_cuts(tmp_path / "cuts.jsonl", [tmp_path / f"{index}.wav" for index in range(3)])


def test_each_supervision_of_a_cut_becomes_the_codes_of_its_stretch(cuts, tmp_path):
    compressed = tmp_path / "more_cuts.jsonl.gz"
    compressed.write_bytes(gzip.compress(cuts.read_bytes()))
    for source in (cuts, compressed):
        output = tmp_path / f"{source.name}.codes.jsonl"
        tokenize_corpus(source, FakeTokenizer(), output, progress=False)
        records = read_lines(output)
        assert [record["id"] for record in records] == [f"c{index}-{half}" for index in range(3) for half in range(2)]
        assert [record["text"] for record in records] == ["half 0", "half 1"] * 3
        assert all((len(r["codes"]), r["duration"]) == (3, 0.1) for r in records)  # 2.5 frames of 40 ms
        assert [record.get("offset") for record in records] == [0.0, 0.1] * 3


def test_a_bad_cut_is_an_error_in_its_place(cuts):
    lines = cuts.read_text().splitlines()
    lines[1] = json.dumps({"id": "mix", "type": "MixedCut", "tracks": []})
    cuts.write_text("\n".join(lines) + "\n")
    corpus = open_corpus(cuts)
    assert len(corpus) == 5
    assert corpus.where(2) == f"{cuts}:2"
    with pytest.raises(RecordError, match=r"cuts\.jsonl:2: type: MixedCut has no recording"):
        corpus[2]
    assert corpus[3]["id"] == "c2-0"


def test_the_lines_go_where_they_are_wanted_and_are_the_same_each_time(cuts, tmp_path):
    first = open_corpus(cuts, lines=tmp_path / "a.jsonl")
    second = open_corpus(str(cuts), lines=tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert first.fingerprint == second.fingerprint == open_corpus(cuts).fingerprint
    lines = cuts.read_text().splitlines()
    cuts.write_text("\n".join(lines[:2]) + "\n")
    assert open_corpus(cuts).fingerprint != first.fingerprint


def test_a_format_that_the_content_does_not_say_can_be_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(sound())
    (tmp_path / "wav.scp").write_text(f"utt1 {tmp_path / 'a.wav'}\n")
    (tmp_path / "text").write_text("utt1 some words\n")
    corpus = open_corpus(tmp_path, format="kaldi")
    assert [(record["id"], record["text"]) for record in corpus] == [("utt1", "some words")]
    assert [record["id"] for record in open_corpus(tmp_path)] == ["a.wav"]  # a folder of recordings, as ever
    with pytest.raises(ValueError, match="records of ShareGPT are read as they are"):
        open_corpus(tmp_path, format="sharegpt")
    with pytest.raises(ValueError, match="format 'nothing' is not known"):
        open_corpus(tmp_path, format="nothing")
