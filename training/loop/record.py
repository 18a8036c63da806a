"""Records of a run, by which it can be understood and repeated: config, versions, revision, metrics, trackers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from audiollm.data.files.json_lines import append_line, read_json_lines, write_json_lines
from audiollm.environment import installed_versions
from audiollm.training.results.figures import flat_numbers

from .checkpoints import differences, run_identity, without_unused
from .config import RunConfig, TrackerName
from .errors import ResumeError

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"  # in a run's folder, and beside its checkpoints
RUN_NAME = "run.json"  # in a run's folder: what it is made by and of
METRICS_NAME = "metrics.jsonl"  # in a run's folder: see `MetricsLog`

PROJECT = "audiollm"  # what trackers show runs under, unless they are told otherwise

_RECORDED_PACKAGES = (
    "audiollm", "torch", "transformers", "accelerate", "peft", "deepspeed", "datasets", "safetensors", "tokenizers",
    "numpy",
)  # fmt: skip


def config_as_json(config: Any) -> dict[str, Any]:
    """The resolved config, a dataclass. JSON is YAML: saved, it repeats the run as ``--config``."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def package_versions() -> dict[str, str | None]:
    """Installed versions of what decides a run's numbers; None where a package is absent."""
    return installed_versions(_RECORDED_PACKAGES)


def git_revision(folder: Path) -> str | None:
    """Commit checked out in ``folder``, with ``-dirty`` after it if files differ; None outside a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def refuse_run_of_others(folder: Path, config: RunConfig, checkpoint: Path | None) -> None:
    """Refuses a folder of a run that this one does not go on with, before anything in it is written over.

    A run that was stopped before its first checkpoint may begin anew in its own folder.

    Args:
        folder: of the run.
        config: of the run.
        checkpoint: where it goes on; None: it begins anew.

    Raises:
        ValueError: the folder holds a run, and this one is not to be resumed; or a model, whose configuration would be
            written over.
        ResumeError: it holds a run of other settings, and the checkpoint is none of its own.
    """
    if not (folder / METRICS_NAME).exists():
        _refuse_config_of_others(folder / CONFIG_NAME)
        return
    if config.resume is None:
        raise ValueError(f"{folder} already holds a run: choose another output_dir, or go on with --resume latest")
    if checkpoint is not None and checkpoint.resolve().is_relative_to(folder.resolve()):
        return  # it says itself what it belongs to
    path = folder / CONFIG_NAME
    if not path.exists():  # stopped before it was written
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ResumeError(f"{path} is damaged ({error}): choose another output_dir") from error
    saved = run_identity(before)
    changed = differences(saved, without_unused(run_identity(config_as_json(config)), config, saved))
    if changed:
        raise ResumeError(
            f"{folder} holds another run, which this one does not go on with; these differ (its own → now):\n  "
            + "\n  ".join(changed)
            + "\nchoose another output_dir"
        )
    if checkpoint is None:
        logger.warning("%s holds no checkpoint to go on from: starting from the beginning", folder)


def _refuse_config_of_others(path: Path) -> None:
    """Refuses a folder whose ``config.json`` is no run's: without it, the model beside it can no more be loaded."""
    if not path.exists():
        return
    try:
        is_own = "output_dir" in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        is_own = False
    if not is_own:
        raise ValueError(
            f"{path} is no run's, but perhaps a model's, and would be written over: choose another output_dir"
        )


def warn_of_unfinished_runs(config: Any) -> None:
    """Says which of the runs that a config names have updates to go: what they have saved so far is what is used.

    Args:
        config: of the run, a dataclass; its own folder and what it resumes are left out.
    """
    named = config_as_json(config)
    for own in ("output_dir", "resume"):
        named.pop(own, None)
    for setting, source in _texts_of(named):
        folder = Path(source)
        try:
            total = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))["num_updates"]
        except (OSError, ValueError, TypeError, KeyError):
            continue  # no run, or one that whoever opens it will tell of
        done = max(
            (line["step"] for line in read_metrics(folder / METRICS_NAME) if line["event"] == "train"), default=0
        )
        if done < total:
            logger.warning(
                "%s=%s is a run after update %d of %d: what it has saved so far is used", setting, source, done, total
            )


def _texts_of(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts in plain data, with where they are, as in ``tokenizer.semantic``."""
    if isinstance(value, str):
        yield name, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from _texts_of(one, f"{name}.{key}" if name else str(key))


class MetricsLog:
    """``metrics.jsonl``: one line per logged update or evaluation, appended as they happen.

    It is no `AppendOnlyLog`: plots read it without a header, and a resumed run drops lines.

    Args:
        path: the file.
        last_step: lines of later updates are dropped: a run that was killed wrote them after the checkpoint it resumes
            from, and will write them again.
        trackers: where the numbers of each line go as well.
    """

    def __init__(self, path: Path, last_step: int, trackers: Sequence[GeneralTracker] = ()) -> None:
        self.path = path
        self._trackers = list(trackers)
        lines = read_metrics(path)
        if last_step and not lines and not (path.exists() and path.stat().st_size == 0):
            logger.warning("%s has nothing of the first %d updates, and will begin behind them", path, last_step)
        kept = [line for line in lines if line["step"] <= last_step]
        write_json_lines(path, kept, allow_nan=False)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line and hands it to the system, so that a killed process loses none."""
        with self.path.open("ab") as file:
            append_line(file, line, allow_nan=False)
        numbers = {f"{line['event']}/{name}": value for name, value in flat_numbers(line).items()}
        if numbers:
            self._tell_trackers(lambda tracker: tracker.log(numbers, step=line["step"]))

    def start_tracker(self, name: TrackerName, options: dict[str, Any], settings: dict[str, Any]) -> None:
        """Sends numbers to one more tracker from here on, if it starts; ``settings`` are for it to store."""
        try:
            tracker = LOGGER_TYPE_TO_CLASS[name](**options)
            tracker.start()
        except Exception as error:
            logger.warning("%s did not start and gets no numbers; %s has them: %r", name, self.path, error)
            return
        self._trackers.append(tracker)
        self._tell_trackers(lambda one: one.store_init_configuration(settings) if one is tracker else None)

    def finish(self) -> None:
        """Ends the trackers' runs, once; the file stays as it is, and may still be written to."""
        self._tell_trackers(lambda tracker: tracker.finish())
        self._trackers.clear()

    def _tell_trackers(self, tell: Callable[[GeneralTracker], None]) -> None:
        """Does without a tracker that fails, for example by its network: a training is worth more than its picture."""
        for tracker in tuple(self._trackers):
            try:
                tell(tracker)
            except Exception as error:
                logger.warning("%s failed and gets no more numbers; %s has them: %r", tracker.name, self.path, error)
                self._trackers.remove(tracker)

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file; a last line that a killed process left unfinished is ignored."""
    return list(read_json_lines(path, problems=[])) if path.exists() else []


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raises ValueError if the package of a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"trackers: {name} is not installed; pip install {name}, or remove it")


def open_metrics(accelerator: Accelerator, folder: Path, config: RunConfig, last_step: int) -> MetricsLog | None:
    """Opens a run's metrics and starts its trackers, through accelerate; None on all processes but the main one.

    Args:
        accelerator: of the run. Its end, however it comes about, is that of the trackers.
        folder: of the run, whose name the trackers show. TensorBoard writes into its ``tensorboard/``, the others where
            their own settings say (``WANDB_…``, ``MLFLOW_…``), or under the project's name.
        config: of the run, which they store.
        last_step: the update that the run goes on after.
    """
    if not accelerator.is_main_process:
        return None
    name, metrics = folder.resolve().name, MetricsLog(folder / METRICS_NAME, last_step)
    accelerator.trackers.append(metrics)
    options: dict[TrackerName, dict[str, Any]] = {
        # What was shown of later updates will be shown again.
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder), "purge_step": last_step + 1},
        "wandb": {"run_name": os.environ.get("WANDB_PROJECT", PROJECT), "name": os.environ.get("WANDB_NAME", name)},
        "mlflow": {"experiment_name": PROJECT, "run_name": name},
    }
    settings = {
        key: value if isinstance(value, str | int | float) else json.dumps(value)
        for key, value in config_as_json(config).items()
    }
    for tracker_name in config.trackers:
        metrics.start_tracker(tracker_name, options[tracker_name], settings)
    return metrics
