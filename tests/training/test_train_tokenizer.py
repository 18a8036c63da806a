"""Whole runs of the tokenizer's training in one process."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from audiollm.cli import main
from audiollm.data.audio.augmentation import AugmentationConfig
from audiollm.program import run_program
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training.audio_tokenizer.batches import collate_examples
from audiollm.training.audio_tokenizer.config import TaskWeights, TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.audio_tokenizer.records import TokenizerRecords
from audiollm.training.audio_tokenizer.start import load_start, make_ready
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.record import config_as_json
from audiollm.training.train_tokenizer import train

from .conftest import write_records
from .finished_runs import assert_near_tokenizer, assert_same_weights, metrics_of, weights_of

ROOT = Path(__file__).resolve().parents[2]
QUANTIZER = {
    "quantizer_loss", "relative_quantization_error", "code_usage", "perplexity", "num_active_codes", "num_dead_codes",
    "num_restarted",
}  # fmt: skip


def test_a_run_of_both_stages_learns_and_leaves_a_complete_record(make_tokenizer_config, tokenizer_corpus, tmp_path):
    settings = {
        "eval_data": str(tokenizer_corpus.dev), "eval_every": 30, "eval_samples": 2, "save_every": 30, "max_steps": 60,
        "tasks": TaskWeights(caption=0.5),
    }  # fmt: skip
    first = make_tokenizer_config(quantized=False, output_dir=str(tmp_path / "first"), **settings)
    train(first)
    lines = metrics_of(tmp_path / "first")
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert not lines[0].keys() & QUANTIZER
    assert {"speech", "sound"} == set(lines[0]["gate_means"])
    mixed = next(line for line in lines if {"asr", "caption"} == set(line["text_losses"]))
    assert min(mixed["text_losses"].values()) < mixed["text_loss"] < max(mixed["text_losses"].values())

    size = TokenizerSettings(codebook_size=24, restart_interval=10)
    second = make_tokenizer_config(
        output_dir=str(tmp_path / "second"), start_from=str(tmp_path / "first"), audio_tokenizer=size, **settings
    )
    summary = train(second)
    lines = metrics_of(tmp_path / "second")
    assert lines[0].keys() > QUANTIZER
    assert lines[0]["loss"] < 0.7 * metrics_of(tmp_path / "first")[0]["loss"]  # it goes on where the first ended
    assert lines[0]["loss"] == pytest.approx(lines[0]["text_loss"] + lines[0]["quantizer_loss"])
    assert 0 < lines[-1]["code_usage"] <= 1
    assert lines[-1]["learning_rates"] == pytest.approx({"encoder": 1e-4, "decoder": 1e-3, "rest": 1e-3})
    assert summary.loss == lines[-1]["loss"]

    evaluations = metrics_of(tmp_path / "second", "eval")
    assert [line["step"] for line in evaluations] == [30, 60]
    assert {"asr", "caption"} == set(evaluations[-1]["text_losses"])
    assert math.isfinite(evaluations[-1]["wer"])
    run = tmp_path / "second"
    assert (run / "evaluation" / "step_000060.txt").exists()
    assert (run / "plots" / "training.png").exists()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step_000030", "step_000060"]
    record = json.loads((run / "run.json").read_text())
    assert record["data"]["num_clips"] == 20
    assert record["audio_tokenizer"]["codebook_size"] == 24
    assert record["num_trainable_parameters"] < record["num_parameters"]

    model = SupervisedTokenizer.from_pretrained(summary.model_folder)
    assert model.tokenizer.codebook_size == 24
    model.export_tokenizer(tmp_path / "exported")
    waveform = torch.randn(16000, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = model.tokenizer.encode([waveform], 16000).tolist()
    assert UniAudioTokenizer.from_pretrained(tmp_path / "exported").encode([waveform], 16000).tolist() == codes


def test_a_metric_joins_in_with_the_quantizer_and_stays(make_tokenizer_config, tmp_path):
    train(make_tokenizer_config(quantized=False, output_dir=str(tmp_path / "first"), max_steps=1))
    mapped = TokenizerSettings(codebook_size=24, metric_size=5)
    second = {"start_from": str(tmp_path / "first"), "audio_tokenizer": mapped, "max_steps": 2}
    summary = train(make_tokenizer_config(output_dir=str(tmp_path / "second"), **second))
    trained = SupervisedTokenizer.from_pretrained(summary.model_folder).tokenizer
    assert trained.config.quantize_metric_size == 5
    assert torch.linalg.matrix_rank(trained.codebook.metric) == 5
    assert not torch.equal(trained.codebook.metric, torch.eye(5, trained.config.d_model))

    third = {"start_from": str(tmp_path / "second"), "initialise_codebook": "keep", "max_steps": 1}
    summary = train(make_tokenizer_config(output_dir=str(tmp_path / "third"), audio_tokenizer=mapped, **third))
    kept = SupervisedTokenizer.from_pretrained(summary.model_folder).tokenizer
    assert torch.equal(kept.codebook.metric, trained.codebook.metric)
    other = TokenizerSettings(metric_size=6)
    with pytest.raises(ValueError, match=r"metric_size=6.*has 5: remove it, or set initialise_codebook: kmeans"):
        train(make_tokenizer_config(output_dir=str(tmp_path / "fourth"), audio_tokenizer=other, **third))


def test_a_metric_is_taken_away_with_0_and_refused_where_it_cannot_work(
    make_tokenizer_config, tokenizer_corpus, tmp_path
):
    settings = {"quantize_position": 2, "codebook_size": 24}
    made = SupervisedTokenizer.from_whisper(tokenizer_corpus.whisper, metric_size=5, **settings)
    made.save_pretrained(tmp_path / "start")

    def start(size, **changes):
        changes = {"start_from": str(tmp_path / "start")} | changes
        return make_tokenizer_config(audio_tokenizer=TokenizerSettings(metric_size=size), **changes)

    for config in (start(0), start(0, start_from=str(tokenizer_corpus.whisper))):
        without = load_start(config).model.tokenizer
        assert without.config.quantize_metric_size is None
        assert without.codebook.metric is None
    for size in (-1, 10_000):
        with pytest.raises(ValueError, match=rf"metric_size={size}: .* use 1 to"):
            load_start(start(size))
    with pytest.raises(ValueError, match=r"metric_size=None.*has 5: remove it"):
        load_start(start(0, initialise_codebook="keep"))
    keep = start(None, initialise_codebook="keep")
    with pytest.raises(ValueError, match=r"no features have been fitted yet.*initialise_codebook: kmeans"):
        make_ready(load_start(keep).model, keep, [0])
    make_ready(load_start(start(None)).model, start(None), [0])


def test_a_frozen_codebook_keeps_its_entries(make_tokenizer_config, tmp_path):
    """Not moved by averages, nor restarted; a moving one is, with the same settings."""
    settings = {
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.5), "max_steps": 4,
        "initialise_codebook": "keep", "start_from": str(tmp_path / "start"),
    }  # fmt: skip
    train(make_tokenizer_config(output_dir=str(tmp_path / "start"), max_steps=1))
    before = SupervisedTokenizer.from_pretrained(tmp_path / "start").tokenizer.codebook.weight
    for name, freeze in (("frozen", ("codebook",)), ("moving", ())):
        train(make_tokenizer_config(output_dir=str(tmp_path / name), freeze=freeze, **settings))
        after = SupervisedTokenizer.from_pretrained(tmp_path / name).tokenizer.codebook.weight
        assert torch.equal(after, before) is (name == "frozen")
    assert sum(line["num_restarted"] for line in metrics_of(tmp_path / "frozen")) == 0
    assert all(line["code_usage"] > 0 for line in metrics_of(tmp_path / "frozen"))


def test_passes_of_one_clip_equal_one_pass_of_all(make_tokenizer_config, tmp_path):
    settings = {"audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0)}
    train(make_tokenizer_config(output_dir=str(tmp_path / "whole"), micro_batch_size=8, **settings))
    train(make_tokenizer_config(output_dir=str(tmp_path / "cut"), micro_batch_size=1, **settings))
    assert sum(line["num_restarted"] for line in metrics_of(tmp_path / "whole")) > 0
    assert_near_tokenizer(tmp_path / "whole", tmp_path / "cut")


def test_the_loss_is_that_of_the_reference_formula(make_tokenizer_config, tokenizer_corpus, tmp_path):
    """One update of all clips at once: mean over target tokens, and over frames."""
    config = make_tokenizer_config(
        max_steps=1, global_batch_size=20, initialise_codebook="keep", output_vocabulary="seen", warm_start=False,
        audio_tokenizer=TokenizerSettings(codebook_size=32, dropout=0.0),
    )  # fmt: skip
    train(config)
    [line] = metrics_of(tmp_path / "run")
    model = load_start(config).model
    records = TokenizerRecords(str(tokenizer_corpus.train), model.text, tasks={"asr": 1.0, "caption": 1.0})
    nats, targets, error, frames = 0.0, 0, 0.0, 0
    for index in range(20):
        batch = collate_examples(
            [records.example(index, 0, 0)], model.tokenizer.log_mel, token_stride=640, pad_id=model.text.pad_id
        )
        with torch.no_grad():
            output = model(
                batch.input_features, batch.attention_mask, batch.decoder_input_ids, batch.labels, return_logits=True
            )
        logits = output.logits[0]
        # The decoder chooses between tokens that were seen: the others do not take part in the softmax.
        seen = torch.tensor(sorted({*records.token_ids, model.text.pad_id}))
        chosen = torch.full((logits.shape[1],), -math.inf)
        chosen[seen] = 0
        nats += float(torch.nn.functional.cross_entropy(logits + chosen, batch.labels[0], reduction="sum"))
        targets += batch.labels.numel()
        error += float(output.quantization_error)
        frames += int(output.num_frames)
    assert (line["num_targets"], line["num_frames"]) == (targets, frames)
    assert line["text_loss"] == pytest.approx(nats / targets, rel=1e-4)
    assert line["quantizer_loss"] == pytest.approx(10 * 0.25 * error / frames, rel=1e-4)


def test_what_is_new_begins_softly_where_a_run_starts_from_whisper(make_tokenizer_config, tmp_path):
    still = {"learning_rate": 0.0, "encoder_learning_rate": 0.0, "decoder_learning_rate": 0.0, "max_steps": 1}
    starts = {}
    for name, is_warm in (("plain", False), ("soft", True)):
        train(make_tokenizer_config(output_dir=str(tmp_path / name), quantized=False, warm_start=is_warm, **still))
        starts[name] = SupervisedTokenizer.from_pretrained(tmp_path / name / "model").tokenizer
    torch.testing.assert_close(
        starts["soft"].code_positions.weight, 0.1 * starts["plain"].code_positions.weight, atol=1e-6, rtol=0
    )
    assert not starts["soft"].sae.adapter[-1].weight.any()
    # A later stage goes on with what is there.
    train(make_tokenizer_config(output_dir=str(tmp_path / "next"), start_from=str(tmp_path / "plain"),
                                audio_tokenizer=TokenizerSettings(codebook_size=32), **still))  # fmt: skip
    after = SupervisedTokenizer.from_pretrained(tmp_path / "next" / "model").tokenizer
    assert torch.equal(after.code_positions.weight, starts["plain"].code_positions.weight)


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_tokenizer_config, tokenizer_corpus, tmp_path):
    """SIGKILL at the fifth update; the last checkpoint is from the third. Dropout makes random states matter."""
    settings = {
        "save_every": 3, "eval_data": str(tokenizer_corpus.dev), "eval_every": 2, "eval_samples": 1,
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.1),
        "augmentation": AugmentationConfig(probability=0.5, clip_snr_db=(0.0, 10.0)),
    }  # fmt: skip
    train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))
    killed = tmp_path / "killed"
    config = make_tokenizer_config(output_dir=str(killed), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal\n"
        "from audiollm.training import train_tokenizer\n"
        "from audiollm.training.audio_tokenizer import trainer as tokenizer_training\n"
        "update = tokenizer_training.TokenizerUpdater.update\n"
        "def dies(updater, step, batches):\n"
        "    if step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(updater, step, batches)\n"
        "tokenizer_training.TokenizerUpdater.update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(train_tokenizer.TokenizerTrainingConfig, train_tokenizer.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert ended.returncode == -9, ended.stderr[-2000:]
    assert [line["step"] for line in metrics_of(killed)] == [1, 2, 3, 4]
    assert not (killed / "model").exists()

    summary = train(make_tokenizer_config(output_dir=str(killed), resume="latest", **settings))
    assert summary.steps == 6
    for event in ("train", "eval", "alarm"):
        assert metrics_of(killed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(killed, tmp_path / "straight")


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "sgd"])
def test_every_optimizer_is_resumed_to_the_same_bits(make_tokenizer_config, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "schedule": "linear", "max_steps": 4, "save_every": 2}
    train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))
    checkpoint = tmp_path / "straight" / "checkpoints" / "step_000002"
    train(make_tokenizer_config(output_dir=str(tmp_path / "resumed"), resume=str(checkpoint), **settings))
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[2:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")


def test_resuming_a_different_run_lists_every_difference(make_tokenizer_config, tokenizer_corpus, tmp_path):
    train(make_tokenizer_config(max_steps=2))
    with pytest.raises(ValueError, match=r"already holds a run.*--resume latest"):
        train(make_tokenizer_config(max_steps=2))
    other = tmp_path / "other.jsonl"
    content = tokenizer_corpus.train.read_text().replace('"audio": "', f'"audio": "{tokenizer_corpus.folder}/')
    other.write_text(content.replace("tone", "noise"))
    with pytest.raises(ResumeError) as error:
        train(
            make_tokenizer_config(max_steps=3, learning_rate=1e-3, train_data=str(other), resume="latest", log_every=2)
        )
    for line in ("learning_rate: 0.01 → 0.001", "total_steps: 2 → 3", "data.records:", "train_data:"):
        assert line in str(error.value)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(make_tokenizer_config, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"update \d+: (loss|gradient norm) is (nan|inf).*clip-\d+.*lower"):
        train(make_tokenizer_config(decoder_learning_rate=1e30, max_grad_norm=None, max_steps=20, save_every=1))
    [report] = (tmp_path / "run").glob("non_finite_step_*.json")
    content = json.loads(report.read_text())
    assert content["step"] > 1
    assert sum(len(one["clips"]) for one in content["passes"]) == 8
    assert (tmp_path / "run" / "checkpoints" / f"step_{content['step'] - 1:06d}").exists()


def test_a_broken_model_is_noticed_before_its_first_update(make_tokenizer_config, tmp_path):
    first = make_tokenizer_config(max_steps=1, output_dir=str(tmp_path / "first"))
    train(first)
    weights = weights_of(tmp_path / "first")
    weights["model.decoder.layer_norm.weight"][3] = 3e38
    save_file(weights, tmp_path / "first" / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteLossError, match=r"update 1: loss is (nan|inf)"):
        train(make_tokenizer_config(start_from=str(tmp_path / "first"), audio_tokenizer=TokenizerSettings()))
    assert metrics_of(tmp_path / "run") == []
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_frozen_parts_keep_their_weights_and_the_others_move(make_tokenizer_config, tmp_path):
    settings = {"max_steps": 2, "initialise_codebook": "keep"}
    start = make_tokenizer_config(max_steps=1, learning_rate=0.0, encoder_learning_rate=0.0, decoder_learning_rate=0.0,
                                  output_dir=str(tmp_path / "start"))  # fmt: skip
    train(start)
    before = weights_of(tmp_path / "start")
    train(make_tokenizer_config(start_from=str(tmp_path / "start"), audio_tokenizer=TokenizerSettings(),
                                freeze=("layers_before_quantizer", "embeddings"), **settings))  # fmt: skip
    after = weights_of(tmp_path / "run")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    frozen = ("model.encoder.layers.0.", "model.encoder.layers.1.", "model.decoder.embed_tokens")
    assert not [name for name in moved if name.startswith(frozen)]
    for name in ("conv1.weight", "layers.2.fc1.weight", "residual_gate.0.weight", "codebook.weight"):
        assert f"model.encoder.{name}" in moved
    assert "model.decoder.layers.0.encoder_attn.k_proj.weight" in moved
    everything = ("encoder", "decoder", "sae", "code_positions")
    with pytest.raises(ValueError, match=r"freeze=.*leaves nothing to train"):
        train(make_tokenizer_config(freeze=everything, output_dir=str(tmp_path / "nothing")))


def test_cross_attention_learns_at_the_decoders_rate(make_tokenizer_config, tmp_path):
    """The published trainer chooses by substring: `encoder_attn` got the encoder's rate."""
    train(make_tokenizer_config(max_steps=1, encoder_learning_rate=0.0, learning_rate=0.0, weight_decay=0.0,
                                initialise_codebook="keep"))  # fmt: skip
    after = weights_of(tmp_path / "run")
    start = load_start(make_tokenizer_config()).model
    cross = "layers.1.encoder_attn.out_proj.weight"
    assert not torch.equal(start.decoder.state_dict()[cross], after[f"model.decoder.{cross}"])
    encoder = start.tokenizer.encoder.state_dict()
    for name, tensor in encoder.items():
        assert torch.equal(tensor, after[f"model.encoder.{name}"]), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TokenizerSettings(quantize_position=1), r"audio_tokenizer\.quantize_position=1.*brings its own"),
        (TokenizerSettings(codebook_size=16), r"codebook_size=16, but .* has 32 entries.*kmeans"),
    ],
)
def test_a_training_checkpoint_keeps_its_architecture(make_tokenizer_config, tmp_path, settings, message):
    train(make_tokenizer_config(max_steps=1, output_dir=str(tmp_path / "first")))
    with pytest.raises(ValueError, match=message):
        train(
            make_tokenizer_config(
                start_from=str(tmp_path / "first"), audio_tokenizer=settings, initialise_codebook="keep"
            )
        )


def test_starts_that_are_none_are_named(make_tokenizer_config, tmp_path):
    config = make_tokenizer_config(max_steps=1)
    train(config)
    with pytest.raises(ValueError, match=r"is a checkpoint to resume its own run from"):
        train(make_tokenizer_config(start_from=str(tmp_path / "run" / "checkpoints" / "step_000001"),
                                    output_dir=str(tmp_path / "other")))  # fmt: skip
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"has not ended"):
        train(make_tokenizer_config(start_from=str(tmp_path / "run"), output_dir=str(tmp_path / "another")))


def test_bf16_and_gradient_checkpointing_train_alike(make_tokenizer_config, tmp_path):
    settings = {"audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0)}
    train(make_tokenizer_config(output_dir=str(tmp_path / "plain"), **settings))
    train(make_tokenizer_config(output_dir=str(tmp_path / "recomputed"), gradient_checkpointing=True, **settings))
    assert_near_tokenizer(tmp_path / "plain", tmp_path / "recomputed")
    train(make_tokenizer_config(output_dir=str(tmp_path / "bf16"), mixed_precision="bf16", **settings))
    plain, bf16 = metrics_of(tmp_path / "plain"), metrics_of(tmp_path / "bf16")
    assert bf16[0]["loss"] != plain[0]["loss"]
    assert bf16[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.05)
    assert weights_of(tmp_path / "bf16")["model.encoder.codebook.weight"].dtype == torch.float32


def test_a_codebook_trained_by_gradient_moves_and_is_resumed(make_tokenizer_config, tmp_path):
    settings = {"audio_tokenizer": TokenizerSettings(codebook_size=32, ema_decay=0.0), "save_every": 3}
    train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))
    folder = tmp_path / "straight"
    before = weights_of(folder)
    middle = str(folder / "checkpoints" / "step_000003")
    train(make_tokenizer_config(output_dir=str(folder), resume=middle, **settings))
    for name, tensor in weights_of(folder).items():
        assert torch.equal(tensor, before[name]), name
    assert "model.encoder.ema_count" not in before


def test_bad_clips_stop_the_run_or_are_left_out(make_tokenizer_config, tokenizer_corpus, tmp_path):
    lines = tokenizer_corpus.train.read_text().splitlines()
    lines[3] = lines[3].replace("clip_3.wav", "absent.wav")
    bad = tokenizer_corpus.folder / "bad.jsonl"
    bad.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"1 of 20 records[\s\S]*bad\.jsonl:4.*absent"):
        train(make_tokenizer_config(train_data=str(bad)))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(make_tokenizer_config(train_data=str(bad), on_bad="skip", max_steps=1))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["num_clips"] == 19
    [skipped] = (tmp_path / "run").glob("skipped_*.jsonl")
    assert "absent" in skipped.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": 0}, "global_batch_size=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"eval_every": 3}, "eval_every needs eval_data"),
        ({"num_epochs": None, "max_steps": None}, "neither num_epochs nor max_steps"),
        ({"max_seconds": 31.0}, "max_seconds=31.0.*30 seconds"),
        ({"pad_to_seconds": 3.0}, "pad_to_seconds=3.0 is below max_seconds=30.0"),
        ({"start_from": ""}, "start_from is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_tokenizer_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_tokenizer_config(**changes)


def test_settings_that_cannot_work_with_these_data_are_refused(make_tokenizer_config):
    with pytest.raises(ValueError, match=r"warmup_steps=6, but the run has only 6 updates"):
        train(make_tokenizer_config(warmup_steps=6))
    with pytest.raises(ValueError, match=r"\d+ frames, too few for k-means with 4096 entries"):
        train(make_tokenizer_config(audio_tokenizer=TokenizerSettings(codebook_size=4096)))
    with pytest.raises(ValueError, match=r"trackers: wandb is not installed; pip install wandb"):
        train(make_tokenizer_config(trackers=("wandb",)))


@pytest.mark.parametrize(
    "name", ["tokenizer_stage1", "tokenizer_stage2", "tokenizer_small_stage1", "tokenizer_small_stage2", "mini_judge"]
)
def test_shipped_configs_are_read(tmp_path, name):
    seen = []
    path = ROOT / "training" / "configs" / f"{name}.yaml"
    flags = ["--config", str(path), "--train_data", "x.jsonl", "--output_dir", str(tmp_path), "--start_from", "w"]
    flags += ["--eval_data", "y.jsonl"]
    run_program(TokenizerTrainingConfig, seen.append, arguments=[*flags, "--augmentation.probability", "0.4"])
    [config] = seen
    assert config.quantized is not name.endswith("stage1")
    assert config.augmentation.probability == 0.4
    assert dataclasses.replace(config) == config


@pytest.fixture
def noise_records(tmp_path):
    """Records of ten clips of noise, long enough that k-means has its frames."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(10):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, generator.normal(0, 0.1, 16000 * 5), 16000)
        records.append({"audio": str(path), "text": "red green"})
    return str(write_records(tmp_path / "noise.jsonl", records))


@pytest.mark.parametrize("kind", ["tokenizer", "tokenizer_small"])
def test_shipped_configs_train_a_small_whisper_with_no_more_than_the_documented_flags(
    tokenizer_corpus, noise_records, tmp_path, kind
):
    """Both stages and the export, but for the number of updates (and the published codebook's data)."""
    start = tokenizer_corpus.whisper
    for stage in (1, 2):
        flags = ["--config", str(ROOT / "training" / "configs" / f"{kind}_stage{stage}.yaml"), "--max_steps", "1"]
        flags += ["--start_from", str(start), "--train_data", noise_records, "--eval_data", noise_records]
        flags += ["--output_dir", str(tmp_path / f"stage{stage}")]
        if kind == "tokenizer" and stage == 2:
            flags += ["--audio_tokenizer.codebook_size", "64"]
        run_program(TokenizerTrainingConfig, train, arguments=flags)
        start = tmp_path / f"stage{stage}"
    main(["export-tokenizer", str(start), str(tmp_path / "exported")])
    exported = UniAudioTokenizer.from_pretrained(tmp_path / "exported")
    assert exported.config.quantize_position == 2  # half of four layers
    assert exported.config.encoder_residual_source_position == 1
    assert exported.codebook_size == {"tokenizer": 64, "tokenizer_small": 1024}[kind]
    assert exported.encode([torch.zeros(16000)], 16000)[0].shape[-1] == 25


def test_user_errors_end_in_one_message_and_no_traceback(capfd, tmp_path, tokenizer_corpus):
    flags = ["--train_data", str(tmp_path / "none.jsonl"), "--output_dir", str(tmp_path / "run"), "--quantized", "true"]
    flags += ["--start_from", str(tokenizer_corpus.whisper)]
    with pytest.raises(SystemExit) as ended:
        run_program(TokenizerTrainingConfig, train, name="train_tokenizer", arguments=flags)
    assert ended.value.code == 1
    last_line = capfd.readouterr().err.splitlines()[-1]
    assert last_line.startswith("train_tokenizer: error: ")
    assert "none.jsonl" in last_line
