"""Programs that a recipe starts, each in a process of its own, and the folder that a recipe works in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from audiollm.data.files.json_lines import check_same_run
from audiollm.data.files.lock import held_run_folder, holds_nothing

TRAINING = Path(__file__).resolve().parents[1]

console = Console(markup=False, highlight=False)


def launch_trainer(
    script: str, settings: str, *flags: str, num_threads: int | None = None, log: Path | None = None
) -> None:
    """Runs a trainer as a user would: ``accelerate launch training/<script> --config training/configs/<settings> …``.

    Args:
        script: file of ``training/``.
        settings: file of ``training/configs/``.
        flags: what goes before the file's settings.
        num_threads: CPU threads that it may use; None: all.
        log: file that what it says is appended to; None: it is shown.

    Raises:
        subprocess.CalledProcessError: if it fails; it has said why.
    """
    command = [
        *("-m", "accelerate.commands.launch"),
        *("--config_file", str(TRAINING / "configs/accelerate/single.yaml"), str(TRAINING / script)),
        *("--config", str(TRAINING / "configs" / settings), *flags),
    ]
    where = "" if log is None else f" > {log}"
    console.print("  " + " ".join(["accelerate launch", *command[2:]]) + where)
    if log is None:
        _run(command, num_threads)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        run_logged(command, num_threads, file)


def threads_of_job(jobs: int) -> int:
    """CPU threads of each of several jobs that share the processor's cores."""
    return max(1, (os.cpu_count() or 1) // jobs)


def run_logged(command: Sequence[str], num_threads: int | None, log: TextIO) -> None:
    """Runs a script, or a module behind ``-m``, and appends what it says to a log.

    Args:
        command: what Python is to run, and its flags.
        num_threads: CPU threads that it may use; None: all.
        log: an open file.

    Raises:
        subprocess.CalledProcessError: if it fails; why is in the log.
    """
    log.write(" ".join(["python", *command]) + "\n")
    log.flush()  # before the program writes to the same file
    _run(command, num_threads, log)


def _run(command: Sequence[str], num_threads: int | None, log: TextIO | None = None) -> None:
    # Without "false", text tokenizers warn of forks in every loader.
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    subprocess.run([sys.executable, *command], check=True, env=environment, stdout=log, stderr=log)


@contextmanager
def open_recipe_folder(settings_file: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Makes the folder of a run of several steps, or finds that it belongs to one of the same settings; and holds it.

    Args:
        settings_file: file in the folder that holds the settings.
        settings: what must be equal for finished steps to be kept.

    Yields:
        The folder.

    Raises:
        ValueError: if the folder holds something else, or another call is at work in it.
    """
    folder = settings_file.parent
    with held_run_folder(folder):
        if not settings_file.exists() and not holds_nothing(folder):
            raise ValueError(f"{folder} holds something that is not a run of this script; name another --output_dir")
        check_same_run(settings_file, settings, output=folder, otherwise="name another --output_dir")
        yield folder
