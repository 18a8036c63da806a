"""Whole runs of a codec's training."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from audiollm.program import run_program
from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer
from audiollm.training.codec import wavtokenizer as learning
from audiollm.training.codec.config import CodecTrainingConfig
from audiollm.training.codec.start import scale_features, scale_to_sound
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_codec import train

from .conftest import TINY_CODEC, write_records
from .finished_runs import assert_same_weights, metrics_of, weights_of

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_learns_with_and_without_codes_and_leaves_a_tokenizer(make_codec_config, decoder_corpus, tmp_path):
    summary = train(
        make_codec_config(
            max_steps=80, quantize_from=40, eval_data=str(decoder_corpus.dev), eval_every=20, save_every=40
        )
    )
    run = tmp_path / "run"
    lines, evaluations = metrics_of(run), metrics_of(run, "eval")
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert ["perplexity" in line for line in lines] == [False] * 39 + [True] * 41
    assert lines[38]["loss"] < lines[0]["loss"]
    distances = [line["mel_distance"] for line in evaluations]
    assert distances[1] > distances[3]  # once there are codes
    assert evaluations[3]["codes_used"][0] > 4
    tokenizer = AudioTokenizer.from_pretrained(summary.model_folder)
    assert isinstance(tokenizer, WavTokenizer)
    tone = torch.sin(torch.arange(8000) * 0.2) * 0.2
    codes = tokenizer.encode([tone, torch.randn(8000) * 0.1], 8000)
    assert not torch.equal(codes[0], codes[1])
    assert len(tokenizer.decode(codes)[0]) == 8000
    assert AudioTokenizer.from_pretrained(run).fingerprint() == tokenizer.fingerprint()
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["num_clips"] == 20
    assert "AudioTokenizer.from_pretrained" in (summary.model_folder / "README.md").read_text()


def test_passes_of_one_segment_equal_one_pass_of_all(make_codec_config, tmp_path):
    train(make_codec_config(output_dir=str(tmp_path / "whole")))
    train(make_codec_config(output_dir=str(tmp_path / "cut"), segments_per_pass=1))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=2e-3)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, cut[name], rtol=1e-2, atol=2e-3)


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_codec_config, decoder_corpus, tmp_path):
    """SIGKILL at the sixth update; the last checkpoint is from the fifth. Dropout makes random states matter."""
    sizes = {name: getattr(TINY_CODEC, name) for name in TINY_CODEC.__dataclass_fields__} | {
        "size": 64,
        "has_position_net": True,
    }
    settings = {
        "tokenizer": WavTokenizerConfig(**sizes), "save_every": 5, "eval_data": str(decoder_corpus.dev),
        "eval_every": 2,
    }  # fmt: skip
    train(make_codec_config(output_dir=str(tmp_path / "straight"), **settings))
    killed = tmp_path / "killed"
    config = make_codec_config(output_dir=str(killed), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal\n"
        "from audiollm.training import train_codec\n"
        "update = train_codec.CodecTrainer.update\n"
        "def dies(trainer, step, batch):\n"
        "    if step == 6:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(trainer, step, batch)\n"
        "train_codec.CodecTrainer.update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(train_codec.CodecTrainingConfig, train_codec.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert ended.returncode == -9, ended.stderr[-2000:]
    summary = train(make_codec_config(output_dir=str(killed), resume="latest", **settings))
    assert summary.steps == 6
    for event in ("train", "eval"):
        assert metrics_of(killed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(killed, tmp_path / "straight")


def test_every_checkpoint_goes_on_to_the_same_bits(make_codec_config, decoder_corpus, tmp_path):
    """Before the codebook begins, right before it does, right behind, and at a restart of entries."""
    settings = {"save_every": 1, "keep_checkpoints": 9, "eval_data": str(decoder_corpus.dev), "eval_every": 2}
    straight = tmp_path / "straight"
    train(make_codec_config(output_dir=str(straight), **settings))
    for step in (1, 3, 4, 5, 6):
        resumed = tmp_path / f"from_{step}"
        checkpoint = str(straight / "checkpoints" / f"step_{step:06d}")
        train(make_codec_config(output_dir=str(resumed), resume=checkpoint, **settings))
        assert_same_weights(resumed, straight)
        for event in ("train", "eval"):
            assert metrics_of(resumed, event) == [one for one in metrics_of(straight, event) if one["step"] > step]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"segment_seconds": 0.3, "max_steps": 8}, "segment_seconds: 0.2 → 0.3"),
        ({"tokenizer": dataclasses.replace(TINY_CODEC, size=64)}, "tokenizer.size: 32 → 64"),
        ({"tokenizer": dataclasses.replace(TINY_CODEC, codebook_size=8)}, "tokenizer.codebook_size: 16 → 8"),
        ({"quantize_from": 2}, "quantize_from: 4 → 2"),
    ],
)
def test_resuming_a_different_run_names_the_difference(make_codec_config, changes, named):
    train(make_codec_config(save_every=3))
    with pytest.raises(ResumeError, match=re.escape(named)):
        train(make_codec_config(**({"resume": "latest"} | changes)))


def test_the_best_evaluation_is_one_with_codes(make_codec_config, decoder_corpus, tmp_path):
    """Without codes more comes back, but of no tokenizer."""
    settings = {"eval_data": str(decoder_corpus.dev), "eval_every": 2, "quantize_from": 5, "load_best_at_end": True}
    summary = train(make_codec_config(metric_for_best="mel_distance", **settings))
    first, second, last = metrics_of(tmp_path / "run", "eval")
    assert first["mel_distance"] is None
    assert second["mel_distance"] is None
    assert first["mel_distance_without_codes"] > 0
    assert (summary.best.step, summary.best.value) == (6, last["mel_distance"])


def test_a_run_that_ends_before_its_codebook_begins_is_refused(make_codec_config):
    with pytest.raises(ValueError, match="quantize_from=7: the run makes 6 updates"):
        train(make_codec_config(quantize_from=7))


def test_what_the_decoder_makes_of_features_stays_when_they_are_scaled_for_the_codebook():
    torch.manual_seed(0)
    tokenizer = WavTokenizer(TINY_CODEC).eval()
    waveforms = torch.randn(2, 1600) * 0.1
    with torch.no_grad():
        tokenizer.encoder.layers[-1].conv.parametrizations.weight.original0 *= 50
        before = tokenizer.features(waveforms)
        expected = tokenizer.synthesize(before)
        scaled = scale_features(tokenizer, before.flatten(0, 1))
        features = tokenizer.features(waveforms)
        assert float(features.flatten(0, 1).var(dim=0, correction=0).mean()) == pytest.approx(1, rel=1e-3)
        torch.testing.assert_close(features.flatten(0, 1), scaled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokenizer.synthesize(features), expected, rtol=1e-3, atol=1e-4)


def test_the_commitment_is_small_where_the_codebook_begins_on_large_features(make_codec_config, monkeypatch, tmp_path):
    """A commitment to entries among features that have grown was all that was learned: they shrank, away from them."""
    start = learning.scale_to_sound

    def enlarged(encoder, waveforms):
        start(encoder, waveforms)
        encoder.layers[-1].conv.parametrizations.weight.original0.data *= 30

    monkeypatch.setattr(learning, "scale_to_sound", enlarged)
    train(make_codec_config(max_steps=2, quantize_from=2))
    [_, first, *_] = metrics_of(tmp_path / "run")
    assert first["commitment"] < 1  # in the hundreds, if the features stay as large
    assert first["commitment"] < first["spectral"]


def test_few_codes_in_use_raise_an_alarm(make_codec_config, decoder_corpus, tmp_path, caplog):
    settings = {"eval_data": str(decoder_corpus.dev), "max_steps": 4}
    train(make_codec_config(output_dir=str(tmp_path / "quiet"), **settings))
    assert metrics_of(tmp_path / "quiet", "alarm") == []
    train(make_codec_config(collapse_alarm=1.1, **settings))
    [alarm] = metrics_of(tmp_path / "run", "alarm")
    assert "the codebook is collapsing" in alarm["message"]
    assert alarm["message"] in caplog.text


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_odd_recordings_are_trained_on_or_named(make_codec_config, tmp_path, on_bad):
    """Silence, clips shorter than a segment, stereo, other rates; and those that are no sound."""
    tone = np.sin(np.arange(22050) * 0.1) * 0.3
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "short.wav", tone[:50], 8000)
    soundfile.write(tmp_path / "stereo.flac", np.stack([tone, tone], axis=1), 44100)
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(22050) == 5, np.nan, tone), 22050, subtype="FLOAT")
    names = ["silence.wav", "nan.wav", "short.wav", "stereo.flac"]
    data = str(write_records(tmp_path / "odd.jsonl", [{"audio": name} for name in names]))
    config = make_codec_config(train_data=data, eval_data=data, on_bad=on_bad, quantize_from=2)
    if on_bad == "error":
        with pytest.raises(DataError, match=r"(?s)1 of 4 records .*odd\.jsonl:2"):
            train(config)
        return
    train(config)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["num_skipped"] == 1
    assert all(tensor.isfinite().all() for tensor in weights_of(tmp_path / "run").values())


def test_silence_alone_leaves_numbers(make_codec_config, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    data = str(tmp_path / "silence.wav")
    train(make_codec_config(train_data=data, eval_data=data, quantize_from=2, max_steps=3))
    weights = weights_of(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert (
        max(float(tensor.abs().max()) for tensor in weights.values()) < 1000
    )  # nothing was scaled up to be sound, which would take a million


def test_no_recordings_to_train_or_to_evaluate_on_are_refused(make_codec_config, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    for key in ("train_data", "eval_data"):
        with pytest.raises(DataError, match=r"none\.jsonl holds no records"):
            train(make_codec_config(**{key: str(tmp_path / "none.jsonl")}))


def test_keys_that_are_no_settings_are_named(tmp_path, capsys):
    path = ROOT / "training" / "configs" / "codec_small.yaml"
    for flag in ("--tokenizer.codebok_size", "--restart_intervall"):
        arguments = ["--config", str(path), "--train_data", "a", "--output_dir", str(tmp_path), flag, "8"]
        with pytest.raises(SystemExit):
            run_program(CodecTrainingConfig, train, name="train_codec", arguments=arguments)
        assert flag.rpartition(".")[2].strip("-") in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(make_codec_config, tmp_path):
    with pytest.raises(NonFiniteLossError, match="non_finite_step"):
        train(make_codec_config(learning_rate=1e30, max_grad_norm=None))
    content = json.loads(next((tmp_path / "run").glob("non_finite_step_*.json")).read_text())
    assert all(one.startswith("clip-") for one in content["passes"][0]["clips"])


def test_recordings_that_cannot_be_used_are_listed(make_codec_config, decoder_corpus, tmp_path):
    records = [{"audio": str(decoder_corpus.folder / "clip_0.wav")}, {"audio": "absent.wav"}, {"text": "no audio"}]
    data = write_records(tmp_path / "some.jsonl", records)
    with pytest.raises(DataError, match=r"2 of 3 records .* cannot be trained on") as error:
        train(make_codec_config(train_data=str(data)))
    assert "absent.wav" in str(error.value)
    assert "some.jsonl:3" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_seconds": 0.01}, "too short for a window"),
        ({"fit_segments": 1, "segment_seconds": 0.1}, "cannot fill a codebook of 16 entries"),
        ({"codebook_decay": 1.0}, "codebook_decay=1.0"),
        ({"optimizer": "muon"}, "use adamw"),
        ({"resolutions": (250,)}, "multiples of 4"),
        ({"quantize_from": 0}, "quantize_from=0"),
        ({"commitment_weight": -1.0}, "commitment_weight=-1"),
        # 8 frames of 16 entries: at a count below 0.98, a half of an update each would be none at all.
        (
            {"segments_per_update": 1, "segment_seconds": 0.08, "fit_segments": 2, "resolutions": (256,)},
            "restarted again",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(make_codec_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_codec_config(**changes)


def test_the_shipped_config_is_read_and_makes_the_sizes_it_says(tmp_path):
    read = []
    path = ROOT / "training" / "configs" / "codec_small.yaml"
    data = ["--train_data", "train.jsonl", "--eval_data", "dev.jsonl"]
    arguments = ["--config", str(path), *data, "--output_dir", str(tmp_path)]
    run_program(CodecTrainingConfig, read.append, name="train_codec", arguments=arguments)
    config = read[0]
    with torch.device("meta"):
        model = WavTokenizer(config.tokenizer)
    assert (model.sample_rate, model.frame_rate, model.codebook_size) == (16000, 40.0, 1024)
    assert f"{sum(one.numel() for one in model.weights().values()) / 1e6:.0f} M parameters" in path.read_text()
    assert set(yaml.safe_load(path.read_text())) <= set(CodecTrainingConfig.__dataclass_fields__)


def test_a_fresh_encoder_tells_sounds_apart_however_quiet_they_are():
    torch.manual_seed(0)
    encoder = WavTokenizer(TINY_CODEC).encoder
    waveforms = torch.randn(4, 1600) * torch.tensor([[0.01], [0.02], [0.01], [0.02]])
    scale_to_sound(encoder, waveforms)
    with torch.no_grad():
        features = encoder(waveforms[:, None])
    assert float(features.std()) == pytest.approx(1, abs=0.01)
    assert float(features.std(dim=(0, 2)).mean()) > 0.5  # over sounds and time, not from channel to channel
