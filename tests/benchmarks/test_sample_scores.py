"""All harnesses on the recordings that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audiollm.benchmarks import sample_scores
from audiollm.benchmarks.sample_scores import SampleScoresConfig, measure, score_commands, write_meta
from audiollm.benchmarks.speech.seed_tts_meta import missing_recordings, read_meta
from audiollm.cli.app import bench_call, build_parser, underscored


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
    config = SampleScoresConfig(model="m", tokenizer="t", **more)  # type: ignore[arg-type]
    commands = list(score_commands(tmp_path, config))
    for command in commands:
        if command[0] == "bench":
            bench_call(underscored(command[1:]))
        else:
            build_parser().parse_args(command)
    assert len(commands) == 10


def test_a_folder_holds_the_scores_of_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(sample_scores, "audiollm", commands.append)
    monkeypatch.setattr(sample_scores, "data_commands", lambda output, tokenizer: [])
    measure(SampleScoresConfig(output=str(tmp_path)))
    assert commands[-1] == ["report", str(tmp_path / "results")]
    measure(SampleScoresConfig(output=str(tmp_path)))
    with pytest.raises(ValueError, match=r"begun with another tokenizer \(mini, now other\)"):
        measure(SampleScoresConfig(output=str(tmp_path), tokenizer="other"))


@pytest.mark.slow
def test_mini_goes_through_all_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = SampleScoresConfig(output=str(tmp_path), limit=3, seeds="0")
    measure(config)
    board = (tmp_path / "results" / "leaderboard.md").read_text(encoding="utf-8")
    for part in ("MMAU", "MMAR", "MMSU", "mini"):
        assert part in board
    assert "not traceable: " not in capfd.readouterr().err
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("predictions.jsonl")}
    measure(config)
    assert {path: path.read_bytes() for path in before} == before
