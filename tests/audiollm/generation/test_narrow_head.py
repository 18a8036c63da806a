"""What is not computed changes nothing: tokens are those of the whole head and of transformers' own cache."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LogitsProcessor

from audiollm.generation import narrow_head, request
from audiollm.generation.cache import RoomyLayer, roomy_cache
from audiollm.generation.grammar import AudioSegmentLogitsProcessor
from audiollm.generation.narrow_head import Columns, NextColumns, can_narrow, narrowed
from audiollm.modeling import AudioLLM

WAYS: dict[str, dict[str, Any]] = {
    "text": {"modalities": {"text"}},
    "drawn text": {"modalities": {"text"}, "do_sample": True, "seed": 1},
    "audio": {"modalities": {"audio"}, "do_sample": False, "max_new_tokens": 30},
    "drawn audio": {"modalities": {"audio"}, "seed": 2, "max_new_tokens": 40},
    "short audio": {"modalities": {"audio"}, "seed": 2, "max_seconds": 0.2},
    "in turns": {
        "modalities": {"text", "audio"},
        "turns": [["One", " two"], [" three"]],
        "seed": 4,
        "max_seconds": 1.0,
    },
}
CHATS = [[{"role": "user", "content": "Say something."}], [{"role": "user", "content": "Why?"}]]


@pytest.fixture
def model(make_llm: Callable[..., Any], text_tokenizer: Any, audio_tokenizer: Any) -> AudioLLM:
    return AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)


def whole(model: AudioLLM, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[torch.Tensor]:
    """The answers where everything is computed."""
    with monkeypatch.context() as patched:
        patched.setattr(request.GenerationRequest, "_takes_one_token_at_a_time", lambda *_: False)
        return model.chat(CHATS, return_waveforms=False, **settings).token_ids


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_those_of_the_whole_head(model: AudioLLM, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 25, **WAYS[way]}
    expected = whole(model, monkeypatch, **settings)
    used: list[Columns] = []
    compute = narrow_head._logits
    monkeypatch.setattr(narrow_head, "_logits", lambda *given: used.append(given[-1]) or compute(*given))
    found = model.chat(CHATS, return_waveforms=False, **settings).token_ids
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]
    assert used
    assert type(model.model.get_output_embeddings()) is nn.Linear  # as it was


def test_a_segment_that_the_prompt_has_opened_goes_on_as_with_the_whole_head(
    model: AudioLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = torch.tensor([[5, 6, 7, model.vocabulary.start_id], [8, model.vocabulary.start_id, 400, 401]])
    prompts[1, 2:] = model.vocabulary.first_code_id
    settings: dict[str, Any] = {"modalities": {"text", "audio"}, "seed": 3, "max_new_tokens": 60, "max_seconds": 0.4}
    with monkeypatch.context() as patched:
        patched.setattr(request.GenerationRequest, "_takes_one_token_at_a_time", lambda *_: False)
        expected = model.generate(prompts, return_waveforms=False, **settings).token_ids
    used: list[Columns] = []
    compute = narrow_head._logits
    monkeypatch.setattr(narrow_head, "_logits", lambda *given: used.append(given[-1]) or compute(*given))
    found = model.generate(prompts, return_waveforms=False, **settings).token_ids
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]
    assert 0 < len(used) < 60  # inside the segments, not behind them


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 2},
        {"repetition_penalty": 1.2},
        {
            "logits_processor": [
                LogitsProcessor.__new__(type("Any", (LogitsProcessor,), {"__call__": lambda *a: a[-1]}))
            ]
        },
        {"prompt_lookup_num_tokens": 2},
        {"use_cache": False},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_whatever_reads_all_logits_gets_them(
    model: AudioLLM, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrow_head, "_logits", lambda *_: pytest.fail("logits are left out"))
    chats = CHATS[:1] if "prompt_lookup_num_tokens" in settings else CHATS
    model.chat(chats, max_new_tokens=3, **settings)


def test_logits_of_columns_are_the_head_s_own() -> None:
    torch.manual_seed(0)
    head = nn.Linear(64, 500, bias=False)
    for num_rows in (1, 8):
        hidden = torch.randn(num_rows, 1, 64)
        for columns in (Columns(131, 300, (3, 499)), Columns(0, 0, (7,)), Columns(485, 500), Columns(0, 131)):
            logits, ids = narrow_head._logits(head, hidden, columns), columns.ids(torch.device("cpu"))
            # How a kernel sums up a row may depend on how many rows there are: processors differ in the last bit.
            torch.testing.assert_close(logits[..., ids], head(hidden)[..., ids], atol=1e-6, rtol=1e-6)
            assert int(logits.isfinite().sum()) == num_rows * len(ids)


def test_another_thread_and_a_copy_have_the_whole_head(model: AudioLLM) -> None:
    grammar = AudioSegmentLogitsProcessor(
        model.vocabulary, {"text"}, num_tokens=len(model.processor.text_tokenizer), eos_token_ids=[1]
    )
    following = NextColumns(grammar)
    prompt = torch.tensor([[5, 6, 7]])
    following.look(prompt)
    expected = model.model(prompt).logits
    assert can_narrow(model.model)
    with ThreadPoolExecutor(1) as executor, narrowed(model.model, following):
        assert model.model(prompt).logits.isneginf().any()
        with narrowed(model.model, following):
            pass
        assert model.model(prompt).logits.isneginf().any()
        assert torch.equal(executor.submit(lambda: model.model(prompt).logits).result(), expected)
        copied = copy.deepcopy(model.model)
    assert torch.equal(model.model(prompt).logits, expected)
    assert torch.equal(copied(prompt).logits, expected)


def test_the_columns_hold_whatever_the_grammar_allows() -> None:
    from audiollm.vocabulary import AudioVocabulary

    vocabulary = AudioVocabulary(codebook_size=8, first_code_id=12, start_id=10, end_id=11)
    generator = torch.Generator().manual_seed(0)
    for modalities in ({"text"}, {"audio"}, {"text", "audio"}):
        grammar = AudioSegmentLogitsProcessor(
            vocabulary, modalities, num_tokens=20, eos_token_ids=[9], prompt_length=2, min_codes=2, max_codes=5
        )
        for _ in range(100):
            ids = torch.randint(8, 20, (3, 8), generator=generator)
            ids[:, :2] = 3
            columns = grammar.columns(ids)
            allowed = grammar(ids, torch.zeros(3, 24)).isfinite()
            has_ended = (ids == 9).any(dim=1)
            if columns is not None:
                held = torch.zeros(24, dtype=torch.bool)
                held[columns.ids(torch.device("cpu"))] = True
                assert not (allowed[~has_ended] & ~held).any()
                assert (allowed & held).any(dim=1).all()  # a draw needs something to draw from


def test_a_cache_with_room_holds_what_that_of_transformers_holds(model: AudioLLM) -> None:
    plain, roomy = copy.deepcopy(roomy_cache(model.model)), roomy_cache(model.model)
    plain.layers = [type(layer).__mro__[1]() for layer in plain.layers]
    assert all(type(layer) is RoomyLayer for layer in roomy.layers)
    generator = torch.Generator().manual_seed(0)
    for step in range(150):
        states = torch.randn(2, 2, 7 if step == 0 else 1, 4, generator=generator)
        for cache in (plain, roomy):
            keys, values = cache.update(states, states + 1, 0)
            if step == 100:
                cache.layers[0].reorder_cache(torch.tensor([1, 0]))
                cache.layers[0].crop(-3)
        kept = [cache.layers[0] for cache in (plain, roomy)]
        assert torch.equal(kept[0].keys, kept[1].keys)
        assert torch.equal(kept[0].values, kept[1].values)
        assert kept[0].get_seq_length() == kept[1].get_seq_length()
    assert torch.equal(keys, roomy.layers[0].keys)
    assert torch.equal(values, roomy.layers[0].values)
