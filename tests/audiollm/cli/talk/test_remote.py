"""A chat with a server: audiollm's own in this process, and one that answers as servers do on a bad day."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.cli import main
from audiollm.cli.talk.remote import Remote, key_of
from audiollm.cli.talk.turns import AnswerError, End, Recording, Sound, Turn

pytest.importorskip("openai")


class Server:
    """What is asked of it, and what it answers."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = [{"id": "m", "object": "model", "voices": ["anna", "ben"]}]
        self.status, self.body = 200, b""
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, json.dumps({"object": "list", "data": server.models}).encode(), "application/json")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.path, json.loads(body), self.headers["Authorization"]))
                kind = "text/event-stream" if server.status == 200 else "application/json"
                self._send(server.status, server.body, kind)

            def _send(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stream(self, *deltas: dict[str, Any], finish_reason: str | None = "stop", error: str | None = None) -> None:
        """Lets it answer with a stream."""
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        if finish_reason:
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
        chunks += [{"choices": [], "usage": None}] + ([{"error": {"message": error}}] if error else [])
        self.body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def pieces_of(remote: Remote, turn: Turn, *before: Turn, **settings: Any) -> list[Any]:
    return list(remote.answer([*before, turn], **{"is_spoken": False, "voice": None, **settings}))


def test_text_comes_in_pieces_and_the_chat_so_far_goes_along(server: Server) -> None:
    server.stream({"role": "assistant", "content": ""}, {"content": "Good "}, {"content": "day."})
    remote = Remote(server.url, "none", None, {"max_new_tokens": 7, "seed": 3})
    before, unanswered = Turn("Hi.", answer="Hello."), Turn("Hm?")
    assert pieces_of(remote, Turn("And?"), before, unanswered) == ["Good ", "day.", End("stop")]
    [(path, body, key)] = server.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer none")
    assert body == {
        "model": "m", "stream": True, "max_completion_tokens": 7, "seed": 3,
        "messages": [
            {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "And?"},
        ],
    }  # fmt: skip


def test_sound_comes_in_pieces_wherever_they_are_cut(server: Server) -> None:
    samples = np.arange(-6, 6, dtype="<i2") * 1000
    data = samples.tobytes()
    cut = [{"audio": {"data": base64.b64encode(part).decode()}} for part in (data[:6], data[6:9], data[9:])]
    server.stream({"audio": {"id": "a", "transcript": "One"}}, *cut, {"audio": {"expires_at": 1}})
    remote = Remote(server.url, "none", "m", {})
    first, *sounds, end = pieces_of(remote, Turn("Say one."), is_spoken=True)
    assert (first, end) == ("One", End("stop"))
    heard = np.concatenate([sound.waveform for sound in sounds if isinstance(sound, Sound)])
    assert np.array_equal(heard, samples / 32768)
    assert server.asked[0][1]["audio"] == {"voice": "anna", "format": "pcm16"}


@pytest.mark.parametrize(
    ("voice", "voices", "sent"),
    [
        (None, ["anna", "ben"], ("anna", "Hi.")),
        ("ben", ["anna", "ben"], ("ben", "Hi.")),
        ("a man", ["anna"], ("anna", [{"type": "text", "text": "Hi."}, {"type": "text", "text": "\n(a man)"}])),
        ("coral", None, ("coral", "Hi.")),
        (None, None, ("alloy", "Hi.")),
    ],
)
def test_a_voice_is_a_name_where_the_server_has_it_and_words_otherwise(
    voice: str | None, voices: list[str] | None, sent: Any, server: Server
) -> None:
    server.models = [{"id": "m", "object": "model", **({"voices": voices} if voices else {})}]
    server.stream({"content": "Hi."})
    pieces_of(Remote(server.url, "none", None, {}), Turn("Hi."), is_spoken=True, voice=voice)
    body = server.asked[0][1]
    assert (body["audio"]["voice"], body["messages"][0]["content"]) == sent


def test_recordings_are_sent_as_wav_or_mp3(server: Server, tmp_path: Path) -> None:
    server.stream({"content": "A beep."})
    recordings = []
    for name in ("a.wav", "a.flac", "a.mp3"):
        sf.write(tmp_path / name, np.zeros(8000, np.float32), 16_000)
        recordings.append(Recording.of_file(str(tmp_path / name)))
    pieces_of(Remote(server.url, "none", None, {}), Turn("What?", recordings))
    *parts, text = server.asked[0][1]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert [part["input_audio"]["format"] for part in parts] == ["wav", "wav", "mp3"]
    data = [base64.b64decode(part["input_audio"]["data"]) for part in parts]
    assert data[0] == recordings[0].content
    assert data[1][:4] == b"RIFF"
    assert data[2] == recordings[2].content


@pytest.mark.parametrize(("reason", "end"), [("length", "length"), (None, "lost")])
def test_an_answer_that_is_not_whole_says_so(reason: str | None, end: Any, server: Server) -> None:
    server.stream({"content": "half"}, finish_reason=reason)
    assert pieces_of(Remote(server.url, "none", None, {}), Turn("?")) == ["half", End(end)]


def test_errors_are_one_line(server: Server) -> None:
    remote = Remote(server.url, "none", None, {})
    server.stream({"content": "half"}, finish_reason=None, error="the engine\nfailed")
    with pytest.raises(AnswerError, match=r"^the server broke off: the engine failed$"):
        pieces_of(remote, Turn("?"))
    server.status, server.body = 400, b'{"error": {"message": "voice: no voice is called x", "param": "voice"}}'
    with pytest.raises(AnswerError, match=r"^the server refused \(400\): voice: no voice is called x$"):
        pieces_of(remote, Turn("?"))
    server.status = 200
    server.stream({"audio": {"data": "%"}})
    with pytest.raises(AnswerError, match="no base64"):
        pieces_of(remote, Turn("?"))
    server.models = []
    with pytest.raises(AnswerError, match=r"has 0 models \(none\): give one as --name"):
        Remote(server.url, "none", None, {})


def test_keys_come_from_the_environment_and_only_if_named(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.stream({"content": "Hi."})
    pieces_of(Remote(server.url, key_of(None), None, {}), Turn("?"))
    pieces_of(Remote(server.url, key_of("OPENAI_API_KEY"), None, {}), Turn("?"))
    assert [key for _, _, key in server.asked] == ["Bearer none", "Bearer secret"]
    with pytest.raises(ValueError, match="--key-variable NO_SUCH"):
        key_of("NO_SUCH")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--url", "localhost:8000"], "--url localhost:8000: begin it with http://"),
        (["--url", "http://127.0.0.1:9/v1"], "no server answers at http://127.0.0.1:9/v1"),
        (["mini", "--url", "http://127.0.0.1:9/v1"], "--model is for a model in this process"),
        (["--device", "cpu", "--url", "http://127.0.0.1:9/v1"], "--device is for a model in this process"),
        (["--name", "m"], "--name is for --url"),
        (["--key-variable", "K"], "--key-variable is for --url"),
        (["no-such-folder/x/y"], "no-such-folder/x/y"),
        (["--temperature", "0"], "--temperature=0"),
        (["--max-new-tokens", "0"], "--max-new-tokens=0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_loaded(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0.0)
    with pytest.raises(SystemExit) as stopped:
        main(["chat", *words])
    assert stopped.value.code == 1
    assert named in capsys.readouterr().err
