"""``audiollm generate-audio``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from audiollm.cli import main
from audiollm.diffusion import AudioGenerator, LatentDiffusion, LatentDiffusionConfig
from audiollm.diffusion.text import small_text_encoder
from audiollm.tokenizer.losatok.configuration import LoSATokConfig
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.tokenizer.losatok.teacher.dasheng import DashengSizes, DashengTeacher


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    sizes = LoSATokConfig(
        feature_size=16, bottleneck_size=12, latent_size=6, num_mels=16, decoder_size=16,
        decoder_intermediate_size=16, decoder_layers=1, n_fft=640,
    )  # fmt: skip
    teacher = DashengTeacher(DashengSizes(size=16, num_layers=1, num_heads=2, mlp_size=16, num_mels=16))
    losatok = LoSATok(sizes, SemanticEncoder(sizes.semantic, teacher))
    encoder, tokenizer = small_text_encoder(8, 1, 2)
    config = LatentDiffusionConfig(
        latent_size=6, hidden_size=16, num_layers=1, num_heads=2, time_size=8, text_config=encoder.config,
        max_frames=50, steps=2, tasks=["text_to_speech", "text_to_audio"], audio_tokenizer_kind="losatok",
        audio_tokenizer_fingerprint=losatok.fingerprint(),
    )  # fmt: skip
    AudioGenerator(LatentDiffusion(config, encoder, tokenizer), losatok).save_pretrained(folder / "model")
    return folder


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    return capsys.readouterr().err


def test_a_sound_is_written_and_the_same_seed_writes_the_same_bytes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate-audio", "rain on a roof", "--model", str(run), "--task", "text-to-audio", "--seconds", "0.7"]
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        main([*command, "-o", str(tmp_path / f"{name}.wav"), "--seed", seed, "--json"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["seconds"] == pytest.approx(0.7)
    assert summary["task"] == "text-to-audio"
    one, again, other = ((tmp_path / f"{name}.wav").read_bytes() for name in ("one", "again", "other"))
    assert one == again != other
    assert sf.info(tmp_path / "one.wav").frames == 11200
    assert "exists already" in fails([*command, "-o", str(tmp_path / "one.wav")], capsys)


def test_a_prompt_is_a_recording_with_its_words(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sf.write(tmp_path / "voice.wav", 0.1 * np.sin(np.arange(8000) * 0.1), 16000)
    command = ["generate-audio", "Please hold.", "--model", str(run), "--task", "text-to-speech", "--steps", "1"]
    command += ["--guidance", "0", "--prompt-audio", str(tmp_path / "voice.wav"), "-o", str(tmp_path / "out.wav")]
    assert "needs --prompt-text" in fails(command, capsys).replace("prompt_text", "--prompt-text")
    main([*command, "--prompt-text", "Good morning"])
    assert sf.info(tmp_path / "out.wav").frames == 12 * 640  # at the pace of the prompt


def test_without_a_model_it_is_said_that_none_comes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(["generate-audio", "rain", "-o", str(tmp_path / "rain.wav")], capsys)
    assert "--model is missing: no diffusion model comes with this package" in message
    assert "train-dit" in message


def test_what_the_model_cannot_do_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate-audio", "rain", "--model", str(run), "-o", str(tmp_path / "rain.wav")]
    assert "say by" in fails(command, capsys)
    assert "longer than the 2.00 s" in fails([*command, "--task", "text-to-audio", "--seconds", "3"], capsys)
    assert "no diffusion model on latents" in fails([*command[:3], str(tmp_path), *command[4:]], capsys)
    assert not (tmp_path / "rain.wav").exists()
