"""What the pages say can be done: links lead somewhere, code imports, every command is understood, cheap ones run."""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import itertools
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import soundfile as sf
import yaml

from audiollm import __version__
from audiollm.cli import app
from audiollm.cli.app import main
from audiollm.cli.training import TRAINERS, launch_parser, with_packaged_config
from audiollm.mini import mini_folder
from audiollm.program import running

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = "tokenizer|data|audiollm|benchmarks|training|docs|tests|examples"
# Programs that are not ours, and not part of the installation.
OTHERS = {"cat", "curl", "ffmpeg", "ffplay", "jq", "lmms_eval", "sha256sum", "vllm"}


def code_blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def documented_commands() -> dict[str, list[str]]:
    """Every command of every page, as it stands there → its words, without variables, comments and ellipses."""
    commands = {}
    for page in PAGES:
        for block in code_blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = [word for word in shlex.split(line, comments=True) if word != "…"]
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    commands[" ".join(line.split())] = words
    return commands


COMMANDS = documented_commands()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_picture_stands_on_the_first_screen_of_the_readme() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("![")) < 25
    assert len(lines) < 200


def test_the_citation_is_whole_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    for entry in (citation, *citation["references"]):
        assert entry["title"]
        assert all(author.get("name") for author in entry["authors"])
    assert all({"type", "title", "authors"} <= set(entry) for entry in citation["references"])
    assert str(citation["version"]) == __version__


def test_every_extra_is_said_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in extras() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    named = re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w/.-]+\.(?:py|yaml|json|jsonl|tsv|md))\b", spans)
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = set(re.findall(r"`(audiollm(?:\.\w+)+)`", text)) - entry_point_groups()
    assert [name for name in modules if resolve(name) is None] == []


@functools.cache
def entry_point_groups() -> set[str]:
    """What plug-ins are found under, which looks like the name of a module."""
    folders = ("data", "benchmarks", "training")
    sources = [path.read_text(encoding="utf-8") for name in folders for path in (ROOT / name).rglob("*.py")]
    return {group for source in sources for group in re.findall(r"\"(audiollm\.\w+)\"", source)}


def resolve(dotted: str) -> Any:
    """What a dotted name stands for, a module or something in one; None if there is no such thing."""
    try:
        return import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(resolve(module), name, None) if module else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_parses_and_its_imports_exist(page: Path) -> None:
    for block in code_blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "audiollm":
                module = import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_prose_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`audiollm ([\w-]+)", text)) <= {*app.COMMANDS, *TRAINERS, "bench"}
    scripts = re.findall(rf"(?:python|launch[^\n]*?) ((?:{FOLDERS})/\w+\.py)", text)
    assert [script for script in scripts if not (ROOT / script).exists()] == []
    goals = re.findall(r"`make ([\w-]+)", text)
    assert [goal for goal in goals if goal not in make_goals()] == []


# --- every command is understood --------------------------------------------------------------------------------------


@functools.cache
def make_goals() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@functools.cache
def extras() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^([\w-]+) = ", section, re.MULTILINE))


class Understood(Exception):  # noqa: N818  # no error: it is what should happen
    """Raised in place of what a command does, once its words have become a call."""


def stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the same interface that does nothing but say that it was called."""

    @functools.wraps(function)
    def understood(*_: Any, **__: Any) -> None:
        raise Understood

    return understood


@pytest.fixture
def understand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Reads a command as it would be run, up to the call that it is."""

    auto_cli = jsonargparse.auto_cli

    def call(component: Callable[..., Any], **settings: Any) -> None:
        if inspect.isclass(component):
            auto_cli(component, **settings)
            raise Understood
        auto_cli(stand_in(component), **settings)

    parse_args = argparse.ArgumentParser.parse_args

    def parse_example(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse_args(parser, *given)
        raise Understood

    monkeypatch.setattr(running, "auto_cli", call)
    monkeypatch.setattr(jsonargparse, "auto_cli", call)
    monkeypatch.setattr(app, "COMMANDS", {name: stand_in(function) for name, function in app.COMMANDS.items()})
    monkeypatch.chdir(ROOT)

    def read(words: Sequence[str]) -> None:
        program_name, *rest = words
        if program_name == "make":
            assert set(rest) <= make_goals(), f"make knows no {rest}"
        elif program_name == "pip":
            assert {extra for word in rest for extra in re.findall(r"[\w-]+", word.partition("[")[2])} <= extras()
        elif program_name == "audiollm" and rest[0] not in TRAINERS:
            with pytest.raises(Understood):
                main(rest)
        elif program_name in ("python", "accelerate", "audiollm"):
            script, arguments = script_of(words)
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            if script.startswith("examples/"):
                monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_example)
            with pytest.raises(Understood):
                start(script)
        else:
            assert program_name in OTHERS

    return read


def start(script: str) -> None:
    """Runs a script of the repository, or a module, as Python does."""
    if script.endswith(".py"):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)  # whose classes name types of their module


def script_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The script or module that ``python``, ``accelerate launch`` or ``audiollm train`` starts, and its arguments."""
    if words[0] == "audiollm":
        _, arguments = launch_parser(words[1]).parse_known_args(words[2:])
        return TRAINERS[words[1]][0], with_packaged_config(arguments)
    position = next(n for n, word in enumerate(words) if word.endswith(".py") or word == "-m")
    position += words[position] == "-m"
    return words[position], list(words[position + 1 :])


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str, understand: Callable[[Sequence[str]], None]) -> None:
    """Its flags exist and its values fit them; where a page shows a configuration file, the file is read as well."""
    words = COMMANDS[line]
    position = words.index("--config") if "--config" in words else 0
    named = words[position + 1]
    if position and not (ROOT / named).exists() and not (ROOT / "training" / "configs" / f"{named}.yaml").exists():
        # the reader's own file: what it holds, the page says elsewhere
        words = words[:position] + words[position + 2 :] + required_by(script_of(words)[0])
    for is_pipe, command in itertools.groupby(words, lambda word: word == "|"):
        if not is_pipe:
            understand(list(command))


def required_by(script: str) -> list[str]:
    """What a script needs that a page leaves to the reader's configuration file."""
    if script == "audiollm.training.speed.estimate":
        return ["--model", "m"]
    required = ["--model", "m", "--train_data", "t.jsonl", "--output_dir", "o"]
    if script == "audiollm.training.preference":
        return [*required, "--dpo.beta", "0.1"]
    assert script in ("training/sft.py", "audiollm.training.sft")
    return required


def test_a_command_that_is_not_understood_is_noticed(understand: Callable[[Sequence[str]], None]) -> None:
    for line in (
        "audiollm speak",
        "python benchmarks/stability.py --dat x",
        "audiollm bench stability --data 1 --no 2",
    ):
        with pytest.raises(SystemExit):
            understand(shlex.split(line))
    with pytest.raises(AssertionError):
        understand(["make", "tea"])


PROGRAMS = sorted({script_of(words)[0] for words in COMMANDS.values() if words[0] in ("python", "accelerate")})


@pytest.mark.parametrize("script", PROGRAMS)
def test_every_program_has_help(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        start(script)
    assert ended.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out


def subcommand_of(words: Sequence[str]) -> str:
    """What an ``audiollm`` command is, without its options: two or three words with ``bench``, else one."""
    names = [words[1]]
    if words[1] == "bench":
        names += [word for word in words[2:4] if not word.startswith("-")]
    return " ".join(names)


SUBCOMMANDS = sorted({subcommand_of(words) for words in COMMANDS.values() if words[0] == "audiollm"})


@pytest.mark.parametrize("names", SUBCOMMANDS)
def test_every_command_has_help(names: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*names.split(), "--help"])
    assert ended.value.code in (0, None)
    assert re.match(rf"usage: audiollm (\[options\] )?{names}\b", " ".join(capsys.readouterr().out.split()))


# --- cheap ones run, as they stand on the page ------------------------------------------------------------------------


CHEAP = [
    ["audiollm transcribe recording.wav"],
    ["audiollm describe data/corpora/sample/"],
    ['audiollm speak "The kettle is on."'],
    ["audiollm reconstruct meeting.mp3"],
    ["audiollm tokenize corpus/train.jsonl"],
    ["audiollm label clips.jsonl labels.jsonl --rules", "audiollm audit-labels", "audiollm bench mmau make"],
    ["audiollm bench stability"],
]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the pages name: recordings, a tokenizer, and clips with their labels."""
    sample = ROOT / "data" / "corpora" / "sample"
    records = [json.loads(line) for line in (sample / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    clips = [
        next(record for record in records if record["sound_type"] == kind) for kind in ("speech", "sound", "music")
    ]
    waveform, sample_rate = sf.read(sample / clips[0]["audio"])
    for name in ("recording.wav", "meeting.mp3"):
        sf.write(tmp_path / name, waveform, sample_rate)
    lines = [json.dumps(record | {"audio": str(sample / record["audio"])}) + "\n" for record in clips]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    (tmp_path / "data" / "corpora" / "sample").symlink_to(sample)
    for name in ("clips.jsonl", "corpus/train.jsonl"):
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    (tmp_path / "my-tokenizer").symlink_to(mini_folder() / "audio_tokenizer")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("beginnings", CHEAP, ids=lambda beginnings: beginnings[0].split('"')[0])
def test_cheap_commands_do_what_the_pages_promise(
    beginnings: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for beginning in beginnings:
        [line, *_] = [line for line in COMMANDS if line.startswith(beginning)]
        before = set(workplace.rglob("*"))
        main(COMMANDS[line][1:])
        assert set(workplace.rglob("*")) > before or capsys.readouterr().out.strip(), line
