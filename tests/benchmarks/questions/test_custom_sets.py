"""Sets of questions about one's own clips, in the layouts of MMAU, MMAR and MMSU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.benchmarks.questions.checking import check_questions
from audiollm.benchmarks.questions.custom_sets import write_question_set
from audiollm.benchmarks.questions.data import check_revision, load_questions
from audiollm.benchmarks.questions.grading.scoring import score_file
from audiollm.benchmarks.questions.registry import BENCHMARKS, benchmark_named
from audiollm.cli import main
from audiollm.data.audio.opening import AudioError


def speech(text: str, gender: str) -> dict[str, Any]:
    return {"linguistic_content": text, "vocal_attributes": {"gender": gender, "age": "adult"}}


def sound(label: str) -> dict[str, Any]:
    return {"linguistic_content": None, "auditory_scenes": {"events": [{"type": "transient", "label": label}]}}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Records of two speakers, a bird, some music and speech over music; each with a recording of its own."""
    saps = {
        "ann": ("speech", speech("The kettle is on.", "female")),
        "bob": ("speech", speech("Nobody came.", "male")),
        "bird": ("sound", sound("bird")),
        "band": ("music", sound("music")),
        "both": ("mix", sound("music") | speech("Dance with me.", "male")),
    }
    records = []
    for number, (name, (sound_type, sap)) in enumerate(saps.items()):
        sf.write(tmp_path / f"{name}.flac", np.full(800 + number, 0.1), 8000)
        split = {"ann": "test", "bird": "dev"}.get(name, "train")
        records.append({"id": name, "audio": f"{name}.flac", "sap": sap, "sound_type": sound_type, "split": split})
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_set_is_usable_and_its_answers_are_right(name: str, clips: Path, tmp_path: Path) -> None:
    benchmark = benchmark_named(name)
    report = write_question_set(benchmark, clips, tmp_path / "set")
    loaded = load_questions(benchmark, str(tmp_path / "set"))
    checked = check_questions(benchmark, loaded)
    assert (checked["n_audio_problems"], loaded.problems) == (0, [])
    assert len(loaded.items) == sum(report.records.values())
    assert loaded.revision.is_custom_set
    assert (checked["known_as"], checked["own_set"], checked["problems"]) == (None, True, [])
    with pytest.raises(ValueError, match="a set of one's own"):
        check_revision(benchmark, loaded, require_known_data=True)
    asked_about = {item.id.partition("/")[0] for item in loaded.items}
    assert asked_about == ({"ann", "bob"} if name == "mmsu" else {"ann", "bob", "bird", "band"})
    lengths = {item.id.partition("/")[0]: len(sf.read(str(item.audio))[0]) for item in loaded.items}
    assert lengths.items() <= {"ann": 800, "bob": 801, "bird": 802, "band": 803}.items()
    lines = [{"kind": "run", "benchmark": name, "data_sha256": loaded.revision.sha256}]
    for item in loaded.items:
        letter = "ABCD"[item.choices.index(item.answer)]
        lines.append(
            {"kind": "prediction", "id": item.id, "prediction": letter if name == "mmsu" else item.answer,
             "choices": list(item.choices)}
        )  # fmt: skip
    log = tmp_path / "predictions.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score_file(benchmark, str(log), data=str(tmp_path / "set"))
    assert result["accuracy"] == 1
    assert result["data"]["own_set"]


def test_a_recording_asked_about_twice_does_not_name_a_question(clips: Path, tmp_path: Path) -> None:
    benchmark = benchmark_named("mmar")
    write_question_set(benchmark, clips, tmp_path / "set")
    assert load_questions(benchmark, str(tmp_path / "set")).aliases == {}


def test_questions_follow_the_seed_and_are_those_of_a_split(clips: Path, tmp_path: Path) -> None:
    benchmark = benchmark_named("mmau")
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_question_set(benchmark, clips, tmp_path / folder, seed=seed)
    first, again, other = ((tmp_path / folder / benchmark.file_names[0]).read_bytes() for folder in "abc")
    assert first == again != other
    main(["bench", "mmau", "make", "--data", str(clips), "--output-dir", str(tmp_path / "d"), "--split", "test"])
    asked = {item.id.partition("/")[0] for item in load_questions(benchmark, str(tmp_path / "d")).items}
    assert asked == {"ann"}


def test_what_cannot_be_made_is_refused(clips: Path, tmp_path: Path) -> None:
    benchmark = benchmark_named("mmar")
    write_question_set(benchmark, clips, tmp_path / "set")
    before = (tmp_path / "set" / "MMAR-meta.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match="choose another output"):
        write_question_set(benchmark, clips, tmp_path / "set", seed=1)
    assert (tmp_path / "set" / "MMAR-meta.jsonl").read_bytes() == before
    coded = tmp_path / "coded.jsonl"
    coded.write_text(json.dumps({"id": "x", "codes": [1, 2], "sap": sound("bird"), "sound_type": "sound"}) + "\n")
    with pytest.raises(ValueError, match="codes in place of a recording"):
        write_question_set(benchmark, coded, tmp_path / "other")
    with pytest.raises(ValueError, match="MMSU has no such questions"):
        write_question_set(benchmark_named("mmsu"), clips, tmp_path / "none", split="dev")
    (tmp_path / "ann.flac").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"ann\.flac"):
        write_question_set(benchmark, clips, tmp_path / "broken")
