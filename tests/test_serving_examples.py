"""The clients in examples/serving against `audiollm serve` with mini, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "serving"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server is."""
    pytest.importorskip("fastapi")
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "audiollm", "serve", "--port", str(port), "--ignore", "language"]
        server = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            for _ in range(1200):
                assert server.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()  # how it ends in good order, its own tests say
            server.wait()


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_speaks_listens_and_chats(url: str, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    shown = run([sys.executable, str(EXAMPLES / "speak_listen_chat.py"), "--url", url, "--output", str(tmp_path)])
    assert "the server has mini" in shown
    assert "man or a woman? A man." in shown
    assert "answered: The kettle is on." in shown
    whole, streamed = (sf.read(tmp_path / name)[0] for name in ("answer.wav", "streamed.wav"))
    assert len(whole) == len(streamed) > 12_000


def test_curl_speaks_listens_and_asks(url: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    shown = run(["sh", str(EXAMPLES / "speak_listen_chat.sh")], URL=url, OUTPUT=str(tmp_path))
    assert '"id":"mini"' in shown.replace(" ", "")
    assert sf.info(tmp_path / "speech.mp3").duration > 0.5
    assert '"content": " man"' in shown
    assert shown.rstrip().endswith("data: [DONE]")


def test_node_speaks_listens_and_chats(url: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    script = tmp_path / "speak_listen_chat.mjs"
    packages = os.environ.get("NODE_PATH", "")
    if node is None or not packages:
        pytest.skip("needs Node.js, and NODE_PATH of a folder with the package openai")
    shutil.copy(EXAMPLES / script.name, script)
    (tmp_path / "node_modules").symlink_to(packages)
    shown = run([node, str(script)], URL=url, OUTPUT=str(tmp_path))
    assert "answered: A man." in shown
    assert (tmp_path / "streamed.pcm").stat().st_size > 24_000


def test_python_talks_in_realtime(url: str, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/openapi.json") as answer:
        assert answer.status == 200
    if not has_realtime(url):
        pytest.skip("this server has no /v1/realtime yet")
    clip = next((ROOT / "data/corpora/sample/asterisk/en").glob("agent-incorrect.opus"))
    recording = tmp_path / "question.wav"
    from audiollm.data.audio.reading import load_audio

    waveform, _ = load_audio(clip, sample_rate=24_000)
    sf.write(recording, waveform.numpy(), 24_000, subtype="PCM_16")
    command = [sys.executable, str(EXAMPLES / "talk_in_realtime.py"), str(recording), "--url", url]
    shown = run([*command, "--output", str(tmp_path / "answer.wav")])
    assert "completed" in shown


def has_realtime(url: str) -> bool:
    """Whether a websocket is accepted there."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    try:
        connect(f"{url.replace('http', 'ws', 1)}/realtime?model=mini").close()
    except WebSocketException:
        return False
    return True


def test_the_chat_in_the_terminal_talks_to_it(url: str, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    clip = ROOT / "data/corpora/sample/asterisk/en/agent-incorrect.opus"
    lines = f"/audio {clip} What is said?\n/say The kettle is on.\n"
    done = subprocess.run(
        [sys.executable, "-m", "audiollm", "chat", "--url", url, "--seed", "1", "-o", str(tmp_path)],
        input=lines, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Login incorrect. Please enter your agent number followed by the pound key.\n")
    assert sf.info(tmp_path / "audiollm-chat-1.wav").samplerate == 24_000


def test_every_client_is_on_its_page() -> None:
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.iterdir() if f"examples/serving/{path.name}" not in page] == []
