"""Answers by vLLM, in a Python environment that has it and none of ours: requests come on stdin, ids go to stdout.

The first line is ``{"model", "dtype", "num_threads", "max_length"}``, each further one ``{"prompts", "num_tokens",
"allowed"}``; a reply is ``{"tokens", "processor_seconds"}``. See `vllm_process`, which starts this file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that processor time is counted
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}


def answers(requests: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One reply for the model that is loaded, and one for each request."""
    first = next(requests)
    os.environ.update(_SETTINGS, OMP_NUM_THREADS=str(first["num_threads"]))
    from vllm import LLM, SamplingParams

    model = LLM(
        model=first["model"], dtype=first["dtype"], max_model_len=first["max_length"],
        enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
    yield {}
    for request in requests:
        settings = SamplingParams(
            temperature=0.0, max_tokens=request["num_tokens"], ignore_eos=True, detokenize=False,
            allowed_token_ids=request["allowed"],
        )  # fmt: skip
        prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
        start = time.process_time()
        found = model.generate(prompts, settings, use_tqdm=False)
        spent = time.process_time() - start
        yield {"tokens": [list(one.outputs[0].token_ids) for one in found], "processor_seconds": spent}


def main() -> None:
    """Keeps stdout for replies: what libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for reply in answers(json.loads(line) for line in sys.stdin):
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
