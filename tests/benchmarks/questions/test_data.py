"""Reading and checking the data of MMAU, MMAR and MMSU as they are published, and scoring against them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from huggingface_hub.errors import LocalEntryNotFoundError

from audiollm.benchmarks.questions.base import MODES, LoadedQuestions
from audiollm.benchmarks.questions.checking import check_questions, require_usable
from audiollm.benchmarks.questions.data import load_questions
from audiollm.benchmarks.questions.exporting import export_replies
from audiollm.benchmarks.questions.grading.scoring import score_file
from audiollm.benchmarks.questions.registry import benchmark_named
from audiollm.cli import main

pa = pytest.importorskip("pyarrow")
GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden"
Record = dict[str, Any]


def questions(name: str, number: int = 6) -> list[Record]:
    """Golden questions without their replies."""
    path = next((GOLDEN / name).glob("predictions.json*"))
    text = path.read_text(encoding="utf-8")
    records = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]
    key = benchmark_named(name).prediction_key
    return [{field: value for field, value in record.items() if field != key} for record in records[:number]]


def wav_bytes(seconds: float = 0.1, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, np.full((int(16000 * seconds), channels), 0.1, np.float32), 16000, format="WAV")
    return buffer.getvalue()


def data_folder(name: str, folder: Path, records: Sequence[Record] | None = None) -> Path:
    """A local copy in the published layout: a file of questions beside its recordings."""
    benchmark = benchmark_named(name)
    records = questions(name) if records is None else records
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / record[benchmark.audio_key]).write_bytes(wav_bytes())
    path = folder / Path(benchmark.file_names[0]).name
    lines = "\n".join(json.dumps(record) for record in records)
    path.write_text(json.dumps(records) if path.suffix == ".json" else lines + "\n", encoding="utf-8")
    return folder


def parquet_folder(name: str, folder: Path, records: Sequence[Record]) -> Path:
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**record, "audio": {"bytes": wav_bytes(), "path": "x.wav"}} for record in records]
    for part in (0, 1):
        table = pa.Table.from_pylist(rows[part::2] if part else rows[::2])
        pyarrow.parquet.write_table(table, folder / f"train-{part:05d}.parquet")
    return folder


def facts(loaded: LoadedQuestions) -> list[tuple[Any, ...]]:
    return [(item.id, item.question, item.choices, item.answer, dict(item.groups)) for item in loaded.items]


@pytest.mark.parametrize("name", ["mmau", "mmar", "mmsu"])
def test_questions_are_read_from_their_folder_their_file_or_parquet(name: str, tmp_path: Path) -> None:
    benchmark = benchmark_named(name)
    folder = data_folder(name, tmp_path / "local")
    loaded = load_questions(benchmark, str(folder))
    records = questions(name)
    assert [item.id for item in loaded.items] == [record["id"] for record in records]
    assert all(Path(str(item.audio)).is_absolute() and Path(str(item.audio)).is_file() for item in loaded.items)
    file = next(path for path in folder.iterdir() if path.is_file())
    assert facts(load_questions(benchmark, str(file))) == facts(loaded)
    packed = load_questions(benchmark, str(parquet_folder(name, tmp_path / "packed", records)))
    assert sorted(facts(packed), key=str) == sorted(facts(loaded), key=str)
    assert all(item.audio == wav_bytes() for item in packed.items)
    silent = load_questions(benchmark, str(tmp_path / "packed"), with_audio=False)
    assert silent.revision == packed.revision
    assert all(item.audio == b"" for item in silent.items)


def test_parquet_files_of_mmsu_go_before_its_folder_of_recordings(tmp_path: Path) -> None:
    records = questions("mmsu")
    data_folder("mmsu", tmp_path, records[:2])
    parquet_folder("mmsu", tmp_path / "data", records)
    assert len(load_questions(benchmark_named("mmsu"), str(tmp_path)).items) == len(records)
    parquet_folder("mmau", tmp_path / "data", questions("mmau"))
    data_folder("mmau", tmp_path, questions("mmau", 2))
    assert len(load_questions(benchmark_named("mmau"), str(tmp_path)).items) == 2


def test_both_names_of_the_mmar_file_are_read(tmp_path: Path) -> None:
    folder = data_folder("mmar", tmp_path)
    loaded = load_questions(benchmark_named("mmar"), str(folder))
    (folder / "MMAR-meta.jsonl").unlink()
    (folder / "MMAR-meta.json").write_text(json.dumps(questions("mmar")))
    assert facts(load_questions(benchmark_named("mmar"), str(folder))) == facts(loaded)


def test_letters_before_options_are_cut_where_all_have_them(tmp_path: Path) -> None:
    records = questions("mmau", 2)
    plain = [list(record["choices"]) for record in records]
    answer = records[0]["answer"]
    position = plain[0].index(answer)
    for record in records:
        record["choices"] = [f"({'ABCD'[place]}) {choice}" for place, choice in enumerate(record["choices"])]
    records[0]["answer"] = records[0]["choices"][position]
    records[1]["choices"][0] = plain[1][0]
    loaded = load_questions(benchmark_named("mmau"), str(data_folder("mmau", tmp_path, records)))
    assert loaded.items[0].choices == tuple(plain[0])
    assert loaded.items[0].answer == answer
    assert loaded.items[1].choices == tuple(records[1]["choices"])


def test_missing_mmsu_options_keep_their_letters_and_the_text_none_is_an_option(tmp_path: Path) -> None:
    records = questions("mmsu", 2)
    records[0] |= {"choice_a": None, "choice_b": "yes", "choice_c": None, "choice_d": "None", "answer_gt": "None"}
    item = load_questions(benchmark_named("mmsu"), str(data_folder("mmsu", tmp_path, records))).items[0]
    assert item.choices == (None, "yes", None, "None")
    assert item.letters == ("B", "D")


def test_a_known_version_is_recognised_and_another_one_warned_of_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    benchmark = benchmark_named("mmau")
    folder = str(data_folder("mmau", tmp_path))
    loaded = load_questions(benchmark, folder)
    report = check_questions(benchmark, loaded)
    with caplog.at_level(logging.WARNING):
        require_usable(benchmark, loaded, report)
    assert loaded.revision.sha256 in caplog.text
    assert "9f18fda99f8dbc2b" in caplog.text
    with pytest.raises(ValueError, match="not a known version"):
        require_usable(benchmark, loaded, report, require_known_data=True)
    monkeypatch.setattr(type(benchmark), "known_revisions", {loaded.revision.sha256[:16]: "ours"})
    known = load_questions(benchmark, folder)
    assert known.revision.name == "ours"
    require_usable(benchmark, known, report, require_known_data=True)


def test_checking_names_every_recording_that_cannot_be_used(tmp_path: Path) -> None:
    benchmark = benchmark_named("mmar")
    folder = data_folder("mmar", tmp_path)
    records = questions("mmar")
    paths = [folder / record["audio_path"] for record in records]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(b"not audio at all")
    paths[3].write_bytes(wav_bytes(seconds=0.0))
    paths[4].write_bytes(wav_bytes(seconds=31.0, channels=2))
    loaded = load_questions(benchmark, str(folder))
    report = check_questions(benchmark, loaded)
    assert set(report["audio_problems"]) == {record["id"] for record in records[:4]}
    assert report["durations"]["n_above_30_s"] == 1
    assert report["channels"] == {"1": 1, "2": 1}
    assert report["n_items"] == report["n_audio_checked"] == 6
    assert report["groups"]["modality"] == {
        value: sum(record["modality"] == value for record in records)
        for value in dict.fromkeys(record["modality"] for record in records)
    }
    with pytest.raises(ValueError, match=f"4 of 6 recordings cannot be used: {records[0]['id']}"):
        require_usable(benchmark, loaded, report)
    json.dumps(report, allow_nan=False)


def test_recordings_in_another_folder_are_found_by_name(tmp_path: Path) -> None:
    folder = data_folder("mmau", tmp_path)
    (folder / "audio").rename(folder / "test-mini-audios")
    loaded = load_questions(benchmark_named("mmau"), str(folder))
    assert all(Path(str(item.audio)).is_file() for item in loaded.items)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("choices", ["only"], "two options"), ("choices", None, "choices is null"), ("answer", 3, "answer is a number")],
)
def test_a_question_that_cannot_be_asked_is_named(field: str, value: Any, message: str, tmp_path: Path) -> None:
    records = questions("mmau", 3)
    records[1][field] = value
    with pytest.raises(ValueError, match=rf"{records[1]['id']}.*{message}"):
        load_questions(benchmark_named("mmau"), str(data_folder("mmau", tmp_path, records)))


def test_data_that_are_not_there_say_what_should_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mmau-test-mini\.json"):
        load_questions(benchmark_named("mmau"), str(tmp_path))
    with pytest.raises(OSError, match="no such file or folder"):
        load_questions(benchmark_named("mmau"), str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="benchmark='mmlu': use one of mmau"):
        benchmark_named("mmlu")


def write_log(path: Path, header: Record, lines: Sequence[Record]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"kind": "run", **header}, *lines)))
    return str(path)


def reply(record: Record, text: Any, **more: Any) -> Record:
    return {"kind": "prediction", "id": record["id"], "prediction": text, "attempt": 1, **more}


@pytest.mark.parametrize("mode", MODES)
def test_a_log_is_scored_against_its_data(mode: str, tmp_path: Path) -> None:
    benchmark = benchmark_named("mmau")
    folder, records = str(data_folder("mmau", tmp_path / "data")), questions("mmau")
    header = {
        "benchmark": "mmau",
        "data_sha256": load_questions(benchmark, folder).revision.sha256,
        "prompt": {"id": "p-1"},
    }
    lines = [reply(record, record["answer"] + " indeed", reply_cut=True) for record in reversed(records[:2])]
    lines.append(reply(records[2], records[2]["answer"], recording_cut=True))
    failures = [{"kind": "failure", "id": records[3]["id"], "error": "no answer", "attempt": 3}]
    failures += [{"kind": "failure", "id": records[0]["id"], "error": "once", "attempt": 1}]
    path = write_log(tmp_path / "predictions.jsonl", header, [*failures, *lines])
    result = score_file(benchmark, path, data=folder, mode=mode)  # type: ignore[arg-type]
    assert [item["id"] for item in result["items"]] == [record["id"] for record in records]
    assert result["n_counted"] == (3 if mode == "official" else 6)
    assert result["n_missing"] == 3
    assert result["n_failed"] == 1
    assert (result["n_replies_cut"], result["n_recordings_cut"]) == (2, 1)
    assert result["prompt"] == {"id": "p-1"}
    assert result["data"]["sha256"] == header["data_sha256"]
    with pytest.raises(ValueError, match="give them with --data"):
        score_file(benchmark, path, mode=mode)  # type: ignore[arg-type]


def test_letters_are_read_as_the_options_were_asked(tmp_path: Path) -> None:
    benchmark = benchmark_named("mmsu")
    records = questions("mmsu", 1)
    folder = str(data_folder("mmsu", tmp_path / "data", records))
    header = {
        "benchmark": "mmsu",
        "data_sha256": load_questions(benchmark, folder).revision.sha256,
        "shuffle_options": 1,
    }
    options = [records[0][f"choice_{letter}"] for letter in "abcd"]
    asked = [options[2], options[0], options[3], options[1]]
    letter = "ABCD"[asked.index(records[0]["answer_gt"])]
    path = write_log(tmp_path / "log.jsonl", header, [reply(records[0], letter, choices=asked)])
    for mode in MODES:
        assert score_file(benchmark, path, data=folder, mode=mode)["n_correct"] == 1
    path = write_log(tmp_path / "log.jsonl", header, [reply(records[0], letter, choices=[*asked[:3], "else"])])
    with pytest.raises(ValueError, match=records[0]["id"]):
        score_file(benchmark, path, data=folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "mmar"}, "replies to mmar, not mmau"),
        ({"data_sha256": "0" * 64}, "answers other data"),
    ],
)
def test_a_log_of_other_data_is_refused(change: Record, message: str, tmp_path: Path) -> None:
    benchmark = benchmark_named("mmau")
    folder, records = str(data_folder("mmau", tmp_path / "data")), questions("mmau")
    header = {"benchmark": "mmau", "data_sha256": load_questions(benchmark, folder).revision.sha256}
    path = write_log(tmp_path / "log.jsonl", header | change, [reply(records[0], "x")])
    with pytest.raises(ValueError, match=message):
        score_file(benchmark, path, data=folder)


def test_unknown_and_repeated_ids_of_a_log_are_named(tmp_path: Path) -> None:
    benchmark = benchmark_named("mmau")
    folder, records = str(data_folder("mmau", tmp_path / "data")), questions("mmau")
    header = {"benchmark": "mmau", "data_sha256": load_questions(benchmark, folder).revision.sha256}
    unknown = {"kind": "prediction", "id": "stranger", "prediction": "x"}
    with pytest.raises(ValueError, match="stranger is not in the data"):
        score_file(benchmark, write_log(tmp_path / "a.jsonl", header, [unknown]), data=folder)
    twice = [reply(records[0], "x"), reply(records[0], "y")]
    with pytest.raises(ValueError, match=f"{records[0]['id']} occurs more than once"):
        score_file(benchmark, write_log(tmp_path / "b.jsonl", header, twice), data=folder)
    headless = tmp_path / "c.jsonl"
    headless.write_text(json.dumps(twice[0]) + "\n")
    with pytest.raises(ValueError, match="without its first line"):
        score_file(benchmark, str(headless), data=folder)


@pytest.mark.parametrize("name", ["mmau", "mmar", "mmsu"])
def test_published_predictions_are_joined_to_the_data_and_other_versions_refused(name: str, tmp_path: Path) -> None:
    benchmark = benchmark_named(name)
    folder, records = str(data_folder(name, tmp_path / "data")), questions(name)
    answer_key = "answer_gt" if name == "mmsu" else "answer"
    replies = [{**record, benchmark.prediction_key: record[answer_key]} for record in reversed(records)]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in replies[1:]))
    result = score_file(benchmark, str(path), data=folder, mode="extract")
    assert [item["id"] for item in result["items"]] == [record["id"] for record in records]
    assert result["n_missing"] == 1
    replies[2][answer_key] = "something else"
    path.write_text("".join(json.dumps(line) + "\n" for line in replies))
    with pytest.raises(ValueError, match=f"answer of item {replies[2]['id']}.*different versions"):
        score_file(benchmark, str(path), data=folder)


def test_mmar_replies_may_name_the_recording_in_place_of_the_question(tmp_path: Path) -> None:
    benchmark = benchmark_named("mmar")
    records = questions("mmar", 2)
    records[0]["id"] = "a name of its own"
    folder = str(data_folder("mmar", tmp_path / "data", records))
    lines = [{"id": Path(record["audio_path"]).stem, "answer_prediction": record["answer"]} for record in records]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score_file(benchmark, str(path), data=folder)
    assert [item["id"] for item in result["items"]] == ["a name of its own", records[1]["id"]]
    assert result["n_missing"] == 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mmau", "mmar", "mmsu"])
def test_exported_replies_are_scored_as_the_log_is(name: str, packed: bool, tmp_path: Path) -> None:
    benchmark = benchmark_named(name)
    records = questions(name)
    folder = parquet_folder(name, tmp_path / "data", records) if packed else data_folder(name, tmp_path / "data")
    loaded = load_questions(benchmark, str(folder))
    header = {"benchmark": name, "data_sha256": loaded.revision.sha256, "limit": 5}
    lines = []
    for number, item in enumerate(loaded.items[:4]):
        options = tuple(reversed(item.choices)) if number % 2 else item.choices
        text = "ABCD"[options.index(item.answer)] if name == "mmsu" else item.answer
        given = "B" if number == 3 else f"{text} \ud83d"
        lines.append({"kind": "prediction", "id": item.id, "prediction": given, "choices": options})
    path = write_log(tmp_path / "predictions.jsonl", header, lines)
    own = score_file(benchmark, path, data=str(folder))
    for ending in (".json", ".jsonl"):
        output = tmp_path / f"theirs{ending}"
        main(["bench", name, "export", "--predictions", path, "--data", str(folder), "--output", str(output)])
        theirs = score_file(benchmark, str(output))
        for fact in ("items", "n_items", "n_counted", "n_correct", "table"):
            assert theirs[fact] == own[fact]
        text = output.read_text(encoding="utf-8")
        first = json.loads(text)[0] if ending == ".json" else json.loads(text.split("\n")[0])
        published = next(record for record in records if record["id"] == first["id"])
        assert published.items() <= {key: value for key, value in first.items() if key in published}.items()


def test_an_export_needs_the_data_that_were_asked_and_a_known_ending(tmp_path: Path) -> None:
    benchmark, folder = benchmark_named("mmau"), str(data_folder("mmau", tmp_path / "data"))
    path = write_log(tmp_path / "predictions.jsonl", {"benchmark": "mmau", "data_sha256": "f" * 64}, [])
    with pytest.raises(ValueError, match="answers other data"):
        export_replies(benchmark, path, folder, tmp_path / "out.json")
    with pytest.raises(ValueError, match=r"end the name in \.json or \.jsonl"):
        export_replies(benchmark, path, folder, tmp_path / "out.txt")
    assert not list(tmp_path.glob("out*"))


def test_questions_that_the_hub_does_not_give_are_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options)
        raise LocalEntryNotFoundError("it is not here")

    monkeypatch.setattr("audiollm.tokenizer.checkpoints.folders.snapshot_download", download)
    with pytest.raises(OSError, match=r"nobody/none is neither a folder here nor a data set on the Hub: .* local copy"):
        load_questions(benchmark_named("mmsu"), "nobody/none")
    assert asked == {"repo_type": "dataset", "allow_patterns": ["*.parquet"]}
    with pytest.raises(FileNotFoundError, match="no such file or folder with the questions of MMAU"):
        load_questions(benchmark_named("mmau"), "./none")
