"""Templates: what they escape, what they refuse, and the two kinds of tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jinja2 import UndefinedError

from audiollm.benchmarks.harness.page import markdown_table, markdown_text, picture_address, render, sound_address

REPORT = """{% extends "report.html.jinja" %}
{% from "report.html.jinja" import image, player, table %}
{% block title %}{{ name }}{% endblock %}
{% block body %}
{{ table(["a", "b"], rows) }}{{ table([], []) }}{{ image(picture, name) }}{{ player(sound) }}
{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "report_of_mine.html.jinja"
    path.write_text(REPORT)
    return path


def test_a_report_is_one_page_whose_values_cannot_become_markup(template: Path) -> None:
    page = render(
        template,
        name='<i>"x"</i>',
        rows=[["<b>", 1], {"first": "|", "second": None}],
        picture=picture_address(b"png"),
        sound=sound_address(torch.zeros(1600), 16000),
    )
    assert page.startswith("<!doctype html>")
    assert "<title>&lt;i&gt;&#34;x&#34;&lt;/i&gt;</title>" in page
    assert "<h1>&lt;i&gt;&#34;x&#34;&lt;/i&gt;</h1>" in page
    assert (
        "<tr><th>a</th><th>b</th></tr>\n<tr><td>&lt;b&gt;</td><td>1</td></tr>\n<tr><td>|</td><td>None</td></tr>" in page
    )
    assert "<p>nothing to show</p>" in page
    assert '<img alt="&lt;i&gt;&#34;x&#34;&lt;/i&gt;" src="data:image/png;base64,cG5n">' in page
    assert '<audio controls src="data:audio/ogg;base64,T2dn' in page  # "Ogg"


def test_a_value_that_is_missing_is_refused(template: Path) -> None:
    with pytest.raises(UndefinedError, match="sound"):
        render(template, name="x", rows=[[1]], picture="x")


def test_markdown_is_not_escaped_but_for_what_would_break_a_table(tmp_path: Path) -> None:
    path = tmp_path / "report.md.jinja"
    path.write_text("# {{ name | plain }}\n\n{{ table(head, rows) }}\n")
    text = render(path, name="a*b", head=["", "x"], rows=[["[a](b)", "1|2\n3"], {"": r"1\|2", "x": None}])
    assert text == "# a\\*b\n\n|  | x |\n| --- | --- |\n| [a](b) | 1\\|2 3 |\n| 1\\|2 | None |\n"
    assert markdown_table(["a"], []) == "| a |\n| --- |"
    assert markdown_text(" <b>\n_x_ ") == r"\<b\> \_x\_"
