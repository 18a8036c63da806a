"""Facts: tables for people, and JSON that holds nothing that JSON has no word for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from audiollm.facts import finite, show_facts, shown_value


def test_json_keeps_what_was_measured_and_warns_of_what_is_no_number(caplog: pytest.LogCaptureFixture) -> None:
    facts = {"speed": float("inf"), "rows": [{"loss": float("nan"), "codes": 3}], "path": Path("a"), "name": "ü"}
    with caplog.at_level(logging.WARNING):
        told = finite(facts)
    assert told == {"speed": None, "rows": [{"loss": None, "codes": 3}], "path": "a", "name": "ü"}
    assert "speed (inf), rows[0].loss (nan)" in caplog.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.448731, "0.44873"),
        (12.5, "12.5"),
        (98765.4321, "98,765.4"),
        (3000.0, "3,000"),
        (1234567, "1,234,567"),
        (True, "yes"),
        ("a", "a"),
    ],
)
def test_values_keep_the_digits_that_tell_them_apart(value: object, shown: str) -> None:
    assert shown_value(value) == shown


def test_the_same_facts_are_a_table_or_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts({"num_codes": 4096}, title="codes")
    shown = capsys.readouterr().out
    assert "num codes" in shown
    assert "4,096" in shown
    show_facts({"num_codes": 4096}, title="codes", as_json=True)
    assert capsys.readouterr().out == '{"num_codes": 4096}\n'


def test_what_is_none_is_left_out_of_the_table_and_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"output": "a.wav", "voice": None}
    show_facts(facts, title="spoken")
    shown = capsys.readouterr().out
    assert "a.wav" in shown
    assert "voice" not in shown
    assert "None" not in shown
    show_facts(facts, title="spoken", as_json=True)
    assert capsys.readouterr().out == '{"output": "a.wav", "voice": null}\n'
