"""Long texts in parts: nothing is lost, nothing is too long, and sentences stay whole where they can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiollm.serving.answering.parts import parts_of


@pytest.mark.parametrize(
    ("text", "longest", "parts"),
    [
        ("One. Two! Three?", 100, ["One. Two! Three?"]),
        ("One is here. Two is here. Three is here.", 26, ["One is here. Two is here.", "Three is here."]),
        ('He said "Go." Then he left.', 15, ['He said "Go."', "Then he left."]),
        ("3.14 is a number, and 2.71 is one too.", 20, ["3.14 is a number,", "and 2.71 is one too."]),
        ("你好。再见。", 3, ["你好。", "再见。"]),
        ("a\n\nb", 1, ["a", "b"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("  \n ", 5, []),
    ],
)
def test_texts_are_cut_where_one_pauses(text: str, longest: int, parts: list[str]) -> None:
    assert parts_of(text, longest) == parts


@given(st.text(alphabet="ab .,!?\n…。“”'x", max_size=80), st.integers(1, 30))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, longest: int) -> None:
    parts = parts_of(text, longest)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= longest for part in parts)


def test_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="longest=0: use 1 or more"):
        parts_of("a", 0)
