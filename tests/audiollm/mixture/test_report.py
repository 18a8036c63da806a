"""What the model will see of a mixture: shares, targets, what falls out, examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiollm.data.manifest import RecordError
from audiollm.mixture.report import print_report, report_on_mixture
from audiollm.processing.attached import ForeignCodesError

from .conftest import clip

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}


def clips(count: int, **fields) -> list:
    return [clip(number, **fields) for number in range(count)]


def chats(count: int) -> list:
    return [{"id": f"chat-{number}", **CHAT} for number in range(count)]


def report(file, processor, **settings):
    return report_on_mixture(file, processor, **{"max_length": 1000} | settings)


def test_shares_follow_weights_and_lengths(mixture, processor) -> None:
    file = mixture(
        {
            "clips": (clips(30), {"tasks": ["transcribe"], "weight": 3}),
            "chats": (chats(10), {"tasks": ["text"], "weight": 1}),
        }
    )
    told = report(file, processor)
    spoken, written = told.sources
    assert (spoken.share_of_records, written.share_of_records) == (0.75, 0.25)
    tokens = 3 * spoken.tokens_per_record, written.tokens_per_record
    assert spoken.share_of_tokens == pytest.approx(tokens[0] / sum(tokens))
    assert spoken.share_of_tokens + written.share_of_tokens == pytest.approx(1)
    assert told.records_per_pass == 40
    assert spoken.tasks == {"transcribe": 30}


def test_targets_are_told_by_modality(mixture, processor) -> None:
    file = mixture(
        {
            "asked": (clips(5), {"tasks": ["transcribe"]}),
            "spoken": (clips(5), {"tasks": ["speak"]}),
        }
    )
    asked, spoken = report(file, processor).sources
    assert asked.audio_targets == 0 < asked.text_targets < 1
    assert spoken.audio_targets > 0
    # Three codes and their marks, then the mark that ends the turn.
    assert spoken.audio_targets == pytest.approx(5 / spoken.tokens_per_record)
    assert spoken.text_targets == pytest.approx(1 / spoken.tokens_per_record)


@pytest.mark.parametrize(("temperature", "shares"), [(1, [0.9, 0.1]), (2, [0.75, 0.25])])
def test_a_temperature_evens_sizes_out(mixture, processor, temperature: float, shares: list[float]) -> None:
    file = mixture(
        {"large": (chats(90), {}), "small": (chats(10), {})}, temperature=temperature,
    )  # fmt: skip
    assert [source.share_of_records for source in report(file, processor).sources] == pytest.approx(shares)


def test_a_size_is_what_may_be_taken(mixture, processor) -> None:
    told = report(mixture({"a": (chats(10), {"epochs": 3}), "b": (chats(10), {})}), processor)
    assert told.records_per_pass == 40
    assert told.sources[0].share_of_records == pytest.approx(0.75)
    length = told.sources[0].tokens_per_record
    told = report(mixture({"a": (chats(10), {"tokens": round(4 * length)}), "b": (chats(10), {})}), processor)
    assert told.records_per_pass == 14


def test_what_cannot_be_used_is_counted_by_reason(mixture, processor) -> None:
    records = [*clips(6), {"id": "a", "codes": [1]}, {"id": "b", "codes": [99], "text": "x"}, "{broken", "7"]
    records += [{"id": "long", "codes": [1] * 200, "text": "x"}]
    told = report(mixture({"clips": (records, {"tasks": ["transcribe"]})}), processor, max_length=150)
    (source,) = told.sources
    assert source.looked_at == 11
    assert source.unusable == pytest.approx(5 / 11)
    assert sum(source.reasons.values()) == 5
    assert any("no words spoken" in reason for reason in source.reasons)
    assert "longer than max_length" in source.reasons
    assert any("on_bad is error" in warning for warning in told.warnings)


def test_damaged_shards_are_listed(mixture, processor, tmp_path: Path) -> None:
    file = mixture({"a": (chats(5), {})})
    folder = tmp_path / "many"
    folder.mkdir()
    (tmp_path / "a.jsonl").rename(folder / "a.jsonl")
    (folder / "b.parquet").write_bytes(b"PAR1 and no more")
    file.write_text("sources: [{data: many}]")
    (source,) = report(file, processor).sources
    assert source.num_records == 5
    (damage,) = source.damaged
    assert "b.parquet: is damaged" in damage


def test_one_file_in_two_sources_of_one_task_is_told(mixture, processor, tmp_path: Path) -> None:
    twice = {"data": str(tmp_path / "one.jsonl")}
    sources = {"one": (clips(9), {"tasks": ["transcribe"]}), "other": ([], {**twice, "tasks": ["speak", "transcribe"]})}
    warnings = report(mixture(sources), processor).warnings
    assert any("one.jsonl belongs to one and to other, both with the task transcribe" in told for told in warnings)
    sources["other"] = ([], {**twice, "tasks": ["speak"]})  # which is how one corpus teaches two things
    assert not any("belongs to" in told for told in report(mixture(sources), processor).warnings)


def test_examples_show_text_codes_and_what_is_learned(mixture, processor, capsys) -> None:
    told = report(mixture({"clips": (clips(3), {"tasks": ["transcribe"]})}), processor, num_examples=2)
    (source,) = told.sources
    assert len(source.examples) == 2
    assert "<|audio_start|>[3 codes: 0 1 2]<|audio_end|>" in source.examples[0]
    assert "‹words 0<|im_end|>›" in source.examples[0]
    print_report(told)
    printed = capsys.readouterr().out
    assert "100.0%" in printed
    assert "‹words 0<|im_end|>›" in printed
    assert json.loads(json.dumps(told.to_dict()))["sources"][0]["codes_of"] == [""]


def test_another_seed_asks_in_other_words(mixture, processor) -> None:
    file = mixture({"clips": (clips(20), {"tasks": ["transcribe"]})})
    examples = [report(file, processor, seed=seed, num_examples=20).sources[0].examples for seed in (0, 0, 1)]
    assert examples[0] == examples[1] != examples[2]


def test_codes_of_another_tokenizer_and_of_two_are_refused(mixture, processor) -> None:
    file = mixture({"clips": (clips(3, audio_tokenizer="another one"), {"tasks": ["transcribe"]})})
    with pytest.raises(ForeignCodesError, match=r"clips\.jsonl.*made by another audio tokenizer"):
        report(file, processor)
    without = type(processor)(processor.tokenizer)  # an LLM that does not know whose codes it has
    sources = {name: (clips(3, audio_tokenizer=f"{name}s"), {"tasks": ["transcribe"]}) for name in ("one", "two")}
    with pytest.raises(ValueError, match=r"codes of two audio tokenizers: one \(ones…\) and two \(twos…\)"):
        report(mixture(sources), without)


def test_a_source_that_gives_nothing_is_refused(mixture, processor) -> None:
    with pytest.raises(ValueError, match="empty: holds no records"):
        report(mixture({"chats": (chats(3), {}), "empty": ([], {})}), processor)
    with pytest.raises(ValueError, match="chats: none of the 3 records looked at can be used; 3 times: task sound"):
        report(mixture({"chats": (chats(3), {"tasks": ["sound"]})}), processor)


def test_as_many_reasons_as_records_are_counted_and_not_all_told(mixture, processor, capsys) -> None:
    broken = [clip(number) | {"codes": [number + 0.5]} for number in range(30)]
    config = mixture({"clips": ([*broken, clip(1)], {"tasks": ["transcribe"]})}, on_bad="skip")
    report = report_on_mixture(config, processor, max_length=200)
    (source,) = report.sources
    assert (len(source.reasons), sum(source.reasons.values())) == (30, 30)
    print_report(report)
    told = [line for line in capsys.readouterr().out.splitlines() if "cannot be used" in line and "of 31" in line]
    assert len(told) == 11
    assert told[-1] == "clips: cannot be used: 20 of 31: 20 other reasons"


def test_a_source_without_records_says_how_some_are_made(mixture, processor, tmp_path: Path) -> None:
    talks = tmp_path / "talks"
    talks.mkdir()
    (talks / "a.wav").write_bytes(b"RIFF")
    file = mixture({"clips": (clips(1), {"data": "talks", "tasks": ["transcribe"]})})
    with pytest.raises(RecordError, match=r"talks.*: holds neither .*; .*convert-data .*talks records\.jsonl"):
        report(file, processor)
    (talks / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    with pytest.raises(RecordError, match=r"it is an audiofolder: make records of it with `audiollm convert-data"):
        report(file, processor)
