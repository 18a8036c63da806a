"""Checkpoints of a preference run: the Trainer's own folders, each with what the run was that wrote it.

The Trainer writes into the final place, so a folder counts as complete once the file of this module is in it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from audiollm.data.files.json_document import write_json
from audiollm.training.loop.checkpoints import CheckpointState, check_identity
from audiollm.training.loop.errors import ResumeError

IDENTITY_FILE = "run_identity.json"
_NAME = re.compile(r"checkpoint-(\d{1,12})")


def find_checkpoint(resume: str | None, folder: Path) -> Path | None:
    """Turns the ``resume`` setting into a checkpoint folder, or None to start from the beginning.

    Args:
        resume: ``latest``, or a checkpoint folder.
        folder: the checkpoints of the run.

    Raises:
        ResumeError: if a named checkpoint is not there.
    """
    if resume is None:
        return None
    if resume == "latest":
        complete = {_step(path.parent): path.parent for path in folder.glob(f"checkpoint-*/{IDENTITY_FILE}")}
        return complete[max(complete)] if complete else None
    path = Path(resume)
    if not (path / IDENTITY_FILE).is_file():
        raise ResumeError(
            f"resume={resume}: no checkpoint there (no {IDENTITY_FILE}); name a folder such as …/checkpoint-100"
        )
    return path


def check_same_run(checkpoint: Path, identity: dict[str, Any], config: Any) -> int:
    """Refuses to resume a different run; returns the update that the checkpoint is from.

    Raises:
        ResumeError: listing every setting that differs; or the file is damaged.
    """
    path = checkpoint / IDENTITY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        saved = CheckpointState(int(content["step"]), dict(content["identity"]))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ResumeError(f"{path} is damaged: {error}; resume an older checkpoint, or start anew") from error
    check_identity(checkpoint, saved, identity, config)
    return saved.step


class MarkComplete(TrainerCallback):
    """Writes what the run is into each checkpoint, last.

    Args:
        folder: the checkpoints of the run.
        identity: see `audiollm.training.loop.checkpoints.run_identity`.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._identity = identity

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the Trainer has saved."""
        if state.is_world_process_zero:
            step = state.global_step
            write_json(self._folder / f"checkpoint-{step}" / IDENTITY_FILE, {"step": step, "identity": self._identity})


def _step(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1
