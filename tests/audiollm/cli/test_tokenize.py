"""`audiollm tokenize` into a folder of shards."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from audiollm.cli import main
from audiollm.data.tokenizing.jobs import job
from tests.data.tokenizing.corpora import samples, write_tar


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def command(folders: Path, source: Path, output: str, *more: str) -> list[str]:
    return ["tokenize", str(source), output, "--audio-tokenizer", str(folders / "codec"), *more]


def rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]


def test_a_folder_holds_the_codes_of_a_file(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(folders, folders / "clips", str(tmp_path / "one.parquet")))
    capsys.readouterr()
    main(command(folders, folders / "clips", f"{tmp_path}/codes/", "--json", "--shard-hours", "0.0002"))
    report = json.loads(capsys.readouterr().out)
    assert (report["records"], report["shards"], report["resumed"]) == (2, 2, 0)
    assert rows(tmp_path / "codes") == pyarrow.parquet.read_table(tmp_path / "one.parquet").to_pylist()
    main(command(folders, folders / "clips", f"{tmp_path}/codes", "--json", "--shard-hours", "0.0002"))
    assert json.loads(capsys.readouterr().out)["resumed"] == 2


def test_several_tar_files_are_one_corpus(folders: Path, tmp_path: Path) -> None:
    tars = [str(write_tar(tmp_path / f"{number}.tar", samples(2, first=2 * number))) for number in range(2)]
    main(["tokenize", *tars, f"{tmp_path}/codes/", "--audio-tokenizer", str(folders / "codec")])
    assert [row["id"] for row in rows(tmp_path / "codes")] == [
        f"{number // 2}.tar/clips/{number:04d}" for number in range(4)
    ]


@pytest.mark.parametrize(("option", "value"), [("--processes", "2"), ("--ray", "auto"), ("--shard-hours", "2.0")])
def test_what_is_for_folders_is_refused_for_files(
    folders: Path, tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(command(folders, folders / "clips", str(tmp_path / "a.jsonl"), option, value), capsys)
    assert message.startswith(f"audiollm: error: {option}={value}: is for a folder of parquet files, such as codes/")
    assert not list(tmp_path.iterdir())


def test_under_a_launcher_each_process_takes_its_part(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        main(command(folders, folders / "clips", f"{tmp_path}/codes/", "--json", "--shard-hours", "0.0002"))
        assert json.loads(capsys.readouterr().out)["records"] == 1
    assert len(rows(tmp_path / "codes")) == 2


def test_bad_settings_are_told_as_options_before_the_tokenizer_is_loaded(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "open_corpus", None)  # is not reached
    for option, value in (
        ("--processes", "0"),
        ("--num-decoders", "0"),
        ("--batch-size", "0"),
        ("--shard-hours", "-1.0"),
    ):
        message = fails(command(folders, folders / "clips", f"{tmp_path}/codes/", option, value), capsys)
        assert message.startswith(f"audiollm: error: {option}={value}: ")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "no job of tokenizing" in fails(command(folders, folders / "clips", f"{tmp_path}/mine"), capsys)


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("audiollm.data.tokenizing.jobs.progress.SECONDS_BETWEEN_LINES", 0.0)
    main(command(folders, folders / "clips", f"{tmp_path}/codes/", "--shard-hours", "0.0002"))
    assert "1 of 2 shards, 0.0 h of audio by this run" in caplog.text
    assert "2 of 2 shards" in caplog.text
    assert "x realtime, about 0.0 h left" in caplog.text
