"""The examples run as they stand, offline, with the model that comes with the package."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from audiollm.exporting import export_onnx

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a program in a folder of its own, as ``python`` would, and gives what it prints."""
    monkeypatch.chdir(tmp_path)

    def start(program: Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(program), *arguments])
        runpy.run_path(str(program), run_name="__main__")
        return capsys.readouterr().out

    yield start
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_folder_becomes_codes_and_a_picture(run: Run, tmp_path: Path) -> None:
    shown = run(EXAMPLES / "tokenize_folder.py", "--output", "codes")
    assert "distinct" in shown
    assert "no folder was given: here are 5 Italian telephone prompts" in shown
    lines = (tmp_path / "codes" / "codes.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert json.loads(lines[0])["codes"]
    assert (tmp_path / "codes" / "codes.png").stat().st_size > 10_000
    assert (tmp_path / "codes" / "decoded.wav").stat().st_size > 10_000


def test_questions_about_a_recording_are_answered(run: Run, tmp_path: Path) -> None:
    shown = run(EXAMPLES / "ask_about_a_recording.py")
    assert "A: speech" in shown
    assert shown.count("A: ") == 3


def test_a_text_is_spoken_and_saved(run: Run, tmp_path: Path) -> None:
    shown = run(EXAMPLES / "speak_and_save.py", "Good morning.", "--output", "spoken.wav")
    assert "first sound after" in shown
    assert (tmp_path / "spoken.wav").stat().st_size > 10_000


def test_exports_are_compared(run: Run) -> None:
    shown = run(EXAMPLES / "compare_exports.py", "mini", "mini", "--limit", "4")
    assert "14.1 MB, 0 answers differ, " in shown
    assert shown.count("nats per token") == 2


@pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs pip install 'audiollm[onnx]'")
def test_a_recording_becomes_codes_without_torch(run: Run) -> None:
    export_onnx("mini", "tokenizer-onnx")
    recording = ROOT / "data" / "corpora" / "sample" / "asterisk" / "en" / "vm-savefolder.opus"
    line = json.loads(run(EXAMPLES / "tokenize_with_onnx.py", "tokenizer-onnx", str(recording)))
    assert len(line["codes"]) == 72


def test_own_clips_are_understood_after_fine_tuning(run: Run, tmp_path: Path) -> None:
    clips = ROOT / "data" / "corpora" / "sample" / "asterisk" / "en"
    records = [("please-try-again", "Please try again."), ("confbridge-unmuted", "You are no longer muted.")]
    lines = [json.dumps({"audio": str(clips / f"{name}.opus"), "text": text}) + "\n" for name, text in records]
    (tmp_path / "clips.jsonl").write_text("".join(lines), encoding="utf-8")
    shown = run(EXAMPLES / "finetune_on_own_clips.py", "clips.jsonl", "--output", "run")
    for _, text in records:
        assert f"after:  {text}" in shown
    assert "word error rate after: 0 %" in shown
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(notebook: Path, run: Run, tmp_path: Path) -> None:
    """Their cells in order, as a program; outputs are not stored."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    program = tmp_path / f"{notebook.stem}.py"
    program.write_text("\n\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    assert run(program).strip()


def test_there_is_a_test_and_a_line_of_documentation_for_each() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert [path.name for path in SCRIPTS if f'"{path.name}"' not in tests] == []
    assert [path.name for path in (*SCRIPTS, *NOTEBOOKS) if f"examples/{path.name}" not in page] == []
