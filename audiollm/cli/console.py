"""What commands share: loading models, and printing tables that only one of them has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from audiollm.mini import MINI

Dtype = Literal["float32", "bfloat16", "float16"]
Precision = Literal["fastest", "float32", "bfloat16", "float16", "int8"]
"""Of what computes. ``fastest``: float32 or bfloat16, as a short trial says that is made once, see
`audiollm.fastest.fastest_dtype`. int8 is for processors, and rounds weights that are loaded in float32."""


def load_audio_tokenizer(
    path_or_id: str, dtype: Precision, device: str | None, *, decodes: bool = False, may_lack_codes: bool = False
) -> Any:
    """An audio tokenizer of any kind, with only the layers that decide the codes; "mini" is the embedded one.

    Args:
        path_or_id: folder or Hub id.
        dtype: what computes; ``fastest`` is float32 unless it is a `UniAudioTokenizer`, which its trial is of.
        device: torch device; None: the first GPU when there is one.
        decodes: also with what turns codes into sound, if there is something.
        may_lack_codes: whether one with latents in their place will do, or codes of several rates.

    Raises:
        ValueError: if there is none, or it has no codes, or is of a kind that cannot do what is asked for.
    """
    from audiollm.fastest import device_for_models, fastest_dtype_for_frames
    from audiollm.mini import audio_tokenizer_or_mini
    from audiollm.tokenizer.base import require_one_rate
    from audiollm.tokenizer.kinds import UNIAUDIO_KINDS
    from audiollm.tokenizer.opening import find_tokenizer_folder, kind_of, open_tokenizer

    name, found = audio_tokenizer_or_mini(path_or_id), device_for_models(device)
    with absence_told(name):
        kind = kind_of(find_tokenizer_folder(name))
    is_uniaudio = kind.name in UNIAUDIO_KINDS
    if dtype == "int8" and not is_uniaudio:
        raise ValueError(f"--dtype int8 works for a UniAudio tokenizer, and {path_or_id} holds {kind.title}")
    if dtype == "fastest":
        dtype = fastest_dtype_for_frames(found) if is_uniaudio else "float32"
    # The decoder of a UniAudio tokenizer is a model beside it, which comes along in any case.
    encoder_only = is_uniaudio or not decodes
    with absence_told(name):
        loaded = open_tokenizer(name, encoder_only=encoder_only, dtype=_stored(dtype), device=found)
    if loaded.latent_size is not None and not may_lack_codes:
        raise ValueError(f"{path_or_id} holds a {kind.title}, which has latents and no codes: give one with codes")
    if not may_lack_codes:
        require_one_rate(loaded, path_or_id)
    return loaded.to_int8() if dtype == "int8" else loaded


def settled(dtype: Precision, path_or_id: str, device: str | None) -> Precision:
    """What ``fastest`` means for an LLM in a folder here; anything else stays, to be settled when it is loaded."""
    if dtype != "fastest":
        return dtype
    from audiollm.fastest import device_for_models
    from audiollm.loading import fastest_dtype_of
    from audiollm.sources.places import find_source

    folder = find_source(path_or_id).model
    return cast(Precision, fastest_dtype_of(folder, device_for_models(device))) if Path(folder).is_dir() else dtype


def load_audio_llm(path_or_id: str, dtype: Precision, device: str | None) -> Any:
    """The Audio-LLM; not annotated as one, because the parser would import what annotations name."""
    from audiollm.fastest import device_for_models
    from audiollm.modeling import AudioLLM

    found = device_for_models(device)
    with absence_told(path_or_id):
        loaded = AudioLLM.from_pretrained(path_or_id, dtype=_stored(dtype), device=found)
    return loaded.to_int8() if dtype == "int8" else loaded


def _stored(dtype: Precision) -> Any:
    """How weights are held, as ``from_pretrained`` takes it."""
    return "float32" if dtype == "int8" else dtype


def check_model_folder(path_or_id: str) -> None:
    """Looks at an Audio-LLM folder without loading it, which takes long.

    Raises:
        ValueError: it is none.
    """
    from audiollm.folders import check_folder
    from audiollm.sources.places import find_source

    check_folder(find_source(path_or_id).model)


@contextmanager
def absence_told(path_or_id: str) -> Iterator[None]:
    """Says first that there is no such folder where the Hub was asked for a name that isn't one here.

    Raises:
        ValueError: in place of the Hub's error.
    """
    try:
        yield
    except OSError as error:
        if path_or_id == MINI or Path(path_or_id).exists():
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"there is no folder {path_or_id} here, and the Hub did not give it: {reason}") from error


def write_line(text: str) -> None:
    """Writes a line; what the terminal cannot show, such as bytes of a file name, is escaped as JSON does it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()  # whoever reads a pipe sees each line when it is there


def shown_name(name: str) -> str:
    """A name as it can stand in a line: line ends and the like are escaped as JSON does it."""
    return name if name.isprintable() else json.dumps(name, ensure_ascii=False)[1:-1]


def show_token_table(rows: Sequence[Any], *, total: int, record_id: str) -> None:
    from rich.table import Table

    from audiollm.tables import print_table

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
    print_table(table)


def _show_trials(bench: dict[str, Any]) -> None:
    """The figures of `audiollm.trial_run.try_machine`."""
    from rich.table import Table

    from audiollm.tables import print_table, table_console

    console = table_console()
    rates = Table("products, GFLOP/s", *(f"threads: {number}" for number in bench["products"]))
    for name in next(iter(bench["products"].values())):
        rates.add_row(name, *(f"{own[name]:.0f}" for own in bench["products"].values()))
    print_table(rates, console)
    work = Table("mini", *bench["mini"])
    for name in next(iter(bench["mini"].values())):
        work.add_row(name, *(f"{own[name]:.1f}" for own in bench["mini"].values()))
    print_table(work, console)
    choices = Table("what commands take here", "")
    for name, choice in bench["choices"].items():
        choices.add_row(name, choice)
    print_table(choices, console)
    writing = Table("mini, threads", *bench["writing"])
    writing.add_row("tokens per second", *(f"{own:.1f}" for own in bench["writing"].values()))
    print_table(writing, console)
    for line in bench["advice"]:
        console.print(line, soft_wrap=True)


def show_kinds(kinds: Sequence[dict[str, str]]) -> None:
    """The kinds of audio tokenizers, as `audiollm.tokenizer.facts.facts_of_kinds` gives them."""
    from rich.table import Table

    from audiollm.tables import print_table

    columns = ("kind", "title", "sizes", "licence", "needs", "files")
    kept = [name for name in columns if any(kind[name] for kind in kinds)]
    table = Table(*kept, title="kinds of audio tokenizers; audiollm tokenizers FOLDER says what one is")
    for kind in kinds:
        table.add_row(*(kind[name] for name in kept))
    print_table(table)


def show_diagnosis(report: dict[str, Any]) -> None:
    from rich.table import Table

    from audiollm.tables import print_table, table_console

    console = table_console()
    for section in ("system", "processor", "devices", "required", "optional", "decoders", "tools"):
        table = Table(title=section, show_header=False, title_justify="left")
        for name, value in report.get(section, {}).items():
            table.add_row(name, str(value))
        print_table(table, console)
    if "bench" in report:
        _show_trials(report["bench"])
    console.print(
        "nothing required is missing" if not report["missing"] else "\n".join(report["missing"]), soft_wrap=True
    )
