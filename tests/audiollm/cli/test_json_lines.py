"""What files of JSON lines hold beside their records, in every command that reads them: read right, or named."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiollm.cli import main
from audiollm.data.conversation.loading import load_conversations

SAP = {"linguistic_content": "one\u2028two", "vocal_attributes": {"gender": "male"}}
CLIP = {"audio": "a.wav", "text": "one\u2028two", "codes": [1, 2, 3], "duration_seconds": 1.0}
LABELLED = {"audio": "a.wav", "text": "one\u2028two", "sound_type": "speech"}
TURNS = [{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "yes\u2029\x85"}]
# The record that each reads, its command line, and whether bad records are left out and counted instead of ending it.
COMMANDS: dict[str, tuple[dict[str, Any], list[str], bool]] = {
    "convert-data": (LABELLED, ["convert-data", "in.jsonl", "out.jsonl"], False),
    "tokenize": (CLIP, ["tokenize", "in.jsonl", "out.jsonl"], False),
    "inspect-data": ({"messages": TURNS}, ["inspect-data", "in.jsonl", "--index", "1"], False),
    "speech-data": (CLIP, ["speech-data", "in.jsonl", "out.jsonl"], True),
    "label": (LABELLED, ["label", "in.jsonl", "out.jsonl"], True),
    "audit-labels": ({"audio": "a.wav", "sap": SAP}, ["audit-labels", "in.jsonl", "out"], False),
    "score-sap": ({"prediction": json.dumps(SAP)}, ["score-sap", "in.jsonl", "references.jsonl"], False),
}
READ = {
    "as it should be": b"%s\n%s\n",
    "byte order mark": b"\xef\xbb\xbf%s\n%s\n",
    "no line end": b"%s\n%s",
    "carriage returns": b"%s\r\n%s\r\n",
    "empty lines": b"\n%s\n\n \t\n%s\n\n\r\n",
    "byte order mark, carriage returns, no line end": b"\xef\xbb\xbf%s\r\n\r\n%s",
}
REFUSED = {
    "half a line": (b"%s\n%.20s", 2),
    "NUL bytes for a line": (b"%s\n\0\0\0\n%s\n", 2),
    "NUL bytes at the end": (b"%s\n%s\n\0\0\0\0", 3),
    "a NUL byte inside": (b'%s\n{\0"id": 1, %s\n', 2),
    "half a line in the middle": (b"%.20s\n%s\n", 1),
    "not UTF-8": (b'%s\n{"id": "\xff", %s\n', 2),
    "two records on a line": (b"%s {}\n%s\n", 1),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(16_000) / 20), 16_000)
    references = "".join(json.dumps({"id": number, "sap": SAP}) + "\n" for number in "01")
    Path("references.jsonl").write_text(references)
    return tmp_path


def write_source(record: dict[str, Any], form: bytes) -> None:
    lines = [json.dumps({"id": number, **record}, ensure_ascii=False).encode() for number in "01"]
    Path("in.jsonl").write_bytes(form % tuple(lines))


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_stands_around_records_changes_nothing(command: str, form: str, folder: Path) -> None:
    record, arguments, _ = COMMANDS[command]
    write_source(record, READ[form])
    main(arguments)
    if "out.jsonl" in arguments:
        lines = Path("out.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
        assert len(lines) == 2
        words = "one two" if command == "label" else "one\u2028two"  # labels stand on one line
        assert words in lines[1].decode() or command == "speech-data"
    elif command == "audit-labels":
        assert Path("out/audit.csv").read_text().count("one\u2028two") == 2


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_record_is_named_with_its_line(
    command: str, form: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, arguments, leaves_out = COMMANDS[command]
    content, line = REFUSED[form]
    write_source(record, content)
    if command == "inspect-data":
        arguments = [*arguments[:-1], str(line - 1)]
    with contextlib.nullcontext() if leaves_out else pytest.raises(SystemExit, match=r"^1$"):
        main(arguments)
    out, err = capsys.readouterr()
    (told,) = re.findall(rf"[^\r\n]*in\.jsonl:{line}\b[^\r\n]*", out + err)
    assert leaves_out or "audiollm: error: " in told
    assert "is not" in told or "NUL bytes" in told
    assert "\0" not in out + err


@pytest.mark.parametrize("form", READ)
def test_conversations_to_train_on_are_read_whole(form: str, folder: Path) -> None:
    write_source({"messages": TURNS}, READ[form])
    found = load_conversations("in.jsonl", for_training=True)
    said = [[message.content[0].text for message in one.messages] for one in found]
    assert said == [["a\u2028b", "yes\u2029\x85"]] * 2


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_trained_on_is_named_with_its_line(form: str, folder: Path) -> None:
    content, line = REFUSED[form]
    write_source({"messages": TURNS}, content)
    found = load_conversations("in.jsonl", for_training=True)
    problems = [problem for index in range(len(found)) for problem in found.check(index)[1]]
    assert [problem.where for problem in problems] == [f"in.jsonl:{line}"]
