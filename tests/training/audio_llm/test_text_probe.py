"""Perplexity on held-out texts, along a fine-tuning."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.text_probe import HeldOutTexts
from audiollm.training.loop.errors import DataError
from audiollm.training.sft import train

from ..finished_runs import metrics_of


def test_perplexity_is_that_of_all_tokens_before_and_after(make_config: Any, assets: Any, tmp_path: Path) -> None:
    texts = tmp_path / "held_out.txt"
    texts.write_text("the red cat\n\nblue birds, <|im_end|> and dogs\n")
    train(make_config(max_steps=2, eval_data=str(assets.dev), eval_text=str(texts)))
    [start] = metrics_of(tmp_path / "run", "start")
    [evaluation] = metrics_of(tmp_path / "run", "eval")
    audio_llm = AudioLLM.from_pretrained(assets.audio_llm)
    total, count = 0.0, 0
    for text in ("the red cat", "blue birds, <|im_end|> and dogs"):
        ids = torch.tensor([list(text.encode())])  # a token for each byte: the mark is text, too
        assert len(audio_llm.processor.tokenizer(text, split_special_tokens=True)["input_ids"]) == ids.shape[1]
        ids = torch.tensor([audio_llm.processor.tokenizer(text, split_special_tokens=True)["input_ids"]])
        with torch.no_grad():
            logits = audio_llm.model(ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert start["num_text_tokens"] == count
    assert start["text_loss"] == pytest.approx(total / count, rel=1e-5)
    assert start["text_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert evaluation["text_perplexity"] != start["text_perplexity"]


def test_long_texts_are_cut_into_records_and_nothing_is_lost(assets: Any, tmp_path: Path) -> None:
    tokenizer = AudioLLM.from_pretrained(assets.audio_llm).processor.tokenizer
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "abcdefghij"}) + "\n")
    texts = HeldOutTexts(str(path), tokenizer, max_length=4)
    assert [len(record) for record in texts.encode(range(len(texts)))] == [4, 4, 2]
    path.write_text(json.dumps({"txt": "a"}) + "\n")
    with pytest.raises(DataError, match=r"texts.jsonl:1: no text to measure perplexity on"):
        HeldOutTexts(str(path), tokenizer, max_length=4)
    path.write_text(json.dumps({"text": "a"}) + "\n")
    with pytest.raises(DataError, match="holds no text of two tokens"):
        HeldOutTexts(str(path), tokenizer, max_length=4)
    path.write_text(json.dumps({"text": "so \ud83d"}) + "\n")
    with pytest.raises(DataError, match=r"texts.jsonl:1: text holds half a character"):
        HeldOutTexts(str(path), tokenizer, max_length=4)
    path.with_suffix(".txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"texts.txt is not UTF-8 text \(byte 3"):
        HeldOutTexts(str(path.with_suffix(".txt")), tokenizer, max_length=4)
