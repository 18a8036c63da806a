"""The ``audiollm`` command. A sub-command is a function below: its signature is the interface, its docstring the help.

Heavy libraries are imported inside the functions, so that ``audiollm --help`` answers at once.
"""

from __future__ import annotations

import inspect
import json as jsonlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import docstring_parser
from jsonargparse import ArgumentParser

Dtype = Literal["float32", "bfloat16", "float16"]


def tokenize(
    source: str,
    output: str,
    *,
    audio_tokenizer: str,
    batch_size: int = 16,
    mono: Literal["first", "mean"] = "first",
    dtype: Dtype = "float32",
    device: str | None = None,
    num_shards: int = 1,
    shard: int = 0,
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn a corpus into codes: conversations (JSONL, parquet) or audio files, resumable after any interruption.

    Args:
        source: a manifest of conversation records, an audio file, or a folder of audio files.
        output: where the records with codes go (.jsonl or .parquet); appears only once it is complete.
        audio_tokenizer: checkpoint folder or Hub id of the audio tokenizer.
        batch_size: 30 s segments encoded at once.
        mono: which waveform of a multi-channel file is heard; "first" is the reference's rule.
        dtype: precision of the encoder; bfloat16 changes a few codes (see docs/tokenizer.md).
        device: torch device; the first GPU when there is one.
        num_shards: split the corpus into this many parts, one per process or machine.
        shard: which part this process takes, from 0.
        skip_bad: list unreadable clips in OUTPUT.rejected.jsonl and go on, instead of stopping at the first.
        overwrite: replace an output that exists.
        json: print the report as JSON.
    """
    from audiollm.data.corpus import tokenize_corpus

    report = tokenize_corpus(
        source,
        load_tokenizer(audio_tokenizer, dtype, device),
        output,
        batch_size=batch_size,
        mono=mono,
        skip_bad=skip_bad,
        num_shards=num_shards,
        shard=shard,
        overwrite=overwrite,
    )
    show(vars(report), as_json=json, title=f"tokenized {source}")


def extend_llm(  # not `extend`: the parser would look up that public name and so load torch
    llm: str,
    output: str,
    *,
    audio_tokenizer: str,
    init: Literal["text", "codebook"] = "text",
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Give a text LLM the audio vocabulary and write an Audio-LLM checkpoint, ready for training/sft.py.

    Args:
        llm: checkpoint folder or Hub id of a causal LM with a fast tokenizer, such as Qwen/Qwen2.5-0.5B.
        output: the folder to write; must not exist or be empty.
        audio_tokenizer: checkpoint folder or Hub id of the audio tokenizer; a copy goes into the checkpoint.
        init: draw the new embedding rows like text rows, or project them from the tokenizer's codebook.
        dtype: precision of the written weights.
        seed: seed of the new rows.
        json: print the summary as JSON.
    """
    import torch

    from audiollm.modeling import AudioLLM

    if Path(output).exists() and any(Path(output).iterdir()):
        raise ValueError(f"{output} is not empty; name a new folder for the Audio-LLM checkpoint")
    codec = load_tokenizer(audio_tokenizer, "float32", "cpu")
    model = AudioLLM.create(llm, audio_tokenizer=codec, init=init, seed=seed, dtype=getattr(torch, dtype))
    model.save_pretrained(output)
    summary = {
        "output": output,
        "codebook_size": model.vocabulary.codebook_size,
        "first_code_id": model.vocabulary.first_code_id,
        "embedding_rows": model.model.get_input_embeddings().weight.shape[0],
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }
    show(summary, as_json=json, title="extended vocabulary")


def inspect_data(data: str, *, model: str, index: int = 0, limit: int | None = None, json: bool = False) -> None:
    """Show one training record token by token, exactly as the model is trained on it.

    Args:
        data: conversation records: JSONL, parquet, a saved `datasets` folder or a Hub id.
        model: Audio-LLM folder (or Hub id) whose processor encodes the record.
        index: which record, from 0.
        limit: print at most this many tokens.
        json: one JSON object per token instead of a table.
    """
    from transformers import AutoConfig

    from audiollm.data.conversation import load_conversations
    from audiollm.inspection import token_rows
    from audiollm.processing import AudioLLMProcessor

    processor = AudioLLMProcessor.from_pretrained(model)
    conversations = load_conversations(data, codebook_size=processor.vocabulary.codebook_size)
    if not 0 <= index < len(conversations):
        raise ValueError(f"--index {index}: {data} holds records 0 to {len(conversations) - 1}")
    conversation = conversations[index]
    rows = token_rows(processor, conversation, max_length=AutoConfig.from_pretrained(model).max_position_embeddings)
    if json:
        for row in rows[:limit]:
            write_line(jsonlib.dumps(vars(row), ensure_ascii=False))
        return
    show_token_table(rows[:limit], total=len(rows), record_id=conversation.id)


def transcribe(
    audio: list[str],
    *,
    model: str,
    prompt: str | None = None,
    max_new_tokens: int = 256,
    dtype: Dtype = "float32",
    device: str | None = None,
    skip_bad: bool = False,
    json: bool = False,
) -> None:
    """Write down what is said in recordings.

    Args:
        audio: one or more audio files.
        model: Audio-LLM folder or Hub id.
        prompt: ask this instead of the standard transcription instruction.
        max_new_tokens: longest answer, in tokens.
        dtype: precision of the LLM.
        device: torch device; the first GPU when there is one.
        skip_bad: report unreadable or too long recordings and go on, instead of stopping at the first.
        json: one JSON object per recording.
    """
    from rich.progress import track

    from audiollm.data.audio import AudioError
    from audiollm.modeling import ContextError
    from audiollm.prompts import instruction

    llm = load_audio_llm(model, dtype, device)
    question = prompt or instruction("transcribe")
    num_bad = 0
    for path in track(audio, description="transcribing", disable=json or len(audio) == 1, transient=True):
        try:
            answer = llm.ask(path, question, max_new_tokens=max_new_tokens)
        except (AudioError, ContextError) as error:
            if not skip_bad:
                raise error if isinstance(error, AudioError) else ValueError(f"{path}: {error}") from error
            num_bad += 1
            write_line(jsonlib.dumps({"audio": path, "error": str(error)}) if json else f"{path}: skipped: {error}")
            continue
        line = {"audio": path, "text": answer}
        write_line(jsonlib.dumps(line, ensure_ascii=False) if json else (f"{path}: {answer}" if audio[1:] else answer))
    if num_bad == len(audio):
        raise ValueError(f"none of the {num_bad} recordings could be transcribed")


def doctor(*, json: bool = False) -> None:
    """Report versions, devices and optional parts, and how to get what is missing.

    Args:
        json: print the report as JSON.
    """
    from audiollm.diagnosis import diagnose

    report = diagnose()
    if json:
        write_line(jsonlib.dumps(report, indent=2))
    else:
        show_diagnosis(report)
    if report["missing"]:
        raise SystemExit(1)


COMMANDS: dict[str, Callable[..., None]] = {
    "tokenize": tokenize,
    "extend": extend_llm,
    "inspect-data": inspect_data,
    "transcribe": transcribe,
    "doctor": doctor,
}


def load_tokenizer(path_or_id: str, dtype: str, device: str | None) -> Any:
    """The audio tokenizer, with only the layers that decide the codes."""
    import torch

    from audiollm.tokenizer.modeling import UniAudioTokenizer

    return UniAudioTokenizer.from_pretrained(
        path_or_id, encoder_only=True, dtype=getattr(torch, dtype), device=find_device(device)
    )


def load_audio_llm(path_or_id: str, dtype: str, device: str | None) -> Any:
    """The Audio-LLM; not annotated as one, because the parser would import what annotations name."""
    import torch

    from audiollm.modeling import AudioLLM

    return AudioLLM.from_pretrained(path_or_id, dtype=getattr(torch, dtype), device=find_device(device))


def find_device(wanted: str | None) -> str:
    """The device asked for, else the first GPU, else the CPU.

    Raises:
        ValueError: if a GPU is asked for where there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if wanted is not None and wanted.startswith("cuda") and not has_gpu:
        raise ValueError(
            f"--device {wanted}: this torch ({torch.__version__}) sees no CUDA device; see `audiollm doctor`"
        )
    return wanted or ("cuda" if has_gpu else "cpu")


def write_line(text: str) -> None:
    sys.stdout.write(text + "\n")


def show(facts: dict[str, Any], *, as_json: bool, title: str) -> None:
    """A two-column table for people, one JSON object for scripts."""
    if as_json:
        write_line(jsonlib.dumps(facts, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(name.replace("_", " "), shown)
    Console(markup=False).print(table)


def show_token_table(rows: Sequence[Any], *, total: int, record_id: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"record {record_id}: {len(rows)} of {total} tokens")
    for column in ("position", "role", "token id", "text or code", "trained on"):
        table.add_column(column)
    for row in rows:
        shown = f"code {row.code}" if row.code is not None else repr(row.text)
        table.add_row(
            str(row.position),
            row.role,
            str(row.token_id),
            shown,
            "yes" if row.trained else "",
            end_section=row.ends_role,
        )
    Console(markup=False).print(table)


def show_diagnosis(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    for section in ("system", "devices", "required", "optional", "tools"):
        table = Table(title=section, show_header=False, title_justify="left")
        for name, value in report[section].items():
            table.add_row(name, str(value))
        console.print(table)
    console.print("nothing required is missing" if not report["missing"] else "\n".join(report["missing"]))


def command_parser(function: Callable[..., None]) -> ArgumentParser:
    """Derives a sub-command's arguments from a function: switches for booleans, repeated positionals for lists."""
    described = docstring_parser.parse(function.__doc__ or "")
    helps = {parameter.arg_name: parameter.description for parameter in described.params}
    annotations = {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    switches = {name for name, annotation in annotations.items() if annotation == "bool"}
    repeated = {name for name, annotation in annotations.items() if annotation == "list[str]"}
    parser = ArgumentParser(description=described.short_description, allow_abbrev=False)
    for name in repeated:
        parser.add_argument(name, nargs="+", help=helps[name])
    parser.add_function_arguments(function, skip={*switches, *repeated}, as_group=False, as_positional=True)
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true", help=helps[name])
    return parser


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="audiollm",
        description="Turn audio into tokens, a text LLM into an Audio-LLM, and recordings into answers.",
        version=version("audiollm"),
        allow_abbrev=False,
    )
    commands = parser.add_subcommands()
    for name, function in COMMANDS.items():
        command = command_parser(function)
        commands.add_subcommand(name, command, help=command.description)
    return parser


def underscored(arguments: Sequence[str]) -> list[str]:
    """Accepts ``--skip-bad`` for ``--skip_bad``."""
    result = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            option = "--" + option[2:].replace("-", "_")
        result.append(option + equals + value)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one sub-command. What a user can cause ends in one line on stderr and exit status 1.

    Set ``AUDIOLLM_TRACEBACK=1`` to see where an error came from.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    parser = build_parser()
    parsed = parser.parse_args(underscored(sys.argv[1:] if arguments is None else arguments))
    try:
        COMMANDS[parsed.subcommand](**parsed[parsed.subcommand])
    except (ValueError, OSError) as error:
        if os.environ.get("AUDIOLLM_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"audiollm: error: {error}\n")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
