"""Strangers' requests: none is a 500, none shows a traceback, and none leaves anything behind."""

from __future__ import annotations

import base64
import ctypes
import gc
import io
import json
import random
import re
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import uvicorn

from audiollm import AudioLLM
from audiollm.serving.answering.answerer import Answerer
from audiollm.serving.answering.model import ServedModel
from audiollm.serving.api.app import build_app
from audiollm.serving.engines.base import TokenRequest
from audiollm.serving.settings import ServerSettings
from audiollm.serving.sound.uploads import UploadLimits

SECONDS = 60.0
"""Longest that a request may take, on a machine that is busy with others."""
OWN_WORDS = re.compile(r"Traceback|File \"|/site-packages/|object at 0x", re.IGNORECASE)
STATUSES = {200, 400, 401, 404, 405, 408, 413, 426, 429}


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class Engine:
    """Gives each request a few tokens of its text, and codes where it is to speak."""

    model: AudioLLM
    max_running: int = 8
    is_ready: bool = True
    num_running: int = 0

    async def start(self) -> None:
        self.is_ready = True

    async def stop(self) -> None:
        self.is_ready = False

    async def tokens(self, request: TokenRequest) -> Any:
        import asyncio

        processor = self.model.processor
        ids = [*processor.plain_token_ids(["Good morning."])[0]]
        ids += [*self.model.vocabulary.wrap([1, 2, 3, 4, 5]), processor.tokenizer.eos_token_id]
        self.num_running += 1
        try:
            for token_id in ids[: request.plan.max_new_tokens]:
                await asyncio.sleep(0)
                yield [token_id]
        finally:
            self.num_running -= 1


@dataclass
class Served:
    """A server and what it holds."""

    port: int
    engine: Engine
    answerer: Answerer
    server: uvicorn.Server

    def is_empty(self) -> bool:
        """Whether nobody has a place, and no connection is open."""
        return (
            self.answerer.admission.num_inside == 0
            and self.engine.num_running == 0
            and not self.server.server_state.tasks
        )


@pytest.fixture(scope="module")
def mini() -> AudioLLM:
    model = AudioLLM.from_pretrained()
    model.processor.load_audio_tokenizer()
    return model


@pytest.fixture(scope="module")
def served(mini: AudioLLM) -> Iterator[Served]:
    limits = UploadLimits(max_bytes=1 << 20, max_decoded_bytes=8 << 20, max_seconds=20.0)
    settings = ServerSettings(
        uploads=limits, max_body_bytes=2 << 20, max_waiting=64, max_connections_per_key=2000, idle_seconds=3.0
    )
    engine = Engine(mini)
    answerer = Answerer(ServedModel.of(mini, "mini"), engine, max_waiting=settings.max_waiting)
    app = build_app(answerer, settings)
    with running(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5)) as (server, port):
        yield Served(port, engine, answerer, server)


@contextmanager
def running(config: uvicorn.Config) -> Iterator[tuple[uvicorn.Server, int]]:
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is sent; ``leaves`` says after how many bytes of the answer the client goes, None: it reads all."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    leaves: int | None = None
    sends: float = 1.0  # the share of the body that is sent before the client goes


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def posted(path: str, body: bytes, **more: Any) -> Case:
    return Case("POST", path, body, (("Content-Type", "application/json"),), **more)


def form(path: str, fields: list[tuple[str, bytes, str | None]], boundary: str = "xxBOUNDARYxx") -> Case:
    """A multipart form of names, contents and names of files."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        + (f'; filename="{file}"'.encode() if file is not None else b"")
        + b"\r\n\r\n"
        + content
        + b"\r\n"
        for name, content, file in fields
    ]
    content = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return Case("POST", path, content, (("Content-Type", f"multipart/form-data; boundary={boundary}"),))


def tone(seconds: float = 0.3, container: str = "WAV", rate: int = 16_000, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    wave = 0.3 * np.sin(0.1 * np.arange(int(seconds * rate)))
    sf.write(buffer, wave, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def _header(channels: int, rate: int, bits: int, size: int, content: int = 1000) -> bytes:
    """A WAV file that promises whatever it likes."""
    block = channels * bits // 8
    parts = struct.pack("<HHIIHH", 1, channels, rate, min(rate * block, 2**32 - 1), block % 65536, bits)
    head = b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + parts
    return head + b"data" + struct.pack("<I", size) + bytes(content)


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(1_000_000))
    return buffer.getvalue()


def _silence(container: str, subtype: str | None = None) -> bytes:
    """Two minutes in a few kilobytes; the server takes twenty seconds."""
    buffer = io.BytesIO()
    sf.write(buffer, np.zeros(8000 * 120, np.float32), 8000, format=container, subtype=subtype)
    return buffer.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "flac of minutes": lambda: _silence("FLAC"),
    "opus of minutes": lambda: _silence("OGG", "OPUS"),
    "zip": _zipped,
    "wav of a gigabyte": lambda: _header(1, 16_000, 16, 10**9, 100),
    "wav of 65,535 channels": lambda: _header(65_535, 16_000, 8, 1000),
    "wav of 4 GHz": lambda: _header(1, 2**32 - 1, 16, 1000),
    "wav of 0 Hz": lambda: _header(1, 0, 16, 1000),
    "wav of no channels": lambda: _header(0, 16_000, 16, 1000),
    "wav without an end": lambda: tone(1.0)[:20_000],
    "html": lambda: b"<html><script>alert(1)</script></html>",
    "nothing": lambda: b"",
    "one byte": lambda: bytes(1),
    "zeros": lambda: bytes(5000),
    "ID3 of 256 MB": lambda: b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100),
    "Ogg pages": lambda: b"OggS" + bytes(100) + b"OggS" + b"\xff" * 1000,
    "a playlist of files": lambda: b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n",
    "wave of NaN": lambda: _floats(np.nan),
    "wave of infinity": lambda: _floats(np.inf),
    "text": lambda: "äöü\u2028".encode() * 100,
}
"""Small files that promise, or become, far more than they are, or are no sound at all."""


def _floats(value: float) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, np.full(8000, value, np.float32), 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**400), 1e308, 0.1, float("nan"), float("inf")),
    *("", " ", "\0", "\ud800", "\udfff\ud800", "\u202e", "a" * 5000, "<|im_end|>", "<|audio_0|>", "{}", "%s%n", "\r\n"),
    *([], {}, [[]], [None], {"": None}, {"id": "x"}, {"type": "text", "text": 1}, ["text", "audio"], "audio"),
    *("../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/", "data:audio/wav;base64,AAAA", "text", "default"),
]


class Cases:
    """Requests without an end, drawn at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bombs = {name: make() for name, make in BOMBS.items()}
        self.bombs["headers of mp3"] = b"\xff\xfb\x90\x00" * 500
        self.sounds = [tone(), tone(0.5, "FLAC"), tone(0.5, "OGG", subtype="VORBIS"), tone(0.3, rate=8000)]
        self.kinds: list[Callable[[], Case]] = [
            *([self.chat] * 4), self.speech, *([self.upload] * 4), self.codes, self.raw_json, self.method,
            self.headers, self.deep, self.hang_up, self.half_upload, self.base64, self.broken_form,
        ]  # fmt: skip

    def __call__(self) -> Case:
        return self.random.choice(self.kinds)()

    def sound(self) -> bytes:
        data = self.random.choice([*self.sounds, *self.bombs.values()])
        if self.random.random() < 0.3 and data:  # damaged somewhere
            place = self.random.randrange(len(data))
            data = data[:place] + self.random.randbytes(self.random.randrange(1, 50)) + data[place + 20 :]
        return data

    def mangled(self, value: Any, odds: float = 0.25) -> Any:
        """A body with some values replaced, keys renamed or dropped."""
        if self.random.random() < odds / 4:
            return self.random.choice(ODD)
        if isinstance(value, dict):
            found = {key: self.mangled(one, odds) for key, one in value.items() if self.random.random() > odds / 8}
            if self.random.random() < odds / 4:
                found[self.random.choice(["x", "", "\0", "stream", "n", "logprobs", "tools", "__proto__"])] = (
                    self.random.choice(ODD)
                )
            return found
        if isinstance(value, list):
            found = [self.mangled(one, odds) for one in value]
            return found * self.random.choice([0, 2, 50]) if self.random.random() < odds / 6 else found
        return value

    def chat_body(self) -> dict[str, Any]:
        content: Any = "Good day"
        if self.random.random() < 0.5:
            data = base64.b64encode(self.sound()).decode()
            part = {"type": "input_audio", "input_audio": {"data": data, "format": self.random.choice(["wav", "zip"])}}
            content = [part, {"type": "text", "text": "What is this?"}]
        body: dict[str, Any] = {"model": "mini", "messages": [{"role": "user", "content": content}]}
        for key, value in {
            "stream": True, "max_tokens": 20, "temperature": 0.7, "top_p": 0.9, "seed": 3, "stop": ["x", "morn"],
            "stream_options": {"include_usage": True}, "tools": [{"type": "function", "function": {"name": "f"}}],
            "response_format": {"type": "text"}, "metadata": {"a": "b"}, "max_seconds": 1.0, "top_k": 5,
        }.items():  # fmt: skip
            if self.random.random() < 0.2:
                body[key] = value
        if self.random.random() < 0.3:
            body |= {"modalities": ["text", "audio"], "audio": {"voice": "default", "format": "pcm16"}}
        return body

    def chat(self) -> Case:
        return posted("/v1/chat/completions", as_json(self.mangled(self.chat_body())))

    def speech(self) -> Case:
        body: dict[str, Any] = {"model": "mini", "input": "Good day", "voice": "default", "response_format": "pcm"}
        body["response_format"] = self.random.choice(["mp3", "opus", "aac", "flac", "wav", "pcm"])
        if self.random.random() < 0.5:
            body |= {"speed": self.random.choice([0.25, 1.5, 4]), "stream_format": "sse", "instructions": "a man"}
        return posted("/v1/audio/speech", as_json(self.mangled(body)))

    def upload(self) -> Case:
        path = self.random.choice(["transcriptions", "translations", "tokens/encode", "voices"])
        name = "audio_sample" if path == "voices" else "file"
        fields: list[tuple[str, bytes, str | None]] = [(name, self.sound(), self.random.choice(["a.wav", "", "../x"]))]
        for key, values in {
            "model": ["mini", "mini", "mini", "", "\0"], "response_format": ["json", "srt", "verbose_json", "x"],
            "temperature": ["0", "0.5", "nan", "1e999", "-"], "stream": ["true", "false", "maybe"],
            "name": ["me", "../../me", "\0"], "consent": ["x"], "timestamp_granularities[]": ["segment", "word"],
        }.items():  # fmt: skip
            if key == "model" or self.random.random() < 0.2:
                fields.append((key, self.random.choice(values).encode(), None))
        return form(f"/v1/audio/{path}", fields)

    def codes(self) -> Case:
        body = {"codes": [self.random.choice([1, 2, 3, 8191, 8192, -1, 2**70]) for _ in range(3)], "voice": "default"}
        return posted("/v1/audio/tokens/decode", as_json(self.mangled(body)))

    def base64(self) -> Case:
        data = base64.b64encode(self.sounds[0]).decode()
        broken = self.random.choice(
            [data[:-1], data + "=", data.replace("A", "-"), data[:50] + "\n" + data[50:], "data:audio/x;base64," + data,
             "é" + data, data[: len(data) // 2], "====", "A", "\ud800", " " + data, data[:40] + "=" + data[40:]]
        )  # fmt: skip
        part = {"type": "input_audio", "input_audio": {"data": broken, "format": "wav"}}
        return posted(
            "/v1/chat/completions", as_json({"model": "mini", "messages": [{"role": "user", "content": [part]}]})
        )

    def raw_json(self) -> Case:
        good = as_json(self.chat_body())
        place = self.random.randrange(len(good))
        body = self.random.choice(
            [b"", b"{", b"null", b"[]", b'"x"', b"NaN", b"{}", b"\xff\xfe", b"\0", good[:place], good + b"}",
             good[::-1],
             b"\xef\xbb\xbf" + good, good.decode().encode("utf-16"), good[:place] + b"\xff" + good[place:],
             b'{"model":"mini","messages":' + b"9" * 10_000 + b"}", b'{"model":1e99999,"messages":[]}',
             b'{"model":"mini","model":"mini","messages":[{"role":"user","content":"\\ud800"}]}']
        )  # fmt: skip
        return posted(self.random.choice(["/v1/chat/completions", "/v1/audio/speech", "/v1/audio/tokens/decode"]), body)

    def deep(self) -> Case:
        depth = self.random.choice([50, 1000, 100_000])
        opening, closing = self.random.choice([(b"[", b"]"), (b'{"a":', b"}")])
        nested = opening * depth + b"1" + closing * depth
        place = self.random.choice(["messages", "tools", "metadata", "tool_choice", "response_format"])
        messages = b'"messages":[{"role":"user","content":"x"}],' if place != "messages" else b""
        return posted("/v1/chat/completions", b'{"model":"mini",' + messages + f'"{place}":'.encode() + nested + b"}")

    def method(self) -> Case:
        method = self.random.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "POST", "BREW"])
        paths = [
            "/v1/chat/completions",
            "/v1/audio/speech",
            "/v1/models/mini/..",
            "/v1/models/%00",
            "/v1/x",
            "//",
            "/%ff",
        ]
        paths += [
            "/v1/audio/voices/%2e%2e%2fme",
            "/v1/realtime",
            "/openapi.json",
            "/v1/models/" + "x" * 5000,
            "/health",
        ]
        return Case(method, self.random.choice(paths))

    def headers(self) -> Case:
        one = self.random.choice(
            [("X-Long", "x" * 50_000), ("Authorization", "Bearer " + "k" * 5000), ("Authorization", "Bearer \xff"),
             ("Content-Type", "multipart/form-data"), ("Content-Type", "multipart/form-data; boundary="),
             ("Content-Type", "application/x-www-form-urlencoded"), ("Content-Encoding", "gzip"),
             ("Cookie", "a" * 9000),
             ("X-Request-Id", "a b\t<>"), ("Content-Type", "text/plain"), 
             ("Content-Type", "application/json; charset=x"),
             ("Accept", "*" * 1000), ("Content-Length", "-1"), ("Content-Length", "9" * 40), ("Expect", "100-continue"),
             ("Transfer-Encoding", "gzip"), ("Host", ""), ("Upgrade", "websocket")]
        )  # fmt: skip
        path = self.random.choice(["/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/voices"])
        return Case("POST", path, as_json(self.chat_body()), (one,))

    def hang_up(self) -> Case:
        body = self.chat_body() | {"stream": True}
        return posted("/v1/chat/completions", as_json(body), leaves=self.random.choice([0, 1, 300]))

    def half_upload(self) -> Case:
        case = self.upload()
        return Case(case.method, case.path, case.body, case.headers, leaves=0, sends=self.random.random())

    def broken_form(self) -> Case:
        case = self.upload()
        place = self.random.randrange(len(case.body))
        body = self.random.choice(
            [case.body[:place], case.body.replace(b"form-data", b"form"), case.body.replace(b'name="', b'name*="'),
             case.body.replace(b"--xxBOUNDARYxx--", b""), b"", b"--xxBOUNDARYxx\r\n" * 5000, case.body[place:],
             case.body.replace(b"\r\n\r\n", b"\n\n"), case.body[:60] + b"\0" * 100 + case.body[60:]]
        )  # fmt: skip
        return Case(case.method, case.path, body, case.headers)


# --- sending ----------------------------------------------------------------------------------------------------------


def sent(port: int, case: Case) -> tuple[int, dict[str, str], bytes] | None:
    """Sends a request as it is, whatever a proper client would say; None where nothing of an answer is waited for."""
    names = {name.lower() for name, _ in case.headers}
    lines = [f"{case.method} {case.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in case.headers]
    lines += ["Host: x"] * ("host" not in names) + ["Connection: close"]
    if not names & {"content-length", "transfer-encoding"} and (case.body or case.method == "POST"):
        lines.append(f"Content-Length: {len(case.body)}")
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with suppress(ConnectionError):  # it may have answered, and hung up, before it was sent all
            connection.sendall(head + case.body[: int(case.sends * len(case.body))])
        if case.leaves is not None:
            if case.leaves:
                connection.recv(case.leaves)
            return None
        answer = b""
        try:
            while piece := connection.recv(1 << 16):
                answer += piece
        except ConnectionError:  # it hung up on what it would not read; what it said before may be lost
            if not answer:
                return None
    return parsed(answer)


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    while answer.startswith(b"HTTP/1.1 1"):  # go on, it says to a client that asked before it sends
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def wrong_with(case: Case, answer: tuple[int, dict[str, str], bytes] | None) -> str | None:
    """What is not as it should be; None: nothing."""
    if answer is None:
        return None
    status, headers, body = answer
    told = f"{case.method} {case.path[:60]} {case.body[:300]!r} {str(case.headers)[:100]}: {status} {body[:500]!r}"
    if status not in STATUSES:
        return told
    if headers.get("content-type", "").startswith(("application/json", "text/event-stream")):
        text = body.decode("utf-8", "replace")
        if OWN_WORDS.search(text):
            return f"it shows its inside: {told}"
    if status >= 400 and case.method != "HEAD":
        # What is no HTTP at all is answered by the HTTP server itself, in its own words.
        if b"Invalid HTTP request received." in body:
            return None
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"not OpenAI's shape: {told}"
        if error.keys() != {"message", "type", "param", "code"} or not error["message"]:
            return f"not OpenAI's shape: {told}"
        if len(error["message"]) > 4000:
            return f"a message without an end: {told}"
    return None


def fuzz(served: Served, cases: Cases, number: int, at_once: int = 8) -> list[str]:
    """Sends so many; returns what was wrong."""
    drawn = [cases() for _ in range(number)]
    with ThreadPoolExecutor(at_once) as threads:
        answers = threads.map(lambda case: wrong_with(case, sent(served.port, case)), drawn)
        return [one for one in answers if one is not None]


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def megabytes() -> float:
    """Memory of this process, without what its allocator keeps for later and would give back."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def ask(served: Served) -> int:
    body = {"model": "mini", "messages": [{"role": "user", "content": "Good day"}]}
    answer = sent(served.port, posted("/v1/chat/completions", as_json(body)))
    assert answer is not None
    return answer[0]


# --- properties -------------------------------------------------------------------------------------------------------


def test_three_hundred_requests(served: Served) -> None:
    assert fuzz(served, Cases(0), 300) == []
    until(served.is_empty, "a place is still taken")
    assert ask(served) == 200


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(served: Served) -> None:
    for seed in (1, 2, 3, 4):  # by then threads, pools and kept answers are as they stay
        assert fuzz(served, Cases(seed), 1000, at_once=16) == []
    until(served.is_empty, "a place is still taken")
    memory, threads = megabytes(), threading.active_count()
    for seed in range(5, 11):
        assert fuzz(served, Cases(seed), 1000, at_once=16) == []
    until(served.is_empty, "a place is still taken")
    assert threading.active_count() <= threads + 8  # pools grow to their sizes as they are needed
    assert megabytes() < memory + 60
    assert ask(served) == 200


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_goes_off(served: Served, name: str) -> None:
    data = BOMBS[name]()
    content = [{"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}]
    for case in (
        form("/v1/audio/transcriptions", [("file", data, "a.wav"), ("model", b"mini", None)]),
        form("/v1/audio/tokens/encode", [("file", data, "a.wav")]),
        posted("/v1/chat/completions", as_json({"model": "mini", "messages": [{"role": "user", "content": content}]})),
    ):
        answer = sent(served.port, case)
        assert answer is not None
        assert answer[0] in (400, 413), answer
        assert wrong_with(case, answer) is None


def test_a_thousand_connections_at_once(served: Served) -> None:
    body = as_json({"model": "mini", "messages": [{"role": "user", "content": "Good day"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
    connections = [socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS) for _ in range(1000)]
    try:
        for connection in connections:
            connection.sendall(request)
        statuses = []
        for connection in connections:
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
            statuses.append(parsed(answer)[0])
    finally:
        for connection in connections:
            connection.close()
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= served.engine.max_running
    until(served.is_empty, "a place is still taken")
    assert ask(served) == 200


def test_uploads_that_hang_keep_nobody_out(served: Served) -> None:
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    hanging = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(200)]
    for connection in hanging:
        connection.sendall(head)
    assert ask(served) == 200
    assert served.answerer.admission.num_inside == 0
    for connection in hanging:
        connection.close()
    until(served.is_empty, "an upload is still waited for")


def test_clients_that_do_not_read_lose_their_place(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(request: TokenRequest) -> Any:
        import asyncio

        served.engine.num_running += 1
        try:
            for _ in range(request.plan.max_new_tokens):
                await asyncio.sleep(0)
                yield [
                    served.engine.model.processor.plain_token_ids(["a"])[0][0]
                ] * 20  # 7 MB of events, which no buffer holds
        finally:
            served.engine.num_running -= 1

    monkeypatch.setattr(served.engine, "tokens", endless)
    body = {"model": "mini", "messages": [{"role": "user", "content": "Good day"}], "stream": True}
    request = as_json(body | {"max_tokens": 1500})  # as many as mini's context holds
    idle = []
    for _ in range(4):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", served.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + request)
        idle.append(connection)
    until(lambda: served.engine.num_running == 4, "they are not answered")
    until(lambda: served.answerer.admission.num_inside == 0, "who does not read keeps a place")
    for connection in idle:
        connection.close()
    until(served.is_empty, "a connection is still open")
