"""The sections of a check, most important first, and how the time is shared out among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

LEAST_SECONDS = 15.0
"""In which a section can do something: its process alone takes some seconds to start."""

_DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
"""Module → what pip calls it, where that is another name, apart from hyphens."""


@dataclass(frozen=True)
class Section:
    """A part of the check.

    Attributes:
        name: as ``--sections`` has it.
        title: in the table.
        module: run by ``python -m``.
        weight: share of the time, relative to the other sections.
        needs: modules without which it is skipped.
        arguments: of the module's ``measure``, in its settings.
    """

    name: str
    title: str
    module: str
    weight: float
    needs: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)


MACHINE = Section("machine", "machine", "audiollm.benchmarks.speed.gpu.machine", 2.5)

SECTIONS: tuple[Section, ...] = (
    MACHINE,
    Section("tests", "tests", "audiollm.benchmarks.speed.gpu.marked_tests", 2.5, ("pytest",)),
    Section("encode", "encode", "audiollm.benchmarks.speed.gpu.encode", 4),
    Section("sft-0.5b", "fine-tune, 0.5B", "audiollm.training.speed.sft", 4, arguments={"shape": "Qwen2.5-0.5B"}),
    Section("decode", "decode", "audiollm.benchmarks.speed.gpu.decode", 3),
    Section("sft-1.5b", "fine-tune, 1.5B", "audiollm.training.speed.sft", 4, arguments={"shape": "Qwen2.5-1.5B"}),
    Section(
        "generate", "generate, 0.5B", "audiollm.benchmarks.speed.gpu.generate", 2.5,
        ("soundfile", "soxr", "jsonargparse", "docstring_parser", "jinja2", "datasets"),
    ),
)  # fmt: skip


def chosen_sections(names: Sequence[str] | None) -> list[Section]:
    """The sections of these names, in the order of their importance; the machine's is always among them.

    Args:
        names: None for all.

    Raises:
        ValueError: naming those that there are.
    """
    known = [section.name for section in SECTIONS]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"sections: {', '.join(unknown)} unknown; choose among {', '.join(known)}")
    return [section for section in SECTIONS if names is None or section.name in names or section is MACHINE]


def seconds_for(section: Section, later: Sequence[Section], seconds_left: float) -> float:
    """Time of a section that is about to start: its share of what is left, so that what others left is shared too."""
    return seconds_left * section.weight / (section.weight + sum(one.weight for one in later))


def missing_packages(modules: Sequence[str]) -> list[str]:
    """Those that are not installed, as pip calls them."""
    return [distribution_of(name) for name in modules if find_spec(name) is None]


def distribution_of(module: str) -> str:
    """What pip calls the package of a module."""
    name = module.partition(".")[0]
    return _DISTRIBUTIONS.get(name, name.replace("_", "-"))


def how_to_get(packages: Sequence[str]) -> str:
    """Why something was skipped."""
    return f"needs what is not installed: pip install {' '.join(packages)}"
