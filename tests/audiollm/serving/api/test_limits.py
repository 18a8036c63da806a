"""A server that is busy, late, asked too much, or left: named, and nothing stays behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

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
        assert httpx.get(f"{url}/health").status_code == 200


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
