"""A text and a voice become sound: the model is asked in the words of training, and the stream says the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiollm.data.voices.instructions import VocalAttributes
from audiollm.data.voices.speech_records import SpeechTaskSettings, speech_records
from audiollm.generation.decoding import DecodingSettings
from audiollm.modeling import AudioLLM
from audiollm.speaking import speak, speak_many, speak_stream

SHORT = {"max_seconds": 0.4, "seed": 0}


@pytest.fixture
def asked(speaking_llm, monkeypatch):
    """The user messages that the model has been asked so far."""
    messages = []
    encode = speaking_llm.processor.apply_chat_template

    def spy(conversation, **options):
        batch = conversation if isinstance(conversation, list) else [conversation]
        messages.extend(one.messages[0].content[0].text for one in batch)
        return encode(conversation, **options)

    monkeypatch.setattr(speaking_llm.processor, "apply_chat_template", spy)
    return messages


def test_a_text_is_spoken(speaking_llm, speaking_tokenizer, asked):
    result = speak(speaking_llm, "Hello world.", "an elderly man, slowly", **SHORT)
    assert asked == ["Read this text aloud. Voice: an elderly man, slowly\n\nHello world."]
    assert (result.text, result.voice) == ("Hello world.", "an elderly man, slowly")
    assert result.prompt_id == "speak_in_voice/0"
    assert result.sample_rate == 22050
    assert result.finish_reason == ("length" if len(result.codes) == 10 else "stop")
    assert 1 <= len(result.codes) <= 10
    assert torch.equal(result.waveform, speaking_tokenizer._render(result.codes, None))
    assert result.duration_seconds == pytest.approx(len(result.codes) / 25)
    assert speaking_tokenizer.options[-1]["seed"] == 0  # one seed decides all


def test_the_model_is_asked_in_the_words_of_training(speaking_llm, asked):
    voice = VocalAttributes(gender="female", age="adult", emotion="happiness")
    settings = SpeechTaskSettings(voice_share=1.0, all_attributes_share=1.0)
    clips = [{"id": str(n), "text": f"Text {n}.", "codes": [1], **voice.given} for n in range(5)]
    trained = list(speech_records(clips, settings))
    for number, record in enumerate(trained):
        result = speak(speaking_llm, f"Text {number}.", voice, key=f"0 {number}", **SHORT)
        assert asked[-1] == record["messages"][0]["content"][0]["text"]
        assert result.prompt_id == record["prompt"]
    assert len({result["prompt"] for result in trained}) > 1


def test_a_batch_says_what_each_text_gets_with_its_own_voice(speaking_llm, speaking_tokenizer, asked):
    texts = ["One.", "Two, which is longer.", "Three"]
    voices = ["a man", None, VocalAttributes(pitch="high")]
    speakers = torch.tensor([[0.0], [1.0], [2.0]])
    results = speak_many(speaking_llm, texts, voices, decoding=DecodingSettings(speaker=speakers), **SHORT)
    assert [message.split("\n\n")[1] for message in asked] == texts
    assert [result.voice for result in results] == ["a man", None, "someone, with a high voice"]
    assert [result.prompt_id.split("/")[0] for result in results] == ["speak_in_voice", "speak", "speak_in_voice"]
    for result, speaker in zip(results, speakers, strict=True):
        assert torch.equal(result.waveform, speaking_tokenizer._render(result.codes, speaker))
    assert speak_many(speaking_llm, []) == []
    greedy = {"do_sample": False, "max_seconds": 0.4}
    together = speak_many(speaking_llm, texts, "a man", **greedy)
    for text, result in zip(texts, together, strict=True):
        assert torch.equal(speak(speaking_llm, text, "a man", **greedy).waveform, result.waveform)


def test_a_stream_speaks_the_same(speaking_llm):
    voice = {"speaker": [0.5, 0.5], "prompt_audio": np.full(8000, 0.1, np.float32), "sample_rate": 16000, "steps": 4}
    whole = speak(speaking_llm, "Hello", "a woman", **voice, **SHORT)
    with speak_stream(speaking_llm, "Hello", "a woman", **voice, **SHORT) as stream:
        sound = torch.cat([event.waveform for event in stream])
    assert torch.equal(sound, whole.waveform)
    assert torch.equal(stream.result.codes[0][0], whole.codes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: speak(model, " "), "text to speak is empty"),
        (lambda model: speak(model, "Hi", ""), "voice is empty"),
        (lambda model: speak(model, "Hi", VocalAttributes()), "no attributes"),
        (lambda model: speak_many(model, "Hi"), "single string"),
        (lambda model: speak_many(model, ["Hi", "Ho"], ["a man"]), "2 texts came with 1 voices"),
        (lambda model: speak_many(model, ["Hi"], num_return_sequences=2), "repeat it in texts"),
        (lambda model: speak(model, "Hi", min_seconds=2.0, max_seconds=1.0), "min_seconds"),
    ],
)
def test_what_cannot_be_spoken_is_refused(speaking_llm, call, message):
    with pytest.raises(ValueError, match=message):
        call(speaking_llm)


def test_a_voice_that_is_not_words_is_refused(speaking_llm):
    with pytest.raises(TypeError, match="voice=3: describe the voice in words"):
        speak(speaking_llm, "Hi", 3)


def test_a_model_without_a_decoder_says_so(make_llm, text_tokenizer, audio_tokenizer):
    mute = AudioLLM.create(make_llm(), text_tokenizer, audio_tokenizer)
    for say in (speak, speak_stream):
        with pytest.raises(ValueError, match="no waveform decoder"):
            say(mute, "Hi")
