"""`pipeline()` with our classes gives what the methods of an Audio-LLM give, one by one and in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from audiollm import AnyToAnyPipeline, AudioLLM, SpeechRecognitionPipeline, TextToSpeechPipeline, load_audio
from audiollm.prompts import instruction

SETTINGS = {"max_new_tokens": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_llm, make_text_tokenizer, codec) -> Path:
    target = tmp_path_factory.mktemp("pipelines") / "model"
    AudioLLM.create(make_llm(), make_text_tokenizer(), codec).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(root / f"{number}.wav", generator.normal(0, 0.1, 4000 + 3000 * number), 16000)
    return [str(path) for path in sorted(root.glob("*.wav"))]


def chat(clip: str) -> list[dict[str, object]]:
    parts = [{"type": "audio", "path": clip}, {"type": "text", "text": "What?"}]
    return [{"role": "user", "content": parts}]


def test_transcripts_are_those_of_ask_however_a_recording_comes(folder: Path, clips: list[str]) -> None:
    pipe = pipeline("automatic-speech-recognition", model=str(folder), pipeline_class=SpeechRecognitionPipeline)
    model = AudioLLM.from_pretrained(folder)
    expected = [{"text": model.ask(clip, instruction("transcribe"), **SETTINGS)} for clip in clips]
    assert pipe(clips, **SETTINGS) == pipe(clips, batch_size=2, **SETTINGS) == expected
    waveform, rate = load_audio(clips[0])
    same = [
        pipe(clips[0], generate_kwargs=SETTINGS),
        pipe(Path(clips[0]).read_bytes(), **SETTINGS),
        pipe((waveform, rate), **SETTINGS),
        pipe({"array": waveform.numpy(), "sampling_rate": rate}, **SETTINGS),
        pipe({"raw": waveform.numpy(), "sampling_rate": rate}, **SETTINGS),
        pipe(waveform.numpy(), sampling_rate=rate, **SETTINGS),
    ]
    assert same == [expected[0]] * len(same)
    with pytest.raises(ValueError, match="without their rate"):
        pipe(waveform.numpy())
    with pytest.raises(ValueError, match="return_timestamps"):
        pipe(clips[0], return_timestamps=True)


def test_chats_are_answered_in_text_as_by_chat(folder: Path, clips: list[str]) -> None:
    pipe = pipeline("any-to-any", model=str(folder), pipeline_class=AnyToAnyPipeline, **SETTINGS)
    model = AudioLLM.from_pretrained(folder)
    expected = [[{"generated_text": model.chat(chat(clip), **SETTINGS).texts[0]}] for clip in clips]
    assert pipe([chat(clip) for clip in clips], batch_size=2) == expected
    assert pipe(chat(clips[0])) == pipe("What?", audio=clips[0]) == expected[0]
    with pytest.raises(ValueError, match="generation_mode='video'"):
        pipe(chat(clips[0]), generation_mode="video")
    with pytest.raises(ValueError, match="belongs into the messages"):
        pipe(chat(clips[0]), audio=clips[1])


def test_answers_and_texts_become_sound(speaking_llm: AudioLLM) -> None:
    parts = {"model": speaking_llm.model, "processor": speaking_llm.processor}
    settings = {"seed": 0, "min_seconds": 0.2, "max_seconds": 0.4}
    speak = pipeline("text-to-speech", **parts, pipeline_class=TextToSpeechPipeline)
    spoken = speak("Hello", voice="an old man", **settings)
    assert spoken["sampling_rate"] == 22050
    assert spoken["audio"].dtype == np.float32
    assert 0.2 * 22050 <= spoken["audio"].shape[0] <= 0.4 * 22050
    both = speak(["Hello", "Bye"], batch_size=2, **settings)
    assert [one["audio"].ndim for one in both] == [1, 1]
    answer = pipeline("any-to-any", **parts, pipeline_class=AnyToAnyPipeline)
    [result] = answer("Say it.", generation_mode="audio", **settings)
    said = speaking_llm.chat([{"role": "user", "content": "Say it."}], modalities={"audio"}, **settings)
    assert torch.equal(torch.from_numpy(result["generated_audio"]), said.waveforms[0][0])
    with pytest.raises(ValueError, match="a text to speak is a string"):
        speak(3)


def test_other_models_are_refused(make_llm, text_tokenizer) -> None:
    with pytest.raises(ValueError, match="TextToSpeechPipeline takes an Audio-LLM: name its folder as model"):
        TextToSpeechPipeline(model=make_llm(), processor=text_tokenizer)
