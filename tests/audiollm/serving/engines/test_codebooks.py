"""Engines and the server on a model whose audio tokenizer has several codebooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from audiollm.modeling import AudioLLM
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.engines.base import Engine
from audiollm.serving.engines.batching import BatchingEngine
from audiollm.serving.settings import ServerSettings
from tests.toy_codec import ToyCodec

from .conftest import Client


@pytest.fixture(scope="module", params=["flat", "delay"])
def several(request: pytest.FixtureRequest, make_llm: Callable[..., Any], make_text_tokenizer: Any) -> Client:
    llm = AudioLLM.create(make_llm(), make_text_tokenizer(), ToyCodec(3), code_order=request.param)
    return Client(llm)


def test_answers_are_those_of_generate(
    several: Client, make_engine: Callable[[AudioLLM], Engine], greedy: dict[str, Any], drawn: dict[str, Any]
) -> None:
    is_flat = several.model.vocabulary.layout.pad is None  # type: ignore[union-attr]
    kinds = {**greedy, **{f"drawn {name}": {"seed": 7, **one} for name, one in drawn.items()}}
    kinds = {name: one for name, one in kinds.items() if is_flat or "turns" not in one}
    requests = [several.request("Say it.", name, **settings) for name, settings in kinds.items()]
    found = several.answers(make_engine(several.model), requests)
    assert found == [several.generated("Say it.", **settings) for settings in kinds.values()]
    for name in ("audio", "drawn audio"):
        [segment] = several.model.processor.split(found[list(kinds).index(name)])
        assert several.model.vocabulary.layout.to_codes(segment.codes).shape[1]  # type: ignore[union-attr]


def test_a_server_speaks_hears_and_checks_codes(several: Client) -> None:
    model = several.model
    answerer = Answerer(ServedModel.of(model, "toy"), BatchingEngine(model))
    with TestClient(build_app(answerer, ServerSettings())) as client:
        spoken = client.post("/v1/audio/speech", json={"model": "toy", "input": "a dog", "response_format": "wav"})
        assert spoken.status_code == 200, spoken.text
        heard = client.post("/v1/audio/tokens/encode", files={"file": ("a.wav", spoken.content)})
        assert heard.status_code == 200, heard.text
        codes = heard.json()["codes"]
        model.vocabulary.codes_to_token_ids(codes)  # whole, and each in its place
        sound = client.post("/v1/audio/tokens/decode", json={"codes": codes})
        assert sound.status_code == 200, sound.text
        refused = client.post("/v1/audio/tokens/decode", json={"codes": codes[:-1]})
        assert refused.status_code == 400
        assert "breaks off before it is whole" in refused.text
