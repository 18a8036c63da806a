"""Asking the questions of a benchmark: batches, retries, failures, resumption, and runs that are killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from audiollm.benchmarks.models.base import ChatAnswer, ChatRequest
from audiollm.benchmarks.questions.asking.predicting import PredictingSettings, PredictionReport, predict_questions
from audiollm.benchmarks.questions.asking.prediction_log import PredictionLog
from audiollm.benchmarks.questions.base import LoadedQuestions, Revision
from audiollm.benchmarks.questions.items import QuestionItem
from audiollm.cli import main
from audiollm.data.chat.base import ChatError

NUM_QUESTIONS = 23


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Recordings of 0.1 to 0.6 s, each of another length, in no order."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    paths = []
    for number, length in enumerate(generator.permutation(np.linspace(800, 4800, NUM_QUESTIONS).astype(int))):
        paths.append(folder / f"clip{number}.wav")
        sf.write(paths[-1], generator.normal(0, 0.1, length), 8000)
    return paths


@pytest.fixture
def loaded(clips: list[Path]) -> LoadedQuestions:
    items = [
        QuestionItem(f"q{number}", str(path), f"Question {number}?", ("ant", "bee", "cat"), "bee", {"task": "sound"})
        for number, path in enumerate(clips)
    ]
    return LoadedQuestions(items, Revision("a" * 64))


@dataclass
class FakeModel:
    """Answers with the question's number and all it is asked together with, so that batches show."""

    reply: Callable[[str], str | ChatError | None] = lambda text: f"reply to {text.split('?')[0]}"
    concurrency: int = 1
    revision: str = "1"
    calls: list[list[str]] = field(default_factory=list)

    @property
    def decoding(self) -> Mapping[str, Any]:
        return {"max_new_tokens": 5}

    def describe(self) -> Mapping[str, str | None]:
        return {"name": "fake", "revision": self.revision, "tokenizer_revision": None}

    def answer(self, requests: Sequence[ChatRequest]) -> list[Any]:
        names = [request.text.split("?")[0].removeprefix("Question ") for request in requests]
        self.calls.append(names)
        replies = [self.reply(request.text) for request in requests]
        together = " ".join(names)
        return [
            ChatAnswer(f"{reply} with {together}" if reply.strip() else reply) if isinstance(reply, str) else reply
            for reply in replies
        ]


QUIET = {"progress": False}


def predict(loaded: LoadedQuestions, model: Any, output: Path, **settings: Any) -> PredictionReport:
    return predict_questions("mmau", loaded, model, output, PredictingSettings(**{**QUIET, **settings}))


def predictions(path: Path, kind: str = "prediction") -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line for line in lines if line["kind"] == kind}


def test_every_question_is_asked_once_among_others_of_its_length(loaded: LoadedQuestions, tmp_path: Path) -> None:
    model = FakeModel()
    report = predict(loaded, model, tmp_path, batch_size=5)
    assert (report.asked, report.answered, report.resumed, report.failures) == (NUM_QUESTIONS, NUM_QUESTIONS, 0, {})
    assert report.is_main
    assert [len(call) for call in model.calls] == [5, 5, 5, 5, 3]
    lengths = {f"{n}": len(sf.read(str(item.audio))[0]) for n, item in enumerate(loaded.items)}
    asked = [lengths[name] for call in model.calls for name in call]
    assert asked == sorted(asked, reverse=True)
    assert list(predictions(report.path)) == [item.id for item in loaded.items]
    header = json.loads(report.path.read_text().splitlines()[0])
    assert header["kind"] == "run"
    assert header["model"] == {"name": "fake", "revision": "1", "tokenizer_revision": None}
    assert header["decoding"] == {"max_new_tokens": 5, "batch_size": 5}
    assert header["prompt"]["id"] == "mmau-authors-1"
    assert header["data_sha256"] == "a" * 64


def test_a_finished_run_asks_nothing_and_writes_the_same(loaded: LoadedQuestions, tmp_path: Path) -> None:
    whole = predict(loaded, FakeModel(), tmp_path).path.read_bytes()
    model = FakeModel()
    report = predict(loaded, model, tmp_path)
    assert (model.calls, report.resumed) == ([], NUM_QUESTIONS)
    assert report.path.read_bytes() == whole


def test_the_options_are_written_down_as_they_were_asked(loaded: LoadedQuestions, tmp_path: Path) -> None:
    texts: list[str] = []

    def reply(text: str) -> str:
        texts.append(text)
        return "x"

    report = predict(loaded, FakeModel(reply), tmp_path, shuffle_options=3, prompt="uas-1", batch_size=1)
    asked = {text.split("?")[0].replace("Question ", "q"): text for text in texts}
    written = predictions(report.path)
    for question_id, text in asked.items():
        first, second, third = written[question_id]["choices"]
        assert text.endswith(f"A. {first}\nB. {second}\nC. {third}")
    assert len({tuple(line["choices"]) for line in written.values()}) == 6


def test_an_interrupted_run_ends_as_one_that_was_not(loaded: LoadedQuestions, tmp_path: Path) -> None:
    """A batch of which one answer is missing is asked whole, and only that answer is taken."""
    whole = predict(loaded, FakeModel(), tmp_path / "whole", batch_size=4).path.read_bytes()

    class Interrupted(FakeModel):
        def answer(self, requests: Sequence[ChatRequest]) -> list[Any]:
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().answer(requests)

    output = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        predict(loaded, Interrupted(), output, batch_size=4)
    log = output / "predictions.rank0.jsonl"
    text = log.read_bytes()
    assert text.count(b"\n") == 13
    log.write_bytes(text[: len(text) - 9])  # killed in the middle of a line, on top
    model = FakeModel()
    report = predict(loaded, model, output, batch_size=4)
    assert report.resumed == 11
    assert [len(call) for call in model.calls] == [4, 4, 4, 3]
    assert report.path.read_bytes() == whole
    assert Counter(line["id"] for line in map(json.loads, log.read_text().splitlines()[1:])).most_common(1)[0][1] == 1


def test_a_model_that_crashes_at_one_question_keeps_the_others(loaded: LoadedQuestions, tmp_path: Path) -> None:
    def reply(text: str) -> str:
        if "Question 7?" in text:
            raise RuntimeError("CUDA says\nno")
        return "fine"

    report = predict(loaded, FakeModel(reply), tmp_path, batch_size=4)
    assert report.failures == {"q7": "RuntimeError: CUDA says no"}
    assert report.answered == NUM_QUESTIONS - 1
    assert "q7" not in predictions(report.path)
    assert predictions(report.path, "failure")["q7"]["error"] == "RuntimeError: CUDA says no"
    logged = predictions(tmp_path / "predictions.rank0.jsonl", "failure")
    assert logged["q7"]["attempt"] == 3
    mended = predict(loaded, FakeModel(), tmp_path, batch_size=4)
    assert (mended.failures, mended.resumed) == ({}, NUM_QUESTIONS - 1)


def test_replies_that_were_cut_are_marked(loaded: LoadedQuestions, tmp_path: Path) -> None:
    answers = {
        "Question 1?": ChatAnswer("so I thi", is_cut=True),
        "Question 2?": ChatAnswer("yes", is_recording_cut=True),
        "Question 3?": ChatAnswer("", is_cut=True),
    }

    def reply(text: str) -> Any:
        return next((answer for start, answer in answers.items() if start in text), "fine")

    report = predict(loaded, FakeModel(reply), tmp_path)
    written = predictions(report.path)
    marks = {name: {id for id, line in written.items() if line.get(name)} for name in ("reply_cut", "recording_cut")}
    assert marks == {"reply_cut": {"q1"}, "recording_cut": {"q2"}}
    assert "max_new_tokens were reached" in report.failures["q3"]


@pytest.mark.parametrize("nothing", ["", " \n", None])
def test_an_empty_reply_is_asked_for_again_and_never_kept(
    loaded: LoadedQuestions, tmp_path: Path, nothing: str | None
) -> None:
    silent = FakeModel(lambda text: nothing if "Question 3?" in text else "fine")
    report = predict(loaded, silent, tmp_path)
    assert report.failures == {"q3": "the reply is empty"}
    assert sum(call == ["3"] for call in silent.calls) == 2
    assert "q3" not in predictions(report.path)
    late: list[str] = []

    def second_time(text: str) -> str:
        late.append(text)
        return "fine" if len(late) > 8 else ""  # nothing when asked with others, an answer when asked alone

    report = predict(loaded, FakeModel(second_time), tmp_path)
    assert report.failures == {}
    assert predictions(report.path)["q3"]["prediction"] == "fine with 3"
    assert predictions(tmp_path / "predictions.rank0.jsonl")["q3"]["attempt"] == 2


def test_recordings_that_cannot_be_used_are_named_and_the_model_is_not_asked(
    loaded: LoadedQuestions, tmp_path: Path
) -> None:
    empty, broken = tmp_path / "empty.wav", tmp_path / "broken.wav"
    sf.write(empty, np.zeros(0), 8000)
    broken.write_bytes(b"RIFF nothing")
    bad = [
        QuestionItem("gone", str(tmp_path / "gone.wav"), "Question a?", ("x", "y"), "x", {}),
        QuestionItem("empty", str(empty), "Question b?", ("x", "y"), "x", {}),
        QuestionItem("broken", str(broken), "Question c?", ("x", "y"), "x", {}),
        QuestionItem("bytes", b"", "Question d?", ("x", "y"), "x", {}),
    ]
    model = FakeModel()
    more = LoadedQuestions([*bad, *loaded.items], loaded.revision)
    report = predict(more, model, tmp_path / "run", max_failures=1)
    assert report.failures.keys() == {"gone", "empty", "broken", "bytes"}
    assert "gone.wav" in report.failures["gone"]
    assert "no samples" in report.failures["empty"]
    assert not {"a", "b", "c", "d"} & {name for call in model.calls for name in call}
    assert report.answered == NUM_QUESTIONS


def test_a_model_that_no_longer_answers_stops_the_run_and_what_is_done_is_kept(
    loaded: LoadedQuestions, tmp_path: Path
) -> None:
    calls: list[str] = []

    def dying(text: str) -> str:
        calls.append(text)
        if len(calls) > 8:
            raise RuntimeError("out of memory")
        return "fine"

    with pytest.raises(ChatError, match=r"last 5 questions all failed.*out of memory.*run the same command again"):
        predict(loaded, FakeModel(dying), tmp_path, batch_size=4, max_failures=5)
    report = predict(loaded, FakeModel(), tmp_path, batch_size=4)
    assert (report.resumed, report.failures) == (8, {})


@pytest.mark.parametrize("is_raised", [False, True])
def test_an_error_that_concerns_all_requests_stops_at_once(
    loaded: LoadedQuestions, tmp_path: Path, is_raised: bool
) -> None:
    def refuse(text: str) -> ChatError:
        error = ChatError("the key is wrong", fatal=True)
        if is_raised:
            raise error
        return error

    model = FakeModel(refuse)
    with pytest.raises(ChatError, match="the key is wrong"):
        predict(loaded, model, tmp_path)
    assert len(model.calls) == 1


def test_a_model_that_loses_count_is_not_believed(loaded: LoadedQuestions, tmp_path: Path) -> None:
    class Confused(FakeModel):
        def answer(self, requests: Sequence[ChatRequest]) -> list[Any]:
            return super().answer(requests)[: 1 if len(requests) > 1 else None]

    report = predict(loaded, Confused(), tmp_path)
    assert report.failures == {}
    assert {line["prediction"].split(" with ")[1] for line in predictions(report.path).values()} == {
        f"{number}" for number in range(NUM_QUESTIONS)
    }


def test_several_questions_are_under_way_where_a_model_allows_it(loaded: LoadedQuestions, tmp_path: Path) -> None:
    meeting = threading.Barrier(4, timeout=20)

    def reply(text: str) -> str:
        if int(text.split("?")[0].removeprefix("Question ")) < 20:
            meeting.wait()  # four must be here at once
        return "fine"

    model = FakeModel(reply, concurrency=4)
    order = {item.id: number for number, item in enumerate(loaded.items)}
    twenty = LoadedQuestions(loaded.items[:20], loaded.revision)
    report = predict(twenty, model, tmp_path)
    assert report.failures == {}
    assert all(len(call) == 1 for call in model.calls)
    assert [order[name] for name in predictions(report.path)] == list(range(20))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt": "uas-1"}, "prompt.id"),
        ({"shuffle_options": 1}, "shuffle_options"),
        ({"batch_size": 3}, "decoding.batch_size"),
        ({"limit": 4}, "limit"),
    ],
)
def test_changed_settings_are_refused(
    loaded: LoadedQuestions, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    path = predict(loaded, FakeModel(), tmp_path).path
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=f"begun with another {named}"):
        predict(loaded, FakeModel(), tmp_path, **changes)
    with pytest.raises(ValueError, match=r"model\.revision \(1, now 2\)"):
        predict(loaded, FakeModel(revision="2"), tmp_path)
    with pytest.raises(ValueError, match="data_sha256"):
        predict(LoadedQuestions(loaded.items, Revision("b" * 64)), FakeModel(), tmp_path)
    assert path.read_bytes() == whole


def test_two_runs_on_one_output_are_refused(loaded: LoadedQuestions, tmp_path: Path) -> None:
    predict(loaded, FakeModel(), tmp_path)
    header = json.loads((tmp_path / "predictions.rank0.jsonl").read_text().splitlines()[0])
    with PredictionLog(tmp_path, header), pytest.raises(ValueError, match="being written by another process"):
        predict(loaded, FakeModel(), tmp_path)


def test_questions_that_cannot_be_kept_apart_are_refused(loaded: LoadedQuestions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two questions have the id 'q0'"):
        predict(LoadedQuestions([*loaded.items, loaded.items[0]], loaded.revision), FakeModel(), tmp_path)
    with pytest.raises(ValueError, match="no questions to ask"):
        predict(LoadedQuestions([], loaded.revision), FakeModel(), tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        PredictingSettings(batch_size=0)
    assert not list(tmp_path.iterdir())


# Whole runs: data as published, through the command


def write_mmau(folder: Path, clips: list[Path]) -> Path:
    """A set in the layout of MMAU test-mini; returns what ``--data`` takes."""
    (folder / "test-mini-audios").mkdir(parents=True)
    items = []
    for number, clip in enumerate(clips):
        name = f"0000-{number}"
        (folder / "test-mini-audios" / f"{name}.wav").write_bytes(clip.read_bytes())
        choices = ["a dog", "a cat", "a cow", "a hen"][: 4 if number % 3 else 2]
        items.append(
            {
                "id": name, "audio_id": f"./test-mini-audios/{name}.wav", "question": f"What is heard in {number}?",
                "choices": choices, "answer": choices[number % len(choices)], "dataset": "none",
                "task": ["sound", "music", "speech"][number % 3], "split": "test-mini",
                "category": ["Reasoning"] if number % 5 == 0 else "Reasoning", "sub-category": "Event",
                "difficulty": ["easy", "medium", "hard"][number % 3],
            }
        )  # fmt: skip
    (folder / "mmau-test-mini.json").write_text(json.dumps(items))
    return folder


def write_mmar(folder: Path, clips: list[Path]) -> Path:
    """A set in the layout of MMAR."""
    (folder / "audio").mkdir(parents=True)
    lines = []
    for number, clip in enumerate(clips):
        (folder / "audio" / f"clip {number}.wav").write_bytes(clip.read_bytes())
        choices = ["狗", "a cat", "", "a hen"][: 2 + number % 3]
        lines.append(
            {
                "id": f"video_{number}", "audio_path": f"./audio/clip {number}.wav", "question": f"Who is in {number}?",
                "choices": choices, "answer": choices[number % 2],
                "modality": ["speech", "sound", "music", "mix-sound-speech"][number % 4],
                "category": ["Signal Layer", "Cultural Layer"][number % 2], "sub-category": "Imagination",
                "language": "zh", "source": "youtube", "url": "", "timestamp": "",
            }
        )  # fmt: skip
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "MMAR-meta.jsonl").write_text(text, encoding="utf-8")
    return folder


def write_mmsu(folder: Path, clips: list[Path]) -> Path:
    """A set in the layout of MMSU: parquet with sound in it, options that are missing in any place."""
    rows = []
    for number, clip in enumerate(clips):
        choices: list[str | None] = ["male", "female", "None", "child"]
        if number % 4 == 1:
            choices = [None, "male", None, "female"]
        rows.append(
            {
                "id": f"item_{number}", "task_name": "gender_prediction",
                "audio": {"bytes": clip.read_bytes(), "path": f"{number}.wav"}, "question": f"Who speaks in {number}?",
                **dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), choices, strict=True)),
                "answer_gt": "male", "category": ["Perception", "Reasoning"][number % 2],
                "sub-category": "Paralinguistics", "sub-sub-category": "Speaker Traits",
                "linguistics_sub_discipline": "None",
            }
        )  # fmt: skip
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
    return folder


WRITERS = {"mmau": write_mmau, "mmar": write_mmar, "mmsu": write_mmsu}


@pytest.mark.parametrize("benchmark", list(WRITERS))
def test_a_set_in_the_published_layout_is_checked_predicted_and_scored(
    benchmark: str, clips: list[Path], audio_llm: Path, tmp_path: Path
) -> None:
    data = WRITERS[benchmark](tmp_path / "data", clips)
    output = tmp_path / "run"
    command = ["bench", benchmark, "--model", str(audio_llm), "--data", str(data), "--output-dir", str(output)]
    main([*command, "--max-new-tokens", "4", "--device", "cpu", "--shuffle-options", "5"])
    written = predictions(output / "predictions.jsonl")
    failed = predictions(output / "predictions.jsonl", "failure")
    assert len(written) + len(failed) == NUM_QUESTIONS
    assert len(written) > NUM_QUESTIONS // 2
    strict = json.loads((output / "strict.json").read_text())
    assert strict["n_items"] == strict["n_counted"] == NUM_QUESTIONS
    assert strict["n_correct"] == sum(bool(item["correct"]) for item in strict["items"])
    assert (output / "check.json").exists()


@pytest.mark.multiprocess
def test_killed_runs_on_any_number_of_processes_end_in_the_same_file(
    clips: list[Path], audio_llm: Path, tmp_path: Path
) -> None:
    data = write_mmau(tmp_path / "data", clips)
    draw = random.Random(0)
    moments = sorted(draw.sample(range(1, NUM_QUESTIONS + 2), 3))
    jobs: list[dict[str, Any]] = [{"world_size": 1, "output": "whole"}]
    jobs += [
        {"world_size": world_size, "output": "killed", "after_lines": lines, "delay": draw.random() * 0.02}
        for world_size, lines in zip((2, 1, 3), moments, strict=True)
    ]
    jobs.append({"world_size": 2, "output": "killed"})
    command = [sys.executable, str(Path(__file__).with_name("predicting_runs.py")), str(data), str(audio_llm)]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    endings = json.loads(done.stdout)
    assert (endings[0], endings[-1]) == ([0], [0, 0]), done.stderr
    assert any(-9 in codes for codes in endings), f"no run was killed in time: {endings}"
    whole, killed = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "killed"))
    assert whole == killed, moments
    assert whole.count(b"\n") == NUM_QUESTIONS + 1


def test_worked_examples_come_first_and_are_of_other_recordings(loaded: LoadedQuestions, tmp_path: Path) -> None:
    asked: list[ChatRequest] = []

    @dataclass
    class Taking(FakeModel):
        takes_examples: bool = True

        def answer(self, requests: Sequence[ChatRequest]) -> list[Any]:
            asked.extend(requests)
            return super().answer(requests)

    settings = PredictingSettings(shots=3, progress=False)
    predict_questions("mmau", loaded, Taking(), tmp_path / "run", settings, loaded)
    assert len(asked) == NUM_QUESTIONS
    for request in asked:
        assert len({one.audio for one in request.examples} | {request.audio}) == 4
        assert {one.answer for one in request.examples} == {"bee"}
        assert all("(A) ant" in one.text or "ant" in one.text for one in request.examples)
    first = {request.audio: [one.audio for one in request.examples] for request in asked}
    asked.clear()
    predict_questions("mmau", loaded, Taking(), tmp_path / "again", settings, loaded)
    assert first == {request.audio: [one.audio for one in request.examples] for request in asked}
    with pytest.raises(ValueError, match="shots"):  # predictions of another prompt
        predict_questions("mmau", loaded, Taking(), tmp_path / "run", PredictingSettings(shots=1), loaded)


def test_worked_examples_that_cannot_be_are_refused(loaded: LoadedQuestions, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FakeModel takes no worked examples"):
        predict_questions("mmau", loaded, FakeModel(), tmp_path, PredictingSettings(shots=2), loaded)
    with pytest.raises(ValueError, match="name the questions with answers"):
        predict_questions("mmau", loaded, FakeModel(), tmp_path, PredictingSettings(shots=2))
    few = LoadedQuestions(loaded.items[:2], Revision("b" * 64))

    class Taking(FakeModel):
        takes_examples = True

    with pytest.raises(ValueError, match="has only 1 examples with answers about other recordings"):
        predict_questions("mmau", few, Taking(), tmp_path, PredictingSettings(shots=2), few)
