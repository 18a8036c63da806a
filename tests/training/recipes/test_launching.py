"""What recipes do in their folder: one call at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiollm.data.files.lock import FileInUseError, held_run_folder
from audiollm.training.decoder_demo import DecoderDemoConfig, run_decoder_demo
from audiollm.training.demo import DemoConfig, run_demo
from audiollm.training.mini import MiniConfig, run_mini
from audiollm.training.real import RealConfig, run_real
from audiollm.training.sap_sae_experiment import SapSaeConfig, run_experiment

RECIPES: dict[str, Callable[[str], object]] = {
    "demo": lambda folder: run_demo(DemoConfig(output_dir=folder)),
    "decoder_demo": lambda folder: run_decoder_demo(DecoderDemoConfig(output_dir=folder)),
    "mini": lambda folder: run_mini(MiniConfig(output_dir=folder)),
    "real": lambda folder: run_real(RealConfig(output_dir=folder)),
    "sap_sae_experiment": lambda folder: run_experiment(SapSaeConfig(output_dir=folder)),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_second_call_in_a_folder_is_refused_and_touches_nothing(tmp_path: Path, recipe: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with held_run_folder(folder), pytest.raises(FileInUseError, match=r"run is in use by another run \(process \d+ on"):
        RECIPES[recipe](str(folder))
    assert not list(folder.iterdir())
