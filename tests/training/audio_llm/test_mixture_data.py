"""A mixture as what updates are made of: shared out to processes, gone on with, and what happens to bad input."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from accelerate import PartialState

from audiollm.processing.attached import ForeignCodesError
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.training.audio_llm.mixture_data import MixtureData
from audiollm.training.loop.batches import share_of_process
from audiollm.training.loop.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}


def clip(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"clip-{number}", "codes": [number % 64, 1, 2], "text": f"words {number}", **fields}


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_shard(path: Path, records: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=5, use_dictionary=False)


@pytest.fixture(scope="module")
def processor(assets) -> AudioLLMProcessor:
    return AudioLLMProcessor.from_pretrained(assets.audio_llm)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of clips, and chats."""
    (tmp_path / "clips").mkdir()
    for shard in range(3):
        records = [clip(number) for number in range(shard * 12, shard * 12 + 12)]
        write_shard(tmp_path / "clips" / f"{shard}.parquet", records)
    write_jsonl(tmp_path / "chats.jsonl", [{"id": f"chat-{number}", **CHAT} for number in range(9)])
    return tmp_path


def write_mixture(
    folder: Path, clips: dict[str, Any] | None = None, chats: dict[str, Any] | None = None, **more
) -> str:
    sources = [
        {"data": "clips", "tasks": ["transcribe", "speak"], "weight": 3, **(clips or {})},
        {"data": "chats.jsonl", "tasks": ["text"], "weight": 1, **(chats or {})},
    ]
    (folder / "mix.yaml").write_text(yaml.safe_dump({"sources": sources, "shuffle": 10, **more}))
    return str(folder / "mix.yaml")


class Process(SimpleNamespace):
    """One of several processes, as far as data ask for it; what it gathers are the values of all, if given."""

    is_main_process = True
    device = torch.device("cpu")
    others: torch.Tensor | None = None

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.others is None else torch.cat([tensor, self.others])


@pytest.fixture
def open_data(make_config, processor, tmp_path: Path):
    def open_data(
        mixture: str,
        process: int = 0,
        num_processes: int = 1,
        max_length: int = 256,
        limit: str = "max_length",
        speaks_in_turns: bool = False,
        **settings,
    ) -> MixtureData:
        config = make_config(train_data=mixture, **settings)
        Path(config.output_dir).mkdir(exist_ok=True)
        accelerator: Any = Process(process_index=process, num_processes=num_processes)
        return MixtureData(
            accelerator,
            config,
            processor,
            vocabulary_size=len(processor.text_tokenizer),
            max_length=max_length,
            limit=limit,
            speaks_in_turns=speaks_in_turns,
        )

    return open_data


def encoded(data: MixtureData, step: int, process: int = 0, num_processes: int = 1) -> list[tuple[str, bytes, bytes]]:
    share = share_of_process(data.places(step), process, num_processes)
    return [(one.record_id, one.token_ids.tobytes(), one.labels.tobytes()) for one in data.encode(step, share)]


def encode_updates(data: MixtureData) -> None:
    for step in range(1, 20):
        encoded(data, step)


@pytest.mark.parametrize("num_processes", [2, 3, 8, 11])
def test_processes_share_every_update_out_none_twice_and_none_lost(folder, open_data, num_processes: int) -> None:
    mixture = write_mixture(folder)
    alone = open_data(mixture, check_data=False)
    all_of_them = [open_data(mixture, process, num_processes, check_data=False) for process in range(num_processes)]
    for step in range(1, 20):
        shares = [encoded(data, step, process, num_processes) for process, data in enumerate(all_of_them)]
        assert sorted(record for share in shares for record in share) == sorted(encoded(alone, step))


def test_one_pass_over_sources_that_run_out_has_every_record_once(folder, open_data) -> None:
    data = open_data(write_mixture(folder, {"epochs": 1, "tasks": ["transcribe"]}, {"epochs": 1}), max_steps=None)
    assert data.total_steps == 6  # 45 records, 8 an update
    seen = Counter(record for step in range(1, 7) for record, _, _ in encoded(data, step))
    wanted = {f"clip-{number}/transcribe" for number in range(36)} | {f"chat-{number}" for number in range(9)}
    assert seen == Counter(wanted)


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_a_checkpoint_goes_on_record_for_record_on_any_number_of_processes(
    folder, open_data, num_processes: int
) -> None:
    mixture = write_mixture(folder)
    straight = open_data(mixture)
    expected = [sorted(encoded(straight, step)) for step in range(1, 31)]
    stopped = open_data(mixture)
    for step in range(1, 14):
        encoded(stopped, step)
        stopped.made(step - 1)
    stopped.made(12)
    state = stopped.extras["data"].state_dict()
    resumed = [open_data(mixture, process, num_processes) for process in range(num_processes)]
    for data in resumed:
        data.extras["data"].load_state_dict(state)
    for step in range(13, 31):
        shares = [encoded(data, step, process, num_processes) for process, data in enumerate(resumed)]
        assert sorted(record for share in shares for record in share) == expected[step - 1]


def test_a_second_pass_asks_in_other_words_the_same_for_all(folder, open_data) -> None:
    mixture = write_mixture(folder, {"tasks": ["transcribe"]}, {"weight": 0.001})
    data = open_data(mixture)
    records = [record for step in range(1, 13) for record in encoded(data, step)]
    by_id: dict[str, set[bytes]] = {}
    for record_id, token_ids, _ in records:
        by_id.setdefault(record_id, set()).add(token_ids)
    assert sum(len(wordings) > 1 for wordings in by_id.values()) > 20


def test_start_up_reads_a_sample_and_says_so(folder, open_data, caplog, monkeypatch) -> None:
    many = folder / "many"
    many.mkdir()
    for shard in range(200):
        write_shard(many / f"{shard:03}.parquet", [clip(number) for number in range(5)])
    from audiollm.data.streaming import shards

    read: list[str] = []
    original = shards._ParquetContent.read
    monkeypatch.setattr(
        shards._ParquetContent, "read", lambda self, number: read.append(self._file.name) or original(self, number)
    )
    with caplog.at_level("INFO"):
        open_data(write_mixture(folder, {"data": "many"}, check_records=20))
    assert len(set(read)) <= 32
    assert "many: 20 of 1,000 records looked at before the first update, 20 of them usable" in caplog.text


# --- bad input -------------------------------------------------------------------------------------------------------


def spoil(shard: Path) -> None:
    """Overwrites the second of its row groups."""
    content = bytearray(shard.read_bytes())
    start = pyarrow.parquet.ParquetFile(shard).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 40] = bytes(40)
    shard.write_bytes(content)


def test_a_corrupt_shard_in_the_middle_of_an_epoch_stops_by_its_name(folder, open_data) -> None:
    data = open_data(write_mixture(folder), check_data=False)
    spoil(folder / "clips" / "1.parquet")
    with pytest.raises(DataError, match=r"clips: .*1\.parquet:row 5 and those after it: is damaged"):
        encode_updates(data)


def test_a_corrupt_shard_is_skipped_and_counted_if_that_is_wanted(folder, open_data, tmp_path) -> None:
    mixture = write_mixture(folder, {"epochs": 1, "tasks": ["transcribe"]}, {"epochs": 1}, on_bad="skip")
    data = open_data(mixture, check_data=False, max_steps=None)
    spoil(folder / "clips" / "1.parquet")
    seen, skipped = [], 0
    for step in range(1, data.total_steps + 1):
        seen += encoded(data, step)
        skipped += data.agree(step).facts.get("skipped", 0)
    assert len(seen) == 40
    assert skipped == 5
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped_train.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert {(line["source"], "is damaged" in line["reason"]) for line in lines} == {("clips", True)}


def test_a_shard_without_its_end_is_left_out_whole(folder, open_data, caplog) -> None:
    shard = folder / "clips" / "2.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"2\.parquet: is damaged"):
        open_data(write_mixture(folder))
    mixture = write_mixture(folder, {"epochs": 1, "tasks": ["transcribe"]}, {"epochs": 1}, on_bad="skip")
    data = open_data(mixture, max_steps=None)
    assert "clips is left out: " in caplog.text
    seen = [record for step in range(1, data.total_steps + 1) for record in encoded(data, step)]
    assert len(seen) == 24 + 9


def test_a_record_longer_than_the_budget_is_an_error_or_counted(folder, open_data) -> None:
    write_shard(folder / "clips" / "1.parquet", [clip(number) for number in range(11)] + [clip(50, codes=[1] * 300)])
    with pytest.raises(
        DataError, match=r"1 of 45 records looked at .*\n.*1\.parquet:row 11: \d+ tokens are more than max"
    ):
        open_data(write_mixture(folder))
    with pytest.raises(DataError, match=r"clips: .*1\.parquet:row 11: \d+ tokens are more than max_length=256"):
        encode_updates(open_data(write_mixture(folder), check_data=False))
    data = open_data(write_mixture(folder, {"epochs": 1}, {"epochs": 1}), max_steps=None, on_too_long="skip")
    reports = []
    for step in range(1, data.total_steps + 1):
        encoded(data, step)
        reports.append(data.agree(step).facts)
    assert sum(report.get("skipped", 0) for report in reports) == 1


def test_a_record_longer_than_a_pass_is_told_with_that_setting(folder, open_data, caplog, tmp_path) -> None:
    write_shard(folder / "clips" / "1.parquet", [clip(50, codes=[1] * 150)] * 12)
    settings = {"max_length": 200, "limit": "tokens_per_pass", "on_too_long": "skip", "max_steps": 20}
    data = open_data(write_mixture(folder), **settings)
    assert "clips: 12 of 36: longer than tokens_per_pass" in caplog.text
    for step in range(1, 9):
        encoded(data, step)
        data.agree(step)
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped_train.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"longer than tokens_per_pass"}


def test_a_file_that_is_written_while_it_is_read_stops_by_its_name(folder, open_data) -> None:
    data = open_data(write_mixture(folder), check_data=False)
    for shard in range(3):
        write_shard(folder / "clips" / f"{shard}.parquet", [clip(number) for number in range(7)])
    with pytest.raises(ValueError, match=r"\d\.parquet: has changed while it was read \(from [\d,]+ to [\d,]+ bytes"):
        encode_updates(data)


def test_a_file_that_is_written_while_it_is_read_is_left_out_and_counted(folder, open_data) -> None:
    data = open_data(write_mixture(folder, on_bad="skip"), check_data=False)
    encoded(data, 1)
    write_shard(folder / "clips" / "0.parquet", [clip(number) for number in range(7)])
    for step in range(2, 20):
        encoded(data, step)
    reports = [data.agree(step).facts for step in range(1, 20)]
    lost = sum(report.get("skipped", 0) for report in reports)
    assert lost > 0 or any("0.parquet" in where for where in data.sources[0].damaged)


SAY_IT = {"role": "user", "content": "Say yes."}
WRITTEN = {"type": "text", "text": "Yes."}
SOUND = {"type": "audio", "codes": [1, 2]}


@pytest.mark.parametrize(
    ("answer", "speaks_in_turns", "told"),
    [
        ([SOUND], True, "chats.jsonl: 9 of 9 answers in sound that were looked at do not write what they say"),
        ([WRITTEN, SOUND, WRITTEN, SOUND], False, "chats.jsonl: 9 of 9 answers in sound that were looked at write and"),
        ([WRITTEN, SOUND, WRITTEN, SOUND], True, None),
        ([SOUND], False, None),
    ],
)
def test_ready_made_answers_in_another_form_than_the_model_is_asked_for_are_told(
    folder, open_data, caplog, answer, speaks_in_turns, told
) -> None:
    chat = {"messages": [SAY_IT, {"role": "assistant", "content": answer}]}
    write_jsonl(folder / "chats.jsonl", [{"id": f"chat-{number}", **chat} for number in range(9)])
    file = write_mixture(folder, clips={"tasks": ["transcribe"]}, chats={"tasks": ["conversation"]})
    open_data(file, speaks_in_turns=speaks_in_turns)
    assert (told in caplog.text) if told else "answers in sound" not in caplog.text


def test_tasks_that_speak_without_writing_are_told_where_the_model_speaks_in_turns(folder, open_data, caplog) -> None:
    open_data(write_mixture(folder), speaks_in_turns=True)
    assert "do not write what they say, and this model is asked to speak in turns" in caplog.text


def test_a_source_that_a_run_is_likely_to_see_nothing_of_is_told(folder, open_data, caplog) -> None:
    open_data(write_mixture(folder, {"weight": 1e-320}), max_steps=30)
    assert "clips: 30 updates are likely to draw none of its records: raise its weight, or take it out" in caplog.text
    caplog.clear()
    open_data(write_mixture(folder), max_steps=30)
    assert "likely" not in caplog.text


def test_codes_that_do_not_say_who_made_them_are_told(folder, open_data, processor, caplog) -> None:
    open_data(write_mixture(folder))
    assert "clips: codes in 36 of 36 records don't say which audio tokenizer made them" in caplog.text
    caplog.clear()
    for shard in range(3):
        records = [clip(number, audio_tokenizer=processor._attached.fingerprint) for number in range(12)]
        write_shard(folder / "clips" / f"{shard}.parquet", records)
    open_data(write_mixture(folder))
    assert "don't say" not in caplog.text


def test_a_mixture_in_which_hardly_anything_is_learned_is_told(folder, open_data, caplog) -> None:
    write_jsonl(folder / "chats.jsonl", [{"id": f"chat-{number}", **CHAT} for number in range(9)])
    long = {"messages": [{"role": "user", "content": "hi " * 1000}, {"role": "assistant", "content": "y"}]}
    write_jsonl(folder / "clips" / "0.jsonl", [long] * 9)
    for shard in range(3):
        (folder / "clips" / f"{shard}.parquet").unlink()
    settings = {"max_length": 9000, "max_steps": 20}
    open_data(write_mixture(folder, {"tasks": ["text"], "weight": 99}), **settings)
    assert "% of the tokens carry loss" in caplog.text
    caplog.clear()
    open_data(write_mixture(folder, {"tasks": ["text"], "weight": 1e-9}), **settings)
    assert "carry loss" not in caplog.text


def test_a_task_that_fields_cannot_fill_stops_or_is_counted(folder, open_data) -> None:
    records = [clip(number) for number in range(10)] + [{"id": "x", "codes": [1]}, "7"]
    write_jsonl(folder / "chats.jsonl", records)
    with pytest.raises(DataError, match=r"2 of 48 .*\n.*chats\.jsonl:byte \d+: task transcribe: has no words spoken"):
        open_data(write_mixture(folder, chats={"tasks": ["transcribe"]}))
    open_data(write_mixture(folder, chats={"tasks": ["transcribe"]}, on_bad="skip"))
    with pytest.raises(DataError, match=r"chats\.jsonl: none of the 12 records looked at can be used"):
        open_data(write_mixture(folder, chats={"tasks": ["emotion"]}, on_bad="skip"))


def test_codes_of_another_tokenizer_stop_a_run_even_if_bad_records_are_skipped(folder, open_data) -> None:
    write_shard(folder / "clips" / "1.parquet", [clip(number, audio_tokenizer="f" * 64) for number in range(12)])
    with pytest.raises(ForeignCodesError, match=r"1\.parquet:row \d+: .*made by another audio tokenizer"):
        open_data(write_mixture(folder, on_bad="skip"))
    data = open_data(write_mixture(folder, on_bad="skip"), check_data=False)
    with pytest.raises(DataError, match="made by another audio tokenizer"):
        encode_updates(data)


def test_every_shard_that_says_who_made_its_codes_is_looked_at_before_the_first_update(folder, open_data) -> None:
    """The sample is of one record, and what is wrong stands at the end of another file."""
    shard = folder / "clips" / "2.parquet"
    table = pyarrow.parquet.read_table(shard)
    facts = {b"audiollm": json.dumps({"audio_tokenizer": "f" * 64})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(facts), shard)
    with pytest.raises(DataError, match=r"2\.parquet: its codes were made by another audio tokenizer"):
        open_data(write_mixture(folder, check_records=1, on_bad="skip"))


def test_a_folder_of_codes_that_is_not_finished_is_refused(folder, open_data) -> None:
    (folder / "clips" / ".job").mkdir()
    (folder / "clips" / ".job" / "job.json").write_text(json.dumps({"num_shards": 5}))
    with pytest.raises(ValueError, match="holds 0 of 5 shards of codes"):
        open_data(write_mixture(folder))


def test_codes_of_two_tokenizers_are_refused_where_the_llm_knows_none(
    folder, open_data, processor, monkeypatch
) -> None:
    monkeypatch.setattr(type(processor._attached), "fingerprint", None)
    for shard, maker in ((0, "a" * 64), (1, "b" * 64)):
        path = folder / "clips" / f"{shard}.parquet"
        write_shard(path, [clip(number, audio_tokenizer=maker) for number in range(12)])
    with pytest.raises(DataError, match="codes of two audio tokenizers: clips"):
        open_data(write_mixture(folder))
    data = open_data(write_mixture(folder), check_data=False)
    with pytest.raises(DataError, match="codes of two audio tokenizers"):
        encode_updates(data)


def test_an_empty_source_is_refused(folder, open_data) -> None:
    (folder / "chats.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"chats\.jsonl: holds no records"):
        open_data(write_mixture(folder))


@pytest.mark.parametrize("settings", [{"max_steps": 7}, {"max_steps": None, "num_epochs": 2.0}])
def test_a_run_longer_than_its_sources_is_refused_before_it_starts(folder, open_data, settings) -> None:
    with pytest.raises(ValueError, match="all sources have run out after 45: raise their epochs or tokens"):
        open_data(write_mixture(folder, {"epochs": 1}, {"epochs": 1}), **settings)
    open_data(write_mixture(folder, {"epochs": 1}), **settings)


def test_a_source_runs_out_after_its_tokens(folder, open_data) -> None:
    with pytest.raises(ValueError, match="tokens needs check_data=true"):
        open_data(write_mixture(folder, chats={"tokens": 100}), check_data=False)
    data = open_data(write_mixture(folder, chats={"tokens": 100}))
    tokens = sum(len(ids) // 4 for step in range(1, 60) for record, ids, _ in encoded(data, step) if "chat" in record)
    assert 100 <= tokens < 200


def test_processes_that_see_other_files_stop(folder, open_data) -> None:
    data = open_data(write_mixture(folder))
    encoded(data, 1)
    data._accelerator.others = torch.tensor([[12345, 0]])
    with pytest.raises(
        DataError, match=r"update 1: processes read different records: the files of .* must be the same"
    ):
        data.agree(1)


def test_other_files_weights_or_tasks_are_another_run(folder, open_data) -> None:
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {}), ({}, {}), ({"weight": 2}, {})]
    changes += [({"tasks": ["transcribe"]}, {}), ({"epochs": 9}, {}), ({}, {"shuffle": 4})]
    metadata = [open_data(write_mixture(folder, clips, **more)).metadata for clips, more in changes]
    assert metadata[0] == metadata[1]
    assert all(other != metadata[0] for other in metadata[2:])
    shutil.copy(folder / "clips" / "0.parquet", folder / "clips" / "3.parquet")
    assert (
        open_data(write_mixture(folder)).metadata["sources"]["clips"]["files"]
        != (metadata[0]["sources"]["clips"]["files"])
    )


# --- updates of a number of tokens -----------------------------------------------------------------------------------


class Exchange:
    """Lets the processes of a test, each a thread, gather tensors: all wait for the last."""

    def __init__(self, num_processes: int) -> None:
        self._barrier = threading.Barrier(num_processes, timeout=60)
        self._tensors: dict[int, torch.Tensor] = {}

    def gather(self, process: int, tensor: torch.Tensor) -> torch.Tensor:
        self._tensors[process] = tensor
        self._barrier.wait()
        gathered = torch.cat([self._tensors[number] for number in sorted(self._tensors)])
        self._barrier.wait()
        return gathered


Encoded = tuple[str, bytes, bytes]
BY_TOKENS = {"tokens_per_update": 500, "global_batch_size": 64, "max_steps": 20}


def token_updates(
    open_data, mixture: str, last: int, num_processes: int = 1, state: dict | None = None, **settings
) -> tuple[list[list[Encoded]], list[dict], dict]:
    """The records of updates up to ``last``, what is said of them, and the state behind them; on several processes."""
    exchange = Exchange(num_processes)
    data = [open_data(mixture, process, num_processes, **BY_TOKENS, **settings) for process in range(num_processes)]
    for process, one in enumerate(data):
        one._accelerator.gather = partial(exchange.gather, process)
        if state is not None:
            one.extras["data"].load_state_dict(state)
    first = 1 if state is None else state["step"] + 1

    def run(process: int) -> list[tuple[list[Encoded], dict]]:
        found = []
        for step in range(first, last + 1):
            if (step + process) % 2:  # else the round is read when it is needed
                data[process].read_ahead()
            agreed = data[process].agree(step)
            mine = [(one.record_id, one.token_ids.tobytes(), one.labels.tobytes()) for one in agreed.records]
            found.append((mine, agreed.facts))
            data[process].made(step)
        return found

    with ThreadPoolExecutor(num_processes) as processes:
        parts = list(processes.map(run, range(num_processes)))
    states = [one.extras["data"].state_dict() for one in data]
    assert all(other == states[0] for other in states)
    updates = [sorted(record for part in one for record in part[0]) for one in zip(*parts, strict=True)]
    return updates, [facts for _, facts in parts[0]], json.loads(json.dumps(states[0]))


@pytest.fixture
def lengths_vary(folder, monkeypatch) -> Path:
    """Clips of 3 … 40 codes, one of which cannot be used."""
    for shard in range(3):
        numbers = range(shard * 12, shard * 12 + 12)
        records = [clip(number, codes=[number % 64] * (3 + number * number % 38)) for number in numbers]
        write_shard(folder / "clips" / f"{shard}.parquet", records)
    bad = {"id": "bad", "messages": [{"role": "user", "content": "hi"}]}
    write_jsonl(folder / "chats.jsonl", [{"id": f"chat-{number}", **CHAT} for number in range(8)] + [bad])
    # What is no tensor is not exchanged between the threads of a test: each looks at all of the sample.
    PartialState(cpu=True)
    monkeypatch.setattr("audiollm.training.audio_llm.mixture_data.gather_object", lambda lines: lines)
    monkeypatch.setattr("audiollm.training.audio_llm.mixture_data.share_of_process", lambda numbers, *_: numbers)
    return folder


@pytest.mark.parametrize("num_processes", [2, 3, 5])
def test_updates_of_tokens_are_the_same_on_any_number_of_processes(lengths_vary, open_data, num_processes) -> None:
    mixture = write_mixture(lengths_vary, on_bad="skip")
    alone, facts, _ = token_updates(open_data, mixture, 15)
    tokens = [sum(len(token_ids) // 4 for _, token_ids, _ in update) for update in alone]
    assert all(350 < count <= 500 for count in tokens)
    assert sum(one.get("skipped", 0) for one in facts) > 0
    together, said, _ = token_updates(open_data, mixture, 15, num_processes)
    assert together == alone
    assert said == facts


@pytest.mark.parametrize("num_processes", [1, 3])
def test_updates_of_tokens_go_on_record_for_record_on_any_number_of_processes(
    lengths_vary, open_data, num_processes
) -> None:
    mixture = write_mixture(lengths_vary, on_bad="skip")
    expected, facts, _ = token_updates(open_data, mixture, 20)
    for stop in (1, 7, 12):
        _, _, state = token_updates(open_data, mixture, stop)
        resumed, said, _ = token_updates(open_data, mixture, 20, num_processes, state)
        assert resumed == expected[stop:]
        assert said == facts[stop:]


def test_updates_of_tokens_need_their_number_and_room_for_a_record(lengths_vary, open_data) -> None:
    mixture = write_mixture(lengths_vary, on_bad="skip")
    with pytest.raises(ValueError, match="tokens_per_update with a mixture needs max_steps"):
        open_data(mixture, tokens_per_update=500, global_batch_size=64, max_steps=None)
    with pytest.raises(DataError, match=r"tokens are more than tokens_per_update=60: .*raise tokens_per_update"):
        open_data(mixture, **BY_TOKENS | {"tokens_per_update": 60}, max_length=60, limit="tokens_per_update")


def test_a_bad_record_stops_an_update_of_tokens_when_it_is_reached(lengths_vary, open_data) -> None:
    write_jsonl(lengths_vary / "chats.jsonl", [{"id": f"chat-{number}", **CHAT} for number in range(300)])
    mixture = write_mixture(lengths_vary, check_records=5)
    data = open_data(mixture, **BY_TOKENS)
    spoil(lengths_vary / "clips" / "1.parquet")

    def go_on() -> None:
        for step in range(1, 20):
            data.read_ahead()  # meets it first, and says nothing
            assert data.agree(step).records

    with pytest.raises(DataError, match=r"1\.parquet:row 5 and those after it: is damaged"):
        go_on()


def test_a_search_without_end_stops(lengths_vary, open_data, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("audiollm.training.audio_llm.mixture_data._MOST_LEFT_OUT", 40)
    data = open_data(write_mixture(lengths_vary, on_bad="skip"), **BY_TOKENS)
    for source in data.sources:
        monkeypatch.setattr(source, "conversation", lambda place: (_ for _ in ()).throw(ValueError("bad today")))
    with pytest.raises(
        DataError, match=r"update 1: none of \d+ records in a row can be used; skipped_train\.jsonl says"
    ):
        data.agree(1)
    assert "bad today" in (tmp_path / "run" / "skipped_train.jsonl").read_text()


def test_processes_that_see_other_files_stop_before_an_update_of_tokens(lengths_vary, open_data) -> None:
    data = open_data(write_mixture(lengths_vary, on_bad="skip"), **BY_TOKENS)
    data._accelerator.others = torch.tensor([12345])
    with pytest.raises(DataError, match=r"update 1: processes read different records"):
        data.agree(1)


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Say yes.", "input": "", "output": "Yes."},
        {"query": "Say yes.", "response": "Yes."},
        {"conversations": [{"from": "human", "value": "Say yes."}, {"from": "gpt", "value": "Yes."}]},
    ],
)
def test_keys_of_other_projects_that_are_read_are_not_called_unread(folder, open_data, caplog, record) -> None:
    mixture = folder / "chats.yaml"
    mixture.write_text("sources: [{data: chats.jsonl, tasks: [text]}]")
    for more, told in [({}, False), ({"anwser": "oh"}, True)]:
        lines = [json.dumps({"id": str(number), **record, **more}) + "\n" for number in range(3)]
        (folder / "chats.jsonl").write_text("".join(lines))
        open_data(str(mixture))
        assert ("keys that nothing reads: anwser (3 records)" in caplog.text) == told
        assert ("nothing reads" in caplog.text) == told
