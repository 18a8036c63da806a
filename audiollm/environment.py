"""Versions and devices of this machine: the report of `audiollm doctor`, records of runs, where models go."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<extra>[\w-]+)['"]""")
_NAME = re.compile(r"[A-Za-z0-9._-]+")

TOOLS = {
    "c++": "DeepSpeed compiles a small operator at its first start; install g++ or clang",
    "git": "run records name the revision; install git",
}


def find_device(device: str | None = None) -> str:
    """The torch device asked for, else this process's GPU, else the CPU.

    Args:
        device: such as "cuda:1" or "cpu"; None: the first GPU, or its own where a launcher started several processes.

    Raises:
        ValueError: if a GPU is asked for where there is none, or what is no device at all.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if device is None:
        # torchrun and accelerate number a machine's processes; all on one GPU would share its memory.
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if has_gpu else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"--device {device}: is no device of torch; give cpu, cuda or cuda:1") from error
    if device.startswith("cuda") and not has_gpu:
        raise ValueError(
            f"--device {device}: this torch ({torch.__version__}) sees no CUDA device; see `audiollm doctor`"
        )
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if kind not in ("cpu", "cuda") and (accelerator is None or accelerator.type != kind):
        raise ValueError(
            f"--device {device}: this torch ({torch.__version__}) sees none here; leave it out, or give cpu"
        )
    return device


def installed_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Python's version, and those of packages, for the records that runs leave behind; None where one is absent."""
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def diagnose() -> dict[str, Any]:
    """Collects the report.

    Returns:
        ``system``, ``devices``, ``required``, ``optional`` and ``tools`` (name → version or how to get it), and
        ``missing``: one line per required package that is absent, empty when all is well.
    """
    required, optional = _dependencies()
    versions = {name: _version(name) for name in required}
    return {
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "audiollm": version("audiollm"),
        },
        "devices": _devices(),
        "required": {name: found or "missing" for name, found in versions.items()},
        "optional": {
            name: _version(name) or f"not installed: pip install 'audiollm[{extra}]'"
            for name, extra in optional.items()
        },
        "tools": {name: shutil.which(name) or f"not found: {advice}" for name, advice in TOOLS.items()},
        "missing": [f"{name} is required: pip install {name}" for name, found in versions.items() if found is None],
    }


def _dependencies() -> tuple[list[str], dict[str, str]]:
    """The installed distribution's own requirements: required names, and optional name → extra."""
    required: list[str] = []
    optional: dict[str, str] = {}
    for requirement in requires("audiollm") or []:
        matched = _NAME.match(requirement)
        extra = _EXTRA.search(requirement)
        # An extra that holds another one names the distribution itself.
        if matched is None or matched[0] == "audiollm" or (extra and extra["extra"] == "dev"):
            continue
        if extra:
            optional.setdefault(matched[0], extra["extra"])
        else:
            required.append(matched[0])
    return required, optional


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, str]:
    if _version("torch") is None:
        return {"cpu": platform.processor() or platform.machine()}
    import torch

    devices = {"cpu": f"threads: {torch.get_num_threads()}"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices
