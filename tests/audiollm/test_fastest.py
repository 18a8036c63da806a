"""The faster number format: tried once for each size and number of threads, remembered, and never guessed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from audiollm import fastest
from audiollm.fastest import (
    FIXED_THREADS,
    device_for_models,
    fastest_dtype,
    fastest_dtype_for_frames,
    fastest_num_threads,
)
from audiollm.tokenizer import rates
from audiollm.tokenizer.machine import trials


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """A processor of which bfloat16's gain is known: how often it was tried, and what comes out."""
    facts = {"times": 0, "gain": 2.0, "busy": 0}

    def gain(*sizes: int) -> float:
        facts["times"] += 1
        return facts["gain"]

    monkeypatch.delenv("AUDIOLLM_FASTEST", raising=False)
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rates, "bfloat16_gain", gain)
    monkeypatch.setattr(trials, "is_busy", lambda: facts["busy"] > 0)
    monkeypatch.setattr(fastest, "is_busy", lambda: facts["busy"] > 0)
    trials._tell_once.cache_clear()
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
    memory = tmp_path / "cache/trials.json"
    memory.parent.mkdir()
    memory.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert fastest_dtype(64, 256, rows=1) == "bfloat16"
    assert "trials.json cannot be read" in caplog.text
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
    assert caplog.text.count("measured every time") == 1


def test_what_is_measured_beside_other_work_is_not_kept(tried: dict[str, float]) -> None:
    tried["busy"] = 1
    assert fastest_dtype(64, 256, rows=1) == "bfloat16"
    tried.update(busy=0, gain=0.5)
    assert fastest_dtype(64, 256, rows=1) == "float32"
    tried["gain"] = 2.0
    assert fastest_dtype(64, 256, rows=1) == "float32"
    trials.forget_trials()
    assert fastest_dtype(64, 256, rows=1) == "bfloat16"


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 2.0, 2: 1.1, 4: 0.6}, 4),
        ({1: 2.0, 2: 1.1, 4: 1.2}, 4),  # not clearly faster
        ({1: 2.0, 2: 1.1, 4: 1.6}, 2),
        ({1: 2.0, 2: 9.0}, 1),  # a trial that stopped: 4 were not tried
    ],
)
def test_fewer_threads_are_taken_where_they_are_clearly_faster(
    tried: dict[str, float], monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], number: int
) -> None:
    monkeypatch.setattr(rates, "seconds_by_threads", lambda hopeless: seconds)
    with rates.threads(4):
        assert fastest_num_threads() == number


def test_beside_other_work_threads_stay(tried: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    tried["busy"] = 1
    monkeypatch.setattr(rates, "seconds_by_threads", lambda hopeless: {1: 1.0, 4: 9.0})
    with rates.threads(4):
        assert fastest_num_threads() == 4


@pytest.mark.parametrize("variable", ["", "OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_threads_are_set_where_nothing_else_says_how_many(
    tried: dict[str, float], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setattr(rates, "seconds_by_threads", lambda hopeless: {1: 1.0, 4: 9.0})
    for name in FIXED_THREADS:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "4")
    with rates.threads(4):
        assert device_for_models("cpu") == "cpu"
        assert torch.get_num_threads() == (4 if variable else 1)


def test_a_library_that_there_is_not_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLLM_KERNEL", "mkl")
    with pytest.raises(ValueError, match="AUDIOLLM_KERNEL=mkl: set it to onednn or blas"):
        device_for_models("cpu")


@pytest.mark.parametrize("number", [0.5, 5.0, 1e9])
def test_a_number_of_threads_that_no_trial_comes_out_with_is_refused(
    tried: dict[str, float], monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    monkeypatch.setattr(fastest, "found_by_trial", lambda *_: number)
    with rates.threads(4), pytest.raises(ValueError, match=r"trials\.json says that .* of 4 threads .*: remove"):
        fastest_num_threads()


def test_the_trial_of_threads_stops_where_it_gets_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "best_seconds", lambda way: float(torch.get_num_threads()))
    with rates.threads(8):
        assert rates.seconds_by_threads(3.0) == {1: 2.0, 2: 4.0, 4: 8.0}
        assert torch.get_num_threads() == 8


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
