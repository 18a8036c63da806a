"""Servers in processes of their own on the loopback address, started for a comparison and ended with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from audiollm.program import ProgramError
from audiollm.serving.engines.remote import PLUGIN

_SHOWN_CHARACTERS = 1500
_ROOT = Path(__file__).resolve().parents[3]  # of the folder that holds `audiollm`


class ServerProcessError(ProgramError):
    """A server does not come up."""


def free_port() -> int:
    """A port of the loopback address that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def running_audiollm(model: str, engine: str, limit_seconds: float, options: Sequence[str] = ()) -> Iterator[str]:
    """``audiollm serve``; gives its address.

    Args:
        model: folder, Hub id or "mini".
        engine: of the server.
        limit_seconds: longest that it may take to come up.
        options: more of the command's.

    Raises:
        ServerProcessError: it does not come up; with the end of what it said.
    """
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "audiollm",
        "serve",
        "--model",
        model,
        "--engine",
        engine,
        "--port",
        str(port),
        *options,
    ]
    with _running(command, f"http://127.0.0.1:{port}", "/ready", limit_seconds, {}) as url:
        yield url


@contextmanager
def running_vllm_server(python: str, folder: str, dtype: str, limit_seconds: float) -> Iterator[str]:
    """vLLM's own server with our plug-in, in an environment of its own; arguments and errors as above.

    Args:
        python: the interpreter of an environment that has vLLM.
        folder: of the checkpoint.
        dtype: of the weights.
        limit_seconds: longest that it may take to come up.
    """
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", dtype, "--enforce-eager", "--logits-processors", PLUGIN]
    variables = {
        "PYTHONPATH": str(_ROOT),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with _running(command, f"http://127.0.0.1:{port}", "/health", limit_seconds, variables) as url:
        yield f"{url}/v1"


@contextmanager
def _running(
    command: Sequence[str], url: str, path: str, limit_seconds: float, variables: Mapping[str, str]
) -> Iterator[str]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **variables}, start_new_session=True
            )
        except OSError as error:
            raise ServerProcessError(f"{command[0]}: cannot be run: {error.strerror}") from error
        try:
            _wait(process, log, url + path, limit_seconds)
            yield url
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], log: IO[str], url: str, limit_seconds: float) -> None:
    end = time.monotonic() + limit_seconds
    while not _answers(url):
        if process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            continue
        why = f"ended with status {process.returncode}" if process.poll() is not None else f"{limit_seconds:g} s passed"
        log.seek(0)
        raise ServerProcessError(f"{url} does not answer ({why}); the server said:\n{log.read()[-_SHOWN_CHARACTERS:]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it and all that it started."""
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
