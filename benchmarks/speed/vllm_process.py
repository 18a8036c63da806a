"""vLLM in an environment of its own, as one more way to generate: it wants other versions than ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from audiollm.program import ProgramError

_PROGRAM = Path(__file__).with_name("vllm_answers.py")
_SHOWN_CHARACTERS = 1500

MOST_SECONDS = 1e6
"""That it can be waited for; clocks of the system end somewhere."""


class VLLMError(ProgramError):
    """vLLM cannot be asked."""


class VLLMProcess:
    """A running vLLM; made by `running_vllm`.

    Attributes:
        processor_seconds: spent on answers so far.
    """

    def __init__(self, python: str, process: subprocess.Popen[str], log: TextIO, limit_seconds: float) -> None:
        self._python, self._process, self._log, self._limit_seconds = python, process, log, limit_seconds
        self.processor_seconds = 0.0

    def answer(self, prompts: Tensor, num_tokens: int, allowed: Tensor | None) -> Tensor:
        """Generates greedily; nothing ends an answer.

        Args:
            prompts: int64 ``[B, S]``.
            num_tokens: of each answer.
            allowed: ids that may follow; None: any.

        Returns:
            The new ids, int64 ``[B, num_tokens]``.

        Raises:
            VLLMError: vLLM has ended, is none, or takes too long; with the end of what it said.
        """
        ids = None if allowed is None else allowed.tolist()
        reply = self.ask({"prompts": prompts.tolist(), "num_tokens": num_tokens, "allowed": ids})
        self.processor_seconds += reply["processor_seconds"]
        return torch.tensor(reply["tokens"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one line and waits for one; errors as for `answer`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            _end(self._process)  # and so whoever waits below for its pipes

        timer = threading.Timer(self._limit_seconds, give_up)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # told below
            line = ""
        else:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError as error:
            _end(self._process)
            self._log.seek(0)
            told = (line + self._log.read())[-_SHOWN_CHARACTERS:] or "(nothing)"
            what = f"no answer in {self._limit_seconds:g} s" if is_late.is_set() else "this is no vLLM that answers"
            raise VLLMError(f"vllm_python={self._python}: {what}; it said:\n{told}") from error
        return reply


def _end(process: subprocess.Popen[str]) -> None:
    """Ends it and all that it started, which would keep its pipes open."""
    with suppress(ProcessLookupError):  # it has ended, and left nothing
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running_vllm(
    python: str, model: str | Path, dtype: str, max_length: int, limit_seconds: float = 900.0
) -> Iterator[VLLMProcess]:
    """Starts vLLM on a checkpoint, with as many threads as torch has here, and ends it with the block.

    Args:
        python: the interpreter of an environment that has vLLM.
        model: folder of the checkpoint.
        dtype: of the weights.
        max_length: tokens of prompt and answer together.
        limit_seconds: longest that it may take to start, and for each batch of answers.

    Raises:
        ValueError: there is no such interpreter.
        VLLMError: vLLM does not start, or not in time; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [python, str(_PROGRAM)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ValueError(f"vllm_python={python}: cannot be run: {error.strerror}") from error
        try:
            vllm = VLLMProcess(python, process, log, limit_seconds)
            vllm.ask(
                {
                    "model": str(model),
                    "dtype": dtype,
                    "num_threads": torch.get_num_threads(),
                    "max_length": max_length,
                }
            )
            yield vllm
        finally:
            _end(process)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # of what it was still to be asked
                    pipe.close()
