"""Whole runs of the training of a diffusion transformer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ByT5Tokenizer

from audiollm.diffusion import AudioGenerator
from audiollm.diffusion.modeling import LatentDiffusion
from audiollm.program import run_program
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.training.diffusion.clips import TextClips, statistics
from audiollm.training.diffusion.config import DiffusionTrainingConfig, TextSettings
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_dit import train

from .conftest import write_records
from .finished_runs import assert_same_weights, metrics_of, weights_of


def test_a_model_learns_the_clips_and_what_it_leaves_makes_sound(make_dit_config, dit_corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = {"eval_data": str(dit_corpus.dev), "eval_every": 30, "eval_clips": 2, "ema_decay": 0.9}
    summary = train(make_dit_config(max_steps=60, learning_rate=1e-2, cache_dir=str(tmp_path / "latents"), **settings))
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])
    early, late = metrics_of(tmp_path / "run", "eval")
    assert late["loss"] < early["loss"]
    assert list(late["loss_by_time"]) == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert late["loss"] == pytest.approx(sum(late["loss_by_time"].values()) / 5)
    assert late["latent_distance"] >= 0
    folder = tmp_path / "run" / "evaluation" / "step_000060"
    assert {"metrics.json", "times.png"} < {path.name for path in folder.iterdir()}
    assert [len(list(folder.glob(f"*.{kind}"))) for kind in ("original.wav", "generated.wav")] == [2, 2]
    assert soundfile.info(folder / "000_clip-8.generated.wav").samplerate == 16000
    assert len(list((tmp_path / "latents").glob("*/*.safetensors"))) == 10

    assert f"next: audiollm generate-audio TEXT --model {tmp_path / 'run'} --task text-to-audio -o" in caplog.text
    generator = AudioGenerator.from_pretrained(tmp_path / "run")
    config = generator.model.config
    assert config.tasks == ["text_to_speech", "text_to_audio"]
    assert config.frames_per_character > 0
    [sound] = generator.generate("red", task="text_to_audio", seconds=0.4)
    assert sound.waveform.shape == (6400,)
    card = (summary.model_folder / "README.md").read_text()
    assert "turns texts into sound" in card
    assert "- audio tokenizer: losatok" in card


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_dit_config, dit_corpus, tmp_path):
    """SIGKILL at the fourth update; the last checkpoint is from the second."""
    settings = {"save_every": 2, "eval_data": str(dit_corpus.dev), "eval_every": 2, "eval_clips": 1}
    train(make_dit_config(output_dir=str(tmp_path / "straight"), **settings))
    config = make_dit_config(output_dir=str(tmp_path / "killed"), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal\n"
        "from audiollm.training import train_dit\n"
        "from audiollm.training.diffusion.trainer import DiffusionTrainer\n"
        "update = DiffusionTrainer.update\n"
        "def dies(trainer, step, batch):\n"
        "    if step == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(trainer, step, batch)\n"
        "DiffusionTrainer.update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(train_dit.DiffusionTrainingConfig, train_dit.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert ended.returncode == -9, ended.stderr[-2000:]
    assert [line["step"] for line in metrics_of(tmp_path / "killed")] == [1, 2, 3]
    train(make_dit_config(output_dir=str(tmp_path / "killed"), resume="latest", **settings))
    for event in ("train", "eval"):
        assert metrics_of(tmp_path / "killed", event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")


def test_passes_of_one_clip_equal_one_pass_of_all(make_dit_config, tmp_path):
    # Small steps: those of Adam follow the sign of a gradient, of which rounding decides where it is next to nothing.
    settings = {"learning_rate": 1e-6, "max_steps": 2}
    train(make_dit_config(output_dir=str(tmp_path / "whole"), **settings))
    train(make_dit_config(output_dir=str(tmp_path / "cut"), frames_per_pass=1, **settings))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        assert line.pop("event") == other.pop("event")
        assert line == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_the_saved_model_is_the_average_and_not_the_last_update(make_dit_config, tmp_path):
    train(make_dit_config(ema_decay=0.9))
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000004"
    last = load_file(checkpoint / "weights.safetensors")
    averages = torch.load(checkpoint / "ema.pt", weights_only=True)["averages"]
    name = "transformer.output.weight"
    saved = weights_of(tmp_path / "run")[name]
    assert torch.equal(saved, averages[name])
    assert not torch.equal(saved, last[name])


def test_latents_are_normalised_by_the_training_data_and_the_checkpoint_says_how(make_dit_config, dit_corpus, tmp_path):
    config = make_dit_config(max_steps=1)
    train(config)
    tokenizer = AudioTokenizer.from_pretrained(dit_corpus.audio_tokenizer)
    clips = TextClips(config.train_data, tokenizer, config, len)
    rows = torch.cat([clips.latents(index).mean for index in range(len(clips))])
    model = LatentDiffusion.from_pretrained(tmp_path / "run" / "model")
    normalised = model.normalise(rows)
    assert torch.allclose(normalised.mean(dim=0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(normalised.std(dim=0, unbiased=False), torch.ones(6), atol=1e-3)
    assert torch.equal(statistics(clips, 256)[0], model.latent_mean)


@pytest.mark.parametrize("sampled", [False, True])
def test_latents_are_the_same_from_memory_a_folder_or_the_recording(make_dit_config, tmp_path, sampled):
    folder = str(tmp_path / "latents")
    for name, settings in (
        ("kept", {}), ("anew", {"cache_megabytes": 0}), ("written", {"cache_dir": folder}),
        ("read", {"cache_dir": folder, "cache_megabytes": 0}),
    ):  # fmt: skip
        train(make_dit_config(output_dir=str(tmp_path / name), sample_latents=sampled, **settings))
        assert metrics_of(tmp_path / name) == metrics_of(tmp_path / "kept")


def test_an_encoder_of_transformers_stays_as_it_is_and_goes_along(make_dit_config, tmp_path):
    config = BertConfig(
        vocab_size=259, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(3)
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    ByT5Tokenizer(extra_ids=0).save_pretrained(tmp_path / "bert")
    train(make_dit_config(text=TextSettings(encoder=str(tmp_path / "bert"), max_tokens=32)))
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(one, saved[f"text_encoder.{name}"]) for name, one in bert.state_dict().items())
    generator = AudioGenerator.from_pretrained(tmp_path / "run")
    assert generator.generate("cat", task="text_to_speech")[0].seconds > 0
    with pytest.raises(ValueError, match=r"text\.size has no effect with text\.encoder"):
        TextSettings(encoder="bert", size=8)


def test_records_that_cannot_be_used_are_listed(make_dit_config, dit_corpus, tmp_path, caplog):
    folder = dit_corpus.train.parent
    soundfile.write(folder / "blip.wav", [0.0] * 400, 16000)
    soundfile.write(folder / "long.wav", [0.0] * 32000, 16000)
    records = [json.loads(line) for line in dit_corpus.train.read_text().splitlines()][:3]
    good = records[0]["audio"]
    records += [
        {"id": "blip", "audio": "blip.wav", "text": "a"}, {"id": "long", "audio": "long.wav", "text": "a"},
        {"id": "mute", "audio": good}, {"id": "wordy", "audio": good, "text": "a" * 65},
        {"id": "odd", "audio": good, "text": "a", "task": "dance"},
    ]  # fmt: skip
    for record in records[3:]:
        record.setdefault("task", "text-to-speech")
    path = str(write_records(folder / "mixed.jsonl", records))
    with pytest.raises(DataError) as caught:
        train(make_dit_config(train_data=path))
    for told in (
        "5 of 8 records", "min_seconds=0.2", "longer than max_seconds=1: a part of speech",
        "has no text for text_to_speech", "66 tokens, more than text.max_tokens=64", "task='dance'",
    ):  # fmt: skip
        assert told in str(caught.value)
    train(make_dit_config(train_data=path, on_bad="skip", output_dir=str(tmp_path / "skipped"), max_steps=1))
    assert "5 of 8 records" in caplog.text


def test_of_long_sounds_a_part_is_learnt(make_dit_config, dit_corpus, tmp_path):
    folder = dit_corpus.train.parent
    soundfile.write(folder / "hum.wav", torch.randn(48000).numpy() / 10, 16000)
    path = str(write_records(folder / "hum.jsonl", [{"audio": "hum.wav", "caption": "a hum"}]))
    train(make_dit_config(train_data=path, max_steps=2))
    assert {line["audio_seconds"] for line in metrics_of(tmp_path / "run")} == {1.0}


def test_what_takes_long_before_the_first_update_shows_how_far_it_is(make_dit_config, dit_corpus, tmp_path, capfd):
    train(make_dit_config(max_steps=1))
    told = capfd.readouterr().err
    num_clips = len(dit_corpus.train.read_text().splitlines())
    assert re.search(rf"0/{num_clips} .*recording/s", told)
    assert re.search(rf"latents: .*0/{num_clips} .*clip/s", told)


def test_a_tokenizer_with_codes_is_refused(make_dit_config):
    with pytest.raises(ValueError, match="has codes: latents are learnt here"):
        train(make_dit_config(audio_tokenizer="mini"))


def test_resuming_with_another_width_lists_it(make_dit_config):
    train(make_dit_config(max_steps=1))
    with pytest.raises(ResumeError, match=r"condition_dropout: 0\.1 → 0\.3"):
        train(make_dit_config(max_steps=1, condition_dropout=0.3, resume="latest"))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(make_dit_config, tmp_path, monkeypatch):
    forward = LatentDiffusion.forward

    def breaks(*arguments, **options):
        return forward(*arguments, **options) * float("nan")

    monkeypatch.setattr(LatentDiffusion, "forward", breaks)
    with pytest.raises(NonFiniteLossError, match=r"update 1: loss is nan.*clip-\d"):
        train(make_dit_config())


def test_unknown_settings_are_refused(make_dit_config, tmp_path, capsys):
    arguments = [
        "--train_data",
        "a.jsonl",
        "--audio_tokenizer",
        "a",
        "--output_dir",
        str(tmp_path),
        "--transformer.depth",
        "3",
    ]
    with pytest.raises(SystemExit):
        run_program(DiffusionTrainingConfig, train, name="train_dit", arguments=arguments)
    assert "transformer.depth" in capsys.readouterr().err


def test_records_for_tasks_that_nothing_is_learnt_for_are_refused(make_dit_config, dit_corpus):
    records = [json.loads(line) for line in dit_corpus.dev.read_text().splitlines()]
    path = write_records(dit_corpus.dev.with_name("music.jsonl"), [one | {"sound_type": "music"} for one in records])
    with pytest.raises(DataError, match=r"records for text_to_music.*only for text_to_speech, text_to_audio"):
        train(make_dit_config(eval_data=str(path)))
