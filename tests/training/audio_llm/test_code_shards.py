"""Training on shards of codes: its own audio tokenizer's are taken, another one's refused before a record is read."""

from __future__ import annotations

import re

import pytest
import torch

from audiollm.data.conversation.loading import load_conversations
from audiollm.data.tokenizing.jobs.job import tokenize_into_folder
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import Codes
from audiollm.training.audio_llm.records import EncodedRecords
from audiollm.training.loop.errors import DataError


class Other:
    """An audio tokenizer with as large a codebook as the LLM's."""

    codebook_size = 64
    max_segment_seconds = 30.0

    def fingerprint(self) -> str:
        return "other"

    def encode(self, waveforms, sample_rate):
        return Codes.from_list([torch.zeros(1, 3, dtype=torch.int64) for _ in waveforms])


@pytest.fixture
def records():
    recording = {"type": "audio", "array": [0.1] * 1600, "sampling_rate": 16000}
    turns = [{"role": "user", "content": [recording]}, {"role": "assistant", "content": "yes"}]
    return [{"id": f"r{index}", "messages": turns} for index in range(4)]


def test_shards_of_the_own_audio_tokenizer_give_what_the_recordings_give(assets, records, tmp_path):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor
    tokenize_into_folder(records, lambda _: processor.audio_tokenizer, tmp_path / "codes", progress=False)

    def encoded(source):
        opened = EncodedRecords(load_conversations(source), processor, max_length=256, cache_tokens=0)
        return [record.token_ids.tolist() for record in opened.encode(range(4))]

    assert encoded(tmp_path / "codes") == encoded(records)


def test_shards_of_another_audio_tokenizer_are_refused_by_name_with_both_fingerprints(assets, records, tmp_path):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor
    tokenize_into_folder(records, lambda _: Other(), tmp_path / "codes", progress=False)
    conversations = load_conversations(tmp_path / "codes")
    own = re.escape(str(processor.codec_fingerprint))
    with pytest.raises(
        DataError, match=rf"codes-00000-of-00001\.parquet: .*audio tokenizer \(other\) than .*\({own}\)"
    ):
        EncodedRecords(conversations, processor, max_length=256, cache_tokens=0)
    processor.accepted_codes = frozenset({"other"})
    assert len(EncodedRecords(conversations, processor, max_length=256, cache_tokens=0).encode([0])) == 1
