"""All harnesses on the recordings that ship."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audiollm.benchmarks import sample_scores
from audiollm.benchmarks.sample_scores import SampleScoresConfig, Step, run_all, score_steps, write_meta
from audiollm.benchmarks.speech.seed_tts_meta import missing_recordings, read_meta
from audiollm.cli.app import build_parser
from audiollm.cli.bench import benchmark_actions
from audiollm.program import run_program


def test_each_text_is_to_be_spoken_in_the_voice_of_another_recording(tmp_path: Path) -> None:
    records = []
    for number, text in enumerate(("One.", "Two, three.", "Four.")):
        sf.write(tmp_path / f"{number}.flac", np.full(80 * (number + 1), 0.1), 8000)
        records.append({"audio": str(tmp_path / f"{number}.flac"), "text": text})
    write_meta(records, tmp_path / "list")
    items = read_meta(tmp_path / "list" / "meta.lst").items
    assert not missing_recordings(items)
    assert [item.text for item in items] == ["One.", "Two, three.", "Four."]
    assert [item.prompt_text for item in items] == ["Four.", "One.", "Two, three."]
    lengths = [[len(sf.read(str(path))[0]) for path in (item.prompt, item.truth)] for item in items]
    assert lengths == [[240, 80], [80, 160], [160, 240]]


@pytest.mark.parametrize("more", [{}, {"limit": 3, "judge": "folder"}])
def test_every_command_is_one_that_a_user_can_type(more: dict[str, object], tmp_path: Path) -> None:
    steps = list(score_steps(tmp_path, SampleScoresConfig(model="m", audio_tokenizer="t", **more)))  # type: ignore[arg-type]
    assert len(steps) == 10
    for step in steps:
        if step.command[0] == "bench":
            config = step.run.args[-1]  # type: ignore[attr-defined]
            assert run_program(type(config), arguments=step.command[2:]) == config
            expected = partial(benchmark_actions(step.command[1])["run"], config)
            assert (step.run.func, step.run.args) == (expected.func, expected.args)  # type: ignore[attr-defined]
        else:
            build_parser().parse_args(step.command)


def test_a_folder_holds_the_scores_of_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(sample_scores, "data_steps", lambda output, tokenizer: [])
    monkeypatch.setattr(
        sample_scores, "score_steps", lambda output, config: [Step(["report", "x"], lambda: ran.append(config.model))]
    )
    run_all(SampleScoresConfig(output_dir=str(tmp_path)))
    run_all(SampleScoresConfig(output_dir=str(tmp_path)))
    assert ran == ["mini", "mini"]
    with pytest.raises(ValueError, match=r"begun with another audio_tokenizer \(mini, now other\)"):
        run_all(SampleScoresConfig(output_dir=str(tmp_path), audio_tokenizer="other"))


@pytest.mark.slow
def test_mini_goes_through_all_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = SampleScoresConfig(output_dir=str(tmp_path), limit=3, seeds=(0,))
    run_all(config)
    board = (tmp_path / "results" / "leaderboard.md").read_text(encoding="utf-8")
    for part in ("MMAU", "MMAR", "MMSU", "mini"):
        assert part in board
    assert "not traceable: " not in capfd.readouterr().err
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("predictions.jsonl")}
    run_all(config)
    assert {path: path.read_bytes() for path in before} == before
