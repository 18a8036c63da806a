"""Checkpoints that a run continues from to the same bits, written so that a crash never costs the last good one."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from audiollm.data.files.atomic import atomic_write, open_and_flush, put_in_place
from audiollm.data.files.json_document import write_json
from audiollm.data.sampling import seed_of
from audiollm.program import ProgramError
from audiollm.tokenizer.checkpoints.tensors import DAMAGED

from .distributed.sharding import sharded_like, whole, whole_state_of
from .errors import ResumeError
from .restoring import CHECKSUM, check_deepspeed_files, checksum, load_part, read_values, read_weights

logger = logging.getLogger(__name__)

# Settings that a resumed run may change: they decide what is written, and never a weight.
MAY_CHANGE = frozenset(
    {
        "output_dir", "eval_data", "eval_every", "eval_generate_samples", "eval_max_new_tokens", "wer_tasks",
        "eval_text", "eval_listen_samples", "eval_language", "eval_similarity",
        "save_every", "keep_checkpoints", "resume", "log_every", "num_processes", "cache_tokens",
        "check_data", "check_records",
        "num_epochs", "max_steps",  # their result, the number of updates, must stay
        "cache_dir", "eval_clips", "eval_seconds", "eval_asr", "flow.eval_steps", "flow.eval_vocoder", "eval_samples",
        "trackers", "cache_megabytes", "trust_checkpoint", "metric_for_best", "load_best_at_end", "collapse_alarm",
        "shard_optimizer",  # checkpoints hold all of it, and each weight's update is the same
        "reconstruction.eval_seconds", "reconstruction.eval_steps", "reconstruction.eval_guidance",
    }
)  # fmt: skip

_WHOLE_MODES = ("single", "ddp")
_STATE_FILE = "checkpoint.json"
_DEEPSPEED_TAG = "deepspeed"
_ABSENT = "absent"
_MAX_NAME = 80  # characters; more is no name of a checkpoint
_OWN_NAME = re.compile(r"step_\d{6,12}")  # what `_name_of` gives


class Stateful(Protocol):
    """Something that a checkpoint holds beside the weights: moving averages, a second model, its optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Takes back what `state_dict` returned, with all tensors on the CPU."""


@dataclass(frozen=True)
class CheckpointState:
    """What must be equal for a resumed run to equal an uninterrupted one, and where the checkpoint is in it.

    Attributes:
        step: updates made.
        identity: settings, data fingerprint and launch mode; see `run_identity`.
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


def without_unused(identity: dict[str, Any], config: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it was written before there were its `unused_settings`."""
    unused = unused_settings(config, saved)
    return {name: value for name, value in identity.items() if name not in unused}


def unused_settings(config: Any, saved: Mapping[str, Any], section: str = "") -> frozenset[str]:
    """Settings that an identity has never heard of, as its run is older than they are, and that are at their defaults.

    A setting that comes later has the default that does what was done before, so such a run goes on as it was.

    Args:
        config: the settings, a dataclass.
        saved: the identity that was written down.
        section: of the settings, with a dot behind it; empty: they are the run's own.

    Returns:
        Their names in an identity, such as ``lora.r``.
    """
    found: set[str] = set()
    for field in dataclasses.fields(config):
        name, value = section + field.name, getattr(config, field.name)
        if name in saved:
            continue
        if any(other.startswith(f"{name}.") for other in saved):
            if dataclasses.is_dataclass(value):  # a section that it has: perhaps not all of it
                found |= unused_settings(value, saved, f"{name}.")
        elif value == _default_of(field):
            found.update(run_identity({name: dataclasses.asdict(config)[field.name]}))
    return frozenset(found)


def _default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


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
        """The newest complete checkpoint, or None.

        Raises:
            ResumeError: if the file ``latest`` names something else than a checkpoint of this folder.
        """
        pointer = self.folder / "latest"
        told = "is not there"  # killed before the first checkpoint had been named, or removed
        if pointer.exists():
            name = _first_line(pointer)
            # What the trainer writes into it is one of these names; another one would lead who knows where.
            if not _OWN_NAME.fullmatch(name):
                raise ResumeError(
                    f"{pointer} says {name[:80]!r}, which is no checkpoint of a run; {_instead_of(pointer)}"
                )
            if (self.folder / name / _STATE_FILE).exists():
                return self.folder / name
            # Killed while a checkpoint took the place of an older one of the same step.
            told = f"names {name}, which is not there whole"
        found = max(_complete(self.folder), key=_age, default=None)
        if found is not None:
            logger.warning("%s %s: going on from %s", pointer, told, found.name)
        return found

    def of_step(self, step: int) -> Path:
        """Where the checkpoint after an update is, if there is one."""
        return self.folder / _name_of(step)

    def steps(self) -> set[int]:
        """The updates after which there are complete checkpoints."""
        return {int(path.name.partition("_")[2]) for path in _complete(self.folder)}

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
        else:
            # Whole, from all processes if they are sharded: a checkpoint does not know how many there were.
            weights = {n: whole(p).contiguous() for n, p in _trainable(accelerator.unwrap_model(model)).items()}
            optimizer_state = whole_state_of(optimizer)
            if accelerator.is_main_process:
                save_file(weights, folder / "weights.safetensors", metadata={CHECKSUM: checksum(weights)})
                torch.save(optimizer_state, folder / "optimizer.pt")
        for name, part in extras.items():
            part_state = whole_state_of(part)  # from all processes: one of them may be an optimizer that is split
            if accelerator.is_main_process:
                torch.save(part_state, folder / f"{name}.pt")
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
        kept_step: int | None = None,
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
            kept_step: the checkpoint after this update is kept beside the newest ones.

        Returns:
            The checkpoint's folder.
        """
        target = self.of_step(state.step)
        # Not `atomic_folder`: all processes write into one folder, so they must know its name without being told.
        temporary = self.folder / f".{target.name}.tmp"
        if accelerator.is_main_process:
            with _named_errors(target):
                self.clear_leftovers()
                temporary.mkdir(parents=True)
        accelerator.wait_for_everyone()
        with _named_errors(target):
            try:
                self._write(accelerator, model, optimizer, state, extras, temporary)
                if accelerator.is_main_process:
                    for name, value in documents.items():
                        write_json(temporary / name, value)
            except (OSError, RuntimeError, SafetensorError):
                # Give the space back, and leave the last good checkpoint as it is.
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with _named_errors(target):
                open_and_flush(temporary)
                # There may be one of this step already, after resuming from an earlier checkpoint.
                put_in_place(temporary, target, may_replace=True)
                with atomic_write(self.folder / "latest") as file:
                    file.write(target.name)
                self._prune(kept_step)
        accelerator.wait_for_everyone()
        return target

    def clear_leftovers(self) -> None:
        """Removes what killed or failed savings left."""
        for folder in self.folder.glob(".step_*.tmp"):
            shutil.rmtree(folder)
        for file in self.folder.glob(".latest.*.tmp"):
            file.unlink()

    def _prune(self, kept_step: int | None) -> None:
        # Only what a run wrote: a user's folders beside them have other names, or hold no checkpoint of that step.
        own = [path for path in self.folder.iterdir() if _is_own(path)]
        kept = None if kept_step is None else _name_of(kept_step)
        for outdated in sorted(own, key=_age)[: -self.keep]:
            if outdated.name == kept:
                continue
            # Not deleted under its name: what a kill left of it would look like a checkpoint, and the newest one.
            leftover = outdated.with_name(f".{outdated.name}.old.tmp")
            outdated.rename(leftover)
            shutil.rmtree(leftover)


@contextmanager
def _named_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except ProgramError:  # the run is stopped, or has lost a process: its message says so
        raise
    except (OSError, RuntimeError, SafetensorError) as error:  # what a full disk is to torch and safetensors
        raise OSError(f"{target} could not be written: {error}; older checkpoints are as they were") from error


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
    """Reads the step and identity of a checkpoint.

    Raises:
        ResumeError: if they are not there, or not as a run writes them.
    """
    path = checkpoint / _STATE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ResumeError(f"{path} is damaged: {error}; {_instead_of(checkpoint)}") from error
    step, identity = (content.get("step"), content.get("identity")) if isinstance(content, dict) else (None, None)
    if type(step) is not int or step < 1 or not isinstance(identity, dict):
        raise ResumeError(f"{path} names no step and identity of a run; {_instead_of(checkpoint)}")
    if _OWN_NAME.fullmatch(checkpoint.name) and checkpoint.name != _name_of(step):
        raise ResumeError(f"{path} says step={step}, its folder {checkpoint.name}; {_instead_of(checkpoint)}")
    return CheckpointState(step=step, identity=identity)


def check_identity(checkpoint: Path, saved: CheckpointState, current: dict[str, Any], config: Any) -> None:
    """Refuses to resume a different run.

    Args:
        checkpoint: its folder.
        saved: what is written in it.
        current: the identity of the run that is to go on from it.
        config: that run's settings, which say what is at its default; see `unused_settings`.

    Raises:
        ResumeError: listing every setting that differs.
    """
    current = without_unused(current, config, saved.identity)
    changed = differences(saved.identity, current)
    if changed and _goes_further(saved, current):
        changed = []
    total = current.get("total_steps")
    if not changed and isinstance(total, int) and saved.step > total:
        raise ResumeError(f"{checkpoint} is from update {saved.step} of a run of {total}; {_instead_of(checkpoint)}")
    if changed:
        raise ResumeError(
            f"{checkpoint} belongs to a different run; these differ (checkpoint → now):\n  "
            + "\n  ".join(changed)
            + "\nuse the config.json inside the checkpoint, or start anew in another output_dir"
        )


def _goes_further(saved: CheckpointState, current: dict[str, Any]) -> bool:
    """Whether a run that made its last update shall make more, with everything else as it was."""
    before, now = saved.identity.get("total_steps"), current.get("total_steps")
    others = {name: value for name, value in current.items() if name != "total_steps"}
    return (
        saved.step == before
        and isinstance(now, int)
        and now > saved.step
        and not differences({name: value for name, value in saved.identity.items() if name != "total_steps"}, others)
    )


def with_launch_of(saved: CheckpointState, current: dict[str, Any]) -> dict[str, Any]:
    """An identity with the launch of a checkpoint in place of its own, where other processes may go on from it.

    That is where every process holds the whole of model and optimizer, then and now.
    """
    launches = [
        {name: value for name, value in one.items() if name.startswith("launch.")} for one in (saved.identity, current)
    ]
    if not all(launch.get("launch.mode") in _WHOLE_MODES for launch in launches):
        return current
    return current | launches[0]


def load(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    checkpoint: Path,
    extras: Mapping[str, Stateful] = MappingProxyType({}),
    *,
    trusted: bool = False,
    seed: int = 0,
) -> None:
    """Restores weights, optimizer, extras and this process's random state into prepared objects.

    On another number of processes than the checkpoint was saved by, random states begin anew, from seed and update.

    Args:
        accelerator: the run's accelerator.
        model: the prepared model.
        optimizer: the prepared optimizer.
        checkpoint: the folder.
        extras: what else was saved.
        trusted: whether DeepSpeed may unpickle its states without a look at them before.
        seed: of the run.

    Raises:
        ResumeError: naming the file that is damaged, is not of this run, or holds what may run; and the checkpoint
            before it, if there is one.
    """
    try:
        _load(accelerator, model, optimizer, checkpoint, extras, trusted, seed)
    except ResumeError as error:
        raise ResumeError(f"{error}; {_instead_of(checkpoint)}") from error


def _instead_of(checkpoint: Path) -> str:
    """What to go on from where a checkpoint cannot be used."""
    others = [path for path in _complete(checkpoint.parent) if path.resolve() != checkpoint.resolve()]
    if not others:
        return "there is no other checkpoint beside it: start anew in another output_dir"
    older = max(others, key=_age)
    return f"go on from the one before with --resume {older}"


def _load(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    checkpoint: Path,
    extras: Mapping[str, Stateful],
    trusted: bool,
    seed: int,
) -> None:
    state = read_state(checkpoint)
    is_same = state.identity.get("launch.num_processes", accelerator.num_processes) == accelerator.num_processes
    rng_file = checkpoint / f"random_{accelerator.process_index:05d}.pt"
    drawn = read_values(rng_file) if is_same else {}
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        check_deepspeed_files(checkpoint / _DEEPSPEED_TAG, trusted=trusted)
        # Not strict, as frozen weights were left out; learning rates are a function of the update, with no scheduler.
        model.load_checkpoint(  # type: ignore[operator]  # a DeepSpeed engine
            str(checkpoint), tag=_DEEPSPEED_TAG, load_module_strict=False, load_lr_scheduler_states=False
        )
    else:
        parameters = _trainable(accelerator.unwrap_model(model))
        weights = read_weights(checkpoint / "weights.safetensors", parameters)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(sharded_like(weights[name], parameter))
        # Read to the CPU; loading moves each tensor to its weight.
        load_part(checkpoint / "optimizer.pt", optimizer)
    for name, part in extras.items():
        load_part(checkpoint / f"{name}.pt", part)
    # Last: whatever is drawn while loading must not count, as the next update has to draw what it would have drawn
    # without an interruption.
    if not is_same:
        set_seed(seed_of(seed, state.step) % 2**31, device_specific=True)
        return
    try:
        restore_random_state(drawn)
    except DAMAGED as error:
        raise ResumeError(f"{rng_file} holds no states of random generators: {error}") from error


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
    """Inverse of `random_state`."""
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


def _name_of(step: int) -> str:
    return f"step_{step:06d}"


def _is_own(path: Path) -> bool:
    """Whether a run wrote this folder: a checkpoint of the step after which it is named."""
    if path.is_symlink() or not _OWN_NAME.fullmatch(path.name):
        return False
    try:
        content = json.loads((path / _STATE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("step") == int(path.name.removeprefix("step_"))


def _complete(folder: Path) -> list[Path]:
    """Checkpoints in a folder that a run wrote whole."""
    return [path.parent for path in folder.glob(f"step_*/{_STATE_FILE}") if _OWN_NAME.fullmatch(path.parent.name)]


def _first_line(path: Path) -> str:
    if path.is_symlink():
        raise ResumeError(f"{path} is a link, and no run writes one; {_instead_of(path)}")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_NAME).strip()
    except (UnicodeDecodeError, OSError) as error:
        raise ResumeError(f"{path} cannot be read: {error}; {_instead_of(path)}") from error


def _age(checkpoint: Path) -> int:
    # By time, not by step: a run resumed from an early checkpoint writes lower steps than those that lie there.
    return checkpoint.stat().st_mtime_ns
