"""A study's measures, cell by cell: what is there is kept, what is missing computed, what is different refused."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from audiollm.benchmarks.codes.features import REASON
from audiollm.benchmarks.harness.processes import launched_processes
from audiollm.benchmarks.speech.judges.judging import SpeechJudges
from audiollm.benchmarks.speech.kept import Original
from audiollm.benchmarks.speed.timing import set_threads
from audiollm.data.files.json_document import write_json
from audiollm.data.files.lock import held_run_folder, holds_nothing
from audiollm.environment import find_device
from audiollm.facts import finite
from audiollm.tokenizer.base import AudioTokenizer

from .cells import Cell, Cells
from .entries import facts_of, open_entry
from .measures import (
    PLAIN,
    load_judges,
    original_figures,
    reconstruction_figures,
    settings_identity,
    sound_identity,
    why_none,
    write_originals,
)
from .race import machine_identity, race
from .recordings import Recordings, read_recordings
from .study import ORIGINAL, MeasureSettings, ReconstructionSettings, SpeedSettings, Study

STUDY_NAME = "study.json"
EVERYBODY = "all"
"""Stands for all tokenizers in the name of a cell that is about them together."""
FACTS, SPEED, RECONSTRUCTION = "facts", "speed", "reconstruction"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizerFacts:
    """What is known of a tokenizer of the study.

    Attributes:
        fingerprint: of its codes.
        sound: of what decodes them; None if nothing does.
        facts: see `facts_of`.
    """

    fingerprint: str
    sound: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class MeasuredStudy:
    """A study and its cells.

    Attributes:
        study: as it was read.
        folder: of the run.
        tokenizers: by name.
        figures: of every cell.
        num_computed: cells that were not there before this call.
        machine: that the last figures of speed are of; None if none were asked for.
    """

    study: Study
    folder: Path
    tokenizers: Mapping[str, TokenizerFacts]
    figures: Mapping[Cell, Mapping[str, Any]]
    num_computed: int
    machine: Mapping[str, Any] | None


@contextmanager
def held_study_folder(folder: Path) -> Iterator[None]:
    """Holds the folder of a study, which must be empty or that of a study.

    Raises:
        ValueError: it holds something else, or another process is at work in it.
    """
    if launched_processes().world_size > 1:
        raise ValueError("a study is run by one process; its trainings take what else there is")
    with held_run_folder(folder):
        if not (folder / STUDY_NAME).is_file() and not holds_nothing(folder):
            raise ValueError(f"{folder} holds something that is no study; name another output folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / STUDY_NAME).is_file():
            write_json(folder / STUDY_NAME, {})  # nothing is in it yet
        yield


def measure_study(study: Study, folder: Path, tell: Callable[[str], None] = logger.info) -> MeasuredStudy:
    """Computes the cells that are missing; whoever calls holds the folder.

    What cannot be had (a tokenizer, data, a judge) and cells of other settings are told before anything is computed.

    Args:
        study: what is measured.
        folder: of the run.
        tell: hears of progress.

    Raises:
        ValueError: something cannot be had, or a cell was computed from something else.
        OSError: a file or checkpoint is missing.
        ImportError: a package is missing.
    """
    run = _Run(study, folder, tell)
    run.check()
    write_json(folder / STUDY_NAME, finite(asdict(study)))  # not before: a study that is refused changes nothing
    run.measure_each()
    run.measure_together()
    machine = machine_identity(run.device) if SPEED in study.measures else None
    return MeasuredStudy(study, folder, run.tokenizers, run.figures, run.cells.num_computed, machine)


class _Run:
    """The state of one call."""

    def __init__(self, study: Study, folder: Path, tell: Callable[[str], None]) -> None:
        set_threads(study.num_threads)
        self.study, self.folder, self.tell = study, folder, tell
        self.device = find_device(study.device)
        self.cells = Cells(folder)
        self.data: dict[str, Recordings] = {
            name: read_recordings(name, one, folder) for name, one in study.data.items()
        }
        self.tokenizers: dict[str, TokenizerFacts] = {}
        self.figures: dict[Cell, Mapping[str, Any]] = {}
        self._judges: SpeechJudges | None = None
        self._originals: dict[str, list[Original]] = {}

    # --- before ---------------------------------------------------------------

    def check(self) -> None:
        """Refuses what can be refused early, and loads what must be there."""
        for cell, settings in self._single_cells():
            self.cells.figures(cell, self._settings_identity(cell, settings))
        for data in {data for measure, data, _ in self.study.parts() if measure == "classes"}:
            _ = self.data[data].labelled  # refuses data without classes
        reconstruction = self.study.measures.get(RECONSTRUCTION)
        if isinstance(reconstruction, ReconstructionSettings) and not self._is_complete(RECONSTRUCTION):
            self._judges = load_judges(reconstruction, self.device)
        for name in self.study.tokenizers:
            self.tokenizers[name] = self._facts(name)
        for cell, settings in self._single_cells():
            found = self.cells.figures(cell, self._identity(cell, settings))
            if found is not None:
                self.figures[cell] = found

    def _single_cells(self) -> Iterator[tuple[Cell, MeasureSettings]]:
        """All cells but those about all tokenizers together."""
        for measure, data, settings in self.study.parts():
            if measure == SPEED:
                continue
            if measure == RECONSTRUCTION:
                yield Cell(ORIGINAL, measure, data), settings
            for name in self.study.tokenizers:
                yield Cell(name, measure, data), settings

    def _is_complete(self, measure: str) -> bool:
        return all(self.cells.path(cell).is_file() for cell, _ in self._single_cells() if cell.measure == measure)

    def _settings_identity(self, cell: Cell, settings: MeasureSettings) -> dict[str, Any]:
        assert cell.data is not None
        return {"data": self.data[cell.data].identity(), "settings": settings_identity(settings)}

    def _identity(self, cell: Cell, settings: MeasureSettings) -> dict[str, Any]:
        identity = self._settings_identity(cell, settings)
        if cell.tokenizer == ORIGINAL:
            return identity
        known = self.tokenizers[cell.tokenizer]
        sound = {"sound": known.sound} if cell.measure == RECONSTRUCTION else {}
        return {"tokenizer": known.fingerprint, **sound, **identity}

    def _opened(self, name: str) -> AudioTokenizer:
        return open_entry(name, self.study.tokenizers[name], self.data, self.folder, self.device)

    def _facts(self, name: str) -> TokenizerFacts:
        audio_tokenizer = self._opened(name)
        fingerprint, sound = audio_tokenizer.fingerprint(), sound_identity(audio_tokenizer)
        cell = Cell(name, FACTS)
        facts = self.cells.computed(cell, {"tokenizer": fingerprint, "sound": sound}, lambda: facts_of(audio_tokenizer))
        self.figures[cell] = facts
        return TokenizerFacts(fingerprint, sound, facts)

    # --- the work -------------------------------------------------------------

    def measure_each(self) -> None:
        """The measures of one tokenizer at a time, so that one is in memory."""
        cells = list(self._single_cells())
        missing = [(cell, settings) for cell, settings in cells if cell not in self.figures]
        self.tell(f"{len(missing)} of {len(cells)} cells are to be computed, some of which take minutes")
        for cell, settings in (pair for pair in missing if pair[0].tokenizer == ORIGINAL):
            self._compute(cell, settings, partial(self._original, cell, settings))
        for name in self.study.tokenizers:
            own = [(cell, settings) for cell, settings in missing if cell.tokenizer == name]
            if not own:
                continue
            audio_tokenizer = self._opened(name)
            for cell, settings in own:
                self._compute(cell, settings, partial(self._measured, audio_tokenizer, cell, settings))

    def _compute(self, cell: Cell, settings: MeasureSettings, compute: Callable[[], dict[str, Any]]) -> None:
        started = time.perf_counter()
        try:
            self.figures[cell] = self.cells.computed(cell, self._identity(cell, settings), compute)
        except ValueError as error:
            raise ValueError(f"{cell.tokenizer}, {cell.name}: {error}") from error
        self.tell(f"{cell.tokenizer}: {cell.name} ({time.perf_counter() - started:.1f} s)")

    def _original(self, cell: Cell, settings: MeasureSettings) -> dict[str, Any]:
        assert cell.data is not None
        assert isinstance(settings, ReconstructionSettings)
        return original_figures(self._asked(), self._written(cell.data), settings, self.folder, cell.data)

    def _measured(self, audio_tokenizer: AudioTokenizer, cell: Cell, settings: MeasureSettings) -> dict[str, Any]:
        assert cell.data is not None
        if isinstance(settings, ReconstructionSettings):
            originals = self._written(cell.data) if audio_tokenizer.can_decode else []
            return reconstruction_figures(
                audio_tokenizer, self._asked(), originals, settings, self.folder, cell.tokenizer, cell.data
            )
        if reason := why_none(audio_tokenizer, cell.measure):
            return {REASON: reason}
        return PLAIN[cell.measure](audio_tokenizer, self.data[cell.data], settings)

    def _asked(self) -> SpeechJudges:
        assert self._judges is not None  # loaded where a cell is missing
        return self._judges

    def _written(self, data: str) -> list[Original]:
        if data not in self._originals:
            self._originals[data] = write_originals(self.data[data], self.folder)
        return self._originals[data]

    def measure_together(self) -> None:
        """Speed, of all tokenizers in turns. With other tokenizers, or on another machine, it is measured anew."""
        settings = self.study.measures.get(SPEED)
        if not isinstance(settings, SpeedSettings):
            return
        for data in settings.data:
            cell = Cell(EVERYBODY, SPEED, data)
            identity = {
                "tokenizers": {name: asdict(one) | {"facts": None} for name, one in self.tokenizers.items()},
                "machine": machine_identity(self.device),
                **self._settings_identity(cell, settings),
            }
            known = self.cells.figures(cell, self._settings_identity(cell, settings))
            if known is None or self._is_of_others(cell, identity):
                started = time.perf_counter()
                opened = {name: self._opened(name) for name in self.study.tokenizers}
                known = self.cells.written(cell, identity, race(opened, self.data[data], settings, self.device))
                self.tell(f"all in turns: {cell.name} ({time.perf_counter() - started:.1f} s)")
            self.figures[cell] = known

    def _is_of_others(self, cell: Cell, identity: Mapping[str, Any]) -> bool:
        found = json.loads(self.cells.path(cell).read_text(encoding="utf-8"))["identity"]
        if found == json.loads(json.dumps(identity)):
            return False
        self.tell(f"{cell.name} was measured with other tokenizers, or on another machine: once more, all in one run")
        return True
