"""Fundamental frequency of recordings, by the WORLD vocoder's estimators (the pyworld package).

DIO finds candidates and StoneMask refines them (Morise et al., 2009 and 2016); Harvest is slower and finds more voiced
frames in noisy recordings.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

PitchMethod = Literal["dio", "harvest"]


def fundamental_frequency(
    waveform: Tensor,
    sample_rate: int,
    *,
    frame_ms: float,
    method: PitchMethod = "dio",
    min_frequency: float = 60.0,
    max_frequency: float = 600.0,
) -> Tensor:
    """Estimates the fundamental frequency at the start of every frame.

    Args:
        waveform: samples in [-1, 1], ``[N]``.
        sample_rate: theirs, in Hz.
        frame_ms: from one frame to the next, in milliseconds.
        method: ``dio``, or ``harvest``, which takes some twenty times as long.
        min_frequency: lowest frequency looked for, in Hz.
        max_frequency: highest frequency looked for, in Hz.

    Returns:
        Hz, 0 where unvoiced, float64 ``[frames]``.

    Raises:
        ValueError: if pyworld is not installed or the range of frequencies is empty.
    """
    pyworld = load_pyworld()
    if not 0 < min_frequency < max_frequency:
        raise ValueError(f"no frequency lies between {min_frequency} and {max_frequency} Hz; give a range above 0")
    samples = waveform.double().cpu().numpy()  # pyworld takes nothing but float64
    estimate = pyworld.dio if method == "dio" else pyworld.harvest
    frequency, seconds = estimate(
        samples, sample_rate, f0_floor=min_frequency, f0_ceil=max_frequency, frame_period=frame_ms
    )
    return torch.from_numpy(pyworld.stonemask(samples, frequency, seconds, sample_rate))


@cache
def load_pyworld() -> ModuleType:
    """Loads the compiled half of pyworld alone: its ``__init__`` needs pkg_resources, which setuptools has given up.

    Raises:
        ValueError: it is not installed.
    """
    package = importlib.util.find_spec("pyworld")
    folders = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("pyworld.pyworld", folders) if folders is not None else None
    if spec is None or spec.loader is None:
        raise ValueError(
            "the fundamental frequency of recordings is estimated by pyworld, which is not installed: "
            "pip install pyworld"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
