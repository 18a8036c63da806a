"""Cells: what one measure says of one tokenizer on some data, a file each, so that a study goes on where it was.

A cell holds what it was computed from. One of other settings is refused by name, never mixed with new ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.data.files.json_document import write_json
from audiollm.data.files.json_lines import refuse_other_run
from audiollm.facts import finite

CELLS_FOLDER = "cells"
_OTHERWISE = "write the settings back, name another output folder, or delete this file to measure it anew"


@dataclass(frozen=True)
class Cell:
    """A place in the table.

    Attributes:
        tokenizer: its name in the study.
        measure: which.
        data: their name in the study; None of a measure without data.
    """

    tokenizer: str
    measure: str
    data: str | None = None

    @property
    def name(self) -> str:
        """Of its file, without the folder."""
        return self.measure if self.data is None else f"{self.measure}@{self.data}"


class Cells:
    """The cells of a run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CELLS_FOLDER
        self.num_computed = 0

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self._folder / cell.tokenizer / f"{cell.name}.json"

    def figures(self, cell: Cell, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a cell says, if it is there.

        Args:
            cell: which.
            identity: what it is to be computed from; names that the caller does not know yet may be left out.

        Raises:
            ValueError: it was computed from something else, naming what.
        """
        path = self.path(cell)
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {name: value for name, value in content["identity"].items() if name in identity}
        refuse_other_run(path, known, identity, otherwise=_OTHERWISE)
        figures: dict[str, Any] = content["figures"]
        return figures

    def computed(
        self, cell: Cell, identity: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """What a cell says; computed and written if it is not there.

        Raises:
            ValueError: it was computed from something else, naming what.
        """
        found = self.figures(cell, identity)
        if found is not None:
            return found
        return self.written(cell, identity, compute())

    def written(self, cell: Cell, identity: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a cell, whole or not at all; returns its figures as they are read again."""
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        told = finite(figures)
        write_json(path, {"cell": vars(cell), "identity": identity, "figures": told})
        self.num_computed += 1
        read_again: dict[str, Any] = json.loads(json.dumps(told))
        return read_again
