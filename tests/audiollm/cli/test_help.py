"""Help that people read, completion that shells read, bars that nobody asked for, and endings without a traceback."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from audiollm.cli import main
from audiollm.cli.app import COMMAND_GROUPS, COMMANDS, build_parser
from audiollm.cli.bench import BENCHMARKS, SUMMARIES
from audiollm.cli.training import TRAINERS
from audiollm.program import as_option
from audiollm.program.option_groups import HEADINGS, OPTION_GROUPS

CLIP = next((Path(__file__).parents[3] / "data/corpora/sample/asterisk/en").glob("*.opus"))
AUDIOLLM = [sys.executable, "-m", "audiollm"]


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends at once."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_every_command_is_in_one_group_and_help_shows_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    grouped = [name for names in COMMAND_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted([*COMMANDS, *TRAINERS, "bench"])
    lines = [line.strip() for line in shown(["--help"], capsys).splitlines()]
    places = [lines.index(f"{heading}:") for heading in COMMAND_GROUPS]
    assert places == sorted(places)


def test_every_option_of_a_command_has_a_heading() -> None:
    options = {name for function in COMMANDS.values() for name, one in inspect.signature(function).parameters.items()
               if one.kind is one.KEYWORD_ONLY}  # fmt: skip
    assert options <= HEADINGS.keys()
    assert sum(map(len, OPTION_GROUPS.values())) == len(HEADINGS)


@pytest.mark.parametrize(
    "words", [["speak"], ["label"], ["bench", "mmau", "run"], ["bench", "reconstruction"]], ids=" ".join
)
def test_help_is_grouped_and_says_defaults_without_types(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown([*words, "--help"], capsys)
    assert not re.search(r"type: |null|Union\[|Literal|default: (None|False)", text)
    assert text.startswith(f"usage: audiollm {' '.join(words).removesuffix(' run')} [options]")
    headings = re.findall(r"^(\S[^:\n]*):$", text, re.MULTILINE)
    assert headings[-1] == "run"
    assert "model" in headings
    assert re.search(r"\(default: \w+\)", text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_commands_options_and_benchmarks(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", shell])
    script = capsys.readouterr().out
    for name, function in COMMANDS.items():
        assert name in script
        for option, one in inspect.signature(function).parameters.items():
            if one.kind is one.KEYWORD_ONLY:
                assert as_option(option).removeprefix("--") in script
    assert not re.search(r"--\w+_\w+", script)
    assert all(name in script for name in [*BENCHMARKS, *TRAINERS, "processes", "verbose"])


def test_bash_completes_with_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "sound.wav").write_bytes(b"")
    ask = "source ./script; COMP_WORDS=(audiollm {}); COMP_CWORD={}; _shtab_audiollm; echo ${{COMPREPLY[@]}}"

    def completed(*words: str) -> list[str]:
        code = ask.format(" ".join(words), len(words))
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("trans") == ["transcribe"]
    assert completed("speak", "--str") == ["--stream"]
    assert completed("describe", "--mono", "''") == ["first", "mean"]
    assert completed("transcribe", "so") == ["sound.wav"]


def test_bars_over_weights_are_shown_to_those_who_ask(tmp_path: Path) -> None:
    told = {}
    for place in ("nowhere", "before", "behind"):
        command = ["describe", str(CLIP), "--max-new-tokens", "1", *["--verbose"][: place == "behind"]]
        command = [*["--verbose"][: place == "before"], *command]
        environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
        done = subprocess.run([*AUDIOLLM, *command], capture_output=True, text=True, env=environment, check=True)
        told[place] = done.stderr
    assert "Loading weights" in told["before"]
    assert "Loading weights" in told["behind"]
    assert "%|" not in told["nowhere"]


def test_a_trainer_says_all_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--verbose", "train"])
    assert "leave --verbose out" in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_a_command_quietly() -> None:
    code = "import sys, time; from audiollm.cli import app\n"
    code += "def write():\n    'Write.'\n    while True: app.write_line('word ' * 200)\n"
    code += "from audiollm.cli.console import write_line; app.write_line = write_line\n"
    code += "app.COMMANDS['doctor'] = write\napp.main(['doctor'])"
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 128 + signal.SIGPIPE


def test_what_is_written_at_the_end_may_be_read_by_nobody() -> None:
    """Help is written in one go, and argparse itself does not mind that nobody reads it."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*AUDIOLLM, "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""


def test_an_interrupted_command_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def stop() -> None:
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "doctor", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor"])
    assert stopped.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "audiollm: interrupted\n"


def test_every_benchmark_is_summed_up() -> None:
    assert SUMMARIES.keys() == BENCHMARKS.keys()


def test_help_starts_without_what_commands_need() -> None:
    start = time.process_time()
    build_parser()
    assert time.process_time() - start < 2  # it takes 0.1 s; what is measured is that nothing heavy is loaded
    code = "import sys; from audiollm.cli.app import build_parser; build_parser()\n"
    code += "print({'torch', 'numpy', 'transformers', 'rich', 'shtab', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speak", "Hi.", "-o", "a.wav", "--steps", "many"], "error: --steps: give a whole number, not many"),
        (["speak", "Hi.", "-o", "a.wav", "--guidance", "much"], "error: --guidance: give a number, not much"),
        (["transcribe", "a.wav", "--format", "pdf"], "error: --format: give txt, json, srt or vtt, not pdf"),
        (["completion", "tcsh"], "error: shell: give bash, zsh or fish, not tcsh"),
        (["speak", "Hi."], "usage: audiollm speak [options] --output OUTPUT text"),
        ([], "required: COMMAND"),
        (["bench"], "required: BENCHMARK"),
    ],
)
def test_usage_errors_speak_of_the_command_and_of_no_types(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert not re.search(r"class|Literal|Union", shown)
