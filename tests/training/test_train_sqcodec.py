"""Whole runs of an SQCodec's training."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from audiollm.cli.app import main
from audiollm.program import run_program
from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo.sqcodec.configuration import NUM_LEVELS
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec
from audiollm.training.codec.config import AdversarySettings, CodecTrainingConfig
from audiollm.training.codec.sqcodec import SQCodecObjective, level_counts
from audiollm.training.loop.errors import ResumeError
from audiollm.training.train_codec import train

from .conftest import TINY_SQCODEC
from .finished_runs import assert_same_weights, metrics_of

ROOT = Path(__file__).resolve().parents[2]


def mean_of(lines, name):
    return sum(line[name] for line in lines) / len(lines)


def test_the_loss_falls_and_what_is_left_tokenizes_and_reconstructs(make_sqcodec_config, decoder_corpus, tmp_path):
    settings = {"max_steps": 60, "eval_data": str(decoder_corpus.dev), "eval_every": 30, "waveform_weight": 1.0}
    summary = train(make_sqcodec_config(adversary=AdversarySettings(), **settings))
    run = tmp_path / "run"
    lines = metrics_of(run)
    assert mean_of(lines[-5:], "loss") < 0.8 * mean_of(lines[:5], "loss")
    assert all(1 <= line["least_perplexity"] <= line["mean_perplexity"] <= NUM_LEVELS for line in lines)
    first, last = metrics_of(run, "eval")
    assert last["mel_distance"] < first["mel_distance"]
    assert len(last["perplexity"]) == len(last["codes_used"]) == TINY_SQCODEC.latent_hidden_dim
    assert json.loads((summary.model_folder / "config.json").read_text())["latent_hidden_dim"] == 4

    tokenizer = AudioTokenizer.from_pretrained(run)
    assert isinstance(tokenizer, SQCodec)
    clip = decoder_corpus.folder / "clip_0.wav"
    waveform, rate = soundfile.read(clip, dtype="float32")
    codes = tokenizer.encode(torch.from_numpy(waveform), rate)
    assert len(codes[0].unique()) > 2
    main(["tokenize", str(clip), str(tmp_path / "codes.jsonl"), "--audio-tokenizer", str(run)])
    [record] = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert torch.equal(torch.tensor(record["codes"]), codes[0])
    main(["reconstruct", str(clip), str(tmp_path / "back.wav"), "--audio-tokenizer", str(run)])
    assert soundfile.info(tmp_path / "back.wav").samplerate == 8000


def test_discriminators_join_where_they_are_asked_to(make_sqcodec_config, tmp_path):
    train(make_sqcodec_config())
    lines = metrics_of(tmp_path / "run")
    own = {"discriminator", "adversarial", "feature_matching", "discriminator_grad_norm"}
    assert [own <= line.keys() for line in lines] == [False, False, True, True, True, True]
    late = dataclasses.replace(make_sqcodec_config().adversary, start=7)
    train(make_sqcodec_config(output_dir=str(tmp_path / "late"), adversary=late))
    assert not any(own & line.keys() for line in metrics_of(tmp_path / "late"))


def test_passes_of_one_segment_equal_one_pass_of_all(make_sqcodec_config, tmp_path):
    settings = {"learning_rate": 1e-4}
    train(make_sqcodec_config(output_dir=str(tmp_path / "whole"), **settings))
    train(make_sqcodec_config(output_dir=str(tmp_path / "cut"), segments_per_pass=1, **settings))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=2e-3)
        assert line["mean_perplexity"] == pytest.approx(other["mean_perplexity"], rel=2e-2)


def test_every_checkpoint_goes_on_to_the_same_bits(make_sqcodec_config, decoder_corpus, tmp_path):
    """Before there are discriminators, right before they begin, and behind."""
    settings = {"save_every": 1, "keep_checkpoints": 9, "eval_data": str(decoder_corpus.dev), "eval_every": 2}
    straight = tmp_path / "straight"
    train(make_sqcodec_config(output_dir=str(straight), **settings))
    for step in (1, 2, 4):
        resumed = tmp_path / f"from_{step}"
        checkpoint = str(straight / "checkpoints" / f"step_{step:06d}")
        train(make_sqcodec_config(output_dir=str(resumed), resume=checkpoint, **settings))
        assert_same_weights(resumed, straight)
        for event in ("train", "eval"):
            assert metrics_of(resumed, event) == [one for one in metrics_of(straight, event) if one["step"] > step]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer": dataclasses.replace(TINY_SQCODEC, latent_hidden_dim=3)}, "latent_hidden_dim: 4 → 3"),
        ({"adversary": AdversarySettings(start=2, windows=(256, 128), channels=2)}, "adversary.start: 3 → 2"),
    ],
)
def test_resuming_a_different_run_names_the_difference(make_sqcodec_config, changes, named):
    train(make_sqcodec_config(save_every=3))
    with pytest.raises(ResumeError, match=re.escape(named)):
        train(make_sqcodec_config(resume="latest", **changes))


def test_numbers_that_stay_at_one_level_raise_an_alarm(make_sqcodec_config, decoder_corpus, tmp_path, caplog):
    settings = {"eval_data": str(decoder_corpus.dev), "max_steps": 1}
    train(make_sqcodec_config(output_dir=str(tmp_path / "quiet"), **settings))
    assert metrics_of(tmp_path / "quiet", "alarm") == []
    train(make_sqcodec_config(collapse_alarm=1.1, **settings))
    [alarm] = metrics_of(tmp_path / "run", "alarm")
    assert "4 of the 4 numbers of a latent have hardly more than one of 19 levels" in alarm["message"]
    assert alarm["message"] in caplog.text


def test_levels_are_counted_number_by_number():
    codes_BKT = torch.tensor([[[0, 0, 18], [9, 9, 9]], [[1, 0, 18], [9, 8, 9]]])
    counts_KL = level_counts(codes_BKT)
    assert counts_KL.shape == (2, NUM_LEVELS)
    assert (counts_KL[0, 0], counts_KL[0, 1], counts_KL[0, 18]) == (3, 1, 2)
    assert (counts_KL[1, 8], counts_KL[1, 9], counts_KL.sum()) == (1, 5, 12)


def test_a_fresh_encoder_uses_many_levels(make_sqcodec_config):
    torch.manual_seed(0)
    objective = SQCodecObjective(make_sqcodec_config(), torch.device("cpu"))
    waveforms = torch.randn(4, 1600) * torch.tensor([[0.001], [0.002], [0.001], [0.002]])
    objective.start(waveforms)
    made, _ = objective(waveforms, torch.arange(4), with_codes=True)
    assert made.shape == waveforms.shape
    assert objective.after_update(with_codes=True)["least_perplexity"] > 5
    assert objective.after_update(with_codes=True)["mean_perplexity"] == 1  # counted once


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize_from": 4}, "quantize_from has no effect on an SQCodec"),
        ({"commitment_weight": 1.0}, "commitment_weight has no effect on an SQCodec"),
        ({"segment_seconds": 0.02}, "too short for a window"),
        ({"adversary": AdversarySettings(start=1, windows=(8192,))}, "too short for a window of 8192"),
        ({"tokenizer": dataclasses.replace(TINY_SQCODEC, encoder_only=True)}, "leaves nothing to learn from"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_sqcodec_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_sqcodec_config(**changes)


def test_settings_of_discriminators_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"adversary\.channels has no effect without adversary\.start"):
        AdversarySettings(channels=8)
    with pytest.raises(ValueError, match=r"adversary\.windows has 250"):
        AdversarySettings(start=1, windows=(250,))


@pytest.mark.parametrize(("name", "size"), [("codec_sqcodec", 136), ("codec_sqcodec_small", 16)])
def test_the_shipped_configs_are_read_and_make_the_sizes_they_say(tmp_path, name, size):
    read = []
    path = ROOT / "training" / "configs" / f"{name}.yaml"
    data = ["--train_data", "train.jsonl", "--eval_data", "dev.jsonl"]
    arguments = ["--config", str(path), *data, "--output_dir", str(tmp_path)]
    run_program(CodecTrainingConfig, read.append, name="train_codec", arguments=arguments)
    with torch.device("meta"):
        model = SQCodec(read[0].tokenizer)
    assert (model.sample_rate, model.frame_rate, model.num_codebooks) == (24000, 25.0, size)
    millions = sum(one.numel() for one in model.weights().values()) / 1e6
    assert f"{millions:.{0 if millions > 1 else 1}f} M parameters" in path.read_text()
    assert set(yaml.safe_load(path.read_text())) <= set(CodecTrainingConfig.__dataclass_fields__)


def test_keys_that_are_no_sizes_are_named(tmp_path, capsys):
    path = ROOT / "training" / "configs" / "codec_sqcodec_small.yaml"
    arguments = ["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path), "--tokenizer.chanels", "8"]
    with pytest.raises(SystemExit):
        run_program(CodecTrainingConfig, train, name="train_codec", arguments=arguments)
    assert "chanels" in capsys.readouterr().err
