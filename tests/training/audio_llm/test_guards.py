from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from audiollm.chat.input import to_conversation
from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.forms import spoken_forms
from audiollm.data.conversation.loading import load_conversations
from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.guards import out_of_place, warn_of_another_form, warn_of_odd_loss
from audiollm.training.audio_llm.records import EncodedRecords, usable_records
from audiollm.vocabulary import AudioVocabulary

VOCABULARY = AudioVocabulary(codebook_size=4, first_code_id=12, start_id=10, end_id=11)
GOOD = [1, 10, 12, 15, 11, 2, 10, 13, 11, 3]


def problem(token_ids, labels=None):
    ids = np.asarray(token_ids, dtype=np.int32)
    targets = np.full_like(ids, IGNORED_LABEL) if labels is None else np.asarray(labels, dtype=np.int32)
    return out_of_place(ids, targets, VOCABULARY, vocabulary_size=16)


def test_a_record_in_order_has_no_problem():
    assert problem(GOOD) is None
    assert problem(GOOD, GOOD) is None


@pytest.mark.parametrize(
    ("token_ids", "said"),
    [
        ([1, 16], "token 1 is 16, outside of the model's 16 ids"),
        ([-1], "token 0 is -1, outside"),
        ([1, 12], "token 1 is audio outside of a span"),
        ([10, 12, 1, 11], "token 2 is audio outside of a span, or something else inside"),
        ([10, 12, 10, 11], "token 2"),
        ([1, 11], "token 1"),
        ([1, 10, 12], "its last span of audio does not end"),
    ],
)
def test_ids_outside_of_the_vocabulary_or_their_span_are_named(token_ids, said):
    assert said in problem(token_ids)


def test_a_label_is_the_token_at_its_place():
    assert problem([1, 2], [IGNORED_LABEL, 1]) == "label 1 is 1, and the token there is 2"
    assert problem([1, 2], [1]) == "1 labels for 2 tokens"


def counts(**changes):
    usual = {"tokens": 1000, "targets": 100, "audio targets": 50, "text targets": 50, "audio parts": 1, "text parts": 1}
    return usual | {name.replace("_", " "): value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"targets": 9}, "0.9 % of the tokens carry loss"),
        ({"targets": 995}, "% of the tokens carry loss"),
        ({"audio_targets": 0}, "answer in audio 1 times, but no token of it carries loss"),
        ({"text_targets": 0}, "answer in text 1 times, but no token"),
        ({"audio_targets": 0, "audio_parts": 0}, None),
        ({"tokens": 0}, None),
    ],
)
def test_odd_shares_of_loss_are_warned_of(caplog, changes, said):
    with caplog.at_level(logging.WARNING):
        warn_of_odd_loss("train.jsonl", counts(**changes))
    assert (said in caplog.text) if said else not caplog.text


SOUND = {"type": "audio", "codes": [1, 2]}
WRITTEN = {"type": "text", "text": "Yes."}


@pytest.mark.parametrize(
    ("content", "speaks_in_turns", "is_warned"),
    [
        ([SOUND], True, True),
        ([SOUND, SOUND], True, True),
        ([WRITTEN, SOUND, WRITTEN, SOUND], True, False),
        ([WRITTEN], True, False),
        ([SOUND], False, False),
        ([WRITTEN, SOUND], False, False),
        ([WRITTEN, SOUND, WRITTEN, SOUND], False, True),
    ],
)
def test_answers_in_another_form_than_the_model_is_asked_for_are_warned_of(caplog, content, speaks_in_turns, is_warned):
    chat = [{"role": "user", "content": "Say yes."}, {"role": "assistant", "content": content}]
    conversation = to_conversation(chat, "a chat", None, None)
    with caplog.at_level(logging.WARNING):
        warn_of_another_form("train.jsonl", spoken_forms(conversation.messages), speaks_in_turns)
    assert ("1 of 1 answers in sound" in caplog.text) == is_warned


def test_the_check_of_the_data_counts_and_refuses(assets, tmp_path, caplog):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor
    lines = [json.loads(line) for line in assets.train.read_text().splitlines()[:2]]
    lines[1]["messages"][1]["content"] = [{"type": "audio", "codes": [1, 2, 3]}]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    conversations = load_conversations(tmp_path / "two.jsonl")
    records = EncodedRecords(conversations, processor, max_length=256, cache_tokens=0)
    found = records.check([0, 1])
    answer = lines[0]["messages"][1]["content"]
    assert (found.loss["audio targets"], found.loss["text targets"]) == (3, len(answer))  # a token for each byte
    assert (found.loss["audio parts"], found.loss["text parts"]) == (1, 1)
    with caplog.at_level(logging.WARNING):
        usable_records(found, 2, on_too_long="error", source="two.jsonl")
    assert not caplog.text
    small = EncodedRecords(conversations, processor, max_length=256, cache_tokens=0, vocabulary_size=300)
    assert "outside of the model's 300 ids" in small.check([0]).problems[0]
