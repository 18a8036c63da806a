"""Transcription: how many words of recordings an Audio-LLM writes down wrong, beside a recognizer on the same ones.

Example::

    python benchmarks/transcription.py --model runs/first/model --data test.jsonl --output-dir results/test
"""
# Shapes: N samples.

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from audiollm.benchmarks.harness.actions import Actions, run_action
from audiollm.benchmarks.harness.figures import print_json, recorded_config, write_figures
from audiollm.benchmarks.harness.identity import RESULT_NAME, check_identity, file_identity
from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair
from audiollm.benchmarks.models.revisions import audio_llm_revision
from audiollm.benchmarks.speech.judges.judging import NONE
from audiollm.benchmarks.speech.judges.recognizers import SpeechRecognizer, load_recognizer, recognizer_for
from audiollm.benchmarks.speech.spoken_records import spoken_records
from audiollm.benchmarks.speech.words import corpus_errors
from audiollm.data.audio.channels import Mono
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.files.lock import locked_folder
from audiollm.data.manifest import Manifest, RecordError, open_manifest
from audiollm.data.resumable_output import PartialOutput
from audiollm.environment import find_device
from audiollm.modeling import AudioLLM
from audiollm.sources.places import find_source
from audiollm.tables import print_table
from audiollm.transcription.transcribing import BATCH_SIZE, Transcriber, check_settings

TRANSCRIPTS_NAME = "transcripts.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TranscriptionConfig:
    """One Audio-LLM on one set of recordings."""

    model: str
    """Audio-LLM folder, Hub id or mini."""
    data: str
    """Recordings with what is said in them: records with audio and text, or conversations of the task transcribe."""
    output_dir: str
    """Folder for transcripts and result.json. A run that was stopped goes on."""
    split: str | None = None
    """Only records whose split is this."""
    limit: int | None = None
    """Only the first so many."""
    language: str = "en"
    """Of the speech; decides how texts are normalized, and whether words or characters are counted."""
    prompt: str | None = None
    """Ask this instead of the standard transcription instruction."""
    max_new_tokens: int = 256
    """Longest answer about a piece of a recording, in tokens."""
    longest_seconds: float | None = None
    """Longer recordings are cut at their pauses; 28, or what the model's context holds, if not given."""
    batch_size: int = BATCH_SIZE
    """How many pieces the model gets together."""
    asr: str | None = None
    """Recognizer beside it: whisper-tiny.en, whisper-base, whisper-large-v3, paraformer-zh, a folder, Hub id,
    http://…/v1#model, or none. A small one of the language if not given."""
    mono: Mono = "first"
    """Which channel is heard: the first one, or the mean of all."""
    dtype: str = "auto"
    """Precision of the LLM: float32, bfloat16, float16, or auto, as it is stored."""
    device: str | None = None
    """Torch device; the first GPU when there is one."""
    json: bool = False
    """Print the result without single recordings as JSON."""

    def __post_init__(self) -> None:
        check_settings(
            longest_seconds=self.longest_seconds,
            pauses="level",
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
        )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: use 1 or more")
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype={self.dtype}: use auto, float32, bfloat16 or float16")


@dataclass(frozen=True)
class SpokenClip:
    """A recording, and what is said in it.

    Attributes:
        id: the record's own, or its number.
        text: what is said.
        waveform: reads it: float ``[N]`` and its rate in Hz.
    """

    id: str
    text: str
    waveform: Callable[[], tuple[Tensor, int]]


@dataclass
class _Kept:
    """What an earlier run has written down."""

    resumed: int = 0
    lines: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, record: Any) -> None:
        self.lines.append(record)

    def reject(self, entry: Mapping[str, Any]) -> None:
        raise AssertionError("no recording is left out")


def measure(
    config: TranscriptionConfig, model: AudioLLM | None = None, recognizer: SpeechRecognizer | None = None
) -> dict[str, Any]:
    """Runs the benchmark.

    Args:
        config: what to run.
        model: in place of that of ``config``.
        recognizer: in place of that of ``config``.

    Returns:
        The result, which is in ``result.json`` too.

    Raises:
        ValueError: the folder holds another run, another process is at work on it, or a setting does not fit the model.
        RecordError: no record has both a recording and a text.
        AudioError: a recording cannot be used.
        OSError: a model cannot be had.
    """
    folder, device = Path(config.output_dir), find_device(config.device)
    manifest = open_manifest(config.data)
    clips, num_without_text = spoken_clips(manifest, config)
    data = {"data_sha256": manifest.fingerprint, **{name: getattr(config, name) for name in ("split", "limit", "mono")}}
    with locked_folder(folder):
        model = model or AudioLLM.from_pretrained(config.model, device=device, dtype=config.dtype)
        identity = data | _model_identity(model, config)
        rows = {config.model: _row(clips, folder / "model", identity, _by_model(model, config), config)}
        name = None if config.asr == NONE else recognizer_for(config.language, config.asr)
        if name is not None:
            recognizer = recognizer or load_recognizer(name, language=config.language, device=device)
            identity = data | {"asr": name, "language": config.language}
            rows[name] = _row(clips, folder / "recognizer", identity, _by_recognizer(recognizer), config)
        result = {
            "benchmark": "transcription",
            "data": {"file": Path(config.data).name, "sha256": manifest.fingerprint},
            "n_items": len(clips),
            "num_without_text": num_without_text,
            "language": config.language,
            "rows": rows,
            "config": recorded_config(config, device=device),
        }
        write_figures(result, str(folder / RESULT_NAME))
    return result


def spoken_clips(manifest: Manifest, config: TranscriptionConfig) -> tuple[list[SpokenClip], int]:
    """The recordings that a config chooses, and how many records it leaves out that have no text.

    Raises:
        RecordError: a record has no recording, two have one id, or none has a text.
    """
    clips: dict[str, SpokenClip] = {}
    num_without_text = 0
    for record in spoken_records(manifest, config.split):
        if record.text is None:
            num_without_text += 1
            continue
        if record.id in clips:
            raise RecordError(record.where, f"its id {record.id!r} is that of an earlier record: give each its own")
        clips[record.id] = SpokenClip(record.id, record.text, partial(record.audio.load, mono=config.mono))
        if len(clips) == config.limit:
            break
    if not clips:
        of_split = f" of split {config.split!r}" if config.split else ""
        raise RecordError(manifest.name, f"holds no recordings{of_split} with what is said in them (`text`)")
    if num_without_text:
        logger.warning("%s: %d records without text are left out", manifest.name, num_without_text)
    return list(clips.values()), num_without_text


def _model_identity(model: AudioLLM, config: TranscriptionConfig) -> dict[str, Any]:
    return {
        "model": audio_llm_revision(find_source(config.model), model.model.config),
        "tokenizer": model.processor.audio_tokenizer.fingerprint(),
        "dtype": str(model.model.dtype).removeprefix("torch."),
        **{name: getattr(config, name) for name in ("prompt", "max_new_tokens", "longest_seconds")},
    }


Transcripts = Iterator[tuple[str, str]]
"""What is heard in each recording, and why the text ended: "stop", "length" or "silent"."""


def _by_model(model: AudioLLM, config: TranscriptionConfig) -> Callable[[Sequence[SpokenClip]], Transcripts]:
    transcriber = Transcriber(
        model,
        prompt=config.prompt,
        longest_seconds=config.longest_seconds,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
    )

    def transcribe(clips: Sequence[SpokenClip]) -> Transcripts:
        for transcript in transcriber.transcripts(clip.waveform() for clip in clips):
            yield transcript.text, transcript.finish_reason

    return transcribe


def _by_recognizer(recognizer: SpeechRecognizer) -> Callable[[Sequence[SpokenClip]], Transcripts]:
    def transcribe(clips: Sequence[SpokenClip]) -> Transcripts:
        for clip in clips:
            waveform, sample_rate = clip.waveform()
            yield recognizer.transcribe([waveform], sample_rate)[0], "stop"

    return transcribe


def _row(
    clips: Sequence[SpokenClip],
    folder: Path,
    identity: Mapping[str, Any],
    transcribe: Callable[[Sequence[SpokenClip]], Transcripts],
    config: TranscriptionConfig,
) -> dict[str, Any]:
    """Writes down what is not written down yet, and scores all of it."""
    check_identity(folder, identity)
    path = folder / TRANSCRIPTS_NAME
    if not path.is_file():
        with PartialOutput(path, {"clips": str(len(clips))}) as partial:
            left = clips[partial.resume(0, _Kept()).resumed :]
            num_done = len(clips) - len(left)
            heard = zip(left, transcribe(left), strict=True)
            for clip, (text, reason) in tqdm(
                heard, folder.name, len(clips), initial=num_done, unit="recording", disable=None
            ):
                line = {"id": clip.id, "hypothesis": text, "reference": clip.text, "finish_reason": reason}
                partial.append(line)
            partial.finish()
    return _figures(list(read_json_lines(path)), config.language) | {
        "predictions": file_identity(path, config.output_dir)
    }


def _figures(lines: Iterable[Mapping[str, Any]], language: str) -> dict[str, Any]:
    lines = list(lines)
    pairs = [TextPair(line["id"], line["hypothesis"], line["reference"]) for line in lines]
    items = [asdict(pair) | {"wer": corpus_errors([pair], language)["wer"]} for pair in pairs]
    rates = [item["wer"] for item in items if item["wer"] is not None]
    return corpus_errors(pairs, language) | {
        "n_items": len(pairs),
        "wer_mean_of_clips": sum(rates) / len(rates) if rates else None,
        **{
            name: [line["id"] for line in lines if line["finish_reason"] == reason]
            for name, reason in (("cut", "length"), ("silent", "silent"))
        },
        "items": items,
    }


def show_table(result: Mapping[str, Any]) -> None:
    """Shows a row for the model and one for the recognizer."""
    table = Table()
    for heading in ("", "WER ↓", "words", "substituted", "deleted", "inserted", "recordings", "cut", "nothing heard"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in result["rows"].items():
        counts = ("num_reference_words", "substitutions", "deletions", "insertions", "n_items")
        table.add_row(
            name,
            "–" if row["wer"] is None else f"{row['wer']:.2%}",
            *(f"{row[count]:,}" for count in counts),
            *(str(len(row[name])) for name in ("cut", "silent")),
        )
    print_table(table)


def run(config: TranscriptionConfig) -> None:
    """Word error rate of what a model writes down of recordings, beside a recognizer."""
    result = measure(config)
    if config.json:
        rows = {name: {key: row[key] for key in row if key != "items"} for name, row in result["rows"].items()}
        print_json(result | {"rows": rows})
    else:
        show_table(result)
    for name, row in result["rows"].items():
        if row["cut"]:
            cut = f"{len(row['cut'])} of {row['n_items']} texts were cut at {config.max_new_tokens} tokens"
            logger.warning("%s: %s: give a larger --max-new-tokens for whole ones", name, cut)


ACTIONS: Actions = {"run": run}

if __name__ == "__main__":
    run_action(ACTIONS, name="transcription")
