"""Multi-stream LMs around the same text LLM, on different codes and through different stages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.cells import Cell, Cells
from audiollm.mini import MINI
from audiollm.program import ProgramError
from audiollm.training.recipes.comparison.downstream import NO_LIMIT, answered_figures
from audiollm.training.recipes.kept_trainings import KeptTrainings, last_evaluation
from audiollm.training.recipes.launching import run_logged
from audiollm.training.uniaudio.stages import StageName

from .codecs import WITH_FILM, WITHOUT_FILM, Codecs
from .data import BENCHMARK, HELD_OUT, TRAIN, ClipData

BOTH = "reasoning and reconstruction"
REASONING = "reasoning"
RECONSTRUCTION = "reconstruction"
RECONSTRUCTION_ALONE = "reconstruction, without FiLM"
UNIAUDIO_TOKEN = "UniAudio-Token mini"
CODES = (UNIAUDIO_TOKEN, BOTH, REASONING, RECONSTRUCTION, RECONSTRUCTION_ALONE)
"""What LMs hear and speak by."""
SENTENCES, MORE_OF_THE_SAME = "with the last stage", "without it"
ENDS = (SENTENCES, MORE_OF_THE_SAME)
SCRIPT = "train_uniaudio.py"
ZERO_SHOT = 0


@dataclass(frozen=True, kw_only=True)
class LMSettings:
    """Budget of the LMs; all else is in ``training/configs/uniaudio_small_*.yaml``."""

    text_llm: str = MINI
    """Around which all are built."""

    understanding_steps: int = 120
    """Updates of the first stage: questions about recordings."""

    generation_steps: int = 60
    """Of the second: sounds from texts."""

    pretraining_steps: int = 60
    """Of the third: both."""

    last_steps: int = 60
    """Of the last one, auditory sentences; and of its stand-in, more of the third."""

    shots: int = 4
    """Worked examples before a question."""

    flags: tuple[str, ...] = ()
    """Further flags of all trainings."""


class LanguageModels:
    """The trainings of LMs and their scores; each is made when it is first asked for.

    Args:
        data: to learn from.
        codecs: whose codes.
        settings: budget.
        trainings: keeps what is complete.
        num_threads: CPU threads of a scoring; None: all.
    """

    def __init__(
        self, data: ClipData, codecs: Codecs, settings: LMSettings, trainings: KeptTrainings, num_threads: int | None
    ) -> None:
        self._data, self._codecs, self._settings, self._trainings = data, codecs, settings, trainings
        self._num_threads = num_threads
        self._folder = trainings.folder / "language_models"
        self._cells = Cells(trainings.folder)

    def of_codes(self, codes: str, seed: int) -> dict[str, Any]:
        """Two warm-ups on one kind of codes.

        Returns:
            ``understanding`` and ``generation``, figures of their last evaluations, and ``answers`` to held-out
            questions.
        """
        cell = Cell("language_models", _plain(codes), f"seed{seed}")
        return self._cells.computed(cell, self._identity | {"codes": codes}, lambda: self._of_codes(codes, seed))

    def ending(self, ending: str, seed: int) -> dict[str, Any]:
        """Both warm-ups and pre-training on both groups of codes, and then the last stage, or more of the third.

        Returns:
            ``sentences``, figures of the last evaluation, on held-out auditory sentences, and ``answers`` without and
            with worked examples.
        """
        cell = Cell("endings", _plain(ending), f"seed{seed}")
        return self._cells.computed(cell, self._identity | {"ending": ending}, lambda: self._ending(ending, seed))

    @property
    def _identity(self) -> dict[str, Any]:
        return self._codecs.identity | {"language_models": asdict(self._settings)}

    def _of_codes(self, codes: str, seed: int) -> dict[str, Any]:
        understanding, generation = self._warmed_up(codes, seed)
        return {
            "understanding": last_evaluation(understanding),
            "generation": last_evaluation(generation),
            "answers": self._answers(generation, ZERO_SHOT),
        }

    def _ending(self, ending: str, seed: int) -> dict[str, Any]:
        settings, data = self._settings, self._data
        _, before = self._warmed_up(BOTH, seed)
        third = self._stage(
            "pretraining", "pretraining", BOTH, seed, settings.pretraining_steps, before, data.mixed, data.questions
        )
        stage: StageName = "midtraining" if ending == SENTENCES else "pretraining"
        train = data.sentences(TRAIN) if ending == SENTENCES else data.mixed
        # Both are judged on held-out sentences.
        run = self._stage(ending, stage, BOTH, seed, settings.last_steps, third, train, data.sentences)
        return {
            "sentences": last_evaluation(run),
            "answers": {str(shots): self._answers(run, shots) for shots in (ZERO_SHOT, settings.shots)},
        }

    def _warmed_up(self, codes: str, seed: int) -> tuple[Path, Path]:
        settings, data = self._settings, self._data
        first = self._stage(
            "understanding",
            "understanding_warmup",
            codes,
            seed,
            settings.understanding_steps,
            None,
            data.questions(TRAIN),
            data.questions,
        )
        second = self._stage(
            "generation",
            "generation_warmup",
            codes,
            seed,
            settings.generation_steps,
            first,
            data.pairs(TRAIN),
            data.pairs,
        )
        return first, second

    def _stage(
        self,
        name: str,
        stage: StageName,
        codes: str,
        seed: int,
        steps: int,
        before: Path | None,
        train: Path,
        held_out: Callable[[str], Path],
    ) -> Path:
        def flags() -> list[str]:
            given = ["--model", self._settings.text_llm, "--audio_tokenizer", str(self._tokenizer(codes, seed))]
            start = given if before is None else ["--model", str(before)]
            data = ["--train_data", str(train), "--eval_data", str(held_out(HELD_OUT)), "--seed", str(seed)]
            return [*start, *data, "--max_steps", str(steps), "--eval_every", str(steps), *self._settings.flags]

        run = self._folder / f"{_plain(codes)}-seed{seed}" / _plain(name)
        cell = Cell("trained", f"{_plain(codes)}-{_plain(name)}", f"seed{seed}")
        identity = self._identity | {"codes": codes}
        return self._trainings.once(cell, identity, run, SCRIPT, f"uniaudio_small_{stage}.yaml", flags)

    def _tokenizer(self, codes: str, seed: int) -> str | Path:
        if codes == UNIAUDIO_TOKEN:
            return MINI
        film = WITHOUT_FILM if codes == RECONSTRUCTION_ALONE else WITH_FILM
        if codes == BOTH:
            return self._codecs.reasoning_codec(film, seed)
        return self._codecs.group(film, seed, REASONING if codes == REASONING else RECONSTRUCTION)

    def _answers(self, run: Path, shots: int) -> dict[str, Any]:
        """How many held-out questions a model answers rightly, in percent; without a readable answer it is wrong."""
        output = run / f"{BENCHMARK}-{shots}"
        data = str(self._data.question_set(HELD_OUT))
        command = ["-m", f"audiollm.benchmarks.{BENCHMARK}", "predict", "--model", str(run), "--data", data]
        command += ["--output-dir", str(output), "--max-new-tokens", "32", "--max-failures", NO_LIMIT]
        if shots:
            command += ["--shots", str(shots), "--shots-data", str(self._data.question_set(TRAIN))]
        self._score(command, run.parent / f"{output.name}.log")
        return answered_figures(BENCHMARK, data, output / "predictions.jsonl")

    def _score(self, command: Sequence[str], log: Path) -> None:
        try:
            with log.open("a", encoding="utf-8") as file:
                run_logged(command, self._num_threads, file)
        except subprocess.CalledProcessError as error:
            raise ProgramError(
                f"`{' '.join(command)}` failed with exit status {error.returncode}; why is at the end of {log}"
            ) from error


def _plain(name: str) -> str:
    """A name as a folder has it."""
    return name.lower().replace(",", "").replace(" ", "-").replace("(", "").replace(")", "")
