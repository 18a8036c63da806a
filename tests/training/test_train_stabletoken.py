"""Whole runs of StableToken's training in one process: one line makes UniAudio-Token's trainer train it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from audiollm.cli import main
from audiollm.data.audio.augmentation import AugmentationConfig
from audiollm.program import run_program
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.configuration import WHISPER_LICENCE_NOTE
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.tokenizer.supervision.opening import open_supervised
from audiollm.tokenizer.supervision.stabletoken import VOTE_FIGURES, SupervisedStableToken
from audiollm.training.audio_tokenizer.config import TaskWeights, TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.audio_tokenizer.start import load_start, make_ready
from audiollm.training.train_tokenizer import train

from .finished_runs import assert_near_tokenizer, assert_same_weights, metrics_of, weights_of

ROOT = Path(__file__).resolve().parents[2]
NOISE = AugmentationConfig(probability=0.6, white_snr_db=(0.0, 5.0))
# The entropies' gradients are hundreds of times the voters' differences, and rounding grows as fast.
GENTLE = {"learning_rate": 1e-3, "encoder_learning_rate": 1e-4, "decoder_learning_rate": 1e-3, "max_steps": 4}
CLIP = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))


def voting(**changes: Any) -> TokenizerSettings:
    return TokenizerSettings(**({"kind": "stabletoken", "codebook_size": 32} | changes))


def test_a_run_learns_and_what_it_leaves_opens_as_a_stabletoken(make_tokenizer_config, tokenizer_corpus, tmp_path):
    config = make_tokenizer_config(
        audio_tokenizer=voting(), augmentation=NOISE, max_steps=40, save_every=20, micro_batch_size=8,
        eval_data=str(tokenizer_corpus.dev), eval_every=20, eval_samples=2, tasks=TaskWeights(caption=0.5),
    )  # fmt: skip
    summary = train(config)
    lines = metrics_of(tmp_path / "run")
    assert lines[-1]["text_loss"] < 0.6 * lines[0]["text_loss"]
    assert lines[0].keys() >= {*VOTE_FIGURES, "code_usage", "perplexity", "num_active_codes", "num_dead_codes"}
    assert not lines[0].keys() & {"relative_quantization_error", "gate_means"}
    for line in lines:
        assert line["loss"] == pytest.approx(line["text_loss"] + line["quantizer_loss"])
        entropies = line["per_sample_entropy"] - line["codebook_entropy"]
        distances = 0.25 * (line["commitment_loss"] + line["consensus_loss"])
        assert line["quantizer_loss"] == pytest.approx(entropies + distances, rel=1e-4, abs=1e-6)
        assert 0 < line["unanimity"] <= 1
    evaluation = metrics_of(tmp_path / "run", "eval")[-1]
    assert 0 < evaluation["unanimity"] <= 1
    assert 0 < evaluation["code_usage"] <= 1
    assert math.isfinite(evaluation["wer"])
    assert (tmp_path / "run" / "plots" / "training.png").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())["audio_tokenizer"]
    assert record["kind"] == "stabletoken"
    assert (record["num_voters"], record["num_clean_voters"], record["codebook_size"]) == (5, 3, 32)

    main(["export-tokenizer", str(tmp_path / "run"), str(tmp_path / "exported")])
    trained = open_supervised(summary.model_folder)
    assert isinstance(trained, SupervisedStableToken)
    codes = trained.tokenizer.encode([CLIP], 16000).tolist()
    for folder in (tmp_path / "run", summary.model_folder, tmp_path / "exported"):
        opened = AudioTokenizer.from_pretrained(folder)
        assert opened.kind == "stabletoken"
        assert opened.licence_note == WHISPER_LICENCE_NOTE
        assert opened.encode([CLIP], 16000).tolist() == codes
    assert len(codes[0]) == 25


def test_passes_of_one_clip_equal_one_pass_of_all(make_tokenizer_config, tmp_path):
    """The entropy of the codebook is that of the update, however it is cut."""
    settings = {"audio_tokenizer": voting(), "augmentation": NOISE, **GENTLE}
    train(make_tokenizer_config(output_dir=str(tmp_path / "whole"), micro_batch_size=8, **settings))
    train(make_tokenizer_config(output_dir=str(tmp_path / "cut"), micro_batch_size=1, **settings))
    assert_near_tokenizer(tmp_path / "whole", tmp_path / "cut")


def test_resumed_equals_uninterrupted_to_the_bit(make_tokenizer_config, tokenizer_corpus, tmp_path):
    """Dropout makes random states matter; who hears the noise follows from seed and update."""
    settings = {
        "audio_tokenizer": voting(dropout=0.1), "augmentation": NOISE, "save_every": 3,
        "eval_data": str(tokenizer_corpus.dev), "eval_every": 2, "eval_samples": 1,
    }  # fmt: skip
    train(make_tokenizer_config(output_dir=str(tmp_path / "straight"), **settings))
    checkpoint = str(tmp_path / "straight" / "checkpoints" / "step_000003")
    train(make_tokenizer_config(output_dir=str(tmp_path / "resumed"), resume=checkpoint, **settings))
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[3:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")


def test_voters_that_are_not_clean_hear_the_degraded_clips(make_tokenizer_config, tmp_path):
    """Noise sets voters apart, and changes nothing that stays in the model but by learning."""
    still = {"learning_rate": 0.0, "encoder_learning_rate": 0.0, "decoder_learning_rate": 0.0, "micro_batch_size": 8}
    lines = {}
    for name, noise in (("quiet", AugmentationConfig()), ("noisy", NOISE)):
        train(
            make_tokenizer_config(
                output_dir=str(tmp_path / name), audio_tokenizer=voting(), augmentation=noise, **still
            )
        )
        lines[name] = metrics_of(tmp_path / name)
    assert all(
        noisy["consensus_loss"] > 1.1 * quiet["consensus_loss"]
        for quiet, noisy in zip(lines["quiet"], lines["noisy"], strict=True)
    )
    weights, others = weights_of(tmp_path / "quiet"), weights_of(tmp_path / "noisy")
    changed = [name for name, tensor in weights.items() if not torch.equal(tensor, others[name])]
    assert changed == ["model.encoder.codebook_used"]  # codes of the latest updates, in which the noisy voters voted


def test_a_later_run_goes_on_from_a_checkpoint_with_other_weights_of_the_losses(make_tokenizer_config, tmp_path):
    first = train(make_tokenizer_config(output_dir=str(tmp_path / "first"), audio_tokenizer=voting(), max_steps=2))
    settings = {"start_from": str(tmp_path / "first"), "output_dir": str(tmp_path / "second"), "max_steps": 1}
    changed = TokenizerSettings(consensus_weight=1.0, num_clean_voters=2)
    train(make_tokenizer_config(audio_tokenizer=changed, learning_rate=0.0, encoder_learning_rate=0.0, **settings))
    config = open_supervised(tmp_path / "second").tokenizer.config
    assert (config.quantize_consensus_coefficient, config.num_clean_input) == (1.0, 2)
    assert torch.equal(*(weights_of(tmp_path / name)["model.encoder.quantizer.project_in.0.weight"]
                         for name in ("first", "second")))  # fmt: skip
    for size, message in (
        (TokenizerSettings(codebook_size=64), r"audio_tokenizer.codebook_size=64: .* is a training checkpoint"),
        (TokenizerSettings(num_clean_voters=6), r"num_clean_voters=6: .* has 5 voters"),
        (TokenizerSettings(ema_decay=0.9), r"audio_tokenizer.ema_decay=0.9: a tokenizer of kind stabletoken"),
        (TokenizerSettings(kind="uniaudio"), r"kind=uniaudio: .* training checkpoint of kind stabletoken"),
    ):
        with pytest.raises(ValueError, match=message):
            load_start(make_tokenizer_config(audio_tokenizer=size, **settings))
    with pytest.raises(ValueError, match="quantized=false: stabletoken is trained in one stage"):
        load_start(make_tokenizer_config(audio_tokenizer=TokenizerSettings(), quantized=False, **settings))
    assert isinstance(open_supervised(first.model_folder), SupervisedStableToken)


@pytest.mark.parametrize(
    ("tokenizer", "changes", "message"),
    [
        ({}, {"quantized": False}, "quantized=false: stabletoken is trained in one stage"),
        ({}, {"initialise_codebook": "kmeans"}, "initialise_codebook=kmeans: stabletoken has no entries"),
        ({}, {"freeze": ("sae",)}, "freeze=sae: stabletoken has no gated residual"),
        (
            {"ema_decay": 0.9, "use_sae": True},
            {},
            "audio_tokenizer.use_sae=True, audio_tokenizer.ema_decay=0.9: a token",
        ),
        ({"loss_scale": 1.0}, {}, "audio_tokenizer.loss_scale=1.0: a tokenizer of kind stabletoken"),
        ({"kind": None, "num_voters": 3}, {}, "audio_tokenizer.num_voters=3: a tokenizer of kind uniaudio"),
        ({"codebook_size": 1000}, {}, "codebook_size=1000: lookup-free codes need a power of two"),
        ({"num_voters": 3, "num_clean_voters": 4}, {}, "num_clean_input=4: use 1 to num_voters=3"),
        ({"num_clean_voters": 5}, {"augmentation": NOISE}, "num_clean_voters=5 of 5 voters: none is left to hear"),
        ({"consensus_weight": -1.0}, {}, "audio_tokenizer.consensus_weight=-1.0: use a finite weight"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(make_tokenizer_config, tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        train(make_tokenizer_config(audio_tokenizer=voting(**tokenizer), **changes))


@pytest.mark.parametrize("norm", [False, True])
def test_every_weight_that_is_trained_is_used(make_tokenizer_config, norm):
    """Data parallelism would wait for the gradients of the others."""
    config = make_tokenizer_config(audio_tokenizer=voting(norm_after_quantizer=norm), output_vocabulary="seen")
    model = load_start(config).model
    make_ready(model, config, [0, 1, 2])
    output = model.train()(
        torch.randn(1, 80, 40), None, torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64)
    )
    (output.text_loss_sum + output.quantizer_loss_sum).backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == trained
    assert any("encoder.layer_norm" in name for name in trained) is norm


def test_the_shipped_config_trains_with_no_more_than_the_documented_flags(tokenizer_corpus, tmp_path):
    flags = ["--config", str(ROOT / "training" / "configs" / "stabletoken_small.yaml"), "--max_steps", "1"]
    flags += ["--start_from", str(tokenizer_corpus.whisper), "--output_dir", str(tmp_path / "run")]
    spoken = tmp_path / "spoken.jsonl"
    records = [json.loads(line) for line in tokenizer_corpus.train.read_text().splitlines()]
    spoken.write_text("".join(
        json.dumps(record | {"audio": str(tokenizer_corpus.folder / record["audio"])}) + "\n"
        for record in records if record["text"]
    ))  # fmt: skip
    flags += ["--train_data", str(spoken), "--eval_data", str(spoken)]
    run_program(TokenizerTrainingConfig, train, arguments=flags)
    opened = AudioTokenizer.from_pretrained(tmp_path / "run")
    assert (opened.kind, opened.codebook_sizes) == ("stabletoken", (1024,))


def test_a_uniaudio_checkpoint_is_told_from_a_stabletoken_by_its_files(make_tokenizer_config, tmp_path):
    train(make_tokenizer_config(max_steps=1))
    assert isinstance(open_supervised(tmp_path / "run"), SupervisedTokenizer)
    with pytest.raises(ValueError, match=r"kind=stabletoken: .* training checkpoint of kind uniaudio"):
        load_start(
            make_tokenizer_config(
                start_from=str(tmp_path / "run"), audio_tokenizer=TokenizerSettings(kind="stabletoken")
            )
        )
