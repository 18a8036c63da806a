"""Codes mean sounds only to the audio tokenizer that made them: it is named with them, and another one is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from audiollm import AudioLLM
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import AudioPart
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.mini import mini_folder
from audiollm.modeling import question_about
from audiollm.processing import AudioLLMProcessor
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.vocabulary import extend

OWN = "energy 64"


@pytest.fixture
def processor(text_tokenizer, make_llm, audio_tokenizer):
    extend(make_llm(), text_tokenizer, audio_tokenizer.codebook_size)
    return AudioLLMProcessor(text_tokenizer, audio_tokenizer=audio_tokenizer)


def record(made_by=None, **part):
    question = {"role": "user", "content": [{"type": "audio", "codes": [1, 2], **part}]}
    made = {} if made_by is None else {"audio_tokenizer": made_by}
    return {"id": "a", "messages": [question, {"role": "assistant", "content": "yes"}], **made}


@pytest.mark.parametrize("one", [record(), record(OWN), record(audio_tokenizer=OWN), record("x", audio_tokenizer=OWN)])
def test_own_codes_and_codes_of_unknown_origin_are_taken(processor, one):
    ids = processor.encode_conversation(parse_conversation(one)).token_ids
    assert ids == processor.encode_conversation(parse_conversation(record())).token_ids


@pytest.mark.parametrize(
    "one", [record("other"), record(audio_tokenizer="other"), record(OWN, audio_tokenizer="other")]
)
def test_codes_of_another_audio_tokenizer_are_refused_until_they_are_accepted(processor, one):
    conversation = parse_conversation(one, where="train.jsonl:7")
    with pytest.raises(ValueError, match=r"train\.jsonl:7: messages.*another audio tokenizer \(other\).*\(energy 64\)"):
        processor.encode_conversation(conversation)
    with pytest.raises(ValueError, match="another audio tokenizer"):
        processor.apply_chat_template(conversation)
    processor.accepted_codes = frozenset({"other"})
    assert processor.encode_conversation(conversation).token_ids


def test_every_way_into_a_model_refuses_codes_of_another_audio_tokenizer_and_names_both(make_llm, text_tokenizer):
    audio_tokenizer = UniAudioTokenizer.from_pretrained(mini_folder() / "audio_tokenizer", decoder=False)
    model = AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)
    own, foreign = audio_tokenizer.fingerprint(), AudioPart(codes=[1, 2], audio_tokenizer="other")
    chat = [{"role": "user", "content": [foreign.to_dict()]}]
    ways = [
        lambda: model.chat(chat, max_new_tokens=1),
        lambda: model.chat(question_about(foreign, "What?"), max_new_tokens=1),
        lambda: model.chat([chat, chat], max_new_tokens=1),
        lambda: model.processor.apply_chat_template(chat),
        lambda: model.processor.encode_conversations([parse_conversation(record("other"))]),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=rf"another audio tokenizer \(other\) than the LLM's \({own}\)"):
            way()
    same = AudioPart(codes=[1, 2], audio_tokenizer=own)
    assert model.chat(question_about(same, "What?"), max_new_tokens=1).texts


def test_the_maker_survives_reading_and_writing_a_record_and_is_written_once():
    conversation = parse_conversation(record("m"))
    assert conversation.audio_parts[0].audio_tokenizer == "m"
    assert conversation.to_dict() == {**record("m"), "messages": conversation.to_dict()["messages"]}
    assert "audio_tokenizer" not in conversation.to_dict()["messages"][0]["content"][0]
    assert parse_conversation(conversation.to_dict()) == conversation
    own = parse_conversation(record(audio_tokenizer="m"))
    assert own.to_dict()["messages"][0]["content"][0]["audio_tokenizer"] == "m"


@pytest.mark.parametrize(
    ("part", "reason"),
    [({"codes": [1], "audio_tokenizer": 3}, "fingerprint"), ({"path": "a.wav", "audio_tokenizer": "m"}, "made codes")],
)
def test_a_maker_that_makes_no_sense_is_named(part, reason):
    message = {"role": "user", "content": [{"type": "audio", **part}]}
    with pytest.raises(ValueError, match=rf"content\[0\]\.audio_tokenizer: .*{reason}"):
        parse_conversation({"messages": [message]})


def test_tokenizing_a_record_never_claims_codes_that_it_did_not_make(audio_tokenizer, tmp_path):
    recording = {"type": "audio", "array": [0.1] * 1600, "sampling_rate": 16000}

    def tokenized(**codes_part):
        content = [recording, {"type": "audio", "codes": [1, 2], **codes_part}]
        source = [{"id": "a", "messages": [{"role": "user", "content": content}]}]
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        tokenize_corpus(source, audio_tokenizer, output, progress=False)
        return parse_conversation(json.loads(output.read_text()))

    assert [part.audio_tokenizer for part in tokenized().audio_parts] == [OWN, None]
    assert [part.audio_tokenizer for part in tokenized(audio_tokenizer=OWN).audio_parts] == [OWN, OWN]
    with pytest.raises(ValueError, match="codes of another audio tokenizer"):
        tokenized(audio_tokenizer="other")


def test_an_audio_tokenizer_that_was_exchanged_in_a_model_folder_is_refused(tmp_path, caplog):
    model = AudioLLM.from_pretrained()
    assert model.processor.codec_fingerprint == model.processor.audio_tokenizer.fingerprint()
    folder = tmp_path / "model"
    shutil.copytree(mini_folder(), folder)
    other = UniAudioTokenizer.from_pretrained(folder / "audio_tokenizer", decoder=False)
    with torch.no_grad():
        other.codebook.weight[[0, 1]] = other.codebook.weight[[1, 0]]
    shutil.rmtree(folder / "audio_tokenizer")
    other.save_pretrained(folder / "audio_tokenizer")
    exchanged = AudioLLM.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"audio_tokenizer is another audio tokenizer \(fingerprint"):
        exchanged.chat(
            [{"role": "user", "content": [{"type": "audio", "array": [0.1] * 1600, "sampling_rate": 16000}]}]
        )
    model.processor.audio_tokenizer = other  # on purpose, to train the LLM for it: allowed, with a word
    assert "knows the codes of another audio tokenizer" in caplog.text
    assert model.processor.codec_fingerprint == other.fingerprint()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_takes_its_own_audio_tokenizer_back(tmp_path, make_llm, text_tokenizer, dtype):
    audio_tokenizer = UniAudioTokenizer.from_pretrained(mini_folder() / "audio_tokenizer", decoder=False, dtype=dtype)
    AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer).save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    assert config["codec_fingerprint"] == audio_tokenizer.fingerprint()
    for loaded_dtype in (None, torch.bfloat16):
        processor = AudioLLM.from_pretrained(tmp_path / "model").processor
        assert processor.load_audio_tokenizer(dtype=loaded_dtype).codebook_size == audio_tokenizer.codebook_size
