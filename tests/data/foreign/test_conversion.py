"""Converting records of other projects: which format they are, what is written, that nothing is lost or half done."""

import base64
import copy
import json
import random

import numpy as np
import pytest
import soundfile

from audiollm.data.conversation.loading import load_conversations, validate_conversations
from audiollm.data.conversion import convert_data
from audiollm.data.foreign.detection import find_format, formats_of
from audiollm.data.foreign.formats import FORMATS
from audiollm.data.manifest import RecordError
from audiollm.data.tokenizing.corpus import tokenize_corpus
from tests.data.tokenizing.test_corpus import FakeTokenizer, read_lines

RECORDS = {
    "messages": {
        "messages": [
            {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "a.wav"}}]},
            {"role": "assistant", "content": "Yes.", "loss": True},
        ]
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "<audio>Well?"}, {"from": "gpt", "value": "Yes."}],
        "audios": ["a.wav"],
        "system": "Be brief.",
    },
    "query-response": {"query": "Well?", "response": "Yes.", "history": [["x", "y"]], "audios": ["a.wav"]},
    "prompt-completion": {"prompt": "Well?", "completion": "Yes.", "audio": "a.wav"},
    "alpaca": {"instruction": "Well?", "input": "x", "output": "Yes.", "audios": ["a.wav"]},
    "nemo": {"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.5, "text": "Yes.", "source_lang": "en"},
    "lhotse": {
        "id": "c1",
        "start": 0.0,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [{"id": "s1", "start": 0.0, "duration": 1.0, "channel": 0, "text": "Yes."}],
        "recording": {
            "id": "r1",
            "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
            "sampling_rate": 8000,
            "num_samples": 8000,
        },
        "type": "MonoCut",
    },
    "wenet": {"key": "u1", "wav": "a.wav", "txt": "Yes.", "start": 0.1, "end": 0.5},
    "audiofolder": {"file_name": "a.wav", "transcription": "Yes."},
    "common-voice": {"client_id": "f", "path": "../a.wav", "sentence": "Yes."},
    "clips": {"audio": "a.wav", "text": "Yes.", "speaker": "f"},
}


@pytest.fixture
def folder(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    (tmp_path / "clips").mkdir()
    return tmp_path


def write(path, *records):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


# --- which format -----------------------------------------------------------------------------------------------------


def test_every_format_of_records_is_found_by_its_content(folder):
    assert set(RECORDS) == set(FORMATS) - {"kaldi"}
    for name, record in RECORDS.items():
        assert find_format(str(write(folder / "any.name", record))).name == name
        assert formats_of(record) == [name]


def test_what_may_be_two_formats_or_none_is_refused_with_the_choices(folder):
    both = write(folder / "both.jsonl", RECORDS["sharegpt"] | RECORDS["alpaca"])
    with pytest.raises(
        ValueError, match=r"both\.jsonl:1: may be of several formats; choose with --format sharegpt or --format alpaca"
    ):
        find_format(str(both))
    mixed = write(folder / "mixed.jsonl", RECORDS["alpaca"], RECORDS["nemo"])
    with pytest.raises(ValueError, match=r"mixes Alpaca \(.*:1\) and a NeMo manifest \(.*:2\); choose with --format"):
        find_format(str(mixed))
    report = convert_data(mixed, folder / "out.jsonl", format="alpaca", skip_bad=True)
    assert (report.conversations, report.rejected) == (1, 1)
    for content, message in [
        ({"x": 1}, r"none\.jsonl:1: is of no known format; it has x; formats are messages, sharegpt"),
        (
            "plain text",
            r"none\.jsonl:1: is not JSON: .*, nor is it a table of tabs, commas or semicolons with a header",
        ),
        ("", "none.jsonl: holds no records"),
    ]:
        with pytest.raises(ValueError, match=message):
            find_format(str(write(folder / "none.jsonl", content)))
    with pytest.raises(ValueError, match="format 'share' is not known; use one of messages"):
        find_format(str(both), "share")
    with pytest.raises(ValueError, match="nothing: no such file or folder"):
        find_format(str(folder / "nothing"))


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_written_is_well_and_converts_to_itself(folder, name):
    source = write(folder / "theirs.jsonl", RECORDS[name])
    report = convert_data(source, folder / "new" / "ours.jsonl", check_audio=True)
    assert report.rejected == 0
    assert report.num_records == 1
    again = convert_data(folder / "new" / "ours.jsonl", folder / "new" / "again.jsonl")
    assert (folder / "new/ours.jsonl").read_bytes() == (folder / "new/again.jsonl").read_bytes()
    assert (again.conversations, again.clips) == (report.conversations, report.clips)
    if report.conversations:
        assert validate_conversations(folder / "new/ours.jsonl", check_audio=True, for_training=True) == []
    else:
        report = convert_data(source, folder / "asked.jsonl", task="transcribe", instruction="Write it down.")
        assert str(report) == f"read as {FORMATS[name].title}: 1 records (1 conversations), 0 rejected"
        assert validate_conversations(folder / "asked.jsonl", check_audio=True, for_training=True) == []
        (made,) = load_conversations(folder / "asked.jsonl")
        assert (made.messages[1].content[0].text, made.task) == ("Yes.", "transcribe")


def test_sound_inside_records_goes_into_files_named_by_their_content(folder):
    content = (folder / "a.wav").read_bytes()
    encoded = base64.b64encode(content).decode()
    parts = [
        {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{encoded}"}},
        {"type": "text", "text": "Are they the same?"},
    ]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes."}]}
    bad = copy.deepcopy(record)
    bad["messages"][0]["content"][0]["input_audio"]["data"] = base64.b64encode(b"no sound").decode()
    report = convert_data(write(folder / "theirs.jsonl", record, bad), folder / "out.jsonl", skip_bad=True)
    (file,) = (folder / "out_audio").iterdir()
    assert (file.suffix, len(file.stem), file.read_bytes()) == (".wav", 32, content)
    (made,) = read_lines(folder / "out.jsonl")
    assert [part.get("path") for part in made["messages"][0]["content"]] == [f"out_audio/{file.name}"] * 2 + [None]
    assert (report.audio_files, report.audio_folder, report.rejected) == (1, str(folder / "out_audio"), 1)
    assert report.rejected_list == str(folder / "out.jsonl.rejected.jsonl")


def test_paths_start_from_the_file_or_from_the_folder_that_is_given(folder):
    (folder / "lists").mkdir()
    source = write(folder / "lists" / "manifest.jsonl", RECORDS["nemo"])
    with pytest.raises(
        ValueError, match=r"lists/a\.wav: no such file; relative paths start from .*lists \(--base-dir\)"
    ):
        convert_data(source, folder / "out.jsonl")
    convert_data(source, folder / "out.jsonl", base_dir=folder)
    assert read_lines(folder / "out.jsonl")[0]["audio"] == "a.wav"
    convert_data(source, folder / "lists" / "out.jsonl", base_dir=folder)
    assert read_lines(folder / "lists" / "out.jsonl")[0]["audio"] == str(folder / "a.wav")  # not below the output


def test_sound_of_a_rejected_record_is_not_kept(folder):
    encoded = base64.b64encode((folder / "a.wav").read_bytes()).decode()
    parts = [{"type": "input_audio", "input_audio": {"data": encoded}}, {"type": "audio_url", "audio_url": "no.wav"}]
    bad = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes."}]}
    report = convert_data(write(folder / "theirs.jsonl", bad, RECORDS["messages"]), folder / "out.jsonl", skip_bad=True)
    assert (report.conversations, report.audio_files, report.audio_folder) == (1, 0, None)
    assert not (folder / "out_audio").exists()


def test_what_json_cannot_hold_is_rejected_and_not_counted(folder):
    lines = ['{"audio_filepath": "a.wav", "level": NaN}', json.dumps(RECORDS["nemo"])]
    report = convert_data(write(folder / "theirs.jsonl", *lines), folder / "out.jsonl", skip_bad=True)
    assert (report.clips, report.rejected) == (1, 1)
    (rejected,) = read_lines(folder / "out.jsonl.rejected.jsonl")
    assert rejected["reason"].startswith("cannot be written: ")


def test_ids_differ(folder):
    record = RECORDS["nemo"] | {"id": "x"}
    report = convert_data(write(folder / "m.jsonl", record, record), folder / "out.jsonl", skip_bad=True)
    (rejected,) = read_lines(folder / "out.jsonl.rejected.jsonl")
    assert rejected == {
        "index": 1,
        "source": f"{folder}/m.jsonl:2",
        "reason": "id: 'x' is taken by an earlier record; ids must differ",
    }
    assert report.clips == 1


# --- nothing half written, nothing lost -------------------------------------------------------------------------------


def test_an_error_leaves_everything_as_it_was(folder):
    source = write(folder / "m.jsonl", RECORDS["nemo"], {"audio_filepath": "no.wav"})
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match=r"m\.jsonl:2: .*no\.wav: no such file"):
        convert_data(source, folder / "out.jsonl")
    assert sorted(folder.iterdir()) == before
    write(folder / "out.jsonl", "mine")
    with pytest.raises(ValueError, match="exists already; delete it, choose another output, or set --overwrite"):
        convert_data(source, folder / "out.jsonl", skip_bad=True)
    with pytest.raises(ValueError, match="no such file"):
        convert_data(source, folder / "out.jsonl", overwrite=True)
    assert (folder / "out.jsonl").read_text() == "mine\n"
    convert_data(source, folder / "out.jsonl", skip_bad=True, overwrite=True)
    assert len(read_lines(folder / "out.jsonl")) == 1
    good = write(folder / "good.jsonl", RECORDS["nemo"])
    convert_data(good, folder / "out.jsonl", overwrite=True)
    assert not (folder / "out.jsonl.rejected.jsonl").exists()  # it was about other records


def test_settings_without_a_meaning_are_refused(folder):
    chat = write(folder / "chat.jsonl", RECORDS["sharegpt"])
    clips = write(folder / "clips.jsonl", RECORDS["nemo"])
    for options, message in [
        ({"instruction": "x"}, "instruction: records of ShareGPT bring their own questions"),
        ({"text_key": "x"}, "text_key: records of ShareGPT"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert_data(chat, folder / "out.jsonl", **options)
    with pytest.raises(ValueError, match="a task about clips needs an instruction"):
        convert_data(clips, folder / "out.jsonl", task="transcribe")
    with pytest.raises(ValueError, match=r"name the output with \.jsonl"):
        convert_data(clips, folder / "out.parquet")
    with pytest.raises(ValueError, match="is the input"):
        convert_data(clips, clips, overwrite=True)
    convert_data(chat, folder / "out.jsonl", task="greet")
    assert read_lines(folder / "out.jsonl")[0]["task"] == "greet"


VALUES = [
    None,
    True,
    -1,
    0,
    1e308,
    "",
    "x",
    "a\0b",
    "half \ud83d",
    [],
    {},
    ["a", 1, None],
    {"bytes": "x"},
    "http://x/y.wav",
]


def places(value, path=()):
    """The paths to everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(record: dict, draw: random.Random) -> dict:
    record = copy.deepcopy(record)
    *way, last = draw.choice(list(places(record)))
    holder = record
    for key in way:
        holder = holder[key]
    if draw.random() < 0.2 and isinstance(holder, dict):
        holder.pop(last)
    else:
        holder[last] = draw.choice(VALUES)
    return record


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_comes_out_or_is_rejected_with_its_line(folder, name):
    draw = random.Random(3)
    records = [RECORDS[name], *(mutated(RECORDS[name], draw) for _ in range(300))]
    source = write(folder / "theirs.jsonl", *records, "[" * 5000, "{")
    options = {} if FORMATS[name].is_chat else {"instruction": "Well?"}
    report = convert_data(source, folder / "ours.jsonl", format=name, skip_bad=True, **options)
    rejected = read_lines(folder / "ours.jsonl.rejected.jsonl")
    assert report.num_records == len(read_lines(folder / "ours.jsonl"))
    assert report.rejected == len(rejected)
    assert report.num_records + report.rejected == len(records) + 2
    for line in rejected:
        assert f"theirs.jsonl:{line['index'] + 1}" in line["source"]
        assert line["reason"]
    assert validate_conversations(folder / "ours.jsonl", check_audio=False, for_training=True) == []


# --- read where conversations are -------------------------------------------------------------------------------------


def test_sharegpt_is_read_wherever_conversations_are(folder, caplog):
    caplog.set_level("INFO")
    source = write(folder / "theirs.jsonl", RECORDS["sharegpt"])
    convert_data(source, folder / "ours.jsonl")
    theirs, ours = (load_conversations(path, for_training=True) for path in (source, folder / "ours.jsonl"))
    assert theirs[0].messages == ours[0].messages
    assert f"{source}: read as ShareGPT" in caplog.text
    tokenize_corpus(source, FakeTokenizer(), folder / "codes.jsonl", progress=False)
    (made,) = read_lines(folder / "codes.jsonl")
    assert "codes" in made["messages"][1]["content"][0]
    turns = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y", "mark": 1}]
    bad = write(folder / "bad.jsonl", {"conversations": turns}, {"conversations": [turns[0], {"from": "tool"}]})
    assert [str(problem) for problem in validate_conversations(bad)] == [
        f"{bad}:1: turns.mark: unknown key of a turn",
        f"{bad}:2: conversations[1].from: tool: calls of tools are not taken over; write the record as messages",
    ]


def test_recordings_without_a_word_about_them_are_told_with_what_to_write(tmp_path):
    folder = tmp_path / "talks"
    folder.mkdir()
    (folder / "a.opus").touch()
    told = rf"talks: holds neither .*; it holds recordings, and no word of what is said.* write {folder}/metadata\.csv"
    with pytest.raises(RecordError, match=told):
        convert_data(str(folder), str(tmp_path / "out.jsonl"))
