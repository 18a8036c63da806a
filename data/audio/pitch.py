"""The WORLD vocoder's estimators of fundamental frequency, by the pyworld package."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType


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
