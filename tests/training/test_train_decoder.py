"""Whole runs of the flow model's training."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiollm.program import run_program
from audiollm.tokenizer.decoder.configuration import FlowConfig, WaveformDecoderConfig
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.decoder.clips import ClipFormat
from audiollm.training.decoder.config import DecoderTrainingConfig, FlowTrainingSettings
from audiollm.training.decoder.flow.batches import make_pass
from audiollm.training.decoder.flow.trainer import embedding_from_codebook
from audiollm.training.decoder.parts import join_decoder, load_part
from audiollm.training.decoder.shards import prepare_items
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_decoder import train

from . import finished_runs
from .finished_runs import assert_near_flow as assert_near
from .finished_runs import metrics_of

weights_of = functools.partial(finished_runs.weights_of, name="flow.safetensors")

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_learns_and_leaves_a_complete_record(make_decoder_config, decoder_corpus, tmp_path):
    config = make_decoder_config(
        eval_data=str(decoder_corpus.dev), eval_every=60, eval_clips=3, save_every=60, max_steps=120,
        flow=FlowTrainingSettings(ema_decay=0.9),
    )  # fmt: skip
    summary = train(config)
    run = tmp_path / "run"
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert lines[-1]["epoch"] > 5
    assert all(line["mel_frames"] <= 400 for line in lines)
    early, late = (sum(line["loss"] for line in part) / 20 for part in (lines[:20], lines[-20:]))
    assert late < 0.8 * early
    evaluations = metrics_of(run, "eval")
    assert [line["step"] for line in evaluations] == [60, 120]
    assert evaluations[1]["loss"] < evaluations[0]["loss"]
    right, wrong = losses_with_right_and_wrong_codes(run, decoder_corpus.dev)
    assert right < 0.9 * wrong  # it is the codes that it learned from
    assert summary.evaluation["mel_distance"] == evaluations[1]["mel_distance"] < 1.5  # nats
    assert summary.loss == lines[-1]["loss"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step_000060", "step_000120"]
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["num_clips"] == 20
    assert record["num_updates"] == 120
    assert json.loads((run / "checkpoints" / "step_000120" / "config.json").read_text())["max_steps"] == 120


def losses_with_right_and_wrong_codes(run: Path, manifest: Path) -> tuple[float, float]:
    """Losses of a trained model on held-out tones, with their own codes and with those of other pitches."""
    sizes, weights = load_part(run, "flow")
    flow = FlowModel(sizes.flow, sizes.mel).eval()
    flow.load_state_dict(weights)
    items = prepare_items(str(manifest), ClipFormat(sizes.mel, 25.0, 64), run / "prepared")
    clips = range(len(items))
    one = make_pass(items, clips, clips, seeds=(0, 0), max_codes=999, guidance_dropout=0.0, speaker_size=4)
    inputs = one.inputs(torch.device("cpu"))
    inputs["lengths"] = inputs.pop("code_lengths")
    with torch.no_grad():
        right = float(flow.loss(**inputs, padding="hidden"))
        return right, float(flow.loss(**inputs | {"codes": (inputs["codes"] + 30) % 60}, padding="hidden"))


def test_evaluations_with_a_vocoder_leave_sounds_and_their_distances(
    make_decoder_config, decoder_parts, decoder_corpus, tmp_path
):
    WaveformDecoder(decoder_parts.tiny_decoder()).save_pretrained(tmp_path / "other")
    settings = {"eval_data": str(decoder_corpus.dev), "eval_clips": 2, "max_steps": 1}
    summary = train(make_decoder_config(flow=FlowTrainingSettings(eval_vocoder=str(tmp_path / "other")), **settings))
    assert summary.evaluation.keys() == {"event", "step", "loss", "mel_distance", "mcd", "sound_mel_distance"}
    folder = tmp_path / "run" / "evaluation" / "step_000001"
    result = json.loads((folder / "metrics.json").read_text())
    assert result["systems"].keys() == {"original", "copy_synthesis", "decoded"}
    assert [len(list(folder.glob(f"*.{kind}"))) for kind in ("original.wav", "decoded.wav", "png")] == [2, 2, 2]
    for clip in ("000_clip-20", "001_clip-21"):
        lengths = {soundfile.info(folder / f"{clip}.{kind}.wav").frames for kind in ("original", "decoded")}
        assert len(lengths) == 1

    # What only decides evaluations may change; a vocoder that is not there stops the run before the first update.
    train(make_decoder_config(resume="latest", **settings))
    with pytest.raises(ValueError, match="nowhere"):
        train(
            make_decoder_config(
                flow=FlowTrainingSettings(eval_vocoder=str(tmp_path / "nowhere")), resume="latest", **settings
            )
        )


def test_the_saved_model_is_the_average_and_not_the_last_update(make_decoder_config, tmp_path):
    train(make_decoder_config(flow=FlowTrainingSettings(ema_decay=0.9)))
    checkpoint = tmp_path / "run" / "checkpoints" / "step_000006"
    last = load_file(checkpoint / "weights.safetensors")
    averages = torch.load(checkpoint / "ema.pt", weights_only=True)["averages"]
    for name, tensor in weights_of(tmp_path / "run").items():
        assert torch.equal(tensor, averages[f"flow.{name}"])
    assert not torch.equal(weights_of(tmp_path / "run")["encoder_proj.weight"], last["flow.encoder_proj.weight"])


def test_passes_of_one_clip_equal_one_pass_of_all(make_decoder_config, tmp_path):
    train(make_decoder_config(output_dir=str(tmp_path / "whole")))
    train(make_decoder_config(output_dir=str(tmp_path / "cut"), frames_per_pass=1))
    assert_near(tmp_path / "whole", tmp_path / "cut")


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(
    make_decoder_config, decoder_parts, decoder_corpus, tmp_path
):
    """SIGKILL at the fifth update; the last checkpoint is from the third. Dropout makes random states matter."""
    settings = {
        "decoder": decoder_parts.tiny_decoder(dropout=0.1), "save_every": 3, "eval_data": str(decoder_corpus.dev),
        "eval_every": 2, "eval_clips": 1, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    train(make_decoder_config(output_dir=str(tmp_path / "straight"), **settings))
    killed = tmp_path / "killed"
    config = make_decoder_config(output_dir=str(killed), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal\n"
        "from audiollm.training import train_decoder\n"
        "from audiollm.training.decoder.flow import trainer as flow_training\n"
        "update = flow_training.FlowTrainer.update\n"
        "def dies(trainer, step, batch):\n"
        "    if step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(trainer, step, batch)\n"
        "flow_training.FlowTrainer.update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(train_decoder.DecoderTrainingConfig, train_decoder.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert ended.returncode == -9, ended.stderr[-2000:]
    assert [line["step"] for line in metrics_of(killed)] == [1, 2, 3, 4]
    summary = train(make_decoder_config(output_dir=str(killed), resume="latest", **settings))
    assert summary.steps == 6
    for event in ("train", "eval"):
        assert metrics_of(killed, event) == metrics_of(tmp_path / "straight", event)
    resumed, straight = weights_of(killed), weights_of(tmp_path / "straight")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "sgd"])
def test_every_optimizer_is_resumed_to_the_same_bits(make_decoder_config, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "schedule": "linear", "max_steps": 4, "save_every": 2, "learning_rate": 1e-3}
    train(make_decoder_config(output_dir=str(tmp_path / "straight"), **settings))
    checkpoint = tmp_path / "straight" / "checkpoints" / "step_000002"
    train(make_decoder_config(output_dir=str(tmp_path / "resumed"), resume=str(checkpoint), **settings))
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[2:]
    resumed, straight = weights_of(tmp_path / "resumed"), weights_of(tmp_path / "straight")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight.items())


def test_resuming_a_different_run_lists_every_difference(make_decoder_config, tmp_path):
    train(make_decoder_config(max_steps=2))
    with pytest.raises(ValueError, match=r"already holds a run.*--resume latest"):
        train(make_decoder_config(max_steps=2))
    changed = FlowTrainingSettings(ema_decay=0.5)
    with pytest.raises(ResumeError) as error:
        train(make_decoder_config(max_steps=3, frames_per_update=500, flow=changed, resume="latest", log_every=2))
    for line in ("frames_per_update: 400 → 500", "total_steps: 2 → 3", "flow.ema_decay: 0.999 → 0.5"):
        assert line in str(error.value)
    assert "log_every" not in str(error.value)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(make_decoder_config, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"update \d+: (loss|gradient norm) is (nan|inf).*clip-\d+.*lower"):
        train(make_decoder_config(learning_rate=1e30, max_grad_norm=None, max_steps=20, save_every=1))
    [report] = (tmp_path / "run").glob("non_finite_step_*.json")
    content = json.loads(report.read_text())
    assert content["step"] > 1
    assert all(clip.startswith("clip-") for one in content["passes"] for clip in one["clips"])
    assert (tmp_path / "run" / "checkpoints" / f"step_{content['step'] - 1:06d}").exists()


def test_long_clips_are_trained_on_in_pieces(make_decoder_config):
    """0.2 s is less than every clip: 5 codes, 17 mel frames. An epoch of 20 such pieces takes three updates."""
    config = make_decoder_config(max_seconds=0.2, max_steps=3, frames_per_update=17 * 8)
    summary = train(config)
    assert sorted(line["mel_frames"] for line in metrics_of(Path(config.output_dir))) == [17 * 4, 17 * 8, 17 * 8]
    assert math.isfinite(summary.loss)


def test_the_run_and_a_vocoder_make_a_decoder(make_decoder_config, decoder_parts, tmp_path):
    train(make_decoder_config(max_steps=1))
    sizes = decoder_parts.tiny_decoder()
    other = WaveformDecoder(sizes)
    other.save_pretrained(tmp_path / "other")
    join_decoder(tmp_path / "run", tmp_path / "other", tmp_path / "decoder")
    decoder = WaveformDecoder.from_pretrained(tmp_path / "decoder")
    assert decoder.config == sizes
    trained = weights_of(tmp_path / "run")
    assert all(torch.equal(tensor, trained[name]) for name, tensor in decoder.flow.state_dict().items())
    [waveform] = decoder.decode(torch.arange(12))
    [again] = WaveformDecoder.from_pretrained(tmp_path / "other").decode(torch.arange(12))
    assert waveform.shape == again.shape == (256 * decoder.flow.num_mel_frames(12),)
    assert not torch.equal(waveform, again)

    # The decoder, or the run, is where another run can start.
    train(make_decoder_config(start_from=str(tmp_path / "decoder"), max_steps=1, output_dir=str(tmp_path / "second")))
    config, _ = load_part(tmp_path / "second", "flow")
    assert config == sizes
    with pytest.raises(ValueError, match=r"run of the flow, not of the vocoder: give the other folder"):
        join_decoder(tmp_path / "run", tmp_path / "run", tmp_path / "nothing")


def test_parts_of_different_mels_are_not_joined(make_decoder_config, decoder_parts, tmp_path):
    train(make_decoder_config(max_steps=1))
    sizes = decoder_parts.tiny_decoder()
    WaveformDecoder(
        dataclasses.replace(sizes, mel=dataclasses.replace(sizes.mel, max_frequency=7000.0))
    ).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"different mel spectrograms.*8000\.0.*7000\.0"):
        join_decoder(tmp_path / "run", tmp_path / "other", tmp_path / "decoder")


def test_the_tokenizer_encodes_the_clips_and_lends_its_codebook(
    make_decoder_config, decoder_corpus, assets, tmp_path, monkeypatch
):
    records = [json.loads(line) for line in decoder_corpus.train.read_text().splitlines()]
    for record in records:
        del record["codes"]
        record["audio"] = str(decoder_corpus.folder / record["audio"])
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    config = make_decoder_config(
        train_data=str(tmp_path / "plain.jsonl"), audio_tokenizer=str(assets.audio_tokenizer), max_steps=1,
        learning_rate=1e-12,
    )  # fmt: skip
    train(config)
    codebook = UniAudioTokenizer.from_pretrained(assets.audio_tokenizer).codebook.weight
    torch.testing.assert_close(
        weights_of(tmp_path / "run")["input_embedding.weight"], embedding_from_codebook(codebook, 16)
    )
    flow = dataclasses.replace(config.decoder.flow, codebook_size=32)
    other = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, flow=flow), resume="latest")
    with pytest.raises(ValueError, match=r"codebook_size=64, but decoder\.flow\.codebook_size=32"):
        train(other)


def test_an_embedding_from_a_codebook_keeps_which_entries_are_near():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(50, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
    embedding = embedding_from_codebook(low + 5.0, 8)
    assert embedding.shape == (50, 8)
    assert embedding.square().mean().item() == pytest.approx(1.0)
    before, after = torch.cdist(low, low), torch.cdist(embedding, embedding)
    torch.testing.assert_close(after / after.max(), before / before.max(), rtol=1e-3, atol=1e-3)
    assert embedding_from_codebook(torch.randn(5, 3), 8)[:, 3:].abs().max() == 0


def test_bad_clips_stop_the_run_before_it_starts(make_decoder_config, decoder_corpus, tmp_path):
    lines = decoder_corpus.train.read_text().splitlines()
    lines[3] = lines[3].replace('"codes": [', '"codes": [64, ')
    bad = decoder_corpus.folder / "bad.jsonl"
    bad.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"1 of 20 records[\s\S]*bad\.jsonl:4.*64"):
        train(make_decoder_config(train_data=str(bad)))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(make_decoder_config(train_data=str(bad), on_bad="skip", max_steps=1))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["num_clips"] == 19


def test_speaker_vectors_of_another_size_are_named(make_decoder_config, decoder_corpus):
    lines = [json.loads(line) | {"speaker_vector": [1.0, 0.0]} for line in decoder_corpus.train.open()]
    path = decoder_corpus.folder / "speakers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"speakers\.jsonl:\d+: speaker_vector holds 2 numbers.*speaker_size=4"):
        train(make_decoder_config(train_data=str(path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames_per_update": 0}, "frames_per_update=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"eval_every": 3}, "eval_every needs eval_data"),
        ({"flow": FlowTrainingSettings(eval_vocoder="x")}, "flow.eval_vocoder needs eval_data"),
        ({"num_epochs": None, "max_steps": None}, "neither num_epochs nor max_steps"),
        ({"min_seconds": 20.0}, "min_seconds=20.0 is above max_seconds=10.0"),
        (
            {"model": "vocoder", "flow": FlowTrainingSettings(ema_decay=0.5)},
            "flow.ema_decay has no effect with model: vocoder",
        ),
        ({"train_data": ""}, "train_data is empty"),
        (
            {"decoder": WaveformDecoderConfig(flow=FlowConfig(mean_prior=0.3))},
            "decoder.flow.mean_prior needs flow.mean_weight above 0",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(make_decoder_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_decoder_config(**changes)


@pytest.mark.parametrize("name", ["decoder_flow", "decoder_vocoder"])
def test_shipped_configs_are_read(tmp_path, name):
    seen = []
    path = ROOT / "training" / "configs" / f"{name}.yaml"
    flags = [
        "--config",
        str(path),
        "--train_data",
        "x.jsonl",
        "--output_dir",
        str(tmp_path),
        "--decoder.flow.guidance",
        "0.5",
    ]
    run_program(DecoderTrainingConfig, seen.append, arguments=flags)
    [config] = seen
    assert f"decoder_{config.model}" == name
    assert config.decoder.flow.guidance == 0.5


def test_user_errors_end_in_one_message_and_no_traceback(capfd, tmp_path):
    flags = ["--model", "flow", "--train_data", str(tmp_path / "none.jsonl"), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        run_program(DecoderTrainingConfig, train, name="train_decoder", arguments=flags)
    assert ended.value.code == 1
    last_line = capfd.readouterr().err.splitlines()[-1]
    assert last_line.startswith("train_decoder: error: ")
    assert "none.jsonl" in last_line
