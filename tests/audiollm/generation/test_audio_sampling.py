"""A checkpoint may say how its audio is drawn; what is asked for counts before it, and text never hears of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from audiollm.generation.passed_on import audio_sampling_of_checkpoint
from audiollm.generation.sampling import SamplingSettings
from audiollm.generation.settings import GenerationSettings
from audiollm.modeling import AudioLLM

OWN = {"temperature": 0.5, "top_k": 3}


def with_sampling(folder: Path, source: Path, given: object, **more: object) -> Path:
    shutil.copytree(source, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"audio_sampling": given} | more))
    return folder


def speak(model: AudioLLM, **settings: object) -> torch.Tensor:
    prompt = torch.tensor([[1, 2, 3]])
    result = model.generate(prompt, modalities={"audio"}, seed=3, max_seconds=1.0, return_waveforms=False, **settings)
    return result.codes[0][0]


def test_audio_is_drawn_as_the_checkpoint_says(audio_llm, tmp_path):
    plain = AudioLLM.from_pretrained(audio_llm)
    own = AudioLLM.from_pretrained(with_sampling(tmp_path / "own", audio_llm, OWN))
    assert torch.equal(speak(own), speak(plain, **OWN))
    assert not torch.equal(speak(own), speak(plain))
    # Each that is asked for counts before its own, and the others stay.
    assert torch.equal(speak(own, temperature=1.0), speak(plain, temperature=1.0, top_k=3))
    assert torch.equal(speak(own, do_sample=False), speak(plain, do_sample=False))


def test_it_is_kept_when_the_model_is_saved(audio_llm, tmp_path):
    own = AudioLLM.from_pretrained(with_sampling(tmp_path / "own", audio_llm, OWN))
    own.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["audio_sampling"] == OWN


def test_text_stays_greedy():
    settings = GenerationSettings(modalities={"text"}).with_audio_sampling(OWN)
    assert settings.sampling is None
    drawn = GenerationSettings(modalities={"text", "audio"}).with_audio_sampling(OWN).sampling
    assert drawn == SamplingSettings(**OWN)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 0.5}, "use some of temperature, top_k"),
        ({"temperature": 0}, "temperature=0: use a positive value"),
        ({"temperature": "warm"}, "temperature"),
        ({"do_sample": False}, "use some of temperature"),
        ([0.5], "use some of temperature"),
        (0.5, "use some of temperature"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_model_is_loaded(given, message, audio_llm, tmp_path):
    with pytest.raises(ValueError, match=message):
        AudioLLM.from_pretrained(with_sampling(tmp_path / "own", audio_llm, given))
    with pytest.raises(ValueError, match="audio_sampling"):
        audio_sampling_of_checkpoint(GenerationConfig(audio_sampling=given))


def test_a_file_that_transformers_reads_in_part_is_refused(audio_llm, tmp_path):
    folder = with_sampling(tmp_path / "own", audio_llm, OWN, _from_model_config=True)
    with pytest.raises(ValueError, match="remove that line"):
        AudioLLM.from_pretrained(folder)
