"""Engines and the server on a model whose audio tokenizer has several codebooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from audiollm.modeling import AudioLLM
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.api.realtime.items import Answered
from audiollm.serving.engines.base import Engine
from audiollm.serving.engines.batching import BatchingEngine
from audiollm.serving.settings import ServerSettings
from audiollm.serving.sound.uploads import Recording
from audiollm.serving.web.inspector.hearing import hear
from audiollm.serving.web.inspector.rebuilding import rebuild
from audiollm.serving.web.inspector.routes import Inspector
from tests.toy_codec import ToyCodec, sound

from ..api.conftest import ScriptedEngine
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
        spoken = client.post(
            "/v1/audio/speech", json={"model": "toy", "input": "a dog", "response_format": "wav", "seed": 1}
        )
        assert spoken.status_code == 200, spoken.text
        heard = client.post("/v1/audio/tokens/encode", files={"file": ("a.wav", spoken.content)})
        assert heard.status_code == 200, heard.text
        codes = heard.json()["codes"]
        assert heard.json()["code_layout"] == model.vocabulary.layout.to_dict()  # type: ignore[union-attr]
        model.vocabulary.codes_to_token_ids(codes)  # whole, and each in its place
        sound = client.post("/v1/audio/tokens/decode", json={"codes": codes})
        assert sound.status_code == 200, sound.text
        refused = client.post("/v1/audio/tokens/decode", json={"codes": codes[:-1]})
        assert refused.status_code == 400
        assert "breaks off before it is whole" in refused.text


def cut_answer(model: AudioLLM, num_frames: int, num_cut: int) -> list[int]:
    """The codes of an answer that breaks off before its row is whole."""
    layout = model.vocabulary.layout
    assert layout is not None
    frames = torch.arange(3 * num_frames).reshape(3, num_frames) % 8
    return layout.to_symbols(frames).tolist()[: layout.length(num_frames) - num_cut]


@pytest.mark.parametrize("num_segments", [1, 2])
def test_a_later_question_reads_the_whole_frames_of_an_answer_that_was_cut(several: Client, num_segments: int) -> None:
    model, layout = several.model, several.model.vocabulary.layout
    assert layout is not None
    cut = cut_answer(model, 6, 2)
    first = model.vocabulary
    segment = [first.start_id, *(code + first.first_code_id for code in cut)]
    before = first.wrap(cut_answer(model, 4, 0)) if num_segments == 2 else []
    engine = ScriptedEngine(lambda request: [*before, *segment])
    with TestClient(build_app(Answerer(ServedModel.of(model, "toy"), engine), ServerSettings())) as client:
        said: list[dict[str, Any]] = [{"role": "user", "content": "Say it."}]
        sound = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
        answer = client.post("/v1/chat/completions", json={"model": "toy", "messages": said, **sound})
        assert answer.status_code == 200, answer.text
        identifier = answer.json()["choices"][0]["message"]["audio"]["id"]
        said += [{"role": "assistant", "audio": {"id": identifier}}, {"role": "user", "content": "And?"}]
        again = client.post("/v1/chat/completions", json={"model": "toy", "messages": said, **sound})
        assert again.status_code == 200, again.text
    frames = [layout.to_codes(torch.tensor(cut), is_cut=True)]
    if num_segments == 2:
        frames.insert(0, layout.to_codes(torch.tensor(cut_answer(model, 4, 0))))
    assert frames[-1].shape[1] in (4, 5)
    wanted = first.wrap(layout.to_symbols(torch.cat(frames, dim=1)).tolist())
    prompt = list(engine.requests[-1].prompt_ids)
    at = prompt.index(first.start_id)
    assert prompt[at : at + len(wanted)] == wanted


def test_what_was_heard_of_an_answer_are_whole_frames(several: Client) -> None:
    vocabulary, layout = several.model.vocabulary, several.model.vocabulary.layout
    assert layout is not None
    answered = Answered(speaks=True, vocabulary=vocabulary, frames_per_second=10, writes_before_speaking=False)
    for code in cut_answer(several.model, 6, 0):
        answered.add_codes([code])
    answered.add_codes([], is_last=True)
    answered.add_codes(cut_answer(several.model, 6, 2))
    whole, cut = (torch.tensor(part.codes) for part in asyncio.run(answered.said()))  # type: ignore[union-attr]
    assert layout.to_codes(whole).shape[1] == 6
    assert layout.to_codes(cut).shape[1] in (4, 5)
    answered.cut(0.8)
    heard = [layout.to_codes(torch.tensor(part.codes)) for part in asyncio.run(answered.said())]  # type: ignore[union-attr]
    assert [one.shape[1] for one in heard] == [6, 2]
    answered.cut(0.24)
    heard = [layout.to_codes(torch.tensor(part.codes)) for part in asyncio.run(answered.said())]  # type: ignore[union-attr]
    assert [one.shape[1] for one in heard] == [2]


def test_the_inspector_shows_several_codebooks_as_one_row() -> None:
    codec = ToyCodec(3)
    inspector = Inspector(None, codec, "toy")
    assert inspector.other is not None
    given = Recording(sound(0.5), 16000)
    assert len(hear(inspector.other, given).codes) == 15
    rebuilt = rebuild(inspector.other, given)
    assert rebuilt.num_codes == 15
    assert rebuilt.bits_per_second == codec.bits_per_second


def test_codes_of_more_than_ten_minutes_are_refused(several: Client) -> None:
    answerer = Answerer(ServedModel.of(several.model, "toy"), BatchingEngine(several.model))
    with TestClient(build_app(answerer, ServerSettings())) as client:
        refused = client.post("/v1/audio/tokens/decode", json={"codes": [0] * (600 * 30 + 1)})
    assert refused.status_code == 400
    assert "more than those of ten minutes of sound (18000)" in refused.text
