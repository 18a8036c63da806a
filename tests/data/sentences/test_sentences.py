"""Auditory sentences: what goes together, what is learned, where it comes from, and what is left out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiollm.cli.app import main
from audiollm.data.conversation.loading import load_conversations
from audiollm.data.conversation.types import AudioPart
from audiollm.data.sentences.building import SentenceReport, SentenceSettings, sentences, write_sentences
from audiollm.data.sentences.templates import TEMPLATES


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return str(path)


def clip(folder: Path, number: int, seconds: float = 1.0, **facts: Any) -> dict[str, Any]:
    soundfile.write(folder / f"{number}.wav", np.full(int(8000 * seconds), 0.1, dtype=np.float32), 8000)
    return {"id": f"clip-{number}", "audio": f"{number}.wav", "licence": "CC0", **facts}


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Ten clips with words, six with captions, two long recordings in pieces, and four conversations."""
    records = [clip(tmp_path, n, text=f"word {n}", duration_seconds=1.0) for n in range(10)]
    records += [clip(tmp_path, n, caption=f"noise {n}") for n in range(10, 16)]
    records += [clip(tmp_path, n, group=f"long {n // 20}", duration_seconds=1.0) for n in range(18, 24)]
    for number in range(30, 34):
        question = [{"type": "audio", "codes": [1, 2]}, {"type": "text", "text": "What?"}]
        records.append(
            {
                "id": f"talk-{number}", "audio_tokenizer": "f" * 64,
                "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "That."}],
            }
        )  # fmt: skip
    return write(tmp_path / "corpus.jsonl", records)


def test_sentences_have_two_to_eight_segments_and_each_record_once_in_a_template(corpus: str, tmp_path: Path) -> None:
    report = write_sentences([corpus], tmp_path / "sentences.jsonl")
    made = load_conversations(tmp_path / "sentences.jsonl", for_training=True)[:]
    assert set(report.records) == set(TEMPLATES)
    assert report.num_records == len(made) == sum(report.segments.values())
    used = Counter()
    for one in made:
        facts = one.metadata
        parts = [part for message in one.messages if message.role != "system" for part in message.content]
        assert len(parts) == facts["num_segments"]
        assert 2 <= facts["num_segments"] <= 8
        assert len({type(part) for part in parts}) == 2 or facts["template"] == "continuation"
        used.update((facts["template"], source["record"]) for source in facts["sources"])
        assert one.task == "auditory_sentence"
    assert set(used.values()) == {1}
    expected = {"recognition": 10, "speech": 10, "caption": 6, "continuation": 6, "conversation": 4}
    unused = {name: sum(reasons.values()) for name, reasons in report.unused.items()}
    for template, fitting in expected.items():
        taken = sum(name == template for name, _ in used)
        assert taken <= fitting
        assert taken + unused[template] == 26  # nothing vanishes


def test_what_the_assistant_says_is_the_answer_of_each_template(corpus: str, tmp_path: Path) -> None:
    for record in sentences([corpus]):
        answers = [message["content"] for message in record["messages"] if message["role"] == "assistant"]
        kinds = {part["type"] for content in answers for part in content}
        if record["template"] in ("recognition", "conversation"):
            assert kinds == {"text"}
        if record["template"] in ("speech", "continuation"):
            assert kinds == {"audio"}
        if record["template"] == "recognition":
            said = [source["id"].replace("clip-", "word ") for source in record["sources"]]
            assert [content[0]["text"] for content in answers] == said
        if record["template"] == "continuation":
            pieces = [int(source["id"].removeprefix("clip-")) for source in record["sources"]]
            assert pieces == list(range(pieces[0], pieces[0] + len(pieces)))  # as they follow each other
        assert all(source["licence"] == "CC0" for source in record["sources"] if source["id"].startswith("clip"))


def test_codes_of_a_conversation_keep_their_maker(corpus: str, tmp_path: Path) -> None:
    write_sentences([corpus], tmp_path / "talks.jsonl", SentenceSettings(templates=("conversation",)))
    for one in load_conversations(tmp_path / "talks.jsonl"):
        assert {part.audio_tokenizer for part in one.audio_parts} == {"f" * 64}


def test_a_seed_makes_the_same_sentences_and_another_one_others(corpus: str) -> None:
    first, again, other = (list(sentences([corpus], SentenceSettings(seed=seed))) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_records_that_cannot_be_used_are_counted_and_named(tmp_path: Path) -> None:
    records = [
        clip(tmp_path, 0, text="good"), clip(tmp_path, 1, 0.1, text="short"), clip(tmp_path, 2, text="..."),
        {"id": "gone", "audio": "gone.wav", "text": "gone"}, {"id": "mute", "text": "nothing"},
        {"id": "rows", "codes": [[1], [2]], "text": "rows"}, clip(tmp_path, 3, text="long", duration_seconds=99),
        {"id": "empty", "messages": []},
    ]  # fmt: skip
    corpus = write(tmp_path / "corpus.jsonl", records)
    report = write_sentences([corpus], tmp_path / "out.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "out.jsonl.left_out.jsonl").read_text().splitlines()]
    assert [line["record"].rpartition(":")[2] for line in listed] == ["2", "3", "4", "5", "6", "7", "8"]
    reasons = " | ".join(line["reason"] for line in listed)
    for told in ("shorter than 0.3 s", "fits no template", "file is missing", "no audio", "--code-order flat",
                 "longer than 30 s", "no conversation"):  # fmt: skip
        assert told in reasons
        assert told in str(report)
    assert report.records == {"recognition": 1, "speech": 1}
    with pytest.raises(ValueError, match="no sentence can be made"):
        write_sentences([corpus], tmp_path / "none.jsonl", SentenceSettings(split="nowhere"))
    assert not (tmp_path / "none.jsonl").exists()


def test_sentences_stay_within_their_seconds(corpus: str) -> None:
    settings = SentenceSettings(templates=("recognition",), max_seconds=2.0, longest_seconds=2.0)
    report = SentenceReport()
    assert max(len(record["sources"]) for record in sentences([corpus], settings, report=report)) == 2
    assert report.seconds == pytest.approx(10)


def test_the_command_writes_what_the_library_does(corpus: str, tmp_path: Path, capsys: Any) -> None:
    main(["sentence-data", corpus, str(tmp_path / "out.jsonl"), "--templates", "recognition,caption", "--seed", "3"])
    assert "records (" in capsys.readouterr().out
    settings = SentenceSettings(templates=("recognition", "caption"), seed=3)
    written = load_conversations(tmp_path / "out.jsonl")
    made = list(sentences([corpus], settings))
    assert [one.id for one in written] == [one["id"] for one in made]
    assert all(isinstance(part, AudioPart) for one in written for part in one.audio_parts)
    with pytest.raises(SystemExit):
        main(["sentence-data", corpus, str(tmp_path / "other.jsonl"), "--templates", "singing"])
    assert "name each of recognition" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", [{"templates": ()}, {"min_segments": 1}, {"min_segments": 5, "max_segments": 4}, {"max_seconds": 90}]
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"templates=|min_segments=|min_seconds="):
        SentenceSettings(**settings)
