"""A server that is busy, late, asked too much, or left: named, and nothing stays behind."""

from __future__ import annotations

import base64
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from audiollm.serving.engines.base import EngineError
from audiollm.serving.server import run_app

from .conftest import ScriptedEngine, served, until, wav

USER = [{"role": "user", "content": "Good day"}]
BODY = {"model": "mini", "messages": USER}


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def test_more_requests_than_there_is_room_for_are_sent_away(scripted: ScriptedEngine, app_with: Any) -> None:
    scripted.seconds, scripted.max_running = 0.3, 1
    app = app_with(scripted, max_waiting=1)
    with served(app) as url:
        answers: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(httpx.post(f"{url}/v1/chat/completions", json=BODY).status_code)
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: app.state.server.answerer.admission.num_inside == 2)
        refused = httpx.post(f"{url}/v1/chat/completions", json=BODY)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "server_busy"
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        figures = httpx.get(f"{url}/metrics").text
        assert 'audiollm:requests_total{route="/v1/chat/completions",status="429"} 1.0' in figures.replace(
            "audiollm_requests", "audiollm:requests"
        )


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_frees_its_place(scripted: ScriptedEngine, app_with: Any, is_stream: bool) -> None:
    scripted.seconds = 0.2
    scripted.answer = lambda request: [100] * 1000
    app = app_with(scripted)
    with served(app) as url:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{url}/v1/chat/completions", json={**BODY, "stream": is_stream}, timeout=0.5).json()
        until(lambda: scripted.num_running == 0, seconds=2)
        until(lambda: app.state.server.answerer.admission.num_inside == 0, seconds=2)


def test_a_speech_that_is_left_stops(scripted: ScriptedEngine, app_with: Any, mini: Any) -> None:
    scripted.seconds = 0.05
    vocabulary = mini.vocabulary
    scripted.answer = lambda request: [vocabulary.start_id, *vocabulary.codes_to_token_ids(list(range(600)))]
    app = app_with(scripted)
    with served(app) as url:
        asked = {"model": "mini", "input": "Good day", "response_format": "pcm"}
        with httpx.stream("POST", f"{url}/v1/audio/speech", json=asked, timeout=20) as answer:
            assert len(next(answer.iter_raw())) > 0
        until(lambda: scripted.num_running == 0, seconds=2)
        until(lambda: app.state.server.answerer.admission.num_inside == 0, seconds=2)


def test_an_answer_that_takes_too_long_is_ended(scripted: ScriptedEngine, app_with: Any) -> None:
    scripted.seconds = 0.2
    scripted.answer = lambda request: [100] * 100
    with served(app_with(scripted, deadline_seconds=0.5)) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=BODY)
        assert answer.status_code == 504
        assert answer.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match=r"not there after 0\.5 s"):
            list(client_of(url).chat.completions.create(**BODY, stream=True))
        until(lambda: scripted.num_running == 0)


def test_a_key_is_asked_for(scripted: ScriptedEngine, app_with: Any) -> None:
    with served(app_with(scripted, api_keys=("right", "also right"))) as url:
        for key in ("right", "also right"):
            assert client_of(url, key).models.list().data
        for key in ("wrong", "righ", "right right"):
            with pytest.raises(openai.AuthenticationError):
                client_of(url, key).models.list()
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/health").status_code == httpx.head(f"{url}/health").status_code == 200


def test_connections_of_a_key_are_counted(scripted: ScriptedEngine, app_with: Any) -> None:
    scripted.seconds = 0.3
    with served(app_with(scripted, max_connections_per_key=1)) as url:
        thread = threading.Thread(target=lambda: httpx.post(f"{url}/v1/chat/completions", json=BODY))
        thread.start()
        until(lambda: scripted.num_running == 1)
        assert httpx.get(f"{url}/v1/models").json()["error"]["code"] == "too_many_connections"
        thread.join()
        assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_body_is_counted_whatever_its_header_says(scripted: ScriptedEngine, app_with: Any) -> None:
    with served(app_with(scripted, max_body_bytes=1000)) as url:

        def pieces() -> Any:
            for _ in range(100):
                yield b"x" * 100

        for content in (b"x" * 2000, pieces()):
            answer = httpx.post(f"{url}/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "too_large"


def test_recordings_are_counted_while_they_are_decoded(scripted: ScriptedEngine, app_with: Any) -> None:
    from audiollm.serving.sound.uploads import UploadLimits

    limits = UploadLimits(max_seconds=1.0)
    with served(app_with(scripted, uploads=limits)) as url:
        for path, name in (("transcriptions", "file"), ("tokens/encode", "file")):
            files = {name: ("a.wav", wav(3.0))}
            answer = httpx.post(f"{url}/v1/audio/{path}", files=files, data={"model": "mini"})
            assert answer.status_code == 413, path
            assert answer.json()["error"]["param"] == name


def test_an_upload_that_hangs_holds_no_place(scripted: ScriptedEngine, app_with: Any) -> None:
    app = app_with(scripted)
    with served(app) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            assert app.state.server.answerer.admission.num_inside == 0
            assert httpx.post(f"{url}/v1/chat/completions", json=BODY).status_code == 200


def test_the_server_ends_when_what_runs_has_been_answered(scripted: ScriptedEngine, app_with: Any) -> None:
    scripted.seconds = 0.1
    answers: list[str] = []
    with served(app_with(scripted)) as url:
        thread = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/v1/chat/completions", json=BODY).json()["choices"][0]["message"]["content"]
            )
        )
        thread.start()
        until(lambda: scripted.num_running == 1)
    thread.join()
    assert answers == ["Good morning."]


def test_readiness_is_the_engines(scripted: ScriptedEngine, app_with: Any) -> None:
    with served(app_with(scripted)) as url:
        assert httpx.get(f"{url}/ready").status_code == 200
        scripted.is_ready = False
        assert httpx.get(f"{url}/ready").status_code == 503
        assert httpx.get(f"{url}/health").status_code == 200


def test_figures_are_told(scripted: ScriptedEngine, app_with: Any, writes: Callable[..., list[int]]) -> None:
    scripted.answer = lambda request: writes("Good", list(range(30)))
    with served(app_with(scripted)) as url:
        spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
        assert httpx.post(f"{url}/v1/chat/completions", json={**BODY, **spoken}).status_code == 200
        figures = httpx.get(f"{url}/metrics").text
    for line in (
        "vllm:num_requests_running 0.0",
        "vllm:generation_tokens_total",
        "audiollm:codes_total 30.0",
        "audiollm:time_to_first_audio_seconds_count 1.0",
        "audiollm:real_time_factor_count 1.0",
    ):
        assert line in figures


@pytest.mark.parametrize("route", ["speech", "transcriptions"])
def test_all_parts_of_a_request_have_one_deadline(
    scripted: ScriptedEngine,
    app_with: Any,
    writes: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    route: str,
) -> None:
    scripted.answer = lambda request: writes("Go.", [1, 2])
    app = app_with(scripted, max_part_characters=20)
    answerer, deadlines = app.state.server.answerer, []
    answering = answerer.answering

    def watched(request: Any, **settings: Any) -> Any:
        deadlines.append(settings["deadline"])
        return answering(request, **settings)

    monkeypatch.setattr(answerer, "answering", watched)
    asked: dict[str, Any] = {"json": {"model": "mini", "input": "The kettle is on. " * 3}}
    if route == "transcriptions":
        asked = {"files": {"file": ("a.wav", wav(60.0))}, "data": {"model": "mini"}}
    with served(app) as url:
        assert httpx.post(f"{url}/v1/audio/{route}", timeout=60, **asked).status_code == 200
    assert len(deadlines) > 1
    assert len(set(deadlines)) == 1
    assert deadlines[0] is not None


def test_codes_have_a_deadline_too(scripted: ScriptedEngine, app_with: Any) -> None:
    with served(app_with(scripted, deadline_seconds=1e-4)) as url:
        encoded = httpx.post(f"{url}/v1/audio/tokens/encode", files={"file": ("a.wav", wav())}, timeout=60)
        decoded = httpx.post(f"{url}/v1/audio/tokens/decode", json={"codes": [1] * 50}, timeout=60)
        spoken = httpx.post(f"{url}/v1/audio/speech", json={"model": "mini", "input": "Go."}, timeout=60)
    assert encoded.status_code == decoded.status_code == spoken.status_code
    assert "as long as one may take" in decoded.json()["error"]["message"]


def test_recordings_of_a_request_share_the_memory(scripted: ScriptedEngine, app_with: Any) -> None:
    from audiollm.serving.sound.uploads import UploadLimits

    data = base64.b64encode(wav(1.0)).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    with served(app_with(scripted, uploads=UploadLimits(max_decoded_bytes=150_000))) as url:
        for num_recordings, status in ((2, 200), (3, 413)):
            messages = [{"role": "user", "content": [part]}] * num_recordings
            answer = httpx.post(f"{url}/v1/chat/completions", json={"model": "mini", "messages": messages}, timeout=30)
            assert answer.status_code == status
        assert answer.json()["error"]["param"] == "messages[2].content[0].input_audio.data"


def test_encoding_takes_a_place(scripted: ScriptedEngine, app_with: Any) -> None:
    scripted.seconds, scripted.max_running = 0.3, 1
    app = app_with(scripted, max_waiting=0)
    with served(app) as url:
        thread = threading.Thread(target=lambda: httpx.post(f"{url}/v1/chat/completions", json=BODY))
        thread.start()
        until(lambda: app.state.server.answerer.admission.num_inside == 1)
        assert httpx.post(f"{url}/v1/audio/tokens/encode", files={"file": ("a.wav", wav())}).status_code == 429
        for route in ("tokens/encode", "transcriptions"):  # what has no place is not decoded, or this were found bad
            form = {"files": {"file": ("a.wav", b"no sound")}, "data": {"model": "mini"}}
            assert httpx.post(f"{url}/v1/audio/{route}", **form).status_code == 429
        thread.join()
        assert httpx.post(f"{url}/v1/audio/tokens/encode", files={"file": ("a.wav", wav())}).status_code == 200


@pytest.mark.parametrize("is_told", [False, True])
def test_transcripts_are_logged_and_counted_as_other_answers(
    scripted: ScriptedEngine, app_with: Any, caplog: pytest.LogCaptureFixture, is_told: bool
) -> None:
    with caplog.at_level(logging.INFO), served(app_with(scripted, log_content=is_told)) as url:
        form = {"files": {"file": ("a.wav", wav())}, "data": {"model": "mini"}}
        assert httpx.post(f"{url}/v1/audio/transcriptions", **form).json()["text"] == "Good morning."
        figures = httpx.get(f"{url}/metrics").text
    assert ("Good morning." in caplog.text) is is_told
    assert "vllm:time_to_first_token_seconds_count 1.0" in figures


def test_a_key_may_have_any_letters(scripted: ScriptedEngine, app_with: Any) -> None:
    with served(app_with(scripted, api_keys=("schlüssel",))) as url:
        for given, status in (("schlüssel", 200), ("schlussel", 401), ("schl?ssel", 401)):
            headers = {"Authorization": f"Bearer {given}".encode()}
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == status


def test_why_a_server_cannot_start_is_told_in_a_line(
    scripted: ScriptedEngine, app_with: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def start() -> None:
        raise EngineError("vLLM cannot be reached")

    monkeypatch.setattr(scripted, "start", start)
    with pytest.raises(SystemExit) as exit_:
        run_app(app_with(scripted), host="127.0.0.1", port=0)
    assert exit_.value.code not in (0, None)
    told = capfd.readouterr().err
    assert "vLLM cannot be reached" in told
    assert "Traceback" not in told


def test_an_answer_is_called_by_clients_of_its_own_key_alone(
    scripted: ScriptedEngine, app_with: Any, writes: Callable[..., list[int]]
) -> None:
    scripted.answer = lambda request: writes("Good", list(range(30)))
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}
    with served(app_with(scripted, api_keys=("one", "two"))) as url:

        def ask(key: str, **changed: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(f"{url}/v1/chat/completions", json={**BODY, **changed}, headers=headers, timeout=30)

        former = ask("one", **spoken).json()["choices"][0]["message"]["audio"]["id"]
        messages = [*USER, {"role": "assistant", "audio": {"id": former}}, *USER]
        assert ask("one", messages=messages).status_code == 200
        assert ask("two", messages=messages).json()["error"]["code"] == "audio_not_found"
