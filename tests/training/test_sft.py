"""Whole runs of the trainer in one process."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audiollm.data.collation import collate
from audiollm.data.conversation.loading import load_conversations
from audiollm.data.files.lock import FileInUseError, locked_file
from audiollm.data.manifest import RecordError
from audiollm.modeling import AudioLLM
from audiollm.program import run_program
from audiollm.training import sft
from audiollm.training.audio_llm.config import LoRASettings, SFTConfig
from audiollm.training.audio_llm.objective import TargetTokenLoss
from audiollm.training.audio_llm.records import EncodedRecords
from audiollm.training.loop.errors import DataError, NonFiniteLossError, ResumeError
from audiollm.training.loop.optimizer import make_optimizer
from audiollm.training.loop.record import config_as_json
from audiollm.training.loop.stopping import RunStoppedError
from audiollm.training.sft import train

from .finished_runs import assert_same_weights, metrics_of, weights_of


def test_a_run_learns_evaluates_and_leaves_a_complete_record(make_config, assets, tmp_path):
    config = make_config(
        max_steps=120, warmup_ratio=0.05, eval_data=str(assets.dev), eval_every=60, eval_generate_samples=4,
        eval_max_new_tokens=6, save_every=40, keep_checkpoints=2, gradient_checkpointing=True,
    )  # fmt: skip
    summary = train(config)
    run = tmp_path / "run"
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == list(range(1, 121))
    assert lines[0]["loss"] > 5.0
    assert lines[-1]["loss"] < 0.3  # the answer follows from the codes
    assert lines[5]["learning_rate"] == config.learning_rate
    assert lines[-1]["learning_rate"] == pytest.approx(config.learning_rate * config.min_learning_rate_ratio)
    assert summary.loss == lines[-1]["loss"]

    evaluations = metrics_of(run, "eval")
    assert [line["step"] for line in evaluations] == [60, 120]
    assert summary.evaluation["loss"] == evaluations[-1]["loss"] < 0.3
    assert evaluations[-1]["wer"] <= 0.5
    assert evaluations[-1]["accuracy_by_task"] == {"classify": evaluations[-1]["accuracy"]}
    samples = [json.loads(line) for line in (run / "samples" / "step_000120.jsonl").read_text().splitlines()]
    references = {one.id: one.messages[-1].content[0].text for one in load_conversations(assets.dev)}
    assert len(samples) == 4
    assert all(references[sample["id"]] == sample["reference"] for sample in samples)
    assert sum(sample["prediction"] == sample["reference"] for sample in samples) >= 3

    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step_000080", "step_000120"]
    record = json.loads((run / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__
    assert record["data"]["num_records"] == 40
    assert len(record["data"]["encoded"]) == 64
    assert record["git_revision"] is None or len(record["git_revision"].removesuffix("-dirty")) == 40
    saved = json.loads((run / "checkpoints" / "step_000120" / "config.json").read_text())
    assert saved["max_steps"] == 120

    trained = AudioLLM.from_pretrained(run / "model")
    assert type(trained.model).__name__ == "Qwen2ForCausalLM"
    assert trained.vocabulary == AudioLLM.from_pretrained(assets.audio_llm).vocabulary


def test_eight_micro_batches_of_one_equal_one_of_eight(make_config, tmp_path):
    train(make_config(micro_batch_size=8, output_dir=str(tmp_path / "whole")))
    train(make_config(micro_batch_size=1, output_dir=str(tmp_path / "accumulated")))
    for whole, accumulated in zip(metrics_of(tmp_path / "whole"), metrics_of(tmp_path / "accumulated"), strict=True):
        assert whole.pop("event") == accumulated.pop("event")
        assert whole == pytest.approx(accumulated, rel=1e-4)
    for name, tensor in weights_of(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "accumulated")[name], rtol=1e-3, atol=1e-4)


def test_the_loss_is_averaged_over_target_tokens_not_over_micro_batches(make_config, assets, tmp_path):
    train(make_config(max_steps=1, micro_batch_size=1, global_batch_size=40))
    line = metrics_of(tmp_path / "run")[0]
    audio_llm = AudioLLM.from_pretrained(assets.audio_llm)
    total, count = 0.0, 0
    for conversation in load_conversations(assets.train):
        encoded = audio_llm.processor.encode_conversation(conversation)
        labels = torch.tensor(encoded.labels)
        with torch.no_grad():
            logits = audio_llm.model(torch.tensor([encoded.token_ids])).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum"))
        count += int((labels[1:] != -100).sum())
    assert line["target_tokens"] == count
    assert line["loss"] == pytest.approx(total / count, rel=1e-5)


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(make_config, assets, tmp_path):
    """SIGKILL after the fourth update; the last checkpoint is from the third. Dropout makes random states matter."""
    lora = LoRASettings(r=2, dropout=0.2, target_modules=("q_proj", "v_proj"))
    settings = {"lora": lora, "eval_data": str(assets.dev), "eval_every": 2, "save_every": 3}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    killed = tmp_path / "killed"
    config = make_config(output_dir=str(killed), **settings)
    (tmp_path / "config.json").write_text(json.dumps(config_as_json(config)))
    program = (
        "import os, signal, sys\n"
        "from audiollm.training import sft\n"
        "update = sft._update\n"
        "def dies(run, step, batches):\n"
        "    if step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return update(run, step, batches)\n"
        "sft._update = dies\n"
        "from audiollm.program import run_program\n"
        "run_program(sft.SFTConfig, sft.train)\n"
    )
    command = [sys.executable, "-c", program, "--config", str(tmp_path / "config.json")]
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert [line["step"] for line in metrics_of(killed)] == [1, 2, 3, 4]
    assert not (killed / "model").exists()

    summary = train(make_config(output_dir=str(killed), resume="latest", **settings))
    for event in ("train", "eval"):
        assert metrics_of(killed, event) == metrics_of(tmp_path / "straight", event)
    assert_same_weights(killed, tmp_path / "straight")
    assert summary.steps == 6


def test_a_run_from_before_a_setting_was_there_goes_on_to_the_same_bits(make_config, tmp_path):
    train(make_config(output_dir=str(tmp_path / "straight")))
    old = tmp_path / "old"
    train(make_config(output_dir=str(old), save_every=3))
    shutil.rmtree(old / "checkpoints" / "step_000006")
    for path, inside in (
        (old / "checkpoints" / "step_000003" / "checkpoint.json", "identity"),
        (old / "config.json", ""),
    ):
        content = json.loads(path.read_text())
        settings = content[inside] if inside else content
        del settings["codebooks"], settings["code_order"]
        path.write_text(json.dumps(content))
    train(make_config(output_dir=str(old), resume="latest"))
    assert metrics_of(old) == metrics_of(tmp_path / "straight")
    assert_same_weights(old, tmp_path / "straight")


CUTS = {
    "grouped": {"tokens_per_pass": 300},
    "packed": {"tokens_per_pass": 300, "packing": "pack", "gradient_checkpointing": True},
    "packed with adapters": {"tokens_per_pass": 300, "packing": "pack", "lora": LoRASettings(r=2)},
}


@pytest.mark.parametrize("cut", CUTS)
def test_grouped_and_packed_passes_make_the_updates_of_records(make_config, tmp_path, cut):
    settings = CUTS[cut] | {"max_steps": 3}
    train(make_config(output_dir=str(tmp_path / "records"), max_steps=3, lora=settings.get("lora")))
    train(make_config(output_dir=str(tmp_path / cut), **settings))
    for line, expected in zip(metrics_of(tmp_path / cut), metrics_of(tmp_path / "records"), strict=True):
        assert line.pop("event") == expected.pop("event")
        assert line == pytest.approx(expected, rel=1e-4)
    for name, tensor in weights_of(tmp_path / cut).items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "records")[name], rtol=1e-3, atol=1e-4)
    [shares, *_] = [json.loads(line) for line in (tmp_path / cut / "metrics.jsonl").read_text().splitlines()]
    if "packing" in CUTS[cut]:
        assert shares["padding_share"] == 0
        assert 0.5 < shares["packed_share"] <= 1
    else:
        assert 0 < shares["padding_share"] < 0.5
    assert "segments" not in (tmp_path / cut / "model" / "config.json").read_text()


def test_updates_of_a_token_budget_are_full_and_resumed_to_the_same_bits(make_config, assets, tmp_path):
    settings = {
        "global_batch_size": 64, "tokens_per_update": 600, "tokens_per_pass": 300, "packing": "pack", "save_every": 2,
        "max_steps": None, "num_epochs": 1.5, "keep_checkpoints": 9, "eval_data": str(assets.dev), "eval_every": 3,
    }  # fmt: skip
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    lines = metrics_of(tmp_path / "straight")
    assert all(450 < line["tokens"] <= 600 for line in lines)
    assert lines[-2]["epoch"] < 1.5 <= lines[-1]["epoch"]
    checkpoint = tmp_path / "straight" / "checkpoints" / "step_000004"
    assert lines[3]["epoch"] % 1 > 0  # in the middle of an epoch
    train(make_config(output_dir=str(tmp_path / "resumed"), resume=str(checkpoint), **settings))
    assert metrics_of(tmp_path / "resumed") == lines[4:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")


def test_records_longer_than_a_token_budget_are_named_or_skipped(make_config, assets, tmp_path):
    lines = [json.loads(line) for line in assets.train.read_text().splitlines()[:6]]
    lines[1]["messages"][1]["content"] = "long " * 30
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"train_data": str(long), "tokens_per_pass": 130, "packing": "pack", "max_steps": 1}
    with pytest.raises(DataError, match=r"tokens are more than tokens_per_pass=130: .*raise tokens_per_pass or set"):
        train(make_config(**settings))
    train(make_config(on_too_long="skip", **settings))
    [skipped] = (tmp_path / "run" / "skipped_train.jsonl").read_text().splitlines()
    assert json.loads(skipped)["record"] == 1


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "sgd"])
def test_every_optimizer_is_resumed_to_the_same_bits(make_config, tmp_path, optimizer):
    settings = {"optimizer": optimizer, "schedule": "warmup_stable_decay", "save_every": 3}
    train(make_config(output_dir=str(tmp_path / "straight"), **settings))
    checkpoint = tmp_path / "straight" / "checkpoints" / "step_000003"
    train(make_config(output_dir=str(tmp_path / "resumed"), resume=str(checkpoint), **settings))
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[3:]
    assert_same_weights(tmp_path / "resumed", tmp_path / "straight")


def test_resume_latest_without_a_checkpoint_starts_from_the_beginning(make_config, tmp_path):
    train(make_config(max_steps=2, resume="latest"))
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [1, 2]


def test_an_output_folder_in_use_is_refused(make_config):
    train(make_config(max_steps=1))
    with pytest.raises(ValueError, match=r"already holds a run.*--resume latest"):
        train(make_config(max_steps=1))


def test_resuming_a_different_run_lists_every_difference(make_config, assets, tmp_path):
    train(make_config(max_steps=2))
    other = tmp_path / "other.jsonl"
    other.write_text(assets.train.read_text().replace("What?", "Which?"))
    with pytest.raises(ResumeError) as error:
        train(make_config(max_steps=3, learning_rate=1e-3, train_data=str(other), resume="latest", log_every=2))
    message = str(error.value)
    for line in ("learning_rate: 0.01 → 0.001", "total_steps: 2 → 3", "data.records:", "data.encoded:", "train_data:"):
        assert line in message
    assert "log_every" not in message
    with pytest.raises(ResumeError, match=r"resume=nowhere"):
        train(make_config(resume="nowhere", output_dir=str(tmp_path / "elsewhere")))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_records(make_config, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"update \d+: (loss|gradient norm) is (nan|inf).*lower learning_rate"):
        train(make_config(learning_rate=1e30, max_grad_norm=None, max_steps=20, save_every=1))
    [report] = (tmp_path / "run").glob("non_finite_step_*.json")
    content = json.loads(report.read_text())
    assert sum(len(one["records"]) for one in content["passes"]) == 8
    assert all(record.startswith("record-") for one in content["passes"] for record in one["records"])
    latest = load_file(tmp_path / "run" / "checkpoints" / f"step_{content['step'] - 1:06d}" / "weights.safetensors")
    assert content["step"] > 1
    assert latest


def test_a_broken_model_is_noticed_before_its_first_update(make_config, assets, tmp_path):
    broken = shutil.copytree(assets.audio_llm, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"NaN or infinity in model\.norm\.weight"):
        train(make_config(model=str(broken)))
    weights["model.norm.weight"][3] = 3e38  # a number, and too large to compute with
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteLossError, match=r"update 1: loss is (nan|inf)"):
        train(make_config(model=str(broken)))
    assert metrics_of(tmp_path / "run") == []
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_the_audio_rows_and_merges_into_a_plain_model(make_config, assets, tmp_path, tied):
    source = assets.audio_llm if tied else assets.untied_audio_llm
    train(make_config(model=str(source), lora=LoRASettings(r=2, target_modules=("q_proj", "v_proj"))))
    before = load_file(source / "model.safetensors")
    after = weights_of(tmp_path / "run")
    assert before.keys() == after.keys()
    merged = AudioLLM.from_pretrained(tmp_path / "run" / "model")
    assert merged.model.config.tie_word_embeddings is tied
    is_audio = torch.zeros(before["model.embed_tokens.weight"].shape[0], dtype=torch.bool)
    is_audio[merged.vocabulary.token_ids] = True
    changed_layers = set()
    for name, tensor in before.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            changed_rows = (tensor != after[name]).any(dim=1)
            assert not changed_rows[~is_audio].any(), f"{name}: text rows moved"
            assert changed_rows[is_audio].float().mean() > 0.5, f"{name}: audio rows stayed"
        elif not torch.equal(tensor, after[name]):
            changed_layers.add(name.split(".")[-2])
    assert changed_layers == {"q_proj", "v_proj"}

    from peft import PeftModel

    base = AudioLLM.from_pretrained(source)
    adapted = PeftModel.from_pretrained(base.model, tmp_path / "run" / "adapter").eval()
    token_ids = torch.tensor([[*merged.vocabulary.wrap([1, 33, 63]), 65, 66]])
    with torch.no_grad():
        expected = adapted(token_ids).logits
        torch.testing.assert_close(merged.model.eval()(token_ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_weight_decay_spares_norms_and_biases_and_frozen_weights_are_left_out(make_config, assets):
    model = AudioLLM.from_pretrained(assets.audio_llm).model
    model.model.embed_tokens.requires_grad_(False)
    cpu = torch.device("cpu")
    decayed, spared = make_optimizer(TargetTokenLoss(model), make_config(weight_decay=0.3), cpu).param_groups
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert all(name_of[parameter].endswith("proj.weight") for parameter in decayed["params"])
    assert all("norm" in name_of[parameter] or "bias" in name_of[parameter] for parameter in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(name_of) - 1


def test_a_text_llm_is_extended_before_training(make_config, assets, tmp_path):
    train(make_config(model=str(assets.text_llm), audio_tokenizer=str(assets.audio_tokenizer), max_steps=1))
    start = load_file(tmp_path / "run" / "extended" / "model.safetensors")
    plain = load_file(assets.text_llm / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(start["model.embed_tokens.weight"][: len(plain)], plain)
    assert AudioLLM.from_pretrained(tmp_path / "run" / "model").vocabulary.codebook_size == 64


def write_tone(path: Path, seconds: float, pitch: float) -> Path:
    samples = (8000 * np.sin(2 * math.pi * pitch * np.arange(int(16000 * seconds)) / 16000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return path


def test_recordings_and_their_codes_give_identical_batches(assets, tmp_path):
    processor = AudioLLM.from_pretrained(assets.audio_llm).processor
    recordings, codes = [], []
    for number, seconds in enumerate((0.3, 1.1, 0.7)):
        path = write_tone(tmp_path / f"{number}.wav", seconds, 200 * (number + 1))
        answer = {"role": "assistant", "content": f"tone {number}"}
        waveform = torch.from_numpy(np.frombuffer(path.read_bytes()[44:], "<i2").astype(np.float32) / 32768)
        [clip] = processor.audio_tokenizer.encode([waveform], 16000).tolist()
        for records, part in ((recordings, {"path": str(path)}), (codes, {"codes": clip})):
            question = {"role": "user", "content": [{"type": "audio", **part}]}
            records.append({"id": f"{number}", "messages": [question, answer]})

    def batch(records):
        encoded = EncodedRecords(load_conversations(records), processor, max_length=256, cache_tokens=0)
        return collate([record.example() for record in encoded.encode([2, 0, 1])], pad_token_id=0)

    on_the_fly, prepared = batch(recordings), batch(codes)
    assert on_the_fly.keys() == prepared.keys()
    for name, tensor in on_the_fly.items():
        assert torch.equal(tensor, prepared[name]), name


def test_bad_records_are_all_named_before_training_starts(make_config, assets, tmp_path):
    lines = assets.train.read_text().splitlines()[:8]
    lines[2] = lines[2].replace('"codes": [', '"codes": [64, ')
    lines[4] = lines[4].replace('"assistant"', '"user"')
    lines[6] = json.dumps(
        {"messages": [{"role": "user", "content": [{"type": "audio", "path": "absent.wav"}]},
                      {"role": "assistant", "content": "x"}]}
    )  # fmt: skip
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as error:
        train(make_config(train_data=str(bad)))
    message = str(error.value)
    assert message.startswith("3 of 8 records cannot be trained on")
    for part in ("bad.jsonl:3", "64", "bad.jsonl:5", "assistant", "bad.jsonl:7", "absent.wav"):
        assert part in message
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_held_out_records_that_are_not_there_are_told_before_any_record_is_encoded(make_config, tmp_path, monkeypatch):
    def encoded(*_, **__):
        raise AssertionError("a record is encoded")

    monkeypatch.setattr(sft, "ListedData", encoded)
    with pytest.raises(RecordError, match=r"absent\.jsonl: no such file or folder"):
        train(make_config(eval_data=str(tmp_path / "absent.jsonl"), eval_every=2))


def test_records_longer_than_the_limit_are_named_or_skipped_and_listed(make_config, assets, tmp_path):
    lines = [json.loads(line) for line in assets.train.read_text().splitlines()[:6]]
    lines[1]["messages"][0]["content"][0]["codes"] *= 40
    lines[4]["messages"][1]["content"] = "long " * 60
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError) as error:
        train(make_config(train_data=str(long)))
    for part in ("2 of 6 records", "long.jsonl:2", "long.jsonl:5", "max_length=256", "on_too_long: skip"):
        assert part in str(error.value)
    train(make_config(train_data=str(long), on_too_long="skip", max_steps=1, global_batch_size=4))
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped_train.jsonl").read_text().splitlines()]
    assert [line["record"] for line in skipped] == [1, 4]
    assert all(line["tokens"] > 256 for line in skipped)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["num_records"] == 4


def test_without_the_check_a_bad_record_stops_the_run_when_it_is_reached(make_config, assets, tmp_path):
    lines = assets.train.read_text().splitlines()[:8]
    lines[3] = lines[3].replace('"codes": [', '"codes": [64, ')
    (tmp_path / "bad.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl:4"):
        train(make_config(train_data=str(tmp_path / "bad.jsonl"), check_data=False))


def test_a_full_disk_leaves_the_last_checkpoint_and_no_debris(make_config, tmp_path, monkeypatch):
    save = torch.save
    saves = []

    def full_disk(value, path):
        saves.append(path)
        if len(saves) == 4:  # the random state of the second checkpoint
            raise OSError(28, "No space left on device")
        save(value, path)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(make_config(save_every=2))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step_000002"]
    monkeypatch.undo()
    train(make_config(save_every=2, resume="latest"))
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_context_longer_than_the_models_is_refused(make_config):
    with pytest.raises(ValueError, match=r"max_length=512 exceeds the model's context of 256"):
        train(make_config(max_length=512))


@pytest.mark.parametrize(
    ("extra", "message"), [([], "none.jsonl"), (["--learning_rate", "-1"], "learning_rate=-1.0: use a positive")]
)
def test_user_errors_end_in_one_message_and_no_traceback(assets, tmp_path, capfd, extra, message):
    paths = {"model": assets.audio_llm, "train_data": tmp_path / "none.jsonl", "output_dir": tmp_path / "run"}
    flags = [str(part) for name, path in paths.items() for part in (f"--{name}", path)]
    with pytest.raises(SystemExit) as ended:
        run_program(SFTConfig, train, name="sft", arguments=[*flags, *extra])
    assert ended.value.code == 1
    last_line = capfd.readouterr().err.splitlines()[-1]
    assert last_line.startswith("sft: error: ")
    assert message in last_line


def test_few_records_come_once_in_an_epoch(make_config, assets, tmp_path):
    """Ten records and updates of 64: one update of ten, whatever the passes that make it up."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(line + "\n" for line in assets.train.read_text().splitlines()[:10]))
    settings = {"train_data": str(few), "max_steps": None, "num_epochs": 2.0, "micro_batch_size": 4}
    train(make_config(global_batch_size=64, output_dir=str(tmp_path / "many"), **settings))
    train(make_config(global_batch_size=12, output_dir=str(tmp_path / "ten"), **settings))
    many, ten = metrics_of(tmp_path / "many"), metrics_of(tmp_path / "ten")
    assert [line["epoch"] for line in many] == [1.0, 2.0]
    assert [line["target_tokens"] for line in many] == [line["target_tokens"] for line in ten]
    assert [line["loss"] for line in many] == pytest.approx([line["loss"] for line in ten], rel=1e-4)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_run_asked_to_stop_saves_and_goes_on_to_the_same_bits(make_config, monkeypatch, tmp_path, number):
    train(make_config(output_dir=str(tmp_path / "straight")))
    update = sft._update

    def update_and_ask(parts, step, micro_batches):
        if step == 3:
            os.kill(os.getpid(), getattr(signal, number))
        return update(parts, step, micro_batches)

    monkeypatch.setattr(sft, "_update", update_and_ask)
    with pytest.raises(RunStoppedError, match=r"after update 3 of 6.*--resume latest") as stopped:
        train(make_config())
    assert stopped.value.status == 143
    monkeypatch.undo()
    train(make_config(resume="latest"))
    assert [line["loss"] for line in metrics_of(tmp_path / "run")] == [
        line["loss"] for line in metrics_of(tmp_path / "straight")
    ]
    for name, tensor in weights_of(tmp_path / "straight").items():
        assert torch.equal(tensor, weights_of(tmp_path / "run")[name]), name


def test_a_second_interrupt_does_not_wait_for_the_update(make_config, monkeypatch, tmp_path):
    def interrupted_twice(parts, step, micro_batches):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the update goes on")

    monkeypatch.setattr(sft, "_update", interrupted_twice)
    with pytest.raises(RunStoppedError, match="at once, without a checkpoint"):
        train(make_config())
    assert not (tmp_path / "run" / "checkpoints" / "step_000001").exists()


def test_a_finished_run_goes_on_to_more_updates(make_config, tmp_path):
    train(make_config(max_steps=2))
    train(make_config(max_steps=4, resume="latest"))
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_folder_in_which_a_run_is_alive_is_refused(make_config, tmp_path):
    with locked_file(tmp_path / "run"), pytest.raises(FileInUseError, match="in use by another run"):
        train(make_config())
    train(make_config(max_steps=1))  # a lock that nobody holds any more is no hindrance
