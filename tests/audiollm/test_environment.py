"""Where models go, and what run records say of the machine."""

from __future__ import annotations

import platform

import pytest
import torch

from audiollm.environment import diagnose, find_device, installed_versions


@pytest.fixture
def has_gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)


@pytest.mark.parametrize("has_gpu", [True], indirect=True)
@pytest.mark.parametrize(("local_rank", "device"), [(None, "cuda:0"), ("3", "cuda:3")])
def test_each_process_of_a_launcher_gets_a_gpu_of_its_own(
    has_gpu: None, local_rank: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert find_device() == device
    assert find_device("cpu") == "cpu"
    assert find_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("has_gpu", [False], indirect=True)
def test_without_a_gpu_models_go_to_the_cpu_unless_a_gpu_is_asked_for(has_gpu: None) -> None:
    assert find_device() == "cpu"
    with pytest.raises(ValueError, match=r"--device cuda:1: .* sees no CUDA device"):
        find_device("cuda:1")


def test_versions_are_pythons_and_those_of_packages_none_where_one_is_absent() -> None:
    versions = installed_versions(["torch", "no-such-package"])
    assert versions["python"] == platform.python_version()
    assert versions["torch"]
    assert versions["no-such-package"] is None


def test_the_package_is_none_of_its_own_requirements() -> None:
    report = diagnose()
    assert "audiollm" not in {**report["required"], **report["optional"]}


@pytest.mark.parametrize("device", ["", "gpu", "cuda:x", "cpu 0"])
def test_what_is_no_device_is_told(device: str) -> None:
    with pytest.raises(ValueError, match="is no device of torch; give cpu, cuda or cuda:1"):
        find_device(device)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu:0"])
def test_a_device_that_is_not_here_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    with pytest.raises(ValueError, match=rf"--device {device}: .* sees none here"):
        find_device(device)
