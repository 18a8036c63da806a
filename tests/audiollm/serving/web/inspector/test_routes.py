"""The inspector's routes: what they tell, what they refuse, and that keys and limits hold for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
import soundfile as sf
from fastapi import FastAPI
from fastapi.testclient import TestClient

from audiollm import AudioLLM
from audiollm.serving.web.inspector.describing import FIELDS, fields_for
from audiollm.serving.web.inspector.routes import Inspector

from ...api.conftest import ScriptedEngine, wav

PageApp = Callable[..., FastAPI]


@pytest.fixture
def client(page_app: PageApp, scripted: ScriptedEngine) -> Any:
    with TestClient(page_app(scripted)) as found:
        yield found


def test_a_recording_comes_back_as_pictures_and_codes(client: TestClient, tone: bytes, mini: AudioLLM) -> None:
    heard = client.post("/v1/inspector/recording", files={"file": tone}).json()
    assert heard["codes"] == client.post("/v1/audio/tokens/encode", files={"file": tone}).json()["codes"]
    assert len(heard["commonness"]) == len(heard["codes"]) == 13
    assert all(0 <= value <= 1 for value in heard["gate"])
    assert len(base64.b64decode(heard["mel"]["bytes"])) == heard["mel"]["rows"] * heard["mel"]["columns"]
    assert set(heard["nearest"]) == {str(code) for code in heard["codes"]}
    assert all(0 <= other < heard["codebook_size"] for found in heard["nearest"].values() for other, _ in found)


def test_a_recording_goes_through_its_codes_and_back(client: TestClient, tone: bytes) -> None:
    made = client.post("/v1/inspector/reconstruction", files={"file": tone}).json()
    samples, rate = sf.read(io.BytesIO(base64.b64decode(made["rebuilt"]["sound"])))
    assert len(samples) / rate == pytest.approx(0.5, abs=0.01)
    assert made["mel_distance"] > 0


def test_a_second_tokenizer_is_looked_at_where_there_is_one(
    page_app: PageApp, scripted: ScriptedEngine, mini: AudioLLM, tone: bytes
) -> None:
    other = mini.processor.audio_tokenizer
    with TestClient(page_app(scripted, Inspector(None, other, "the same again"))) as client:
        assert client.get("/v1/inspector").json()["tokenizers"]["other"]["name"] == "the same again"
        found = [
            client.post("/v1/inspector/recording", files={"file": tone}, data={"tokenizer": which}).json()
            for which in ("own", "other")
        ]
        assert found[0] == found[1]


def test_without_a_second_tokenizer_the_way_to_one_is_told(client: TestClient, tone: bytes) -> None:
    assert client.get("/v1/inspector").json()["tokenizers"]["other"] is None
    refused = client.post("/v1/inspector/recording", files={"file": tone}, data={"tokenizer": "other"})
    assert refused.status_code == 400
    assert "--compare-tokenizer" in refused.json()["error"]["message"]


def test_a_record_is_asked_for_field_by_field(
    page_app: PageApp, scripted: ScriptedEngine, writes: Callable[..., list[int]], tone: bytes
) -> None:
    answers = iter(["speech", *["yes"] * len(FIELDS)])
    scripted.answer = lambda request: writes(next(answers))
    with TestClient(page_app(scripted)) as client:
        fields = client.post("/v1/inspector/description", files={"file": tone}).json()["fields"]
    assert [one["name"] for one in fields] == ["sound_type", *FIELDS]
    asked = {one["name"] for one in fields if one["answer"] is not None}
    assert asked == {"sound_type", *fields_for("speech")}
    assert all((one["answer"] is None) == (one["why_not"] is not None) for one in fields)


def test_nobody_is_asked_for_the_voice_of_a_sound() -> None:
    assert fields_for("music") == fields_for("sound") == ("summary", "events")


def test_probabilities_of_prompt_and_answer(client: TestClient, mini: AudioLLM) -> None:
    body = {"model": "mini", "messages": [{"role": "user", "content": "Hello"}], "answer": "A bell."}
    tokens = client.post("/v1/inspector/tokens", json=body).json()["tokens"]
    answer = [one for one in tokens if one["is_answer"]]
    assert "".join(one["text"] for one in answer[:-1]) == "A bell."
    assert answer[-1]["token_id"] == mini.processor.tokenizer.eos_token_id
    assert all(0 <= one["probability"] <= 1 for one in tokens[1:])


def test_an_engine_without_weights_has_no_probabilities_and_says_so(
    page_app: PageApp, scripted: ScriptedEngine
) -> None:
    body = {"model": "mini", "messages": [{"role": "user", "content": "Hello"}], "answer": "A bell."}
    with TestClient(page_app(scripted, Inspector(None))) as client:
        why = client.get("/v1/inspector").json()["why_no_chances"]
        refused = client.post("/v1/inspector/tokens", json=body)
    assert "not in this process" in why
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == why


@pytest.mark.parametrize("route", ["recording", "reconstruction", "description"])
def test_what_is_no_audio_or_too_much_of_it_is_refused(page_app: PageApp, scripted: ScriptedEngine, route: str) -> None:
    with TestClient(page_app(scripted)) as client:
        bad = client.post(f"/v1/inspector/{route}", files={"file": b"RIFFxxxxWAVE nonsense"})
        many = client.post(f"/v1/inspector/{route}", files={"file": wav(601, rate=1000)})
    assert bad.status_code == 400
    assert bad.json()["error"]["param"] == "file"
    assert many.status_code == 413


@pytest.mark.parametrize("route", ["", "/recording", "/reconstruction", "/description", "/tokens"])
def test_keys_are_asked_for(page_app: PageApp, scripted: ScriptedEngine, tone: bytes, route: str) -> None:
    with TestClient(page_app(scripted, api_keys=("secret",))) as client:
        method = "GET" if route == "" else "POST"
        assert client.request(method, f"/v1/inspector{route}", files={"file": tone}).status_code == 401
        known = {"Authorization": "Bearer secret"}
        assert client.get("/v1/inspector", headers=known).status_code == 200


def test_looking_takes_a_place_like_any_request(page_app: PageApp, scripted: ScriptedEngine, tone: bytes) -> None:
    app = page_app(scripted, max_waiting=0)
    with TestClient(app) as client:
        app.state.server.answerer.admission.num_inside = scripted.max_running
        assert client.post("/v1/inspector/recording", files={"file": tone}).status_code == 429
        app.state.server.answerer.admission.num_inside = 0
