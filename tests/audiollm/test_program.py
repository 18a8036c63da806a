"""Programs: flags and YAML become a config, and errors that users can mend become one line."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from audiollm.program import ProgramError, check_config_file, errors_as_one_line, log_to_stderr, run_program


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    source: str
    """Where the recordings lie."""

    num_clips: int = 3
    """How many of them."""

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ValueError(f"num_clips={self.num_clips}: use 1 or more")


@dataclass(frozen=True)
class Judging:
    """How replies are judged."""

    votes: tuple[int, ...] = (1,)
    """Seeds of the votes."""


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    """Every kind of option."""

    seeds: tuple[int, ...] = (0,)
    """One run each."""

    metrics: tuple[str, ...] | None = None
    """Which; all if None."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Of Adam."""

    quiet: bool = False
    """Says nothing."""

    output: str | None = None
    """File to write."""

    judging: Judging = field(default_factory=Judging)
    """By a model."""

    @property
    def file_name(self) -> str:
        """No option, and no sub-command."""
        return f"{self.source}.json"


def add(first: int, second: int = 1) -> int:
    """Adds two numbers.

    Args:
        first: one number.
        second: the other.
    """
    return first + second


@pytest.fixture(autouse=True)
def _logging_of_tests() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level


def test_a_config_is_made_from_flags_and_handed_to_the_function() -> None:
    config = run_program(Config, lambda config: config, arguments=["--source", "a", "--num_clips", "5"])
    assert config == Config(source="a", num_clips=5)


def test_flags_win_over_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("source: b\nnum_clips: 7\n")
    flags = ["--config", str(tmp_path / "run.yaml"), "--num_clips", "8"]
    assert run_program(Config, arguments=flags) == Config(source="b", num_clips=8)


def test_a_function_is_a_program_without_a_config_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["add.py", "--first", "2"])
    assert run_program(add) == 3


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ("--num-clips=5", {"num_clips": 5}),
        ("--seeds 3 -1 --num-clips 5", {"seeds": (3, -1), "num_clips": 5}),
        ("--seeds 3,4", {"seeds": (3, 4)}),
        ("--seeds=[3,4]", {"seeds": (3, 4)}),
        ("--seeds 3", {"seeds": (3,)}),
        ("--metrics white:20,mp3", {"metrics": ("white:20", "mp3")}),
        ("--metrics 1 a,b", {"metrics": ("1", "a,b")}),
        ("--metrics null", {"metrics": None}),
        ("--betas 0.8 0.99", {"betas": (0.8, 0.99)}),
        ("--quiet", {"quiet": True}),
        ("--quiet --seeds 3", {"quiet": True, "seeds": (3,)}),
        ("--quiet true", {"quiet": True}),
        ("--quiet=false", {"quiet": False}),
        ("--judging.votes 1 2", {"judging": Judging((1, 2))}),
        ("--betas -0.5 0.9 -o x", {"betas": (-0.5, 0.9), "output": "x"}),
        ("--betas -0.5,0.9 -o=x", {"betas": (-0.5, 0.9), "output": "x"}),
        ("-o x --seeds 0", {"seeds": (0,), "output": "x"}),
    ],
)
def test_flags_are_written_as_people_write_them(flags: str, changed: dict[str, Any]) -> None:
    assert run_program(Options, arguments=["--source", "a", *flags.split()]) == Options(source="a", **changed)


def test_the_output_is_a_folder_where_the_program_writes_one(capsys: pytest.CaptureFixture[str]) -> None:
    def write(output_dir: str) -> str:
        return output_dir

    assert run_program(write, arguments=["-o", "x"]) == "x"
    with pytest.raises(SystemExit):
        run_program(add, arguments=["--first", "1", "-o", "x"])
    assert "unrecognized arguments: -o" in capsys.readouterr().err


@pytest.mark.parametrize(("with_dashes", "meant"), [(False, "--dry_run"), (True, "--dry-run")])
def test_what_may_be_meant_by_an_unknown_option_is_told(
    with_dashes: bool, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def go(dry_run: bool = False) -> None:
        pytest.fail(f"it ran with dry_run={dry_run}")

    with pytest.raises(SystemExit):
        run_program(go, arguments=["--dryrun"], with_dashes=with_dashes)
    assert f"unrecognized arguments: --dryrun; did you mean {meant}?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_program(go, arguments=["--xyz"], with_dashes=with_dashes)
    assert "did you mean" not in capsys.readouterr().err


def test_help_after_a_tuple_is_no_value_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(Options, arguments=["--seeds", "0", "-h"])
    assert stopped.value.code == 0
    assert "Every kind of option." in capsys.readouterr().out


@pytest.mark.parametrize("flags", ["--seeds", "--seeds x", "--seeds 1 x", "--betas 1 2 3", "--quiet maybe"])
def test_values_that_fit_no_option_are_refused(flags: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(Options, arguments=["--source", "a", *flags.split()])
    assert stopped.value.code == 2


@pytest.mark.parametrize("flags", [["--sorce", "a"], ["--sour", "a"], ["--source", "a", "--num_clips", "many"]])
def test_misspelt_shortened_and_wrongly_typed_flags_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(Config, arguments=flags)
    assert stopped.value.code == 2


def test_field_docs_are_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_program(Config, arguments=["--help"])
    shown = capsys.readouterr().out
    assert "Where the recordings lie." in shown
    assert "One run." in shown


class DivergedError(ProgramError):
    """A failure of a run that is no ValueError."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("size=3: use 4"), "size=3: use 4"),
        (FileNotFoundError("no such folder: x"), "no such folder: x"),
        (ImportError("pip install 'audiollm[bench]'"), "pip install 'audiollm[bench]'"),
        (DivergedError("the loss is NaN"), "the loss is NaN"),
        (
            subprocess.CalledProcessError(3, ["accelerate", "launch", Path("sft.py")]),
            "`accelerate launch sft.py` failed with exit status 3; its own message is above",
        ),
    ],
)
def test_user_errors_are_one_line_and_status_1(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUDIOLLM_TRACEBACK", raising=False)

    def fail(config: Config) -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_program(Config, fail, name="sft", arguments=["--source", "a"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"sft: error: {message}\n"


def test_a_refused_config_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_program(Config, name="sft", arguments=["--source", "a", "--num_clips", "0"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "sft: error: num_clips=0: use 1 or more\n"


def test_the_script_names_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["training/sft.py", "--source", "a", "--num_clips", "0"])
    with pytest.raises(SystemExit):
        run_program(Config)
    assert capsys.readouterr().err.startswith("sft: error: ")


def test_our_own_errors_and_all_errors_on_demand_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), errors_as_one_line("sft"):
        raise KeyError("weight")
    monkeypatch.setenv("AUDIOLLM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="size=3"), errors_as_one_line("sft"):
        raise ValueError("size=3")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 5000,
        "a: " * 3000,
        "a: &a [x]\nb: [*a, *a]\n",
        "," * 300_000,
        "{" * 200,
        "a: [1",
        "\x00",
        "a: 1\nb: 2\na: 1\n",
        "- b: {c: 1,\n   c: 2}",
        "a: !!python/name:os.system ''",
        "!x {}",
        "a: 2026-02-30",
    ],
    ids=[
        "deep lists",
        "deep maps",
        "aliases",
        "commas",
        "deep flow maps",
        "open",
        "zero",
        "a key twice",
        "a key twice inside",
        "a Python object",
        "a tag",
        "no date",
    ],
)
def test_settings_that_take_no_reader_are_refused_before_they_are_read(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        check_config_file(path)


def test_a_key_that_is_there_twice_is_told_with_its_lines(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("source: a\nnum_clips: 5\nsource: b\n")
    with pytest.raises(SystemExit, match="1"):
        run_program(Config, lambda config: config, arguments=["--config", str(path)])
    assert f"error: {path}: source is there twice, in lines 1 and 3; keep one" in capsys.readouterr().err


def test_a_key_that_is_there_twice_in_one_line_is_told(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("sources:\n- {data: a, weight: 1, data: b}\n")
    with pytest.raises(ValueError, match="data is there twice, in line 2; keep one"):
        check_config_file(path)


def test_what_the_hubs_library_warns_of_comes_once() -> None:
    code = (
        "import logging, huggingface_hub\nfrom audiollm.program import log_to_stderr\nlog_to_stderr(logging.INFO)\n"
        "huggingface_hub.logging.get_logger('huggingface_hub.utils').warning('it is slow today')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert told.count("it is slow today") == 1


def test_what_a_program_says_is_a_plain_line_and_a_warning_tells_where_it_comes_from(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    log_to_stderr(logging.INFO)
    logging.getLogger("audiollm.training").info("[RANK 0] next: %s", "this")
    logging.getLogger("audiollm.training").warning("careful")
    logging.getLogger("another").info("hello")
    assert capsys.readouterr().err.splitlines() == [
        "next: this", "WARNING audiollm.training: careful", "INFO another: hello"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("source: null", "source"),
        ("source: a\nnum_clips:", "num_clips"),
        ("source: a\nquiet: ~", "quiet"),
        ("source: a\njudging: null", "judging"),
        ("source: a\njudging: {votes: null}", "judging.votes"),
    ],
)
def test_a_name_without_a_value_in_a_file_is_no_setting(tmp_path: Path, capsys, settings: str, named: str) -> None:
    (tmp_path / "run.yaml").write_text(settings)
    component = Options if "num_clips" not in settings else Config
    with pytest.raises(SystemExit) as stopped:
        run_program(component, name="sft", arguments=["--config", str(tmp_path / "run.yaml")])
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sft: error: ")
    assert f"run.yaml: {named} has no value" in line


def test_what_may_be_left_out_may_have_no_value(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("source: a\noutput: null\nmetrics:\n")
    assert run_program(Options, arguments=["--config", str(tmp_path / "run.yaml")]) == Options(source="a", metrics=None)


@dataclass(frozen=True)
class Item:
    """One of several."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Held:
    """Holds items."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class WithItems:
    """A list of objects, deep in a config."""

    held: Held | None = None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[{name: a}", r"held\.items=\[\{name: a\}: give a list"),
        (
            "a",
            r"held\.items=\['a'\]: give a list of objects, such as '\[\{name: …\}\]' \(weight may stand beside name\)",
        ),
        ("[{nam: a}]", "has no name; give a list of objects"),
        ("[{name: a, wait: 1}]", "'wait' is not known; give a list of objects"),
    ],
)
def test_a_list_of_objects_that_is_none_is_told_in_a_line_with_an_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, told: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"held: {{items: {value}}}\n" if not value.endswith("a}") else "held: {items: 5}\n")
    for arguments in (["--held.items", value], [f"--held.items={value}"], ["--config", str(file)]):
        with pytest.raises(SystemExit) as ended:
            run_program(WithItems, print, name="program", arguments=arguments)
        message = capsys.readouterr().err
        assert (ended.value.code, message.count("\n")) == (1, 1), message
        assert re.search(told if arguments[0] != "--config" else r"held\.items=.*give a list of objects", message), (
            message
        )
    made = run_program(WithItems, lambda config: config, arguments=["--held.items", "[{name: a, weight: 2}]"])
    assert made.held.items == (Item("a", 2.0),)
