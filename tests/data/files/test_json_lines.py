"""JSON lines: read, written whole, or grown by runs that are stopped and go on."""

import json

import pytest

from audiollm.data.files.json_lines import (
    AppendOnlyLog,
    append_line,
    check_same_run,
    json_line,
    read_json_lines,
    write_json_lines,
)


def test_what_is_written_is_read_again(tmp_path):
    records = [{"text": "é\u2028ü", "n": 1}, {"half": "\ud83d", "whole": "ä"}, {}]
    path = tmp_path / "made" / "a.jsonl"
    write_json_lines(path, records)
    assert list(read_json_lines(path)) == records
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == '{"text": "é\u2028ü", "n": 1}'.encode()
    assert lines[1] == b'{"half": "\\ud83d", "whole": "\\u00e4"}'
    write_json_lines(path, records, ensure_ascii=True)
    assert list(read_json_lines(path)) == records
    assert path.read_bytes().isascii()


def test_an_error_while_records_are_made_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_json_lines(path, [{"a": 1}])

    def records():
        yield {"a": 2}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_json_lines(path, records())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_lines(path, [{"a": float("nan")}], allow_nan=False)
    assert list(read_json_lines(path)) == [{"a": 1}]


def test_damaged_lines_are_named_and_an_unfinished_one_may_be_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n{"a": ')
    with pytest.raises(ValueError, match=r"a\.jsonl: line 4 is not JSON"):
        list(read_json_lines(path))
    problems = []
    assert list(read_json_lines(path, problems=problems)) == [{"a": 1}, {"a": 2}]
    assert [problem.partition(": ")[2] for problem in problems] == [
        "line 2 is blank and left out",
        "line 4, the last, is unfinished and left out",
    ]
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(ValueError, match=r"line 2 is a JSON list, not an object"):
        list(read_json_lines(path, problems=[]))


def _log(path, **header):
    return AppendOnlyLog(path, header, header_kind="run", kinds=["answer"], may_differ=["started"])


def test_a_log_goes_on_where_a_killed_process_left_it(tmp_path):
    path = tmp_path / "made" / "log.jsonl"
    with _log(path, model={"name": "a"}, seeds=(1, 2), started=1) as log:
        log.append({"kind": "answer", "id": 1})
        with pytest.raises(ValueError, match=r"log\.jsonl is being written by another process"), _log(path):
            pass
    with path.open("ab") as file:
        file.write(b'{"kind": "ans')
    before = path.read_bytes()
    with _log(path, model={"name": "a"}, seeds=(1, 2), started=2) as log:
        assert [line.get("id") for line in log.read()] == [None, 1]
        log.append({"kind": "answer", "id": 2})
    assert path.read_bytes() == before.removesuffix(b'{"kind": "ans') + b'{"kind": "answer", "id": 2}\n'
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".log.jsonl.lock", "log.jsonl"]
    with pytest.raises(ValueError, match=r"begun with another model\.name \(a, now b\); choose"):
        _log(path, model={"name": "b"}, seeds=(1, 2)).__enter__()
    path.write_text('{"kind": "run", "n": 1}\n{"kind": "other"}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:2 is no line of ours \(answer\)"):
        _log(path, n=1).__enter__()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".log.jsonl.lock", "log.jsonl"]


def test_an_output_belongs_to_one_run(tmp_path):
    path = tmp_path / "run" / "identity.json"
    identity = {"model": "a", "seeds": (1, 2), "at": "noon"}
    assert not check_same_run(path, identity)
    assert json.loads(path.read_text()) == {"model": "a", "seeds": [1, 2], "at": "noon"}
    assert check_same_run(path, identity | {"at": "night"}, may_differ=["at"])
    with pytest.raises(ValueError, match=r"out was begun with another x \(None, now 1\); model \(a, now None\); stop"):
        check_same_run(path, {"seeds": [1, 2], "at": "noon", "x": 1}, output="out", otherwise="stop")


def test_a_line_holds_what_json_cannot_by_way_of_a_default():
    assert json_line({"a": {1}}, default=sorted) == '{"a": [1]}\n'
    with pytest.raises(TypeError):
        json_line({"a": {1}})


def test_a_line_that_is_appended_is_there_at_once_or_not_at_all(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("ab") as file:
        append_line(file, {"a": "ü"})
        assert path.read_text(encoding="utf-8") == '{"a": "ü"}\n'
        with pytest.raises(ValueError, match="not JSON compliant"):
            append_line(file, {"a": float("nan")}, allow_nan=False)
    assert path.read_text(encoding="utf-8") == '{"a": "ü"}\n'
