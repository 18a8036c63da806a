"""``audiollm train …``: the trainers, each started in as many processes as there are GPUs.

What accelerate needs to be told, its launch configurations tell; they come with this package. Everything else on the
command line belongs to the trainer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import FrameType

import psutil

from audiollm.program import did_you_mean, errors_as_one_line

TRAINERS = {
    "train": ("audiollm.training.sft", "Fine-tune an Audio-LLM on conversations."),
    "train-preference": (
        "audiollm.training.preference",
        "Train an Audio-LLM on rewards, or on better and worse answers.",
    ),
    "train-tokenizer": ("audiollm.training.train_tokenizer", "Train an audio tokenizer on labelled clips."),
    "train-losatok": (
        "audiollm.training.train_losatok",
        "Train a LoSATok: a bottleneck for a frozen teacher, then a tokenizer with continuous latents around it.",
    ),
    "train-dit": (
        "audiollm.training.train_dit",
        "Train a diffusion transformer that makes sound of texts, on a tokenizer's continuous latents.",
    ),
    "train-decoder": ("audiollm.training.train_decoder", "Train a waveform decoder: its flow model, or its vocoder."),
    "train-codec": (
        "audiollm.training.train_codec",
        "Train an audio tokenizer of waveforms, both ways, without labels.",
    ),
    "train-reasoning-codec": (
        "audiollm.training.train_reasoning_codec",
        "Train a ReasoningCodec (UniAudio 2.0): codes that a text LLM can write what is heard from, then their sound.",
    ),
    "train-uniaudio": (
        "audiollm.training.train_uniaudio",
        "Train a multi-stream LM (UniAudio 2.0) around a text LLM, stage by stage.",
    ),
    "estimate": ("audiollm.training.speed.estimate", "Tell how much memory a fine-tuning takes, before it is started."),
}
ESTIMATE = "estimate"  # starts no processes: how many there will be, and how they share the work, are its settings
STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp2")
FORWARDED = (signal.SIGTERM, signal.SIGUSR1)  # at which a trainer writes a checkpoint


def run_trainer(command: str, arguments: Sequence[str]) -> None:
    """Runs what ``audiollm train …`` says and ends with the trainer's exit status.

    Args:
        command: one of `TRAINERS`.
        arguments: what follows it.

    Raises:
        SystemExit: always.
    """
    module, _ = TRAINERS[command]
    if command == ESTIMATE:
        _estimate(with_packaged_config(arguments))
        raise SystemExit(0)
    own, rest = launch_parser(command).parse_known_args(list(arguments))
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    with errors_as_one_line(f"audiollm {command}"):
        strategy, num_processes = _launch(own.launch, own.processes)
        if asks_for_help:
            launch_parser(command).print_help()
            sys.stdout.write("\nEverything else is the trainer's; these are its options:\n\n")
            sys.stdout.flush()
        trainer = ["-m", module, *with_packaged_config(rest), *(["--help"] if asks_for_help else [])]
        if asks_for_help or (num_processes == 1 and strategy in ("single", "ddp")):
            status = _status_of([sys.executable, *trainer], os.environ)
        else:
            status = _status_of(launcher(strategy, num_processes) + trainer, _environment(strategy), trainer)
        if status and num_processes > 1:
            sys.stderr.write(f"audiollm {command}: error: the run ended with status {status}; its reason is above\n")
    raise SystemExit(status)


def _estimate(arguments: Sequence[str]) -> None:
    from audiollm.program import run_program
    from audiollm.training.speed.estimate import EstimateConfig, estimate

    run_program(EstimateConfig, estimate, name=f"audiollm {ESTIMATE}", arguments=arguments)


def launcher(strategy: str, num_processes: int) -> list[str]:
    """The command that starts a Python module in several processes; what follows it begins with ``-m``.

    Args:
        strategy: one of `STRATEGIES`, or the path of a launch configuration of accelerate.
        num_processes: how many.
    """
    configs = Path(str(files("audiollm.training"))) / "configs"
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    if strategy not in STRATEGIES:
        return [*launch, "--config_file", strategy, "--num_processes", str(num_processes)]
    launch += ["--config_file", str(configs / "accelerate" / f"{strategy}.yaml"), "--num_processes", str(num_processes)]
    if strategy.startswith("zero"):  # which the launch configuration names from the root of a checkout
        launch += ["--deepspeed_config_file", str(configs / "deepspeed" / f"{strategy}.json")]
    return launch


def launch_parser(command: str) -> argparse.ArgumentParser:
    """Reads the options that are not the trainer's."""
    parser = argparse.ArgumentParser(
        prog=f"audiollm {command}", description=TRAINERS[command][1], allow_abbrev=False, add_help=False
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="how many processes; one for each GPU, or one, if not given"
    )
    parser.add_argument(
        "--launch",
        metavar="STRATEGY",
        help=f"how processes share the work: {', '.join(STRATEGIES)}, or a launch configuration of accelerate; ddp if "
        "there are several processes and nothing is given",
    )
    return parser


def _launch(strategy: str | None, processes: int | None) -> tuple[str, int]:
    """The strategy and the number of processes.

    Raises:
        ValueError: there is no such strategy, or it does not fit the number.
    """
    if processes is None:
        import torch

        processes = 1 if strategy == "single" else max(1, torch.cuda.device_count())
    if processes < 1:
        raise ValueError(f"--processes {processes}: give 1 or more")
    if strategy is None:
        strategy = "ddp" if processes > 1 else "single"
    if strategy == "single" and processes > 1:
        raise ValueError(f"--launch single starts one process, not {processes}: use --launch ddp")
    if strategy not in STRATEGIES and not Path(strategy).is_file():
        raise ValueError(
            f"--launch {strategy}: give {', '.join(STRATEGIES)}, or the path of a launch configuration of accelerate"
        )
    return strategy, processes


def with_packaged_config(arguments: Sequence[str]) -> list[str]:
    """The trainer's arguments, with ``--config sft`` as the path of the configuration of that name in this package."""
    result = list(arguments)
    for index, argument in enumerate(result):
        option, equals, value = argument.partition("=")
        if option == "--config" and equals:
            result[index] = f"--config={_config_path(value)}"
        elif index and result[index - 1] == "--config":
            result[index] = _config_path(argument)
    return result


def _config_path(name: str) -> str:
    """The file of a configuration; a name alone is one of this package's.

    Raises:
        ValueError: there is no file of that name, and no such configuration.
    """
    packaged = {path.stem: path for path in (Path(str(files("audiollm.training"))) / "configs").glob("*.yaml")}
    if Path(name).exists() or Path(name).name != name or Path(name).suffix:
        return name
    if name not in packaged:
        known = sorted(packaged)
        raise ValueError(
            f"--config {name}: no such file, and no configuration of ours{did_you_mean(name, known)}; there are "
            f"{', '.join(known)}"
        )
    return str(packaged[name])


def _environment(strategy: str) -> Mapping[str, str]:
    """The environment that several processes need to find each other on a machine without a GPU."""
    import torch

    # With DeepSpeed this variable would turn DeepSpeed off; it finds out by itself.
    if torch.cuda.is_available() or strategy.startswith("zero"):
        return os.environ
    return {**os.environ, "ACCELERATE_USE_CPU": "true"}


def _status_of(command: Sequence[str], environment: Mapping[str, str], launched: Sequence[str] = ()) -> int:
    """Runs a command, hands the signals on that ask for a checkpoint, and returns its exit status as a shell has it.

    Args:
        command: a trainer, or a launcher of several.
        environment: its own.
        launched: what the command lines of the trainers end with that a launcher starts. It is they who hear of the
            signals: their launcher would die of SIGUSR1, and after SIGTERM leave them 30 s.
    """
    process = subprocess.Popen(command, env=environment)
    asked: list[int] = []

    def hand_on(number: int, _: FrameType | None = None) -> None:
        asked.append(number)
        for trainer in _trainers(process.pid, launched):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                trainer.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in FORWARDED}
    try:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                if not _is_in_front_of_terminal():  # which has sent it to the trainer as well: that says the last word
                    hand_on(signal.SIGINT)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if status == -signal.SIGTERM and signal.SIGTERM in asked:  # while the trainer was not listening
        sys.stderr.write("stopped by SIGTERM before or after the training itself; nothing was lost\n")
    if status and launched and set(asked) & set(FORWARDED):  # the launcher's own says nothing of the trainers'
        return 128 + signal.SIGTERM
    return 128 - status if status < 0 else status


def _trainers(pid: int, launched: Sequence[str]) -> list[psutil.Process]:
    """The processes that train: those that a launcher has started, or the process itself."""
    try:
        process = psutil.Process(pid)
        children = process.children() if launched else []
        trainers = [child for child in children if child.cmdline()[-len(launched) :] == list(launched)]
    except psutil.NoSuchProcess:
        return []
    return trainers or [process]


def _is_in_front_of_terminal() -> bool:
    """Whether keys that are pressed in a terminal, such as Ctrl-C, reach this process and those that it started."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
