"""Chat models behind an endpoint, against a real server on this machine, in good health and bad."""

from __future__ import annotations

import base64
import socket
import time
from typing import Any

import pytest

from audiollm.data.chat import endpoint as chat_endpoint
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
