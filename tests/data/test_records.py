"""Records made of others: written whole, with paths that move with them, and a report of what was left out."""

import json

import pytest

from audiollm.data.records import RecordReport, write_records


def test_paths_below_the_output_become_relative_and_others_stay(tmp_path):
    inside, outside = str(tmp_path / "out" / "wavs" / "a.wav"), str(tmp_path / "b.wav")
    report = RecordReport()

    def records():
        for audio in (inside, outside):
            report.records["speech"] += 1
            parts = [{"type": "audio", "path": audio}, {"type": "text", "text": "Was ist das? \u2028"}]
            yield {"audio": audio, "messages": [{"role": "user", "content": parts}]}

    write_records(records(), tmp_path / "out" / "made.jsonl", report, if_none="nothing")
    lines = (tmp_path / "out" / "made.jsonl").read_bytes().decode().split("\n")
    written = [json.loads(line) for line in lines[:-1]]
    assert [record["audio"] for record in written] == ["wavs/a.wav", outside]
    assert [record["messages"][0]["content"][0]["path"] for record in written] == ["wavs/a.wav", outside]
    assert str(report) == "2 records (2 speech)"


def test_no_record_is_an_error_that_says_what_was_left_out(tmp_path):
    report = RecordReport()
    report.leave_out("no text", "clips.jsonl:1")
    report.leave_out("no text", "clips.jsonl:2")
    with pytest.raises(ValueError, match=r"nothing to say\n0 records\nleft out: 2 \(no text; first clips\.jsonl:1\)"):
        write_records([], tmp_path / "made.jsonl", report, if_none="nothing to say")
    assert not list(tmp_path.iterdir())
