"""The commands on labels, from clips to scores."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.cli import main

SAP = {
    "linguistic_content": None,
    "vocal_attributes": {"gender": "female", "age": "adult"},
    "auditory_scenes": {"summary": "A bell rings.", "events": [{"class": "bell", "type": "transient"}]},
}


def answer(request: dict[str, Any]) -> str:
    if len(request["messages"]) == 1:
        return "A woman speaks while a bell rings."
    return json.dumps(SAP | {"linguistic_content": "hello there"})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = []
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 16000), 16000)
        lines.append({"id": f"c{number}", "audio": f"{number}.wav", "text": "hello there"})
    lines.append({"id": "c3", "audio": "0.wav", "label": "bird"})
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_models_label_people_check_and_predictions_are_scored(
    corpus: Path, chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.answer = answer
    output = tmp_path / "labels.jsonl"
    endpoints = ["--structurer", chat_server.url, "--captioner", chat_server.url, "--captioner-prices", "[1, 2]"]
    main(["label", str(corpus), str(output), *endpoints, "--audit", "2", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (report["records"], report["rejected"]) == (3, 1)  # nobody says "hello there" in the last one
    assert report["cost"] == pytest.approx((4 * 100 * 1 + 4 * 10 * 2) / 1e6)
    assert [record["sap"]["vocal_attributes"]["gender"] for record in read(output)] == ["female"] * 3

    sheet = tmp_path / "labels_audit" / "audit.csv"
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    rows[0]["gender_verdict"], rows[1]["gender_verdict"] = "right", "wrong"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    main(["audit-verdicts", str(sheet), "--json"])
    assert json.loads(capsys.readouterr().out)["gender"]["share"] == 0.5
    main(["audit-verdicts", str(sheet)])
    assert "50.0% right of 2" in capsys.readouterr().out

    predictions, scores = tmp_path / "predictions.jsonl", tmp_path / "scores.json"
    said = SAP | {"linguistic_content": "hello where"}
    predictions.write_text(json.dumps({"id": "c0", "prediction": json.dumps(said)}) + "\n")
    chat_server.answer = lambda request: "4"
    main(["score-sap", str(predictions), str(output), "--judge", chat_server.url, "--output", str(scores), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["wer"] == round(5 / 6, 4)
    assert shown["missing"] == 2
    assert shown["scene_rating"] == 2  # 4 for one, 1 for each of two that say nothing
    assert shown["judge"]["model"] == "tiny"
    assert len(json.loads(scores.read_text())["items"]) == 3
    main(["score-sap", str(predictions), str(output)])
    assert "gender accuracy" in capsys.readouterr().out


def test_rules_label_without_a_model(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "labels.jsonl"
    main(["label", str(corpus), str(output)])
    assert "4 records" in capsys.readouterr().out
    records = read(output)
    assert [record["sound_type"] for record in records] == ["speech"] * 3 + ["sound"]
    assert records[3]["sap"]["auditory_scenes"]["events"]
    assert "exists already" in fails(["label", str(corpus), str(output)], capsys)
    main(["label", str(corpus), str(output), "--overwrite", "--rules", "default", "--json"])
    assert json.loads(capsys.readouterr().out)["records"] == {"speech": 3, "sound": 1}


def test_options_that_do_not_go_together_are_named(
    corpus: Path, chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["label", str(corpus), str(tmp_path / "out.jsonl")]
    for options, reason in (
        (["--captioner", chat_server.url], "--captioner needs --structurer"),
        (["--num-shards", "2"], "--num-shards is for models"),
        (["--max-asks", "3"], "--max-asks needs --structurer"),
        (["--timeout-seconds", "5"], "--timeout-seconds needs --structurer"),
        (["--structurer-prices", "[1,2]"], "--structurer-prices needs --structurer"),
        (["--structurer", chat_server.url, "--captioner-key", "KEY"], "--captioner-key needs --captioner"),
        (["--structurer", chat_server.url, "--rules", "default"], "--rules or --structurer"),
        (["--structurer", "localhost"], "no chat model"),
        (["--structurer", chat_server.url, "--structurer-key", "NO_SUCH"], "NO_SUCH is not set"),
        (["--rules", "nowhere"], "no rules for 'nowhere'"),
    ):
        assert reason in fails([*command, *options], capsys)
    assert not (tmp_path / "out.jsonl").exists()


FILLED_IN = "id,gender_verdict\nc0,right\n"


@pytest.mark.parametrize("name", ["audit.csv", "audit.html"])
def test_sheets_that_people_filled_in_stay_unless_they_are_given_up(
    corpus: Path, chat_server: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, sheets = tmp_path / "labels.jsonl", tmp_path / "labels_audit"
    main(["label", str(corpus), str(output)])
    sheets.mkdir()
    (sheets / name).write_text(FILLED_IN)
    output.rename(tmp_path / "kept.jsonl")
    refused = (
        ["audit-labels", str(tmp_path / "kept.jsonl"), str(sheets)],
        ["label", str(corpus), str(output), "--audit", "2"],
        # Before the models are asked, which may be paid: an unset key would be noticed when they are opened.
        [
            "label",
            str(corpus),
            str(output),
            "--audit",
            "2",
            "--structurer",
            "http://h/v1",
            "--structurer-key",
            "NO_SUCH",
        ],
    )
    for command in refused:
        assert f"{sheets / name} exists already" in fails(command, capsys)
    assert (sheets / name).read_text() == FILLED_IN
    assert not output.exists()
    main(["audit-labels", str(tmp_path / "kept.jsonl"), str(sheets), "--overwrite"])
    assert (sheets / name).read_text() != FILLED_IN


def test_the_channel_that_models_hear_is_chosen_and_part_of_the_run(
    chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The left channel is silent, so what is sent tells which one was heard."""
    samples = np.zeros((16000, 2))
    samples[:, 1] = np.random.default_rng(0).normal(0, 0.1, 16000)
    sf.write(tmp_path / "clip.wav", samples, 16000)
    source, output = tmp_path / "clips.jsonl", tmp_path / "labels.jsonl"
    source.write_text(json.dumps({"id": "c", "audio": "clip.wav", "text": "hello there"}) + "\n")
    heard: list[float] = []

    def listen(request: dict[str, Any]) -> str:
        for part in request["messages"][0]["content"]:
            if isinstance(part, dict) and part["type"] == "input_audio":
                waveform, _ = sf.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])))
                heard.append(float(abs(waveform).max()))
        return answer(request)

    chat_server.answer = listen
    models = ["--structurer", chat_server.url, "--captioner", chat_server.url, "--overwrite", "--json"]
    for mono in ([], ["--mono", "mean"], ["--mono", "first"]):
        main(["label", str(source), str(output), *models, *mono])
    assert heard[0] == heard[1] > 0 == heard[2]
    assert json.loads(Path(f"{output}.report.json").read_text())["facts"]["mono"] == "first"
    assert "--mono needs --structurer" in fails(["label", str(source), str(output), "--mono", "mean"], capsys)


def test_scores_that_are_there_are_not_replaced_unasked(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, scores = tmp_path / "labels.jsonl", tmp_path / "scores.json"
    main(["label", str(corpus), str(labels)])
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text(json.dumps({"id": "c0", "prediction": json.dumps(SAP)}) + "\n")
    scores.write_text("kept")
    command = ["score-sap", str(predictions), str(labels), "--output", str(scores)]
    assert "exists already" in fails(command, capsys)
    assert scores.read_text() == "kept"
    main([*command, "--overwrite"])
    assert json.loads(scores.read_text())
