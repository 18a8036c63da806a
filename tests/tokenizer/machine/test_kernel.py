"""Products of float32 matrices go to the faster library, as a trial says; to a named one, where it is named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audiollm.tokenizer.linear import Linear, linear
from audiollm.tokenizer.machine import kernel, trials


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One whose libraries are both there, and that nothing else works on."""
    monkeypatch.delenv("AUDIOLLM_KERNEL", raising=False)
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trials, "is_busy", lambda: False)
    kernel._kernel_for.cache_clear()
    yield
    kernel._kernel_for.cache_clear()


def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which library each product goes to from now on."""
    called: list[str] = []

    def onednn(*given: Tensor) -> Tensor:
        called.append("onednn")
        return kernel.onednn_product(*given)

    def blas(*given: Tensor) -> Tensor:
        called.append("blas")
        return torch.addmm(given[2], given[0], given[1].t())

    monkeypatch.setattr("audiollm.tokenizer.linear.onednn_product", onednn)
    monkeypatch.setattr(F, "linear", blas)
    return called


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("gain", "taken"), [(0.5, "onednn"), (1.05, "onednn"), (1.5, "blas")])
def test_the_faster_library_multiplies(monkeypatch: pytest.MonkeyPatch, gain: float, taken: str) -> None:
    monkeypatch.setattr(kernel, "_blas_gain", lambda: gain)
    called = calls_of(monkeypatch)
    layer = Linear(8, 4)
    layer(torch.randn(3, 8)).sum().backward()
    assert set(called) == {taken}
    assert layer.weight.grad is not None


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("named", ["onednn", "blas"])
def test_a_named_library_is_not_tried(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("AUDIOLLM_KERNEL", named)
    monkeypatch.setattr(kernel, "_blas_gain", lambda: pytest.fail("it was tried"))
    assert kernel.float32_kernel() == named


def test_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOLLM_KERNEL", "mkl")
    with pytest.raises(ValueError, match="AUDIOLLM_KERNEL=mkl: set it to onednn or blas"):
        linear(torch.randn(3, 8), torch.randn(4, 8))


def test_another_number_of_threads_is_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = {1: 2.0, 2: 0.5}
    monkeypatch.setattr(kernel, "_blas_gain", lambda: gains[torch.get_num_threads()])
    before = torch.get_num_threads()
    try:
        for number, taken in ((1, "blas"), (2, "onednn"), (1, "blas")):
            torch.set_num_threads(number)
            assert kernel.float32_kernel() == taken
    finally:
        torch.set_num_threads(before)


def test_where_onednn_is_switched_off_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_blas_gain", lambda: pytest.fail("it was tried"))
    with torch.backends.mkldnn.flags(enabled=False):
        assert kernel.float32_kernel() == "blas"


def test_a_library_that_this_torch_lacks_is_neither_tried_nor_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_blas_gain", lambda: pytest.fail("it was tried"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert kernel.float32_kernel() == "blas"
    monkeypatch.setenv("AUDIOLLM_KERNEL", "onednn")
    with pytest.raises(ValueError, match=r"AUDIOLLM_KERNEL=onednn: torch .* has no oneDNN here; set it to blas"):
        linear(torch.randn(3, 8), torch.randn(4, 8))


def test_a_library_that_fails_is_named_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Tensor) -> Tensor:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(kernel, "onednn_product", fails)
    with caplog.at_level(logging.WARNING):
        assert kernel.float32_kernel() == "blas"
    assert "oneDNN is there but multiplies no matrices (could not create a primitive)" in caplog.text


def test_the_real_trial_is_kept_for_the_next_process(tmp_path: Path) -> None:
    first = kernel.float32_kernel()
    kept = trials.trials_file().read_text()
    kernel._kernel_for.cache_clear()
    assert kernel.float32_kernel() == first
    assert trials.trials_file().read_text() == kept
