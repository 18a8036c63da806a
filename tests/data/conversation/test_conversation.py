"""The conversation record and where it is read from."""

import functools
import io
import json
import pickle
import re

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.audio.opening import AudioError
from audiollm.data.conversation.loading import load_conversations, validate_conversations
from audiollm.data.conversation.parsing import check_conversation, parse_conversation
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from tests.data.audio.recordings import recording

QUESTION = {"type": "text", "text": "What is said?"}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}


@functools.cache  # a float WAV holds the second of its writing (PEAK chunk): the same samples have other bytes later
def wav(num_samples: int = 800, sample_rate: int = 16_000, num_channels: int = 1) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(num_samples).uniform(-0.5, 0.5, (num_samples, num_channels))
    soundfile.write(file, samples, sample_rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def record(audio: dict, **more) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "audio", **audio}, QUESTION]}, ANSWER], **more}


def write_lines(path, records):
    path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
    return path


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
parts = st.one_of(
    texts.map(TextPart),
    texts.filter(lambda path: "://" not in path and not path.startswith("data:")).map(
        lambda path: AudioPart(path=path)
    ),
    st.binary(max_size=9).map(lambda content: AudioPart(bytes=content)),
    st.lists(st.integers(0, 8191), min_size=1, max_size=9).map(lambda codes: AudioPart(codes=codes)),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9).map(
        lambda samples: AudioPart(array=np.array(samples, np.float32), sampling_rate=16_000)
    ),
)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.lists(parts, min_size=1, max_size=4),
    name=st.none() | texts,
    tool_calls=st.none() | st.just([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]),
    tool_call_id=st.none() | texts,
)
conversations = st.builds(
    Conversation,
    id=texts,
    messages=st.lists(messages, min_size=1, max_size=4),
    task=st.none() | texts,
    tools=st.none() | st.just([{"type": "function", "function": {"name": "f"}}]),
    metadata=st.dictionaries(texts.map("x_".__add__), texts | st.integers() | st.lists(st.booleans()), max_size=3),
)


@given(conversations)
def test_a_conversation_survives_its_dictionary(conversation):
    assert parse_conversation(conversation.to_dict()) == conversation


@given(conversations)
def test_keys_without_value_count_as_absent(conversation):
    """Parquet gives every struct all keys."""

    def with_all_keys(part):
        return {"type": None, "text": None, "path": None, "bytes": None, "audio": None, "codes": None} | part

    full = {"task": None, "tools": None, "audios": None} | conversation.to_dict()
    full["messages"] = [
        message | {"content": [*map(with_all_keys, message["content"])]} for message in full["messages"]
    ]
    assert parse_conversation(full) == conversation


def test_a_string_is_one_text_part_and_other_keys_are_kept():
    conversation = parse_conversation({"messages": [{"role": "user", "content": "Hi"}, ANSWER], "language": "en"})
    assert conversation.messages[0].content == [TextPart("Hi")]
    assert conversation.metadata == {"language": "en"}
    assert conversation.to_dict()["language"] == "en"


@pytest.mark.parametrize(
    "audio",
    [
        {"path": "clip.wav"},
        {"audio": "clip.wav"},
        {"url": "clip.wav"},
        {"path": "file://{folder}/clip.wav"},
        {"audio": {"path": "clip.wav", "bytes": None}},
        {"audio": {"path": "elsewhere.wav", "bytes": wav()}},
        {"bytes": wav(), "path": "elsewhere.wav"},
        {"audio": wav()},
    ],
)
def test_every_spelling_of_a_file_loads_the_same_waveform(tmp_path, audio):
    (tmp_path / "clip.wav").write_bytes(wav())
    audio = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in audio.items()}
    (part,) = parse_conversation(record(audio), base_dir=tmp_path).audio_parts
    waveform, sample_rate = part.load()
    expected, _ = soundfile.read(io.BytesIO(wav()), dtype="float32")
    assert sample_rate == 16_000
    assert np.array_equal(waveform, expected)
    assert torch.equal(torch.cat(list(part.stream(block_seconds=0.01))), waveform)
    assert part.probe().num_samples == 800


@pytest.mark.parametrize(
    "audio",
    [
        {"array": np.array([0.5, -0.5, 0.25]), "sampling_rate": 8000},
        {"audio": {"array": [0.5, -0.5, 0.25], "sampling_rate": 8000, "path": "gone.wav"}},
        {"audio": torch.tensor([0.5, -0.5, 0.25]), "sampling_rate": 8000},
        {"array": np.array([[0.5, -0.5, 0.25], [0, 0, 0]]), "sampling_rate": 8000},
    ],
)
def test_samples_in_memory_load_at_their_own_or_another_rate(audio):
    (part,) = parse_conversation(record(audio)).audio_parts
    assert part.load()[0].tolist() == [0.5, -0.5, 0.25]
    assert part.load(16_000)[0].shape == (6,)
    assert part.probe().duration_seconds == 3 / 8000


def test_audio_is_loaded_as_an_audio_tokenizer_wants_it():
    (part,) = parse_conversation(record({"bytes": wav(50, 44_100, 2)})).audio_parts
    samples, _ = soundfile.read(io.BytesIO(wav(50, 44_100, 2)), dtype="float32")
    waveform, sample_rate = part.load()
    assert sample_rate == 44_100  # the tokenizer resamples its own way
    assert np.array_equal(waveform, samples[:, 0])
    with pytest.raises(ValueError, match="holds codes already"):
        parse_conversation(record({"codes": [1]})).audio_parts[0].load()


def test_placeholders_in_the_text_take_the_record_s_audios_in_order():
    conversation = parse_conversation(
        {
            "messages": [
                {"role": "user", "content": "<audio>First, then <audio>second"},
                {"role": "assistant", "content": [{"type": "text", "text": "<audio>"}]},
            ],
            "audios": ["a.wav", {"path": "b.wav"}, "c.wav"],
        },
        base_dir="/clips",
    )
    a, b, c = (AudioPart(path=f"/clips/{name}.wav") for name in "abc")
    assert conversation.messages[0].content == [a, TextPart("First, then "), b, TextPart("second")]
    assert conversation.messages[1].content == [c]
    assert parse_conversation(conversation.to_dict()) == conversation


def test_without_audios_a_placeholder_is_text():
    conversation = parse_conversation({"messages": [{"role": "user", "content": "Write <audio> in HTML."}]})
    assert conversation.messages[0].content == [TextPart("Write <audio> in HTML.")]


def user(content) -> dict:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (3, r"a record is an object .* not a number \(3\)"),
        ([], "not a list"),
        ({}, "messages: missing; the record has no keys"),
        ({"mesages": []}, "messages: missing; did you mean it by 'mesages'"),
        ({"conversations": []}, "conversations: is empty; give at least one turn"),
        ({"query": "x", "response": "y"}, "messages: missing; this looks like query and response: .*convert-data"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": []}, "messages: is empty"),
        ({"messages": ["hi"]}, r"messages\[0\]: must be an object"),
        ({"messages": [{"content": "x"}]}, r"messages\[0\]\.role: missing; use one of system, user"),
        ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\]\.role: 'bot' is not one of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"messages\[0\]\.role: \['user'\] is not one of"),
        ({"messages": [{"role": "user", "text": "x"}]}, r"messages\[0\]\.text: unknown key"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]\.content: missing"),
        ({"messages": [{"role": "user", "content": "x", "weight": 1}]}, r"messages\[0\]\.weight: unknown key"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": 5}]}, r"tool_calls: must be a list of objects"),
        ({**user("x"), "id": 1.5}, r"id: must be a string or a whole number, not a number \(1\.5\)"),
        ({**user("x"), "task": 3}, "task: must be a string"),
        ({**user("x"), "tools": "{"}, "tools: is a string but not JSON"),
        ({**user("x"), "audios": ["a.wav"]}, "audios: 1 of them have no <audio>"),
        ({**user("<audio><audio>"), "audios": ["a.wav"]}, "content: has more <audio> than the record has audios"),
        (user(""), r"messages\[0\]\.content: is empty"),
        (user([]), r"messages\[0\]\.content: is empty"),
        (user([""]), r"content\[0\]: must be an object"),
        (user(5), r"content: must be a string or a list of parts, not a number \(5\)"),
        (user([{"text": "x"}]), r"content\[0\]\.type: missing; use \"text\" or \"audio\""),
        (user([{"type": "image"}]), r"content\[0\]\.type: 'image' is not known"),
        (user([{"type": "text", "txt": "x"}]), r"content\[0\]\.txt: unknown key; did you mean 'text'\?"),
        (user([{"type": "text", "text": 5}]), r"content\[0\]\.text: must be a string"),
        (user([{"type": "text"}]), r"content\[0\]\.text: missing"),
        (user([{"type": "audio"}]), r"content\[0\]: holds no audio; give exactly one of"),
        (user([{"type": "audio", "pth": "x"}]), r"content\[0\]\.pth: unknown key; did you mean 'path'\?"),
        (user([{"type": "audio", "path": ""}]), r"path: must be the path of an audio file, not empty"),
        (user([{"type": "audio", "path": "file://"}]), r"path: must be the path of an audio file, not empty"),
        (user([{"type": "audio", "path": 5}]), r"path: must be the path of an audio file, not a number"),
        (user([{"type": "audio", "url": "https://a.b/c.wav"}]), "is a URL; download the file"),
        (user([{"type": "audio", "path": "a", "codes": [1]}]), r"holds path and codes; give exactly one"),
        (user([{"type": "audio", "bytes": "UklGRg=="}]), "bytes: must be the bytes of an audio file, not a string"),
        (user([{"type": "audio", "array": [0.5]}]), r"sampling_rate: missing; give the array's rate in Hz"),
        (user([{"type": "audio", "array": [[0.5], [1, 2]], "sampling_rate": 8}]), r"array: .*"),
        (user([{"type": "audio", "array": [0.5, float("nan")], "sampling_rate": 8}]), "array: holds nan at sample 1"),
        (user([{"type": "audio", "path": "a", "sampling_rate": 8}]), "sampling_rate: goes with array only"),
        (user([{"type": "audio", "codes": []}]), "codes: is empty"),
        (user([{"type": "audio", "codes": "1 2"}]), "codes: must be a list of whole numbers, not a string"),
        (user([{"type": "audio", "codes": [1, -1]}]), r"codes\[1\]: -1 is out of range; codes are 0 or more"),
        (user([{"type": "audio", "codes": [1, 2.0]}]), r"codes\[1\]: must be a whole number, not a number \(2\.0\)"),
        (user([{"type": "audio", "codes": [True]}]), r"codes\[0\]: must be a whole number, not a boolean"),
        (user([{"type": "audio", "codes": [[1], [2]]}]), r"codes\[0\]: must be a whole number, not a list"),
    ],
)
def test_a_bad_record_is_an_error_with_file_line_and_field(tmp_path, bad, message):
    with pytest.raises(ConversationError, match=f"^train.jsonl:7: .*{message}"):
        parse_conversation(bad, where="train.jsonl:7")


def test_codes_are_held_against_the_codebook_where_it_is_known():
    good = record({"codes": [0, 8191]})
    assert parse_conversation(good, codebook_size=8192).audio_parts[0].codes == [0, 8191]
    with pytest.raises(ConversationError, match=r"codes\[1\]: 8191 is out of range; codes are from 0 to 4095"):
        parse_conversation(good, codebook_size=4096)


def test_training_needs_an_assistant_turn():
    with pytest.raises(ConversationError, match="no assistant turn"):
        parse_conversation(user("Hi"), for_training=True)
    parse_conversation(record({"codes": [1]}), for_training=True)


def test_all_problems_of_a_record_are_found_and_the_error_counts_them():
    bad = {"messages": [{"role": "bot", "content": [{"type": "audio"}, {"type": "text"}]}], "task": 1}
    conversation, problems = check_conversation(bad)
    assert conversation is None
    assert [problem.field for problem in problems] == [
        "task",
        "messages[0].role",
        "messages[0].content[0]",
        "messages[0].content[1].text",
    ]
    with pytest.raises(ConversationError, match=r"\(and 3 more in this record\)"):
        parse_conversation(bad)


def test_an_empty_system_turn_and_an_assistant_turn_of_tool_calls_are_fine():
    calls = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    conversation = parse_conversation(
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": None, "tool_calls": calls},
                {"role": "tool", "content": "", "name": "f"},
            ],
            "tools": json.dumps([{"type": "function"}]),
        }
    )
    assert conversation.messages[2].tool_calls == calls
    assert conversation.tools == [{"type": "function"}]
    assert parse_conversation(conversation.to_dict()) == conversation


# --- sources ----------------------------------------------------------------------------------------------------------

RECORDS = [
    record({"path": "clip.wav"}, id="a", language="en"),
    record({"codes": [1, 2, 3]}, id="b", language="de"),
    record({"codes": [4]}, id="c", language="fr"),
]


@pytest.fixture
def hub_home(tmp_path, monkeypatch):
    """Keeps what `datasets` caches inside the test's folder."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def sources_of(tmp_path):
    from datasets import Dataset, DatasetDict

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "clip.wav").write_bytes(wav())
    rows = [parse_conversation(item).to_dict() for item in RECORDS]
    dataset = Dataset.from_list(rows)
    dataset.save_to_disk(folder)
    dataset.to_parquet(folder / "rows.parquet")
    (folder / "array.json").write_text(json.dumps(RECORDS, indent=1))
    return {
        "jsonl": write_lines(folder / "lines.jsonl", RECORDS),
        "string": str(folder / "lines.jsonl"),
        "array": folder / "array.json",
        "parquet": folder / "rows.parquet",
        "saved": folder,
        "pattern": folder / "*.jsonl",
        "dataset": dataset,
        "dataset_dict": DatasetDict(train=dataset, test=dataset.select([0])),
        "list": RECORDS,
        "conversations": [parse_conversation(item) for item in RECORDS],
    }


@pytest.mark.usefixtures("hub_home")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_source_gives_the_same_conversations(tmp_path):
    expected = [parse_conversation(item, base_dir=tmp_path / "data") for item in RECORDS]
    for kind, source in sources_of(tmp_path).items():
        loaded = load_conversations(source, base_dir=tmp_path / "data")
        assert len(loaded) == 3, kind
        assert list(loaded) == expected, kind
        assert loaded[-1] == expected[-1], kind
        assert loaded[1:] == expected[1:], kind
        assert loaded[0].audio_parts[0].load()[0].shape == (800,), kind
        assert len(loaded.fingerprint) == 64, kind
        for index in (3, -4):
            with pytest.raises(IndexError):
                loaded[index]


@pytest.mark.usefixtures("hub_home")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_relative_paths_start_from_the_folder_of_the_file(tmp_path, monkeypatch):
    sources = sources_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    for kind in ("jsonl", "string", "array", "parquet", "saved", "pattern"):
        source = sources[kind].relative_to(tmp_path) if kind != "string" else "data/lines.jsonl"
        assert load_conversations(source)[0].audio_parts[0].path == str(tmp_path / "data" / "clip.wav"), kind


def test_audio_columns_are_not_decoded(tmp_path):
    """Decoding them takes a package that we do without."""
    from datasets import Audio, Dataset, Features, Value

    plain = {"role": "user", "content": [{"type": "audio", "audio": {"path": "x.wav", "bytes": wav()}}]}
    part = {"type": Value("string"), "audio": Audio(decode=True)}
    features = Features({"messages": [{"content": [part], "role": Value("string")}]})
    dataset = Dataset.from_list([{"messages": [plain]}]).cast(features)
    (loaded,) = load_conversations(dataset)[0].audio_parts
    assert loaded.bytes == wav()


def test_the_fingerprint_follows_the_content(tmp_path):
    from datasets import Dataset

    def all_fingerprints(records):
        lines = write_lines(tmp_path / "a.jsonl", records)
        rows = Dataset.from_list(records)
        return [load_conversations(source).fingerprint for source in (lines, rows, records)]

    first = all_fingerprints(RECORDS[1:])
    assert all_fingerprints(RECORDS[1:]) == first
    changed = json.loads(json.dumps(RECORDS[1:]).replace("[4]", "[5]"))
    assert all(a != b for a, b in zip(first, all_fingerprints(changed), strict=True))
    with_bytes = [record({"bytes": wav(9)})], [record({"bytes": wav(10)})]
    assert len({load_conversations(item).fingerprint for item in with_bytes}) == 2


def test_lines_are_read_when_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(RECORDS[1]).encode() + b"\r\n\r\n  \n{broken\n\xff\xfe\n")
    loaded = load_conversations(path)
    assert len(loaded) == 3
    assert loaded[0].id == "b"
    with pytest.raises(ConversationError, match=r"a\.jsonl:4: is not JSON: .* at column 2"):
        loaded[1]
    with pytest.raises(ConversationError, match=r"a\.jsonl:5: is not UTF-8"):
        loaded[2]
    assert pickle.loads(pickle.dumps(loaded))[0] == loaded[0]


def test_a_record_without_id_is_called_by_its_place(tmp_path):
    assert load_conversations(write_lines(tmp_path / "a.jsonl", [user("Hi")] * 2))[1].id == "a.jsonl:2"
    assert parse_conversation({**user("x"), "id": 17}).id == "17"


@pytest.mark.usefixtures("hub_home")
def test_a_source_that_is_none_is_named(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + bytes(20))
    (tmp_path / "folder").mkdir()
    (tmp_path / "array.json").write_text("[{},\n{]")
    for source, message in [
        (empty, "holds no records"),
        ([], "holds no records"),
        (tmp_path / "none.jsonl", "no such file or folder"),
        ("none.jsonl", "no such file or folder"),
        ("./none/rows", "no such file or folder"),
        (tmp_path / "a.jsonl.gz", "gunzip"),
        (tmp_path / "cut.parquet", "cannot be read"),
        (tmp_path / "folder", "holds neither a saved data set nor"),
        (tmp_path / "array.json", r"array\.json:2: is not JSON"),
        ("nobody/nothing-here", "nobody/nothing-here: is no file or folder here, and cannot be read with `datasets`"),
    ]:
        with pytest.raises(ConversationError, match=message):
            load_conversations(source)
    with pytest.raises(TypeError, match="not from int"):
        load_conversations(5)


def test_what_is_no_file_of_records_is_told_with_the_command_that_makes_one(tmp_path):
    talks, words, alone = tmp_path / "my talks", tmp_path / "words", tmp_path / "alone"
    for folder in (talks, words, alone / "below"):
        folder.mkdir(parents=True)
        (folder / "a.WAV").write_bytes(recording("WAV"))
    (talks / "metadata.csv").write_text("file_name,text\na.WAV,hello\n")
    (words / "metadata.jsonl").write_text('{"file_name": "a.WAV", "text": "hello"}\n')
    lines = tmp_path / "nemo.jsonl"
    lines.write_text('{"audio_filepath": "a.WAV", "duration": 1.0, "text": "hello"}\n')
    csv = talks / "metadata.csv"
    command = "make records of it with `audiollm convert-data"
    for source, told in [
        (
            talks,
            f"it is an audiofolder: {command} '{talks}' records.jsonl --task transcribe`",
        ),
        (
            csv,
            f"it is a table: {command} '{csv}' records.jsonl --task transcribe`",
        ),
        (
            alone,
            f"no word of what is said in them: write {alone}/metadata.csv, a table with the columns file_n",
        ),
        (alone, f"then run `audiollm convert-data {alone} records.jsonl --task transcribe`"),
        (alone / "below" / "a.WAV", f"it is a recording: give records; write {alone}/below/metadata.csv, a table"),
    ]:
        with pytest.raises(ConversationError, match=re.escape(told)):
            load_conversations(source)
    for source, told in [
        (words, f"an audiofolder: make records of it with `audiollm convert-data '?{words}/metadata.jsonl'? records"),
        (lines, f"a NeMo manifest: make records of it with `audiollm convert-data '?{lines}'? records.jsonl --task tr"),
    ]:
        with pytest.raises(ConversationError, match=told):
            load_conversations(source)[0]


def test_splits_are_chosen_by_name():
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(RECORDS[1:])
    several = DatasetDict(dev=rows, test=rows.select([1]))
    assert len(load_conversations(several, split="test")) == 1
    with pytest.raises(ConversationError, match="several splits; choose split= one of dev, test"):
        load_conversations(several)
    with pytest.raises(ConversationError, match=r"no split 'train'.*dev, test"):
        load_conversations(several, split="train")
    with pytest.raises(ConversationError, match="streamed"):
        load_conversations(rows.to_iterable_dataset())


def test_validation_finds_everything_in_order(tmp_path):
    (tmp_path / "good.wav").write_bytes(wav())
    (tmp_path / "cut.wav").write_bytes(wav()[:-100])
    (tmp_path / "text.wav").write_text("no audio at all")
    records = [
        record({"path": "good.wav"}, id="same"),
        record({"path": "cut.wav"}),
        {"messages": 1},
        record({"path": "none.wav"}, id="same"),
        record({"path": "text.wav"}),
    ]
    path = write_lines(tmp_path / "a.jsonl", records)
    with open(path, "a") as file:
        file.write("{\n")
    structure = [str(problem) for problem in validate_conversations(path)]
    assert [line.removeprefix(str(tmp_path)) for line in structure] == [
        "/a.jsonl:3: messages: must be a list of messages, not a number (1)",
        f"/a.jsonl:4: id: 'same' is taken by {path}:1; ids must differ",
        "/a.jsonl:6: is not JSON: Expecting property name enclosed in double quotes at column 2",
    ]
    everything = [str(problem) for problem in validate_conversations(path, check_audio=True)]
    assert [problem for problem in everything if problem not in structure] == [
        f"{path}:2: messages[0].content[0]: {tmp_path}/cut.wav: is truncated: "
        f"its header promises audio up to byte {len(wav())}, but the file ends at {len(wav()) - 100}",
        f"{path}:4: messages[0].content[0]: {tmp_path}/none.wav: no such file",
        next(problem for problem in everything if "text.wav: is not audio" in problem),
    ]
    assert len(validate_conversations([{}] * 50, max_problems=7)) == 7
    assert [str(problem) for problem in validate_conversations(tmp_path / "none.jsonl")] == [
        f"{tmp_path}/none.jsonl: no such file or folder"
    ]
    assert validate_conversations(RECORDS[1:]) == []


def test_an_audio_error_names_the_record_and_the_file(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [record({"path": "none.wav"})])
    (part,) = load_conversations(path)[0].audio_parts
    for use in (part.load, part.probe, lambda: list(part.stream())):
        with pytest.raises(AudioError, match=r"a\.jsonl:1: messages\[0\]\.content\[0\]: .*/none\.wav: no such file"):
            use()


def test_a_part_holds_exactly_one_kind_of_audio():
    with pytest.raises(ValueError, match="holds nothing; give one of"):
        AudioPart()
    with pytest.raises(ValueError, match="holds path and codes"):
        AudioPart(path="a", codes=[1])
    with pytest.raises(ValueError, match="array and sampling_rate together"):
        AudioPart(array=np.zeros(3))


def test_a_recording_under_a_key_that_nothing_reads_is_a_problem():
    record = user("<audio>What is this?") | {"audio": "a.wav"}
    _, problems = check_conversation(record, where="train.jsonl:1")
    assert [problem.field for problem in problems] == ["audio"]


def test_half_a_character_is_a_problem_with_its_field():
    _, problems = check_conversation(user("half \ud83d"), where="train.jsonl:2")
    assert str(problems[0]).startswith("train.jsonl:2: messages[0].content: holds half a character")
