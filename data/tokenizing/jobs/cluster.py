"""Units done by actors of Ray, on all machines of a cluster; Ray only says who does which.

Audio never goes through Ray: units are numbers, results are counts, and the shards are the workers' own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence
from pickle import dumps, loads
from typing import Any

import numpy as np

from .plan import Unit
from .work import Job, OpenAudioTokenizer, UnitResult, WorkerError
from .worker import UNITS_AT_ONCE, UnitWorker

LOCAL = "local"
SECONDS_TO_ANSWER = 10.0
_START = "start one with `ray start --head`"
OBJECT_STORE_BYTES = 200 << 20  # of a cluster that we start; there is nothing large in it


class RayCluster:
    """Does units in actors of Ray, each with a GPU if the cluster has any, else with a core.

    Args:
        job: what is to be done.
        open_audio_tokenizer: loads the encoder, in each actor.
        address: of a cluster; "auto": the one that this machine is part of; "local": one is started for this job.
        num_workers: actors; None: as many as the cluster has GPUs, or cores.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster.
    """

    def __init__(
        self, job: Job, open_audio_tokenizer: OpenAudioTokenizer, address: str, num_workers: int | None
    ) -> None:
        self._ray = _connect(address, num_workers)
        resources = self._ray.cluster_resources()
        self._kind = "num_gpus" if resources.get("GPU") else "num_cpus"
        available = int(resources.get("GPU") or resources.get("CPU", 1))
        self.num_workers = num_workers or available
        if self.num_workers > available:
            self.close()
            raise ValueError(
                f"processes={self.num_workers}: the cluster has {available} "
                f"{'GPUs' if self._kind == 'num_gpus' else 'cores'}; each worker needs one"
            )
        self._work = self._ray.put((job, open_audio_tokenizer))  # held here, for actors that are started anew

    def close(self) -> None:
        """Leaves the cluster, or ends the one that was started."""
        self._ray.shutdown()

    def run(self, units: Sequence[Unit]) -> Generator[UnitResult, None, None]:
        """Yields what becomes of each unit, as they end. Those whose actor dies are given to another one by Ray.

        Raises:
            WorkerError: Ray cannot go on.
        """
        import ray.data

        work = ray.data.from_items([{"unit": dumps(unit)} for unit in units], override_num_blocks=len(units))
        results = work.map_batches(
            _Actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=min(self.num_workers, len(units)),
                max_concurrent_calls_per_actor=UNITS_AT_ONCE,
                max_tasks_in_flight_per_actor=UNITS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(self._work,),
            **{self._kind: 1},
        )
        try:
            for row in results.iter_rows():
                yield loads(row["result"])
        except ray.exceptions.RayError as error:
            raise WorkerError(f"Ray cannot go on: {' '.join(str(error).split())}") from error


class _Actor:
    def __init__(self, work: Any) -> None:
        import ray

        job, open_audio_tokenizer = ray.get(work)
        self._worker = UnitWorker(job, open_audio_tokenizer)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        return {"result": [dumps(self._worker(loads(unit))) for unit in batch["unit"]]}


def _connect(address: str, num_workers: int | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("a cluster needs Ray: pip install 'audiollm[cluster]'") from error
    if address == LOCAL:
        ray.init(
            num_cpus=num_workers,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    else:
        _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False)
        except ConnectionError as error:
            place = "on this machine" if address == "auto" else f"at {address}"
            raise ConnectionError(f"there is no Ray cluster {place} ({_START})") from error
        except ValueError as error:
            raise ValueError(f"ray={address}: is no address ({error}); give auto, local or HOST:PORT") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


def _check_address(address: str) -> None:
    """Looks whether anybody answers, which takes Ray minutes to find out.

    Raises:
        ConnectionError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address} ({error}; {_START})") from error
