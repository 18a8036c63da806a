"""Checkpoints that a run continues from to the same bits, written so that a crash never costs the last good one."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from audiollm.data.files.atomic import atomic_write, open_and_flush, put_in_place
from audiollm.data.files.json_document import write_json

from .errors import ResumeError

logger = logging.getLogger(__name__)

# Settings that a resumed run may change: they decide what is written, and never a weight.
MAY_CHANGE = frozenset(
    {
        "output_dir", "eval_data", "eval_every", "eval_generate_samples", "eval_max_new_tokens", "wer_tasks",
        "save_every", "keep_checkpoints", "resume", "log_every", "num_processes", "cache_tokens", "check_data",
        "num_epochs", "max_steps",  # their result, the number of updates, must stay
        "cache_dir", "eval_clips", "eval_asr", "flow.eval_steps", "flow.eval_vocoder", "eval_samples", "trackers",
        "cache_megabytes",
    }
)  # fmt: skip

_STATE_FILE = "checkpoint.json"
_DEEPSPEED_TAG = "deepspeed"
_ABSENT = "absent"


class Stateful(Protocol):
    """Something that a checkpoint holds beside the weights: moving averages, a second model, its optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Takes back what :meth:`state_dict` returned, with all tensors on the CPU."""


@dataclass(frozen=True)
class CheckpointState:
    """What must be equal for a resumed run to equal an uninterrupted one, and where the checkpoint is in it.

    Attributes:
        step: updates made.
        identity: settings, data fingerprint and launch mode; see :func:`run_identity`.
    """

    step: int
    identity: dict[str, Any]


def run_identity(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Flattens what decides the run's numbers into ``{"lora.r": 16, …}``.

    Args:
        config: the resolved config as JSON.
        **more: more that must not change, such as the data fingerprint and the number of updates.
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if prefix in MAY_CHANGE:
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{prefix}.{name}", inner)
        else:
            flat[prefix] = value

    for name, value in (config | more).items():
        add(name, value)
    return flat


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """One line ``name: saved → current`` per setting that differs."""
    names = [*saved, *(name for name in current if name not in saved)]
    return [
        f"{name}: {saved.get(name, _ABSENT)} → {current.get(name, _ABSENT)}"
        for name in names
        if name not in MAY_CHANGE and saved.get(name, _ABSENT) != current.get(name, _ABSENT)
    ]


class Checkpoints:
    """The ``checkpoints`` folder of a run: ``step_000100`` …, and ``latest`` holding the name of the newest.

    Args:
        folder: the folder; made when the first checkpoint is saved.
        keep: newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def latest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        pointer = self.folder / "latest"
        if not pointer.exists():
            return None
        named = self.folder / pointer.read_text(encoding="utf-8").strip()
        if (named / _STATE_FILE).exists():
            return named
        # Killed while a checkpoint took the place of an older one of the same step.
        complete = [path.parent for path in self.folder.glob(f"step_*/{_STATE_FILE}")]
        return max(complete, key=_age, default=None)

    def _write(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        state: CheckpointState,
        extras: Mapping[str, Stateful],
        folder: Path,
    ) -> None:
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            # Its optimizer is split over the processes, so each writes its part. Frozen weights come from where the run
            # started, and what is the latest is for our own file to say, when all of the folder is there.
            model.save_checkpoint(  # type: ignore[operator]  # a DeepSpeed engine
                str(folder), tag=_DEEPSPEED_TAG, save_latest=False, exclude_frozen_parameters=True
            )
        elif accelerator.is_main_process:
            weights = {n: p.detach().contiguous() for n, p in _trainable(accelerator.unwrap_model(model)).items()}
            save_file(weights, folder / "weights.safetensors")
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        if accelerator.is_main_process:
            for name, part in extras.items():
                torch.save(part.state_dict(), folder / f"{name}.pt")
        torch.save(random_state(), folder / f"random_{accelerator.process_index:05d}.pt")
        if accelerator.is_main_process:  # last: a folder with this file is complete
            write_json(folder / _STATE_FILE, {"step": state.step, "identity": state.identity})

    def save(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        state: CheckpointState,
        documents: dict[str, Any],
        extras: Mapping[str, Stateful] = MappingProxyType({}),
    ) -> Path:
        """Saves weights, optimizer and every process's random state; all processes must call it.

        The files are written to a temporary folder that is renamed when all processes are done, then ``latest`` is
        moved on, then old checkpoints are removed: at any moment ``latest`` names a complete checkpoint.

        Args:
            accelerator: the run's accelerator.
            model: the prepared model. Only its trainable weights are saved.
            optimizer: the prepared optimizer.
            state: step and identity of the run.
            documents: more JSON files to put beside the weights, by file name.
            extras: more to restore on resuming, the same on every process, by name.

        Returns:
            The checkpoint's folder.
        """
        target = self.folder / f"step_{state.step:06d}"
        # Not `atomic_folder`: all processes write into one folder, so they must know its name without being told.
        temporary = self.folder / f".{target.name}.tmp"
        if accelerator.is_main_process:
            for leftover in self.folder.glob(".*.tmp"):
                shutil.rmtree(leftover)
            temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        try:
            self._write(accelerator, model, optimizer, state, extras, temporary)
            if accelerator.is_main_process:
                for name, value in documents.items():
                    write_json(temporary / name, value)
        except (OSError, RuntimeError, SafetensorError) as error:  # what a full disk is to torch and safetensors
            # Give the space back, and leave the last good checkpoint as it is.
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f"{target} could not be written: {error}; older checkpoints are as they were") from error
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            open_and_flush(temporary)
            # There may be one of this step already, after resuming from an earlier checkpoint.
            put_in_place(temporary, target, may_replace=True)
            with atomic_write(self.folder / "latest") as file:
                file.write(target.name)
            by_age = sorted(self.folder.glob("step_*"), key=_age)
            for outdated in by_age[: -self.keep]:
                shutil.rmtree(outdated)
        accelerator.wait_for_everyone()
        return target


def find_checkpoint(resume: str | None, checkpoints: Checkpoints) -> Path | None:
    """Turns the ``resume`` setting into a checkpoint folder, or None to start from the beginning.

    Raises:
        ResumeError: if a named checkpoint is not there.
    """
    if resume is None:
        return None
    if resume == "latest":
        return checkpoints.latest()
    path = Path(resume)
    if not (path / _STATE_FILE).exists():
        raise ResumeError(
            f"resume={resume}: no checkpoint there (no {_STATE_FILE}); name a folder such as …/step_000100"
        )
    return path


def read_state(checkpoint: Path) -> CheckpointState:
    """Reads the step and identity of a checkpoint."""
    content = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
    return CheckpointState(step=content["step"], identity=content["identity"])


def check_identity(checkpoint: Path, saved: CheckpointState, current: dict[str, Any]) -> None:
    """Refuses to resume a different run.

    Raises:
        ResumeError: listing every setting that differs.
    """
    changed = differences(saved.identity, current)
    if changed:
        raise ResumeError(
            f"{checkpoint} belongs to a different run; these differ (checkpoint → now):\n  "
            + "\n  ".join(changed)
            + "\nuse the config.json inside the checkpoint, or start anew in another output_dir"
        )


def load(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    checkpoint: Path,
    extras: Mapping[str, Stateful] = MappingProxyType({}),
) -> None:
    """Restores weights, optimizer, extras and this process's random state into prepared objects.

    Raises:
        ResumeError: if the checkpoint's weights are not the model's.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Not strict, as frozen weights were left out; learning rates are a function of the update, with no scheduler.
        model.load_checkpoint(  # type: ignore[operator]  # a DeepSpeed engine
            str(checkpoint), tag=_DEEPSPEED_TAG, load_module_strict=False, load_lr_scheduler_states=False
        )
    else:
        parameters = _trainable(accelerator.unwrap_model(model))
        weights = load_file(checkpoint / "weights.safetensors")
        if weights.keys() != parameters.keys():
            unmatched = sorted(weights.keys() ^ parameters.keys())
            raise ResumeError(f"{checkpoint}: weights do not match the model: {', '.join(unmatched[:5])} …")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        # Read to the CPU; loading moves each tensor to its weight.
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
    # weights_only: a checkpoint holds tensors and plain values, and must not run code.
    for name, part in extras.items():
        part.load_state_dict(torch.load(checkpoint / f"{name}.pt", map_location="cpu", weights_only=True))
    # Last: whatever is drawn while loading must not count, as the next update has to draw what it would have drawn
    # without an interruption.
    restore_random_state(torch.load(checkpoint / f"random_{accelerator.process_index:05d}.pt", weights_only=True))


def random_state() -> dict[str, Any]:
    """State of this process's generators: Python, NumPy, PyTorch and its devices."""
    numpy_state: Any = np.random.get_state()
    return {
        "python": random.getstate(),
        # A list: weights_only reads no NumPy arrays.
        "numpy": [numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Inverse of :func:`random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable weights by name, tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _age(checkpoint: Path) -> int:
    # By time, not by step: a run resumed from an early checkpoint writes lower steps than those that lie there.
    return checkpoint.stat().st_mtime_ns
