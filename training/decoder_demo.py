"""The decoder demo: trains a waveform decoder on real recordings, in one command, and measures it (`make decoder`).

One voice reads 35 minutes of prompts in two languages; a tokenizer on a real Whisper encoder turns them into codes;
training/train_decoder.py learns the way back, a flow model from codes to mel and a vocoder from mel to sound. The
report sets the word error rate of a real ASR on held-out sentences, decoded, beside that on the originals and on
copy-synthesis (the vocoder alone), which bounds what better codes or a better flow model could reach.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table

from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.build import build_corpus
from audiollm.data.corpora.clips import Clip, load_manifest
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.data.records import SPLITS, Split
from audiollm.program import run_program
from audiollm.tables import print_table
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.decoder.parts import join_decoder
from audiollm.training.decoder.validate import ValidationConfig, validate
from audiollm.training.recipes.decoder_report import write_report
from audiollm.training.recipes.fitted_tokenizer import fitted_tokenizer
from audiollm.training.recipes.launching import console, launch_trainer, open_recipe_folder

VOICE = "Allison"
TEST_LANGUAGE = "en"
PACKAGED_ENCODER, PACKAGED_JUDGE = "base", "tiny.en"


@dataclass(frozen=True, kw_only=True)
class DecoderDemoConfig:
    """One run: corpus, tokenizer, vocoder, flow model, report."""

    output_dir: str = "runs/decoder"
    """Folder for everything the run makes. What is complete there is not made again, so that a run can be taken up."""

    encoder: str | None = None
    """Folder or Hub id of the Whisper model whose encoder makes the codes. None: whisper-base from a package."""

    judge: str | None = None
    """Folder or Hub id of the Whisper model that transcribes. None: whisper-tiny.en from a registry package."""

    codebook_size: int = 2048
    """Entries of the codebook that is fitted to the training recordings; 35 minutes hold about 25 frames of each."""

    vocoder_steps: int = 4500
    """Updates of the vocoder."""

    flow_steps: int = 2400
    """Updates of the flow model."""

    seed: int = 0
    """Decides new weights and the order of the data."""


# ------------------------------------------------------------------- the steps


def find_whisper(wanted: str | None, packaged: str) -> str:
    """A Whisper model: the one asked for, else one from a registry package."""
    return wanted if wanted is not None else str(whisper_from_package(packaged))


def find_recordings(folder: Path) -> dict[Split, list[Clip]]:
    """The voice's clips: all of its languages to train on, English ones held out."""
    if not (folder / "manifest.jsonl").exists():
        build_corpus("asterisk", folder)
    clips = [clip for clip in load_manifest(folder) if VOICE in (clip.speaker or "")]
    return {
        split: [clip for clip in clips if clip.split == split and (split == "train" or clip.language == TEST_LANGUAGE)]
        for split in SPLITS
    }


def make_tokenizer(folder: Path, clips: Sequence[Clip], encoder: str, config: DecoderDemoConfig) -> UniAudioTokenizer:
    """A tokenizer at two thirds of Whisper's depth, its codebook fitted to the clips by k-means.

    The gate of the SAE is at its initial values, one half, and passes Whisper's own shallow features.
    """
    if (folder / "config.json").exists():
        return UniAudioTokenizer.from_pretrained(folder)
    audio_tokenizer, fit = fitted_tokenizer(encoder, clips, config.codebook_size, config.seed, depth=Fraction(2, 3))
    console.print(
        f"  {config.codebook_size} codes fitted to {fit.num_frames} frames: {100 * fit.usage:.1f} % in use, "
        f"{100 * fit.quantization_error:.1f} % of the variance lost"
    )
    audio_tokenizer.save_pretrained(folder)
    return audio_tokenizer


def write_codes(clips: Sequence[Clip], audio_tokenizer: UniAudioTokenizer, path: Path) -> None:
    """Writes what train_decoder.py reads: audio, text and codes of every clip."""
    if path.exists():
        return
    waveforms = [load_audio(clip.audio, sample_rate=audio_tokenizer.sample_rate)[0] for clip in clips]
    codes = audio_tokenizer.encode(waveforms, audio_tokenizer.sample_rate).tolist()
    write_json_lines(
        path,
        (
            {"id": clip.id, "audio": str(clip.audio), "text": clip.text, "codes": row}
            for clip, row in zip(clips, codes, strict=True)
        ),
    )


def launch_training(model: Literal["flow", "vocoder"], folder: Path, config: DecoderDemoConfig) -> Path:
    """Runs training/train_decoder.py as a user would, from where an earlier run stopped; returns its folder."""
    run = folder / model
    steps = config.flow_steps if model == "flow" else config.vocoder_steps
    launch_trainer(
        "train_decoder.py",
        f"decoder_demo_{model}.yaml",
        *("--train_data", str(folder / "train.jsonl"), "--eval_data", str(folder / "dev.jsonl")),
        *("--audio_tokenizer", str(folder / "tokenizer"), "--cache_dir", str(folder / "prepared")),
        *("--output_dir", str(run), "--resume", "latest"),
        *("--max_steps", str(steps), "--seed", str(config.seed)),
        *("--decoder.flow.codebook_size", str(config.codebook_size)),
    )
    return run


def run_decoder_demo(config: DecoderDemoConfig) -> dict[str, Any]:
    """Runs all steps and writes ``report.html`` and ``results.json``; returns what the latter holds."""
    settings = {name: value for name, value in vars(config).items() if name != "output_dir"}
    with open_recipe_folder(Path(config.output_dir) / "demo.json", settings) as folder:
        return _run_in(folder, config)


def _run_in(folder: Path, config: DecoderDemoConfig) -> dict[str, Any]:
    started = time.perf_counter()
    console.rule("1. recordings")
    clips = find_recordings(folder / "asterisk")
    for split in SPLITS:
        minutes = sum(clip.duration_seconds for clip in clips[split]) / 60
        console.print(f"  {split}: {len(clips[split])} clips, {minutes:.1f} minutes")

    console.rule("2. codes")
    encoder = find_whisper(config.encoder, PACKAGED_ENCODER)
    audio_tokenizer = make_tokenizer(folder / "tokenizer", clips["train"], encoder, config)
    for split in SPLITS:
        write_codes(clips[split], audio_tokenizer, folder / f"{split}.jsonl")

    console.rule("3. vocoder: mel to waveform")
    vocoder = launch_training("vocoder", folder, config)
    console.rule("4. flow model: codes to mel")
    flow = launch_training("flow", folder, config)
    join_decoder(flow, vocoder, folder / "tokenizer" / "decoder")

    console.rule("5. held-out sentences")
    result = validate(
        ValidationConfig(
            data=str(folder / "test.jsonl"),
            output_dir=str(folder / "validation"),
            decoder=str(folder / "tokenizer" / "decoder"),
            asr=find_whisper(config.judge, PACKAGED_JUDGE),
            cache_dir=str(folder / "prepared"),
            seed=config.seed,
        )
    )
    result["facts"] = {
        "encoder of the codes": config.encoder or f"whisper-{PACKAGED_ENCODER}, from a registry package",
        "judge": config.judge or f"whisper-{PACKAGED_JUDGE}, from a registry package",
        "updates": f"vocoder {config.vocoder_steps}, flow model {config.flow_steps}",
        "machine": f"{os.cpu_count()} CPU cores, {torch.cuda.device_count()} GPUs, torch {torch.__version__}",
        "wall time of this call": f"{time.perf_counter() - started:.0f} s",
    }
    write_json(folder / "results.json", result)
    write_report(folder)
    show_systems(result["systems"])
    console.print(f"  report: {folder / 'report.html'}")
    return result


def show_systems(systems: dict[str, dict[str, float | None]]) -> None:
    """Prints one row per system."""
    columns = list(dict.fromkeys(name for scores in systems.values() for name in scores))
    table = Table("", *columns)
    for name, scores in systems.items():
        cells = (scores.get(column) for column in columns)
        table.add_row(name.replace("_", " "), *("" if cell is None else f"{cell:.3f}" for cell in cells))
    print_table(table, console)


if __name__ == "__main__":
    run_program(DecoderDemoConfig, run_decoder_demo, name="decoder_demo", level=logging.WARNING)
