"""Texts to sound: lengths, seeds, prompts, and what is refused."""

from __future__ import annotations

import pytest
import torch

from audiollm.diffusion import AudioGenerator
from audiollm.folders import copy_model
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.mini import MINI

from .conftest import build_losatok, build_model

SPEECH, SOUND = "text_to_speech", "text_to_audio"


def test_the_same_seed_makes_the_same_sound_and_another_does_not(generator):
    first, again, other = (generator.generate("rain", task=SOUND, seconds=0.5, seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first.waveform, again.waveform)
    assert not torch.equal(first.waveform, other.waveform)


def test_sounds_of_a_batch_are_those_of_each_alone(generator):
    texts, seconds, seeds = ["rain", "a dog barks", "wind"], [0.5, 0.3, 0.4], [1, 2, 3]
    together = generator.generate(texts, task=SOUND, seconds=seconds, seed=seeds, batch_size=2)
    for index, text in enumerate(texts):
        [alone] = generator.generate(text, task=SOUND, seconds=seconds[index], seed=seeds[index])
        torch.testing.assert_close(together[index].waveform, alone.waveform, rtol=1e-3, atol=1e-4)


def test_a_sound_is_as_long_as_asked_for_to_the_sample(generator):
    [sound] = generator.generate("rain", task=SOUND, seconds=0.333)
    assert (len(sound.waveform), len(sound.latents)) == (5328, 9)
    assert sound.seconds == pytest.approx(0.333)
    [sound] = generator.generate("four", task=SPEECH)  # two latents per character
    assert len(sound.latents) == 8
    [sound] = generator.generate("rain", task=SOUND)  # 5 s, but no more than the model makes
    assert sound.seconds == 2.0


def test_a_prompt_is_gone_on_from_and_not_returned(generator):
    recording = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    options = {"task": SPEECH, "prompt_audio": (recording, 16000), "prompt_text": "one two"}
    [sound] = generator.generate("three", seconds=0.4, **options)
    assert sound.waveform.shape == (6400,)
    [other] = generator.generate("three", seconds=0.4, **(options | {"prompt_audio": (-3 * recording, 16000)}))
    assert not torch.equal(sound.waveform, other.waveform)
    [paced] = generator.generate("one two", **options)  # at the pace of the prompt
    assert len(paced.latents) == 12
    with pytest.raises(ValueError, match="prompt_audio needs prompt_text"):
        generator.generate("three", task=SPEECH, prompt_audio=(recording, 16000))
    with pytest.raises(ValueError, match="there is none"):
        generator.generate("three", task=SPEECH, prompt_text="one")
    with pytest.raises(ValueError, match=r"1\.60 s with a prompt of 0\.48 s are longer than the 2\.00 s"):
        generator.generate("three", seconds=1.6, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": None}, r"trained for text-to-speech, text-to-audio: say by task \(--task\) which it is"),
        ({"task": "text_to_music"}, "this model was trained for text_to_speech, text_to_audio"),
        ({"seconds": 3}, r"3\.00 s are longer than the 2\.00 s that this model was trained for"),
        ({"seconds": 0}, "seconds=0: use a positive number"),
        ({"seconds": [1.0, 2.0]}, "seconds has 2 values for 1 texts"),
        ({"steps": 0}, "steps=0: use a whole number"),
        ({"guidance": -1}, "guidance=-1: use 0"),
        ({"seed": 0.5}, "seed=0.5: use a whole number"),
        ({"seconds": True}, "seconds=True: use a positive number"),
        ({"task": 3}, "task='3': this model was trained for"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5: use a whole number"),
        ({"prompt_text": 3}, "prompt_text=3: give a text"),
        ({"prompt_audio": torch.zeros(8000)}, "prompt_audio: samples need their rate"),
        ({"prompt_audio": [torch.zeros(8000), 16000]}, "prompt_audio: samples need their rate"),
        ({"prompt_audio": (torch.zeros(8000), 16000, 1)}, "prompt_audio: samples need their rate"),
        ({"prompt_audio": (torch.zeros(2, 8000), 16000)}, r"prompt_audio: has shape \[2, 8000\]; mix"),
        ({"prompt_audio": (torch.zeros(64000), 16000)}, r"prompt_audio lasts 4\.00 s, and with what follows it"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(generator, options, message):
    with pytest.raises(ValueError, match=message):
        generator.generate("rain", **({"task": SOUND} | options))


def test_texts_that_are_none_are_refused(generator):
    cases = (
        ([], "there are no texts"),
        ([" "], "text 0 is ' '"),
        ("a" * 40, "shorten it"),
        (None, "texts are a NoneType"),
    )
    for texts, message in cases:
        with pytest.raises(ValueError, match=message):
            generator.generate(texts, task=SOUND)


def test_another_audio_tokenizer_is_refused(generator, losatok):
    with pytest.raises(ValueError, match=r"another audio tokenizer .*than the losatok that the model was trained for"):
        AudioGenerator(generator.model, build_losatok(seed=5))
    with pytest.raises(ValueError, match="has codes and no latents"):
        AudioGenerator(generator.model, AudioTokenizer.from_pretrained(MINI, encoder_only=True))
    with pytest.raises(ValueError, match=r"6 numbers at 25 Hz, but this model 6 at 50 Hz"):
        AudioGenerator(build_model(frame_rate=50.0), losatok)


def test_what_is_saved_makes_the_same_sound(generator, tmp_path):
    generator.save_pretrained(tmp_path / "run" / "model")
    again = AudioGenerator.from_pretrained(tmp_path / "run", device="cpu")
    options = {"task": SOUND, "seconds": 0.4, "seed": 1}
    assert torch.equal(again.generate("rain", **options)[0].waveform, generator.generate("rain", **options)[0].waveform)
    with pytest.raises(ValueError, match="holds no diffusion model"):
        AudioGenerator.from_pretrained(tmp_path)


def test_an_audio_tokenizer_that_was_rounded_is_not_saved_as_what_the_model_would_refuse(generator, tmp_path):
    generator.save_pretrained(tmp_path / "model")
    again = AudioGenerator.from_pretrained(tmp_path / "model", device="cpu")
    again.audio_tokenizer.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"the audio tokenizer is in torch\.bfloat16: saved so.*save it in float32"):
        again.save_pretrained(tmp_path / "rounded")
    assert not (tmp_path / "rounded").exists()


def test_its_folder_is_told_from_the_audio_tokenizer_in_it_and_copied_whole(generator, tmp_path):
    generator.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "copy").mkdir()
    assert copy_model(tmp_path / "model", tmp_path / "copy") == "latent_diffusion"
    assert not (tmp_path / "copy" / "notes.txt").exists()
    again = AudioGenerator.from_pretrained(tmp_path / "copy", device="cpu")
    assert again.generate("rain", task=SOUND, seconds=0.1)[0].seconds == pytest.approx(0.1)
