"""Trials leave the process as it was, and neither forks nor a spoiled cache folder stop them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch

from audiollm.tokenizer import rates
from audiollm.tokenizer.cache import cache_folder
from audiollm.tokenizer.locks import held_folder
from audiollm.tokenizer.machine import kernel, trials


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder, on a machine that does nothing else."""
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trials, "is_busy", lambda: False)
    monkeypatch.setattr(trials, "_SECONDS", 0.0)
    trials._tell_once.cache_clear()
    return tmp_path / "cache"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_during_a_trial_neither_waits_for_itself_nor_holds_others_up(cache: Path) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def measure() -> float:
        begun.set()
        assert goes_on.wait(60)
        return 2.0

    trial = threading.Thread(target=trials.found_by_trial, args=("one", measure))
    trial.start()
    assert begun.wait(60)
    context = multiprocessing.get_context("fork")
    ends = context.Event()
    child = context.Process(target=ends.wait, args=(60,))
    child.start()
    try:
        goes_on.set()
        trial.join()
        with held_folder(cache):  # BlockingIOError if the child has it
            pass
        asking = context.Process(target=trials.found_by_trial, args=("two", lambda: 3.0))
        asking.start()
        asking.join(60)
        assert asking.exitcode == 0
    finally:
        ends.set()
        child.join()
    assert trials.found_by_trial("two", lambda: 4.0) == 3.0


def test_what_a_seeded_run_draws_does_not_depend_on_a_trial() -> None:
    torch.manual_seed(3)
    alone = torch.rand(4)
    torch.manual_seed(3)
    kernel._blas_gain()
    rates.bfloat16_gain(8, 16, 2)
    rates.seconds_by_threads(1000.0)
    assert torch.equal(torch.rand(4), alone)


def test_a_trial_is_of_float32_on_the_processor_whatever_the_defaults_are() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            tried = trials.noise(2, 3)
    finally:
        torch.set_default_dtype(before)
    assert (tried.dtype, tried.device.type) == (torch.float32, "cpu")


def test_a_memory_nested_too_deep_is_told_and_made_anew(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.mkdir()
    (cache / "trials.json").write_text("[" * 200_000)
    assert trials.found_by_trial("one", lambda: 2.0) == 2.0
    assert "trials.json cannot be read" in caplog.text
    assert trials.found_by_trial("one", lambda: 3.0) == 2.0


def test_a_folder_in_the_place_of_the_memory_is_told_and_nothing_piles_up(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "trials.json").mkdir(parents=True)
    for number in (2.0, 3.0):
        assert trials.found_by_trial("one", lambda own=number: own) == number
    assert "cannot be kept" in caplog.text
    assert [entry.name for entry in cache.iterdir()] == ["trials.json"]


def test_a_cache_folder_that_cannot_be_opened_only_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, *, wait: bool) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(trials, "held_folder", refused)
    assert trials.found_by_trial("one", lambda: 2.0) == 2.0


def test_others_who_share_the_cache_folder_may_read_what_was_tried(cache: Path) -> None:
    before = os.umask(0o022)
    try:
        trials.found_by_trial("one", lambda: 2.0)
    finally:
        os.umask(before)
    assert trials.trials_file().stat().st_mode & 0o777 == 0o644


def test_a_home_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLLM_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(ValueError, match=r"cache folder ~nobody-of-this-name/cache is not known.*set AUDIOLLM_CACHE"):
        cache_folder()


def test_a_system_that_does_not_say_its_load_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def unknown() -> None:
        raise OSError("load averages are unobtainable")

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert not trials.is_busy()
    monkeypatch.delattr(os, "getloadavg")
    assert not trials.is_busy()
