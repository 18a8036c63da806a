"""Trainings on several processes, under the shipped configurations of ``accelerate launch``, make the updates of one.

All of them are here, so that they can share launches.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from audiollm.data.audio.augmentation import AugmentationConfig
from audiollm.data.files.json_lines import write_json_lines
from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.config import LoRASettings, SFTConfig
from audiollm.training.audio_tokenizer.config import TokenizerSettings, TokenizerTrainingConfig
from audiollm.training.loop.errors import ResumeError
from audiollm.training.results.figures import flat_numbers
from audiollm.training.sft import train as train_llm
from audiollm.training.train_codec import train as train_codec
from audiollm.training.train_decoder import train as train_decoder
from audiollm.training.train_dit import train as train_dit
from audiollm.training.train_losatok import train as train_losatok
from audiollm.training.train_tokenizer import train as train_tokenizer

from .finished_runs import (
    assert_equal,
    assert_near_flow,
    assert_near_tokenizer,
    assert_near_vocoder,
    assert_same_parts,
    assert_same_weights,
    checkpoint_of,
    metrics_of,
    weights_of,
)
from .launched_jobs import launch_as_users_do, launch_environment

SFT, TOKENIZER, CODEC, LOSATOK, DIT, DECODER = (
    f"training/{name}.py"
    for name in ("sft", "train_tokenizer", "train_codec", "train_losatok", "train_dit", "train_decoder")
)
FLOW = "flow.safetensors"


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def lines_of(config: SFTConfig, event: str) -> list[dict]:
    lines = metrics_of(config.output_dir, event)
    return [{name: value for name, value in line.items() if name != "event"} for line in lines]


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("mode", "lora"),
    [("single", None), ("ddp", None), ("zero2", LoRASettings(r=2, target_modules=("q_proj",))), ("zero3", None)],
)
def test_every_shipped_mode_equals_one_process_and_resumes(make_config, assets, launches, tmp_path, mode, lora):
    """Extends the vocabulary, trains, evaluates, generates and saves; then resumes from the middle."""
    settings = {
        "model": str(assets.text_llm), "audio_tokenizer": str(assets.audio_tokenizer), "lora": lora,
        "eval_data": str(assets.dev), "eval_every": 3, "eval_generate_samples": 5, "eval_max_new_tokens": 4,
        "save_every": 3, "gradient_checkpointing": True, "num_processes": 1 if mode == "single" else 2,
    }  # fmt: skip
    alone = make_config(output_dir=str(tmp_path / "alone"), **(settings | {"num_processes": None}))
    train_llm(alone)
    straight = make_config(output_dir=str(tmp_path / "straight"), **settings)
    ended = launches.run(mode, SFT, straight)
    assert ended.returncode == 0, ended.stderr[-3000:]

    record = json.loads((Path(straight.output_dir) / "run.json").read_text())
    assert record["launch"] == {"mode": mode, "num_processes": settings["num_processes"]}
    assert record["num_parameters"] == json.loads((tmp_path / "alone" / "run.json").read_text())["num_parameters"]
    for event in ("train", "eval"):
        for line, expected in zip(lines_of(straight, event), lines_of(alone, event), strict=True):
            for name, value in expected.items():
                # DeepSpeed clips by a slightly different formula; the rest is the order of sums.
                same = (
                    value == line[name]
                    if not isinstance(value, float)
                    else line[name] == pytest.approx(value, rel=2e-4)
                )
                assert same, (event, line["step"], name, value, line[name])
    expected_weights = weights_of(alone.output_dir)
    assert weights_of(straight.output_dir).keys() == expected_weights.keys()
    for name, tensor in weights_of(straight.output_dir).items():
        torch.testing.assert_close(
            tensor, expected_weights[name], rtol=1e-2, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert AudioLLM.from_pretrained(Path(straight.output_dir) / "model").vocabulary.codebook_size == 64

    # The same run, killed after its third update.
    stopped = tmp_path / "stopped"
    shutil.copytree(straight.output_dir, stopped)
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "checkpoints" / "step_000006")
    (stopped / "checkpoints" / "latest").write_text("step_000003")
    resumed = make_config(output_dir=str(stopped), resume="latest", **settings)
    ended = launches.run(mode, SFT, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        assert lines_of(resumed, event) == lines_of(straight, event)
    for name, tensor in weights_of(straight.output_dir).items():
        assert torch.equal(tensor, weights_of(resumed.output_dir)[name]), name


@pytest.mark.multiprocess
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_packed_updates_of_a_token_budget_are_those_of_one_process(make_config, launches, tmp_path, mode):
    """Processes have different numbers of rows in an update, and updates different numbers from each other."""
    settings = {
        "global_batch_size": 64, "tokens_per_update": 900, "tokens_per_pass": 200, "packing": "pack", "save_every": 3,
    }  # fmt: skip
    alone = make_config(output_dir=str(tmp_path / "alone"), **settings)
    train_llm(alone)
    both = make_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run(mode, SFT, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for line, expected in zip(lines_of(both, "train"), lines_of(alone, "train"), strict=True):
        assert line == pytest.approx(expected, rel=2e-4)
    for name, tensor in weights_of(both.output_dir).items():
        torch.testing.assert_close(tensor, weights_of(alone.output_dir)[name], rtol=1e-2, atol=1e-3)
    checkpoint = str(Path(both.output_dir) / "checkpoints" / "step_000003")
    resumed = make_config(output_dir=str(tmp_path / "resumed"), resume=checkpoint, num_processes=2, **settings)
    ended = launches.run(mode, SFT, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert lines_of(resumed, "train") == lines_of(both, "train")[3:]


@pytest.mark.multiprocess
@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_every_mode_ends_with_the_best_weights(make_config, assets, launches, tmp_path, mode):
    settings = {
        "eval_data": str(assets.dev),
        "eval_every": 2,
        "save_every": 2,
        "max_steps": 4,
        "load_best_at_end": True,
    }
    alone = make_config(output_dir=str(tmp_path / "alone"), **settings)
    train_llm(alone)
    both = make_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run(mode, SFT, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    last = weights_of(both.output_dir)
    # As if the first evaluation had been the best; the run that is over has only to end with it.
    metrics = tmp_path / "both" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    write_json_lines(metrics, [line | {"loss": line["step"]} if line["event"] == "eval" else line for line in lines])
    ended = launches.run(mode, SFT, dataclasses.replace(both, resume="latest"))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "its weights are those after update 2 of 4, of the best evaluation (loss 2)" in ended.stderr
    best = load_file(tmp_path / "alone" / "checkpoints" / "step_000002" / "weights.safetensors")
    saved = weights_of(both.output_dir)
    for name, tensor in best.items():
        torch.testing.assert_close(saved[name.removeprefix("model.")], tensor, rtol=1e-2, atol=1e-3)
    assert any(not torch.equal(saved[name], tensor) for name, tensor in last.items())


@pytest.mark.multiprocess
@pytest.mark.parametrize("asked", [{0: 3}, {1: 3}, {0: 3, 1: 3}])
def test_asked_to_stop_all_processes_stop_after_one_update_and_go_on_to_the_same_bits(
    make_config, launches, tmp_path, asked
):
    """Schedulers signal one process of a run, or all."""
    settings = {"num_processes": 2, "save_every": 100}
    straight = make_config(output_dir=str(tmp_path / "straight"), **settings)
    assert launches.run("ddp", SFT, straight).returncode == 0
    ended = launches.run("ddp", SFT, make_config(**settings), asked_to_stop=asked)
    assert launches.statuses("ddp") == [143, 143], ended.stderr[-3000:]
    assert re.search(r"sft: error: stopped as asked after update 3 of 6.*--resume latest", ended.stderr)
    assert "Traceback" not in ended.stderr
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step_000003"]
    ended = launches.run("ddp", SFT, make_config(resume="latest", **settings))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "run", None) == metrics_of(tmp_path / "straight", None)
    for name, tensor in weights_of(straight.output_dir).items():
        assert torch.equal(tensor, weights_of(tmp_path / "run")[name]), name


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def numbers_of(config: TokenizerTrainingConfig, event: str = "train") -> list[dict]:
    lines = metrics_of(config.output_dir, event)
    return [flat_numbers({name: value for name, value in line.items() if name != "event"}) for line in lines]


@pytest.mark.multiprocess
@pytest.mark.parametrize("mode", ["ddp", "zero1", "zero2"])
def test_the_tokenizer_on_two_processes_equals_one_and_resumes(
    make_tokenizer_config, tokenizer_corpus, launches, tmp_path, mode
):
    """Five clips per update: three on one process, in two passes; two on the other, in one pass and an empty one."""
    settings = {
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0),
        "global_batch_size": 5, "micro_batch_size": 2, "save_every": 3, "output_vocabulary": "seen",
        "eval_data": str(tokenizer_corpus.dev), "eval_every": 3, "eval_samples": 2,
        "decoder_learning_rate": 1e-3, "learning_rate": 1e-3,
    }  # fmt: skip
    alone = make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings)
    train_tokenizer(alone)
    both = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run(mode, TOKENIZER, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    record = json.loads((Path(both.output_dir) / "run.json").read_text())
    assert record["launch"] == {"mode": mode, "num_processes": 2}
    for event in ("train", "eval"):
        for line, expected in zip(numbers_of(both, event), numbers_of(alone, event), strict=True):
            assert line == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert sum(line["num_restarted"] for line in numbers_of(both)) > 0
    expected_weights = weights_of(alone.output_dir)
    for name, tensor in weights_of(both.output_dir).items():
        if name.endswith("codebook_used"):  # which codes, not in which order
            assert set(tensor.tolist()) == set(expected_weights[name].tolist())
            continue
        torch.testing.assert_close(
            tensor, expected_weights[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )

    # The same run, killed after its third update.
    stopped = tmp_path / "stopped"
    shutil.copytree(both.output_dir, stopped)
    shutil.rmtree(stopped / "model")
    shutil.rmtree(stopped / "checkpoints" / "step_000006")
    (stopped / "checkpoints" / "latest").write_text("step_000003")
    resumed = make_tokenizer_config(output_dir=str(stopped), resume="latest", num_processes=2, **settings)
    ended = launches.run(mode, TOKENIZER, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        assert numbers_of(resumed, event) == numbers_of(both, event)
    for name, tensor in weights_of(both.output_dir).items():
        assert torch.equal(tensor, weights_of(resumed.output_dir)[name]), name


@pytest.mark.multiprocess
def test_stabletoken_on_two_processes_equals_one_and_resumes(
    make_tokenizer_config: Any, tokenizer_corpus: Any, launches: Any, tmp_path: Path
) -> None:
    """The codes' entropy is that of both processes' frames, and they agree on who hears the noise."""
    settings = {
        "audio_tokenizer": TokenizerSettings(kind="stabletoken", codebook_size=32), "save_every": 2, "max_steps": 4,
        "augmentation": AugmentationConfig(probability=0.6), "global_batch_size": 5, "micro_batch_size": 2,
        "eval_data": str(tokenizer_corpus.dev), "eval_every": 4, "eval_samples": 1,
        "learning_rate": 1e-3, "encoder_learning_rate": 1e-4, "decoder_learning_rate": 1e-3,
    }  # fmt: skip
    train_tokenizer(make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings))
    both = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", TOKENIZER, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_near_tokenizer(tmp_path / "both", tmp_path / "alone")
    [evaluation], [expected] = (metrics_of(tmp_path / name, "eval") for name in ("both", "alone"))
    assert flat_numbers(evaluation) == pytest.approx(flat_numbers(expected), rel=2e-3, abs=1e-6)
    checkpoint = str(tmp_path / "both" / "checkpoints" / "step_000002")
    resumed = make_tokenizer_config(
        output_dir=str(tmp_path / "resumed"), resume=checkpoint, num_processes=2, **settings
    )
    ended = launches.run("ddp", TOKENIZER, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "both")[2:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "both")


@pytest.mark.multiprocess
def test_a_process_without_a_clip_takes_part(make_tokenizer_config, launches, tmp_path):
    settings = {
        "audio_tokenizer": TokenizerSettings(codebook_size=32, restart_interval=2, ema_decay=0.8, dropout=0.0),
        "global_batch_size": 1, "micro_batch_size": 1, "max_steps": 4,
    }  # fmt: skip
    alone = make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings)
    train_tokenizer(alone)
    both = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", TOKENIZER, both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for line, expected in zip(numbers_of(both), numbers_of(alone), strict=True):
        assert line == pytest.approx(expected, rel=2e-3, abs=1e-6)


@pytest.mark.multiprocess
def test_what_shards_the_weights_is_refused(make_tokenizer_config, launches, tmp_path):
    ended = launches.run("zero3", TOKENIZER, make_tokenizer_config())
    assert ended.returncode != 0
    assert "ZeRO-3 is not supported here" in ended.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.multiprocess
@pytest.mark.parametrize("num_clips", [1, 3])
def test_processes_with_less_to_do_than_others_or_nothing_at_all(
    make_tokenizer_config: Any, tokenizer_corpus: Any, launches: Any, tmp_path: Path, num_clips: int
) -> None:
    """One or three clips, in the data, in every update and held out: the second process has one less, or none."""
    few = tokenizer_corpus.folder / f"few_{num_clips}.jsonl"
    few.write_text("".join(line + "\n" for line in tokenizer_corpus.train.read_text().splitlines()[:num_clips]))
    settings = {
        "train_data": str(few), "eval_data": str(few), "eval_every": 2, "eval_samples": num_clips, "max_steps": 4,
        "global_batch_size": num_clips, "micro_batch_size": 1, "save_every": 2,
        "audio_tokenizer": TokenizerSettings(codebook_size=8, restart_interval=2, ema_decay=0.8, dropout=0.0),
    }  # fmt: skip
    train_tokenizer(make_tokenizer_config(output_dir=str(tmp_path / "alone"), **settings))
    config = make_tokenizer_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", TOKENIZER, config)
    assert ended.returncode == 0, ended.stderr[-3000:]
    alone, both = metrics_of(tmp_path / "alone", None), metrics_of(tmp_path / "both", None)
    assert [line["event"] for line in both] == [line["event"] for line in alone]
    for line, expected in zip(both, alone, strict=True):
        assert flat_numbers(line) == pytest.approx(flat_numbers(expected), rel=2e-3, abs=1e-5)


# --- the decoder -----------------------------------------------------------------------------------------------------


@pytest.mark.multiprocess
def test_the_flow_model_on_two_processes_equals_one_and_resumes(
    make_decoder_config, decoder_corpus, launches, tmp_path
):
    settings = {"eval_data": str(decoder_corpus.dev), "eval_every": 3, "eval_clips": 3, "save_every": 3}
    train_decoder(make_decoder_config(output_dir=str(tmp_path / "alone"), **settings))
    config = make_decoder_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launch_as_users_do("ddp", DECODER, config, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads((tmp_path / "both" / "run.json").read_text())["launch"] == {"mode": "ddp", "num_processes": 2}
    assert_near_flow(tmp_path / "alone", tmp_path / "both")
    for line, expected in zip(
        metrics_of(tmp_path / "both", "eval"), metrics_of(tmp_path / "alone", "eval"), strict=True
    ):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert line["mel_distance"] == pytest.approx(expected["mel_distance"], rel=1e-2)

    straight, weights = metrics_of(tmp_path / "both"), weights_of(tmp_path / "both", FLOW)
    middle = str(tmp_path / "both" / "checkpoints" / "step_000003")
    ended = launches.run("ddp", DECODER, dataclasses.replace(config, resume=middle))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "both") == straight
    assert all(torch.equal(tensor, weights[name]) for name, tensor in weights_of(tmp_path / "both", FLOW).items())


@pytest.mark.multiprocess
def test_the_command_starts_two_processes_from_any_folder(make_decoder_config, decoder_corpus, tmp_path):
    config = make_decoder_config(output_dir=str(tmp_path / "run"), max_steps=1, num_processes=2)
    (tmp_path / "run.json").write_text(json.dumps(dataclasses.asdict(config)))
    done = subprocess.run(
        [sys.executable, "-m", "audiollm", "train-decoder", "--processes", "2", "--config", "run.json"],
        cwd=tmp_path, env=launch_environment(tmp_path), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run/run.json").read_text())["launch"] == {"mode": "ddp", "num_processes": 2}


@pytest.mark.multiprocess
@pytest.mark.skipif(find_spec("pyworld") is None, reason="needs pyworld")
def test_the_vocoder_on_two_processes_equals_one_and_resumes(make_vocoder_config, decoder_corpus, launches, tmp_path):
    settings = {
        "max_steps": 4, "save_every": 2, "discriminator_start": 2, "eval_data": str(decoder_corpus.dev),
        "eval_every": 4, "eval_clips": 3, "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip
    train_decoder(make_vocoder_config(output_dir=str(tmp_path / "alone"), **settings))
    config = make_vocoder_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", DECODER, config)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_near_vocoder(tmp_path / "alone", tmp_path / "both")
    [one], [two] = metrics_of(tmp_path / "alone", "eval"), metrics_of(tmp_path / "both", "eval")
    assert two["mel_distance"] == pytest.approx(one["mel_distance"], rel=1e-2)

    straight, weights = metrics_of(tmp_path / "both"), checkpoint_of(tmp_path / "both", 4)
    middle = str(tmp_path / "both" / "checkpoints" / "step_000002")
    ended = launches.run("ddp", DECODER, dataclasses.replace(config, resume=middle))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "both") == straight
    assert_equal(checkpoint_of(tmp_path / "both", 4), weights)


# --- codecs -----------------------------------------------------------------------------------------------------------


@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", ["wavtokenizer", "sqcodec"])
def test_a_codec_on_two_processes_equals_one_and_resumes_on_one_or_two(
    make_codec_config, make_sqcodec_config, decoder_corpus, launches, tmp_path, kind
):
    """An odd number of segments, in passes of which one process has more; at the third update the codebook begins, or
    the game against discriminators."""
    settings = {
        "save_every": 2, "eval_data": str(decoder_corpus.dev), "eval_every": 2, "learning_rate": 1e-4,
        "segments_per_update": 5, "segments_per_pass": 2, "keep_checkpoints": 3,
    }  # fmt: skip
    make = make_sqcodec_config
    if kind == "wavtokenizer":
        make, settings = make_codec_config, settings | {"quantize_from": 3, "restart_interval": 2}
    train_codec(make(output_dir=str(tmp_path / "alone"), **settings))
    config = make(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", CODEC, config)
    assert ended.returncode == 0, ended.stderr[-3000:]

    def assert_alike(first: Path, second: Path, after: int = 0) -> None:
        for event in ("train", "eval"):
            expected = [line for line in metrics_of(first, event) if line["step"] > after]
            for line, other in zip(expected, metrics_of(second, event), strict=True):
                for name, value in line.items():
                    wanted = pytest.approx(value, rel=2e-2, abs=1e-3) if isinstance(value, float) else value
                    assert other[name] == wanted, (event, line["step"], name)

    assert_alike(tmp_path / "alone", tmp_path / "both")
    middle = str(tmp_path / "both" / "checkpoints" / "step_000002")
    one = dataclasses.replace(config, resume=middle, num_processes=None, output_dir=str(tmp_path / "one"))
    train_codec(one)
    assert_alike(tmp_path / "both", tmp_path / "one", after=2)

    straight, weights = metrics_of(tmp_path / "both"), checkpoint_of(tmp_path / "both", 6)
    # An optimizer may be split, or not, from any checkpoint on.
    resumed = dataclasses.replace(config, resume=middle, shard_optimizer=kind == "sqcodec")
    ended = launches.run("ddp", CODEC, resumed)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "both") == straight
    assert_equal(checkpoint_of(tmp_path / "both", 6), weights)


# --- LoSATok ----------------------------------------------------------------------------------------------------------


@pytest.mark.multiprocess
def test_a_diffusion_transformer_on_two_processes_equals_one(make_dit_config, dit_corpus, launches, tmp_path):
    # Small steps: those of Adam follow the sign of a gradient, of which rounding decides where it is next to nothing.
    settings = {"eval_data": str(dit_corpus.dev), "eval_clips": 2, "learning_rate": 1e-5, "frames_per_update": 40}
    train_dit(make_dit_config(output_dir=str(tmp_path / "alone"), **settings))
    ended = launches.run("ddp", DIT, make_dit_config(output_dir=str(tmp_path / "both"), num_processes=2, **settings))
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        for line, other in zip(
            metrics_of(tmp_path / "alone", event), metrics_of(tmp_path / "both", event), strict=True
        ):
            assert flat_numbers(line) == pytest.approx(flat_numbers(other), rel=1e-3, abs=1e-4)


@pytest.mark.multiprocess
@pytest.mark.parametrize("stage", ["semantic", "tokenizer"])
def test_a_stage_of_losatok_on_two_processes_equals_one_and_resumes(
    make_losatok_config, losatok_corpus, launches, tmp_path, stage
):
    # Small steps: those of Adam follow the sign of a gradient, of which rounding decides where it is next to nothing.
    settings = {"save_every": 2, "eval_data": str(losatok_corpus.dev), "eval_clips": 2, "learning_rate": 1e-5}
    train_losatok(make_losatok_config(stage, output_dir=str(tmp_path / "alone"), **settings))
    config = make_losatok_config(stage, output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", LOSATOK, config)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        for line, other in zip(
            metrics_of(tmp_path / "alone", event), metrics_of(tmp_path / "both", event), strict=True
        ):
            assert line.pop("event") == other.pop("event")
            assert line == pytest.approx(other, rel=5e-3, abs=2e-4)

    straight, weights = metrics_of(tmp_path / "both"), checkpoint_of(tmp_path / "both", 4)
    middle = str(tmp_path / "both" / "checkpoints" / "step_000002")
    ended = launches.run("ddp", LOSATOK, dataclasses.replace(config, resume=middle))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert metrics_of(tmp_path / "both") == straight
    assert_equal(checkpoint_of(tmp_path / "both", 4), weights)
    with pytest.raises(ResumeError, match=r"launch\.mode: ddp → single"):
        train_losatok(dataclasses.replace(config, resume=middle, num_processes=None))

    # Split over the processes, the optimizers make the same bits, from the beginning and from their own checkpoint.
    split = dataclasses.replace(config, output_dir=str(tmp_path / "split"), shard_optimizer=True)
    for resume in (None, str(tmp_path / "split" / "checkpoints" / "step_000002")):
        ended = launches.run("ddp", LOSATOK, dataclasses.replace(split, resume=resume))
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert metrics_of(tmp_path / "split") == straight
        assert metrics_of(tmp_path / "split", "eval") == metrics_of(tmp_path / "both", "eval")
        for step in (2, 4):
            assert_same_parts(*(tmp_path / name / "checkpoints" / f"step_{step:06d}" for name in ("both", "split")))
        assert_same_weights(tmp_path / "both", tmp_path / "split")
