"""A multi-stream LM on a tokenizer whose codes have two rates: both are laid out, written and heard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from transformers import PreTrainedTokenizerFast

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.tokenizer.base import GroupedCodes
from audiollm.tokenizer.grouped import GroupedSequenceTokenizer
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.uniaudio import TASKS, UniAudio, lay_out
from audiollm.uniaudio.layout import Task
from audiollm.uniaudio.processor import code_layout, rows_of
from tests.tokenizer.reasoningcodec.conftest import RATE, make

STREAMS = 4


@pytest.fixture(scope="module")
def codec() -> ReasoningCodec:
    return make(reasoning_quantizer=(STREAMS, 32, 8))


@pytest.fixture
def uniaudio(
    codec: ReasoningCodec, make_text_llm: Callable[..., Any], text_tokenizer: PreTrainedTokenizerFast
) -> UniAudio:
    text_llm = make_text_llm("qwen2", vocab_size=258, max_position_embeddings=256)
    local = {"hidden_size": 12, "num_hidden_layers": 1}
    made = UniAudio.create(text_llm, codec, text_tokenizer, local_decoder=local)
    made.model.eval()
    return made


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    noise = 0.3 * torch.randn(RATE, generator=torch.Generator().manual_seed(1)) * torch.linspace(0, 1, RATE)
    soundfile.write(tmp_path / "a.wav", noise.numpy(), RATE, subtype="FLOAT")
    return tmp_path / "a.wav"


def chat(part: dict[str, Any], answer: Any = None) -> Any:
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "Hi?"}]}]
    messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    return parse_conversation({"id": "one", "messages": messages}, where="here")


def heard(codec: ReasoningCodec, path: Path) -> dict[str, torch.Tensor]:
    waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    codes = codec.encode([waveform], RATE)
    assert isinstance(codes, GroupedCodes)
    return codes.clip(0)


def test_both_groups_stand_in_the_streams_as_in_the_published_layout(uniaudio, codec, recording):
    processor, config = uniaudio.processor, uniaudio.model.config
    assert (config.reasoning_vocab_size, config.reconstruction_vocab_size) == (32 + 3, 32 + 3)
    clip = {"type": "audio", "path": str(recording)}
    encoded = processor.encode_conversation(chat(clip, [clip]))
    rows = rows_of(encoded.token_ids, encoded.labels, encoded.frames, config)
    codes = heard(codec, recording)
    assert codes["reasoning"].shape == (STREAMS, 5)
    assert codes["reconstruction"].shape == (STREAMS, 13)
    sound = lay_out("audio_only", codes, config)
    ids = processor.tokenizer("Hi?\n\n")["input_ids"]
    between = lay_out("text_only", {"text": ids}, config)
    assert torch.equal(rows.input_ids, torch.cat([sound.input_ids, between.input_ids, sound.input_ids]))
    learned = torch.cat([torch.zeros_like(sound.loss_mask), torch.zeros_like(between.loss_mask), sound.loss_mask])
    assert torch.equal(rows.loss_mask, learned)
    assert max(encoded.token_ids) < processor.vocabulary_size


def test_codes_in_a_record_are_those_of_the_recording(uniaudio, codec, recording):
    layout = code_layout(codec)
    row = layout.to_symbols(heard(codec, recording)).tolist()
    given = uniaudio.processor.encode_conversation(chat({"type": "audio", "codes": row}))
    own = uniaudio.processor.encode_conversation(chat({"type": "audio", "path": str(recording)}))
    assert given.token_ids == own.token_ids
    assert (given.frames == own.frames).all()
    with pytest.raises(ValueError, match=r"here.*: reconstruction codes: .*breaks off"):
        uniaudio.processor.encode_conversation(chat({"type": "audio", "codes": row[:-1]}))


def test_a_row_is_as_long_as_it_is_said_to_be_and_sounds_like_its_codes(codec, recording):
    one_row = GroupedSequenceTokenizer(codec, code_layout(codec))
    waveform = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])
    codes = one_row.encode([waveform, waveform[:5000]], RATE)
    assert codes.lengths.tolist() == [one_row.num_frames(RATE, RATE), one_row.num_frames(5000, RATE)]
    assert one_row.frame_rate == STREAMS * (5 + 12.5)
    assert one_row.num_frames(RATE, RATE) == STREAMS * (5 + 13)
    few = {"steps": 2, "seed": 3}
    both = one_row.decode(codes, **few)
    inner = codec.decode(codec.encode([waveform, waveform[:5000]], RATE), **few)
    assert all(map(torch.equal, both, inner))


def test_answers_have_both_groups_and_are_heard_after_loading(uniaudio, recording, tmp_path):
    uniaudio.save_pretrained(tmp_path / "model")
    loaded = UniAudio.from_pretrained(tmp_path / "model")
    question = [chat({"type": "audio", "path": str(recording)})]
    own, other = (
        one.answer_in_sound(question, max_frames=40, seed=2, temperature=1.0, steps=2) for one in (uniaudio, loaded)
    )
    for answers in (own, other):
        assert answers.reasoning[0].shape[0] == answers.codes[0].shape[0] == STREAMS
        assert answers.reasoning[0].shape[1] + answers.codes[0].shape[1] <= 40
    assert torch.equal(own.reasoning[0], other.reasoning[0])
    assert torch.equal(own.codes[0], other.codes[0])
    assert torch.equal(own.waveforms[0], other.waveforms[0])


def test_sound_ends_where_the_reasoning_codes_end_and_says_so(uniaudio, codec, recording, caplog):
    codes = heard(codec, recording)
    whole = uniaudio.processor.waveforms([codes["reconstruction"]], [codes["reasoning"]], steps=2)
    assert len(whole[0]) == 13 * 1920
    ended = [codes["reasoning"][:, :2], codes["reasoning"][:, :0]]
    made = uniaudio.processor.waveforms([codes["reconstruction"]] * 2, ended, steps=2)
    assert [len(one) for one in made] == [5 * 1920, 0]
    assert "clip 0 has 13 reconstruction codes, and reasoning codes for 5 of them" in caplog.text
    with pytest.raises(ValueError, match="has reasoning codes, too"):
        uniaudio.processor.waveforms([codes["reconstruction"]])


def test_groups_that_the_streams_cannot_hold_are_refused(codec, make_text_llm, text_tokenizer):
    text_llm = make_text_llm("qwen2", vocab_size=258)
    with pytest.raises(ValueError, match="differ in codebooks: reasoning: 2; reconstruction: 4"):
        UniAudio.create(text_llm, make(), text_tokenizer)
    with pytest.raises(ValueError, match="codebooks=2: ReasoningCodec has codes of several rates"):
        UniAudio.create(text_llm, codec, text_tokenizer, codebooks=2)


def test_the_published_tasks_of_both_groups_are_those_of_a_recording(uniaudio):
    assert TASKS["audio_only"] == Task(uniaudio.processor.parts, uniaudio.processor.parts, has_prompt=False)
