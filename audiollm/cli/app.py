"""The ``audiollm`` command: its parser and ``main``.

A sub-command is a function of ``cli/``: its signature is the interface, its docstring the help.

Heavy libraries are imported inside those functions, so that ``audiollm --help`` answers at once.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version

import docstring_parser
from jsonargparse import ArgumentParser

from audiollm.program import DashedParser, be_verbose, errors_as_one_line, log_to_stderr, with_named_option

from .bench import run_bench
from .checkpoints import convert, doctor, export, export_tokenizer, extend_llm, push, tokenizers
from .completion import Shell, completion_script
from .corpora import convert_data, inspect_data, sentence_data, speech_data, tokenize
from .labelling import audit_labels, audit_verdicts, label, score_sap
from .listening import describe, transcribe
from .pipes import PIPE
from .reporting import compare, compare_results, report
from .sound import generate_audio, reconstruct, speak
from .talk.chat import chat
from .talk.serve import serve
from .training import TRAINERS, run_trainer

COMMAND_GROUPS = {
    "listen": ("transcribe", "describe"),
    "speak": ("speak", "generate-audio", "reconstruct"),
    "talk": ("chat", "serve"),
    "prepare data": (
        "convert-data", "tokenize", "speech-data", "sentence-data", "inspect-data", "label", "audit-labels",
        "audit-verdicts",
    ),
    "train": (
        "train", "train-preference", "train-tokenizer", "train-losatok", "train-dit", "train-decoder", "train-codec",
        "train-reasoning-codec", "train-uniaudio", "estimate",
    ),
    "make and share models": ("extend", "export", "export-tokenizer", "convert", "push"),
    "score and compare": ("bench", "compare", "score-sap", "report", "compare-results"),
    "this installation": ("doctor", "tokenizers", "completion"),
}  # fmt: skip
"""Commands by what one wants to do, in the order of ``audiollm --help``."""


def completion(shell: Shell) -> None:
    """Print the script with which a shell completes commands, options and files.

    Args:
        shell: whose. To use it, bash and zsh run eval "$(audiollm completion bash)", or zsh, when they start; fish runs
            audiollm completion fish | source.
    """
    sys.stdout.write(completion_script(build_parser(), shell))


COMMANDS: dict[str, Callable[..., None]] = {
    "convert-data": convert_data,
    "tokenize": tokenize,
    "extend": extend_llm,
    "inspect-data": inspect_data,
    "speech-data": speech_data,
    "sentence-data": sentence_data,
    "label": label,
    "audit-labels": audit_labels,
    "audit-verdicts": audit_verdicts,
    "score-sap": score_sap,
    "transcribe": transcribe,
    "describe": describe,
    "speak": speak,
    "generate-audio": generate_audio,
    "reconstruct": reconstruct,
    "chat": chat,
    "serve": serve,
    "export": export,
    "export-tokenizer": export_tokenizer,
    "convert": convert,
    "push": push,
    "compare": compare,
    "report": report,
    "compare-results": compare_results,
    "doctor": doctor,
    "tokenizers": tokenizers,
    "completion": completion,
}

_OBJECTS_PER_COLLECTION = 10_000
"""Importing torch and transformers makes more than a million objects. With the usual 700 the collector goes through
them again and again, which is a seventh of the time to a first answer."""

BENCH_HELP = "Score a model, or predictions, on a benchmark."


def command_parser(function: Callable[..., None]) -> ArgumentParser:
    """Derives a sub-command's arguments from a function: switches for booleans, repeated positionals for lists."""
    described = docstring_parser.parse(function.__doc__ or "")
    helps = {parameter.arg_name: parameter.description for parameter in described.params}
    annotations = {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    switches = [name for name, annotation in annotations.items() if annotation == "bool"]
    repeated = [name for name, annotation in annotations.items() if annotation == "list[str]"]
    parser = DashedParser(description=described.short_description, allow_abbrev=False)
    for name in repeated:
        parser.add_argument(name, nargs="+", help=helps[name])
    parser.add_function_arguments(function, skip={*switches, *repeated}, as_group=False, as_positional=True)
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true", help=helps[name])
    return parser


def build_parser() -> ArgumentParser:
    parser = DashedParser(
        prog="audiollm",
        description="Turn audio into tokens, a text LLM into an Audio-LLM, and recordings into answers.",
        version=version("audiollm"),
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(
        title="commands", metavar="COMMAND", description="audiollm COMMAND --help tells what each of them takes."
    )
    vars(commands)["command_groups"] = COMMAND_GROUPS  # for the formatter of the help
    for name in (name for names in COMMAND_GROUPS.values() for name in names):
        command = command_parser(COMMANDS[name]) if name in COMMANDS else ArgumentParser(description=_elsewhere(name))
        commands.add_subcommand(name, command, help=command.description)
        command.prog = f"audiollm {name}"
    return parser


def _elsewhere(name: str) -> str:
    """What a command does whose options are read by a parser of its own."""
    return BENCH_HELP if name == "bench" else TRAINERS[name][1]


def spelt_out(arguments: Sequence[str]) -> list[str]:
    """The command line with options called as the parser calls them: ``--skip_bad`` for ``--skip-bad``, ``-o`` too.

    What is given by its place comes first, wherever it was among the options: the parser wants that together.
    """
    place = next((index for index, word in enumerate(arguments) if word != "--verbose"), len(arguments))
    command = COMMANDS.get(arguments[place]) if place < len(arguments) else None
    if command is None:
        return list(arguments)
    parameters = inspect.signature(command).parameters.values()
    # Whatever must be given and may be given by its place alone is no option.
    options = {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY or one.default is not one.empty}
    words = [with_named_option(argument, options) for argument in arguments[place + 1 :]]
    if "--" not in words:
        switches = {f"--{name}" for name, one in options.items() if one.annotation == "bool"}
        has_output = any(one.name in ("output", "output_dir") for one in parameters)
        words = _with_places_first(words, switches | {"-h", "--help", "--verbose"}, has_output)
        words = _with_named_place(words, [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD])
    return [*arguments[: place + 1], *words]


def _with_named_place(words: Sequence[str], places: Sequence[inspect.Parameter]) -> list[str]:
    """``audiollm chat MODEL`` as ``audiollm chat --model=MODEL``: what may be left out is an option to the parser."""
    is_given = bool(words) and not words[0].startswith("-")
    if not is_given or len(places) != 1 or places[0].default is places[0].empty:
        return list(words)
    return [f"--{places[0].name}={words[0]}", *words[1:]]


def _with_places_first(words: Sequence[str], switches: Collection[str], has_output: bool) -> list[str]:
    """What is given by its place, then ``-o FILE`` of an output that is, too, for it is the last; then all options."""
    places, output, options = [], [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == PIPE or " " in word:
            places.append(word)
        elif has_output and word == "-o" and rest:
            output.append(rest.pop(0))
        elif has_output and word.startswith("-o="):
            output.append(word[3:])
        else:
            options.append(word)
            if word not in switches and "=" not in word and rest:
                options.append(rest.pop(0))
    return [*places, *output, *options]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one sub-command. What a user can cause ends in one line on stderr and exit status 1.

    Set ``AUDIOLLM_TRACEBACK=1`` to see where an error came from.
    """
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    given = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr(logging.WARNING)
    with errors_as_one_line("audiollm"):
        _run(given)


def _run(given: list[str]) -> None:
    if "--verbose" not in given:
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars that nobody switched on, such as those over weights
    command = next((word for word in given if word != "--verbose"), None)
    if command in TRAINERS and given[0] != command:
        raise ValueError(f"audiollm {command} says what it does in any case: leave --verbose out")
    if command in TRAINERS:
        run_trainer(command, given[1:])
    if command == "bench":
        if given[0] != command:
            be_verbose()
        run_bench(given[given.index(command) + 1 :])
        return
    parsed = build_parser().parse_args(spelt_out(given))
    function, values = COMMANDS[parsed.subcommand], parsed[parsed.subcommand]
    with errors_as_one_line("audiollm", inspect.signature(function).parameters):
        function(**values)
