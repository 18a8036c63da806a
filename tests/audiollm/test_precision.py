"""The faster number format: tried once for each size and number of threads, remembered, and never guessed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from audiollm.precision import fastest_dtype, fastest_dtype_for_frames
from audiollm.tokenizer import rates


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """A processor of which bfloat16's gain is known: how often it was tried, and what comes out."""
    facts = {"times": 0, "gain": 2.0}

    def gain(*sizes: int) -> float:
        facts["times"] += 1
        return facts["gain"]

    monkeypatch.delenv("AUDIOLLM_FASTEST", raising=False)
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rates, "bfloat16_gain", gain)
    return facts


@pytest.mark.parametrize(("gain", "dtype"), [(2.0, "bfloat16"), (1.1, "float32"), (0.2, "float32")])
def test_bfloat16_is_taken_where_it_is_clearly_faster(tried: dict[str, float], gain: float, dtype: str) -> None:
    tried["gain"] = gain
    assert fastest_dtype(64, 256, rows=1) == dtype


def test_a_size_is_tried_once_for_each_number_of_threads(tried: dict[str, float]) -> None:
    before = torch.get_num_threads()
    try:
        for threads, times in ((before, 1), (before, 1), (before + 1, 2), (before, 2)):
            torch.set_num_threads(threads)
            fastest_dtype(64, 256, rows=1)
            assert tried["times"] == times
    finally:
        torch.set_num_threads(before)
    fastest_dtype(64, 256, rows=512)
    assert tried["times"] == 3


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '"x"', "null", "\x00", '{"a": "3"}', '{"a": true}', '{"a": -1}', '{"a": NaN}', '{"a": 1e400}'],
)
def test_a_damaged_memory_is_told_and_made_anew(
    tried: dict[str, float], tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = tmp_path / "cache/bfloat16_gains.json"
    memory.parent.mkdir()
    memory.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert fastest_dtype(64, 256, rows=1) == "bfloat16"
    assert "bfloat16_gains.json cannot be read" in caplog.text
    assert list(json.loads(memory.read_text()).values()) == [2.0]


def test_what_was_tried_without_onednn_is_tried_again_with_it(tried: dict[str, float]) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        fastest_dtype(64, 256, rows=1)
    fastest_dtype(64, 256, rows=1)
    assert tried["times"] == 2


def test_sizes_that_are_none_are_refused(tried: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="1 layers of 0 x 256 for 1 rows: all must be at least 1"):
        fastest_dtype(0, 256, rows=1)


def test_where_nothing_can_be_kept_it_is_tried_every_time(
    tried: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "file/cache"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert fastest_dtype_for_frames() == "bfloat16"
    assert tried["times"] == 2
    assert "measured every time" in caplog.text


def test_the_variable_decides_and_is_checked(tried: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLLM_FASTEST", "float32")
    assert fastest_dtype(64, 256, rows=1) == "float32"
    assert tried["times"] == 0
    monkeypatch.setenv("AUDIOLLM_FASTEST", "float16")
    with pytest.raises(ValueError, match="AUDIOLLM_FASTEST=float16: set it to float32 or bfloat16"):
        fastest_dtype(64, 256, rows=1)


def test_a_gpu_is_not_tried(tried: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bfloat16, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=has_bfloat16: answer)
        assert fastest_dtype(64, 256, rows=1, device="cuda:0") == dtype
    assert tried["times"] == 0


def test_the_real_trial_gives_a_ratio() -> None:
    assert rates.bfloat16_gain(32, 64, 4, copies=3) > 0
