"""Realtime sessions, by the official client over loopback: mini's audio tokenizer, and tokens that are prescribed."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soxr
import uvicorn
import websockets
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from audiollm import AudioLLM
from audiollm.data.audio import load_audio
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.engines.base import Engine, TokenRequest
from audiollm.serving.engines.plain import PlainEngine
from audiollm.serving.settings import RealtimeSettings, ServerSettings

ROOT = Path(__file__).resolve().parents[4]
RECORDING = ROOT / "data/corpora/sample/asterisk/en/vm-savefolder.opus"
RATE = 24_000
PATIENCE = 30.0  # far more than anything here takes: a hang fails and does not stay
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
WRITES = {"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class EchoEngine:
    """Answers with what the last message of the user holds: its text, and its codes (or a few) where it may speak.

    While ``is_held`` it gives half an answer and waits.
    """

    model: ServedModel
    max_running: int = 8
    is_ready: bool = True
    is_held: bool = False
    fails: bool = False
    num_running: int = 0
    prompts: list[list[int]] = field(default_factory=list)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        self.prompts.append(list(request.prompt_ids))
        ids = self.answer(request)
        self.num_running += 1
        try:
            for place, token_id in enumerate(ids):
                while self.is_held and place >= len(ids) // 2:
                    await asyncio.sleep(0.005)
                if self.fails:
                    raise RuntimeError("the secret of the engine")
                yield [token_id]
                await asyncio.sleep(0)
        finally:
            self.num_running -= 1

    def answer(self, request: TokenRequest) -> list[int]:
        processor, vocabulary = self.model.processor, self.model.processor.vocabulary
        text = processor.decode(list(request.prompt_ids), skip_special_tokens=False)
        question = text.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        words = question.partition("<|audio_start|>")[0].strip() or "heard"
        ids = processor.plain_token_ids([f"echo {words}"])[0]
        if "audio" in request.plan.modalities:
            codes = [
                one for one in request.prompt_ids if 0 <= one - vocabulary.first_code_id < vocabulary.codebook_size
            ]
            ids = [*ids, vocabulary.start_id, *(codes[-50:] or [vocabulary.first_code_id + n for n in range(8)])]
            ids.append(vocabulary.end_id)
        return [*ids[: request.plan.max_new_tokens - 1], request.plan.eos_token_ids[0]]


class Silent(ServedModel):
    """A model without a decoder."""

    can_speak = False


class Deaf(ServedModel):
    """A model without an audio tokenizer."""

    can_speak = can_listen = False


@pytest.fixture(scope="module")
def llm() -> AudioLLM:
    return AudioLLM.from_pretrained()


@pytest.fixture(scope="module")
def served(llm: AudioLLM) -> ServedModel:
    return ServedModel.of(llm, "mini")


@dataclass
class Running:
    """A server, and what it is made of."""

    port: int
    engine: Any
    answerer: Answerer

    @asynccontextmanager
    async def talk(self, session: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[Talk]:
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=options.pop("key", "any"))
        async with client, client.realtime.connect(model="mini", **options) as connection:
            talk = Talk(connection)
            await talk.until("session.created")
            if session is not None:
                await talk.send("session.update", session=session)
                await talk.until("session.updated")
            yield talk

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime?model=mini"


class Talk:
    """A session, whose events are looked at one by one."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send({"type": kind, **fields})

    async def next(self) -> dict[str, Any]:
        data = await asyncio.wait_for(self.connection.recv_bytes(), PATIENCE)
        event: dict[str, Any] = json.loads(data)
        EVENTS.validate_python(event)  # as the client's own types have it
        assert type(self.connection.parse_event(data)).model_fields["type"].annotation.__args__ == (event["type"],)
        self.seen.append(event)
        return event

    async def until(self, kind: str, *, tells_errors: bool = False) -> list[dict[str, Any]]:
        """All events up to and with the next one of a kind; an error before it, which nobody waits for, fails."""
        events = [await self.next()]
        while events[-1]["type"] != kind:
            assert tells_errors or events[-1]["type"] != "error", events[-1]
            events.append(await self.next())
        return events

    async def refused(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The error that an event meets."""
        await self.send(kind, **fields)
        event = (await self.until("error"))[-1]
        return event["error"]

    async def say(self, pcm: bytes) -> None:
        """Sends sound in pieces of 100 ms."""
        for first in range(0, len(pcm), 4800):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(pcm[first : first + 4800]).decode())

    async def write(self, text: str, role: str = "user", **fields: Any) -> str:
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        await self.send("conversation.item.create", item=item, **fields)
        return (await self.until("conversation.item.done"))[-1]["item"]["id"]

    async def respond(self, *, fails: bool = False, **response: Any) -> list[dict[str, Any]]:
        await self.send("response.create", **({"response": response} if response else {}))
        return await self.until("response.done", tells_errors=fails)


@contextmanager
def serving(
    model: ServedModel, settings: ServerSettings | None = None, engine: Engine | None = None
) -> Iterator[Running]:
    settings = settings or ServerSettings(realtime=RealtimeSettings(activity="level"))
    engine = engine or EchoEngine(model)
    answerer = Answerer(model, engine, max_waiting=settings.max_waiting)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(build_app(answerer, settings), log_level="warning", ws_max_size=24 * 2**20)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield Running(port, engine, answerer)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def shared(served: ServedModel) -> Iterator[Running]:
    with serving(served) as running:
        yield running


@pytest.fixture
def server(shared: Running) -> Iterator[Running]:
    yield shared
    shared.engine.is_held = shared.engine.fails = False
    # Whoever came is gone: nothing is computed, no place is taken.
    wait_for(lambda: shared.engine.num_running == 0 and shared.answerer.admission.num_inside == 0)
    shared.engine.prompts.clear()


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


async def came(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, condition)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 2 * PATIENCE))


def speech() -> bytes:
    waveform, rate = load_audio(RECORDING)
    return pcm_of(soxr.resample(waveform.numpy(), rate, RATE))


def pcm_of(waveform: np.ndarray) -> bytes:
    return (np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()


def room(seconds: float, seed: int = 0) -> bytes:
    """A quiet room: noise at -65 dB."""
    return pcm_of(10 ** (-65 / 20) * np.random.default_rng(seed).standard_normal(round(seconds * RATE)))


def types(events: list[dict[str, Any]]) -> list[str]:
    """The types in order, what is repeated once."""
    found = [event["type"] for event in events]
    return [one for number, one in enumerate(found) if number == 0 or found[number - 1] != one]


def joined(events: list[dict[str, Any]], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == kind)


def sound(events: list[dict[str, Any]]) -> bytes:
    deltas = [event["delta"] for event in events if event["type"] == "response.output_audio.delta"]
    return b"".join(base64.b64decode(one) for one in deltas)


# --- what a session tells ---------------------------------------------------------------------------------------------


def test_a_session_begins_with_its_settings_and_takes_others(server: Running) -> None:
    async def talk() -> None:
        async with server.talk() as talk:
            session = talk.seen[0]["session"]
            assert session["output_modalities"] == ["audio"]
            assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
            assert session["expires_at"] > time.time()
            await talk.send("session.update", session={"type": "realtime", "instructions": "Be kind."})
            await talk.send(
                "session.update",
                session={
                    "type": "realtime",
                    "output_modalities": ["text"],
                    "max_output_tokens": 7,
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": 24000},
                            "turn_detection": {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 200},
                            "transcription": {"model": "mini"},
                        },
                        "output": {"voice": "default", "speed": 1.25},
                    },
                },
            )
            session = [await talk.next(), await talk.next()][-1]["session"]
            assert session["instructions"] == "Be kind."  # what is not named stays
            assert (session["output_modalities"], session["max_output_tokens"]) == (["text"], 7)
            assert session["audio"]["input"]["turn_detection"] == {
                "type": "server_vad",
                "threshold": 0.7,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "create_response": True,
                "interrupt_response": True,
            }
            assert session["audio"]["output"]["speed"] == 1.25
            off = {"turn_detection": None, "transcription": None}
            await talk.send("session.update", session={"type": "realtime", "audio": {"input": off}})
            session = (await talk.next())["session"]
            assert session["audio"]["input"]["turn_detection"] is None
            assert session["audio"]["input"]["transcription"] is None

    run(talk())


def test_a_text_is_answered_in_text(server: Running) -> None:
    async def talk() -> None:
        async with server.talk({**WRITES, "instructions": "Be brief."}) as talk:
            first = await talk.write("one two")
            assert talk.seen[-1]["previous_item_id"] is None
            events = await talk.respond(metadata={"a": "b"})
            assert types(events) == [
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "conversation.item.done",
                "response.done",
            ]
            assert joined(events, "response.output_text.delta") == "echo one two"
            added = next(event for event in events if event["type"] == "conversation.item.added")
            assert added["previous_item_id"] == first
            response = events[-1]["response"]
            assert response["status"] == "completed"
            assert response["metadata"] == {"a": "b"}
            [item] = response["output"]
            assert item["id"] == added["item"]["id"]
            assert item["content"] == [{"type": "output_text", "text": "echo one two"}]
            usage = response["usage"]
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
            assert usage["output_token_details"]["audio_tokens"] == 0
            assert len({event["event_id"] for event in talk.seen}) == len(talk.seen)
            # The next answer knows the conversation and the instructions.
            await talk.write("three")
            await talk.respond()
            prompt = server.answerer.model.processor.decode(server.engine.prompts[-1], skip_special_tokens=False)
            for said in ("system\nBe brief.", "user\none two", "assistant\necho one two", "user\nthree"):
                assert said in prompt

    run(talk())


def test_a_recording_is_answered_in_sound(server: Running) -> None:
    async def talk() -> None:
        async with server.talk(MANUAL) as talk:
            await talk.say(speech())
            await talk.send("input_audio_buffer.commit")
            events = await talk.until("conversation.item.done")
            assert types(events) == [
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
            ]
            events = await talk.respond()
            deltas = {"response.output_audio.delta", "response.output_audio_transcript.delta"}
            assert [one for one in types(events) if one not in deltas] == [
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_audio.done",
                "response.output_audio_transcript.done",
                "response.content_part.done",
                "response.output_item.done",
                "conversation.item.done",
                "response.done",
            ]
            assert len(sound(events)) == pytest.approx(2 * 2 * RATE, rel=0.1)  # fifty codes are two seconds
            assert joined(events, "response.output_audio_transcript.delta") == "echo heard"
            response = events[-1]["response"]
            assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "echo heard"}]
            assert response["usage"]["input_token_details"]["audio_tokens"] > 50
            assert response["usage"]["output_token_details"]["audio_tokens"] == 52

    run(talk())


def test_a_recording_comes_back_as_it_was_sent(server: Running) -> None:
    async def talk() -> None:
        async with server.talk(MANUAL) as talk:
            audio = base64.b64encode(speech()).decode()
            content = [{"type": "input_audio", "audio": audio}, {"type": "input_text", "text": "What is said?"}]
            item = {"type": "message", "role": "user", "id": "mine", "content": content}
            await talk.send("conversation.item.create", item=item)
            added = (await talk.until("conversation.item.done"))[-1]["item"]
            assert "audio" not in added["content"][0]
            await talk.send("conversation.item.retrieve", item_id="mine")
            item = (await talk.until("conversation.item.retrieved"))[-1]["item"]
            assert item["content"][0]["audio"] == audio
            assert item["content"][1]["text"] == "What is said?"

    run(talk())


def test_items_go_where_they_are_told_and_can_be_deleted(server: Running) -> None:
    async def talk() -> None:
        async with server.talk(WRITES) as talk:
            last = await talk.write("last")
            first = await talk.write("first", previous_item_id="root")
            middle = await talk.write("middle", role="assistant", previous_item_id=first)
            assert talk.seen[-1]["previous_item_id"] == first
            await talk.respond(conversation="none")
            prompt = server.answerer.model.processor.decode(server.engine.prompts[-1], skip_special_tokens=False)
            assert prompt.index("first") < prompt.index("middle") < prompt.index("last")
            await talk.send("conversation.item.delete", item_id=middle)
            assert (await talk.next())["item_id"] == middle
            error = await talk.refused("conversation.item.retrieve", item_id=middle, event_id="e1")
            assert (error["param"], error["event_id"], error["code"]) == ("item_id", "e1", "item_not_found")
            await talk.write("again", previous_item_id=last)  # what was out of band left no item
            assert talk.seen[-1]["previous_item_id"] == last

    run(talk())


def test_one_response_may_differ_from_the_session(server: Running) -> None:
    async def talk() -> None:
        async with server.talk(MANUAL) as talk:
            known = await talk.write("known")
            body = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "other"}]}
            events = await talk.respond(
                conversation="none",
                output_modalities=["text"],
                instructions="Only now.",
                input=[{"type": "item_reference", "id": known}, body],
                max_output_tokens=3,
            )
            assert not [one for one in types(events) if one.startswith("conversation.")]
            assert events[-1]["response"]["status"] == "completed"
            assert events[-1]["response"]["output_modalities"] == ["text"]
            assert events[-1]["response"]["max_output_tokens"] == 3
            prompt = server.answerer.model.processor.decode(server.engine.prompts[-1], skip_special_tokens=False)
            assert "system\nOnly now." in prompt
            assert prompt.index("known") < prompt.index("other")
            events = await talk.respond()  # the session is as it was
            assert events[-1]["response"]["output_modalities"] == ["audio"]

    run(talk())


# --- turns ------------------------------------------------------------------------------------------------------------


def test_turns_are_told_and_answered_and_silence_is_none(server: Running) -> None:
    async def talk() -> None:
        async with server.talk() as talk:
            await talk.say(room(2))
            await talk.say(speech())
            await talk.say(room(1, seed=1))
            events = await talk.until("response.done")
            assert types(events)[:6] == [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                "response.created",
            ]
            started, stopped, committed = events[:3]
            assert started["item_id"] == stopped["item_id"] == committed["item_id"]
            # The recording begins to speak a tenth of a second after its beginning, and 300 ms before belong to it.
            assert 1600 <= started["audio_start_ms"] <= 2100
            assert 4800 <= stopped["audio_end_ms"] <= 5700
            assert len(sound(events)) > 0
            await talk.send("conversation.item.retrieve", item_id=started["item_id"])
            item = (await talk.until("conversation.item.retrieved"))[-1]["item"]
            num_samples = len(base64.b64decode(item["content"][0]["audio"])) // 2
            told = stopped["audio_end_ms"] - started["audio_start_ms"]
            assert num_samples * 1000 / RATE == pytest.approx(told, abs=2)
            await talk.say(room(3, seed=2))
            await talk.send("input_audio_buffer.clear")
            assert (await talk.next())["type"] == "input_audio_buffer.cleared"  # nothing was told before

    run(talk())


def test_turns_may_be_told_without_an_answer(server: Running) -> None:
    async def talk() -> None:
        turns = {"type": "server_vad", "create_response": False}
        async with server.talk({"type": "realtime", "audio": {"input": {"turn_detection": turns}}}) as talk:
            await talk.say(speech() + room(1))
            await talk.until("conversation.item.done")
            await talk.send("input_audio_buffer.clear")
            assert (await talk.next())["type"] == "input_audio_buffer.cleared"

    run(talk())


def test_speech_interrupts_speech(server: Running) -> None:
    async def talk() -> None:
        async with server.talk() as talk:
            server.engine.is_held = True  # in the middle of its answer
            await talk.say(speech() + room(1))
            events = await talk.until("response.output_audio.delta")
            speaking = events[-1]["item_id"]
            await talk.say(speech())
            events += await talk.until("response.done")
            began = [event["type"] for event in events].index("input_audio_buffer.speech_started", 3)
            after = types(events[began:])
            assert "response.output_audio.delta" not in after
            response = events[-1]["response"]
            assert response["status"] == "cancelled"
            assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            assert response["output"][0]["status"] == "incomplete"
            await came(lambda: server.engine.num_running == 0)
            # What was heard is what is known from now on.
            heard_ms = round(1000 * len(sound(events)) / 2 / RATE)
            error = await talk.refused(
                "conversation.item.truncate", item_id=speaking, content_index=0, audio_end_ms=heard_ms + 500
            )
            assert error["param"] == "audio_end_ms"
            await talk.send("conversation.item.truncate", item_id=speaking, content_index=0, audio_end_ms=120)
            assert (await talk.until("conversation.item.truncated"))[-1]["audio_end_ms"] == 120
            server.engine.is_held = False
            await talk.say(room(1))
            await talk.until("response.done")
            vocabulary = server.answerer.model.processor.vocabulary
            prompt = server.engine.prompts[-1]
            answer = prompt[len(server.engine.prompts[0]) :]
            num_codes = answer.index(vocabulary.end_id) - answer.index(vocabulary.start_id) - 1
            assert num_codes == 3  # 0.12 s of 25 a second

    run(talk())


def test_a_client_may_cancel_or_let_no_one_interrupt(server: Running) -> None:
    async def talk() -> None:
        turns = {"type": "server_vad", "interrupt_response": False}
        async with server.talk({"type": "realtime", "audio": {"input": {"turn_detection": turns}}}) as talk:
            server.engine.is_held = True
            await talk.say(speech() + room(1))
            await talk.until("response.output_audio.delta")
            await talk.say(speech() + room(1))
            events = await talk.until("error")  # an answer is being given, so there is no second one
            assert events[-1]["error"]["code"] == "conversation_already_has_active_response"
            assert "response.done" not in types(events)
            error = await talk.refused("response.create", event_id="e7")
            assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "e7")
            await talk.send("output_audio_buffer.clear")
            await talk.until("output_audio_buffer.cleared")
            await talk.send("response.cancel")
            done = (await talk.until("response.done"))[-1]["response"]
            assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
            await came(lambda: server.answerer.admission.num_inside == 0)
            assert (await talk.refused("response.cancel"))["code"] == "response_cancel_not_active"

    run(talk())


def test_recordings_are_written_down_if_that_is_wanted(server: Running) -> None:
    async def talk() -> None:
        incoming = {"turn_detection": None, "transcription": {}}
        async with server.talk({"type": "realtime", "audio": {"input": incoming}}) as talk:
            await talk.say(speech())
            await talk.send("input_audio_buffer.commit")
            kind = "conversation.item.input_audio_transcription"
            events = await talk.until(f"{kind}.completed")
            assert joined(events, f"{kind}.delta") == events[-1]["transcript"] != ""
            assert events[-1]["usage"]["input_token_details"]["audio_tokens"] > 0
            item_id = events[-1]["item_id"]
            await talk.send("conversation.item.retrieve", item_id=item_id)
            item = (await talk.until("conversation.item.retrieved"))[-1]["item"]
            assert item["content"][0]["transcript"] == events[-1]["transcript"]

    run(talk())


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "response.make"}, "type"),
        ({"type": 3}, "type"),
        ({}, "type"),
        ({"type": "session.update"}, "session"),
        ({"type": "session.update", "session": {"modalities": ["text"]}}, "session.modalities"),
        ({"type": "session.update", "session": {"type": "transcription"}}, "session.type"),
        ({"type": "session.update", "session": {"model": "gpt-realtime"}}, "session.model"),
        ({"type": "session.update", "session": {"tools": [{"type": "function"}]}}, "session.tools"),
        ({"type": "session.update", "session": {"output_modalities": ["text", "audio"]}}, "session.output_modalities"),
        ({"type": "session.update", "session": {"max_output_tokens": 10**6}}, "session.max_output_tokens"),
        ({"type": "session.update", "session": {"max_output_tokens": "many"}}, "session.max_output_tokens"),
        ({"type": "session.update", "session": {"instructions": "a" * 70_000}}, "session.instructions"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
            "session.audio.input.turn_detection.type",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
            "session.audio.input.format.type",
        ),
        (
            {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}},
            "session.audio.input.transcription.model",
        ),
        ({"type": "session.update", "session": {"audio": {"output": {"voice": "x"}}}}, "session.audio.output.voice"),
        ({"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}}, "session.audio.output.speed"),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "no base64!"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio"),
        ({"type": "input_audio_buffer.commit"}, None),
        ({"type": "conversation.item.create", "item": {"type": "function_call"}}, "item.type"),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}},
            "item.content",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [{"type": "output_text", "text": "x"}]},
            },
            "item.content[0].type",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_image"}]},
            },
            "item.content[0].type",
        ),
        ({"type": "conversation.item.delete", "item_id": "none"}, "item_id"),
        (
            {"type": "conversation.item.truncate", "item_id": "none", "content_index": 0, "audio_end_ms": 1},
            "item_id",
        ),
        ({"type": "response.create", "response": {"temperature": 1.0}}, "response.temperature"),
        (
            {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}},
            "response.input[0].id",
        ),
        ({"type": "response.cancel"}, None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_is_wrong_is_named_and_the_session_goes_on(
    server: Running, event: dict[str, Any], param: str | None
) -> None:
    async def talk() -> None:
        async with websockets.connect(server.url) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "session.update", "session": WRITES}))
            await socket.recv()
            await socket.send(json.dumps({**event, "event_id": "mine"}))
            told = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
            assert told["type"] == "error"
            assert (told["error"]["param"], told["error"]["event_id"]) == (param, "mine")
            assert told["error"]["type"] == "invalid_request_error"
            await socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
            assert json.loads(await socket.recv())["type"] == "input_audio_buffer.cleared"

    run(talk())


@pytest.mark.parametrize(
    "frame",
    [b"bytes", "", "{", "[]", "3", "null", "[" * 100_000,
     '{"type": "session.update", "session": {"instructions": "\\ud800"}}',
     '{"type": {}, "event_id": 5}', '{"type": "input_audio_buffer.append", "audio": "' + "A" * (21 << 20) + '"}'],
    ids=["bytes", "empty", "open", "list", "number", "null", "deep", "surrogate", "no_type", "large"],
)  # fmt: skip
def test_a_malformed_frame_is_told_and_the_session_goes_on(server: Running, frame: str | bytes) -> None:
    async def talk() -> None:
        async with websockets.connect(server.url, max_size=None) as socket:
            await socket.recv()
            await socket.send(frame)
            assert json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))["type"] == "error"
            await socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
            assert json.loads(await socket.recv())["type"] == "input_audio_buffer.cleared"

    run(talk())


def test_a_failure_is_told_without_its_secrets(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with server.talk(WRITES) as talk:
            await talk.write("something private")
            server.engine.fails = True
            events = await talk.respond(fails=True)
            error = next(event["error"] for event in events if event["type"] == "error")
            assert (error["type"], error["code"]) == ("server_error", "internal_error")
            assert events[-1]["response"]["status"] == "failed"
            assert events[-1]["response"]["status_details"]["error"]["code"] == "internal_error"
            assert "secret" not in json.dumps(events)
            server.engine.fails = False
            assert (await talk.respond())[-1]["response"]["status"] == "completed"

    run(talk())
    assert "the secret of the engine" in caplog.text
    assert "private" not in caplog.text


def test_an_answer_that_is_cut_is_incomplete(llm: AudioLLM, served: ServedModel) -> None:
    """By the model itself: two tokens of text end no answer of it."""

    async def talk(server: Running) -> None:
        async with server.talk({**WRITES, "max_output_tokens": 2}) as talk:
            await talk.write("Say: hello")
            response = (await talk.respond())[-1]["response"]
            assert response["status"] == "incomplete"
            assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
            content = [{"type": "input_text", "text": "Read this text aloud.\n\nThe kettle is on."}]
            asked = [{"type": "message", "role": "user", "content": content}]
            events = await talk.respond(input=asked, output_modalities=["audio"], max_output_tokens=60)
            assert events[-1]["response"]["usage"]["output_token_details"]["audio_tokens"] > 0
            assert sound(events)

    with serving(served, engine=PlainEngine(llm)) as server:
        run(talk(server))


def test_a_conversation_longer_than_the_context_loses_its_beginning(server: Running) -> None:
    async def talk() -> None:
        async with server.talk(WRITES) as talk:
            for number in range(6):
                await talk.write(f"number {number} " + "word " * 400)
            await talk.write("end")
            assert (await talk.respond())[-1]["response"]["status"] == "completed"
            prompt = server.answerer.model.processor.decode(server.engine.prompts[-1], skip_special_tokens=False)
            assert "number 0" not in prompt
            assert "number 5" in prompt
            await talk.send("session.update", session={"type": "realtime", "truncation": "disabled"})
            await talk.until("session.updated")
            response = (await talk.respond(fails=True))[-1]["response"]
            assert response["status"] == "failed"
            assert "2048" in response["status_details"]["error"]["message"]  # tokens that it takes

    run(talk())


# --- who comes and goes -----------------------------------------------------------------------------------------------


def test_who_leaves_frees_the_place_at_once(server: Running) -> None:
    async def talk() -> None:
        async with websockets.connect(server.url) as socket:
            server.engine.is_held = True
            await socket.recv()
            for event in (
                {"type": "session.update", "session": WRITES},
                {
                    "type": "conversation.item.create",
                    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
                },
                {"type": "response.create"},
            ):
                await socket.send(json.dumps(event))
            await came(lambda: server.engine.num_running == 1)
            socket.transport.abort()  # without a word
        # Still held: nothing but the leaving ends it.
        await came(lambda: server.engine.num_running == 0 and server.answerer.admission.num_inside == 0)

    run(talk())


def test_who_does_not_read_and_leaves_frees_the_place_too(server: Running) -> None:
    async def talk() -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
        async with websockets.connect(server.url, max_queue=1) as socket:
            await socket.send(json.dumps({"type": "session.update", "session": WRITES}))
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            await socket.send(json.dumps({"type": "response.create"}))
            # Far more than fits between here and there: the server stops reading until this side reads.
            wrong = json.dumps({"type": "wrong", "event_id": "e" * 100})
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_all(socket.send(wrong) for _ in range(50_000)), 1)
            socket.transport.abort()

    run(talk())


async def _all(sends: Iterator[Coroutine[Any, Any, None]]) -> None:
    for one in sends:
        await one


def test_eight_sessions_at_once_do_not_mix(server: Running) -> None:
    async def one(number: int) -> None:
        async with server.talk(MANUAL) as talk:
            for turn in range(2):
                words = f"session {number} turn {turn}"
                await talk.write(words)
                events = await talk.respond()
                assert joined(events, "response.output_audio_transcript.delta") == f"echo {words}"
                assert {event.get("response_id", events[-1]["response"]["id"]) for event in events} == {
                    events[-1]["response"]["id"]
                }
                assert sound(events)

    async def talk() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))

    run(talk())


def test_a_busy_server_says_when_to_come_again(served: ServedModel) -> None:
    async def talk(server: Running) -> None:
        async with server.talk(WRITES) as first, server.talk(WRITES) as second:
            server.engine.is_held = True
            await first.write("a")
            await first.send("response.create")
            await first.until("response.output_text.delta")
            await second.write("b")
            error = await second.refused("response.create", event_id="e2")
            assert (error["type"], error["code"], error["event_id"]) == ("rate_limit_error", "server_busy", "e2")
            assert error["retry_after_seconds"] >= 1
            server.engine.is_held = False
            await first.until("response.done")
            assert (await second.respond())[-1]["response"]["status"] == "completed"

    settings = ServerSettings(max_waiting=0)
    with serving(served, settings, EchoEngine(served, max_running=1)) as server:
        run(talk(server))


def test_models_do_what_they_can(served: ServedModel) -> None:
    async def writes(server: Running) -> None:
        async with server.talk() as talk:
            assert talk.seen[0]["session"]["output_modalities"] == ["text"]
            error = await talk.refused("session.update", session={"type": "realtime", "output_modalities": ["audio"]})
            assert error["param"] == "session.output_modalities"
            assert "no decoder" in error["message"]
            await talk.write("x")
            assert joined(await talk.respond(), "response.output_text.delta") == "echo x"

    async def hears_nothing(server: Running) -> None:
        async with server.talk() as talk:
            assert talk.seen[0]["session"]["audio"]["input"]["turn_detection"] is None
            error = await talk.refused("input_audio_buffer.append", audio="AAAA")
            assert error["param"] == "audio"

    parts = (served.name, served.processor, served.generation_config, served.context)
    with serving(Silent(*parts)) as server:
        run(writes(server))
    with serving(Deaf(*parts)) as server:
        run(hears_nothing(server))


def test_limits_keys_and_origins(served: ServedModel) -> None:
    limits = RealtimeSettings(
        max_append_bytes=40_000, max_buffer_seconds=1, max_items=2, max_text_characters=20, activity="level"
    )
    settings = ServerSettings(api_keys=("right",), max_connections_per_key=2, realtime=limits)

    async def talk(server: Running) -> None:
        for options, status in (({}, 401), ({"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}, 401)):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(server.url, **options)
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
        browser = ["realtime", "openai-insecure-api-key.right"]
        async with server.talk(MANUAL, key="right") as talk:
            async with websockets.connect(server.url, subprotocols=browser, origin="https://elsewhere.org") as socket:
                assert socket.subprotocol == "realtime"
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await websockets.connect(server.url, subprotocols=browser)
                assert refused.value.response.status_code == 429
            half = base64.b64encode(bytes(38_000)).decode()
            error = await talk.refused("input_audio_buffer.append", audio=base64.b64encode(bytes(40_002)).decode())
            assert (error["param"], error["code"]) == ("audio", "audio_too_large")
            await talk.send("input_audio_buffer.append", audio=half)
            error = await talk.refused("input_audio_buffer.append", audio=half)
            assert (error["param"], error["code"]) == ("audio", "audio_too_large")
            await talk.send("input_audio_buffer.commit")  # what came before is still there
            await talk.until("conversation.item.done")
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a" * 21}]}
            error = await talk.refused("conversation.item.create", item=item)
            assert error["param"] == "item.content[0].text"
            await talk.write("a")
            item["content"] = [{"type": "input_text", "text": "a"}]
            assert (await talk.refused("conversation.item.create", item=item))["code"] == "conversation_full"

    with serving(served, settings) as server:
        run(talk(server))


def test_a_turn_ends_at_the_latest_when_the_buffer_is_full(served: ServedModel) -> None:
    async def talk(server: Running) -> None:
        turns = {"type": "server_vad", "create_response": False, "prefix_padding_ms": 0}
        async with server.talk({"type": "realtime", "audio": {"input": {"turn_detection": turns}}}) as talk:
            await talk.say(speech())
            first, *_, last = await talk.until("conversation.item.done")
            await talk.until("conversation.item.done")  # and what follows is another turn
            await talk.send("conversation.item.retrieve", item_id=last["item"]["id"])
            item = (await talk.until("conversation.item.retrieved"))[-1]["item"]
            seconds = len(base64.b64decode(item["content"][0]["audio"])) / 2 / RATE
            assert 1 <= seconds < 1.2
            assert first["type"] == "input_audio_buffer.speech_started"

    with serving(served, ServerSettings(realtime=RealtimeSettings(max_buffer_seconds=1, activity="level"))) as server:
        run(talk(server))


def test_who_asks_without_a_websocket_is_told_to_upgrade(server: Running) -> None:
    with pytest.raises(urllib.error.HTTPError, match="426") as refused:
        urllib.request.urlopen(server.url.replace("ws://", "http://"))
    assert json.load(refused.value)["error"]["code"] == "websocket_expected"


def test_a_page_of_another_host_opens_no_session_without_a_key(server: Running) -> None:
    async def talk() -> None:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(server.url, origin="https://elsewhere.org")
        assert refused.value.response.status_code == 403
        async with websockets.connect(server.url, origin=f"http://127.0.0.1:{server.port}") as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
        for url, status in ((server.url.replace("mini", "other"), 404), (f"{server.url}&call_id=1", 400)):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url)
            assert refused.value.response.status_code == status

    run(talk())


def test_a_session_ends_when_it_has_lasted_as_long_as_one_may(served: ServedModel) -> None:
    async def talk(server: Running) -> None:
        async with websockets.connect(server.url) as socket:
            await socket.recv()
            assert json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))["error"]["code"] == "session_expired"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason == "session_expired"

    with serving(served, ServerSettings(realtime=RealtimeSettings(max_session_seconds=0.2))) as server:
        run(talk(server))


def test_settings_that_are_none_are_refused() -> None:
    for wrong in ({"max_items": 0}, {"max_buffer_seconds": float("inf")}, {"activity": "ear"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RealtimeSettings(**wrong)  # type: ignore[arg-type]
