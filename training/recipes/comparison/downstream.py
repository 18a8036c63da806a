"""The same LLM on every tokenizer of a study: trained with the same data, updates and seeds, and scored.

Each step is a process that a user could start as well: ``training/sft.py``, which extends the LLM by the tokenizer's
codes, then the benchmarks. A step that was killed goes on from its last checkpoint; a run that is scored is a cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import psutil

from audiollm.benchmarks.codes.features import NO_CODES, REASON
from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.benchmarks.comparison.entries import checkpoint_of
from audiollm.benchmarks.comparison.measures import NO_DECODER, SEVERAL_RATES
from audiollm.benchmarks.comparison.running import TokenizerFacts
from audiollm.benchmarks.comparison.study import (
    SAMPLE,
    SMALL,
    DownstreamSettings,
    PartSettings,
    SpeechSettings,
    Study,
    UnderstandingSettings,
)
from audiollm.benchmarks.harness.identity import RESULT_NAME
from audiollm.benchmarks.leaderboard.question_rows import question_figures
from audiollm.benchmarks.models.revisions import folder_revision
from audiollm.benchmarks.questions.data import load_questions
from audiollm.benchmarks.questions.grading.scoring import score_loaded
from audiollm.benchmarks.questions.predictions import open_predictions
from audiollm.benchmarks.questions.registry import BENCHMARKS
from audiollm.data.files.hashing import file_sha256
from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import check_same_run, read_json_lines
from audiollm.data.manifest import open_manifest
from audiollm.program import ProgramError
from audiollm.prompts import prompts
from audiollm.training.audio_llm.small_llm import SmallLLMConfig, small_llm, small_text_tokenizer
from audiollm.training.loop.config import MODEL_FOLDER
from audiollm.training.loop.record import METRICS_NAME, read_metrics
from audiollm.training.recipes.launching import run_logged

from .sample_data import with_sample_questions, with_sample_speech

TRAINED_FOLDER, DATA_FOLDER, LLM_FOLDER = "trained", "data", "llm"
QUESTION_SETS = ("mmau", "mmar", "mmsu")
QUESTION_MODE: Final = "strict"  # what is missing or unreadable counts as wrong: no tokenizer gains by saying nothing
NO_CHECKPOINT = "is a floor without a checkpoint: no LLM is extended by it"
NOT_ASKED = "is not among downstream.tokenizers"
NO_LIMIT = str(10**9)
"""Of questions in a row without a reply: a model that says nothing has learnt nothing, which is a figure, too."""
_PAUSE_SECONDS = 0.5
_MOST_TEXTS = 20_000  # of the training data, that the text tokenizer of a small LLM is made of


@dataclass(frozen=True)
class _Training:
    """One LLM to be trained and scored."""

    tokenizer: str
    part: str
    seed: int

    @property
    def cell(self) -> Cell:
        return Cell(self.tokenizer, self.part, f"seed{self.seed}")


def train_downstream(
    study: Study,
    folder: Path,
    tokenizers: Mapping[str, TokenizerFacts],
    tell: Callable[[str], None],
) -> dict[Cell, dict[str, Any]]:
    """Trains and scores what is missing, all tokenizers with the first seed before any with the second.

    Args:
        study: with a downstream part.
        folder: of the run, which the caller holds.
        tokenizers: what is known of them.
        tell: hears of progress.

    Returns:
        Figures of each training.

    Raises:
        ValueError: a run was begun with other settings.
        ProgramError: a step failed; what it said is in its log.
    """
    settings = study.downstream
    assert settings is not None
    parts = {name: _with_data(one, folder / DATA_FOLDER) for name, one in settings.parts}
    cells = Cells(folder)
    figures: dict[Cell, dict[str, Any]] = {}
    trainings = [
        _Training(tokenizer, part, seed) for seed in settings.seeds for part in parts for tokenizer in study.tokenizers
    ]
    llms = {seed: _llm(settings, parts, folder, seed) for seed in settings.seeds}
    waiting = []
    for one in trainings:
        reason = _reason_against(one, study, settings, tokenizers)
        if reason is not None:
            figures[one.cell] = {REASON: reason}
            continue
        identity = _identity(one, settings, parts[one.part], tokenizers[one.tokenizer], llms[one.seed])
        found = cells.figures(one.cell, identity)
        if found is None:
            waiting.append((one, identity))
        else:
            figures[one.cell] = found
    for one, identity in waiting:
        started = time.perf_counter()
        run = _Run(one, parts[one.part], folder, study, tell)
        figures[one.cell] = cells.written(one.cell, identity, run.trained_and_scored(llms[one.seed], identity))
        run.clean_up(settings.keep_models)
        tell(f"{one.tokenizer}: {one.part}, seed {one.seed} ({time.perf_counter() - started:.0f} s)")
    return figures


def _with_data(settings: PartSettings, folder: Path) -> PartSettings:
    if settings.train_data != SAMPLE:
        return settings
    if isinstance(settings, UnderstandingSettings):
        return with_sample_questions(settings, folder)
    return with_sample_speech(settings, folder)


def _reason_against(
    one: _Training, study: Study, settings: DownstreamSettings, tokenizers: Mapping[str, TokenizerFacts]
) -> str | None:
    if checkpoint_of(one.tokenizer, study.tokenizers[one.tokenizer], Path()) is None:
        return NO_CHECKPOINT
    facts = tokenizers[one.tokenizer].facts
    if not facts["codebook_sizes"] or facts["frame_rate"] is None:
        return SEVERAL_RATES if facts["codebook_sizes"] else NO_CODES
    if settings.tokenizers and one.tokenizer not in settings.tokenizers:
        return NOT_ASKED
    return NO_DECODER if one.part == "speech" and not facts["can_decode"] else None


def _identity(
    one: _Training, settings: DownstreamSettings, part: PartSettings, tokenizer: TokenizerFacts, llm: str
) -> dict[str, Any]:
    """What decides the figures: contents of data and models, not where they lie."""
    paths = ("train_data", "eval_data", "meta", *QUESTION_SETS)
    told = asdict(part)
    data = {name: _sha256(told[name]) for name in paths if told.get(name) is not None}
    return {
        "tokenizer": tokenizer.fingerprint,
        **({"sound": tokenizer.sound} if one.part == "speech" else {}),
        "llm": asdict(SmallLLMConfig()) if settings.llm == SMALL else folder_revision(llm) or llm,
        "seed": one.seed,
        "data": data,
        "settings": {name: value for name, value in told.items() if name not in paths},
    }


def _sha256(path: str) -> str:
    place = Path(path)
    if place.is_dir():  # a set of questions
        return hashlib.sha256("".join(map(file_sha256, sorted(place.glob("*.json*")))).encode()).hexdigest()
    return file_sha256(place) if place.suffix == ".lst" else open_manifest(path).fingerprint


def _llm(settings: DownstreamSettings, parts: Mapping[str, PartSettings], folder: Path, seed: int) -> str:
    """The LLM that is extended: the same for all tokenizers of a seed."""
    if settings.llm != SMALL:
        return settings.llm
    target = folder / LLM_FOLDER / f"seed{seed}"
    if not (target / "config.json").is_file():
        sizes = SmallLLMConfig()
        text_tokenizer = small_text_tokenizer(_texts([one.train_data for one in parts.values()]), sizes)
        text_tokenizer.save_pretrained(target)
        small_llm(text_tokenizer, sizes, seed).save_pretrained(target)
    return str(target)


def _texts(sources: Sequence[str]) -> list[str]:
    """What is written in conversations, and the wordings of requests."""
    texts = []
    for source in sources:
        for record in read_json_lines(source):
            for message in record["messages"]:
                content = message["content"]
                parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
                texts += [part["text"] for part in parts if part.get("type") == "text"]
            if len(texts) >= _MOST_TEXTS:
                break
    return [*texts, *(prompt.text for prompt in prompts("transcribe"))]


def answered_figures(name: str, data: str, replies: Path) -> dict[str, Any]:
    """Percentages in the columns of the papers; what has no reply, or none that can be read, is wrong."""
    predictions = open_predictions(str(replies)).read()
    if not list(predictions.records):  # a model that says nothing is no error here: it has learnt nothing
        return {"all": 0.0, "n": len(predictions.failed), "unanswered": len(predictions.failed)}
    benchmark = BENCHMARKS[name]
    content = score_loaded(benchmark, load_questions(benchmark, data), predictions, QUESTION_MODE)
    chance = (content.get("baselines") or {}).get("random")
    counts = {"n": content["n_items"], "unanswered": content["n_missing"]}
    return {**question_figures(content), **counts, "chance": None if chance is None else 100 * chance}


class _Run:
    """One training and its scores, in a folder of its own."""

    def __init__(
        self, one: _Training, part: PartSettings, folder: Path, study: Study, tell: Callable[[str], None]
    ) -> None:
        self._one, self._part, self._study, self._tell = one, part, study, tell
        self._folder = folder / TRAINED_FOLDER / one.tokenizer / one.part / f"seed{one.seed}"
        path = checkpoint_of(one.tokenizer, study.tokenizers[one.tokenizer], folder)
        assert path is not None
        self._audio_tokenizer = path

    @property
    def _model(self) -> Path:
        return self._folder / "sft" / MODEL_FOLDER

    def trained_and_scored(self, llm: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Loss, scores and cost.

        Raises:
            ValueError: the folder holds a training that was begun from something else, naming what.
            ProgramError: a step failed.
        """
        otherwise = f"write the settings back, or delete {self._folder} to train anew"
        check_same_run(self._folder / "run.json", identity, output=self._folder, otherwise=otherwise)
        complete = self._folder / "training.json"
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            if not complete.is_file():
                write_json(complete, self._trained(llm, log))
            training = json.loads(complete.read_text(encoding="utf-8"))
            started = time.perf_counter()
            score = self._spoken if isinstance(self._part, SpeechSettings) else self._answered
            scores = score(log)
        return training | scores | {"scoring_seconds": time.perf_counter() - started}

    def clean_up(self, keep_models: bool) -> None:
        """Removes what is large and can be had again."""
        shutil.rmtree(self._folder / "sft" / "checkpoints", ignore_errors=True)
        if not keep_models:
            for name in (MODEL_FOLDER, "extended"):
                shutil.rmtree(self._folder / "sft" / name, ignore_errors=True)

    def _trained(self, llm: str, log: TextIO) -> dict[str, Any]:
        part, run = self._part, self._folder / "sft"
        settings = {
            "save_every": max(1, part.max_steps // 4),
            **(part.settings or {}),
            "model": llm,
            "audio_tokenizer": self._audio_tokenizer,
            "train_data": part.train_data,
            **({} if part.eval_data is None else {"eval_data": part.eval_data}),
            "max_steps": part.max_steps,
            "seed": self._one.seed,
            "output_dir": str(run),
            "resume": "latest",
        }
        write_json(self._folder / "sft.json", settings)
        self._run(["-m", "audiollm.training.sft", "--config", str(self._folder / "sft.json")], log)
        lines = read_metrics(run / METRICS_NAME)
        updates = [line for line in lines if line["event"] == "train"]
        evaluations = [line for line in lines if line["event"] == "eval"]
        figures = {
            "loss": evaluations[-1]["loss"] if evaluations else None,
            "train_loss": statistics.fmean(line["loss"] for line in updates[-20:]),
            "num_updates": len(updates),
            "train_seconds": sum(line["seconds"] for line in updates),
            "train_tokens": sum(line["tokens"] for line in updates),
        }
        if not self._model.exists():
            raise ProgramError(f"the training of {run} left no model; its log is {log.name}")
        return figures

    def _answered(self, log: TextIO) -> dict[str, Any]:
        part = self._part
        assert isinstance(part, UnderstandingSettings)
        figures = {}
        for name in QUESTION_SETS:
            data = getattr(part, name)
            if data is None:
                continue
            output = self._folder / name
            command = ["-m", f"audiollm.benchmarks.{name}", "predict", "--model", str(self._model), "--data", data]
            command += ["--output-dir", str(output), "--max-failures", NO_LIMIT]
            command += [] if part.prompt is None else ["--prompt", part.prompt]
            command += [] if part.limit is None else ["--limit", str(part.limit)]
            self._run(command, log)
            figures[name] = answered_figures(name, data, output / "predictions.jsonl")
        return figures

    def _spoken(self, log: TextIO) -> dict[str, Any]:
        part = self._part
        assert isinstance(part, SpeechSettings)
        if part.meta is None:
            return {}
        output = self._folder / "seed-tts"
        command = ["-m", "audiollm.benchmarks.seed_tts", "run", "--model", str(self._model), "--meta", part.meta]
        command += ["--language", part.language, "--output-dir", str(output), "--max-seconds", str(part.max_seconds)]
        command += ["--asr", part.asr, "--similarity", part.similarity, "--mos", part.mos]
        command += [] if part.limit is None else ["--limit", str(part.limit)]
        self._run(command, log)
        content = json.loads((output / RESULT_NAME).read_text(encoding="utf-8"))
        summary = content["summary"]
        means = {name: summary[name]["mean"] for name in ("wer", "wer_missing_as_wrong", "similarity", "mos")}
        return {
            "tts": means | {"n": content["n_items"], "missing": summary["num_missing"]},
            "judges": content["judges"],
        }

    def _run(self, command: Sequence[str], log: TextIO) -> None:
        self._wait_for_the_same(command)
        try:
            run_logged(command, self._study.num_threads, log)
        except subprocess.CalledProcessError as error:
            raise ProgramError(
                f"{self._one.tokenizer}, {self._one.part}, seed {self._one.seed}: `{' '.join(command)}` failed with "
                f"exit status {error.returncode}; its message is at the end of {log.name}"
            ) from error

    def _wait_for_the_same(self, command: Sequence[str]) -> None:
        """Lets a step end that a killed call of this study has left behind, so that its work is not lost."""
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] != [sys.executable, *command]:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                self._tell(
                    f"{self._one.tokenizer}: an earlier call has left process {process.pid} at work; waiting for it"
                )
                # Not wait(): where nobody reaps it, a process that has ended is there for ever.
                while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(_PAUSE_SECONDS)
