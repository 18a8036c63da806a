"""Times greedy answers in text and in audio codes, one and several at once, against transformers' plain ``generate``.

All run in one process, in turns, on the same weights and the same prompts, on a processor. "plain" is ``generate`` as
its documentation shows it, which may answer with any token; "plain, masked" has a mask that was made once, and must
give our tokens. "ours, drawn" draws its codes, as answers do where nothing else is said. What bounds a step is that
each weight is read once: the layers', and those of the head's rows that may follow. How fast this machine reads is
measured in the same run. "vLLM", on the same folder, is one more way where ``--vllm_python`` says in which environment
it is. Example::

    python benchmarks/speed/generation.py --rounds 3 --output generation_speed.json
"""
# Shapes: B rows, S token ids of a prompt, T new tokens.

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiollm.benchmarks.harness.figures import measure_and_show, recorded_config
from audiollm.benchmarks.harness.options import refuse_below
from audiollm.benchmarks.speed.timing import in_turns, machine_facts, set_threads
from audiollm.benchmarks.speed.token_times import make_model, plain_generate, read_rate, weights_of
from audiollm.benchmarks.speed.vllm_process import MOST_SECONDS, VLLMProcess, running_vllm
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.tables import print_table
from audiollm.tokenizer.decoder.inputs import check_seed

Answers = Literal["text", "audio"]
_VLLM = "vLLM"


@dataclass(frozen=True, kw_only=True)
class GenerationSpeedConfig:
    """One comparison."""

    shapes: tuple[str, ...] = ("mini", "SmolLM2-135M", "Qwen2.5-0.5B")
    """Models: mini, or a shape with random weights, a text vocabulary of 151,646 and 8,194 audio tokens."""
    answers: tuple[Answers, ...] = ("text", "audio")
    """What answers consist of."""
    rows: tuple[int, ...] = (1, 8)
    """Answers at once."""
    prompt_tokens: int = 128
    """Length of each prompt."""
    new_tokens: int = 48
    """Length of each answer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    rounds: int = 3
    """Timings of each way; they alternate."""
    num_threads: int | None = None
    """Threads of torch; its own choice if not given."""
    vllm_python: str | None = None
    """The Python of an environment with vLLM, such as vllm-env/bin/python. None: vLLM is left out."""
    vllm_seconds: float = 900.0
    """Longest that vLLM may take to start, and for each batch of answers; then it is ended, with an error."""
    seed: int = 0
    """For weights and prompts."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON instead of tables."""

    def __post_init__(self) -> None:
        refuse_below(self, 1, ["prompt_tokens", "new_tokens", "rounds", "rows"])
        if not 0 < self.vllm_seconds <= MOST_SECONDS:
            raise ValueError(f"vllm_seconds={self.vllm_seconds:g}: use more than 0, and at most {MOST_SECONDS:g}")
        empty = next((name for name in ("shapes", "answers") if not getattr(self, name)), None)
        if empty is not None:
            raise ValueError(f"{empty} is empty: name at least one")
        check_seed(self.seed)


class _Clocked:
    """Runs a way and notes the processor time of each run, by a clock of the process that it runs in."""

    def __init__(self, run: Callable[[], Any], clock: Callable[[], float]) -> None:
        self._run, self._clock = run, clock
        self.processor_seconds: list[float] = []

    def __call__(self) -> None:
        start = self._clock()
        self._run()
        self.processor_seconds.append(self._clock() - start)


def make_prompts(model: AudioLLM, num_rows: int, num_tokens: int, answers: Answers, seed: int) -> Tensor:
    """Words drawn at random, int64 ``[B, S]``; behind them an audio segment is opened where codes are to follow."""
    vocabulary = model.vocabulary
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(3, min(vocabulary.token_ids), (num_rows, num_tokens), generator=generator)
    if answers == "audio":
        prompts[:, -1] = vocabulary.start_id
    return prompts


def make_ways(
    model: AudioLLM, prompts: Tensor, answers: Answers, num_tokens: int, seed: int, vllm: VLLMProcess | None = None
) -> dict[str, Callable[[], Tensor]]:
    """The ways to answer, by name; each gives the new ids, int64 ``[B, T]``."""
    vocabulary = model.vocabulary
    unlikely = 0  # an end that neither the model nor random weights come to
    if answers == "audio":
        first = vocabulary.first_code_id
        allowed = torch.arange(first, first + vocabulary.codebook_size)
        settings: dict[str, Any] = {
            # So that none of the segments ends before; in audio all ids that end are codes' neighbours.
            "modalities": {"audio"},
            "min_seconds": (num_tokens + 1) / model.processor.audio_tokenizer.frame_rate,
        }
    else:
        allowed = torch.arange(min(vocabulary.token_ids))
        settings = {"modalities": {"text"}}

    def ours(**more: Any) -> Tensor:
        result = model.generate(
            prompts, max_new_tokens=num_tokens, eos_token_id=unlikely, return_waveforms=False, **settings, **more
        )
        return torch.stack(result.token_ids)

    ways = {
        "plain": lambda: plain_generate(model.model, prompts, num_tokens, unlikely, None),
        "plain, masked": lambda: plain_generate(model.model, prompts, num_tokens, unlikely, allowed),
        "ours": lambda: ours(do_sample=False),
    }
    if answers == "audio":
        ways["ours, drawn"] = lambda: ours(do_sample=True, seed=seed)
    if vllm is not None:
        ways[_VLLM] = lambda: vllm.answer(prompts, num_tokens, allowed)
    return ways


def compare(
    model: AudioLLM,
    config: GenerationSpeedConfig,
    answers: Answers,
    num_rows: int,
    bytes_per_second: float,
    flops_per_second: float,
    title: str,
    vllm: VLLMProcess | None = None,
) -> dict[str, Any]:
    """Times all ways on one batch of prompts."""  # fmt: skip
    prompts = make_prompts(model, num_rows, config.prompt_tokens, answers, config.seed)
    ways = make_ways(model, prompts, answers, config.new_tokens, config.seed, vllm)
    tokens = {name: run() for name, run in ways.items()}
    clocks: dict[str, Callable[[], float]] = {} if vllm is None else {_VLLM: lambda: vllm.processor_seconds}
    clocked = {name: _Clocked(run, clocks.get(name, time.process_time)) for name, run in ways.items()}
    seconds = in_turns(clocked, config.rounds, model.device, title)
    num_tokens = num_rows * config.new_tokens
    layers, row, weights = weights_of(model.model)
    # What has to be done whatever the way: the prompt's products, then each step reads all weights, or computes
    # with them for longer.
    head_rows = model.vocabulary.codebook_size + 1 if answers == "audio" else min(model.vocabulary.token_ids)
    per_step = max(
        (layers + head_rows * row) / bytes_per_second,
        2 * num_rows * (weights + head_rows * row / model.dtype.itemsize) / flops_per_second,
    )
    bound = 2 * weights * prompts.numel() / flops_per_second + config.new_tokens * per_step
    figures = {}
    for name, own in seconds.items():
        processor = clocked[name].processor_seconds[1:]
        figures[name] = {
            "min_seconds": min(own),
            "median_seconds": statistics.median(own),
            "tokens_per_second": num_tokens / min(own),
            "median_tokens_per_second": num_tokens / statistics.median(own),
            "min_processor_ms_per_token": 1000 * min(processor) / num_tokens,
            "median_processor_ms_per_token": 1000 * statistics.median(processor) / num_tokens,
            "times_plain": min(seconds["plain"]) / min(own),
            "share_of_bound": bound / min(own),
            "share_of_tokens_of_ours": float((tokens[name] == tokens["ours"]).float().mean()),
        }
    return {"ways": figures, "bound_seconds": bound, "tokens": num_tokens, "head_rows": head_rows}


def measure(config: GenerationSpeedConfig) -> dict[str, Any]:
    """Compares for each model, kind of answer and number of rows."""
    set_threads(config.num_threads)
    dtype = getattr(torch, config.dtype)
    machine = machine_facts(load_average_before=os.getloadavg(), transformers=version("transformers"))
    flops_per_second = 1e9 * machine["gflops"].get(config.dtype, machine["gflops"]["float32"])
    bytes_per_second = read_rate(dtype)
    machine["gigabytes_per_second"] = bytes_per_second / 1e9
    results: dict[str, Any] = {}
    for shape in config.shapes:
        model = make_model(shape, dtype, config.seed)
        with _vllm_on(model, config) as vllm:
            for answers in config.answers:
                for num_rows in config.rows:
                    title = f"{shape}, {answers}, {num_rows} at once"
                    results[title] = compare(
                        model, config, answers, num_rows, bytes_per_second, flops_per_second, title, vllm
                    )
        del model
    machine["load_average_after"] = os.getloadavg()
    return {"config": recorded_config(config), "machine": machine, "results": results}


@contextmanager
def _vllm_on(model: AudioLLM, config: GenerationSpeedConfig) -> Iterator[VLLMProcess | None]:
    """vLLM on the weights of a model, where it is asked for."""
    if config.vllm_python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        max_length = config.prompt_tokens + config.new_tokens
        with running_vllm(config.vllm_python, folder, config.dtype, max_length, config.vllm_seconds) as vllm:
            yield vllm


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Shows rates, costs, and whether the tokens are the same."""
    for title, result in results["results"].items():
        table = Table(
            "way", "tokens/s", "median", "processor ms/token", "× plain", "of the bound", "our tokens", title=title
        )
        for name, own in result["ways"].items():
            table.add_row(
                name,
                f"{own['tokens_per_second']:.1f}",
                f"{own['median_tokens_per_second']:.1f}",
                f"{own['min_processor_ms_per_token']:.2f}",
                f"{own['times_plain']:.2f}",
                f"{own['share_of_bound']:.0%}",
                f"{own['share_of_tokens_of_ours']:.1%}",
            )
        print_table(table, console)
    console.print(results["machine"], soft_wrap=True)


def run(config: GenerationSpeedConfig) -> None:
    """Times all ways, writes the figures down and shows them."""
    measure_and_show(config, measure, print_tables)


if __name__ == "__main__":
    run_program(GenerationSpeedConfig, run, level=logging.WARNING)
