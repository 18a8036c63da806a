"""Keys that nothing reads are listed once per source; those that our own tools read or write are not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import soundfile

from audiollm.data.conversation import audio_parts, parsing
from audiollm.data.conversation.loading import validate_conversations
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.manifest import open_manifest
from audiollm.data.records import TEXT_KEYS
from audiollm.data.sap.record import SAP_ATTRIBUTES
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.unread_keys import CLIP_KEYS, CONVERSATION_KEYS, unread_keys
from audiollm.data.voices import attributes, clips
from audiollm.data.voices.speech_records import write_speech_records
from audiollm.mini import audio_tokenizer_or_mini
from audiollm.tokenizer.modeling import UniAudioTokenizer


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "nothing reads" in record.getMessage()]


def conversations(count: int, **more) -> list[dict]:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return [{"id": str(number), "messages": messages, **more} for number in range(count)]


def test_every_key_that_a_reader_names_is_known():
    named = {*TEXT_KEYS, *SAP_ATTRIBUTES, *attributes.FIELDS, *clips.ATTRIBUTE_KEYS, *clips.KEPT_KEYS}
    named |= {*audio_parts.CLIP_AUDIO_KEYS, *audio_parts.SEGMENT_KEYS, *audio_parts.DATASETS_AUDIO_KEYS}
    assert named <= CLIP_KEYS
    assert {*parsing.RECORD_KEYS, *clips.KEPT_KEYS} <= CONVERSATION_KEYS


def test_conversations_list_unknown_keys_in_one_warning(caplog, tmp_path):
    path = tmp_path / "train.jsonl"
    records = [*conversations(5, foo=1, task="x", speaker="f"), *conversations(2, foo=1, bar=2, baz=None)]
    write_json_lines(path, [record | {"id": str(number)} for number, record in enumerate(records)])
    with caplog.at_level(logging.WARNING):
        assert validate_conversations(path) == []
    assert said(caplog) == [f"{path}: keys that nothing reads: foo (7 records), bar (2)"]


@pytest.mark.parametrize(
    ("key", "shown"), [("\u2028", r"'\u2028'"), ("", "''"), ("x" * 99, "x" * 59 + "…"), ("ключ", "ключ")]
)
def test_odd_keys_stay_on_one_line(caplog, tmp_path, key, shown):
    write_json_lines(tmp_path / "train.jsonl", conversations(1, **{key: 1}))
    validate_conversations(tmp_path / "train.jsonl")
    assert said(caplog) == [f"{tmp_path / 'train.jsonl'}: keys that nothing reads: {shown} (1 record)"]


@pytest.fixture
def clip_records(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 20).astype(np.float32), 16000)
    record = {"audio": str(tmp_path / "a.wav"), "text": "a few words", "duration_seconds": 1.0}
    return [record | {"id": "1", "transcirpt": "a"}, record | {"id": "2"}]


def test_tokenize_lists_them_and_its_own_output_has_none(caplog, tmp_path, clip_records):
    tokenize_corpus(
        clip_records,
        UniAudioTokenizer.from_pretrained(audio_tokenizer_or_mini("mini"), encoder_only=True),
        tmp_path / "codes.jsonl",
        progress=False,
    )
    assert said(caplog) == ["<list>: keys that nothing reads: transcirpt (1 record)"]
    assert unread_keys(open_manifest(tmp_path / "codes.jsonl")[1]) == []


def test_speech_records_list_them_and_their_output_has_none(caplog, tmp_path, clip_records):
    write_speech_records(clip_records, tmp_path / "speech.jsonl")
    assert said(caplog) == ["<list>: keys that nothing reads: transcirpt (1 record)"]
    caplog.clear()
    assert validate_conversations(tmp_path / "speech.jsonl") == []
    assert said(caplog) == []
