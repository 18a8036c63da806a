"""The idiom of other audio LLMs: a chat template leaves places for recordings, which the processor then gets."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch

from audiollm import AudioLLM, load_audio
from audiollm.processing import AudioLLMProcessor

PLACE = "<|audio_start|><|audio_end|>"
RATE = 16000


@pytest.fixture
def processor(make_llm, text_tokenizer, audio_tokenizer) -> AudioLLMProcessor:
    return AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer).processor


def user(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


def tone(level: float, seconds: float = 0.2) -> np.ndarray:
    return np.full(int(seconds * RATE), level, dtype=np.float32)


def holding(samples: np.ndarray) -> dict[str, object]:
    return {"type": "audio", "array": samples, "sampling_rate": RATE}


BARE = {"type": "audio"}
CHATS = [
    (user(BARE, "What?"), user(holding(tone(0.1)), "What?")),
    (user("First", BARE, "then", BARE), user("First", holding(tone(0.2, 0.3)), "then", holding(tone(0.9, 0.1)))),
    (user("Nothing to hear"), user("Nothing to hear")),
]
SOUNDS = [tone(0.1), tone(0.2, 0.3), tone(0.9, 0.1)]


@pytest.mark.parametrize("spelling", ["audio", "audios"])
def test_text_and_audio_given_apart_give_the_ids_of_messages_that_hold_both(processor, spelling):
    texts = processor.apply_chat_template([bare for bare, _ in CHATS], add_generation_prompt=True, tokenize=False)
    assert [text.count(processor.audio_token) for text in texts] == [1, 2, 0]
    inputs = processor(text=texts, **{spelling: SOUNDS}, sampling_rate=RATE, return_tensors="pt", padding=True)
    expected = processor.apply_chat_template([whole for _, whole in CHATS], add_generation_prompt=True)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["attention_mask"], expected["attention_mask"])
    by_prompt = processor(texts, [SOUNDS[:1], SOUNDS[1:], []], sampling_rate=RATE)
    assert torch.equal(by_prompt["input_ids"], expected["input_ids"])


def test_places_and_recordings_may_stand_in_one_chat(processor):
    chat = user(BARE, holding(tone(0.5)), BARE)
    text = processor.apply_chat_template(chat, tokenize=False)
    inputs = processor(text, [tone(0.1), tone(0.9)], sampling_rate=RATE)
    whole = processor.apply_chat_template(user(holding(tone(0.1)), holding(tone(0.5)), holding(tone(0.9))))
    assert torch.equal(inputs["input_ids"], whole["input_ids"])


def test_recordings_come_in_every_spelling(processor, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(0.25), RATE, subtype="FLOAT")
    text = processor.apply_chat_template(user(BARE, "What?"), tokenize=False)
    samples = torch.from_numpy(tone(0.25))
    stereo = torch.stack([samples, torch.zeros_like(samples)])
    integers = (samples * 32768).to(torch.int16)
    expected = processor(text, samples, sampling_rate=RATE)["input_ids"]
    for audio in (str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes()), load_audio(path),
                  [load_audio(path)], (RATE, samples.numpy()), {"array": samples.numpy(), "sampling_rate": RATE},
                  {"path": str(path), "bytes": None}):  # fmt: skip
        assert torch.equal(processor(text, audio)["input_ids"], expected), type(audio)
    for audio in (samples.numpy(), samples.bfloat16(), samples.half(), samples.double(), integers, integers.numpy(),
                  stereo, stereo.T, stereo.bfloat16().T, samples.tolist(), [samples]):  # fmt: skip
        assert torch.equal(processor(text, audio, sampling_rate=np.int64(RATE))["input_ids"], expected), audio
    held = processor.apply_chat_template(
        user({"type": "audio", "array": stereo.bfloat16().T, "sampling_rate": RATE}, "What?")
    )
    assert torch.equal(held["input_ids"], expected)


@pytest.mark.parametrize(
    ("text", "audio", "rate", "message"),
    [
        (PLACE, [tone(0.1)], None, r"audio\[0\] comes as samples without their rate: .*sampling_rate=16000"),
        (PLACE, tone(0.1).tolist(), None, "comes as samples without their rate"),
        (PLACE, [tone(0.1)], 0, "sample_rate=0"),
        (PLACE, [tone(0.1)], 16000.5, "sample_rate=16000.5"),
        (PLACE, (tone(0.1), 8000), RATE, "8000 Hz, but 16000 Hz is said too"),
        (PLACE * 2, [tone(0.1)], RATE, "2 places for audio .* but 1 came: give one recording for each"),
        (PLACE, None, None, "1 places for audio .* but 0 came"),
        ("<audio>", [tone(0.1)], RATE, r"0 places .* but 1 came: write {\"type\": \"audio\"} into the messages"),
        ("<|audio_start|><|audio_3|><|audio_end|>", [tone(0.1)], RATE, "1 recordings are spelt out in it.*leave audio"),
        ([PLACE, PLACE], [[tone(0.1), tone(0.2)], []], RATE, r"text\[0\] has 1 places .* but 2 came"),
        (PLACE, [[tone(0.1)], [tone(0.2)]], RATE, "is a list where one recording is expected"),
        (PLACE, [3.5j], RATE, "of type complex: give a path"),
        (PLACE, np.zeros((100, 100), np.float32), RATE, r"shape \[100, 100\]; give one recording"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_cure(processor, text, audio, rate, message):
    with pytest.raises(ValueError, match=message) as raised:
        processor(text, audio, sampling_rate=rate)
    assert "\n" not in str(raised.value)


def test_audio_has_one_name_and_a_bare_place_needs_a_prompt_as_text(processor):
    with pytest.raises(ValueError, match="audio and audios are the same"):
        processor(PLACE, audio=[1], audios=[1])
    with pytest.raises(
        ValueError, match=r"content\[0\]: holds no audio: .*tokenize=False.*processor\(text=…, audio=…\)"
    ):
        processor.apply_chat_template(user(BARE, "What?"))
    with pytest.raises(ValueError, match="processor_kwargs: images have no effect"):
        processor.apply_chat_template(user("Hi"), processor_kwargs={"images": []})


def test_transformers_may_give_settings_as_processor_kwargs(processor):
    chat = user({"type": "audio", "audio": tone(0.3)})
    expected = processor.apply_chat_template(chat, sampling_rate=RATE)["input_ids"]
    given = processor.apply_chat_template(chat, processor_kwargs={"sampling_rate": RATE, "padding": True})
    assert torch.equal(given["input_ids"], expected)


# Ids to sound


def test_ids_become_the_waveforms_that_generation_gives(speaking_llm):
    chats = [user("Say it."), user("And this, please.")]
    result = speaking_llm.chat(chats, modalities={"audio"}, seed=0, min_seconds=0.1, max_seconds=0.3)
    processor = speaking_llm.processor
    waveforms = processor.batch_decode_audio(result.token_ids)
    assert all(torch.equal(w, row[0]) for w, row in zip(waveforms, result.waveforms, strict=True))
    assert torch.equal(processor.decode_audio(result.token_ids[1].tolist()), waveforms[1])
    assert processor.output_sample_rate == result.sample_rate
    joined = processor.decode_audio(torch.cat(result.token_ids))
    assert torch.equal(joined, torch.cat(waveforms))


def test_ids_without_sound_and_tokenizers_without_decoder_are_refused(speaking_llm, processor):
    ids = speaking_llm.processor.vocabulary.wrap([1, 2])
    with pytest.raises(ValueError, match="row 1 holds no audio tokens"):
        speaking_llm.processor.batch_decode_audio([ids, [5, 6]])
    with pytest.raises(ValueError, match="no waveform decoder"):
        processor.decode_audio(processor.vocabulary.wrap([1, 2]))
