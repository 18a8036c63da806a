"""An Audio-LLM has what users of torch and transformers reach for, and its results can be kept and heard."""

from __future__ import annotations

import base64
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiollm import AudioLLM, load_audio
from audiollm.reconstruction import reconstruct
from audiollm.speaking import speak

CHAT = [{"role": "user", "content": "Say <it> & go."}]
SOUND = {"modalities": {"audio"}, "seed": 0, "min_seconds": 0.2, "max_seconds": 0.4}


@pytest.fixture
def audio_llm(make_llm, text_tokenizer, codec) -> AudioLLM:
    return AudioLLM.create(make_llm(), text_tokenizer, codec)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
    return path


def test_modes_devices_and_types(audio_llm: AudioLLM) -> None:
    assert audio_llm.train() is audio_llm
    assert audio_llm.model.training
    assert not audio_llm.eval().model.training
    assert [id(p) for p in audio_llm.parameters()] == [id(p) for p in audio_llm.model.parameters()]
    assert (audio_llm.device, audio_llm.dtype) == (torch.device("cpu"), torch.float32)
    before = audio_llm.processor.audio_tokenizer.fingerprint()
    assert audio_llm.to(torch.bfloat16).dtype == torch.bfloat16
    assert audio_llm.to("cpu", torch.float32).dtype == torch.float32
    assert audio_llm.to(dtype=torch.bfloat16).to("cpu") is audio_llm
    assert audio_llm.processor.audio_tokenizer.fingerprint() == before  # lower precision would change codes


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("torch_dtype", "give dtype"),
        ("device_map", "give device"),
        ("trust_remote_code", "leave it out"),
        ("subfolder", "known are repo_type, revision"),
    ],
)
def test_options_of_other_names_are_refused_with_ours(option: str, cure: str) -> None:
    with pytest.raises(ValueError, match=f"takes no {option}: {cure}"):
        AudioLLM.from_pretrained(**{option: "auto"})


def test_it_says_what_it_is(audio_llm: AudioLLM) -> None:
    assert repr(audio_llm) == (
        "AudioLLM(Qwen2ForCausalLM, 0.0 M parameters, torch.float32 on cpu, 64 codes, audio tokenizer)"
    )


def test_ask_takes_what_load_audio_returns(audio_llm: AudioLLM, clip: Path) -> None:
    expected = audio_llm.ask(clip, "What?", max_new_tokens=5)
    waveform, rate = load_audio(clip)
    stereo = torch.stack([waveform, torch.zeros_like(waveform)], dim=1)  # [N, C]; the first one is heard
    for audio, sample_rate in ((load_audio(clip), None), ([load_audio(clip)], None), (stereo, rate)):
        assert audio_llm.ask(audio, "What?", sample_rate=sample_rate, max_new_tokens=5) == expected


@pytest.mark.parametrize(
    ("audio", "question", "message"),
    [
        (torch.zeros(8000), "What?", "comes as samples without their rate: .*sample_rate= in ask"),
        ([], "What?", "audio is an empty list: give a recording"),
        (None, "What?", "audio is of type NoneType"),
        ([1, 2], ["What?", "Who?"], r"question is of type list: .*chat\(\) for a batch"),
    ],
)
def test_wrong_arguments_of_ask_are_one_line_with_the_cure(audio_llm, audio, question, message) -> None:
    with pytest.raises(ValueError, match=message):
        audio_llm.ask(audio, question)


def test_speak_takes_one_text(speaking_llm: AudioLLM) -> None:
    with pytest.raises(ValueError, match=r"text is of type list: .*speak_many\(\)"):
        speak(speaking_llm, ["One", "Two"])


def test_generate_shows_every_setting_in_its_signature() -> None:
    names = list(inspect.signature(AudioLLM.generate).parameters)
    assert {"modalities", "max_seconds", "temperature", "min_p", "seed", "decoding"} <= set(names)
    assert names[-1] == "settings"


# Results


def played(page: str) -> list[tuple[np.ndarray, int]]:
    """The recordings that an HTML page plays."""
    found = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]+)"></audio>', page)
    return [soundfile.read(io.BytesIO(base64.b64decode(one))) for one in found]


def test_an_answer_in_sound_is_saved_and_plays_in_a_notebook(speaking_llm: AudioLLM, tmp_path: Path) -> None:
    result = speaking_llm.chat(CHAT, **SOUND)
    result.save(tmp_path / "answer.wav")
    saved, rate = load_audio(tmp_path / "answer.wav")
    assert rate == result.sample_rate
    assert torch.allclose(saved, result.waveforms[0][0].clamp(-1, 1), atol=1e-4)
    [(heard, heard_rate)] = played(result._repr_html_())
    assert (len(heard), heard_rate) == (len(saved), rate)
    several = speaking_llm.chat([CHAT, CHAT], **SOUND)
    assert len(played(several._repr_html_())) == 2
    with pytest.raises(ValueError, match=r"mean 2 sounds \(the answers have \[1, 1\]\): name one by row="):
        several.save(tmp_path / "both.wav")
    several.save(tmp_path / "second.flac", row=1)
    with pytest.raises(ValueError, match="mean 0 sounds"):
        several.save(tmp_path / "third.wav", row=2)


def test_an_answer_in_text_is_shown_and_has_nothing_to_save(audio_llm: AudioLLM, tmp_path: Path) -> None:
    result = audio_llm.chat(CHAT, max_new_tokens=2)
    result.texts[0] = "<b>&"
    assert result._repr_html_() == "<p>&lt;b&gt;&amp;</p>"
    with pytest.raises(ValueError, match="holds no sound: allow 'audio' among the modalities"):
        result.save(tmp_path / "answer.wav")


def test_speech_is_saved_and_plays_with_its_text(speaking_llm: AudioLLM, tmp_path: Path) -> None:
    speech = speak(speaking_llm, "A < B", seed=0, min_seconds=0.2, max_seconds=0.4)
    speech.save(tmp_path / "speech.ogg")
    assert abs(soundfile.info(tmp_path / "speech.ogg").duration - speech.duration_seconds) < 1e-3
    page = speech._repr_html_()
    assert page.startswith("<p>A &lt; B</p>")
    assert len(played(page)[0][0]) == len(speech.waveform)


def test_a_reconstruction_plays_what_it_wrote(speaking_tokenizer, clip: Path, tmp_path: Path) -> None:
    result = reconstruct(clip, tmp_path / "again.wav", speaking_tokenizer)
    assert len(played(result._repr_html_())[0][0]) == result.num_samples
    result.save(tmp_path / "copy.flac")
    assert soundfile.info(tmp_path / "copy.flac").frames == result.num_samples
