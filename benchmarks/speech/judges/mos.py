"""Predictors of a mean opinion score, by name: how listeners would rate a recording, 1 to 5.

A figure means nothing without the name of its predictor: put it beside the figure. ``dnsmos`` comes from a package
index. Packages offer theirs as entry points::

    [project.entry-points."audiollm.mos_predictors"]
    utmos = "my_package.opinions:load"  # called with the device
"""
# Shapes: N samples.

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from audiollm.data.plugins import PluginNames

from .dnsmos import load_dnsmos

DEFAULT_PREDICTOR = "dnsmos"


class MosPredictor(Protocol):
    """What a predictor offers.

    Attributes:
        name: as it stands beside its figures.
    """

    name: str

    def predict(self, waveform: Tensor, sample_rate: int) -> float | None:
        """Rates a recording, float ``[N]`` in [-1, 1], rate in Hz: 1 to 5; None if there is nothing to rate."""


def _load_dnsmos(device: str) -> MosPredictor:
    return load_dnsmos()


PREDICTORS: PluginNames[MosPredictor] = PluginNames("MOS predictor", "audiollm.mos_predictors")
PREDICTORS.register(DEFAULT_PREDICTOR, _load_dnsmos)


def load_predictor(name: str = DEFAULT_PREDICTOR, device: str = "cpu") -> MosPredictor:
    """Loads a predictor.

    Raises:
        ValueError: there is none of this name.
        ImportError: the package that it needs is not installed.
    """
    return PREDICTORS.make(name, device)
