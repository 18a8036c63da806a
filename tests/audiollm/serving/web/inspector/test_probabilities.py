"""Probabilities of tokens are those of one plain pass of the model."""

from __future__ import annotations

import pytest
import torch

from audiollm import AudioLLM
from audiollm.serving.web.inspector import probabilities
from audiollm.serving.web.inspector.probabilities import token_chances


def test_chances_are_those_of_one_pass_however_many_tokens_are_computed_at_once(
    mini: AudioLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probabilities, "_TOKENS_AT_ONCE", 3)
    prompt = [*mini.processor.plain_token_ids(["What is this?"])[0], *mini.vocabulary.wrap([5, 9])]
    answer = mini.processor.plain_token_ids(["A bell."])[0]
    rows = token_chances(mini.model, mini.processor, prompt, answer, num_alternatives=4)
    with torch.no_grad():
        wanted = mini.model(torch.tensor([prompt + answer])).logits[0].float().softmax(-1)
    assert [row.token_id for row in rows] == prompt + answer
    assert [row.is_answer for row in rows] == [False] * len(prompt) + [True] * len(answer)
    assert rows[0].probability is None
    for place, row in enumerate(rows[1:], 1):
        assert row.probability == pytest.approx(float(wanted[place - 1, row.token_id]), rel=1e-3, abs=1e-6)
        chances = [chance for _, chance in row.alternatives]
        assert chances == sorted(chances, reverse=True)
        assert chances == pytest.approx(wanted[place - 1].topk(4).values.tolist(), rel=1e-3, abs=1e-6)
        assert sum(chances) <= 1 + 1e-5
    assert [row.code for row in rows if row.code is not None] == [5, 9]


def test_a_single_token_has_nothing_before_it(mini: AudioLLM) -> None:
    [row] = token_chances(mini.model, mini.processor, [], [7])
    assert row.probability is None
    assert row.alternatives == []


def test_too_many_tokens_are_refused(mini: AudioLLM) -> None:
    with pytest.raises(ValueError, match="5000 tokens, but 4096"):
        token_chances(mini.model, mini.processor, [1] * 4990, [1] * 10)
