"""Trains tokenizers in children of one process that imports everything once, and kills them where it is told to.

Reads jobs as JSON from standard input, ``[{"config": path, "kill": [module, function, call, moment] | null, "after":
seconds | null}]``, runs one after the other, and writes how each ended: an exit status, or minus a signal.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

from audiollm.program import run_program
from audiollm.training import train_tokenizer
from audiollm.training.audio_tokenizer.config import TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.audio_tokenizer.start import load_start


def die_at(module: str, function: str, call: int, moment: str) -> None:
    """Makes a function kill this process at its ``call``-th call, ``before`` or ``after`` it does its work."""
    owner: Any = importlib.import_module(module)
    *path, name = function.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def run(job: dict[str, Any]) -> int:
    """Runs one job in a child; returns how it ended."""
    child = os.fork()
    if child == 0:
        # Replaces the thread pool that fork left broken; PyTorch fails if two threads come to do so at the same time.
        torch.set_num_threads(1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        if job.get("kill"):
            die_at(*job["kill"])
        try:
            run_program(
                train_tokenizer.TokenizerTrainingConfig, train_tokenizer.train, arguments=["--config", job["config"]]
            )
        except SystemExit:
            os._exit(1)
        os._exit(0)
    if job.get("after"):
        time.sleep(job["after"])
        os.kill(child, signal.SIGKILL)  # of a child that has ended there is still the zombie
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def warm_up(config: dict[str, Any]) -> None:
    """Does what every child would do first: importing, reading a checkpoint, compiling regular expressions."""
    settings = TokenizerSettings(**config["audio_tokenizer"])
    given = {name: config[name] for name in ("train_data", "output_dir", "start_from", "quantized", "seed")}
    extract_model_from_parallel(load_start(TokenizerTrainingConfig(**given, audio_tokenizer=settings)).model)
    gc.collect()
    gc.freeze()  # so that children need not look through all of that again


def main() -> None:
    """Runs the jobs; nothing is computed in this process itself, so that its children can be forked."""
    torch.set_num_threads(1)
    jobs = json.load(sys.stdin)
    warm_up(json.loads(Path(jobs[0]["config"]).read_text(encoding="utf-8")))
    json.dump([run(job) for job in jobs], sys.stdout)


if __name__ == "__main__":
    main()
