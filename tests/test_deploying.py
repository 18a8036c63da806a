"""What deploy/ holds: files that say what this repository has, and two replicas behind a balancer, on loopback."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiollm.cli.app import COMMANDS, build_parser, spelt_out

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


# --- the files --------------------------------------------------------------------------------------------------------


def extras() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^([\w-]+) = ", section, re.MULTILINE))


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with what follows each, in order."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in code.splitlines() if line)]


def understood(words: list[str]) -> Any:
    """The settings of an ``audiollm`` command line."""
    return build_parser().parse_args(spelt_out(words))[words[0]]


DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


def test_the_image_starts_a_command_that_there_is() -> None:
    settings = dict(DOCKERFILE)
    [program, *words] = json.loads(settings["ENTRYPOINT"])
    assert (program, words[0] in COMMANDS) == ("audiollm", True)
    served = understood([*words, *json.loads(settings["CMD"])])
    assert (served.model, served.host, served.port) == ("mini", "0.0.0.0", int(settings["EXPOSE"]))
    assert f":{served.port}/ready" in settings["HEALTHCHECK"]


def test_the_image_runs_as_nobody_in_particular_and_keeps_its_models() -> None:
    settings = dict(DOCKERFILE)
    user = settings["USER"]
    made = next(rest for name, rest in DOCKERFILE if name == "RUN" and "useradd" in rest)
    assert re.search(rf"--uid [1-9]\d+ .*\b{user}\b", made)
    assert [name for name, _ in DOCKERFILE].index("USER") < [name for name, _ in DOCKERFILE].index("ENTRYPOINT")
    environment = settings["ENV"]
    assert all(f"{name}={settings['VOLUME']}/" in environment for name in ("HF_HOME", "AUDIOLLM_CACHE"))


def test_the_image_installs_extras_that_there_are_from_files_that_there_are() -> None:
    asked = {
        name for _, rest in DOCKERFILE for found in re.findall(r"'\.\[([\w,-]+)\]'", rest) for name in found.split(",")
    }
    assert asked
    assert asked <= extras()
    copied = [shlex.split(rest)[:-1] for name, rest in DOCKERFILE if name == "COPY" and "--from" not in rest]
    assert all((ROOT / path).exists() for paths in copied for path in paths)
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [path for path in kept if not (ROOT / path).exists()] == []
    needed = {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
    needed |= {link.resolve().name for link in (ROOT / "audiollm").iterdir() if link.is_symlink()}
    assert needed <= set(kept)


def test_the_shell_of_the_image_parses() -> None:
    for name, rest in DOCKERFILE:
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)


def test_compose_builds_that_image_and_mounts_files_that_there_are() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    build = services["audiollm"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()
    arguments = {rest.partition("=")[0] for name, rest in DOCKERFILE if name == "ARG"}
    assert set(build["args"]) <= arguments
    mounted = [volume.split(":")[0] for volume in services["balancer"]["volumes"]]
    assert [path for path in mounted if not (DEPLOY / path).exists()] == []
    assert [port.rpartition(":")[0].partition(":")[0] for port in services["balancer"]["ports"]] == ["127.0.0.1"]
    named = (DEPLOY / "nginx" / "upstream.compose.conf").read_text(encoding="utf-8")
    assert f"server audiollm:{services['audiollm']['expose'][0]} " in named
    grace = int(services["audiollm"]["stop_grace_period"].rstrip("s"))
    assert grace > understood(["serve"]).grace_seconds


def test_the_unit_starts_a_command_that_there_is() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "audiollm@.service")
    [program, *words] = shlex.split(unit["Service"]["ExecStart"].replace("${MODEL}", "mini").replace("%i", "8001"))
    served = understood(words)
    assert (Path(program).name, served.model, served.port, served.host) == ("audiollm", "mini", 8001, "127.0.0.1")
    assert int(unit["Service"]["TimeoutStopSec"]) > served.grace_seconds


def test_balancers_wait_as_long_as_an_answer_may_take() -> None:
    served = understood(["serve"])
    seconds = f"{served.deadline_seconds:.0f}s"
    assert f"proxy_read_timeout {seconds};" in (DEPLOY / "nginx" / "server.conf").read_text(encoding="utf-8")
    assert f"timeout server {seconds}" in (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    assert f"read_timeout {seconds}" in (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    most = f"{2 * served.max_upload_megabytes}"
    assert f"client_max_body_size {most}m;" in (DEPLOY / "nginx" / "server.conf").read_text(encoding="utf-8")
    assert f"max_size {most}MB" in (DEPLOY / "Caddyfile").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs caddy")
def test_caddy_understands_its_file() -> None:
    subprocess.run(["caddy", "adapt", "--config", DEPLOY / "Caddyfile"], check=True, capture_output=True)


# --- two replicas -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Replica:
    """A server in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "audiollm", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def num_answered(self) -> int:
        """The texts that it has spoken."""
        text = asked(self.port, "/metrics")[1].decode()
        counts = re.findall(r'requests_total\{route="/v1/audio/speech",status="200"\} ([\d.]+)', text)
        return sum(int(float(count)) for count in counts)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def asked(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """Status and content of an answer; status 0 if there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert process.poll() is None, f"{process.args} ended"
        if asked(port, "/ready")[0] == 200:
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing is ready at {port}")


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[Replica]]:
    running = [Replica(), Replica()]
    try:
        for one in running:
            wait_until_ready(one.port, one.process)
        yield running
    finally:
        for one in running:
            one.end()


def balancer_of(name: str, folder: Path, port: int, replicas: list[Replica]) -> list[str]:
    """The command of a balancer, by the files of deploy/ but for ports and places."""
    ports = {"8001": str(replicas[0].port), "8002": str(replicas[1].port)}

    def moved(path: str) -> str:
        text = re.sub(
            r"127\.0\.0\.1:(800[12])", lambda found: f"127.0.0.1:{ports[found[1]]}", (DEPLOY / path).read_text()
        )
        return re.sub(r"(listen|bind) :?8000", rf"\g<1> 127.0.0.1:{port}", text)

    if name == "haproxy":
        (folder / "haproxy.cfg").write_text(moved("haproxy.cfg"))
        return ["haproxy", "-f", str(folder / "haproxy.cfg")]
    places = "".join(f"{one}_temp_path {folder}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\nhttp {{ access_log off; {places}\n"
    (folder / "nginx.conf").write_text(f"{main}{moved('nginx/upstream.conf')}\n{moved('nginx/server.conf')}}}\n")
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]


SPEECH = {"model": "mini", "input": "Good day.", "voice": "default", "response_format": "wav", "seed": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_two_replicas_share_the_work_and_one_goes_on_alone(name: str, replicas: list[Replica], tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    for index, one in enumerate(replicas):
        if one.process.poll() is not None:  # the last balancer's test ended it
            replicas[index] = Replica()
            wait_until_ready(replicas[index].port, replicas[index].process)
    port = free_port()
    balancer = subprocess.Popen(balancer_of(name, tmp_path, port, replicas))
    try:
        wait_until_ready(port, balancer)
        before = [one.num_answered() for one in replicas]
        answers = together(port, 8)
        assert [status for status, _ in answers] == [200] * 8
        assert len({content for _, content in answers}) == 1  # whoever answers
        shares = [one.num_answered() - count for one, count in zip(replicas, before, strict=True)]
        assert sum(shares) == 8
        assert min(shares) >= 2

        replicas[1].end()
        answers = together(port, 6) + [asked(port, "/v1/audio/speech", SPEECH) for _ in range(3)]
        assert [status for status, _ in answers] == [200] * 9
        assert asked(port, "/v1/models")[0] == 200
    finally:
        balancer.send_signal(signal.SIGTERM)
        balancer.wait()


def together(port: int, count: int) -> list[tuple[int, bytes]]:
    """The answers to so many requests at once."""
    answers: list[tuple[int, bytes]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(asked(port, "/v1/audio/speech", SPEECH))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
