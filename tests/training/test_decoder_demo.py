"""The decoder from real recordings: its parts in seconds, the whole way, a few updates long, as a slow test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.validation import ValidationClip, write_clips
from audiollm.training.decoder_demo import DecoderDemoConfig, run_decoder_demo
from audiollm.training.recipes.decoder_report import score_rows, write_report
from audiollm.training.recipes.launching import open_recipe_folder

SYSTEMS = {
    "original": {"wer": 0.05, "num_words": 40},
    "copy_synthesis": {"wer": 0.1, "mel_distance": 0.3, "mcd": 1.2, "stoi": 0.95, "pesq": 3.1},
    "decoded": {"wer": 0.25, "mel_distance": 0.9, "mcd": 4.0, "stoi": None, "pesq": 1.4},
}


def test_a_run_is_taken_up_with_the_same_settings_only(tmp_path: Path) -> None:
    settings = {"codebook_size": 64, "seed": 0}
    for _ in range(2):
        with open_recipe_folder(tmp_path / "run" / "demo.json", settings) as folder:
            assert folder == tmp_path / "run"
    with (
        pytest.raises(ValueError, match=r"another seed.*name another --output_dir"),
        open_recipe_folder(tmp_path / "run" / "demo.json", settings | {"seed": 1}),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with (
        pytest.raises(ValueError, match="not a run of this script"),
        open_recipe_folder(tmp_path / "other" / "demo.json", settings),
    ):
        pass
    assert not (tmp_path / "other" / "demo.json").exists()


def test_the_table_shows_every_system_and_what_could_not_be_computed() -> None:
    rows = score_rows(SYSTEMS)
    assert [row["wer"] for row in rows] == ["5.0 %", "10.0 %", "25.0 %"]
    assert rows[0]["stoi"] == "–"  # an original is not measured against itself
    assert rows[2]["stoi"] == "–"
    assert rows[1]["mel distance"] == "0.300"


def test_the_report_holds_scores_sounds_pictures_and_transcripts(tmp_path: Path) -> None:
    mel = MelConfig()
    waveform = 0.1 * torch.sin(torch.arange(8000) * 0.05)
    clip = ValidationClip("a/b", "say <this>", dict.fromkeys(SYSTEMS, waveform))
    write_clips([clip], mel, tmp_path / "validation" / "clips")
    heard: dict[str, Any] = {name: {"transcript": f"heard {name}"} for name in SYSTEMS}
    results = {
        "facts": {"judge": "somebody"}, "num_clips": 1, "seconds": 0.4, "systems": SYSTEMS,
        "clips": [{"id": "a/b", "text": "say <this>", "systems": heard}],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    for model, key in (("vocoder", "spectral"), ("flow", "loss")):
        (tmp_path / model).mkdir()
        lines = [{"event": "train", "step": step, key: 1.0 / step} for step in (1, 2, 3)]
        (tmp_path / model / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == 3
    assert page.count("data:image/png") == 2
    assert "say &lt;this&gt;" in page
    assert "heard decoded" in page
    assert (tmp_path / "training.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_whole_way_makes_a_decoder_and_a_report(tmp_path: Path) -> None:
    """Downloads packages; the few updates make no speech, but every step runs, and runs once."""
    config = DecoderDemoConfig(output_dir=str(tmp_path / "run"), codebook_size=256, vocoder_steps=2, flow_steps=2)
    result = run_decoder_demo(config)
    assert result["systems"]["original"]["wer"] < 0.15
    assert result["num_clips"] > 40
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "tokenizer" / "decoder" / "model.safetensors").exists()
    checkpoint = tmp_path / "run" / "flow" / "checkpoints"
    before = sorted(checkpoint.iterdir())
    run_decoder_demo(config)
    assert sorted(checkpoint.iterdir()) == before
