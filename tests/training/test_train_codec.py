"""Whole runs of a codec's training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from audiollm.program import run_program
from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.zoo.wavtokenizer.configuration import WavTokenizerConfig
from audiollm.tokenizer.zoo.wavtokenizer.model import WavTokenizer
from audiollm.training.codec.config import CodecTrainingConfig
from audiollm.training.codec.start import scale_to_sound
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_codec import train

from .conftest import write_records
from .finished_runs import assert_same_weights, metrics_of, weights_of

ROOT = Path(__file__).resolve().parents[2]
TINY = WavTokenizerConfig(
    sample_rate=8000, num_filters=4, strides=(5, 4, 4), feature_size=8, codebook_size=16, size=32,
    intermediate_size=48, num_layers=2, num_conditions=None, has_position_net=False, n_fft=320, hop_length=80,
    num_lstm_layers=1,
)  # fmt: skip


@pytest.fixture
def make_config(decoder_corpus, tmp_path):
    """A config of six short updates, of which the last three have codes; every setting can be changed."""

    def make(**changes) -> CodecTrainingConfig:
        settings = {
            "tokenizer": TINY, "train_data": str(decoder_corpus.train), "output_dir": str(tmp_path / "run"),
            "max_steps": 6, "segment_seconds": 0.2, "segments_per_update": 4, "segments_per_pass": 4,
            "quantize_from": 4, "fit_segments": 8, "learning_rate": 3e-3, "resolutions": (256, 512), "eval_clips": 3,
            "restart_interval": 2,
        }  # fmt: skip
        return CodecTrainingConfig(**(settings | changes))

    return make


def test_a_run_learns_with_and_without_codes_and_leaves_a_tokenizer(make_config, decoder_corpus, tmp_path):
    summary = train(
        make_config(max_steps=80, quantize_from=40, eval_data=str(decoder_corpus.dev), eval_every=20, save_every=40)
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


def test_passes_of_one_segment_equal_one_pass_of_all(make_config, tmp_path):
    train(make_config(output_dir=str(tmp_path / "whole")))
    train(make_config(output_dir=str(tmp_path / "cut"), segments_per_pass=1))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=2e-3)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, cut[name], rtol=1e-2, atol=2e-3)


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_config, decoder_corpus, tmp_path):
    """SIGKILL at the sixth update; the last checkpoint is from the fifth. Dropout makes random states matter."""
    sizes = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__} | {"size": 64, "has_position_net": True}
    settings = {
        "tokenizer": WavTokenizerConfig(**sizes), "save_every": 5, "eval_data": str(decoder_corpus.dev),
        "eval_every": 2,
    }  # fmt: skip
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    killed = tmp_path / "killed"
    config = make_config(output_dir=str(killed), **settings)
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
    summary = train(make_config(output_dir=str(killed), resume="latest", **settings))
    assert summary.steps == 6
    for event in ("train", "eval"):
        assert metrics_of(killed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(killed, tmp_path / "straight")


def test_resuming_a_different_run_names_the_difference(make_config):
    train(make_config(save_every=3))
    with pytest.raises(ResumeError, match="segment_seconds"):
        train(make_config(resume="latest", segment_seconds=0.3, max_steps=8))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(make_config, tmp_path):
    with pytest.raises(NonFiniteLossError, match="non_finite_step"):
        train(make_config(learning_rate=1e30, max_grad_norm=None))
    content = json.loads(next((tmp_path / "run").glob("non_finite_step_*.json")).read_text())
    assert all(one.startswith("clip-") for one in content["passes"][0]["clips"])


def test_recordings_that_cannot_be_used_are_listed(make_config, decoder_corpus, tmp_path):
    records = [{"audio": str(decoder_corpus.folder / "clip_0.wav")}, {"audio": "absent.wav"}, {"text": "no audio"}]
    data = write_records(tmp_path / "some.jsonl", records)
    with pytest.raises(DataError, match=r"2 of 3 records .* cannot be trained on") as error:
        train(make_config(train_data=str(data)))
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
    ],
)
def test_settings_that_cannot_work_are_refused(make_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(**changes)


def test_the_shipped_config_is_read_and_makes_the_sizes_it_says(tmp_path):
    read = []
    path = ROOT / "training" / "configs" / "codec_small.yaml"
    data = ["--train_data", "train.jsonl", "--eval_data", "dev.jsonl"]
    arguments = ["--config", str(path), *data, "--output_dir", str(tmp_path)]
    run_program(CodecTrainingConfig, read.append, name="train_codec", arguments=arguments)
    config = read[0]
    with torch.device("meta"):
        model = WavTokenizer(config.tokenizer)
    assert (model.sample_rate, model.frame_rate, model.codebook_size) == (16000, 25.0, 1024)
    assert f"{sum(one.numel() for one in model.weights().values()) / 1e6:.0f} M parameters" in path.read_text()
    assert set(yaml.safe_load(path.read_text())) <= set(CodecTrainingConfig.__dataclass_fields__)


def test_a_fresh_encoder_tells_sounds_apart_however_quiet_they_are():
    torch.manual_seed(0)
    encoder = WavTokenizer(TINY).encoder
    waveforms = torch.randn(4, 1600) * torch.tensor([[0.01], [0.02], [0.01], [0.02]])
    scale_to_sound(encoder, waveforms)
    with torch.no_grad():
        features = encoder(waveforms[:, None])
    assert float(features.std()) == pytest.approx(1, abs=0.01)
    assert float(features.std(dim=(0, 2)).mean()) > 0.5  # over sounds and time, not from channel to channel
