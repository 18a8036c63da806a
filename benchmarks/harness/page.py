"""Reports as one HTML file that needs nothing beside it: tables, pictures and sound are part of the page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import soundfile as sf
from matplotlib.figure import Figure
from torch import Tensor

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@title</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #ddd; padding: .3rem .8rem;
text-align: left; vertical-align: top } img { max-width: 100% } audio { width: 100% }
</style></head><body>
@body
</body></html>
"""


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file; ``sections`` are HTML, the title is plain text and becomes the heading too."""
    heading = html.escape(title)
    body = "\n".join([f"<h1>{heading}</h1>", *sections])
    return _PAGE.replace("@title", heading).replace("@body", body)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the first row's keys as its head; cells are plain values."""
    if not rows:
        return "<p>nothing to show</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    lines = ["".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) for row in rows]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def image(png_file: bytes, description: str) -> str:
    """A picture."""
    encoded = base64.b64encode(png_file).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{encoded}">'


def player(waveform: Tensor, sample_rate: int) -> str:
    """A player of a waveform ``[N]``, as Ogg Vorbis, which browsers play."""
    buffer = io.BytesIO()
    sf.write(buffer, waveform.numpy(), sample_rate, format="OGG", subtype="VORBIS")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls src="data:audio/ogg;base64,{encoded}"></audio>'
