"""Logs of predictions: whole lines, one run a folder, one writer a log, and the file that is made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.questions.asking.prediction_log import MERGED_NAME, PredictionLog
from audiollm.data.files.lock import FileInUseError, locked_file

HEADER: dict[str, Any] = {
    "benchmark": "mmau",
    "data_sha256": "d" * 64,
    "prompt": {"id": "uas-1", "sha256": "p" * 64},
    "shuffle_options": None,
    "model": {"name": "m", "revision": "r", "tokenizer_revision": "t"},
    "decoding": {"max_new_tokens": 8, "batch_size": 2},
    "limit": None,
    "versions": {"torch": "2"},
    "started": "2026-01-01T00:00:00+00:00",
}


def log(folder: Path, rank: int = 0, **changes: Any) -> PredictionLog:
    return PredictionLog(folder, {**HEADER, **changes}, rank)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_written_can_be_read_at_once_and_by_the_next_run(tmp_path: Path) -> None:
    with log(tmp_path) as first:
        first.predicted("a", "Ünïcode\nand lines", choices=["x", None], seconds=0.1, attempt=1)
        first.failed("b", "no", 3)
        assert first.read().predictions["a"]["prediction"] == "Ünïcode\nand lines"
    with log(tmp_path, started="later") as second:
        answers = second.read()
        assert answers.predictions.keys() == {"a"}
        assert answers.failures == {"b": "no"}
        second.predicted("b", "yes", attempt=1)
        assert second.read().failures == {}
    assert lines(tmp_path / "predictions.rank0.jsonl")[0] == {"kind": "run", **HEADER}


def test_half_a_character_is_kept(tmp_path: Path) -> None:
    with log(tmp_path) as first:
        first.predicted("a", "cut \ud83d", attempt=1)
        first.predicted("b", "whole 狗", attempt=1)
        merged = first.merge(["a", "b"])
    assert [line["prediction"] for line in lines(merged)[1:]] == ["cut \ud83d", "whole 狗"]
    assert "狗" in merged.read_text(encoding="utf-8")


def test_the_merged_file_is_the_same_whoever_wrote_what_and_when(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d"]
    with log(tmp_path / "one") as alone:
        for question_id in reversed(ids[:3]):
            alone.predicted(question_id, f"reply {question_id}", choices=["x"], seconds=1.0, attempt=1)
        alone.failed("d", "broken", 1)
        alone.failed("d", "broken again", 3)
        one = alone.merge(ids)
    with log(tmp_path / "two", started="another day") as main, log(tmp_path / "two", rank=1) as other:
        other.predicted("a", "reply a", choices=["x"], seconds=2.0, attempt=2)
        main.failed("c", "not yet", 3)
        other.failed("d", "broken again", 3)
    with log(tmp_path / "two", started="a third") as main:
        main.predicted("c", "reply c", choices=["x"], seconds=3.0, attempt=1)
        main.predicted("b", "reply b", choices=["x"], seconds=3.0, attempt=1)
        two = main.merge(ids)
    assert one.name == MERGED_NAME
    assert one.read_bytes() == two.read_bytes()
    assert [line.get("id") for line in lines(one)] == [None, *ids]
    assert lines(one)[1] == {"kind": "prediction", "id": "a", "prediction": "reply a", "choices": ["x"]}
    assert lines(one)[4] == {"kind": "failure", "id": "d", "error": "broken again"}
    assert "started" not in lines(one)[0]


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_half_written_line_is_dropped_wherever_it_broke_off(tmp_path: Path, kept: int) -> None:
    with log(tmp_path) as first:
        first.predicted("a", "reply a")
    path = tmp_path / "predictions.rank0.jsonl"
    whole = path.read_bytes()
    header_size = whole.index(b"\n") + 1
    path.write_bytes(whole[: header_size + kept])
    with log(tmp_path) as second:
        assert second.read().predictions == {}
        second.predicted("a", "reply a")
    assert path.read_bytes() == whole
    path.write_bytes(whole[: header_size - 1 - kept])  # even the header was not finished
    with log(tmp_path):
        pass
    assert lines(path) == [{"kind": "run", **HEADER}]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_sha256": "e" * 64}, r"data_sha256 \(d+, now e+\)"),
        ({"prompt": {"id": "uas-1", "sha256": "q" * 64}}, r"prompt\.sha256 \(p+, now q+\)"),
        ({"shuffle_options": 3}, r"shuffle_options \(None, now 3\)"),
        ({"model": {"name": "m", "revision": "s", "tokenizer_revision": "t"}}, r"model\.revision \(r, now s\)"),
        ({"decoding": {"max_new_tokens": 9, "batch_size": 2}}, r"decoding\.max_new_tokens \(8, now 9\)"),
        ({"limit": 5}, r"limit \(None, now 5\)"),
        ({"benchmark": "mmar", "limit": 5}, r"benchmark \(mmau, now mmar\); limit"),
    ],
)
def test_a_run_does_not_go_on_with_what_another_one_began(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with log(tmp_path) as first, log(tmp_path, rank=1) as other:
        other.predicted("a", "reply a")
        first.merge(["a"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(ValueError, match=rf"begun with another {named}.*[Cc]hoose another output"),
        log(tmp_path, **changes),
    ):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "predictions.rank0.jsonl").unlink()
    with pytest.raises(ValueError, match=named), log(tmp_path, **changes):  # the others know, too
        pass


def test_other_packages_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with log(tmp_path):
        pass
    with log(tmp_path, versions={"torch": "3"}):
        pass
    assert "other versions of packages" in caplog.text
    assert lines(tmp_path / "predictions.rank0.jsonl")[0]["versions"] == {"torch": "2"}


HOLDER = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from audiollm.benchmarks.questions.asking.prediction_log import PredictionLog
import json
with PredictionLog(Path(sys.argv[1]), json.loads(sys.stdin.readline()), int(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("rank", [0, 1])
def test_a_log_has_one_writer_and_the_lock_dies_with_it(tmp_path: Path, rank: int) -> None:
    with log(tmp_path):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), str(rank), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(json.dumps(HEADER) + "\n")
    holder.stdin.close()
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"predictions\.rank{rank}\.jsonl is being written by another process"),
            log(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with log(tmp_path) as mine:
        mine.predicted("a", "reply a")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"id": "a", "model_output": "x"}]\n', r"predictions\.jsonl:1 is no line of ours"),
        ("not JSON\n", r"predictions\.jsonl:1 is no JSON"),
        (json.dumps({"kind": "run", **HEADER}) + "\n\n", r"predictions\.jsonl:2 is no JSON .*delete the line"),
        (json.dumps({"kind": "run", **HEADER}) + '\n{"kind": "guess"}\n', r"predictions\.jsonl:2 is no line"),
    ],
)
def test_files_that_are_not_ours_are_left_alone(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / MERGED_NAME
    path.write_text(text)
    with pytest.raises(ValueError, match=problem), log(tmp_path):
        pass
    assert path.read_text() == text


def test_the_merged_file_alone_is_enough_to_go_on(tmp_path: Path) -> None:
    with log(tmp_path) as first:
        first.predicted("a", "reply a")
        first.failed("b", "no", 3)
        merged = first.merge(["a", "b"])
    (tmp_path / "predictions.rank0.jsonl").unlink()
    (tmp_path / ".predictions.jsonl.0a1b.tmp").write_text("of a process that was killed while merging")
    with log(tmp_path) as second:
        assert second.read().predictions.keys() == {"a"}
        second.predicted("b", "reply b")
        assert [line.get("id") for line in lines(second.merge(["a", "b"]))] == [None, "a", "b"]
    shown = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock")
    assert shown == [merged.name, "predictions.rank0.jsonl"]


def test_rank_0_holds_its_log_while_it_checks_the_others_and_writes_nothing_if_they_refuse(tmp_path: Path) -> None:
    with log(tmp_path, rank=1, limit=3):
        pass
    own = tmp_path / "predictions.rank0.jsonl"
    held: list[bool] = []

    class Watched(PredictionLog):
        def _check_all(self) -> None:
            try:
                with locked_file(own):
                    held.append(False)
            except FileInUseError:
                held.append(True)
            super()._check_all()

    with pytest.raises(ValueError, match=r"rank1\.jsonl was begun with another limit \(3, now None\)"):
        Watched(tmp_path, HEADER).__enter__()
    assert held == [True]
    assert own.read_bytes() == b""
    with log(tmp_path, limit=3):
        pass
