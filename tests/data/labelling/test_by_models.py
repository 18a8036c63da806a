"""Labelling by models behind a real server: records, refusals, failures, and runs that are killed."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audiollm.data.chat.base import ChatError, EndpointSettings
from audiollm.data.chat.endpoint import EndpointModel
from audiollm.data.labelling.by_models import label_corpus, report_path
from audiollm.data.labelling.models import ModelLabeller, ModelLabelling
from audiollm.data.labelling.report import Prices
from audiollm.data.sap.parsing import parse_sap

CAPTION = "A man speaks calmly in a small room while a dog barks."
SPEECH = {
    "linguistic_content": None,
    "vocal_attributes": {"age": "adult", "gender": "male", "emotion": "neutral", "accent": None},
    "auditory_scenes": {
        "summary": "A dog barks in a small room.",
        "events": [{"class": "dog bark", "type": "transient", "attributes": None}],
    },
}
SOUND = {"linguistic_content": None, "vocal_attributes": {}, "auditory_scenes": SPEECH["auditory_scenes"]}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


def answer(request: dict[str, Any]) -> str:
    """What a good captioner and a good structurer say."""
    if len(request["messages"]) == 1:
        return CAPTION
    transcript = request["messages"][1]["content"].split("Transcript: ")[1].split("\n")[0]
    return json.dumps(SOUND if transcript == "(none)" else SPEECH | {"linguistic_content": transcript})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six clips of half a second and of different levels; the last two hold no speech."""
    (tmp_path / "clips").mkdir()
    lines = []
    for number in range(6):
        samples = np.random.default_rng(number).normal(0, 0.01 * (number + 1), 8000)
        sf.write(tmp_path / "clips" / f"{number}.wav", samples, 16000)
        text = {"text": f"clip {number}"} if number < 4 else {}
        lines.append({"id": f"c{number}", "audio": f"clips/{number}.wav", "language": "en", **text})
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def labeller(server: Any, *, retries: int = 1, captioner: bool = True, **settings: Any) -> ModelLabeller:
    model = EndpointModel(server.url, settings=EndpointSettings(max_retries=retries))
    return ModelLabeller(model, model if captioner else None, ModelLabelling(**settings))


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def label(corpus: Path, server: Any, **options: Any) -> list[dict[str, Any]]:
    """Labels into ``out.jsonl`` beside the corpus and returns its records."""
    output = corpus.with_name("out.jsonl")
    own = {name: options.pop(name) for name in ("retries", "captioner", "max_seconds", "max_asks") if name in options}
    label_corpus(corpus, output, labeller(server, **own), progress=False, **options)
    return read(output)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clips_become_training_records_in_order(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    records = label(corpus, chat_server)
    assert [record["id"] for record in records] == [f"c{number}" for number in range(6)]
    assert [record["audio"] for record in records] == [f"clips/{number}.wav" for number in range(6)]
    assert [record["text"] for record in records] == ["clip 0", "clip 1", "clip 2", "clip 3", "", ""]
    assert [record["sound_type"] for record in records] == ["speech"] * 4 + ["sound"] * 2
    assert {record["caption"] for record in records} == {CAPTION}
    assert parse_sap(records[0]["sap"]).vocal_attributes.gender == "male"  # type: ignore[union-attr]
    assert parse_sap(records[5]["sap"]).linguistic_content is None
    assert {record["duration_seconds"] for record in records} == {0.5}
    report = json.loads(report_path(corpus.with_name("out.jsonl")).read_text())
    assert report["usage"]["structurer"] == {
        "requests": 6, "retries": 0, "prompt_tokens": 600, "completion_tokens": 60,
    }  # fmt: skip
    assert len([name for name in report["facts"] if name.startswith("labelling/")]) == 4
    assert not list(corpus.parent.glob("[!.]*.partial*"))


def test_the_captioner_hears_the_whole_clip_and_the_structurer_reads_what_is_known(
    corpus: Path, chat_server: Any
) -> None:
    chat_server.answer = answer
    label(corpus, chat_server, concurrency=1)
    heard, read_by_structurer = chat_server.requests[2:4]
    wav = base64.b64decode(heard["messages"][0]["content"][0]["input_audio"]["data"])
    samples, sample_rate = sf.read(io.BytesIO(wav))
    expected, _ = sf.read(corpus.parent / "clips" / "1.wav")
    assert sample_rate == 16000
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    facts = read_by_structurer["messages"][-1]["content"]
    assert facts == f'Duration: 0.5 seconds\nTranscript: clip 1\nLabels: {{"language": "en"}}\nDescription: {CAPTION}'


def test_captions_of_the_corpus_serve_in_place_of_a_captioner(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    lines = read(corpus)
    corpus.write_text("".join(json.dumps(line | {"caption": "A dog."}) + "\n" for line in lines))
    records = label(corpus, chat_server, captioner=False)
    assert {record["caption"] for record in records} == {"A dog."}
    assert len(chat_server.requests) == 6
    facts = chat_server.requests[0]["messages"][-1]["content"]
    assert facts.endswith('Labels: {"language": "en"}\nDescription: A dog.')


def test_repairs_are_made_and_noted(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = lambda request: answer(request).replace('"age"', '"Age"')
    records = label(corpus, chat_server)
    assert parse_sap(records[0]["sap"]).vocal_attributes.age == "adult"  # type: ignore[union-attr]
    assert records[0]["labelling"]["repairs"] == ["vocal_attributes.Age was taken as age"]
    assert "repairs" not in records[5]["labelling"]
    assert json.loads(report_path(corpus.with_name("out.jsonl")).read_text())["repaired"] == 4


def test_words_differing_in_case_are_written_as_the_transcript_has_them(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = lambda request: answer(request).replace("clip 0", "Clip 0!")
    records = label(corpus, chat_server)
    assert parse_sap(records[0]["sap"]).linguistic_content == "clip 0"
    assert records[0]["labelling"]["structurer"]["requests"] == 1


def test_an_answer_that_does_not_hold_is_asked_for_once_more_with_its_problems(corpus: Path, chat_server: Any) -> None:
    def careless(request: dict[str, Any]) -> str:
        last = request["messages"][-1]["content"]
        if isinstance(last, str) and last.startswith("This answer cannot be used"):
            assert "- linguistic_content is 'clip 7', but the transcript is 'clip 2'" in last
            assert request["messages"][-2]["role"] == "assistant"
            return json.dumps(SPEECH | {"linguistic_content": "clip 2"})
        return answer(request).replace("clip 2", "clip 7")

    chat_server.answer = careless
    records = label(corpus, chat_server)
    assert len(records) == 6
    assert records[2]["labelling"]["structurer"]["requests"] == 2
    assert json.loads(report_path(corpus.with_name("out.jsonl")).read_text())["asked_again"] == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I would rather not.", "no JSON object"),
        (json.dumps(SPEECH | {"linguistic_content": "other words"}), "but the transcript is 'clip 1'"),
        (json.dumps(SOUND), "but the transcript is 'clip 1'"),
        (json.dumps(SPEECH | {"linguistic_content": "clip 1", "vocal_attributes": None}), "vocal_attributes is null"),
    ],
)
def test_answers_that_never_hold_are_kept_with_the_reason(
    corpus: Path, chat_server: Any, reply: str, reason: str
) -> None:
    def stubborn(request: dict[str, Any]) -> str:
        is_second = "clip 1" in json.dumps(request["messages"][1:2])
        return reply if is_second else answer(request)

    chat_server.answer = stubborn
    records = label(corpus, chat_server)
    assert [record["id"] for record in records] == ["c0", "c2", "c3", "c4", "c5"]
    (rejected,) = read(corpus.with_name("out.jsonl.rejected.jsonl"))
    assert rejected["index"] == 1
    assert rejected["source"] == f"{corpus}:2"
    assert reason in rejected["reason"]
    assert rejected["reply"] == reply
    assert rejected["caption"] == CAPTION
    report = json.loads(report_path(corpus.with_name("out.jsonl")).read_text())
    assert (report["records"], report["rejected"]) == (5, 1)
    assert report["usage"]["structurer"]["requests"] == 7  # the tokens of refused clips are paid for too


def test_known_labels_are_not_overruled(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    lines = read(corpus)
    lines[0] |= {"attributes": {"gender": "Woman"}}
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    label(corpus, chat_server)
    (rejected,) = read(corpus.with_name("out.jsonl.rejected.jsonl"))
    assert rejected["reason"] == "vocal_attributes.gender is male, but the label says female"


def test_bad_clips_are_refused_and_nothing_is_asked_about_them(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    lines = read(corpus)
    (corpus.parent / "clips" / "0.wav").write_bytes(b"RIFF no audio")
    lines[1]["text"] = 7
    sf.write(corpus.parent / "clips" / "2.wav", np.zeros(32000), 16000)
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{no json\n")
    records = label(corpus, chat_server, max_seconds=1.5)
    assert [record["id"] for record in records] == ["c3", "c4", "c5"]
    reasons = [entry["reason"] for entry in read(corpus.with_name("out.jsonl.rejected.jsonl"))]
    assert "audio" in reasons[0]
    assert reasons[1] == "text is 7: give the words spoken as text, or leave it out"
    assert reasons[2] == "lasts 2.0 s, but max_seconds is 1.5; cut it first"
    assert "is not JSON" in reasons[3]
    assert len(chat_server.requests) == 6


def test_a_cut_answer_is_asked_for_again(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    chat_server.finish_reason = "length"
    with pytest.raises(ValueError, match="all 6 clips were refused"):
        label(corpus, chat_server)
    reasons = [entry["reason"] for entry in read(corpus.with_name("out.jsonl.rejected.jsonl"))]
    assert set(reasons) == {"the answer was cut off after 10 tokens: be shorter"}


def test_clips_without_an_answer_here_and_there_are_refused_and_the_others_go_on(
    corpus: Path, chat_server: Any
) -> None:
    def moody(request: dict[str, Any]) -> str:
        facts = json.dumps(request["messages"])
        return "" if "clip 1" in facts or "clip 3" in facts else answer(request)

    chat_server.answer = moody
    records = label(corpus, chat_server, retries=0, max_failures=2)
    assert [record["id"] for record in records] == ["c0", "c2", "c4", "c5"]
    rejected = read(corpus.with_name("out.jsonl.rejected.jsonl"))
    assert [entry["source"] for entry in rejected] == [f"{corpus}:2", f"{corpus}:4"]
    assert all("the reply is empty" in entry["reason"] for entry in rejected)


def test_a_server_that_goes_away_stops_the_run_and_the_next_one_goes_on(corpus: Path, chat_server: Any) -> None:
    num_answers = 0

    def dying(request: dict[str, Any]) -> str:
        nonlocal num_answers
        num_answers += 1
        return answer(request) if num_answers <= 4 else ""

    chat_server.answer = dying
    with pytest.raises(ChatError, match=r"the reply is empty.*2 clips are done and kept: run the same command again"):
        label(corpus, chat_server, concurrency=1, max_failures=3, retries=0)
    assert not corpus.with_name("out.jsonl").exists()
    assert not corpus.with_name("out.jsonl.rejected.jsonl").exists()
    chat_server.answer = answer
    chat_server.requests.clear()
    records = label(corpus, chat_server)
    assert [record["id"] for record in records] == [f"c{number}" for number in range(6)]
    assert len(chat_server.requests) == 8  # nothing is asked, and paid for, twice
    report = json.loads(report_path(corpus.with_name("out.jsonl")).read_text())
    assert report["resumed"] == 2
    assert report["usage"]["captioner"]["requests"] == 6


def test_refusals_of_an_interrupted_run_are_kept(corpus: Path, chat_server: Any) -> None:
    lines = read(corpus)
    lines[0]["text"] = 7
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chat_server.answer = lambda request: answer(request) if len(chat_server.requests) <= 2 else ""
    with pytest.raises(ChatError, match="2 clips are done and kept"):
        label(corpus, chat_server, concurrency=1, max_failures=1, retries=0)
    chat_server.answer = answer
    records = label(corpus, chat_server)
    assert [record["id"] for record in records] == [f"c{number}" for number in range(1, 6)]
    assert [entry["index"] for entry in read(corpus.with_name("out.jsonl.rejected.jsonl"))] == [0]
    report = json.loads(report_path(corpus.with_name("out.jsonl")).read_text())
    assert (report["resumed"], report["rejected"], report["records"]) == (2, 1, 5)


def test_a_wrong_key_stops_the_run_at_once_and_leaves_nothing(corpus: Path, chat_server: Any) -> None:
    made = labeller(chat_server)
    for _ in range(20):
        chat_server.misbehave(status=401, body='{"error": {"message": "wrong key"}}')
    with pytest.raises(ChatError, match="wrong key"):
        label_corpus(corpus, corpus.with_name("out.jsonl"), made, concurrency=1, progress=False)
    assert not list(corpus.parent.glob("out.jsonl*"))


def test_another_model_or_prompt_does_not_go_on_with_an_output(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = lambda request: answer(request) if len(chat_server.requests) < 5 else ""
    with pytest.raises(ChatError):
        label(corpus, chat_server, concurrency=1, max_failures=1, retries=0)
    chat_server.models = ["other"]
    with pytest.raises(ValueError, match=r"begun with another captioner \(tiny, now other\)"):
        label(corpus, chat_server)


def test_requests_run_side_by_side_up_to_the_limit(corpus: Path, chat_server: Any) -> None:
    meeting = threading.Barrier(3)

    def answer_three_at_once(request: dict[str, Any]) -> str:
        if len(request["messages"]) == 1:  # the captions of six clips: none comes before two others are asked for
            meeting.wait(300)
        return answer(request)

    chat_server.answer = answer_three_at_once
    label(corpus, chat_server, concurrency=3)
    assert chat_server.most_open == 3


def test_shards_together_are_the_whole(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    whole = label(corpus, chat_server)
    parts = []
    for shard in range(4):
        label_corpus(corpus, corpus.with_name("part.jsonl"), labeller(chat_server), num_shards=4, shard=shard)
        parts += read(corpus.with_name(f"part-{shard:05d}-of-00004.jsonl"))
    assert parts == whole


def test_clips_of_other_splits_are_left_alone(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    lines = [line | {"split": "train" if number % 2 else "dev"} for number, line in enumerate(read(corpus))]
    del lines[0]["split"]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = label(corpus, chat_server, split="train")
    assert [record["id"] for record in records] == ["c0", "c1", "c3", "c5"]
    with pytest.raises(ValueError, match="holds no records"):
        label_corpus(lines[1:], corpus.with_name("other.jsonl"), labeller(chat_server), split="test")


def test_sound_inside_a_data_set_is_written_beside_the_records(corpus: Path, chat_server: Any, tmp_path: Path) -> None:
    chat_server.answer = answer
    wav = (tmp_path / "clips" / "0.wav").read_bytes()
    output = tmp_path / "made" / "out.jsonl"
    label_corpus([{"audio": {"bytes": wav}, "text": "clip 0"}], output, labeller(chat_server), progress=False)
    (record,) = read(output)
    assert record["audio"] == "out_audio/00000000.flac"
    samples, _ = sf.read(output.parent / record["audio"])
    np.testing.assert_array_equal(samples, sf.read(tmp_path / "clips" / "0.wav")[0])


def test_prices_make_a_cost(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    prices = {"captioner": Prices(10.0, 100.0), "structurer": Prices(1.0, 1000.0)}
    output = corpus.with_name("out.jsonl")
    report = label_corpus(corpus, output, labeller(chat_server), prices=prices, progress=False)
    assert report.cost == pytest.approx((600 * 10 + 60 * 100 + 600 * 1 + 60 * 1000) / 1e6)
    assert "cost 0.07" in str(report)
    assert label_corpus(corpus, output, labeller(chat_server), overwrite=True, progress=False).cost is None


def test_wrong_arguments_are_named(corpus: Path, chat_server: Any, tmp_path: Path) -> None:
    made, output = labeller(chat_server), tmp_path / "out.jsonl"
    for options, reason in (
        ({"concurrency": 0}, "concurrency=0"),
        ({"max_failures": 0}, "max_failures=0"),
        ({"num_shards": 2, "shard": 2}, "shard=2 of num_shards=2"),
    ):
        with pytest.raises(ValueError, match=reason):
            label_corpus(corpus, output, made, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds no records"):
        label_corpus([], output, made)
    output.write_text("")
    with pytest.raises(ValueError, match="exists already"):
        label_corpus(corpus, output, made)
    with pytest.raises(ValueError, match="max_asks=0"):
        ModelLabelling(max_asks=0)


KILLED = """
import sys
from pathlib import Path
from audiollm.data.chat.endpoint import EndpointModel
from audiollm.data.labelling.by_models import label_corpus
from audiollm.data.labelling.models import ModelLabeller
model = EndpointModel(sys.argv[1])
label_corpus(sys.argv[2], sys.argv[3], ModelLabeller(model, model), concurrency=1, progress=False)
"""


@pytest.mark.multiprocess
def test_a_killed_run_goes_on_without_asking_twice(corpus: Path, chat_server: Any) -> None:
    chat_server.answer = answer
    whole = label(corpus, chat_server)
    output = corpus.with_name("killed.jsonl")
    partial = output.with_name("killed.jsonl.partial")
    chat_server.requests.clear()
    dead = threading.Event()

    def answer_two_clips(request: dict[str, Any]) -> str:
        if len(chat_server.requests) > 4:  # two requests a clip; the third clip's are answered when nobody waits
            dead.wait(300)
        return answer(request)

    chat_server.answer = answer_two_clips
    process = subprocess.Popen([sys.executable, "-c", KILLED, chat_server.url, str(corpus), str(output)])
    wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") >= 2 and len(chat_server.requests) == 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    num_done = partial.read_bytes().count(b"\n")
    assert num_done == 2
    with open(partial, "ab") as file:
        file.write(b'{"id": "half a rec')  # what a process leaves that dies while writing
    dead.set()
    wait_until(lambda: chat_server.num_open == 0)
    chat_server.requests.clear()
    report = label_corpus(corpus, output, labeller(chat_server), progress=False)
    assert report.resumed == num_done
    assert len(chat_server.requests) == 2 * (6 - num_done)
    assert read(output) == whole
