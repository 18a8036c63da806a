"""Manifests and tables of clips: NeMo, WeNet's raw lists, Common Voice, audiofolders, rows with an audio column."""

import json

import pytest
import soundfile
from datasets import Dataset

QUESTION = {"type": "text", "text": "What is said?"}


def conversation(record: dict) -> tuple[dict, str, str]:
    """The audio part, what is asked and what is answered in a record of one exchange."""
    user, assistant = record["messages"]
    audio, asked = user["content"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return audio, asked["text"], assistant["content"][0]["text"]


def test_a_nemo_manifest_gives_clips_and_with_a_question_conversations(corpus):
    source = corpus.lines(
        "manifest.json",
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "good morning", "lang": "en", "pnc": "no"},
        {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.5, "text": "morning", "lang": None},
    )
    assert corpus.convert(source) == [
        {"id": "manifest.json:1", "audio": "a.wav", "duration": 1.0, "text": "good morning", "language": "en"},
        {"id": "manifest.json:2", "audio": "a.wav", "offset": 0.25, "duration": 0.5, "text": "morning"},
    ]
    assert corpus.report.format == "a NeMo manifest"
    first, second = corpus.convert(source, instruction="Write it down.", task="transcribe")
    assert conversation(first)[1:] == ("Write it down.", "good morning")
    assert first["task"] == "transcribe"
    assert conversation(second)[0] == {"type": "audio", "path": "a.wav", "offset": 0.25, "duration": 0.5}


@pytest.mark.parametrize("asked", ["question", "context"])
@pytest.mark.parametrize("answered", ["answer", "text"])
def test_a_nemo_manifest_for_language_models_brings_its_questions(corpus, asked, answered):
    record = {"audio_filepath": "a.wav", "duration": 1.0, asked: "What is said?", answered: "Good morning."}
    (made,) = corpus.convert(corpus.lines("manifest.jsonl", record))
    assert conversation(made)[1:] == ("What is said?", "Good morning.")


def test_the_text_of_a_translation_is_no_transcript(corpus):
    record = {"audio_filepath": "a.wav", "text": "guten Tag", "source_lang": "en", "target_lang": "de"}
    source = corpus.lines("manifest.jsonl", record)
    (clip,) = corpus.convert(source)
    assert (clip["translation"], clip["language"]) == ("guten Tag", "en")
    assert "text" not in clip
    with pytest.raises(ValueError, match="text: is a translation; use --task translate"):
        corpus.convert(source, task="transcribe", instruction="Write it down.")
    (made,) = corpus.convert(source, task="translate", instruction="Say it in German.")
    assert conversation(made)[1:] == ("Say it in German.", "guten Tag")


def test_a_raw_list_of_wenet_cuts_where_it_says(corpus):
    source = corpus.lines(
        "data.list",
        {"key": "u1", "wav": "a.wav", "txt": "good morning"},
        {"key": "u2", "wav": "a.wav", "txt": "morning", "start": 0.5, "end": 1.0},
        {"key": "u3", "wav": "a.wav", "txt": "", "start": 0.5, "end": 0.5},
    )
    assert corpus.rejections(source) == [f"{source}:3: end: a part from 0.5 s to 0.5 s is none"]
    assert corpus.convert(source, skip_bad=True) == [
        {"id": "u1", "audio": "a.wav", "text": "good morning"},
        {"id": "u2", "audio": "a.wav", "offset": 0.5, "duration": 0.5, "text": "morning"},
    ]


def test_a_table_of_common_voice_finds_its_clips_beside_it(corpus):
    corpus.wav("clips/common_voice_en_1.wav")
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment"
    good = 'f00\tcommon_voice_en_1.wav\ts1\tHe said "no".\t2\t0\t\t\t\ten\t'
    source = corpus.lines("validated.tsv", header, good, "too\tfew", good.replace("en_1", "en_2").replace("f00", "x"))
    few, missing = corpus.rejections(source)
    assert few == f"{source}:3: has 2 columns, but the header has 11"
    assert "clips/common_voice_en_2.wav: no such file" in missing
    assert corpus.convert(source, skip_bad=True) == [
        {
            "id": "common_voice_en_1",
            "audio": "clips/common_voice_en_1.wav",
            "text": 'He said "no".',
            "language": "en",
            "speaker": "f00",
        }
    ]
    assert corpus.convert(source, base_dir=corpus.folder / "clips", skip_bad=True)


def test_an_audiofolder_is_read_with_the_metadata_of_all_its_folders(corpus):
    corpus.wav("set/train/one.wav")
    corpus.wav("set/test/parts/two.wav")
    corpus.lines("set/train/metadata.csv", "file_name,transcription,duration", 'one.wav,"Yes, and ""no""",1.0')
    corpus.lines("set/test/metadata.jsonl", {"file_name": "parts/two.wav", "caption": "Rain."})
    test, train = corpus.convert(corpus.folder / "set")
    assert train == {
        "id": "train/one.wav",
        "audio": "set/train/one.wav",
        "duration": 1.0,
        "text": 'Yes, and "no"',
        "split": "train",
    }
    assert test == {"id": "test/parts/two.wav", "audio": "set/test/parts/two.wav", "caption": "Rain.", "split": "test"}
    assert corpus.report.format == "an audiofolder"
    (described,) = corpus.convert(corpus.folder / "set/test/metadata.jsonl", task="describe", instruction="And?")
    assert conversation(described)[2] == "Rain."


def test_tables_of_spreadsheets_with_semicolons_are_read(corpus):
    corpus.wav("set/one.wav")
    corpus.lines("set/metadata.csv", "\ufefffile_name;text", 'one.wav;"Yes, I do; and no."')
    (made,) = corpus.convert(corpus.folder / "set")
    assert made["text"] == "Yes, I do; and no."


@pytest.mark.parametrize(
    ("header", "text", "message"),
    [
        (
            "file,sentence",
            "Yes.",
            "is not of .*; it has file, sentence: call the column of the recordings file_name, .* in them text",
        ),
        ("file_name,text", "", "text: missing or empty; fill it in, or go on without such records"),
        ("file_name,words", "Yes.", r"text: missing or empty; .* or name its key \(--text-key\)"),
    ],
)
def test_metadata_written_by_hand_are_told_what_to_mend(corpus, header, text, message):
    corpus.wav("set/one.wav")
    corpus.lines("set/metadata.csv", header, f"one.wav,{text}")
    with pytest.raises(ValueError, match=rf"metadata\.csv:2: {message}"):
        corpus.convert(corpus.folder / "set", task="transcribe", instruction="What is said?")


def test_two_metadata_files_in_one_folder_are_refused(corpus):
    for name in ("metadata.csv", "metadata.jsonl"):
        corpus.lines(f"set/{name}", "file_name,text", "one.wav,x")
    with pytest.raises(ValueError, match=r"holds metadata\.csv and metadata\.jsonl; keep one"):
        corpus.convert(corpus.folder / "set")


def test_metadata_in_parquet_and_audio_columns_are_read_without_decoding(corpus):
    corpus.wav("set/one.wav")
    Dataset.from_list([{"file_name": "one.wav", "text": "Yes."}]).to_parquet(corpus.folder / "set/metadata.parquet")
    (made,) = corpus.convert(corpus.folder / "set")
    assert made == {"id": "one.wav", "audio": "set/one.wav", "text": "Yes."}

    content = (corpus.folder / "a.wav").read_bytes()
    rows = [{"audio": {"path": "x.wav", "bytes": content}, "sentence": words} for words in ("Yes.", "No.")]
    Dataset.from_list(rows).to_parquet(corpus.folder / "rows.parquet")
    first, second = corpus.convert(corpus.folder / "rows.parquet")
    assert (first["text"], second["text"]) == ("Yes.", "No.")
    assert first["audio"] == second["audio"]  # the same bytes are written once
    assert (corpus.folder / first["audio"]).read_bytes() == content
    assert corpus.report.audio_files == 1
    assert soundfile.info(corpus.folder / first["audio"]).frames == 8000


def test_text_key_names_what_the_text_is(corpus):
    source = corpus.lines("set/metadata.jsonl", {"file_name": "../a.wav", "transcription": "Yes.", "mood": "calm"})
    (made,) = corpus.convert(source, text_key="mood", instruction="How does it feel?")
    assert conversation(made)[1:] == ("How does it feel?", "calm")
    assert made["transcription"] == "Yes."
    with pytest.raises(ValueError, match="tone: missing; the record has file_name, transcription, mood"):
        corpus.convert(source, text_key="tone")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"audio_filepath": "a.wav", "shard_id": 3}, "shard_id: is of a tarred data set"),
        ({"audio_filepath": "a.wav", "duration": "long"}, "duration: must be seconds"),
        ({"audio_filepath": "a.wav", "offset": -1}, "offset: must be seconds"),
        ({"audio_filepath": "c.wav"}, "no such file"),
        ({"audio_filepath": "a.wav", "question": "What?"}, "answer: missing"),
        ({"audio_filepath": "a.wav", "question": 3, "answer": "x"}, "question: must be a text, not a int"),
        ({"audio_filepath": 3}, "must hold samples|must be the path"),
        ({"audio_filepath": ["a.wav"]}, "sampling_rate: missing"),
        ({"audio_filepath": "a.wav", "text": 3}, "text: must be a text, not a int"),
        ({"audio_filepath": "a.wav", "text": "\ud83d"}, "text: holds half a character"),
        ({"audio": "a.wav"}, "is not of a NeMo manifest"),
    ],
)
def test_a_bad_line_is_rejected_and_the_others_are_kept(corpus, record, message):
    good = {"audio_filepath": "a.wav", "duration": 1.0, "text": "Yes."}
    source = corpus.lines("manifest.jsonl", good, json.dumps(record), "no json", good | {"text": "No."})
    with pytest.raises(ValueError, match=rf"manifest\.jsonl:2: .*({message})"):
        corpus.convert(source, format="nemo")
    assert len(corpus.rejections(source, format="nemo")) == 2
    assert [one["text"] for one in corpus.convert(source, format="nemo", skip_bad=True)] == ["Yes.", "No."]


def test_an_answer_to_no_question_is_the_text_and_never_lost(corpus):
    record = {"audio_filepath": "a.wav", "source_lang": "en", "target_lang": "en", "answer": "good morning"}
    assert corpus.convert(corpus.lines("manifest.jsonl", record))[0]["text"] == "good morning"
    translated = corpus.convert(corpus.lines("other.jsonl", record | {"target_lang": "de"}), "out/other.jsonl")
    assert translated[0]["translation"] == "good morning"
    both = corpus.convert(corpus.lines("both.jsonl", record | {"text": "hello"}), "out/both.jsonl")
    assert (both[0]["text"], both[0]["answer"]) == ("hello", "good morning")
