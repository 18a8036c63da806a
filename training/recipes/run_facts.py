"""What the results of an experiment say of the run that made them."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from audiollm.tokenizer.machine.processor import describe_processor
from audiollm.training.loop.record import git_revision, package_versions

from .launching import TRAINING


def facts_of_run(config: Any) -> dict[str, Any]:
    """Settings, machine, versions, revision and date.

    Args:
        config: of the run, a dataclass; where it writes is left out.
    """
    return {
        "settings": without_folders({name: one for name, one in asdict(config).items() if name != "output_dir"}),
        "machine": {**describe_processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": package_versions(),
        "git_revision": git_revision(TRAINING),
        "date": time.strftime("%Y-%m-%d"),
    }


def without_folders(value: Any) -> Any:
    """Settings without where things lie on this machine: results are passed on."""
    if isinstance(value, dict):
        return {name: without_folders(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(one) for one in value]
    is_path = isinstance(value, str) and Path(value).is_absolute()
    return "/".join(Path(value).parts[-2:]) if is_path else value
