"""Conversations as rows of a multi-stream LM, and its answers: laid out, saved, loaded, asked, scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import PreTrainedTokenizerFast

from audiollm.benchmarks.models.base import AnswerSettings, ChatRequest, WorkedExample
from audiollm.benchmarks.models.opening import open_audio_chat_model
from audiollm.benchmarks.models.uniaudio import UniAudioUnderTest
from audiollm.benchmarks.speech.seed_tts_meta import SpeechItem
from audiollm.benchmarks.speech.synthesis import UniAudioSpeech
from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.types import Conversation, Message, TextPart
from audiollm.uniaudio import TASKS, UniAudio, is_uniaudio, lay_out
from audiollm.uniaudio.processor import rows_of, without_condition
from tests.toy_codec import ToyCodec, register, sound

STREAMS, CODES = 2, 8


@pytest.fixture(autouse=True)
def known_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def uniaudio(make_text_llm: Any, text_tokenizer: PreTrainedTokenizerFast) -> UniAudio:
    text_llm = make_text_llm("qwen2", vocab_size=258, max_position_embeddings=256)
    local = {"hidden_size": 12, "num_hidden_layers": 1}
    made = UniAudio.create(text_llm, ToyCodec(STREAMS, CODES), text_tokenizer, local_decoder=local)
    made.model.eval()
    return made


def chat(*content: Any, answer: Any = None) -> Any:
    messages: list[dict[str, Any]] = [{"role": "user", "content": list(content)}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return parse_conversation({"id": "one", "messages": messages}, where="here")


CLIP = {"type": "audio", "codes": [1, 8 + 2, 3, 8 + 4, 5, 8 + 6]}  # frames (1, 2), (3, 4), (5, 6)
WORDS = {"type": "text", "text": "Hi?"}


def test_a_conversation_is_laid_out_as_it_is_read(uniaudio: UniAudio) -> None:
    processor, config = uniaudio.processor, uniaudio.model.config
    encoded = processor.encode_conversation(chat(CLIP, WORDS, answer="Yes"))
    rows = rows_of(encoded.token_ids, encoded.labels, encoded.frames, config)
    codes = torch.tensor([[1, 3, 5], [2, 4, 6]])
    ids = processor.tokenizer("Hi?\n\n")["input_ids"], [*processor.tokenizer("Yes")["input_ids"], 257]
    parts = {"reasoning": codes, "reconstruction": codes}
    del parts["reasoning"]  # of one group of codes the second part alone
    expected = [lay_out(type(TASKS["ASR"])(("reconstruction",), ()), parts, config)]
    expected += [lay_out("text_only", {"text": one}, config) for one in ids]
    assert torch.equal(rows.input_ids, torch.cat([one.input_ids for one in expected]))
    assert torch.equal(rows.stream_mask, torch.cat([one.stream_mask for one in expected]))
    assert rows.loss_mask.sum() == len(ids[1])
    assert rows.loss_mask[-len(ids[1]) :, -1].all()
    assert encoded.token_ids[0] == processor.vocabulary.start_id
    assert processor.vocabulary.is_audio(torch.tensor(encoded.token_ids)).sum() == 5  # three frames and two marks


def test_sound_is_learned_with_its_marks_and_can_lose_its_condition(uniaudio: UniAudio) -> None:
    encoded = uniaudio.processor.encode_conversation(chat(CLIP, WORDS, answer=[CLIP]))
    ids, labels = np.asarray(encoded.token_ids), np.asarray(encoded.labels)
    assert (labels != IGNORED_LABEL).sum() == 5
    bare, frames = without_condition(ids, labels, encoded.frames, uniaudio.model.config)
    assert (bare[labels == IGNORED_LABEL] == uniaudio.model.config.marks.text_pad).all()
    assert frames is not None
    assert np.array_equal(frames, encoded.frames[-5:])
    assert np.array_equal(bare[-5:], ids[-5:])


def test_recordings_and_their_codes_give_the_same_rows(uniaudio: UniAudio, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound(0.5, 1).numpy(), 16000, subtype="FLOAT")
    heard = uniaudio.processor.encode_conversation(chat({"type": "audio", "path": str(tmp_path / "a.wav")}, WORDS))
    codes = ToyCodec(STREAMS, CODES).encode([sound(0.5, 1)], 16000)[0]
    symbols = uniaudio.processor.layout.to_symbols(codes).tolist()
    given = uniaudio.processor.encode_conversation(chat({"type": "audio", "codes": symbols}, WORDS))
    assert heard.token_ids == given.token_ids
    assert np.array_equal(heard.frames, given.frames)


def test_a_saved_one_answers_alike_wherever_it_lies(uniaudio: UniAudio, tmp_path: Path) -> None:
    uniaudio.save_pretrained(tmp_path / "model")
    assert is_uniaudio(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    loaded = UniAudio.from_pretrained(tmp_path / "moved")
    question = [chat(CLIP, WORDS), chat(WORDS)]
    own, other = (one.chat(question, max_new_tokens=5) for one in (uniaudio, loaded))
    assert own.texts == other.texts
    assert len(own.texts) == 2
    spoken = loaded.answer_in_sound(question, max_frames=3, seed=0)
    assert [len(one) for one in spoken.waveforms] == [1600 * one.shape[1] for one in spoken.codes]
    assert all(one.shape[0] == STREAMS and one.shape[1] <= 3 for one in spoken.codes)
    again = uniaudio.answer_in_sound(question, max_frames=3, seed=0, with_waveforms=False)
    assert all(map(torch.equal, spoken.codes, again.codes))


def test_a_batch_answers_as_each_of_it_alone(uniaudio: UniAudio) -> None:
    questions = [chat(CLIP, WORDS), chat({"type": "text", "text": "What is that, then?"})]
    together = uniaudio.chat(questions, max_new_tokens=6).texts
    assert together == [uniaudio.chat(one, max_new_tokens=6).texts[0] for one in questions]


def test_the_harnesses_open_it_by_its_folder(uniaudio: UniAudio, tmp_path: Path) -> None:
    uniaudio.save_pretrained(tmp_path / "run" / "model")
    soundfile.write(tmp_path / "a.wav", sound(0.5, 1).numpy(), 16000)
    settings = AnswerSettings(max_new_tokens=4)
    model = open_audio_chat_model(tmp_path / "run", settings=settings, device="cpu")
    assert isinstance(model, UniAudioUnderTest)
    answers = model.answer(
        [ChatRequest(str(tmp_path / "a.wav"), "What?"), ChatRequest(str(tmp_path / "a.wav"), "Who?")]
    )
    asked = [chat({"type": "audio", "path": str(tmp_path / "a.wav")}, {"type": "text", "text": text}) for text in
             ("What?", "Who?")]  # fmt: skip
    assert [one.text for one in answers] == uniaudio.chat(asked, max_new_tokens=4).texts
    shot = WorkedExample(str(tmp_path / "a.wav"), "Who?", "She.")
    [with_shot] = model.answer([ChatRequest(str(tmp_path / "a.wav"), "What?", (shot,))])
    turns = [*asked[1].messages, Message("assistant", [TextPart("She.")]), *asked[0].messages]
    assert with_shot.text == uniaudio.chat(Conversation("shots", turns), max_new_tokens=4).texts[0]
    described = model.describe()
    assert described["revision"].startswith("sha256:")
    assert described["tokenizer_revision"].startswith("sha256:")
    speech = UniAudioSpeech(UniAudio.from_pretrained(tmp_path / "run"), str(tmp_path / "run"), max_seconds=0.3)
    waveform, rate = speech.say(SpeechItem("one", "Hi there", None, None, None), seed=1)
    assert rate == 16000
    assert 0 < len(waveform) <= 0.3 * 16000
    assert json.dumps(speech.describe())


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_laid_out_is_named(uniaudio: UniAudio) -> None:
    with pytest.raises(ValueError, match="breaks off before it is whole"):
        uniaudio.processor.encode_conversation(chat({"type": "audio", "codes": [1, 10, 3]}, WORDS))
    with pytest.raises(ValueError, match="cannot be"):
        uniaudio.processor.encode_conversation(chat({"type": "audio", "codes": [10, 1]}, WORDS))
    with pytest.raises(ValueError, match=r"one: .* tokens .* limit is 3"):
        uniaudio.processor.encode_conversation(chat(CLIP), max_length=3)
    called = {"id": "call", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [called]}]
    with pytest.raises(ValueError, match="uses tools"):
        uniaudio.processor.encode_conversation(parse_conversation({"id": "t", "messages": messages}, where="t"))


def test_a_tokenizer_that_does_not_fit_is_refused(uniaudio: UniAudio, tmp_path: Path) -> None:
    uniaudio.save_pretrained(tmp_path / "model")
    facts = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    for sizes, told in (([16, 16], "entries, and the LM was made for 8"), ([8], "1 codebooks, and the LM 2")):
        facts["code_layout"]["codebook_sizes"] = sizes
        (tmp_path / "model" / "processor_config.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=told):
            UniAudio.from_pretrained(tmp_path / "model")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert not is_uniaudio(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no folder of a multi-stream LM"):
        UniAudio.from_pretrained(tmp_path)
