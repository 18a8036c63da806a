"""A transcript loses nothing in any of its formats."""

from __future__ import annotations

import json
import re

import pytest

from audiollm.transcription.transcript import Transcript, TranscriptSegment

SEGMENTS = [
    TranscriptSegment(0.0, 1.2345, "Hello <b>you</b> & me -->", "stop"),
    TranscriptSegment(1.2345, 59.9996, "", "silent"),
    TranscriptSegment(59.9996, 3661.5, "Two\n\nlines {\\an8} ", "length"),
]


def test_text_and_reason_are_those_of_all_segments():
    transcript = Transcript(SEGMENTS)
    assert transcript.text == "Hello <b>you</b> & me --> Two\n\nlines {\\an8}"
    assert transcript.finish_reason == "length"
    assert Transcript(SEGMENTS[:2]).finish_reason == "stop"
    assert Transcript(SEGMENTS[1:2]).finish_reason == "silent"
    assert transcript.duration_seconds == 3661.5


def test_srt():
    assert Transcript(SEGMENTS).to_format("srt") == (
        "1\n00:00:00,000 --> 00:00:01,234\nHello <b>you</b> & me -->\n\n"
        "2\n00:01:00,000 --> 01:01:01,500\nTwo\nlines {\\an8}\n\n"
    )


def test_vtt_escapes_what_players_read_as_markup():
    text = Transcript(SEGMENTS).to_format("vtt")
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nHello &lt;b&gt;you&lt;/b&gt; &amp; me --&gt;\n\n")
    assert len(re.findall("^.* --> .*$", text, flags=re.MULTILINE)) == 2


def test_json_holds_every_segment(tmp_path):
    Transcript(SEGMENTS).save(tmp_path / "a.json")
    read = json.loads((tmp_path / "a.json").read_text())
    assert [TranscriptSegment(**segment) for segment in read["segments"]] == SEGMENTS


@pytest.mark.parametrize("name", ["a.doc", "a", "a.srt.gz"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.txt, \.json, \.srt, \.vtt"):
        Transcript(SEGMENTS).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.txt", "a.srt", "a.VTT"])
def test_an_empty_transcript_is_a_file(tmp_path, name):
    Transcript([]).save(tmp_path / name)
    assert (tmp_path / name).is_file()
