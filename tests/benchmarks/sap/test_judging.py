"""The judge of free texts: votes, majorities, means, and what is left out rather than guessed."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.judge.asking import JudgeSettings
from audiollm.benchmarks.sap.judging import judge_sap
from audiollm.benchmarks.sap.report import score_sap, write_scores
from audiollm.data.chat.base import ChatError, ChatMessage, ChatReply
from audiollm.data.chat.endpoint import EndpointModel
from audiollm.data.manifest import RecordError
from audiollm.data.sap.record import AuditoryScene, SapRecord, SoundEvent, render_sap
from audiollm.data.voices.attributes import VocalAttributes


class Judge:
    """Answers what a function of question and seed says, and keeps the questions."""

    name = "solomon"

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self._answer = answer
        self.questions: list[str] = []
        self.temperatures: set[float] = set()
        self._lock = threading.Lock()

    def ask(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        assert seed is not None
        with self._lock:
            self.questions.append(messages[-1].text)
            self.temperatures.add(temperature)
        return ChatReply(self._answer(messages[-1].text, seed))


def record(summary: str | None = "A dog barks.", **voice: Any) -> SapRecord:
    events = (SoundEvent(label="dog bark", type="transient"),) if summary else ()
    return SapRecord(
        linguistic_content="hello",
        vocal_attributes=VocalAttributes(**voice),
        auditory_scenes=AuditoryScene(summary=summary, events=events),
    )


TRUE = record(accent="Scottish", timbre="warm")


def test_the_majority_of_verdicts_and_the_mean_of_ratings_count() -> None:
    judge = Judge(lambda text, seed: ("Yes.", "no", "**yes**")[seed] if "Answer with one word" in text else "245"[seed])
    judgement = judge_sap([render_sap(record(accent="Scots", timbre="warm"))], [TRUE], judge)
    assert judgement.scores == {
        "accent_accuracy": 1, "num_accent": 1, "timbre_accuracy": 1, "num_timbre": 1,
        "scene_rating": pytest.approx(11 / 3), "num_scene": 1,
    }  # fmt: skip
    assert judgement.votes == [{"accent": [1, 0, 1], "timbre": [1, 0, 1], "scene": [2, 4, 5]}]
    assert (judgement.unreadable, judgement.undecided, judgement.judge) == (0, 0, "solomon")
    assert len(judge.questions) == 9
    assert judge.temperatures == {0.7}


def test_the_judge_reads_both_texts_and_their_field() -> None:
    judge = Judge(lambda text, seed: "no" if "one word" in text else "1")
    judge_sap([render_sap(record("It rains.", accent="Scots"))], [TRUE], judge, JudgeSettings(votes=1))
    accent, scene = sorted(judge.questions, key=lambda text: "one digit" in text)
    assert "the accent of the same voice" in accent
    assert "Reference: Scottish\nPrediction: Scots" in accent
    assert "A dog barks." in scene.split("Prediction: ")[0]
    assert "It rains." in scene.split("Prediction: ")[1]


def test_a_prediction_that_says_nothing_is_wrong_without_asking() -> None:
    judge = Judge(lambda text, seed: "yes")
    judgement = judge_sap(["no record at all"], [TRUE], judge)
    assert judge.questions == []
    assert judgement.scores["accent_accuracy"] == 0
    assert judgement.scores["scene_rating"] == 1


def test_what_no_reference_says_is_not_scored() -> None:
    judge = Judge(lambda text, seed: "yes")
    judgement = judge_sap([render_sap(TRUE)], [record(None, accent="Scottish")], judge)
    assert judgement.scores == {"accent_accuracy": 1, "num_accent": 1}


@pytest.mark.parametrize("reply", ["maybe", "no doubt: yes", "yes and no", "3 or 4", "6", "0", "4.5", ""])
def test_an_answer_that_is_none_is_never_read_as_one(reply: str) -> None:
    judgement = judge_sap([render_sap(TRUE)], [TRUE], Judge(lambda text, seed: reply), JudgeSettings(votes=3))
    assert judgement.scores == {}
    assert (judgement.unreadable, judgement.undecided) == (9, 3)


def test_an_answer_that_is_none_is_asked_for_again_with_another_seed() -> None:
    judge = Judge(lambda text, seed: "hm" if seed == 1 else "yes" if "one word" in text else "Rating: 4/5")
    judgement = judge_sap([render_sap(TRUE)], [TRUE], judge)
    assert judgement.votes == [{"accent": [1, 1, 1], "timbre": [1, 1, 1], "scene": [4, 4, 4]}]
    assert len(judge.questions) == 9 + 3


def test_votes_without_a_majority_decide_nothing() -> None:
    answers = itertools.cycle(["yes", "hm", "hm", "no", "hm", "hm"])
    judge = Judge(lambda text, seed: next(answers))
    settings = JudgeSettings(votes=3, concurrency=1)
    judgement = judge_sap([render_sap(record(None, accent="x"))], [record(None, accent="y")], judge, settings)
    assert judgement.votes == [{"accent": [1, None, 0]}]
    assert (judgement.scores, judgement.undecided, judgement.unreadable) == ({}, 1, 1)


def test_settings_that_decide_nothing_are_refused() -> None:
    for wrong in ({"votes": 2}, {"votes": 0}, {"temperature": -1.0}, {"concurrency": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            JudgeSettings(**wrong)  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    references = [{"id": name, "sap": record(accent="Scottish").to_dict()} for name in ("a", "b")]
    predictions = [{"id": "b", "prediction": render_sap(record(accent="Scots"))}]
    paths = tmp_path / "predictions.jsonl", tmp_path / "references.jsonl"
    for path, lines in zip(paths, (predictions, references), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def test_files_are_matched_by_id_and_a_missing_prediction_says_nothing(
    files: tuple[Path, Path], chat_server: Any, tmp_path: Path
) -> None:
    without = score_sap(*files)
    assert without["missing"] == 1
    assert without["scores"]["valid_json"] == 0.5
    assert not {"judge"} & without.keys()
    assert not any(name.startswith(("accent", "scene")) for name in without["scores"])
    chat_server.answer = lambda request: "yes" if "one word" in request["messages"][0]["content"] else "5"
    result = score_sap(*files, judge=EndpointModel(chat_server.url))
    assert result["scores"]["accent_accuracy"] == 0.5
    assert result["scores"]["scene_rating"] == 3
    assert result["judge"]["model"] == "tiny"
    assert result["judge"]["votes"] == 3
    assert [item["readable"] for item in result["items"]] == [False, True]
    assert result["items"][1]["votes"] == {"accent": [1, 1, 1], "scene": [5, 5, 5]}
    write_scores(result, tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text()) == result


def test_what_was_repaired_in_a_prediction_is_counted_and_named(files: tuple[Path, Path]) -> None:
    answer = render_sap(record(accent="Scots"))
    files[0].write_text(json.dumps({"id": "b", "prediction": f"{answer} or {answer}"}) + "\n")
    result = score_sap(*files)
    assert result["repaired"] == 1
    missing, repaired = result["items"]
    assert repaired == {"id": "b", "valid": False, "readable": True, "repairs": ["left out text around the object"]}
    assert missing["repairs"][-1].startswith("cannot be read")


def test_a_judge_that_does_not_answer_is_an_error(files: tuple[Path, Path], chat_server: Any) -> None:
    judge = EndpointModel(chat_server.url)
    for _ in range(100):
        chat_server.misbehave(status=401)
    with pytest.raises(ChatError, match="401"):
        score_sap(*files, judge=judge)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"id": "z", "prediction": "{}"}, "'z' is the id of no reference"),
        ({"id": "b", "prediction": "{}"}, "the id 'b' is there twice"),
        ({"prediction": "{}"}, "has no id"),
        ({"id": "a"}, "has no prediction or sap"),
    ],
)
def test_files_that_do_not_fit_are_named(files: tuple[Path, Path], line: dict[str, Any], reason: str) -> None:
    with files[0].open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(RecordError, match=rf"predictions\.jsonl.*{reason}"):
        score_sap(*files)


def test_replies_of_the_judge_that_were_cut_are_counted_by_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class CutOnScenes(Judge):
        def ask(self, messages: Sequence[ChatMessage], **settings: Any) -> ChatReply:
            reply = super().ask(messages, **settings)
            return reply if "Answer with one word" in messages[-1].text else ChatReply("well", is_cut=True)

    judge = CutOnScenes(lambda text, seed: "yes")
    said = [{"id": str(n), "prediction": render_sap(TRUE)} for n in range(2)]
    true = [{"id": str(n), "sap": TRUE.to_dict()} for n in range(2)]
    result = score_sap(said, true, judge=judge)
    assert [item["judge_replies_cut"] for item in result["items"]] == [{"scene": 6}] * 2  # each of 3 votes, twice
    assert result["judge"]["n_judge_replies_cut"] == 12
    assert "12 replies of the judge were cut" in caplog.text
    caplog.clear()
    result = score_sap(said, true, judge=Judge(lambda text, seed: "yes" if "one word" in text else "4"))
    assert result["judge"]["n_judge_replies_cut"] == 0
    assert not any("judge_replies_cut" in item for item in result["items"])
    assert "cut" not in caplog.text
