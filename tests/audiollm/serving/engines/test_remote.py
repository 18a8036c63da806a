"""The engine that asks vLLM, against a server that answers as vLLM with our plug-in; the real one: test_vllm.py."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.serving.engines.base import EngineError
from audiollm.serving.engines.remote import PLUGIN, VllmEngine
from audiollm.serving.engines.wire import RULES, rules_as_text, rules_from_text


class FakeVllm:
    """Writes tokens one by one, by the rules that come with a request."""

    def __init__(self, model: AudioLLM, port: int = 0) -> None:
        self.model = model
        self.names = ["served"]
        self.has_plugin = True
        self.status: int | None = None  # in place of an answer
        self.dies_after = 10**9  # tokens
        self.fails_after = 10**9  # the rules do
        self.keys: list[str | None] = []
        self.left = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.keys.append(self.headers.get("Authorization"))
                models = [{"id": name, "object": "model", "max_model_len": 1024} for name in fake.names]
                self.reply(200, {"object": "list", "data": models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    fake.answer(body, self)
                except BrokenPipeError:
                    fake.left.set()

            def reply(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: dict[str, Any], handler: Any) -> None:
        if self.status is not None:
            handler.reply(self.status, {"error": {"message": "busy", "type": "ServerError", "code": self.status}})
            return
        prompt, tokenizer = body["prompt"], self.model.processor.tokenizer
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] if isinstance(prompt, str) else prompt
        text = body.get("vllm_xargs", {}).get(RULES) if self.has_plugin else None
        rules = None
        if text is not None:
            try:
                rules = rules_from_text(text, ids)
            except ValueError as error:
                handler.reply(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
                return
        choice = {"index": 0, "text": "", "finish_reason": "length", "token_ids": [0], "prompt_token_ids": ids}
        if rules is None or not body.get("stream"):
            handler.reply(
                200, {"id": "1", "object": "text_completion", "created": 1, "model": "x", "choices": [choice]}
            )
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        while not rules.is_over:
            with torch.no_grad():
                logits = self.model.model(torch.tensor([ids])).logits[0, -1]
            ids = [*ids, rules.choose(logits)]
            if rules.num_new_tokens > self.dies_after:
                return
            failed = rules.num_new_tokens > self.fails_after
            ended = ("stop" if ids[-1] in body["stop_token_ids"] else "length") if rules.is_over else None
            told = {**choice, "token_ids": [len(logits) - 1 if failed else ids[-1]], "finish_reason": ended}
            chunk = {"id": "1", "object": "text_completion", "created": 1, "model": "x", "choices": [told]}
            handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            handler.wfile.flush()
            time.sleep(0.002)
        handler.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def served(tiny_llm: AudioLLM) -> Iterator[FakeVllm]:
    server = FakeVllm(tiny_llm)
    yield server
    server.close()


def test_answers_are_those_of_generate(
    tiny: Any, served: FakeVllm, greedy: dict[str, dict[str, Any]], drawn: dict[str, dict[str, Any]]
) -> None:
    kinds = [*greedy.values(), *({**one, "seed": 5} for one in drawn.values())]
    requests = [tiny.request("Say it.", str(number), **kind) for number, kind in enumerate(kinds)]
    found = tiny.answers(VllmEngine(served.url, tiny.model.processor, api_key="secret"), requests)
    assert found == [tiny.generated("Say it.", **kind) for kind in kinds]
    assert set(served.keys) == {"Bearer secret"}


def test_draws_without_a_seed_differ(tiny: Any, served: FakeVllm, drawn: dict[str, dict[str, Any]]) -> None:
    requests = [tiny.request("Sing.", **drawn["audio"]) for _ in range(3)]
    found = tiny.answers(VllmEngine(served.url, tiny.model.processor), requests)
    assert len({tuple(ids) for ids in found}) == 3


def test_whoever_leaves_closes_the_connection(tiny: Any, served: FakeVllm) -> None:
    engine = VllmEngine(served.url, tiny.model.processor, max_running=1)

    async def main() -> list[int]:
        async with tiny.running(engine):
            tokens = engine.tokens(tiny.request("On and on.", modalities="audio", min_seconds=30, do_sample=False))
            await anext(tokens)
            await tokens.aclose()
            return await tiny.read(engine, tiny.request("And now?", max_new_tokens=3))

    assert tiny.within(30, main) == tiny.generated("And now?", max_new_tokens=3)
    assert served.left.wait(10)


def test_no_more_run_at_once_than_are_let(tiny: Any, served: FakeVllm) -> None:
    engine = VllmEngine(served.url, tiny.model.processor, max_running=2)
    endless = {"modalities": "audio", "min_seconds": 30, "do_sample": False}

    async def main() -> list[Any]:
        await engine.start()
        running = [engine.tokens(tiny.request("On and on.", **endless)) for _ in range(2)]
        for one in running:
            await anext(one)
        third = asyncio.create_task(tiny.read(engine, tiny.request("Me too?", max_new_tokens=3)))
        await asyncio.sleep(0.05)
        assert not third.done()
        await running[0].aclose()
        assert await third == tiny.generated("Me too?", max_new_tokens=3)
        last = asyncio.create_task(anext(running[1]))
        await engine.stop()
        results = await asyncio.gather(last, return_exceptions=True)
        while not isinstance(results[0], EngineError):  # what had come before
            results = await asyncio.gather(anext(running[1]), return_exceptions=True)
        return results

    [error] = tiny.within(30, main)
    assert "stopped" in str(error)


def no_plugin(served: FakeVllm) -> None:
    served.has_plugin = False


def two_models(served: FakeVllm) -> None:
    served.names = ["one", "two"]


def no_server(served: FakeVllm) -> None:
    served.close()


def busy(served: FakeVllm) -> None:
    served.status = 503


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (no_plugin, {}, rf"does not keep to the rules of answers: start vLLM with --logits-processors {PLUGIN}"),
        (two_models, {}, "has 2 models: name one of one, two"),
        (two_models, {"model": "three"}, "has no model three: name one of one, two"),
        (no_server, {}, r"127\.0\.0\.1:\d+/v1 cannot be reached"),
        (busy, {}, "busy"),
    ],
)
def test_a_server_that_cannot_answer_is_told_at_the_start(
    tiny: Any, served: FakeVllm, change: Callable[[FakeVllm], None], settings: dict[str, str], message: str
) -> None:
    change(served)
    engine = VllmEngine(served.url, tiny.model.processor, **settings)
    with pytest.raises(EngineError, match=message):
        tiny.answers(engine, [])
    assert not engine.is_ready


def test_one_that_serves_another_vocabulary_is_told_at_the_start(
    tiny: Any, served: FakeVllm, mini_llm: AudioLLM
) -> None:
    other: AudioLLMProcessor = mini_llm.processor
    with pytest.raises(EngineError, match=r"serves served with another vocabulary: .*serve the same folder on both"):
        tiny.answers(VllmEngine(served.url, other), [])


def test_a_server_that_dies_fails_its_answers_and_is_found_again(
    tiny: Any, served: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiollm.serving.engines.remote._PAUSE_SECONDS", 0.01)
    engine = VllmEngine(served.url, tiny.model.processor)

    async def main() -> None:
        async with tiny.running(engine):
            served.dies_after = 2
            with pytest.raises(EngineError, match="ended in the middle of an answer"):
                await tiny.read(engine, tiny.request("Hello?", max_new_tokens=6))
            served.close()
            with pytest.raises(EngineError, match="cannot be reached"):
                await tiny.read(engine, tiny.request("Hello?", max_new_tokens=6))
            assert not engine.is_ready
            again = FakeVllm(tiny.model, served.port)
            try:
                while not engine.is_ready:
                    await asyncio.sleep(0.01)
                assert await tiny.read(engine, tiny.request("Hello?", max_new_tokens=6)) == wanted
            finally:
                again.close()

    wanted = tiny.generated("Hello?", max_new_tokens=6)
    tiny.within(30, main)


def test_rules_that_fail_there_are_told_here(tiny: Any, served: FakeVllm) -> None:
    served.fails_after = 2
    [error] = tiny.answers(VllmEngine(served.url, tiny.model.processor), [tiny.request("x", "r", max_new_tokens=6)])
    assert isinstance(error, EngineError)
    assert "request r: its rules failed" in str(error)


def test_prompts_that_are_none_are_refused(tiny: Any, served: FakeVllm) -> None:
    good = tiny.request("x", "odd", max_new_tokens=12)
    bad = [replace(good, prompt_ids=ids) for ids in ((10**6,), (5,) * 1020)]
    unknown, too_long = tiny.answers(VllmEngine(served.url, tiny.model.processor), bad)
    assert isinstance(unknown, ValueError)
    assert "request odd: the prompt holds 1000000" in str(unknown)
    assert isinstance(too_long, ValueError)
    assert "the context holds 1024" in str(too_long)


@pytest.mark.parametrize("text", [None, "", "?", "[]", '{"format": 0}', '{"format": 1}', '{"format": 1, "plan": {}}'])
def test_a_text_that_holds_no_rules_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=RULES):
        rules_from_text(text, [0])


def test_rules_are_the_same_behind_a_text(tiny: Any, drawn: dict[str, dict[str, Any]]) -> None:
    logits = torch.randn(20, tiny.model.model.config.vocab_size, generator=torch.Generator().manual_seed(1))
    for kind in drawn.values():
        request = tiny.request("Sing.", seed=4, **kind)
        text = rules_as_text(request.plan, tiny.model.vocabulary, len(tiny.model.processor.tokenizer))
        whole, rest = rules_from_text(text, request.prompt_ids), None
        ids = []
        for number, one in enumerate(logits):
            if whole.is_over:
                break
            ids.append(whole.choose(one))
            if rest is not None:  # of a row that began anew in between
                assert rest.choose(one) == ids[-1]
            if number == 4:
                rest = rules_from_text(text, request.prompt_ids, ids)
