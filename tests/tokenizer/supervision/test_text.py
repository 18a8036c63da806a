"""Texts of tasks become token ids and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, WhisperTokenizerFast

from audiollm.tokenizer import SapText
from audiollm.tokenizer.supervision.text import TASKS

SAP = '{"linguistic_content":"it\'s  café – 5 o\'clock","events":[]}'


@pytest.fixture
def text(whisper_folder: Path) -> SapText:
    return SapText.from_pretrained(whisper_folder)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("content", ["hello", SAP, "", "a <|endoftext|> b <|startofsap|><|emotion|>"])
def test_what_is_encoded_is_decoded(text: SapText, task: str, content: str) -> None:
    ids = text.encode(task, content, max_length=500)
    assert ids[0] == text.start_id(task)
    assert ids[-1] == text.end_id
    special = {text.end_id, *(text.start_id(name) for name in TASKS)}
    assert not special & set(ids[1:-1])  # the text cannot end itself or start another task
    assert text.decode(ids) == content
    assert text.decode([*ids, *ids[1:]]) == content  # nothing behind the end counts


def test_the_model_folder_says_how_long_a_target_may_be(text: SapText) -> None:
    ids = text.encode("asr", "x" * 100)
    assert len(ids) == text.max_target_positions + 1 == 25
    assert text.encode("asr", "x" * 100, max_length=7) == ids[:7]
    assert text.decode(ids) == "x" * 23


def test_start_tokens_are_added_once_behind_the_vocabulary(whisper_folder: Path, tmp_path: Path) -> None:
    plain = WhisperTokenizerFast.from_pretrained(whisper_folder)
    size = len(plain)
    text = SapText(plain)
    assert [text.start_id(task) for task in ("asr", "emotion", "caption", "sap")] == [257, size, size + 1, size + 2]
    text.save_pretrained(tmp_path)
    again = SapText.from_pretrained(tmp_path)
    assert len(again) == len(text) == size + 3
    assert [again.encode(task, SAP) for task in TASKS] == [text.encode(task, SAP) for task in TASKS]
    assert again.pad_id == text.pad_id


def test_unknown_tasks_are_refused_with_those_there_are(text: SapText) -> None:
    with pytest.raises(ValueError, match=r"task='ser': use one of asr, emotion, caption, sap"):
        text.encode("ser", "angry")


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Whisper"):
        SapText.from_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks <\|startoftranscript\|>"):
        SapText.from_pretrained(tmp_path)
