"""Which processor this is, and by which libraries torch multiplies matrices on it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")  # of Linux
_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Those that products of float32, int8 or bfloat16 gain from, as Linux calls them."""


def describe_processor() -> dict[str, str]:
    """Its name, what of it decides about speed, and the libraries."""
    lines = _CPUINFO.read_text(errors="replace").splitlines() if _CPUINFO.exists() else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # those of the first core stay
    known = {name.strip(): value.strip() for name, value in facts.items()}
    flags = known.get("flags", "").split()
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return {
        "processor": known.get("model name") or platform.processor() or platform.machine(),
        "instructions": " ".join(flag for flag in _INSTRUCTIONS if flag in flags) or "unknown",
        "kernels of torch": torch.backends.cpu.get_cpu_capability(),
        "BLAS": blas[1] if blas else "unknown",
        "oneDNN": "there" if torch.backends.mkldnn.is_available() else "absent",
    }


def machine_name() -> str:
    """All of it that decides which of two ways is faster: processor, libraries, and torch's number of threads now."""
    facts = describe_processor()  # processors of one name may differ in what they multiply with
    kernels = f"{facts['kernels of torch']}, oneDNN {'on' if torch.backends.mkldnn.enabled else 'off'}"
    return (
        f"{facts['processor']}, {facts['instructions']}, torch {torch.__version__} ({kernels}), "
        f"{torch.get_num_threads()} threads"
    )
