"""Scoring of MMAU, MMAR and MMSU: equal to the published scorers, and clear about what these pass over or stop at."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiollm.benchmarks.questions.base import MODES
from audiollm.benchmarks.questions.grading.scoring import score_file
from audiollm.benchmarks.questions.registry import benchmark_named
from audiollm.benchmarks.questions.report import write_result

GOLDEN = Path(__file__).parents[3] / "fixtures" / "golden"
FILES = {"mmau": "predictions.json", "mmar": "predictions.jsonl", "mmsu": "predictions.jsonl"}
KEYS = {"mmau": "model_output", "mmar": "answer_prediction", "mmsu": "response"}
Result = dict[str, Any]


def golden_file(name: str) -> Path:
    return GOLDEN / name / FILES[name]


def golden_records(name: str) -> list[Result]:
    text = golden_file(name).read_text(encoding="utf-8")
    return json.loads(text) if name == "mmau" else [json.loads(line) for line in text.split("\n") if line]


def expected(name: str, file: str = "expected.json") -> Result:
    content: Result = json.loads((GOLDEN / name / file).read_text(encoding="utf-8"))
    return content


def malformed(name: str) -> dict[str, Result]:
    return {case["case"]: case for case in expected(name, "malformed.json")["cases"]}


def scored(name: str, path: Path, mode: str = "official", **options: Any) -> Result:
    return score_file(benchmark_named(name), str(path), mode=mode, **options)  # type: ignore[arg-type]


def written(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def scored_records(name: str, records: list[Any], folder: Path, mode: str = "official", **options: Any) -> Result:
    return scored(name, written(folder / "replies.jsonl", records), mode, **options)


@pytest.mark.parametrize("name", FILES)
def test_official_mode_gives_what_the_published_scorer_prints(name: str) -> None:
    result, published = scored(name, golden_file(name)), expected(name)
    for index, (own, theirs) in enumerate(zip(result["items"], published["items"], strict=True)):
        got = (own["index"], own["id"], own["counted"], own["correct"])
        assert got == (index, theirs["id"], theirs["counted"], theirs["correct"]), theirs["edge"]
    for key in ("n_items", "n_counted", "n_correct", "table", "printed"):
        assert result[key] == published[key]
    assert result["accuracy"] == published["n_correct"] / published["n_counted"]


def test_mmsu_strict_mode_drops_nothing() -> None:
    result, published = scored("mmsu", golden_file("mmsu"), "strict"), expected("mmsu")
    assert result["table"] == published["table_unreadable_as_wrong"]
    assert result["n_counted"] == result["n_items"] == published["n_items"]
    assert result["n_unreadable"] == published["n_unreadable"]
    assert scored("mmsu", golden_file("mmsu"))["table_unreadable_as_wrong"] == published["table_unreadable_as_wrong"]


@pytest.mark.parametrize("name", ["mmau", "mmar"])
def test_extract_mode_takes_out_what_other_toolkits_do(name: str) -> None:
    result, published = scored(name, golden_file(name), "extract"), expected(name, "expected_lenient.json")
    own = {item["id"]: item for item in result["items"]}
    for theirs in published["items"]:
        got = own[theirs["id"]]
        for key in theirs.keys() - {"id", "edge"}:
            assert got[key] == theirs[key], (theirs["edge"], key)
        assert got["correct"] >= theirs["correct_extract_after_think"]
    assert {key: result["totals"][key] for key in published["totals"]} == published["totals"]
    assert result["totals"]["letter_found"] == published["letter_found"]


@pytest.mark.parametrize("name", ["mmau", "mmar"])
def test_strict_mode_counts_missing_replies_as_wrong(name: str) -> None:
    official, strict = scored(name, golden_file(name)), scored(name, golden_file(name), "strict")
    assert strict["n_correct"] == official["n_correct"]
    assert strict["n_counted"] == strict["n_items"] > official["n_counted"]
    assert strict["n_missing"] == official["n_missing"] > 0
    assert strict["table"]["total"]["n"] == strict["n_items"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILES)
def test_a_list_and_lines_score_alike_with_any_line_ends_and_a_byte_order_mark(
    name: str, mode: str, tmp_path: Path
) -> None:
    records = golden_records(name)
    as_list = tmp_path / "list.json"
    as_list.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    as_lines = tmp_path / "lines.jsonl"
    as_lines.write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(record, ensure_ascii=False).encode() for record in records)
    )
    one, other = scored(name, as_list, mode), scored(name, as_lines, mode)
    assert one["items"] == other["items"]
    assert one["table"] == other["table"]


@pytest.mark.parametrize("name", ["mmau", "mmar"])
def test_official_mode_names_item_and_field_where_the_published_scorer_stops(name: str, tmp_path: Path) -> None:
    for case, content in malformed(name).items():
        if not content["items"]:
            continue
        first, _, rest = case.partition("_")
        field = KEYS[name] if first in ("prediction", "no") else rest if first == "unknown" else first
        with pytest.raises(ValueError, match=field) as stopped:
            scored_records(name, content["items"], tmp_path)
        assert content["items"][0]["id"] in str(stopped.value) or case == "no_predictions_at_all"
    with pytest.raises(ValueError, match="no items"):
        scored_records(name, [], tmp_path)


@pytest.mark.parametrize("mode", ["strict", "extract"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reply", [None, 3, 0, True, ["A"], {"answer": "A"}])
def test_replies_of_another_type_are_wrong_and_listed(name: str, mode: str, reply: Any, tmp_path: Path) -> None:
    records = golden_records(name)[:3]
    records[0][KEYS[name]] = reply
    result = scored_records(name, records, tmp_path, mode)
    assert result["items"][0]["correct"] is False
    assert result["n_counted"] == 3
    assert any(records[0]["id"] in problem and KEYS[name] in problem for problem in result["problems"])


def test_mmsu_counts_broken_input_as_its_script_does(tmp_path: Path) -> None:
    for case, content in malformed("mmsu").items():
        if content["items"] is None:
            continue
        result = scored_records("mmsu", content["items"], tmp_path)
        assert result["printed"][-2:] == content["last"], case


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", ["strict", "extract"])
def test_a_question_without_answer_or_options_stops_every_mode(name: str, mode: str, tmp_path: Path) -> None:
    for case, content in malformed(name).items():
        if case in ("answer_missing", "choices_missing", "choices_null_entry", "answer_is_number", "answer_gt_missing"):
            with pytest.raises(ValueError, match=rf"{content['items'][0]['id']}: (answer|choices)"):
                scored_records(name, content["items"], tmp_path, mode)


@pytest.mark.parametrize(("field", "value"), [("task", "noise"), ("difficulty", None), ("sub-category", None)])
def test_strict_mode_keeps_items_of_unknown_groups(field: str, value: str | None, tmp_path: Path) -> None:
    records = golden_records("mmau")[:3]
    records[0][field] = value
    result = scored_records("mmau", records, tmp_path, "strict")
    assert result["n_counted"] == 3
    assert ("noise" in result["table"]["Task-wise Accuracy"]) == (value == "noise")


def test_a_category_that_is_a_list_counts_like_its_entry(tmp_path: Path) -> None:
    records = golden_records("mmau")
    for record in records:
        record["category"] = ["Reasoning"]
    records[0]["sub-category"] = [records[0]["sub-category"]]
    assert scored_records("mmau", records, tmp_path)["table"] == expected("mmau")["table"]


def test_a_reply_in_another_field_is_pointed_at(tmp_path: Path) -> None:
    records = golden_records("mmau")[:3]
    for record in records:
        record["model_prediction"] = record.pop("model_output")
    with pytest.raises(ValueError, match=r"'model_output'.*'model_prediction'.*--prediction-key"):
        scored_records("mmau", records, tmp_path)
    result = scored_records("mmau", records, tmp_path, prediction_key="model_prediction")
    assert result["n_counted"] == 3


@pytest.mark.parametrize("name", FILES)
def test_an_unfinished_last_line_is_left_out_and_told(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "replies.jsonl", golden_records(name)[:4])
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    result = scored(name, path)
    assert result["n_items"] == 3
    assert "line 4, the last, is unfinished" in result["problems"][0]


def test_a_broken_line_inside_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "replies.jsonl", golden_records("mmar")[:4])
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:30], *lines[2:]]))
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        scored("mmar", path)
    path.write_bytes(b"\n".join([lines[0], b"[1]", *lines[2:]]))
    with pytest.raises(ValueError, match="line 2 is a JSON list"):
        scored("mmar", path)
    path.write_bytes(b"\n".join([lines[0], b"", *lines[1:]]))
    assert scored("mmar", path)["n_items"] == 4
    truncated = tmp_path / "list.json"
    truncated.write_bytes(golden_file("mmau").read_bytes()[:-50])
    with pytest.raises(ValueError, match="was it written to its end"):
        scored("mmau", truncated)


def test_line_ends_within_texts_do_not_end_lines(tmp_path: Path) -> None:
    records = golden_records("mmar")[:2]
    records[0]["answer_prediction"] = "one\u2028two\u0085three\x0bfour"
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    assert scored("mmar", path)["n_items"] == 2


def test_halves_of_characters_can_be_scored_and_written(tmp_path: Path) -> None:
    records = golden_records("mmau")[:2]
    records[0]["model_output"] = "\ud83d Piano and violin"
    result = scored_records("mmau", records, tmp_path, "extract")
    write_result(result, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["items"] == result["items"]


@pytest.mark.parametrize("name", FILES)
def test_repeated_ids_are_counted_twice_like_the_script_does_but_refused_otherwise(name: str, tmp_path: Path) -> None:
    records = golden_records(name)[:3]
    result = scored_records(name, [*records, records[0]], tmp_path)
    assert result["n_items"] == 4
    assert result["n_repeated_ids"] == 1
    for mode in ("strict", "extract"):
        with pytest.raises(ValueError, match=f"{records[0]['id']}: id occurs more than once"):
            scored_records(name, [*records, records[0]], tmp_path, mode)


def test_withheld_answers_are_not_scored(tmp_path: Path) -> None:
    records = golden_records("mmau")[:3]
    for record in records:
        record["answer"] = ""
    with pytest.raises(ValueError, match="withheld"):
        scored_records("mmau", records, tmp_path)


def test_baselines_are_those_who_do_not_listen(tmp_path: Path) -> None:
    records = golden_records("mmsu")[:2]
    for record, choices, answer in zip(
        records, (["x", None, "y", None], ["a", "b", "c", "d"]), ("x", "c"), strict=True
    ):
        record |= {f"choice_{letter}": choice for letter, choice in zip("abcd", choices, strict=True)}
        record |= {"answer_gt": answer, "response": "A"}
    result = scored_records("mmsu", records, tmp_path)
    assert result["baselines"] == {"first_option": 0.5, "random": (1 / 2 + 1 / 4) / 2}
    assert result["accuracy"] == 0.5
    assert result["interval"]["low"] == 0.0
    assert result["interval"]["high"] == 1.0


def test_the_mmsu_paper_table_groups_by_strand(tmp_path: Path) -> None:
    result = scored("mmsu", golden_file("mmsu"), "strict")
    table, fine = result["paper_table"], expected("mmsu")["table_unreadable_as_wrong"]
    assert table["Perception"]["Semantics"] == fine["category+sub-sub-category / Perception / Semantics"]
    assert table["Perception"]["average"] == fine["category / Perception"]
    assert table["Reasoning"]["Paralinguistics"] == fine["category+sub-category / Reasoning / Paralinguistics"]
    assert table["overall"] == fine["all"]


@pytest.mark.parametrize(
    ("reply", "answer", "readable"),
    [
        ("The answer is (B).", "two", True),
        ("<think>Maybe A.</think>\nB", "two", True),
        ("I would choose the letter C, three", "three", True),
        ("b", "two", True),
        ("Option d.", "four", True),
        ("A or B", "one", False),
        ("A word is said", "one", False),
        ("A is what fits", "one", True),
        ("none of it", "one", False),
        ("The correct answer is: **two**", "two", True),
    ],
)
def test_mmsu_extract_mode_reads_texts_and_letters_but_never_guesses(
    reply: str, answer: str, readable: bool, tmp_path: Path
) -> None:
    record = golden_records("mmsu")[0] | {
        "choice_a": "one",
        "choice_b": "two",
        "choice_c": "three",
        "choice_d": "four",
        "answer_gt": answer,
        "response": reply,
    }
    item = scored_records("mmsu", [record], tmp_path, "extract")["items"][0]
    assert item["correct"] == readable
    assert item.get("unreadable", False) is not readable


def many_records(name: str, number: int, path: Path) -> None:
    records = golden_records(name)
    with open(path, "w", encoding="utf-8") as file:
        for index in range(number):
            file.write(json.dumps({**records[index % len(records)], "id": f"item-{index}"}) + "\n")


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


MAX_CALLS_PER_REPLY = 320  # twice what the dearest takes


def num_calls(work: Callable[[], object]) -> int:
    """How many functions a piece of work calls: a cost that no other process and no processor changes."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("name", "mode"), [("mmau", "official"), ("mmar", "extract"), ("mmsu", "strict")])
def test_a_million_replies_are_a_matter_of_a_minute(name: str, mode: str, tmp_path: Path) -> None:
    """Each reply costs the same however many there are, and little: processors make some ten million calls a second."""
    calls = []
    for number in (1_000, 3_000):
        path = tmp_path / f"{number}.jsonl"
        many_records(name, number, path)
        calls.append(num_calls(lambda path=path: write_result(scored(name, path, mode), tmp_path / "result.json")))
    per_reply = (calls[1] - calls[0]) / 2_000
    assert per_reply < MAX_CALLS_PER_REPLY
    assert calls[0] < 1.5 * 1_000 * per_reply


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [("mmau", "official"), ("mmar", "extract"), ("mmsu", "strict")])
def test_a_million_replies_are_scored_within_a_minute(name: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    many_records(name, 1_000_000, path)
    seconds = processor_seconds(lambda: write_result(scored(name, path, mode), tmp_path / "result.json"))
    assert seconds < 60


def test_grading_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    for name in FILES:
        records = golden_records(name)
        random.Random(0).shuffle(records)
        shuffled = scored_records(name, records, tmp_path)
        by_id = {item["id"]: item["correct"] for item in shuffled["items"]}
        assert by_id == {item["id"]: item["correct"] for item in expected(name)["items"]}
