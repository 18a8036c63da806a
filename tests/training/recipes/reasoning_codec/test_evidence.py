"""The evidence on ReasoningCodec: real data, settings and order of steps; trainings and answers are stood in for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, TextIO

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel, WhisperConfig, WhisperFeatureExtractor, WhisperModel

from audiollm.benchmarks.comparison.page import JSON
from audiollm.data.files.json_lines import read_json_lines
from audiollm.program import ProgramError, run_program
from audiollm.training.codec.config import CodecTrainingConfig
from audiollm.training.losatok.config import LoSATokTrainingConfig
from audiollm.training.reasoning_codec.config import ReasoningCodecTrainingConfig
from audiollm.training.recipes import kept_trainings
from audiollm.training.recipes.launching import TRAINING
from audiollm.training.recipes.reasoning_codec import codecs, language_models, side_by_side
from audiollm.training.recipes.reasoning_codec.codecs import CodecSettings
from audiollm.training.recipes.reasoning_codec.data import PARTS, ClipData, ClipSettings
from audiollm.training.recipes.reasoning_codec.evidence import ReasoningCodecEvidenceConfig, run_evidence
from audiollm.training.recipes.reasoning_codec.report import BEGIN, END, ReasoningCodecReportConfig, write_page
from audiollm.training.uniaudio.config import UniAudioTrainingConfig

CONFIGS: dict[str, Any] = {
    "train_codec.py": CodecTrainingConfig,
    "train_losatok.py": LoSATokTrainingConfig,
    "train_reasoning_codec.py": ReasoningCodecTrainingConfig,
    "train_uniaudio.py": UniAudioTrainingConfig,
}
KINDS = (("speech", None), ("music", None), ("sound", "dog"), ("sound", "rain"), ("sound", "bell"))


def tiny_whisper(folder: Path) -> Path:
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8}
    sizes |= {"decoder_attention_heads": 2, "decoder_ffn_dim": 8, "vocab_size": 8, "pad_token_id": 0}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(**sizes, **ids)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


class Trained:
    """Runs that were asked for, each with the settings that its trainer reads from file and flags."""

    def __init__(self) -> None:
        self.configs: list[Any] = []

    def launch(
        self, script: str, settings: str, *flags: str, num_threads: int | None = None, log: Path | None = None
    ) -> None:
        def train(config: Any) -> None:
            self.configs.append(config)
            run = Path(config.output_dir)
            run.mkdir(parents=True)
            line = {
                "event": "eval",
                "step": config.max_steps,
                "mel_distance": 1.0 + config.seed,
                "mcd": 2.0,
                "flow": 0.5,
            }
            line |= {"perplexity": [3.0, 5.0], "text_nll": 1.0 + 0.5 * config.seed, "audio_nll": 0.0}
            (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")

        config = str(TRAINING / "configs" / settings)
        run_program(CONFIGS[script], train, name=script, arguments=["--config", config, *flags])

    def names(self) -> list[str]:
        """Folders of the runs, below that of all codecs or LMs."""
        return ["/".join(Path(one.output_dir).parts[-2:]).removeprefix("codecs/") for one in self.configs]


@pytest.fixture(autouse=True)
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    made = Trained()
    monkeypatch.setattr(kept_trainings, "launch_trainer", made.launch)

    class Codec:
        """Of one group: its name alone."""

        @classmethod
        def from_pretrained(cls, run: Path, group: str) -> Codec:
            assert run.is_dir()
            return cls()

        def save_pretrained(self, folder: Path) -> None:
            (Path(folder) / "config.json").write_text("{}")

    monkeypatch.setattr(codecs, "ReasoningCodec", Codec)
    monkeypatch.setattr(codecs, "whisper_from_package", lambda name: tiny_whisper(tmp_path / name))
    return made


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that had models answer questions; half of the answers are right."""
    commands: list[list[str]] = []

    def run(command: list[str], num_threads: int | None, log: TextIO) -> None:
        commands.append(list(command))

    def figures(name: str, data: str, replies: Path) -> dict[str, Any]:
        assert (Path(data) / "mmau-test-mini.json").is_file()
        return {"all": 50.0, "n": 4, "chance": 25.0}

    monkeypatch.setattr(language_models, "run_logged", run)
    monkeypatch.setattr(language_models, "answered_figures", figures)
    return commands


@pytest.fixture(autouse=True)
def study(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Files of the studies that were run."""
    studies: list[dict[str, Any]] = []

    def compare(file: Path, folder: Path, *, tell: Callable[[str], None]) -> None:
        from audiollm.benchmarks.comparison.study import read_study

        read_study(file)  # every setting is one
        studies.append(json.loads(file.read_text()))
        best, plain = ({"shown": shown, "is_best": shown == "7"} for shown in ("7", "6"))
        row = {
            "measure": "codes",
            "data": "speech",
            "title": "in use",
            "better": "more",
            "cells": {"a": best, "b": plain},
        }
        table = {"title": "A small LLM", "columns": ["loss"], "rows": {"a": {"loss": plain}}, "notes": ["a note"]}
        document = {"columns": ["a", "b"], "rows": [row], "trained": [table], "cells": [], "published": []}
        (folder / JSON).write_text(json.dumps(document))

    monkeypatch.setattr(side_by_side, "compare_tokenizers", compare)
    return studies


@pytest.fixture
def config(tmp_path: Path) -> ReasoningCodecEvidenceConfig:
    source = tmp_path / "records"
    source.mkdir()
    times = np.arange(4800) / 16000
    for split, count in (("train", 16), ("dev", 8), ("test", 8)):
        lines = []
        for number in range(count):
            kind, label = KINDS[number % len(KINDS)]
            name = f"{split}{number}"
            soundfile.write(source / f"{name}.wav", 0.2 * np.sin(2 * np.pi * (200 + 50 * number) * times), 16000)
            said = f"word {number}" if kind == "speech" else ""
            vocal = {"age": "adult", "gender": ("female", "male")[number % 2], "emotion": None, "accent": None}
            sap = {
                "linguistic_content": said,
                "vocal_attributes": vocal | {"prosody": None, "timbre": None} if said else None,
                "auditory_scenes": {"summary": f"A {label or kind}.", "events": [label] if label else []},
            }
            lines.append(
                {"id": name, "audio": f"{name}.wav", "text": said, "sap": sap, "sound_type": kind, "label": label,
                 "caption": f"a {label or kind}", "duration_seconds": 0.3, "split": split, "group": name}
            )  # fmt: skip
        (source / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ReasoningCodecEvidenceConfig(
        output_dir=str(tmp_path / "run"),
        seeds=(0, 1),
        clips=ClipSettings(source=str(source), train_clips=12, held_out_clips=8),
        codecs=CodecSettings(sqcodec_steps=11, supervised_steps=12, reconstruction_steps=13),
    )


def test_everything_is_made_once_and_goes_into_the_page(
    config: ReasoningCodecEvidenceConfig,
    tmp_path: Path,
    trained: Trained,
    asked: list[list[str]],
    study: list[dict[str, Any]],
) -> None:
    results = run_evidence(config)
    names = trained.names()
    assert len(names) == len(set(names))
    assert names[:4] == ["sqcodec-seed0", "supervised-seed0", "with-film-seed0", "without-film-seed0"]
    assert sum(name.startswith("sqcodec") for name in names) == 1
    film = {
        name: one.reconstruction.film
        for name, one in zip(names, trained.configs, strict=True)
        if getattr(one, "stage", None) == "reconstruction"
    }
    assert film == {
        "with-film-seed0": True, "without-film-seed0": False, "with-film-seed1": True, "without-film-seed1": False,
    }  # fmt: skip
    by_name = dict(zip(names, trained.configs, strict=True))
    # The last stage and its stand-in go on from the same model, on other data, for as long.
    ends = [by_name[f"reasoning-and-reconstruction-seed1/{name}"] for name in ("with-the-last-stage", "without-it")]
    assert [one.stage for one in ends] == ["midtraining", "pretraining"]
    assert ends[0].model == ends[1].model == by_name["reasoning-and-reconstruction-seed1/pretraining"].output_dir
    assert ends[0].eval_data == ends[1].eval_data
    assert ends[0].max_steps == ends[1].max_steps
    assert ends[0].train_data != ends[1].train_data
    firsts = [one for name, one in by_name.items() if name.endswith("/understanding")]
    assert {Path(one.audio_tokenizer).name for one in firsts if one.seed == 0} == {
        "mini", "with-film-seed0", "with-film-seed0-reasoning", "with-film-seed0-reconstruction",
        "without-film-seed0-reconstruction",
    }  # fmt: skip
    assert sum("--shots" in command for command in asked) == 4  # both ends, both seeds
    assert all("--max-failures" in command for command in asked)  # an LM that says nothing stops nothing
    assert results["film"]["with FiLM"]["1"]["mel_distance"] == 2
    assert study[0]["tokenizers"]["LoSATok"] == "../codecs/losatok-seed0"

    count = len(trained.configs), len(asked)
    again = run_evidence(config)
    assert (len(trained.configs), len(asked)) == count
    assert [again[part] for part in config.parts] == [results[part] for part in config.parts]

    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    write_page(ReasoningCodecReportConfig(results=str(tmp_path / "run" / "results.json"), page=str(page)))
    text = page.read_text()
    assert text.startswith("# Before")
    assert text.endswith("After\n")
    assert "\nold\n" not in text
    assert "| with FiLM | 2 | 1.500 ± 0.707 | 2.00 ± 0.00 | 0.500 ± 0.000 | 4.0 ± 0.0 |" in text
    assert "| UniAudio-Token mini | 2 | 1.250 ± 0.354 | 50.0 ± 0.0 | 0.000 ± 0.000 | 1.0 ± 0.0 | " in text
    assert "answered rightly, 4 examples (%)" in text
    assert "- 4 questions; guesses would answer 25.0 % of them" in text
    assert "| codes, speech | in use ↑ | **7** | 6 |" in text
    assert "- a note" in text
    assert "Not complete" not in text
    assert str(tmp_path) not in page.with_suffix(".json").read_text()


def test_what_is_learnt_from_and_what_is_judged_share_no_clip(
    config: ReasoningCodecEvidenceConfig, tmp_path: Path
) -> None:
    data = ClipData(config.clips, tmp_path / "run")
    used = {}
    for part in PARTS:
        ids = {record["id"] for record in read_json_lines(data.clips(part))}
        assert len(ids) > 3
        for file in (data.analyses, data.questions, data.pairs, data.sentences):
            audio = [
                content["path"]
                for record in read_json_lines(file(part))
                for message in record.get("messages", [])
                for content in message["content"]
                if isinstance(content, dict) and content["type"] == "audio"
            ]
            assert audio
            assert {Path(path).stem for path in audio} <= ids
        used[part] = ids
    assert not used["train"] & used["held_out"]
    assert all(record["num_segments"] >= 4 for record in read_json_lines(data.sentences("train")))


def test_the_short_whisper_is_the_whole_one_with_fewer_places(
    config: ReasoningCodecEvidenceConfig, tmp_path: Path
) -> None:
    run_evidence(replace(config, seeds=(0,), parts=("film",)))
    short, whole = (
        AutoModel.from_pretrained(folder, trust_remote_code=False)
        for folder in (tmp_path / "run" / "codecs" / "whisper", tmp_path / "tiny.en")
    )
    places = short.encoder.embed_positions.weight
    assert len(places) == 200
    assert torch.equal(places, whole.encoder.embed_positions.weight[:200])
    assert torch.equal(short.encoder.layers[0].fc1.weight, whole.encoder.layers[0].fc1.weight)
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path / "run" / "codecs" / "whisper")
    assert extractor(np.zeros(16000), sampling_rate=16000)["input_features"][0].shape == (80, 400)


def test_a_stopped_run_tells_what_there_is_and_goes_on(
    config: ReasoningCodecEvidenceConfig, tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, seeds=(0,), parts=("film",))
    launch = trained.launch

    def breaks(script: str, settings: str, *flags: str, **options: Any) -> None:
        if "false" in flags:  # without FiLM
            raise CalledProcessError(3, ["python"])
        launch(script, settings, *flags, **options)

    monkeypatch.setattr(kept_trainings, "launch_trainer", breaks)
    with pytest.raises(ProgramError, match=r"without-film-seed0 failed with exit status 3; why is in .*\.log"):
        run_evidence(config)
    assert "Not complete" in (tmp_path / "run" / "tables.md").read_text()
    assert list(json.loads((tmp_path / "run" / "results.json").read_text())["film"]) == ["with FiLM"]
    monkeypatch.setattr(kept_trainings, "launch_trainer", launch)
    assert run_evidence(config)["is_complete"]
    assert trained.names() == ["sqcodec-seed0", "supervised-seed0", "with-film-seed0", "without-film-seed0"]


def test_cells_of_other_settings_are_refused(config: ReasoningCodecEvidenceConfig) -> None:
    config = replace(config, seeds=(0,), parts=("film",))
    run_evidence(config)
    with pytest.raises(ValueError, match=r"another codecs\.supervised_steps \(12, now 5\)"):
        run_evidence(replace(config, codecs=replace(config.codecs, supervised_steps=5)))
    with pytest.raises(ValueError, match="train_clips"):
        run_evidence(replace(config, clips=replace(config.clips, train_clips=5)))
    with pytest.raises(ValueError, match=r"seeds=\[0, 0\]"):
        replace(config, seeds=(0, 0))
    with pytest.raises(ValueError, match=r"parts=\[\]"):
        replace(config, parts=())
