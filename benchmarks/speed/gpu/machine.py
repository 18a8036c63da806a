"""What machine this is, and how fast it multiplies matrices: what the other sections' figures are held against."""

from __future__ import annotations

import os
import platform
import re

import torch

from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.environment import installed_versions
from audiollm.tokenizer.machine.processor import describe_processor
from audiollm.tokenizer.rates import DEVICE_FORMATS, square_product_rate

_PACKAGES = (
    "torch", "transformers", "triton", "accelerate", "peft", "liger-kernel", "flash-attn", "deepspeed", "numpy",
)  # fmt: skip
_SIZE, _SMOKE_SIZE = 8192, 64

_PEAKS = {"H200": 989.4e3, "H100": 989.4e3, "A100": 312e3}
"""Part of a GPU's name → GFLOP/s in dense bfloat16 products by NVIDIA's data sheets, of the SXM boards."""


def measure(measurements: Measurements) -> None:
    """Facts, then a rate for each number format."""
    size = _SMOKE_SIZE if measurements.settings.smoke else _SIZE
    measurements.announce(["facts", *(f"products in {number_format}" for number_format in DEVICE_FORMATS)])
    measurements.make("facts", lambda: _facts(measurements.device))
    for number_format in DEVICE_FORMATS:
        measurements.make(
            f"products in {number_format}",
            lambda number_format=number_format: _rate(number_format, measurements.device, size),  # type: ignore[misc]
        )


def _facts(device: torch.device) -> Figures:
    facts: Figures = {
        **describe_processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "packages": installed_versions(_PACKAGES),
        "cuda": torch.version.cuda,
        "device": str(device),
        "device_name": name_of(device),
        "peak_gflops": peak_of(name_of(device)),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": properties.total_memory / 2**30,
            "multiprocessors": properties.multi_processor_count,
        }
    memory = f", {facts['memory_gib']:.0f} GiB" if "memory_gib" in facts else ""
    return facts | {"told": f"{facts['device_name']}{memory}, torch {torch.__version__}"}


def name_of(device: torch.device) -> str:
    """What a device is called."""
    if device.type == "cpu":
        return describe_processor()["processor"]
    return str(torch.get_device_module(device).get_device_name(device))


def peak_of(device_name: str) -> float | None:
    """GFLOP/s in dense bfloat16 products by the data sheet; None for a device that is not listed."""
    parts = re.findall(r"\w+", device_name)
    return None if "PCIe" in parts else next((_PEAKS[part] for part in parts if part in _PEAKS), None)


def _rate(number_format: str, device: torch.device, size: int) -> Figures:
    rate = square_product_rate(number_format, device, size)
    return {"told": f"{rate / 1e3:.3g} TFLOP/s", "gflops": rate, "format": number_format, "size": size}


if __name__ == "__main__":
    run_section(measure)
