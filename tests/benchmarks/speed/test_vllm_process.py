"""vLLM is asked in its own environment: here a module of that name stands in for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from audiollm.benchmarks.speed import token_times
from audiollm.benchmarks.speed.generation import GenerationSpeedConfig, measure
from audiollm.benchmarks.speed.vllm_process import VLLMError, running_vllm

# It counts up from the last id of a prompt, over what is allowed, and prints as libraries do.
STAND_IN = """
from types import SimpleNamespace
print("a word on stdout")
class SamplingParams:
    def __init__(self, **settings): vars(self).update(settings)
class LLM:
    def __init__(self, model, **settings):
        from pathlib import Path
        if not (Path(model) / "config.json").is_file(): raise SystemExit(f"no config.json in {model}")
    def generate(self, prompts, settings, use_tqdm):
        ids = settings.allowed_token_ids or range(1000)
        made = [[ids[(p["prompt_token_ids"][-1] + n) % len(ids)] for n in range(settings.max_tokens)] for p in prompts]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=one)]) for one in made]
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter whose path holds the stand-in."""
    (tmp_path / "vllm.py").write_text(STAND_IN)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_answers_come_back_and_what_libraries_print_does_not(python: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with running_vllm(python, tmp_path, "float32", 16) as vllm:
        prompts = torch.tensor([[3, 4], [5, 6]])
        assert vllm.answer(prompts, 3, None).tolist() == [[4, 5, 6], [6, 7, 8]]
        assert vllm.answer(prompts, 2, torch.tensor([70, 71])).tolist() == [[70, 71], [70, 71]]
        assert vllm.processor_seconds >= 0


def start(python: str, folder: Path) -> None:
    with running_vllm(python, folder, "float32", 16):
        pytest.fail("it has not started")


def test_what_does_not_start_is_told_with_its_own_words(python: str, tmp_path: Path) -> None:
    with pytest.raises(VLLMError, match=r"no vLLM that answers; it said:\n(.*\n)*no config\.json in"):
        start(python, tmp_path / "none")
    with pytest.raises(VLLMError, match=r"(?s)vllm_python=.*No module named 'vllm'"):
        start(sys.executable, tmp_path)
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello; exec sleep 60\n")
    other.chmod(0o755)
    with pytest.raises(VLLMError, match=r"it said:\nhello"):
        start(str(other), tmp_path)
    with pytest.raises(ValueError, match=r"vllm_python=.*/none: cannot be run: No such file"):
        start(str(tmp_path / "none"), tmp_path)


@pytest.mark.parametrize("line", ["exec sleep 60", "sleep 60 & sleep 60", "cat >/dev/null & sleep 60"])
def test_what_stays_silent_is_ended_with_all_that_it_started(tmp_path: Path, line: str) -> None:
    silent = tmp_path / "silent"
    silent.write_text(f"#!/bin/sh\necho still thinking >&2; {line}\n")
    silent.chmod(0o755)
    with (
        pytest.raises(VLLMError, match=r"vllm_python=.*/silent: no answer in 0\.5 s; it said:\nstill thinking"),
        running_vllm(str(silent), tmp_path, "float32", 16, limit_seconds=0.5),
    ):
        pytest.fail("it has not started")


def test_a_request_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\nread line; echo {}; exec sleep 60\n")
    deaf.chmod(0o755)
    with (
        running_vllm(str(deaf), tmp_path, "float32", 16, limit_seconds=0.5) as vllm,
        pytest.raises(VLLMError, match=r"no answer in 0\.5 s"),
    ):
        vllm.answer(torch.zeros(1, 1_000_000, dtype=torch.int64), 3, None)  # more than a pipe holds


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"vllm_seconds={seconds:g}: use more than 0"):
        GenerationSpeedConfig(vllm_seconds=seconds)


def test_it_is_one_more_way_of_the_comparison(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_times, "_STREAM_BYTES", 1_000_000)
    config = GenerationSpeedConfig(
        shapes=("tiny",), answers=("audio",), rows=(2,), prompt_tokens=4, new_tokens=5, rounds=1, vllm_python=python
    )
    (result,) = measure(config)["results"].values()
    assert list(result["ways"]) == ["plain", "plain, masked", "ours", "ours, drawn", "vLLM"]
    assert result["ways"]["vLLM"]["min_seconds"] > 0
    assert result["ways"]["vLLM"]["min_processor_ms_per_token"] >= 0
