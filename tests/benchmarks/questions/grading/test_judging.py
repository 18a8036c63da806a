"""The judge of replies: votes, what is not evaluated, and going on after a stop; against a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.judge.asking import JudgeSettings
from audiollm.benchmarks.judge.log import VerdictLog
from audiollm.benchmarks.questions.grading.judging import judge_predictions, verdicts_path
from audiollm.benchmarks.questions.registry import benchmark_named
from audiollm.cli import main
from audiollm.data.chat.base import ChatError, ChatMessage, ChatReply

MMAU = benchmark_named("mmau")
ONE_VOTE = JudgeSettings(votes=1, concurrency=1)


class Judge:
    """Answers what a function of text and seed says, and keeps the texts."""

    name = "solomon"

    def __init__(self, answer: Callable[[str, int], str]) -> None:
        self._answer = answer
        self.texts: list[str] = []

    def ask(
        self, messages: list[ChatMessage], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> ChatReply:
        assert seed is not None
        self.texts.append(messages[-1].text)
        return ChatReply(self._answer(messages[-1].text, seed))


def question(name: str, reply: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": name, "question": f"What is in {name}?", "choices": ["dog", "cat"], "answer": "cat",
        "task": "sound", "difficulty": "easy", "sub-category": "animals", "model_output": reply, **fields,
    }  # fmt: skip


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.json"
    path.write_text(
        json.dumps([question("a", "a feline"), question("b", "dog"), question("c", ""), question("d", "B")])
    )
    return path


def says(text: str) -> str:
    return "yes" if "feline" in text or "\nB\n" in text else "no"


def test_the_judge_reads_the_reply_and_silence_is_wrong_without_asking(predictions: Path, tmp_path: Path) -> None:
    judge = Judge(lambda text, seed: says(text))
    result = judge_predictions(MMAU, str(predictions), judge, str(tmp_path / "judge.json"), settings=ONE_VOTE)
    assert len(judge.texts) == 3
    assert all(
        "What is in" in text and "A. dog\nB. cat" in text and "Right option: cat" in text for text in judge.texts
    )
    assert [item["correct"] for item in result["items"]] == [True, False, False, True]
    assert (result["accuracy_of_evaluated"], result["n_evaluated"], result["n_missing"]) == (0.5, 4, 1)
    assert "accuracy" not in result
    assert json.loads((tmp_path / "judge.json").read_text()) == result


def test_reasoning_is_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([question("a", "<think>a feline?</think>dog")]))
    judge = Judge(lambda text, seed: says(text))
    result = judge_predictions(MMAU, str(path), judge, str(tmp_path / "judge.json"), settings=ONE_VOTE)
    assert result["n_correct"] == 0
    assert "<think>" not in judge.texts[0]


def test_the_majority_counts_and_no_majority_is_not_evaluated(predictions: Path, tmp_path: Path) -> None:
    answers = {"What is in a?": ["yes", "no", "yes"], "What is in b?": ["yes", "hm", "no"], "What is in d?": ["no"] * 3}

    def answer(text: str, seed: int) -> str:
        return next(own for name, own in answers.items() if name in text)[seed % 3]

    result = judge_predictions(MMAU, str(predictions), Judge(answer), str(tmp_path / "judge.json"))
    assert [item["correct"] for item in result["items"]] == [True, None, False, False]
    assert (result["n_evaluated"], result["n_not_evaluated"]) == (3, 1)
    assert result["accuracy_of_evaluated"] == pytest.approx(1 / 3)
    assert list(result["not_evaluated"]) == ["b"]


def test_a_second_run_asks_only_what_was_not_evaluated_and_with_other_seeds(predictions: Path, tmp_path: Path) -> None:
    seeds: list[int] = []

    def unsure(text: str, seed: int) -> str:
        if "in b?" not in text:
            return "yes"
        seeds.append(seed)
        return "hm"

    output = str(tmp_path / "judge.json")
    assert judge_predictions(MMAU, str(predictions), Judge(unsure), output)["n_not_evaluated"] == 1
    first = list(seeds)
    sure = Judge(lambda text, seed: (seeds.append(seed), "no")[1])
    result = judge_predictions(MMAU, str(predictions), sure, output)
    assert (result["n_not_evaluated"], result["n_correct"]) == (0, 2)
    assert all("in b?" in text for text in sure.texts)
    assert not set(first) & set(seeds[len(first) :])


def test_a_half_written_verdict_is_asked_for_again(predictions: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "judge.json")
    first = judge_predictions(MMAU, str(predictions), Judge(lambda text, seed: says(text)), output, settings=ONE_VOTE)
    path = verdicts_path(output)
    path.write_bytes(path.read_bytes()[:-7])
    judge = Judge(lambda text, seed: says(text))
    again = judge_predictions(MMAU, str(predictions), judge, output, settings=ONE_VOTE)
    assert len(judge.texts) == 1
    assert again["items"] == first["items"]


def test_verdicts_of_another_judging_are_refused(predictions: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "judge.json")
    judge = Judge(lambda text, seed: "yes")
    judge_predictions(MMAU, str(predictions), judge, output, settings=ONE_VOTE)
    with pytest.raises(ValueError, match="another judge"):
        judge_predictions(MMAU, str(predictions), judge, output)
    predictions.write_text(json.dumps([question("a", "dog")]))
    with pytest.raises(ValueError, match="another predictions"):
        judge_predictions(MMAU, str(predictions), judge, output, settings=ONE_VOTE)


def test_a_judge_that_is_gone_stops_the_run_and_keeps_what_it_said(tmp_path: Path) -> None:
    path, output = tmp_path / "predictions.json", str(tmp_path / "judge.json")
    path.write_text(json.dumps([question(f"q{number}", "cat") for number in range(20)]))
    calls: list[int] = []

    def fails(text: str, seed: int) -> str:
        calls.append(seed)
        if len(calls) > 5:
            raise ChatError("no connection")
        return "yes"

    with pytest.raises(ChatError, match=r"gave up.*no connection.*run again"):
        judge_predictions(MMAU, str(path), Judge(fails), output, settings=ONE_VOTE, max_failures=3)
    judge = Judge(lambda text, seed: "yes")
    assert judge_predictions(MMAU, str(path), judge, output, settings=ONE_VOTE)["n_evaluated"] == 20
    assert len(judge.texts) == 15


def test_the_command_asks_an_endpoint_that_sometimes_fails(
    predictions: Path, tmp_path: Path, chat_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_server.answer = lambda request: says(request["messages"][0]["content"])
    chat_server.misbehave(status=500)
    chat_server.misbehave(body="{}")
    output = tmp_path / "judged" / "judge.json"
    main(
        ["bench", "mmau", "judge", "--predictions", str(predictions), "--judge", chat_server.url,
         "--output", str(output), "--concurrency", "2", "--json"]
    )  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    assert printed["accuracy_of_evaluated"] == 0.5
    assert printed["judge"]["model"] == "tiny"
    assert json.loads(output.read_text())["n_evaluated"] == 4


def test_a_judge_that_refuses_the_key_ends_in_one_line(
    predictions: Path, tmp_path: Path, chat_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(20):
        chat_server.misbehave(status=401)
    with pytest.raises(SystemExit):
        main(
            ["bench", "mmau", "judge", "--predictions", str(predictions), "--judge", chat_server.url,
             "--output", str(tmp_path / "judge.json")]
        )  # fmt: skip
    assert "401" in capsys.readouterr().err


@pytest.mark.parametrize("max_failures", [0, -1])
def test_a_judging_that_could_never_begin_is_refused(predictions: Path, tmp_path: Path, max_failures: int) -> None:
    output = tmp_path / "judged" / "judge.json"
    with pytest.raises(ValueError, match=rf"max_failures={max_failures}: use 1 or more"):
        judge_predictions(MMAU, str(predictions), Judge(says), str(output), max_failures=max_failures)
    assert not output.parent.exists()


def test_one_judging_at_a_time_is_at_work_on_a_folder(tmp_path: Path) -> None:
    with VerdictLog(tmp_path / "a.jsonl", {"judge": "a"}):
        with pytest.raises(ValueError, match="is being written by another process"):
            VerdictLog(tmp_path / "b.jsonl", {"judge": "b"}).__enter__()
        assert not (tmp_path / "b.jsonl").exists()
    with VerdictLog(tmp_path / "b.jsonl", {"judge": "b"}):
        pass
    with pytest.raises(ValueError, match="begun with another judge"):
        VerdictLog(tmp_path / "b.jsonl", {"judge": "c"}).__enter__()
    with VerdictLog(tmp_path / "a.jsonl", {"judge": "a"}) as log:
        log.add_verdict("x", {"vote": 1})


class CutJudge(Judge):
    """Thinks aloud about one question until it is cut; about others it answers."""

    def ask(self, messages: list[ChatMessage], **settings: Any) -> ChatReply:
        is_hard = "in b?" in messages[-1].text
        reply = super().ask(messages, **settings)
        return ChatReply("let me think", is_cut=True) if is_hard else reply


def test_a_judge_that_was_cut_is_told_by_item_and_in_the_counts(
    predictions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = str(tmp_path / "judge.json")
    for result in (
        judge_predictions(MMAU, str(predictions), CutJudge(lambda text, seed: "no"), output),
        json.loads(Path(output).read_text()),
    ):
        assert [item.get("judge_replies_cut", 0) for item in result["items"]] == [0, 6, 0, 0]  # each of 3 votes, twice
        assert result["n_judge_replies_cut"] == 6
        assert "6 replies of the judge were cut after" in result["not_evaluated"]["b"]
    assert "6 replies of the judge were cut after" in caplog.text
    caplog.clear()
    result = judge_predictions(MMAU, str(predictions), Judge(lambda text, seed: "no"), output)
    assert (result["n_judge_replies_cut"], result["n_not_evaluated"]) == (0, 0)
    assert "cut" not in caplog.text


def test_a_cut_reply_beside_a_majority_is_kept_with_the_verdict(predictions: Path, tmp_path: Path) -> None:
    class OnceCut(Judge):
        def ask(self, messages: list[ChatMessage], **settings: Any) -> ChatReply:
            reply = super().ask(messages, **settings)
            return ChatReply("hm", is_cut=True) if settings["seed"] == 0 else reply

    judge = OnceCut(lambda text, seed: "yes")
    output = str(tmp_path / "judge.json")
    result = judge_predictions(MMAU, str(predictions), judge, output)
    assert [item.get("judge_replies_cut", 0) for item in result["items"]] == [1, 1, 0, 1]
    assert result["n_evaluated"] == 4
    again = judge_predictions(MMAU, str(predictions), Judge(lambda text, seed: "yes"), output)  # kept with the verdicts
    assert again["items"] == result["items"]
