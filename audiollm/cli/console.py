"""What commands share: loading models, and printing tables that only one of them has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16", "float16"]


def load_audio_tokenizer(path_or_id: str, dtype: str, device: str | None) -> Any:
    """The audio tokenizer, with only the layers that decide the codes; "mini" is the embedded one."""
    import torch

    from audiollm.environment import find_device
    from audiollm.mini import audio_tokenizer_or_mini
    from audiollm.tokenizer.modeling import UniAudioTokenizer

    return UniAudioTokenizer.from_pretrained(
        audio_tokenizer_or_mini(path_or_id), encoder_only=True, dtype=getattr(torch, dtype), device=find_device(device)
    )


def load_audio_llm(path_or_id: str, dtype: str, device: str | None) -> Any:
    """The Audio-LLM; not annotated as one, because the parser would import what annotations name."""
    import torch

    from audiollm.environment import find_device
    from audiollm.modeling import AudioLLM

    return AudioLLM.from_pretrained(path_or_id, dtype=getattr(torch, dtype), device=find_device(device))


def write_line(text: str) -> None:
    sys.stdout.write(text + "\n")


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


def show_diagnosis(report: dict[str, Any]) -> None:
    from rich.table import Table

    from audiollm.tables import print_table, table_console

    console = table_console()
    for section in ("system", "devices", "required", "optional", "decoders", "tools"):
        table = Table(title=section, show_header=False, title_justify="left")
        for name, value in report.get(section, {}).items():
            table.add_row(name, str(value))
        print_table(table, console)
    console.print(
        "nothing required is missing" if not report["missing"] else "\n".join(report["missing"]), soft_wrap=True
    )
