"""The load of servers: what is asked, what figures say of the answers, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from audiollm.benchmarks.speed import serving_load
from audiollm.benchmarks.speed.serving.clients import Answered, LoadError, ask, load, speech
from audiollm.benchmarks.speed.serving.figures import load_figures, quantile
from audiollm.benchmarks.speed.serving.servers import ServerProcessError, running_vllm_server
from audiollm.benchmarks.speed.serving_load import Loaded, ServingLoadConfig, make_requests, measure

SECOND = "AAAA" * 16_000  # base64 of 48,000 bytes
SPEECH = [
    {"type": "speech.audio.delta", "audio": SECOND},
    {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 25, "total_tokens": 28}},
]
TEXT = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "word"}}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
]


@contextmanager
def answering(speech_events: list[dict[str, Any]] = SPEECH, status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server whose answers are written down; gives its address and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            for event in speech_events if "speech" in self.path else TEXT:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_is_counted() -> None:
    with answering() as (url, _):
        answers, seconds = load(url, [[speech("m", "Good day", 0)] * 2] * 3, 10)
    assert [len(own) for own in answers] == [2, 2, 2]
    for own in answers:
        for one in own:
            assert 0 < one.first_seconds <= one.seconds <= seconds
            assert (one.sound_seconds, one.num_tokens) == (1.0, 25)


@pytest.mark.parametrize(
    ("events", "status", "what"),
    [(SPEECH, 503, "status 503"), ([{"error": {"message": "burst"}}], 200, "burst"), (SPEECH[1:], 200, "is empty")],
)
def test_what_is_no_answer_is_told(events: list[dict[str, Any]], status: int, what: str) -> None:
    with answering(events, status) as (url, _), pytest.raises(LoadError, match=what):
        ask(url, speech("m", "Good day", 0), 10)


def test_a_server_that_runs_is_measured() -> None:
    with answering() as (url, asked):
        config = ServingLoadConfig(engines=(), url=url, name="m", clients=(1, 2), requests=1, rounds=1)
        results = json.loads(json.dumps(measure(config)))
    assert set(results["results"]) == {f"{task}, {n} at once" for task in ("speech", "listening") for n in (1, 2)}
    for title, servers in results["results"].items():
        figures = servers[url]
        assert figures["answers"] == int(title.split()[1])
        assert figures["tokens_per_second"] > 0
        assert ("real_time_factor_p95" in figures) == title.startswith("speech")
    assert {body["model"] for body in asked} == {"m"}


def test_every_server_is_asked_the_same_and_each_request_differs() -> None:
    config = ServingLoadConfig(requests=2)
    first, other = (make_requests("speech", Loaded(url, "m"), config, b"", 3, 1) for url in ("http://a", "http://b"))
    assert first == other
    seeds = [one.body["seed"] for own in first for one in own]
    assert len(set(seeds)) == len(seeds) == 6


def test_figures_say_who_waits() -> None:
    quick, slow = Answered(0.5, 1.0, 2.0, 50), Answered(1.0, 4.0, 2.0, 50)
    figures = load_figures([([[quick, quick], [slow]], 5.0)])
    assert figures["slowest_by_fastest_client"] == 4.0
    assert figures["tokens_per_second"] == 30.0
    assert figures["speech_seconds_per_second"] == 1.2
    assert (figures["first_p50_seconds"], figures["first_p95_seconds"]) == (0.5, 1.0)
    assert (figures["real_time_factor_p50"], figures["real_time_factor_p95"]) == (0.5, 2.0)
    assert [quantile(range(1, 101), share) for share in (0.5, 0.95)] == [50, 95]


def test_what_cannot_be_compared_is_refused() -> None:
    for wrong, why in (
        ({"clients": (0,)}, "clients"), ({"rounds": 0}, "rounds=0"), ({"engines": ()}, "engines is empty"),
        ({"tasks": ()}, "tasks is empty"), ({"url": "127.0.0.1"}, "url=127.0.0.1"), ({"limit_seconds": 0}, "limit_"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            ServingLoadConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ServerProcessError, match="cannot be run"), running_vllm_server("/no/python", "f", "float32", 5):
        pass
    assert serving_load.TEXTS
