"""vLLM in an environment of its own, as one more way to generate: it wants other versions than ours."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from audiollm.program import ProgramError

_PROGRAM = Path(__file__).with_name("vllm_answers.py")
_SHOWN_CHARACTERS = 1500


class VLLMError(ProgramError):
    """vLLM cannot be asked."""


class VLLMProcess:
    """A running vLLM; made by `running_vllm`.

    Attributes:
        processor_seconds: spent on answers so far.
    """

    def __init__(self, python: str, process: subprocess.Popen[str], log: TextIO) -> None:
        self._python, self._process, self._log = python, process, log
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
            VLLMError: vLLM has ended, or is none; with the end of what it said.
        """
        ids = None if allowed is None else allowed.tolist()
        reply = self.ask({"prompts": prompts.tolist(), "num_tokens": num_tokens, "allowed": ids})
        self.processor_seconds += reply["processor_seconds"]
        return torch.tensor(reply["tokens"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one line and waits for one; errors as for `answer`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # told below
            line = ""
        else:
            line = self._process.stdout.readline()
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError as error:
            self._process.kill()
            self._process.wait()
            self._log.seek(0)
            told = (line + self._log.read())[-_SHOWN_CHARACTERS:] or "(nothing)"
            raise VLLMError(f"vllm_python={self._python}: this is no vLLM that answers; it said:\n{told}") from error
        return reply


@contextmanager
def running_vllm(python: str, model: str | Path, dtype: str, max_length: int) -> Iterator[VLLMProcess]:
    """Starts vLLM on a checkpoint, with as many threads as torch has here, and ends it with the block.

    Args:
        python: the interpreter of an environment that has vLLM.
        model: folder of the checkpoint.
        dtype: of the weights.
        max_length: tokens of prompt and answer together.

    Raises:
        ValueError: there is no such interpreter.
        VLLMError: vLLM does not start; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [python, str(_PROGRAM)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )  # fmt: skip
        except OSError as error:
            raise ValueError(f"vllm_python={python}: cannot be run: {error.strerror}") from error
        try:
            vllm = VLLMProcess(python, process, log)
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
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # of what it was still to be asked
                    pipe.close()
