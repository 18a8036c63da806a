"""`audiollm convert-data`: what it says, and what it refuses before it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiollm.cli.app import COMMANDS, main
from audiollm.data.foreign.formats import FORMATS
from audiollm.prompts import instruction


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 800), 8000)
    lines = [{"audio_filepath": "a.wav", "text": "Yes.", "lang": "en"}, {"audio_filepath": "b.wav", "text": "No."}]
    path = tmp_path / "manifest.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_format_is_named_in_the_help_and_on_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in FORMATS:
        assert name in (COMMANDS["convert-data"].__doc__ or "")
        assert f"`{name}`" in page


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_it_names_the_format_and_what_was_rejected(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = manifest.parent / "ours.jsonl"
    command = ["convert-data", str(manifest), "-o", str(output), "--task", "transcribe"]
    assert failed(command, capsys).startswith(f"audiollm: error: {manifest}:2: ")
    main([*command, "--skip-bad"])
    said = f"read as a NeMo manifest: 1 records (1 conversations), 1 rejected\n{output}.rejected.jsonl says why\n"
    assert capsys.readouterr().out == said
    (record,) = read(output)
    assert record["messages"][0]["content"][1]["text"] == instruction("transcribe")
    main([*command, "--skip-bad", "--overwrite", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["conversations"], report["rejected"], report["format"]) == (1, 1, "a NeMo manifest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "speak"], "is not answered by a text of a clip; `audiollm speech-data`"),
        (["--task", "speaker"], "name the key that holds the answers with --text-key"),
        (["--task", "sing"], "task 'sing' has no instructions; use one of transcribe"),
        (["--format", "neMo"], "format 'neMo' is not known; use one of messages"),
    ],
)
def test_a_setting_without_a_meaning_is_refused_in_one_line(
    manifest: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["convert-data", str(manifest), "-o", str(manifest.parent / "ours.jsonl"), "--skip-bad", *options]
    assert message in failed(command, capsys)
    assert not (manifest.parent / "ours.jsonl").exists()


def test_a_task_of_any_name_goes_with_an_instruction_of_ones_own(manifest: Path) -> None:
    output = manifest.parent / "ours.jsonl"
    main(["convert-data", str(manifest), "-o", str(output), "--skip-bad", "--task", "sing", "--instruction", "Sing."])
    (record,) = read(output)
    assert record["task"] == "sing"
    assert record["messages"][0]["content"][1]["text"] == "Sing."
    assert record["messages"][1]["content"][0]["text"] == "Yes."


def test_the_language_is_an_answer_too(manifest: Path) -> None:
    output = manifest.parent / "ours.jsonl"
    main(["convert-data", str(manifest), "-o", str(output), "--skip-bad", "--task", "language"])
    assert [record["messages"][1]["content"][0]["text"] for record in read(output)] == ["en"]
