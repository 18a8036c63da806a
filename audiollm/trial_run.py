"""Tries out what this machine does best: `audiollm doctor --bench`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.machine.kernel import FIXED_KERNEL, float32_kernel
from audiollm.tokenizer.machine.trials import forget_trials, is_busy, trials_file
from audiollm.tokenizer.rates import product_rates, threads, threads_to_try

from .fastest import FIXED_DTYPE, fastest_dtype_for_frames, fastest_num_threads, fixed_num_threads
from .modeling import AudioLLM

_HEARD_SECONDS, _SPOKEN_SECONDS, _NUM_TOKENS = 30.0, 4.0, 48
_TRIES = 3  # after one that does not count
_CLEARLY = 1.2  # times faster, before another choice is worth a word

Told = Callable[[str], None]


def try_machine(tell: Told = lambda _: None) -> dict[str, Any]:
    """Measures matrix products and what mini does, on the processor; takes about 20 s on two cores.

    Args:
        tell: is given a word on what comes next.

    Returns:
        ``choices``: what commands take here, measured anew and kept, unless an environment variable, which is named,
        settles it; ``kept`` says whether they are. All else is measured with no more threads than there are cores.
        ``products``: by number of threads, billions of operations per second by number format. ``mini``: by precision,
        seconds of sound that are encoded and decoded per second, and tokens per second. ``writing``: tokens per second
        of mini in float32 by number of threads, of which 1, 2, 4 and so on are tried. ``advice``: lines.

    Raises:
        ValueError: if what was kept before cannot be removed.
    """
    choices = _choices(tell)  # first, as the load of what follows would be taken for other work
    asked, cores = torch.get_num_threads(), num_cores()
    with threads(min(asked, cores)):  # more would wait for each other, for minutes
        figures = _figures(tell)
    lines = figures.pop("advice")
    if asked > cores:
        lines.insert(0, _too_many_threads(asked, cores))
    return {"choices": choices, **figures, "advice": lines}


def num_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _too_many_threads(asked: int, cores: int) -> str:
    name = fixed_num_threads()
    cure = f"set {name}={cores}, or leave it out" if name else f"torch.set_num_threads({cores})"
    told = f"{asked} threads wait for each other on {cores} {'core' if cores == 1 else 'cores'}"
    return f"{told}: {cure}; the figures are with {cores}"


def _figures(tell: Told) -> dict[str, Any]:
    products: dict[str, dict[str, float]] = {}
    for number in sorted({1, torch.get_num_threads()}):
        tell(f"matrix products, {number} {'thread' if number == 1 else 'threads'}")
        with threads(number):
            products[str(number)] = product_rates()
    precisions: list[Literal["float32", "int8"]] = ["float32"]
    if "int8" in products[str(torch.get_num_threads())]:
        precisions.append("int8")
    mini: dict[str, dict[str, float]] = {}
    for precision in precisions:
        tell(f"mini in {precision}")
        mini[precision] = _work_of_mini(precision)
    tell("mini's tokens by number of threads")
    writing = _tokens_by_threads()
    return {
        "products": products,
        "mini": mini,
        "writing": writing,
        "advice": advice(products, mini, writing),
    }


def _choices(tell: Told) -> dict[str, str]:
    """What commands will take here, tried anew: what was kept may have been measured while the machine was busy."""
    tell("what commands take here: threads, number format and library")
    try:
        forget_trials()
    except OSError as error:
        raise ValueError(f"{trials_file()} cannot be removed, and holds what was tried before: {error}") from error
    fixed = fixed_num_threads()
    number = torch.get_num_threads() if fixed else fastest_num_threads()
    with threads(number):
        found = {
            "threads": _settled(str(number), fixed),
            "number format for frames": _settled(fastest_dtype_for_frames(), FIXED_DTYPE),
            "library for float32": _settled({"onednn": "oneDNN", "blas": "BLAS"}[float32_kernel()], FIXED_KERNEL),
        }
    kept = trials_file().is_file()
    return found | {"kept": "yes" if kept else "no: other work has the cores" if is_busy() else "no"}


def _settled(choice: str, variable: str | None) -> str:
    """The choice, and the environment variable that made it."""
    return f"{choice} ({variable})" if variable and os.environ.get(variable) else choice


def advice(
    products: dict[str, dict[str, float]], mini: dict[str, dict[str, float]], writing: dict[str, float]
) -> list[str]:
    """What follows from the figures of `try_machine`, one line each."""
    most = max(products, key=int)
    rates, lines = products[most], []
    if int(most) > 1:
        gain = rates["float32"] / products["1"]["float32"]
        told = f"{most} threads multiply {gain:.1f} times as fast as one"
        lines.append(told if gain >= _CLEARLY else f"{told}: set OMP_NUM_THREADS=1, and use the other cores otherwise")
    best, usual = max(writing, key=writing.__getitem__), max(writing, key=int)
    if writing[best] >= _CLEARLY * writing[usual]:
        gain, threads = writing[best] / writing[usual], "thread" if best == "1" else "threads"
        lines.append(
            f"a small LLM writes {gain:.1f} times as fast with {best} {threads} as with {usual}: "
            f"set OMP_NUM_THREADS={best} where it writes alone"
        )
    for name in ("bfloat16", "int8"):
        if name not in rates:
            lines.append(f"{name}: this torch has no kernel for it on this machine")
            continue
        gain = rates[name] / rates["float32"]
        if gain >= _CLEARLY:
            lines.append(f"{name}: products {gain:.1f} times as fast as float32; for large models try --dtype {name}")
        elif gain * _CLEARLY <= 1:
            lines.append(f"{name}: products {1 / gain:.1f} times slower than float32; leave it to GPUs")
        else:
            lines.append(f"{name}: products as fast as float32")
    if "int8" in mini:
        gain = mini["int8"]["tokens per second"] / mini["float32"]["tokens per second"]
        lines.append(
            f"mini's LM in int8: {gain:.1f} times as many tokens per second; in larger LLMs products weigh more"
        )
    return lines


def _work_of_mini(precision: Literal["float32", "int8"]) -> dict[str, float]:
    model = AudioLLM.from_pretrained()
    audio_tokenizer = model.processor.load_audio_tokenizer()
    if precision == "int8":
        model.to_int8()
        audio_tokenizer.to_int8()  # type: ignore[attr-defined]  # mini's has it
        audio_tokenizer.decoder.to_int8()  # type: ignore[attr-defined]
    noise = 0.1 * torch.randn(int(_HEARD_SECONDS * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
    codes = audio_tokenizer.encode([noise], SAMPLE_RATE)[0][0]
    few = codes[: round(_SPOKEN_SECONDS * audio_tokenizer.frame_rate)]

    return {
        "seconds encoded per second": _HEARD_SECONDS / _best(lambda: audio_tokenizer.encode([noise], SAMPLE_RATE)),
        "seconds decoded per second": _SPOKEN_SECONDS / _best(lambda: audio_tokenizer.decode(few)),
        "tokens per second": _tokens_per_second(model),
    }


def _tokens_by_threads() -> dict[str, float]:
    model, most = AudioLLM.from_pretrained(), torch.get_num_threads()
    found = {}
    for number in threads_to_try(most):
        with threads(number):
            found[str(number)] = _tokens_per_second(model)
    return found


def _tokens_per_second(model: AudioLLM) -> float:
    ids = torch.tensor([model.processor.tokenizer("Once upon a time").input_ids])

    def write() -> Any:
        return model.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=_NUM_TOKENS, min_new_tokens=_NUM_TOKENS,
            do_sample=False,
        )  # fmt: skip

    return _NUM_TOKENS / _best(write)


def _best(run: Callable[[], Any]) -> float:
    """Seconds, the least of some tries."""
    run()
    seconds = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
