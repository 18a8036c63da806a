"""``audiollm serve``: a server that a fresh process starts, that clients reach, and that a signal ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from audiollm.cli import main


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves mini at a free port, and its address."""
    (tmp_path / "keys").write_text("one\ntwo\n")
    (tmp_path / "voices.yaml").write_text("narrator: an elderly man, slowly\n")
    options = ["--port", "0", "--api-keys", str(tmp_path / "keys"), "--voices", str(tmp_path / "voices.yaml")]
    command = [sys.executable, "-m", "audiollm", "serve", *options, "--name", "ours", "--engine", "plain"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://\S+)", line):
                break
        else:
            pytest.fail("".join(lines))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or its pipe fills up
        try:
            yield process, found[1]
        finally:
            process.kill()


def test_clients_reach_it_and_a_signal_ends_it(server: tuple[subprocess.Popen[str], str]) -> None:
    process, url = server
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="two", max_retries=0)
    [model] = client.models.list().data
    assert model.id == "ours"
    assert model.voices == ["default", "narrator"]  # type: ignore[attr-defined]
    speech = client.audio.speech.create(
        model="ours", voice="narrator", input="Good day.", response_format="pcm", extra_body={"max_seconds": 0.4}
    )
    assert len(speech.content) > 2000
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="three").models.list()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "vllm", "--vllm-url", "http://x/v1", "--sound-process", "own"], "in another process anyway"),
        (["--vllm-url", "http://localhost:1/v1"], "--vllm-url http://localhost:1/v1: belongs to --engine vllm"),
        (["--engine", "vllm"], "--engine vllm: say where it is, by --vllm-url"),
        (["--max-waiting", "-1"], "max-waiting=-1"),
        (["--deadline-seconds", "0"], "deadline-seconds=0"),
        (["--ignore", "language,model"], "ignored=model: use some of language, prompt"),
        (["--engine", "plain", "--max-running", "4"], "--engine plain answers one request at a time"),
        (["--max-running", "0"], "--max-running 0: use 1 or more"),
        (["--port", "65536"], "--port 65536: use 0 (a free one) to 65535"),
        (["--host", "192.0.2.1"], "nothing can listen at 192.0.2.1, port 8000"),
        (["--host", "no such host"], "--host no such host: is no address of this machine"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *options])
    assert ended.value.code == 1
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["serve", "no-such-model", "--port", str(port)])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert f"nothing can listen at 127.0.0.1, port {port}" in told
    assert "name another --port" in told


@pytest.mark.parametrize(("option", "content"), [("--api-keys", "\n \n"), ("--voices", "- a\n- b\n")])
def test_files_that_hold_nothing_of_use_are_named(
    tmp_path: Path, option: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given"
    path.write_text(content)
    with pytest.raises(SystemExit):
        main(["serve", option, str(path)])
    assert f"{option} {path}" in capsys.readouterr().err
