"""Whole runs of the first stage of a ReasoningCodec's training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import GPT2Config, GPT2LMHeadModel, HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from audiollm.data.audio.reading import load_audio
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.training.loop.errors import DataError, ResumeError
from audiollm.training.reasoning_codec.analyst import Analyst
from audiollm.training.reasoning_codec.opening import make_codec
from audiollm.training.reasoning_codec.settings import AnalysisSettings, EncoderSettings
from audiollm.training.reasoning_codec.stages import check_order
from audiollm.training.train_reasoning_codec import train
from audiollm.training.uniaudio.config import TextLoRASettings
from tests.training.finished_runs import assert_same_weights, metrics_of, weights_of

from .conftest import SIZES, SPEECH, Material, write

ADAPTED = AnalysisSettings(lora=TextLoRASettings(r=4), feature_megabytes=64)


def mean_of(lines: list[dict], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


def test_the_loss_falls_and_what_is_left_is_opened_by_itself(make_stage, material: Material, tmp_path):
    settings = {"max_steps": 40, "eval_data": str(material.dev), "eval_every": 20}
    summary = train(make_stage(**settings))
    lines = metrics_of(tmp_path / "run")
    assert mean_of(lines[-5:], "text_loss") < 0.6 * mean_of(lines[:5], "text_loss")
    assert lines[-1].keys() >= {"commitment", "perplexity", "code_usage", "num_restarted", "learning_rates"}
    assert len(lines[-1]["perplexity"]) == 2
    assert {task for line in lines for task in line["text_losses"]} == {"sap", "asr", "question"}
    early, late = metrics_of(tmp_path / "run", "eval")
    assert late["loss"] < early["loss"]
    assert late.keys() >= {"perplexity", "codes_used", "wer", "sap", "question_accuracy"}
    assert "written:" in (tmp_path / "run" / "evaluation" / "step_000040.txt").read_text()

    codec = AudioTokenizer.from_pretrained(tmp_path / "run")
    assert isinstance(codec, ReasoningCodec)
    assert (codec.config.trained_stage, codec.group, codec.config.encoder_only) == ("supervised", "reasoning", True)
    waveform, rate = soundfile.read(material.clips[0]["audio"], dtype="float32")
    codes = codec.encode(torch.from_numpy(waveform), rate)
    assert codes[0].shape == (2, 2)  # 0.3 s
    analyst = Analyst.from_pretrained(tmp_path / "run" / "analyst")
    said = codec.reasoning.quantizer.decode(codes[0][None])[0]
    assert isinstance(analyst.eval().write(said, "Which?", max_new_tokens=4), str)
    assert "stage: supervised" in (summary.model_folder / "README.md").read_text()


def test_only_the_branch_and_the_adapters_are_trained(make_stage, material, assets, tmp_path):
    train(make_stage(analysis=ADAPTED))
    torch.manual_seed(0)  # the run's seed, of which its weights were drawn
    before = make_codec(material.encoders, SIZES).weights()
    after = weights_of(tmp_path / "run")
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"reasoning"}
    same = [name for name in before if name.startswith("reasoning.") and torch.equal(before[name], after[name])]
    assert same == []
    analyst = tmp_path / "run" / "analyst"
    assert {path.name for path in analyst.iterdir()} == {
        "analyst.json", "projection.safetensors", "adapter", "text_tokenizer",
    }  # fmt: skip
    settings = json.loads((analyst / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(assets.text_llm)
    again = make_stage(codec=str(tmp_path / "run"), output_dir=str(tmp_path / "more"))
    first = metrics_of(tmp_path / "more") if train(again) else []
    assert first[0]["text_loss"] < metrics_of(tmp_path / "run")[0]["text_loss"]  # it goes on from there


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_stage, material, tmp_path):
    settings = {"save_every": 2, "eval_data": str(material.dev), "eval_every": 2, "analysis": ADAPTED}
    train(make_stage(output_dir=str(tmp_path / "straight"), **settings))
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "straight", resumed)
    shutil.rmtree(resumed / "model")
    shutil.rmtree(resumed / "checkpoints" / "step_000004")
    train(make_stage(output_dir=str(resumed), resume="latest", **settings))
    for event in ("train", "eval"):
        assert metrics_of(resumed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(resumed, tmp_path / "straight")
    for name in ("projection.safetensors", "adapter/adapter_model.safetensors"):
        assert (resumed / "analyst" / name).read_bytes() == (tmp_path / "straight" / "analyst" / name).read_bytes()


def test_passes_of_one_clip_equal_one_pass_of_all(make_stage, tmp_path):
    # Small steps: those of Adam follow the sign of a gradient, of which rounding decides where it is next to nothing.
    settings = {"learning_rate": 1e-6, "max_steps": 2}
    train(make_stage(output_dir=str(tmp_path / "whole"), micro_batch_size=6, **settings))
    plain = AnalysisSettings(feature_megabytes=0)  # what is remembered changes nothing either
    train(make_stage(output_dir=str(tmp_path / "cut"), micro_batch_size=1, analysis=plain, **settings))
    for line, other in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "cut"), strict=True):
        for name in ("loss", "text_loss", "commitment", "grad_norm"):
            assert line[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name
        assert line["perplexity"] == other["perplexity"]


@pytest.mark.multiprocess
def test_two_processes_make_the_updates_of_one(make_stage, material, launches, tmp_path):
    settings = {"learning_rate": 1e-5, "max_steps": 3, "eval_data": str(material.dev), "analysis": ADAPTED}
    train(make_stage(output_dir=str(tmp_path / "alone"), **settings))
    both = make_stage(output_dir=str(tmp_path / "both"), num_processes=2, **settings)
    ended = launches.run("ddp", "training/train_reasoning_codec.py", both)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for event in ("train", "eval"):
        for line, other in zip(
            metrics_of(tmp_path / "alone", event), metrics_of(tmp_path / "both", event), strict=True
        ):
            for name in ("loss", "perplexity", "num_targets", *(["grad_norm"] if event == "train" else [])):
                assert line[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name


# --- bad input -------------------------------------------------------------------------------------------------------


def test_stages_out_of_their_turn_say_what_to_run(make_stage, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)stage: reconstruction needs codec.*--stage supervised --llm LLM"):
        make_stage(stage="reconstruction", llm=None)
    with pytest.raises(ValueError, match=r"(?s)no stage yet.*--stage supervised --llm LLM"):
        check_order("grpo", "", "CODEC")
    for stage in ("supervised", "grpo"):
        with pytest.raises(ValueError, match=r"has been through reconstruction.*must stay as they are"):
            check_order(stage, "reconstruction", "CODEC")
    with pytest.raises(ValueError, match=r"been through grpo already.*--stage reconstruction"):
        check_order("supervised", "grpo", "CODEC")
    for stage, last in (("grpo", "supervised"), ("reconstruction", "supervised"), ("reconstruction", "grpo")):
        check_order(stage, last, "CODEC")
    with pytest.raises(ValueError, match=r"(?s)nowhere.*The first stage makes one"):
        train(make_stage(codec=str(tmp_path / "nowhere"), llm=None))


def test_an_encoder_of_another_rate_is_refused(make_stage, material, tmp_path):
    strides = [5, 2, 2, 2, 2, 2, 4]  # of 25 Hz
    HubertModel(HubertConfig(**SPEECH, num_hidden_layers=1, conv_stride=strides)).save_pretrained(tmp_path / "slow")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "slow")
    slow = dataclasses.replace(material.encoders, whisper=EncoderSettings(source=str(tmp_path / "slow")))
    with pytest.raises(ValueError, match="whisper encoder gives 25 vectors a second, and this codec needs 50"):
        train(make_stage(encoders=slow))
    two = dataclasses.replace(material.encoders, wavlm=material.encoders.music)
    with pytest.raises(ValueError, match="layers of the wavlm encoder are of 2 streams, and it must give 1"):
        train(make_stage(encoders=two))


def test_a_clip_shorter_than_a_code_is_learned(make_stage, material, tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, load_audio(material.clips[0]["audio"])[0][:2400].numpy(), 24000)  # 0.1 s
    records = write(tmp_path / "short.jsonl", [{"audio": str(path), "sap": {"linguistic_content": "red"}}])
    train(make_stage(train_data=str(records), max_steps=1))
    [line] = metrics_of(tmp_path / "run")
    assert line["num_codes"] == 1


def test_an_llm_of_another_family_is_refused(make_stage, tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match=r"gpt2 is of the family 'gpt2'.*llama, qwen2, qwen3, mistral"):
        train(make_stage(llm=str(tmp_path / "gpt2")))


def test_records_that_cannot_be_used_are_listed(make_stage, material, tmp_path):
    [asked] = [json.loads(line) for line in Path(material.train).read_text().splitlines()][-1:]
    again = {"role": "user", "content": "And?"}
    spoken = {**asked, "messages": [*asked["messages"], again, asked["messages"][1]]}
    coded = {"messages": [{"role": "user", "content": [{"type": "audio", "codes": [1]}]}, asked["messages"][1]]}
    records = write(tmp_path / "bad.jsonl", [spoken, coded, {"audio": material.clips[0]["audio"]}])
    with pytest.raises(DataError, match=r"(?s)one request of the user.*one recording.*nothing"):
        train(make_stage(train_data=str(records)))
    long = {"audio": material.clips[0]["audio"], "text": "red " * 60}
    with pytest.raises(DataError, match=r"(?s)do not fit into the 256 positions.*asr: \d+ positions"):
        train(make_stage(train_data=str(write(tmp_path / "long.jsonl", [long]))))


def test_resuming_with_other_codebooks_is_refused(make_stage, tmp_path):
    train(make_stage(max_steps=2, save_every=1))
    sizes = dataclasses.replace(SIZES, quantizer=(2, 32, 8))
    with pytest.raises(ResumeError, match=r"sizes.quantizer: \[2, 16, 8\] → \[2, 32, 8\]"):
        train(make_stage(max_steps=2, save_every=1, sizes=sizes, resume="latest"))


def test_settings_of_other_stages_are_refused(make_stage):
    with pytest.raises(ValueError, match=r"stage: grpo needs grpo\.rewards"):
        make_stage(stage="grpo", codec="run", analysis=AnalysisSettings())
    with pytest.raises(ValueError, match=r"analysis.feature_megabytes has no effect with stage: reconstruction"):
        make_stage(stage="reconstruction", codec="run")
    with pytest.raises(ValueError, match="30 s are heard at once"):
        make_stage(max_seconds=40.0)
