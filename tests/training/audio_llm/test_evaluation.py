from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from audiollm.data.conversation.loading import load_conversations
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.evaluation import (
    GeneratedSample,
    equal_shares,
    prompt_token_ids,
    reference_answer,
    score_samples,
)
from audiollm.training.audio_llm.records import EncodedRecord, EncodedRecords
from audiollm.training.loop.errors import DataError


def test_the_prompt_ends_where_the_last_answer_starts(assets):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor
    records = EncodedRecords(load_conversations(assets.dev), processor, max_length=256, cache_tokens=0)
    [record] = records.encode([0])
    messages = [message.to_dict() for message in records.conversations[0].messages[:-1]]
    expected = processor.apply_chat_template(messages, add_generation_prompt=True)["input_ids"][0]
    assert prompt_token_ids(record) == expected.tolist()


def test_only_the_last_of_several_answers_is_left_out():
    token_ids = np.arange(9, dtype=np.int32)
    labels = np.array([-100, 1, 2, -100, -100, 5, 6, 7, -100], dtype=np.int32)
    assert prompt_token_ids(EncodedRecord("a", "a.jsonl:1", token_ids, labels)) == [0, 1, 2, 3, 4]


def conversation(*messages):
    return parse_conversation({"messages": [{"role": role, "content": content} for role, content in messages]})


def test_references_are_last_turns_of_the_assistant_in_plain_text():
    assert reference_answer(conversation(("user", "hi"), ("assistant", "hello"))) == "hello"
    assert reference_answer(conversation(("assistant", "hello"), ("user", "hi"))) is None
    spoken = [{"type": "text", "text": "hello"}, {"type": "audio", "codes": [1, 2]}]
    assert reference_answer(conversation(("user", "hi"), ("assistant", spoken))) is None


def test_transcripts_are_scored_by_errors_and_the_rest_by_exact_match():
    samples = [
        GeneratedSample("1", "transcribe", "two words", "two birds"),
        GeneratedSample("2", "classify", "dog", "Dog."),
        GeneratedSample("3", "classify", "dog", "cat"),
        GeneratedSample("4", None, "yes", "yes"),
    ]
    scores = score_samples(samples, wer_tasks=("transcribe",))
    assert scores == {
        "wer": 0.5,
        "accuracy": pytest.approx(2 / 3),
        "accuracy_by_task": {"": 1.0, "classify": 0.5},
        "num_samples": 4,
    }
    assert score_samples(samples[:1], wer_tasks=("transcribe",))["accuracy"] is None
    assert score_samples([], wer_tasks=())["wer"] is None


@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
def test_every_process_has_as_many_batches_and_every_record_counts_once(num_processes):
    counted = []
    lengths = set()
    for process in range(num_processes):
        accelerator = SimpleNamespace(process_index=process, num_processes=num_processes)
        batches, weights = equal_shares(range(11), 2, accelerator)
        lengths.add(len(batches))
        counted += [index for batch, weight in zip(batches, weights, strict=True) if weight for index in batch]
    assert len(lengths) == 1
    assert sorted(counted) == list(range(11))


def test_the_cache_stays_within_its_budget_and_changes_nothing(assets):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor

    def records(cache_tokens):
        return EncodedRecords(load_conversations(assets.dev), processor, max_length=256, cache_tokens=cache_tokens)

    small, none = records(150), records(0)
    for index in (0, 1, 2, 1, 3, 0, 3):
        [cached], [fresh] = small.encode([index]), none.encode([index])
        assert np.array_equal(cached.token_ids, fresh.token_ids)
        assert np.array_equal(cached.labels, fresh.labels)
        assert sum(len(record) for record in small._cache.values()) == small._cached_tokens <= 150
    assert small._cache
    assert not none._cache


def test_a_record_without_targets_is_named(assets):
    """A chat template can mark nothing as the assistant's."""

    processor = AudioLLM.from_pretrained(assets.audio_llm).processor

    class Silent:
        text_tokenizer, vocabulary = processor.text_tokenizer, processor.vocabulary

        def encode_conversations(self, conversations, max_length):
            silent = SimpleNamespace(token_ids=np.array([1, 2]), labels=np.array([-100, -100]), frames=None)
            return [silent for _ in conversations]

    records = EncodedRecords(load_conversations(assets.dev), Silent(), max_length=9, cache_tokens=0)
    with pytest.raises(DataError, match=r"dev\.jsonl:2: no assistant turn"):
        records.encode([1])
    assert list(records.check([0, 2]).problems) == [0, 2]
