"""Whole runs of both stages of a LoSATok's training."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiollm.program import run_program
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.tensors import read_safetensors
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.semantic import SemanticEncoder
from audiollm.training.loop.errors import DataError, LaunchError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.losatok import tokenizer_stage
from audiollm.training.losatok.config import LoSATokTrainingConfig
from audiollm.training.train_losatok import train

from .conftest import write_records
from .finished_runs import assert_same_weights, metrics_of, weights_of


def fell(lines: list[dict], name: str, to: float) -> bool:
    """Whether the last few of a figure are below a share of the first few."""
    values = [line[name] for line in lines]
    return sum(values[-5:]) < to * sum(values[:5])


def test_both_stages_learn_two_clips_and_what_they_leave_is_opened(
    make_losatok_config, losatok_corpus, tmp_path, caplog
):
    caplog.set_level("INFO")
    records = [json.loads(line) for line in losatok_corpus.train.read_text().splitlines()][:2]
    two = str(write_records(losatok_corpus.train.with_name("two.jsonl"), records))
    common = {"train_data": two, "eval_data": two, "eval_clips": 2, "max_steps": 80, "ema_decay": 0.9}
    first = make_losatok_config("semantic", output_dir=str(tmp_path / "semantic"), eval_every=40, **common)
    summary = train(first)
    lines = metrics_of(tmp_path / "semantic")
    assert fell(lines, "reconstruction", 0.7)
    assert fell(lines, "loss", 0.7)
    early, late = metrics_of(tmp_path / "semantic", "eval")
    assert late["loss"] < early["loss"]
    assert 1 <= late["effective_rank_low"] <= 6
    assert 1 <= late["effective_rank_high"] <= 16
    folder = tmp_path / "semantic" / "evaluation" / "step_000080"
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "relations.png", "spectra.png"}
    semantic = SemanticEncoder.from_pretrained(summary.model_folder)
    for part in (f"small_tokenizer --tokenizer.semantic {tmp_path / 'semantic'} ", f"--eval_data {two} "):
        assert part in caplog.text.partition("next: audiollm train-losatok --config losatok_")[2]

    second = make_losatok_config(
        semantic=str(tmp_path / "semantic"), output_dir=str(tmp_path / "tokenizer"), eval_every=40,
        discriminator_start=41, **common,
    )  # fmt: skip
    summary = train(second)
    lines = metrics_of(tmp_path / "tokenizer")
    for name in ("mel", "alignment"):
        assert fell(lines, name, 0.9), name
    assert fell(lines[:40], "loss", 0.9)
    assert "discriminator" not in lines[39]
    assert lines[40]["discriminator"] > 0
    assert lines[40].keys() >= {"adversarial", "feature_matching", "discriminator_grad_norm", "collapsed_dimensions"}
    early, late = metrics_of(tmp_path / "tokenizer", "eval")
    assert late["mel_distance"] < early["mel_distance"]
    assert late.keys() >= {"effective_rank", "effective_rank_semantic", "kl", "alignment", "collapsed_dimensions"}
    folder = tmp_path / "tokenizer" / "evaluation" / "step_000080"
    assert len(json.loads((folder / "metrics.json").read_text())["kl_by_dimension"]) == 6
    assert [len(list(folder.glob(f"*.{kind}"))) for kind in ("original.wav", "decoded.wav", "png")] == [2, 2, 4]
    assert soundfile.info(folder / "000_clip-0.decoded.wav").samplerate == 16000

    tokenizer = AudioTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert isinstance(tokenizer, LoSATok)
    trained = tokenizer.semantic.state_dict()
    assert all(torch.equal(one, trained[name]) for name, one in semantic.state_dict().items())  # it stays as it is
    [waveform] = tokenizer.decode(tokenizer.encode(torch.randn(16000) / 10, 16000))
    assert waveform.shape == (16000,)
    assert "continuous latents" in (summary.model_folder / "README.md").read_text()


@pytest.mark.parametrize("stage", ["semantic", "tokenizer"])
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_losatok_config, losatok_corpus, tmp_path, stage):
    """SIGKILL at the fourth update; the last checkpoint is from the second."""
    settings = {"save_every": 2, "eval_data": str(losatok_corpus.dev), "eval_every": 2, "eval_clips": 1}
    train(make_losatok_config(stage, output_dir=str(tmp_path / "straight"), **settings))
    config = make_losatok_config(stage, output_dir=str(tmp_path / "killed"), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal\n"
        "from audiollm.training import train_losatok\n"
        "from audiollm.training.losatok.trainer import StageTrainer\n"
        "update = StageTrainer.update\n"
        "def dies(trainer, step, batch):\n"
        "    if step == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(trainer, step, batch)\n"
        "StageTrainer.update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(train_losatok.LoSATokTrainingConfig, train_losatok.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert ended.returncode == -9, ended.stderr[-2000:]
    assert [line["step"] for line in metrics_of(tmp_path / "killed")] == [1, 2, 3]
    train(make_losatok_config(stage, output_dir=str(tmp_path / "killed"), resume="latest", **settings))
    for event in ("train", "eval"):
        assert metrics_of(tmp_path / "killed", event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.parametrize("stage", ["semantic", "tokenizer"])
def test_passes_of_one_segment_equal_one_pass_of_all(make_losatok_config, tmp_path, stage):
    # Small steps: those of Adam follow the sign of a gradient, of which rounding decides where it is next to nothing.
    settings = {"learning_rate": 1e-6, "max_steps": 2}
    train(make_losatok_config(stage, output_dir=str(tmp_path / "whole"), **settings))
    train(make_losatok_config(stage, output_dir=str(tmp_path / "cut"), segments_per_pass=1, **settings))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        assert line.pop("event") == other.pop("event")
        assert line == pytest.approx(other, rel=5e-3, abs=1e-4)


def test_the_saved_model_is_the_average_and_not_the_last_update(make_losatok_config, tmp_path):
    train(make_losatok_config("semantic", ema_decay=0.9))
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000004"
    last = load_file(checkpoint / "weights.safetensors")
    averages = torch.load(checkpoint / "ema.pt", weights_only=True)["averages"]
    name = "bottleneck.compress.0.weight"
    saved = weights_of(tmp_path / "run")[name]
    assert torch.equal(saved, averages[f"semantic.{name}"])
    assert not torch.equal(saved, last[f"semantic.{name}"])


def test_the_second_stage_without_the_first_says_what_to_run(make_losatok_config, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"(?s)audiollm train-losatok --stage semantic.*--tokenizer.semantic SEMANTIC"):
        make_losatok_config(semantic=None)
    with pytest.raises(ValueError, match=r"(?s)nowhere.*audiollm train-losatok --stage semantic"):
        train(make_losatok_config(semantic=str(tmp_path / "nowhere")))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"(?s)holds no semantic side.*audiollm train-losatok --stage semantic"):
        train(make_losatok_config(semantic=str(tmp_path / "other")))
    arguments = ["--stage", "tokenizer", "--train_data", "clips.jsonl", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        run_program(LoSATokTrainingConfig, train, name="train_losatok", arguments=arguments)
    assert "--stage semantic" in capsys.readouterr().err


def test_settings_of_the_other_stage_are_refused(make_losatok_config):
    with pytest.raises(ValueError, match=r"semantic\.teacher has no effect with stage: tokenizer"):
        dataclasses.replace(make_losatok_config(), semantic=make_losatok_config("semantic").semantic)


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        ("semantic", {"collapse_alarm": 0.9}, "collapse_alarm has no effect with stage: semantic"),
        ("semantic", {"collapsed_below": 0.5}, "collapsed_below has no effect with stage: semantic"),
        (
            "tokenizer",
            {"discriminator_start": None, "discriminator_channels": 3, "discriminator_windows": (2048, 1024, 512)},
            r"tokenizer\.discriminator_channels has no effect with tokenizer\.discriminator_start: null",
        ),
        ("tokenizer", {"adversarial_weight": 0, "feature_weight": 0}, "nothing comes of the discriminators"),
        ("tokenizer", {"alignment_weight": 0, "alignment": "low_only"}, r"tokenizer\.alignment has no effect"),
        ("tokenizer", {"kl_weight": 0, "kl_clamp": 0.5}, r"kl_clamp has no effect with tokenizer\.kl_weight: 0"),
        (
            "tokenizer",
            {"mel_weight": 0, "alignment_weight": 0, "kl_weight": 0, "discriminator_start": None},
            "all weights of the losses in tokenizer are 0",
        ),
    ],
)
def test_settings_that_others_leave_without_effect_are_refused(make_losatok_config, stage, settings, message):
    with pytest.raises(ValueError, match=message):
        make_losatok_config(stage, **settings)


def test_resuming_with_another_width_lists_it(make_losatok_config):
    train(make_losatok_config("semantic", max_steps=1))
    with pytest.raises(ResumeError, match=r"semantic\.latent_size: 6 → 7"):
        train(make_losatok_config("semantic", max_steps=1, latent_size=7, resume="latest"))


def test_a_loss_of_the_game_that_is_no_number_stops_the_run_and_names_the_clips(
    make_losatok_config, tmp_path, monkeypatch
):
    game = tokenizer_stage.hinge_adversarial_loss

    def breaks(made):
        return game(made) * float("nan")

    monkeypatch.setattr(tokenizer_stage, "hinge_adversarial_loss", breaks)
    with pytest.raises(NonFiniteLossError, match=r"update 2: loss is nan.*clip-\d"):
        train(make_losatok_config(discriminator_start=2, save_every=1))
    content = json.loads((tmp_path / "run" / "non_finite_step_000002.json").read_text())
    assert content["passes"][0]["clips"]
    assert (tmp_path / "run" / "checkpoints" / "step_000001").exists()


def test_a_gradient_of_the_discriminators_that_is_no_number_stops_the_run_before_it_is_applied(
    make_losatok_config, tmp_path, monkeypatch
):
    """The loss may be finite where its gradient is not; the discriminators would be NaN, and saved."""
    loss = tokenizer_stage.hinge_discriminator_loss

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    monkeypatch.setattr(
        tokenizer_stage, "hinge_discriminator_loss", lambda *judgements: Poison.apply(loss(*judgements))
    )
    message = r"update 1: gradient norm of the discriminators is nan; its clips are clip-\d"
    with pytest.raises(NonFiniteLossError, match=message):
        train(make_losatok_config(discriminator_start=1, save_every=1))
    assert (tmp_path / "run" / "non_finite_step_000001.json").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("step_*"))


def test_deepspeed_is_refused_by_name(make_losatok_config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(LaunchError, match=r"DeepSpeed is not supported here: use .*ddp\.yaml.*--shard_optimizer true"):
        train(make_losatok_config())


def test_resuming_on_a_semantic_side_of_another_width_is_told(make_losatok_config, losatok_corpus, tmp_path):
    """The settings are the same: only what lies in the folder has changed."""
    shutil.copytree(losatok_corpus.semantic, tmp_path / "semantic")
    train(make_losatok_config(semantic=str(tmp_path / "semantic"), max_steps=1, save_every=1))
    settings = {"latent_size": 7, "output_dir": str(tmp_path / "wider"), "max_steps": 1}
    train(make_losatok_config("semantic", **settings))
    shutil.rmtree(tmp_path / "semantic")
    shutil.copytree(tmp_path / "wider" / "model", tmp_path / "semantic")
    with pytest.raises(ResumeError, match=r"semantic"):
        train(make_losatok_config(semantic=str(tmp_path / "semantic"), max_steps=2, resume="latest"))


def test_clips_shorter_than_a_token_train_and_evaluate(make_losatok_config, losatok_corpus, tmp_path):
    folder = losatok_corpus.train.parent
    soundfile.write(folder / "click.wav", [0.1, -0.2, 0.1] * 5, 16000)
    path = str(write_records(folder / "click.jsonl", [{"id": "click", "audio": "click.wav"}]))
    for stage in ("semantic", "tokenizer"):
        output = str(tmp_path / stage)
        train(
            make_losatok_config(
                stage, train_data=path, eval_data=path, output_dir=output, max_steps=1, min_seconds=1e-4
            )
        )
        [line] = metrics_of(tmp_path / stage, "eval")
        assert all(value == value for value in line.values())  # NaN differs from itself


def test_recordings_that_cannot_be_used_are_listed(make_losatok_config, losatok_corpus, tmp_path, caplog):
    folder = losatok_corpus.train.parent
    soundfile.write(folder / "blip.wav", [0.0] * 400, 16000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    records = [json.loads(line) for line in losatok_corpus.train.read_text().splitlines()]
    records[1:1] = [{"id": "blip", "audio": "blip.wav"}, {"id": "broken", "audio": "broken.wav"}, {"id": "none"}]
    path = str(write_records(folder / "mixed.jsonl", records))
    with pytest.raises(DataError, match=r"(?s)3 of 9 records.*min_seconds=0.2.*broken.*is missing"):
        train(make_losatok_config(train_data=path))
    train(make_losatok_config(train_data=path, on_bad="skip", output_dir=str(tmp_path / "skipped"), max_steps=1))
    assert "3 of 9 records" in caplog.text
    data = json.loads((tmp_path / "skipped" / "run.json").read_text())["data"]
    assert (data["num_clips"], data["num_skipped"]) == (6, 3)


def test_silence_is_learnt_from_without_a_number_lost(make_losatok_config, losatok_corpus, tmp_path):
    folder = losatok_corpus.train.parent
    soundfile.write(folder / "silence.wav", [0.0] * 8000, 16000)
    path = str(write_records(folder / "silence.jsonl", [{"id": "silence", "audio": "silence.wav"}]))
    for stage in ("semantic", "tokenizer"):
        output = tmp_path / stage
        train(make_losatok_config(stage, train_data=path, eval_data=path, output_dir=str(output), max_steps=2))
        assert all(one.isfinite().all() for one in read_safetensors(output / "model" / "model.safetensors").values())


def test_collapsed_dimensions_raise_an_alarm(make_losatok_config, losatok_corpus, tmp_path, caplog):
    settings = {"eval_data": str(losatok_corpus.dev), "collapsed_below": 1e9, "max_steps": 1}
    train(make_losatok_config(**settings))
    [alarm] = metrics_of(tmp_path / "run", "alarm")
    assert "6 of 6 latent dimensions are collapsed" in alarm["message"]
    assert alarm["message"] in caplog.text


def test_segments_shorter_than_the_windows_are_refused(make_losatok_config):
    with pytest.raises(ValueError, match="640 samples, too few for a window of 2048"):
        train(make_losatok_config(segment_tokens=1, mel_windows=(2048,)))
