"""A whole study: measures of every tokenizer, an LLM on each, and the pages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiollm.benchmarks.comparison.cells import Cell
from audiollm.benchmarks.comparison.page import write_pages
from audiollm.benchmarks.comparison.running import held_study_folder, measure_study
from audiollm.benchmarks.comparison.study import read_study

from .downstream import train_downstream

logger = logging.getLogger(__name__)


def compare_tokenizers(
    study_file: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    measures_only: bool = False,
    tell: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Runs a study, or goes on with one, and writes its pages.

    Args:
        study_file: YAML, see `read_study`.
        output_dir: folder of the run.
        measures_only: leave out the trainings that the file asks for.
        tell: hears of progress.

    Returns:
        The pages: Markdown, HTML and JSON.

    Raises:
        ValueError: the file is wrong, something cannot be had, or the folder holds figures of other settings.
        OSError: a file or checkpoint is missing.
        ImportError: a package is missing.
        ProgramError: a training or its scoring failed.
    """
    study, folder = read_study(study_file), Path(output_dir)
    with held_study_folder(folder):
        measured = measure_study(study, folder, tell)
        trained: dict[Cell, dict[str, Any]] = {}
        if study.downstream is not None and not measures_only:
            write_pages(measured, trained, folder)  # trainings may take days
            trained = train_downstream(study, folder, measured.tokenizers, tell)
        return write_pages(measured, trained, folder)
