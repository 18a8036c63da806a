"""vLLM itself with our plug-in, in an environment of its own: `make vllm-check` sets it up and runs this.

AUDIOLLM_VLLM_PYTHON names the Python of that environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from audiollm.mini import mini_folder
from audiollm.modeling import AudioLLM
from audiollm.serving.engines.base import EngineError
from audiollm.serving.engines.remote import PLUGIN, VllmEngine

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parents[4]
START_SECONDS = 600


class Vllm:
    """A running server."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def num_running(self) -> float:
        """Requests that it computes."""
        with urllib.request.urlopen(self.url.replace("/v1", "/metrics")) as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))

    def kill(self) -> None:
        """Ends it, and what it has started, without a word."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def vllm(folder: Path, log: Path, *options: str) -> Iterator[Vllm]:
    """A server of a folder that has come up."""
    python = os.environ.get("AUDIOLLM_VLLM_PYTHON")
    if python is None:
        pytest.fail("AUDIOLLM_VLLM_PYTHON names no Python with vLLM: run `make vllm-check`")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "it"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32", *options),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
    server = Vllm(f"http://127.0.0.1:{port}/v1", process)
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < until, "vLLM did not come up"
            time.sleep(0.5)
        yield server
    finally:
        if process.poll() is None:
            server.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """mini, with our plug-in, in steps so small that prompts come in over several."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = ("--logits-processors", PLUGIN, "--max-num-batched-tokens", "32", "--max-num-seqs", "16")
    with vllm(mini_folder(), log, *options) as running:
        yield running


@pytest.fixture(scope="module")
def mini_client(tiny: Any, mini_llm: AudioLLM) -> Any:
    return type(tiny)(mini_llm)


@pytest.fixture
def engine(server: Vllm, mini_llm: AudioLLM) -> VllmEngine:
    return VllmEngine(server.url, mini_llm.processor)


def test_answers_are_those_of_generate(
    mini_client: Any, engine: VllmEngine, greedy: dict[str, dict[str, Any]], drawn: dict[str, dict[str, Any]]
) -> None:
    kinds = [*greedy.values(), *({**one, "seed": 5} for one in drawn.values())]
    asked = [(f"Say number {number}.", kind) for number, kind in enumerate(kinds)]
    found = mini_client.answers(engine, [mini_client.request(prompt, **kind) for prompt, kind in asked])
    assert found == [mini_client.generated(prompt, **kind) for prompt, kind in asked]


def test_a_seed_gives_the_same_alone_and_among_eight_others(
    mini_client: Any, engine: VllmEngine, drawn: dict[str, dict[str, Any]]
) -> None:
    request = mini_client.request("Sing.", seed=11, **drawn["audio"])
    others = [
        mini_client.request(f"Sing number {n}.", seed=n, **list(drawn.values())[n % len(drawn)]) for n in range(8)
    ]
    [alone] = mini_client.answers(engine, [request])
    assert mini_client.answers(engine, [*others[:4], request, *others[4:]])[4] == alone


def test_whoever_leaves_frees_the_place(mini_client: Any, engine: VllmEngine, server: Vllm) -> None:
    endless = {"modalities": "audio", "min_seconds": 60, "do_sample": False}

    async def main() -> None:
        async with mini_client.running(engine):
            answers = [engine.tokens(mini_client.request("On and on.", **endless)) for _ in range(4)]
            for one in answers:
                await anext(one)
            assert await asyncio.to_thread(server.num_running) > 0
            for one in answers:
                await one.aclose()
            while await asyncio.to_thread(server.num_running):
                await asyncio.sleep(0.1)

    mini_client.within(60, main)


def test_another_vocabulary_is_told_at_the_start(tiny: Any, server: Vllm) -> None:
    with pytest.raises(EngineError, match="serves it with another vocabulary"):
        tiny.answers(VllmEngine(server.url, tiny.model.processor), [])


def test_one_without_the_plugin_is_told_and_one_that_is_killed_fails_its_answers(
    mini_client: Any, mini_llm: AudioLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vllm(mini_folder(), tmp_path / "log") as plain:
        with pytest.raises(EngineError, match="does not keep to the rules of answers"):
            mini_client.answers(VllmEngine(plain.url, mini_llm.processor), [])
        engine = VllmEngine(plain.url, mini_llm.processor)
        monkeypatch.setattr(engine, "_check_plugin", _nothing())  # to see it end in the middle

        async def main() -> None:
            async with mini_client.running(engine):
                tokens = engine.tokens(mini_client.request("On and on.", max_new_tokens=1500))
                await anext(tokens)
                await asyncio.to_thread(plain.kill)
                with pytest.raises(EngineError, match="in the middle of an answer"):
                    async for _ in tokens:
                        pass
                assert not engine.is_ready

        mini_client.within(60, main)


def _nothing() -> Callable[[], Any]:
    async def check() -> None:
        return None

    return check
