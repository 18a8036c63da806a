"""Reports from Jinja templates: HTML in one file that needs nothing beside it, and tables in Markdown.

A report is a template beside the code that knows its values. ``report.html.jinja`` in this folder is the page that HTML
reports extend; pictures and sound become part of the page as data addresses.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import soundfile as sf
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from torch import Tensor

_FOLDER = Path(__file__).parent


def render(template: Path, **values: Any) -> str:
    """Fills a template.

    Args:
        template: the file, ``….html.jinja`` or ``….md.jinja``. HTML escapes its values and may extend
            ``report.html.jinja``; Markdown has the filters ``plain`` (see `markdown_text`) and the function
            ``table`` (see `markdown_table`).
        values: by the names that the template uses.

    Raises:
        jinja2.UndefinedError: the template uses a name without a value.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _FOLDER]),
        autoescape=template.name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    if not environment.autoescape:
        environment.filters["plain"] = markdown_text
        environment.globals["table"] = markdown_table
    return environment.get_template(template.name).render(**values)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def picture_address(png_file: bytes) -> str:
    """A PNG file as an address that holds it, for ``<img src>``."""
    return _data_address("image/png", png_file)


def sound_address(waveform: Tensor, sample_rate: int) -> str:
    """A waveform ``[N]`` as an address that holds it, for ``<audio src>``: Ogg Vorbis, which browsers play."""
    buffer = io.BytesIO()
    sf.write(buffer, waveform.numpy(), sample_rate, format="OGG", subtype="VORBIS")
    return _data_address("audio/ogg", buffer.getvalue())


def _data_address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def markdown_text(text: str) -> str:
    """Plain text as Markdown: one line, nothing in it read as markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def markdown_table(head: Iterable[Any], rows: Iterable[Iterable[Any] | Mapping[str, Any]]) -> str:
    """A table in Markdown, without a line end behind it.

    Args:
        head: names of the columns.
        rows: cells, or mappings whose values are the cells. They may hold Markdown; a bare ``|`` is escaped, a line end
            becomes a space.
    """

    def line(cells: Iterable[Any]) -> str:
        texts = (re.sub(r"(?<!\\)\|", r"\\|", str(cell)).replace("\n", " ") for cell in cells)
        return "| " + " | ".join(texts) + " |"

    names = list(head)
    cells = (row.values() if isinstance(row, Mapping) else row for row in rows)
    return "\n".join([line(names), line(["---"] * len(names)), *map(line, cells)])
