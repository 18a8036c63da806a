"""Loads servers with clients: first text, first sound, throughput, and who waits; many at once against one by one.

``audiollm serve`` is started on the loopback address with each engine, on the same model, and all are loaded in turns,
so that a busy moment of the machine meets each of them. Clients ask for one answer after the other: for a text to be
spoken ("speech"), or what is said in a recording ("listening"). A server that runs already is one more with ``--url``;
vLLM computes the tokens of one more where ``--vllm_python`` says in which environment it is. Example::

    python benchmarks/speed/serving_load.py --rounds 3 --output serving_load.json
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from audiollm.benchmarks.harness.figures import measure_and_show, recorded_config
from audiollm.benchmarks.harness.options import refuse_below
from audiollm.benchmarks.speed.serving.clients import Answered, Ask, listening, load, speech, spoken
from audiollm.benchmarks.speed.serving.figures import load_figures
from audiollm.benchmarks.speed.serving.servers import running_audiollm, running_vllm_server
from audiollm.benchmarks.speed.timing import machine_facts
from audiollm.benchmarks.speed.vllm_process import MOST_SECONDS
from audiollm.mini import model_or_mini
from audiollm.program import run_program
from audiollm.prompts import instruction
from audiollm.tables import print_table

Task = Literal["speech", "listening"]
TEXTS = (
    "Who traded the cable last Tuesday?",
    "Send it to the station.",
    "We meet at the old bridge at noon tomorrow.",
    "The train leaves in ten minutes, so hurry up please.",
)
_ONE_BY_ONE = "plain"


@dataclass(frozen=True, kw_only=True)
class ServingLoadConfig:
    """One comparison."""

    model: str = "mini"
    """Audio-LLM folder or Hub id."""
    engines: tuple[Literal["batching", "plain"], ...] = ("batching", "plain")
    """Engines of which a server is started."""
    url: str | None = None
    """A server that runs already, such as http://127.0.0.1:8000; it serves a model of the name that `name` says."""
    name: str | None = None
    """The model's name on that server; that of `model` if not given."""
    vllm_python: str | None = None
    """The Python of an environment with vLLM, such as build/vllm/bin/python. None: vLLM is left out."""
    tasks: tuple[Task, ...] = ("speech", "listening")
    """What clients ask for."""
    clients: tuple[int, ...] = (1, 4, 8, 16)
    """Clients at once."""
    requests: int = 2
    """Answers that each client asks for, in each round."""
    rounds: int = 2
    """Loads of each server; they alternate."""
    max_running: int = 8
    """Requests that a server computes together."""
    limit_seconds: float = 300.0
    """Longest that a server may take to come up, and that anything of an answer may take."""
    seed: int = 0
    """Of the first request; each further one counts on."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON instead of tables."""

    def __post_init__(self) -> None:
        refuse_below(self, 1, ["clients", "requests", "rounds", "max_running"])
        if not 0 < self.limit_seconds <= MOST_SECONDS:
            raise ValueError(f"limit_seconds={self.limit_seconds:g}: use more than 0, and at most {MOST_SECONDS:g}")
        if not self.tasks:
            raise ValueError("tasks is empty: name at least one")
        if not (self.engines or self.url or self.vllm_python):
            raise ValueError("engines is empty: name at least one, or give url=")
        if self.url is not None and not self.url.startswith("http://"):
            raise ValueError(f"url={self.url}: use an address such as http://127.0.0.1:8000")


@dataclass(frozen=True)
class Loaded:
    """A server, and how its model is called there."""

    url: str
    model: str


@contextmanager
def running_servers(config: ServingLoadConfig) -> Iterator[dict[str, Loaded]]:
    """All servers of a comparison, by name."""
    own = "served"
    options = ["--name", own, "--max-waiting", str(max(config.clients))]
    at_once = ["--max-running", str(config.max_running)]
    with ExitStack() as stack:
        servers: dict[str, Loaded] = {
            engine: Loaded(stack.enter_context(running_audiollm(config.model, engine, config.limit_seconds, more)), own)
            for engine in config.engines
            for more in ([*options, *([] if engine == _ONE_BY_ONE else at_once)],)
        }
        if config.vllm_python is not None:
            folder = str(model_or_mini(config.model))
            tokens = running_vllm_server(config.vllm_python, folder, "float32", config.limit_seconds)
            more = [*options, *at_once, "--vllm-url", stack.enter_context(tokens)]
            url = stack.enter_context(running_audiollm(folder, "vllm", config.limit_seconds, more))
            servers["vLLM"] = Loaded(url, own)
        if config.url is not None:
            servers[config.url] = Loaded(config.url.rstrip("/"), config.name or config.model)
        yield servers


def make_requests(
    task: Task, server: Loaded, config: ServingLoadConfig, recording: bytes, clients: int, number: int
) -> list[list[Ask]]:
    """What each client asks for in a round; the same of every server."""

    def one(index: int) -> Ask:
        if task == "speech":
            return speech(server.model, TEXTS[index % len(TEXTS)], config.seed + index)
        return listening(server.model, recording, instruction("transcribe"))

    first = number * clients * config.requests
    return [
        [one(first + client * config.requests + request) for request in range(config.requests)]
        for client in range(clients)
    ]


def measure_task(
    task: Task, servers: dict[str, Loaded], config: ServingLoadConfig, recording: bytes, clients: int
) -> dict[str, dict[str, float]]:
    """Loads all servers in turns, after one round that does not count; figures by server."""
    rounds: dict[str, list[tuple[list[list[Answered]], float]]] = {name: [] for name in servers}
    total = (config.rounds * clients + 1) * config.requests * len(servers)
    with tqdm(total=total, desc=f"{task}, {clients} at once", leave=False, disable=None) as progress:
        for number in range(config.rounds + 1):
            for name, server in servers.items():
                progress.set_postfix_str(name)
                requests = make_requests(task, server, config, recording, clients if number else 1, number)
                result = load(server.url, requests, config.limit_seconds, progress.update)
                if number:
                    rounds[name].append(result)
    figures = {name: load_figures(own) for name, own in rounds.items()}
    if one_by_one := figures.get(_ONE_BY_ONE):
        for own in figures.values():
            own["times_one_by_one"] = own["tokens_per_second"] / one_by_one["tokens_per_second"]
    return figures


def measure(config: ServingLoadConfig) -> dict[str, Any]:
    """Loads all servers for each task and number of clients."""
    machine = machine_facts(load_average_before=os.getloadavg(), transformers=version("transformers"))
    results = {}
    with running_servers(config) as servers:
        first = next(iter(servers.values()))
        recording = b""
        if "listening" in config.tasks:
            recording = spoken(first.url, first.model, TEXTS[0], config.seed, config.limit_seconds)
        for task in config.tasks:
            for clients in config.clients:
                results[f"{task}, {clients} at once"] = measure_task(task, servers, config, recording, clients)
    machine["load_average_after"] = os.getloadavg()
    return {"config": recorded_config(config), "machine": machine, "results": results}


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Shows waits (median and 95 %), rates, and who waits longest."""
    for title, servers in results["results"].items():
        table = Table(
            "server", "first, s", "95 %", "all, s", "95 %", "time / sound", "95 %", "sound s/s", "tokens/s",
            "× one by one", "slowest / fastest client", title=title,
        )  # fmt: skip
        for name, own in servers.items():
            shown = (
                *("first_p50_seconds", "first_p95_seconds", "answer_p50_seconds", "answer_p95_seconds"),
                *("real_time_factor_p50", "real_time_factor_p95", "speech_seconds_per_second", "tokens_per_second"),
                *("times_one_by_one", "slowest_by_fastest_client"),
            )
            table.add_row(name, *(f"{own[figure]:.2f}" if figure in own else "" for figure in shown))
        print_table(table, console)
    console.print(results["machine"], soft_wrap=True)


def run(config: ServingLoadConfig) -> None:
    """Loads all servers, writes the figures down and shows them."""
    measure_and_show(config, measure, print_tables)


if __name__ == "__main__":
    run_program(ServingLoadConfig, run, level=logging.WARNING)
