"""``audiollm train …`` starts a trainer in the right number of processes, and ends as the trainer ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from audiollm.cli import main
from audiollm.cli import training as commands
from audiollm.cli.training import ESTIMATE, STRATEGIES, TRAINERS, launcher

ENDLESS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
time.sleep(60)
"""
HANDING_ON = """
import os, sys
from audiollm.cli.training import _status_of
sys.exit(_status_of([sys.executable, "-c", sys.argv[1]], os.environ))
"""


def test_a_configuration_that_is_none_of_ours_is_told(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--config", "sft_laro"])
    told = capsys.readouterr().err
    assert "--config sft_laro: no such file, and no configuration of ours; did you mean sft_lora" in told
    assert "there are " in told


@pytest.fixture
def started(monkeypatch):
    """The commands that were started, which all end well, with what they set in the environment."""
    calls = []

    def run(command, environment, launched=()):
        calls.append((command, environment.get("ACCELERATE_USE_CPU")))
        return 0

    monkeypatch.setattr(commands, "_status_of", run)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    return calls


def _ends_with(status, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status


@pytest.mark.parametrize("command", [name for name in TRAINERS if name != ESTIMATE])
def test_one_process_needs_no_launcher(command, started):
    _ends_with(0, [command, "--learning_rate", "1e-4", "--output_dir", "runs/a"])
    module = TRAINERS[command][0]
    expected = [sys.executable, "-m", module, "--learning_rate", "1e-4", "--output_dir", "runs/a"]
    assert started == [(expected, None)]


@pytest.mark.parametrize(("strategy", "variable"), [("ddp", "true"), ("zero2", None)])
def test_several_processes_are_launched(strategy, variable, started):
    _ends_with(0, ["train", "--processes", "3", "--launch", strategy, "--seed", "1"])
    ((command, environment),) = started
    assert command == [*launcher(strategy, 3), "-m", "audiollm.training.sft", "--seed", "1"]
    assert environment == variable


def test_every_gpu_gets_a_process(started, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    _ends_with(0, ["train-decoder"])
    ((command, environment),) = started
    assert command == [*launcher("ddp", 8), "-m", "audiollm.training.train_decoder"]
    assert environment is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_launch_configurations_are_found_from_anywhere(strategy):
    words = launcher(strategy, 2)
    config = Path(words[words.index("--config_file") + 1])
    assert config.is_absolute()
    read = yaml.safe_load(config.read_text())
    if "deepspeed_config" in read:
        assert Path(words[words.index("--deepspeed_config_file") + 1]).is_file()
    else:
        assert "--deepspeed_config_file" not in words


def test_a_configuration_of_the_package_is_named_without_its_folder(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (["--config", "sft"], ["--config=sft"]):
        _ends_with(0, ["train", *given])
    paths = [Path(command[-1].removeprefix("--config=")) for command, _ in started]
    assert paths[0] == paths[1]
    assert paths[0].is_file()
    Path("sft").write_text("seed: 1")
    _ends_with(0, ["train", "--config", "sft"])
    assert started[-1][0][-1] == "sft"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--processes", "0"], "--processes 0"),
        (["--launch", "single", "--processes", "2"], "--launch ddp"),
        (["--launch", "fsdp"], "--launch fsdp: give single, ddp"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(arguments, named, started, capsys):
    _ends_with(1, ["train", *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audiollm train: error:")
    assert named in line
    assert not started


def test_help_names_the_options_of_launcher_and_trainer(capfd):
    _ends_with(0, ["train", "--help"])
    shown = capfd.readouterr().out
    assert "--processes" in shown
    assert "--train_data" in shown


def test_the_status_of_the_trainer_is_that_of_the_command():
    assert commands._status_of([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert commands._status_of([sys.executable, "-c", kill], os.environ) == 137


def test_a_signal_to_the_command_reaches_the_trainer():
    process = subprocess.Popen([sys.executable, "-c", HANDING_ON, ENDLESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


LAUNCHER = """
import os, signal, subprocess, sys
workers = [subprocess.Popen([sys.executable, "-c", sys.argv[1], "trainer"]) for _ in range(2)]
sys.exit(int(any([worker.wait() for worker in workers])))
"""
LAUNCHING = """
import os, sys
from audiollm.cli.training import _status_of
sys.exit(_status_of([sys.executable, "-c", sys.argv[1], sys.argv[2], "trainer"], os.environ, ["trainer"]))
"""
COUNTING = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: (os.write(1, b"%d\\n" % number), sys.exit(143)))
os.write(1, b"ready\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_passes_a_launcher_by_and_reaches_every_trainer(number):
    process = subprocess.Popen([sys.executable, "-c", LAUNCHING, LAUNCHER, COUNTING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.send_signal(number)
    assert process.wait(timeout=60) == 143
    assert process.stdout.read().split() == [str(int(number))] * 2


def test_an_interrupt_of_the_command_alone_reaches_the_trainer():
    process = subprocess.Popen(
        [sys.executable, "-c", HANDING_ON, ENDLESS.replace("SIGTERM", "SIGINT")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # without a terminal, whose Ctrl-C would reach both
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 143


@pytest.mark.parametrize("module", ["audiollm", "audiollm.cli"])
def test_the_command_is_a_module_too(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[:8]) == (0, "audiollm")


def test_a_trainer_that_is_stopped_before_it_listens_is_told_of():
    process = subprocess.Popen(
        [sys.executable, "-c", HANDING_ON, "import os, time; os.write(1, b'ready\\n'); time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert told == "stopped by SIGTERM before or after the training itself; nothing was lost\n"
