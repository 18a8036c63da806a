"""What reasoning codes, FiLM and the last stage are worth, with several seeds, and three tokenizers in one table.

One command; what is complete is not made again:

python -m audiollm.training.recipes.reasoning_codec.evidence --output_dir runs/reasoning_codec_evidence
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from audiollm.program import run_program
from audiollm.training.recipes.kept_trainings import KeptTrainings
from audiollm.training.recipes.launching import console, open_recipe_folder
from audiollm.training.recipes.run_facts import facts_of_run

from .codecs import FILM, Codecs, CodecSettings
from .data import ClipData, ClipSettings
from .language_models import CODES, ENDS, LanguageModels, LMSettings
from .report import write_tables
from .side_by_side import TableSettings, compare_side_by_side

Part = Literal["film", "codes", "stages", "table"]


@dataclass(frozen=True, kw_only=True)
class ReasoningCodecEvidenceConfig:
    """The experiment."""

    output_dir: str = "runs/reasoning_codec_evidence"
    """Folder for everything the run makes."""

    parts: tuple[Part, ...] = ("film", "codes", "stages", "table")
    """What to measure: codecs with and without FiLM; LMs on each kind of codes; LMs with and without the last stage;
    and the tokenizers side by side."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of weights and order of all that is trained, but for the SQCodec and the LoSATok, which are trained once."""

    clips: ClipSettings = field(default_factory=ClipSettings)
    """What is learnt from and judged on."""

    codecs: CodecSettings = field(default_factory=CodecSettings)
    """Budget of the codecs."""

    lm: LMSettings = field(default_factory=LMSettings)
    """Budget of the multi-stream LMs."""

    table: TableSettings = field(default_factory=TableSettings)
    """What stands side by side."""

    num_threads: int | None = None
    """CPU threads. None: all."""

    def __post_init__(self) -> None:
        for name in ("parts", "seeds"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}={list(getattr(self, name))}: give one or more, each once")


def run_evidence(config: ReasoningCodecEvidenceConfig) -> dict[str, Any]:
    """Measures what is missing; writes ``results.json`` and ``tables.md`` whenever there is more.

    Returns:
        The results.

    Raises:
        ValueError: the folder is of something else, or a cell of other settings.
        ProgramError: a training or a scoring fails; its log is named.
        PackageError: recordings cannot be fetched.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    started = time.perf_counter()
    # The files of the data are made once; cells know all other settings.
    with open_recipe_folder(Path(config.output_dir) / "evidence.json", asdict(config.clips)) as folder:
        data = ClipData(config.clips, folder)
        results: dict[str, Any] = {
            **facts_of_run(config),
            "data": data.counts(),
        }
        trainings = KeptTrainings(folder, config.num_threads)
        codecs = Codecs(data, config.codecs, trainings)
        lms = LanguageModels(data, codecs, config.lm, trainings, config.num_threads)

        def table() -> Iterator[dict[str, Any]]:
            yield compare_side_by_side(
                data, codecs, config.table, config.seeds, folder, console.print, config.num_threads
            )

        made: dict[Part, Callable[[], Iterator[dict[str, Any]]]] = {
            "film": lambda: _over(FILM, config.seeds, codecs.figures),
            "codes": lambda: _over(CODES, config.seeds, lms.of_codes),
            "stages": lambda: _over(ENDS, config.seeds, lms.ending),
            "table": table,
        }
        for part in config.parts:
            for found in made[part]():
                results[part] = found
                write_tables(results | {"is_complete": False}, folder)
        results |= {"is_complete": True, "seconds_of_this_call": round(time.perf_counter() - started)}
        console.print(write_tables(results, folder))
    return results


def _over(
    names: Sequence[str], seeds: Sequence[int], figures: Callable[[str, int], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Figures by name, then by seed, whenever there are more; all names with the first seed before any other."""
    found: dict[str, Any] = {}
    for seed, name in itertools.product(seeds, names):
        found.setdefault(name, {})[str(seed)] = figures(name, seed)
        yield found


if __name__ == "__main__":
    run_program(ReasoningCodecEvidenceConfig, run_evidence, name="reasoning_codec.evidence")
