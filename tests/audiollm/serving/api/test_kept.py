"""Answers that later requests may call: each client its own, not for ever, and not without end."""

from __future__ import annotations

import pytest

from audiollm.serving.api import state
from audiollm.serving.api.state import KeptAnswers


def test_an_answer_is_there_for_its_own_key() -> None:
    kept = KeptAnswers(60, 3)
    kept.keep("a", "hello", [1, 2], "mine")
    found = kept.get("a", "mine")
    assert found is not None
    assert (found.text, found.codes) == ("hello", [1, 2])
    assert kept.get("a", "another's") is None
    assert kept.get("b", "mine") is None


def test_the_oldest_go_first() -> None:
    kept = KeptAnswers(60, 3)
    for name in "abcd":
        kept.keep(name, name, [], "")
    assert [kept.get(name, "") is not None for name in "abcd"] == [False, True, True, True]


def test_what_has_expired_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptAnswers(60, 1000)
    now = 1000.0
    monkeypatch.setattr(state.time, "time", lambda: now)
    for name in "abc":
        kept.keep(name, name, [], "")
    now += 61
    assert kept.get("a", "") is None
    kept.keep("d", "d", [], "")
    assert list(kept._answers) == ["d"]
