"""Predicts in processes forked off one that has imported everything, as many as a job says, and kills them.

``predicting_runs.py DATA MODEL`` reads jobs as JSON from standard input, ``[{"world_size", "output", "after_lines":
lines in all logs of the output after which all processes are killed, "delay": seconds after that}]``, runs one after
the other, and writes how the processes of each ended: an exit status, or minus a signal.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from audiollm.benchmarks.models.base import AnswerSettings
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.benchmarks.questions.asking.predicting import PredictingSettings, predict_questions
from audiollm.benchmarks.questions.data import load_questions
from audiollm.benchmarks.questions.registry import benchmark_named


def predict(data: str, model: str, output: str) -> None:
    """What every process does."""
    torch.set_num_threads(1)
    under_test = open_audio_chat_model(model, settings=AnswerSettings(max_new_tokens=6), device="cpu")
    settings = PredictingSettings(batch_size=3, max_failures=100, progress=False)
    predict_questions("mmau", load_questions(benchmark_named("mmau"), data), under_test, output, settings)


def run(job: dict[str, Any], data: str, model: str) -> list[int]:
    """Runs a job in children; returns how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(job["world_size"]):
        child = os.fork()
        if child == 0:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["world_size"], "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            try:
                predict(data, model, job["output"])
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    if "after_lines" in job:
        kill_after(job, children)
    return wait_for(children)


def wait_for(children: list[int]) -> list[int]:
    """Waits until all have ended; when one fails, the others are killed, as launchers do."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child]:
            for other in set(children) - codes.keys():
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def kill_after(job: dict[str, Any], children: list[int]) -> None:
    """Waits until the logs have grown so far, and kills."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        logs = Path(job["output"]).glob("predictions.rank*.jsonl")
        if sum(log.read_bytes().count(b"\n") for log in logs) >= job["after_lines"]:
            break
        if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
            return  # it was faster, or failed
        time.sleep(0.002)
    time.sleep(job["delay"])
    for child in children:
        os.kill(child, signal.SIGKILL)  # of a child that has ended there is still the zombie


def main() -> None:
    """Runs the jobs; nothing is computed in this process itself, so that its children can be forked."""
    for module in ("models.audio_llm", "mmau"):  # once, before the forks
        importlib.import_module(f"audiollm.benchmarks.{module}")
    data, model = sys.argv[1:]
    results = [run(job, data, model) for job in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
