"""The evidence on LoSATok, on tones and tiny models: all steps run as they would, only in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
import soundfile
import torch

from audiollm.program import ProgramError, run_program
from audiollm.training.losatok.config import LoSATokTrainingConfig
from audiollm.training.recipes import kept_trainings
from audiollm.training.recipes.losatok import generation, small_features
from audiollm.training.recipes.losatok.bottlenecks import FitSettings, fit
from audiollm.training.recipes.losatok.evidence import LoSATokEvidenceConfig, run_evidence
from audiollm.training.recipes.losatok.generation import GenerationSettings
from audiollm.training.recipes.losatok.report import BEGIN, END, LoSATokReportConfig, write_page
from audiollm.training.recipes.losatok.trainings import TokenizerSettings
from audiollm.training.train_losatok import train
from tests.tiny_losatok import tiny_losatok

YAML = {
    "losatok_small_semantic.yaml": "{stage: semantic, semantic: {bottleneck_size: 12, latent_size: 6}, ",
    "losatok_small_tokenizer.yaml": "{stage: tokenizer, tokenizer: {decoder_size: 16, decoder_intermediate_size: 16, "
    "decoder_layers: 1, num_mels: 16, n_fft: 640, mel_windows: [128], discriminator_start: null}, ",
}


@pytest.fixture(autouse=True)
def trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings in this process, by tiny configs; the runs that were started."""
    started: list[str] = []

    def launch(
        script: str, settings: str, *flags: str, num_threads: int | None = None, log: Path | None = None
    ) -> None:
        path = tmp_path / settings
        path.write_text(YAML[settings] + "segment_tokens: 8, segments_per_update: 2, learning_rate: 0.003}")
        started.append(Path(flags[flags.index("--output_dir") + 1]).name)
        run_program(LoSATokTrainingConfig, train, name=script, arguments=["--config", str(path), *flags])

    monkeypatch.setattr(kept_trainings, "launch_trainer", launch)
    return started


@pytest.fixture
def config(tmp_path: Path) -> LoSATokEvidenceConfig:
    tiny_losatok().semantic.save_pretrained(tmp_path / "teacher")
    lines = []
    for number in range(16):
        is_low = number % 2 == 0
        times = torch.arange(8000) / 16000
        tone = 0.3 * torch.sin(2 * torch.pi * ((200 if is_low else 2500) + 20 * number) * times)
        soundfile.write(tmp_path / f"{number}.wav", tone.numpy(), 16000)
        kind = "low" if is_low else "high"
        split = "train" if number < 10 else "test"
        lines.append({"id": f"n{number}", "audio": f"{number}.wav", "label": kind, "language": kind, "split": split})
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return LoSATokEvidenceConfig(
        output_dir=str(tmp_path / "run"),
        seeds=(0, 1),
        speech=str(tmp_path / "clips.jsonl"),
        sounds=str(tmp_path / "clips.jsonl"),
        teachers=(str(tmp_path / "teacher"),),
        latent_sizes=(4,),
        kl_weights=(0.0, 0.1),
        fit=FitSettings(steps=3, bottleneck_size=8),
        kl=TokenizerSettings(teacher=str(tmp_path / "teacher"), latent_size=6, semantic_steps=1, tokenizer_steps=1),
        dit=GenerationSettings(
            widths=(4,),
            kl_weight=0.1,
            num_mels=8,
            steps=3,
            evaluations=2,
            num_layers=1,
            num_heads=2,
            text_size=8,
            frames_per_update=60,
            max_seconds=0.4,
            generated_clips=6,
            sampling_steps=2,
        ),
    )


def test_everything_is_measured_once_and_goes_into_the_page(
    config: LoSATokEvidenceConfig, tmp_path: Path, trained_here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_evidence(config)
    own = results["small"]["teacher"]
    assert list(own) == ["full/teacher", "4/sembo", "4/sembo-without-relation", "4/pca", "4/svd", "4/merging"]
    assert [list(own[f"4/{name}"]) for name in ("sembo", "sembo-without-relation", "pca")] == [["0", "1"]] * 2 + [["-"]]
    assert own["4/sembo"]["0"] != own["4/sembo"]["1"]
    ranks = own["full/teacher"]["-"]["ranks"]
    assert 1 <= ranks["all"]["effective_rank"] <= 12
    assert results["settings"]["speech"].endswith("/clips.jsonl")
    assert not Path(results["settings"]["speech"]).is_absolute()
    assert ranks["all"]["frames"] == ranks["voice"]["frames"] + ranks["sound"]["frames"]
    assert own["full/teacher"]["-"]["reconstruction"] == 0
    assert own["4/pca"]["-"]["probes"]["voice"]["majority_accuracy"] == 0.5
    assert trained_here == ["seed0", "0-seed0", "0.1-seed0", "seed1", "0-seed1", "0.1-seed1"]
    assert {len(by_seed) for by_seed in results["kl"].values()} == {2}
    assert results["kl"]["0"]["0"]["mel_distance"] > 0
    assert not list((tmp_path / "run" / "runs").glob("*/checkpoints"))
    sizes = {name: own["0"]["size"] for name, own in results["dit"].items()}
    assert sizes == {"latents/4": 6, "mel/4": 32, "features/4": 12}
    # Beside a tokenizer's figures stand those of the smallest transformer that makes the same latents.
    assert results["kl"]["0.1"]["1"]["generation"] == results["dit"]["latents/4"]["1"]
    assert (tmp_path / "run" / "curves.png").is_file()
    assert (tmp_path / "run" / "tables.md").read_text().count("](curves.png)") == 1

    def computes(*_: Any) -> Any:
        raise AssertionError("it is there")

    monkeypatch.setattr(small_features, "fit", computes)
    monkeypatch.setattr(kept_trainings, "launch_trainer", computes)
    monkeypatch.setattr(generation, "assemble", computes)
    again = run_evidence(config)
    assert [again[part] for part in config.parts] == [results[part] for part in config.parts]

    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    write_page(LoSATokReportConfig(results=str(tmp_path / "run" / "results.json"), page=str(page)))
    text = page.read_text()
    assert text.startswith("# Before")
    assert text.endswith("After\n")
    assert "\nold\n" not in text
    assert "| 4 | SemBo | " in text
    assert " ± " in text
    assert "| 4 | PCA | " in text
    assert "| 0.1 | " in text
    assert "| mel, made | 32 | 4 | 2 | " in text
    assert "| features of the teacher, of recordings | 12 | – | 2 | – | – | – | 0.000 ± 0.000 | " in text
    assert "](figures/page_curves.png)" in text
    assert "Not complete" not in text
    assert (tmp_path / "figures" / "page_curves.png").is_file()
    assert json.loads(page.with_suffix(".json").read_text())["kl"] == results["kl"]


def test_cells_of_other_settings_are_refused(config: LoSATokEvidenceConfig) -> None:
    small = replace(config, parts=("small",), seeds=(0,))
    run_evidence(small)
    with pytest.raises(ValueError, match=r"sembo-4@seed0\.json was begun with another fit\.steps \(3, now 4\)"):
        run_evidence(replace(small, fit=replace(small.fit, steps=4)))
    made = replace(config, parts=("dit",), seeds=(0,), dit=replace(config.dit, spaces=("mel",)))
    run_evidence(made)
    with pytest.raises(ValueError, match=r"mel-width4@seed0\.json was begun with another settings\.steps \(3, now 4\)"):
        run_evidence(replace(made, dit=replace(made.dit, steps=4)))
    with pytest.raises(ValueError, match=r"mel-width4@seed0\.json was begun with another num_mels \(8, now 9\)"):
        run_evidence(replace(made, dit=replace(made.dit, num_mels=9)))
    with pytest.raises(ValueError, match="max_clips"):
        run_evidence(replace(small, max_clips=20))
    with pytest.raises(ValueError, match=r"seeds=\[0, 0\]"):
        replace(config, seeds=(0, 0))
    with pytest.raises(ValueError, match=r"dit\.widths=\[\]"):
        replace(config.dit, widths=())
    with pytest.raises(ValueError, match=r"dit\.evaluations=5: use 1 to dit\.steps=3"):
        replace(config.dit, evaluations=5)


def test_what_has_come_out_so_far_can_be_read_and_says_so(
    config: LoSATokEvidenceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second transformer fails; the first, and the part before, are there, and are not made again."""
    spaces: Any = ("mel", "features")
    config = replace(config, parts=("small", "dit"), seeds=(0,), dit=replace(config.dit, spaces=spaces))
    prepare, seen = generation.assemble, list[str]()

    def breaks(*arguments: Any) -> Any:
        seen.append(arguments[2].kind)
        if len(seen) == 2:
            raise RuntimeError("out of power")
        return prepare(*arguments)

    monkeypatch.setattr(generation, "assemble", breaks)
    with pytest.raises(RuntimeError, match="out of power"):
        run_evidence(config)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (list(found["dit"]), found["is_complete"]) == (["mel/4"], False)
    assert list(found["small"]["teacher"])[-1] == "4/merging"
    assert "Not complete" in (tmp_path / "run" / "tables.md").read_text()
    assert run_evidence(config)["is_complete"]
    assert seen == ["mel", "features", "features"]


def test_main_directions_lose_the_least_and_merging_is_a_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(30, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 5 for _ in range(3)]
    frames = torch.cat(clips)
    settings = FitSettings(steps=1, bottleneck_size=4)
    lost = {}
    for method in ("pca", "svd", "merging"):
        low, restored = fit(method, clips, 4, 0, settings)(frames)  # type: ignore[arg-type]
        assert low.shape == (90, 4)
        lost[method] = float((restored - frames).square().sum())
    assert lost["pca"] < lost["svd"] < lost["merging"]
    low, restored = fit("merging", clips, 4, 0, settings)(frames)
    torch.testing.assert_close(low[:, 1], frames[:, 2:4].mean(dim=1))
    torch.testing.assert_close(restored[:, 3], low[:, 1])
    with pytest.raises(ValueError, match="latent size 8 does not make features of 8 numbers small"):
        fit("pca", clips, 8, 0, settings)


def test_a_training_that_fails_names_its_log(
    config: LoSATokEvidenceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise CalledProcessError(3, ["python"])

    monkeypatch.setattr(kept_trainings, "launch_trainer", fails)
    with pytest.raises(ProgramError, match=r"seed0 failed with exit status 3; why is in .*seed0\.log"):
        run_evidence(replace(config, parts=("kl",)))
