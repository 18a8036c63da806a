"""Chat models behind an endpoint, against a real server on this machine, in good health and bad."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import time
from typing import Any

import pytest

from audiollm.data.chat import endpoint as chat_endpoint
from audiollm.data.chat.asking import ask_all
from audiollm.data.chat.base import ChatError, ChatMessage, EndpointSettings
from audiollm.data.chat.endpoint import EndpointModel
from audiollm.data.chat.opening import open_chat_model

QUESTION = [ChatMessage("system", "Be brief."), ChatMessage("user", "Is it?")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client

    monkeypatch.setattr(chat_endpoint, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


def model(server: Any, **settings: Any) -> EndpointModel:
    return EndpointModel(server.url, settings=EndpointSettings(**settings))


def test_texts_sound_and_options_arrive_as_they_are(chat_server: Any) -> None:
    reply = model(chat_server).ask(
        [QUESTION[0], ChatMessage("user", "Is it?", b"RIFF")], max_tokens=7, temperature=0.5, seed=3
    )
    (request,) = chat_server.requests
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    sound, text = request["messages"][1]["content"]
    assert base64.b64decode(sound["input_audio"]["data"]) == b"RIFF"
    assert sound["input_audio"]["format"] == "wav"
    assert text == {"type": "text", "text": "Is it?"}
    assert (request["model"], request["max_tokens"], request["temperature"], request["seed"]) == ("tiny", 7, 0.5, 3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.num_retries) == ("yes", 100, 10, 0)
    assert not reply.is_cut


@pytest.mark.parametrize(
    "odd",
    [
        {"status": 429},
        {"status": 500, "body": "oops"},
        {"status": 503},
        {"reset": True},
        {"kept_share": 0.5},
        {"body": "<html>the proxy is tired</html>"},
        {"body": "{}"},
        {"body": '{"choices": [{"message": {"content": ""}}]}'},
        {"body": '{"choices": [{"message": {"content": "<think>hm</think> "}}]}'},
    ],
)
def test_what_may_pass_is_asked_again(chat_server: Any, odd: dict[str, Any]) -> None:
    chat_server.misbehave(**odd)
    reply = model(chat_server).ask(QUESTION, max_tokens=5)
    assert reply.text == "yes"
    assert reply.num_retries == 1
    assert len(chat_server.requests) == 2


def test_a_slow_answer_is_asked_for_again(chat_server: Any) -> None:
    chat_server.misbehave(seconds=5.0)
    reply = model(chat_server, timeout_seconds=2).ask(QUESTION, max_tokens=5)
    assert reply.text == "yes"
    assert reply.num_retries >= 1


def test_all_kinds_of_failures_share_one_number_of_retries(chat_server: Any) -> None:
    for _ in range(10):
        chat_server.misbehave(status=500)
        chat_server.misbehave(body="{}")
    with pytest.raises(ChatError, match=r"tried 4 times|500") as stopped:
        model(chat_server, max_retries=3).ask(QUESTION, max_tokens=5)
    assert not stopped.value.fatal
    assert len(chat_server.requests) == 4


def test_a_server_that_asks_for_time_gets_it(chat_server: Any) -> None:
    chat_server.misbehave(status=429, headers={"Retry-After": "1"})
    started = time.perf_counter()
    assert model(chat_server).ask(QUESTION, max_tokens=5).num_retries == 1
    assert time.perf_counter() - started >= 1


@pytest.mark.parametrize(("status", "fatal"), [(400, False), (413, False), (401, True), (403, True), (404, True)])
def test_a_refusal_is_not_asked_again(chat_server: Any, status: int, fatal: bool) -> None:
    chat_server.misbehave(status=status, body='{"error": {"message": "not so"}}')
    with pytest.raises(ChatError, match=f"{status}.*not so") as stopped:
        model(chat_server).ask(QUESTION, max_tokens=5)
    assert stopped.value.fatal == fatal
    assert len(chat_server.requests) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(ChatError, match=f"{url}: no connection .*tried 2 times"):
        EndpointModel(url, settings=EndpointSettings(max_retries=1))


def test_an_answer_that_takes_too_long_is_named(chat_server: Any) -> None:
    chat_server.misbehave(seconds=2.0)
    hasty = EndpointModel(chat_server.url, "tiny", settings=EndpointSettings(timeout_seconds=0.2, max_retries=0))
    with pytest.raises(ChatError, match=r"no answer within 0\.2 s, tried 1 times"):
        hasty.ask(QUESTION, max_tokens=5)


def test_a_cut_answer_says_so_and_thoughts_are_left_out(chat_server: Any) -> None:
    chat_server.finish_reason = "length"
    chat_server.answer = lambda request: "<think>\nlet me see {}\n</think>\n\n no "
    reply = model(chat_server).ask(QUESTION, max_tokens=5)
    assert reply.text == "no"
    assert reply.is_cut


def test_the_only_model_is_found_and_several_are_named(chat_server: Any) -> None:
    assert model(chat_server).name == "tiny"
    chat_server.models = ["large", "small"]
    with pytest.raises(ChatError, match="2 models: name one of large, small") as stopped:
        model(chat_server)
    assert stopped.value.fatal
    assert EndpointModel(chat_server.url, "small").name == "small"


def test_a_key_goes_only_where_it_was_named_for(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("MY_KEY", "mine")
    EndpointModel(chat_server.url).ask(QUESTION, max_tokens=5)
    EndpointModel(chat_server.url, key_variable="MY_KEY").ask(QUESTION, max_tokens=5)
    assert chat_server.keys == ["Bearer none", "Bearer mine"]
    with pytest.raises(ValueError, match=r"NO_KEY is not set.*127"):
        EndpointModel(chat_server.url, key_variable="NO_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        EndpointModel("https://api.openai.com/v1", "gpt")


def test_what_is_no_model_is_refused(chat_server: Any) -> None:
    with pytest.raises(ValueError, match="'localhost:8000' is no chat model"):
        open_chat_model("localhost:8000")
    with pytest.raises(ValueError, match="leave out model"):
        open_chat_model("hf:some/model", "name")
    assert open_chat_model(chat_server.url).name == "tiny"
    with pytest.raises(ValueError, match="timeout_seconds=0"):
        EndpointSettings(timeout_seconds=0)


WHOLE = {
    "id": "1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
}
ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, "x", "", [], {}, [None], ["x"], [[]], {"x": 1}, [{"message": 1}], "\ud83d",
    {"prompt_tokens": "x", "completion_tokens": [1]}, [{"message": {"content": None}, "finish_reason": {}}],
)  # fmt: skip
DEEP = {"lists": b"[" * 100_000, "objects": b'{"choices":' * 100_000, "closed": b"[" * 100_000 + b"]" * 100_000}


def paths(value: Any, own: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [own, *(path for key, one in inner for path in paths(one, (*own, key)))]


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], odd)
    return copy


def mutated_bodies() -> list[bytes]:
    """Completions with one value of another kind, of broken bytes, cut, empty, or nested beyond reason."""
    bodies = [json.dumps(changed(WHOLE, path, odd)).encode() for path in paths(WHOLE) for odd in ODD_VALUES]
    whole = json.dumps(WHOLE).encode()
    draw = random.Random(0)
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        bodies.append(bytes(broken[: draw.randint(0, len(broken))] if draw.random() < 0.3 else broken))
    bodies += [*DEEP.values(), b"", b"null", b"NaN", b"\xff\xfe\x00", b"9" * 5000, whole.replace(b"yes", b"\xff\xc3")]
    return bodies


def test_each_of_hundreds_of_odd_answers_is_the_error_of_its_request_alone(chat_server: Any) -> None:
    bodies = mutated_bodies()
    assert len(bodies) >= 250
    asked = model(chat_server, max_retries=0)
    for body in bodies:
        chat_server.misbehave(body=body)
    outcomes = list(ask_all(bodies, lambda _: asked.ask(QUESTION, max_tokens=5), concurrency=1))
    assert len(outcomes) == len(bodies)
    for outcome in outcomes:
        if outcome.error is not None:
            assert not outcome.error.fatal
            assert str(outcome.error).startswith(f"{chat_server.url}: the reply is ")
        else:
            assert outcome.answer is not None
            assert outcome.answer.text.encode()  # no half characters
            assert outcome.answer.prompt_tokens >= 0
    assert sum(outcome.error is not None for outcome in outcomes) > 80
    assert asked.ask(QUESTION, max_tokens=5).text == "yes"


@pytest.mark.parametrize("usage", ["x", None, [], {"prompt_tokens": "many", "completion_tokens": -3}])
def test_odd_counts_of_tokens_cost_no_answer(chat_server: Any, usage: Any) -> None:
    chat_server.misbehave(body=json.dumps(WHOLE | {"usage": usage}))
    reply = model(chat_server).ask(QUESTION, max_tokens=5)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.num_retries) == ("yes", 0, 0, 0)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_that_drips_in_has_failed_when_its_time_is_over(chat_server: Any, status: int) -> None:
    asked = EndpointModel(chat_server.url, "tiny", settings=EndpointSettings(timeout_seconds=1, max_retries=0))
    chat_server.misbehave(status=status, body=" " * 2000, drip_seconds=0.1)
    with pytest.raises(ChatError, match="no answer within 1 s, tried 1 times"):
        asked.ask(QUESTION, max_tokens=5)
    assert asked.ask(QUESTION, max_tokens=5).text == "yes"


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_without_end_is_read_up_to_a_size(
    chat_server: Any, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_endpoint, "MAX_BODY_BYTES", 2**16)
    body = b" " * 2**22
    chat_server.misbehave(
        body=gzip.compress(body) if packed else body, headers={"Content-Encoding": "gzip"} if packed else {}
    )
    with pytest.raises(ChatError, match=r"longer than 0\.0625 MiB, tried 1 times"):
        model(chat_server, max_retries=0).ask(QUESTION, max_tokens=5)


@pytest.mark.parametrize(
    "asked", ["-5", "nan", "inf", "1e9", "soon", "", "Mon, 99 Foo 2030", "Fri, 31 Dec 9999 23:59:59 GMT"]
)
def test_a_server_that_asks_for_a_senseless_pause_gets_ours(chat_server: Any, asked: str) -> None:
    chat_server.misbehave(status=503, headers={"Retry-After": asked})
    assert model(chat_server).ask(QUESTION, max_tokens=5).num_retries == 1


def test_a_list_of_models_that_is_none_is_refused(chat_server: Any) -> None:
    chat_server.models = [{"deep": 1}, 5]
    with pytest.raises(ChatError, match="2 models"):
        model(chat_server)
