"""Reconstruction: what recordings keep of words, voice, quality and waveform in the codes of audio tokenizers.

Each tokenizer has a row, and so have the recordings themselves: without that row the others mean little. Example::

    python benchmarks/reconstruction.py --audio-tokenizers mini,b=folder --data clips.jsonl --output-dir results/kept
"""
# Shapes: N samples.

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import print_json, recorded_config, write_figures
from audiollm.benchmarks.harness.identity import RESULT_NAME, check_identity
from audiollm.benchmarks.harness.options import refuse_idle
from audiollm.benchmarks.speech.judges.judging import NONE, SpeechJudges
from audiollm.benchmarks.speech.judges.recognizers import recognizer_for
from audiollm.benchmarks.speech.kept import Original, kept_figures
from audiollm.benchmarks.speech.reconstruction_report import METRICS
from audiollm.benchmarks.speech.spoken_records import spoken_records
from audiollm.benchmarks.speech.synthesis import decoder_fingerprint
from audiollm.benchmarks.speech.table import show_speech_table, without_recordings
from audiollm.data.audio.channels import Mono
from audiollm.data.audio.opening import AudioError
from audiollm.data.audio.writing import save_audio
from audiollm.data.files.lock import locked_folder
from audiollm.data.manifest import open_manifest
from audiollm.data.voices.encoders import SpeakerEncoder, load_speaker_encoder
from audiollm.environment import find_device
from audiollm.mini import audio_tokenizer_or_mini
from audiollm.reconstruction import reconstruct
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.kinds import UNIAUDIO_KINDS
from audiollm.tokenizer.opening import find_tokenizer_folder, kind_of

TRUTH = "ground truth"


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Audio tokenizers on one set of recordings."""

    audio_tokenizers: tuple[str, ...]
    """Audio tokenizers with waveform decoders: folders, Hub ids or mini, each as name=folder if it is to have another
    name."""
    data: str
    """Recordings: records with audio and text (JSONL, parquet, …). Those without text have no word error rate."""
    output_dir: str
    """Folder for recordings, transcripts and result.json."""
    split: str | None = None
    """Only records whose split is this."""
    limit: int | None = None
    """Only the first so many."""
    mono: Mono = "first"
    """Which channel of a recording is the original: the first one, as tokenizers hear it, or the mean of all."""
    language: str = "en"
    """Of the speech."""
    metrics: tuple[str, ...] = ("stoi", "mel_distance")
    """Distances to the original: stoi, pesq, mel_distance, mcd."""
    voice: Literal["auto", "speaker", "none"] = "auto"
    """Whether a speaker encoder describes the original for the decoder; auto: where its vectors fit."""
    speaker_encoder: str = "resemblyzer"
    """Which one."""
    steps: int | None = None
    """Of the decoder's flow model. None: its own number."""
    seed: int = 42
    """Of the decoder's noise."""
    asr: str | None = None
    """Recognizer, as for seed-tts; a small one of the language if not given, or none."""
    similarity: str = "resemblyzer"
    """Speaker encoder that measures likeness, or none."""
    mos: str = "dnsmos"
    """Predictor of opinion, or none."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    json: bool = False
    """Print the result without single recordings as JSON."""

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                raise ValueError(f"metrics: no metric {metric!r}; there are {', '.join(METRICS)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: use 1 or more")
        if self.voice == "none":
            refuse_idle(self, ["speaker_encoder"], "with --voice none")
        if self.asr == NONE:
            refuse_idle(self, ["language"], "with --asr none")


def tokenizer_names(audio_tokenizers: Sequence[str]) -> dict[str, str]:
    """Reads ``mini`` and ``other=folder`` as sources by name.

    Raises:
        ValueError: a name is there twice, or is none.
    """
    found: dict[str, str] = {}
    for entry in audio_tokenizers:
        name, equals, source = entry.partition("=")
        source = source if equals else entry
        name = name if equals else Path(entry).name
        if not name or not source or name in found or name == TRUTH or name != Path(name).name:
            given = ",".join(audio_tokenizers)
            raise ValueError(f"audio_tokenizers={given}: {entry!r} needs a name of its own; write name=folder")
        found[name] = source
    return found


def measure(
    config: ReconstructionConfig, audio_tokenizers: Mapping[str, AudioTokenizer] | None = None
) -> dict[str, Any]:
    """Runs the benchmark; a run that was stopped goes on.

    Args:
        config: what to run.
        audio_tokenizers: by name, in place of those of ``config``.

    Returns:
        The result, which is in ``result.json`` too.

    Raises:
        ValueError: a setting is wrong, the folder holds another run, or another process is at work on it.
        AudioError: a recording of the data cannot be used.
        OSError: a model cannot be had.
    """
    folder, device = Path(config.output_dir), find_device(config.device)
    with locked_folder(folder):
        originals = _write_originals(config, folder)
        judges = SpeechJudges(
            recognizer_for(config.language, config.asr),
            config.similarity,
            config.mos,
            language=config.language,
            device=device,
        )
        judge = partial(
            kept_figures, judges, originals, metrics=config.metrics, language=config.language, result_folder=folder
        )
        truth_paths = {original.id: original.path for original in originals}
        rows = {TRUTH: judge(truth_paths, folder / "ground_truth")}
        sources = tokenizer_names(config.audio_tokenizers) if audio_tokenizers is None else audio_tokenizers
        for name, source in sources.items():
            audio_tokenizer = _load(source, device) if isinstance(source, str) else source
            row_folder = folder / name
            identity = _identity(audio_tokenizer, config)
            check_identity(row_folder, identity)
            paths, failures = _reconstruct_all(
                config, audio_tokenizer, originals, row_folder / "wavs", identity["speaker_encoder"], device
            )
            row = judge(paths, row_folder)
            rows[name] = row | {"tokenizer": identity, "bitrate_bps": identity["bitrate_bps"], "failures": failures}
        result = {
            "benchmark": "reconstruction",
            "data": {"file": Path(config.data).name, "sha256": open_manifest(config.data).fingerprint},
            "n_items": len(originals),
            "judges": judges.names,
            "rows": rows,
            "config": recorded_config(config, device=device),
        }
        write_figures(result, str(folder / RESULT_NAME))
        return result


def _load(source: str, device: str) -> AudioTokenizer:
    """An audio tokenizer of any kind, with what turns its codes into sound.

    Raises:
        ValueError: there is none, or it cannot decode.
    """
    name = audio_tokenizer_or_mini(source)
    is_uniaudio = kind_of(find_tokenizer_folder(name)).name in UNIAUDIO_KINDS  # whose decoder comes along in any case
    audio_tokenizer = AudioTokenizer.from_pretrained(name, encoder_only=is_uniaudio, device=device)
    if not audio_tokenizer.can_decode:
        raise ValueError(f"audio_tokenizers: {source} has no decoder, so nothing can be reconstructed: leave it out")
    return audio_tokenizer


def _identity(audio_tokenizer: Any, config: ReconstructionConfig) -> dict[str, Any]:
    """What decides the sound, and how many bits it takes."""
    encoder = None
    size = getattr(getattr(audio_tokenizer, "decoder", None), "speaker_size", None)
    if config.voice == "speaker" or (config.voice == "auto" and size is not None):
        fits = load_speaker_encoder(config.speaker_encoder).embedding_size == size
        encoder = config.speaker_encoder if fits or config.voice == "speaker" else None
    has_latents = audio_tokenizer.latent_size is not None
    return {
        "kind": type(audio_tokenizer).__name__,
        "fingerprint": audio_tokenizer.fingerprint(),
        "decoder_fingerprint": decoder_fingerprint(audio_tokenizer),
        # Latents are numbers, of which nobody said how many bits they are kept in.
        "bitrate_bps": None if has_latents else audio_tokenizer.bits_per_second,
        "frame_rate": audio_tokenizer.frame_rate if len(audio_tokenizer.code_groups) < 2 else None,
        "num_codebooks": audio_tokenizer.num_codebooks,
        "codebook_size": audio_tokenizer.codebook_size,
        **({"latent_size": audio_tokenizer.latent_size} if has_latents else {}),
        "speaker_encoder": encoder,
        "steps": config.steps,
        "seed": config.seed,
    }


def _write_originals(config: ReconstructionConfig, folder: Path) -> list[Original]:
    """The recordings as files of one channel, so that all rows are judged from files."""
    manifest = open_manifest(config.data)
    identity = {"data_sha256": manifest.fingerprint, "split": config.split}
    # Not of the first channel, which a folder that says nothing holds.
    chosen = {} if config.mono == "first" else {"mono": config.mono}
    check_identity(folder / "ground_truth", identity | chosen)
    originals: list[Original] = []
    for number, record in enumerate(itertools.islice(spoken_records(manifest, config.split), config.limit)):
        path = folder / "ground_truth" / "wavs" / f"{number:06d}.wav"
        waveform, sample_rate = record.audio.load(mono=config.mono)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_audio(path, waveform, sample_rate)
        originals.append(Original(f"{number:06d}", str(path), record.text))
    if not originals:
        raise ValueError(f"{config.data} holds no recordings" + (f" of split {config.split!r}" if config.split else ""))
    return originals


def _reconstruct_all(
    config: ReconstructionConfig,
    audio_tokenizer: AudioTokenizer,
    originals: Sequence[Original],
    folder: Path,
    encoder_name: str | None,
    device: str,
) -> tuple[dict[str, str], dict[str, str]]:
    """Makes what is not there yet; returns the paths, and the error of each recording that cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    speaker: SpeakerEncoder | None = None if encoder_name is None else load_speaker_encoder(encoder_name, device)
    failures = {}
    for original in originals:
        path = folder / f"{original.id}.wav"
        if path.is_file():
            continue
        try:
            reconstruct(original.path, path, audio_tokenizer, speaker, steps=config.steps, seed=config.seed)
        except (AudioError, RuntimeError) as error:
            failures[original.id] = f"{type(error).__name__}: {error}"
    return {original.id: str(folder / f"{original.id}.wav") for original in originals}, failures


def run(config: ReconstructionConfig) -> None:
    """What recordings keep when they go through the codes of audio tokenizers, beside the recordings themselves."""
    result = measure(config)
    if config.json:
        print_json(result | {"rows": {name: without_recordings(row) for name, row in result["rows"].items()}})
    else:
        show_speech_table(result["rows"], result["judges"])


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="reconstruction")
