"""The experiment with SAP and SAE, on tones and a tiny Whisper: all steps run as they would, only in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import soundfile
import torch
from jsonargparse import auto_cli
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast

from audiollm.data.sampling import spread
from audiollm.program import ProgramError
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.training import sap_sae_experiment, train_tokenizer
from audiollm.training.audio_tokenizer.config import TokenizerTrainingConfig
from audiollm.training.recipes.launching import open_recipe_folder
from audiollm.training.recipes.sap_sae import evaluation as sap_sae_evaluation
from audiollm.training.recipes.sap_sae.data import evenly_of_each, read_data
from audiollm.training.recipes.sap_sae.evaluation import SapSaeEvaluationConfig, evaluate
from audiollm.training.sap_sae_experiment import Run, SapSaeConfig, run_experiment, training_commands

KINDS = (("speech", None), ("music", None), ("sound", "dog"), ("sound", "rain"), ("sound", "bell"))
YAML = """
quantized: {quantized}
output_vocabulary: seen
global_batch_size: 8
micro_batch_size: 4
learning_rate: 0.01
eval_clips: 4
eval_samples: 0
"""


def build_whisper(folder: Path) -> None:
    """A Whisper of 16 channels whose text tokenizer has one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: n for n, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|startoftranscript|>"]
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    WhisperTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    config = WhisperConfig(
        vocab_size=258, num_mel_bins=80, d_model=16, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, max_target_positions=300, init_std=0.2,
        pad_token_id=256, bos_token_id=256, eos_token_id=256, decoder_start_token_id=257, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WhisperForConditionalGeneration(config).save_pretrained(folder)


def make_record(folder: Path, number: int, split: str) -> dict[str, Any]:
    """A tone whose pitch and texture follow from what it stands for."""
    kind = number % len(KINDS)
    sound_type, label = KINDS[kind]
    generator = np.random.default_rng(number)
    time = np.arange(int((0.5 + 0.05 * (number % 7)) * 16000)) / 16000
    waveform = np.sin(2 * np.pi * 150 * 2**kind * time) + 0.05 * generator.standard_normal(len(time))
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "audio" / f"{number}.wav", (0.2 * waveform).astype(np.float32), 16000)
    record: dict[str, Any] = {
        "id": f"tones/{number}", "audio": f"audio/{number}.wav", "sound_type": sound_type, "split": split,
        "text": "word" if sound_type == "speech" else "", "duration_seconds": len(time) / 16000, "group": str(number),
    }  # fmt: skip
    scenes: dict[str, Any] = {"summary": None, "events": []}
    if sound_type != "speech":
        scenes = {"summary": "A tone.", "events": [{"class": label or "music", "type": "persistent"}]}
    voice = {"gender": "female"} if sound_type == "speech" else None
    record["sap"] = {
        "linguistic_content": record["text"] or None, "vocal_attributes": voice, "auditory_scenes": scenes
    }  # fmt: skip
    return record | ({"label": label} if label else {})


def write_data(folder: Path) -> Path:
    folder.mkdir()
    splits = {"train": range(30), "dev": range(30, 40), "test": range(40, 55)}
    for split, numbers in splits.items():
        lines = [json.dumps(make_record(folder, number, split)) for number in numbers]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture
def make_config(data: Path, tmp_path: Path) -> Any:
    build_whisper(tmp_path / "whisper")
    for stage, quantized in ((1, "false"), (2, "true")):
        (tmp_path / f"stage{stage}.yaml").write_text(YAML.format(quantized=quantized))

    def make(**changes: Any) -> SapSaeConfig:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "experiment"), "data": str(data), "start_from": str(tmp_path / "whisper"),
            "stage1_steps": 2, "stage2_steps": 2, "codebook_size": 16, "seeds": (0, 1),
            "stage1_config": str(tmp_path / "stage1.yaml"), "stage2_config": str(tmp_path / "stage2.yaml"),
        }  # fmt: skip
        return SapSaeConfig(**(settings | changes))

    return make


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What is called; each program runs here, with the flags that it would get."""
    called: list[list[str]] = []

    def run(command: Sequence[str], num_threads: int, log: TextIO) -> None:
        name, *flags = command[1:] if command[0] == "-m" else command
        called.append([Path(name).name, *flags])
        if called[-1][0] == "train_tokenizer.py":
            train_tokenizer.train(auto_cli(TokenizerTrainingConfig, args=flags, as_positional=False))
        else:
            evaluate(auto_cli(SapSaeEvaluationConfig, args=[*flags, *SMALL], as_positional=False))

    monkeypatch.setattr(sap_sae_experiment, "run_logged", run)
    monkeypatch.setattr(sap_sae_evaluation, "MAX_NEW_TOKENS", {"asr": 4, "sap": 8})
    return called


SMALL = ("--speech_clips", "4", "--sap_clips", "1", "--gate_clips", "3", "--type_clips", "4")


def test_the_experiment_runs_resumes_and_grows(make_config: Any, commands: list[list[str]], tmp_path: Path) -> None:
    results = run_experiment(make_config(seeds=(0,), variants=("sap+sae",)))
    steps = ["train_tokenizer.py", "train_tokenizer.py", sap_sae_experiment.EVALUATION]
    assert [command[0] for command in commands] == steps
    figures = results["runs"]["sap+sae"]["0"]
    assert figures["clustering"]["num_classes"] == 3
    assert figures["clustering"]["num_clips"] == 15
    assert set(figures["sound_type_probes"]) == {"histogram", "entries", "features"}
    assert figures["gates"]["by_kind"].keys() == {"speech", "sound", "music", "white noise", "pink noise"}
    assert list(figures["gates"]["by_snr_db"]) == ["-10", "-5", "0", "5", "10", "15", "20"]
    assert figures["wer"] is not None
    assert figures["wer_continuous"] is not None
    assert figures["sap"]["num_records"] == 3
    assert figures["training"]["stage2"]["num_updates"] == 2
    assert results["data"]["train"]["by_sound_type"] == {"music": 6, "sound": 18, "speech": 6}
    folder = tmp_path / "experiment" / "runs" / "sap+sae" / "0"
    assert (folder / "stage2" / "model" / "config.json").exists()
    assert not list(folder.rglob("checkpoints"))
    assert (tmp_path / "experiment" / "figures" / "gates.png").stat().st_size > 1000
    assert "| sap+sae |" in (tmp_path / "experiment" / "tables.md").read_text()

    del commands[:]
    again = run_experiment(make_config(seeds=(0,), variants=("untrained", "sap+sae")))
    assert [command[0] for command in commands] == steps[1:]  # only the new variant
    assert again["runs"]["sap+sae"] == results["runs"]["sap+sae"]
    assert list(again["runs"]) == ["untrained", "sap+sae"]
    assert again["runs"]["untrained"]["0"]["gates"] is None
    assert again["runs"]["untrained"]["0"]["sap"] is None
    untrained = SupervisedTokenizer.from_pretrained(folder.parents[1] / "untrained" / "0" / "stage2" / "model")
    whisper = WhisperForConditionalGeneration.from_pretrained(tmp_path / "whisper")
    for name, tensor in whisper.model.encoder.layers[1].state_dict().items():
        assert torch.equal(untrained.tokenizer.encoder.layers[1].state_dict()[name], tensor), name


def flags_of(variant: Any, config: SapSaeConfig) -> list[dict[str, str]]:
    commands = training_commands(Run(variant, 1, Path("runs")), config, Path("data"))
    return [dict(zip(command[1::2], command[2::2], strict=True)) for command in commands]


def test_variants_differ_in_nothing_but_what_they_are_about(make_config: Any) -> None:
    config = make_config()
    plain, described, fused = (flags_of(variant, config) for variant in ("asr", "sap", "asr+sae"))
    for stage in (0, 1):
        different = {name for name in plain[stage] if plain[stage][name] != described[stage][name]}
        assert different == {"--tasks.asr", "--tasks.sap"}
        assert plain[stage]["--seed"] == "1"
    assert (described[0]["--tasks.asr"], described[0]["--tasks.sap"]) == ("0.3", "0.7")
    sae = {
        "--audio_tokenizer.use_sae",
        "--audio_tokenizer.sae_source_position",
        "--audio_tokenizer.sae_target_position",
    }
    assert plain[0].keys() ^ fused[0].keys() == sae
    assert plain[1] == fused[1]


def test_the_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with open_recipe_folder(tmp_path / "run" / "experiment.json", {"codebook_size": 64}) as folder:
            assert folder == tmp_path / "run"
    with (
        pytest.raises(ValueError, match=r"another codebook_size.*name another --output_dir"),
        open_recipe_folder(tmp_path / "run" / "experiment.json", {"codebook_size": 128}),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with (
        pytest.raises(ValueError, match="not a run of this script"),
        open_recipe_folder(tmp_path / "other" / "experiment.json", {}),
    ):
        pass


def test_a_failed_training_ends_the_experiment_and_leaves_no_figures(make_config: Any, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sap_sae_experiment, "TRAINING", tmp_path)  # where no script is
    with pytest.raises(ProgramError, match=r"train_tokenizer\.py .* failed with exit status 2.*runs/asr/0/log\.txt"):
        run_experiment(make_config(variants=("asr",)))
    assert not list((tmp_path / "experiment").rglob("figures.json"))
    log = (tmp_path / "experiment" / "runs" / "asr" / "0" / "log.txt").read_text()
    assert "train_tokenizer.py" in log
    assert "No such file" in log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage1_steps": 0}, "stage1_steps=0"),
        ({"asr_share": 1.0}, r"asr_share=1\.0"),
        ({"seeds": ()}, "nothing to train"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SapSaeConfig(**changes)


# -------------------------------------------------------------------------- data


def rewrite(path: Path, change: Any) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_records_that_some_variant_could_not_train_on_are_listed(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    rewrite(folder / "train.jsonl", lambda lines: [lines[3].pop("sap"), lines[7].pop("text")])
    with pytest.raises(ValueError, match=r"train\.jsonl:4: has no sap\n.*train\.jsonl:8: has no text"):
        read_data(folder)


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    rewrite(folder / "test.jsonl", lambda lines: lines[0].update(group="4"))
    with pytest.raises(ValueError, match=r"1 groups of recordings are both trained on and held out, such as 'tones/4'"):
        read_data(folder)


def test_dev_and_test_are_held_out_and_one_of_them_may_be_missing(data: Path, tmp_path: Path) -> None:
    found = read_data(data)
    assert (len(found.train), len(found.held_out)) == (30, 25)
    assert all(Path(record["audio"]).is_absolute() for record in found.held_out)
    folder = write_data(tmp_path / "data")
    (folder / "dev.jsonl").unlink()
    assert len(read_data(folder).held_out) == 15
    (folder / "test.jsonl").unlink()
    with pytest.raises(ValueError, match="0 held out"):
        read_data(folder)


def test_clips_are_chosen_evenly(data: Path) -> None:
    assert spread([{"n": n} for n in range(10)], 4) == [{"n": n} for n in (0, 2, 5, 7)]
    chosen = evenly_of_each(read_data(data).train, 4)
    assert [record["sound_type"] for record in chosen] == ["speech"] * 4 + ["sound"] * 4 + ["music"] * 4


def test_the_report_knows_what_the_data_are(data: Path) -> None:
    counts = read_data(data).counts()
    assert counts["held_out"]["clips"] == 25
    assert counts["held_out"]["sound_classes"] == 3
    assert counts["train"]["minutes"] == pytest.approx(0.3, abs=0.1)
