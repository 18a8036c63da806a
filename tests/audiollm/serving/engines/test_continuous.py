"""transformers' continuous batching is as this package knows it, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from audiollm.serving.engines import continuous
from audiollm.serving.engines.base import EngineError
from audiollm.serving.engines.batching import BatchingEngine


def test_the_installed_transformers_has_every_private_name_that_is_used() -> None:
    assert continuous.missing_names() == []


def test_a_name_that_is_gone_is_told_at_the_start(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(continuous.ContinuousBatchingManager, "_run_generation_loop")
    with pytest.raises(EngineError, match=r"transformers 5\..* there is no ContinuousBatchingManager\._run_gener"):
        tiny.answers(BatchingEngine(tiny.model), [])


def test_other_innards_are_told_at_the_start(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList

    monkeypatch.delattr(ContinuousBatchingLogitsProcessorList, "clear")
    with pytest.raises(EngineError, match=r"not as this package knows it: .*clear"):
        tiny.answers(BatchingEngine(tiny.model), [])


def test_memory_that_cannot_be_had_is_told_at_the_start(tiny: Any) -> None:
    engine = BatchingEngine(tiny.model, num_pages=10**9)
    with pytest.raises(EngineError, match="could not start"):
        tiny.answers(engine, [])
    assert not engine.is_ready
