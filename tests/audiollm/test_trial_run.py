"""What is said of a machine follows from what was measured on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiollm import AudioLLM, fastest, trial_run
from audiollm.fastest import FIXED_THREADS
from audiollm.tokenizer.int8 import Int8Linear
from audiollm.tokenizer.machine import kernel, trials
from audiollm.tokenizer.rates import threads
from audiollm.trial_run import advice, num_cores, try_machine


def rates(**formats: float) -> dict[str, float]:
    return {"float32": 100.0, **formats}


@pytest.mark.parametrize(
    ("products", "told"),
    [
        (
            {"1": rates(bfloat16=20, int8=300)},
            ["bfloat16: products 5.0 times slower", "int8: products 3.0 times as fast"],
        ),
        ({"1": rates(bfloat16=105)}, ["bfloat16: products as fast as float32", "int8: this torch has no kernel"]),
        ({"1": rates(), "2": {"float32": 190.0}}, ["2 threads multiply 1.9 times as fast as one"]),
        ({"1": rates(), "2": {"float32": 90.0}}, ["0.9 times as fast as one: set OMP_NUM_THREADS=1"]),
    ],
)
def test_advice_follows_from_the_figures(products: dict[str, dict[str, float]], told: list[str]) -> None:
    lines = "\n".join(advice(products, {"float32": {"tokens per second": 10.0}}, {"1": 10.0, "2": 11.0}))
    assert all(one in lines for one in told)
    assert "writes" not in lines


def test_more_threads_than_help_are_told() -> None:
    lines = advice({"1": rates(), "64": rates()}, {}, {"1": 10.0, "8": 30.0, "64": 12.0})
    assert any("writes 2.5 times as fast with 8 threads as with 64: set OMP_NUM_THREADS=8" in line for line in lines)


def test_the_trial_leaves_threads_as_they_were_and_measures_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_HEARD_SECONDS": 1.0, "_SPOKEN_SECONDS": 0.4, "_NUM_TOKENS": 3, "_TRIES": 1}.items():
        monkeypatch.setattr(trial_run, name, value)
    number, said = torch.get_num_threads(), []
    found = try_machine(said.append)
    assert torch.get_num_threads() == number
    assert len(said) >= 2
    assert {"1", str(min(number, num_cores()))} <= set(found["writing"])
    assert set(found["mini"]) <= {"float32", "int8"}
    assert all(value > 0 for work in found["mini"].values() for value in work.values())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where trials are kept, of which there is one from before; what is measured after the choices is left out."""
    for name in ("AUDIOLLM_KERNEL", "AUDIOLLM_FASTEST", *FIXED_THREADS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path))
    monkeypatch.setattr(trial_run, "_figures", lambda tell: {"threads": torch.get_num_threads(), "advice": ["more"]})
    monkeypatch.setattr(trials, "_SECONDS", 0.0)
    kernel._kernel_for.cache_clear()
    return tmp_path / "trials.json"


def test_what_variables_settle_is_named_and_not_tried(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    for name, value in {"OMP_NUM_THREADS": "3", "AUDIOLLM_FASTEST": "float32", "AUDIOLLM_KERNEL": "blas"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trial_run, "fastest_num_threads", lambda: pytest.fail("commands take what the variable says"))
    monkeypatch.setattr(trial_run, "is_busy", lambda: False)
    with threads(3):
        assert try_machine()["choices"] == {
            "threads": "3 (OMP_NUM_THREADS)",
            "number format for frames": "float32 (AUDIOLLM_FASTEST)",
            "library for float32": "BLAS (AUDIOLLM_KERNEL)",
            "kept": "no",
        }


@pytest.mark.parametrize(("is_busy", "told"), [(False, "yes"), (True, "no: other work has the cores")])
def test_it_is_told_whether_the_choices_are_kept(
    monkeypatch: pytest.MonkeyPatch, kept: Path, is_busy: bool, told: str
) -> None:
    for module in (trials, trial_run, fastest):
        monkeypatch.setattr(module, "is_busy", lambda: is_busy)
    kept.write_text("{}")
    assert try_machine()["choices"]["kept"] == told
    assert kept.exists() == (not is_busy)


def test_more_threads_than_cores_are_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    monkeypatch.setattr(trial_run, "num_cores", lambda: 1)
    monkeypatch.setattr(trial_run, "_choices", lambda tell: {})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threads(3):
        found = try_machine()
        assert torch.get_num_threads() == 3
    assert found["threads"] == 1
    told = "3 threads wait for each other on 1 core: set OMP_NUM_THREADS=1, or leave it out; the figures are with 1"
    assert found["advice"] == [told, "more"]


def test_trials_that_cannot_be_removed_are_named(kept: Path) -> None:
    kept.mkdir()
    with pytest.raises(ValueError, match=r"trials\.json cannot be removed"):
        try_machine()


def test_a_tokenizer_in_int8_has_another_fingerprint_once() -> None:
    tokenizer = AudioLLM.from_pretrained().processor.load_audio_tokenizer()
    before = tokenizer.fingerprint(), tokenizer.decoder.fingerprint()
    coarse = tokenizer.to_int8().fingerprint(), tokenizer.decoder.to_int8().fingerprint()
    assert not set(before) & set(coarse)
    assert (tokenizer.to_int8().fingerprint(), tokenizer.decoder.to_int8().fingerprint()) == coarse
    codes = tokenizer.encode([0.1 * torch.randn(16_000)], 16_000)
    assert torch.isfinite(tokenizer.decode(codes)[0]).all()


def test_an_llm_in_int8_answers_and_cannot_be_saved(tmp_path) -> None:
    model = AudioLLM.from_pretrained().to_int8()
    assert any(isinstance(layer, Int8Linear) for layer in model.model.modules())
    assert model.chat([{"role": "user", "content": "Say yes."}], max_new_tokens=4).texts
    with pytest.raises(ValueError, match="cannot be saved: save the model before"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
