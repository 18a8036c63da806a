"""Chat through the official client: text, recordings, speech, streams, tools, and what is refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile as sf
import torch

from .conftest import ScriptedEngine, served, until

USER = [{"role": "user", "content": "Good day"}]
CODES = list(range(40, 80))


@pytest.fixture
def client(scripted: ScriptedEngine, app_with: Any) -> Iterator[openai.OpenAI]:
    with served(app_with(scripted)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_an_answer_comes_with_its_usage(client: openai.OpenAI, scripted: ScriptedEngine) -> None:
    answer = client.chat.completions.create(model="mini", messages=USER)
    assert answer.choices[0].message.content == "Good morning."
    assert answer.choices[0].finish_reason == "stop"
    [request] = scripted.requests
    assert answer.usage.prompt_tokens == len(request.prompt_ids)
    assert answer.usage.completion_tokens == len(scripted.answer(request))
    assert answer.usage.completion_tokens_details.audio_tokens == 0
    assert request.plan.sampling is None


def test_a_cut_answer_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mini", messages=USER, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_a_recording_is_heard_whatever_it_is_called(
    client: openai.OpenAI, scripted: ScriptedEngine, mini: Any, tone: bytes
) -> None:
    data = base64.b64encode(tone).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    client.chat.completions.create(model="mini", messages=[{"role": "user", "content": [part]}])
    samples, rate = sf.read(io.BytesIO(tone), dtype="float32")
    codes = mini.processor.audio_tokenizer.encode([torch.from_numpy(samples)], rate)[0][0].tolist()
    ids = list(scripted.requests[0].prompt_ids)
    start = ids.index(mini.vocabulary.start_id)
    assert mini.vocabulary.wrap(codes) == ids[start : start + len(codes) + 2]


def test_a_stream_joins_to_the_answer(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="mini", messages=USER, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Good morning."
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert len({one.id for one in chunks}) == 1


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "aac", "pcm16"])
def test_an_answer_is_spoken(
    client: openai.OpenAI, scripted: ScriptedEngine, writes: Callable[..., list[int]], form: str
) -> None:
    scripted.answer = lambda request: writes("Good", CODES)
    answer = client.chat.completions.create(
        model="mini", messages=USER, modalities=["text", "audio"], audio={"voice": "default", "format": form}, seed=3
    )
    message = answer.choices[0].message
    assert message.content is None
    assert message.audio.transcript == "Good"
    data = base64.b64decode(message.audio.data)
    if form == "pcm16":
        assert len(data) / 2 / 24_000 == pytest.approx(len(CODES) / 25, abs=0.1)
    elif form in ("wav", "flac", "mp3", "opus"):
        samples, rate = sf.read(io.BytesIO(data))
        assert len(samples) / rate == pytest.approx(len(CODES) / 25, abs=0.1)
    else:
        assert data[0] == 0xFF  # the frame mark of ADTS
    assert answer.usage.completion_tokens_details.audio_tokens == len(CODES) + 2


def test_the_client_adds_up_streamed_speech_without_loss(
    client: openai.OpenAI, scripted: ScriptedEngine, writes: Callable[..., list[int]]
) -> None:
    scripted.answer = lambda request: writes("Good", CODES)
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}, "seed": 3}
    with client.chat.completions.stream(model="mini", messages=USER, **spoken) as stream:
        for _ in stream:
            pass
        audio = stream.get_final_completion().choices[0].message.audio
    streamed = np.frombuffer(base64.b64decode(audio.data), "<i2").astype(np.float64)
    assert audio.transcript == "Good"
    assert audio.id.count("audio_") == 1
    assert len(streamed) / 24_000 == pytest.approx(len(CODES) / 25, abs=0.1)
    # A former answer is called by its id: its words and codes are in the next prompt.
    scripted.requests.clear()
    former = [*USER, {"role": "assistant", "audio": {"id": audio.id}}, {"role": "user", "content": "And now?"}]
    client.chat.completions.create(model="mini", messages=former)
    ids = list(scripted.requests[0].prompt_ids)
    expected = writes("Good", CODES)[:-1]
    assert any(ids[start : start + len(expected)] == expected for start in range(len(ids)))


def test_an_answer_of_long_ago_is_named(client: openai.OpenAI) -> None:
    former = [*USER, {"role": "assistant", "audio": {"id": "audio_gone"}}, {"role": "user", "content": "And now?"}]
    with pytest.raises(openai.BadRequestError, match="no answer 'audio_gone' is kept here") as caught:
        client.chat.completions.create(model="mini", messages=former)
    assert caught.value.param == "messages[1].audio.id"


def test_a_stop_text_ends_an_answer_before_it(client: openai.OpenAI, scripted: ScriptedEngine) -> None:
    answer = client.chat.completions.create(model="mini", messages=USER, stop=["morn", "xyz"])
    assert answer.choices[0].message.content == "Good "
    assert answer.choices[0].finish_reason == "stop"
    until(lambda: scripted.num_running == 0)
    chunks = client.chat.completions.create(model="mini", messages=USER, stop="morn", stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "Good "


@pytest.mark.parametrize("is_stream", [False, True])
def test_calls_of_tools_are_taken_apart(
    client: openai.OpenAI, scripted: ScriptedEngine, writes: Callable[..., list[int]], is_stream: bool
) -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm"}}\n</tool_call>'
    scripted.answer = lambda request: writes(f"Let me see. {call}")
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    asked = {"model": "mini", "messages": USER, "tools": tools, "max_completion_tokens": 200}
    if is_stream:
        chunks = list(client.chat.completions.create(stream=True, **asked))
        content = "".join(one.choices[0].delta.content or "" for one in chunks)
        calls = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []]
        reason = chunks[-1].choices[0].finish_reason
    else:
        [choice] = client.chat.completions.create(**asked).choices
        content, calls, reason = choice.message.content, choice.message.tool_calls, choice.finish_reason
    assert content.strip() == "Let me see."
    assert [(one.function.name, one.function.arguments) for one in calls] == [("weather", '{"place": "Ulm"}')]
    assert reason == "tool_calls"


@pytest.mark.parametrize("is_stream", [False, True])
def test_calls_of_tools_are_no_part_of_a_transcript(
    client: openai.OpenAI, scripted: ScriptedEngine, writes: Callable[..., list[int]], is_stream: bool
) -> None:
    scripted.answer = lambda request: writes(
        "Let me see.", CODES, '<tool_call>{"name": "weather"}</tool_call>', "1 < 2 <"
    )
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    audio = {"voice": "default", "format": "pcm16"}
    asked: Any = {"model": "mini", "messages": USER, "tools": tools, "modalities": ["text", "audio"], "audio": audio}
    if is_stream:
        deltas = [one.choices[0].delta.to_dict() for one in client.chat.completions.create(stream=True, **asked)]
        assert not any(delta.get("content") for delta in deltas)
        transcript = "".join(delta.get("audio", {}).get("transcript", "") for delta in deltas)
        calls = [one for delta in deltas for one in delta.get("tool_calls", ())]
    else:
        message = client.chat.completions.create(**asked).choices[0].message
        transcript, calls = message.audio.transcript, message.tool_calls
    assert transcript == "Let me see.1 < 2 <"
    assert len(calls) == 1


def test_answers_have_ids_of_their_own_whatever_requests_are_called(client: openai.OpenAI) -> None:
    same = {"x-request-id": "again"}
    answers = [client.chat.completions.create(model="mini", messages=USER, extra_headers=same) for _ in range(2)]
    assert answers[0].id != answers[1].id


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"n": 2}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"extra_body": {"max_seconds": 2.0}}, "max_seconds"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"temperature": 3.0}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"modalities": ["text", "video"]}, "modalities[1]"),
        ({"audio": {"voice": "default", "format": "wav"}}, "audio"),
        ({"stream": True, "modalities": ["audio"], "audio": {"voice": "default", "format": "mp3"}}, "audio.format"),
        ({"modalities": ["audio"], "audio": {"voice": "nobody", "format": "wav"}}, "audio.voice"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"extra_body": {"best_of": 3}}, "best_of"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, changed: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": "mini", "messages": USER} | changed))
    assert caught.value.param == param
    assert param.split(".")[0].split("[")[0] in str(caught.value.body["message"])  # type: ignore[index]


def recording(data: str) -> list[Any]:
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "is empty"),
        ("data:audio/wav;base64,AAAA", "is a data URL"),
        ("###", "is not base64"),
        (base64.b64encode(b"PK\x03\x04 a zip").decode(), "input_audio.data"),
        (base64.b64encode(b"words, not sound").decode(), "input_audio.data"),
    ],
)
def test_a_bad_recording_is_named(client: openai.OpenAI, data: str, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        client.chat.completions.create(model="mini", messages=recording(data))
    assert caught.value.param == "messages[0].content[0].input_audio.data"


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-5' is not served here: use 'mini'"):
        client.chat.completions.create(model="gpt-5", messages=USER)


def test_a_prompt_beyond_the_context_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context holds 2048"):
        client.chat.completions.create(model="mini", messages=[{"role": "user", "content": "word " * 5000}])


@pytest.mark.parametrize("failing_at", [0, 2])
def test_an_engine_that_fails_is_told(client: openai.OpenAI, scripted: ScriptedEngine, failing_at: int) -> None:
    scripted.failing_at = failing_at
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="mini", messages=USER)
    assert caught.value.status_code == 503
    assert "burst" not in str(caught.value)  # its own words are the log's
    with pytest.raises(openai.APIError, match="the engine failed"):
        list(client.chat.completions.create(model="mini", messages=USER, stream=True))
    scripted.failing_at = None
    assert client.chat.completions.create(model="mini", messages=USER).choices[0].message.content


def test_words_of_several_clients_do_not_mix(
    client: openai.OpenAI, scripted: ScriptedEngine, writes: Callable[..., list[int]], mini: Any
) -> None:
    """Each is answered with the last word of its own question."""
    from concurrent.futures import ThreadPoolExecutor

    scripted.seconds = 0.01

    def repeated(request: Any) -> list[int]:
        text = mini.processor.decode(request.prompt_ids)
        return writes(next(word for word in text.split() if word.startswith("name")))

    scripted.answer = repeated

    def asked(number: int) -> str | None:
        messages = [{"role": "user", "content": f"say name{number} now"}]
        return client.chat.completions.create(model="mini", messages=messages).choices[0].message.content

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(asked, range(32))) == [f"name{number}" for number in range(32)]


def test_the_error_has_one_shape_everywhere(client: openai.OpenAI) -> None:
    url = str(client.base_url)
    for method, path, body in (
        ("GET", "nowhere", None),
        ("PUT", "models", None),
        ("POST", "chat/completions", b"{"),
        ("POST", "chat/completions", b"[]"),
        ("POST", "chat/completions", b""),
        ("POST", "audio/transcriptions", b"x"),
    ):
        answer = httpx.request(method, url + path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
