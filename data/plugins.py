"""Parts that are chosen by name: ours, registered ones, and those that installed packages offer by entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

_PartT = TypeVar("_PartT")


class PluginNames(Generic[_PartT]):
    """Factories by name.

    Args:
        kind: what the parts are, for messages, such as "MOS predictor".
        group: entry-point group under which packages offer theirs.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, Callable[..., _PartT]] = {}

    def register(self, name: str, factory: Callable[..., _PartT], *, replace: bool = False) -> None:
        """Adds a part under a name; the factory is called when the part is asked for.

        Raises:
            ValueError: the name is empty, or taken.
        """
        if not name:
            raise ValueError(f"a {self.kind} needs a name to be asked for")
        if name in self.available() and not replace:
            raise ValueError(f"there is a {self.kind} {name!r} already; choose another name, or pass replace=True")
        self._factories[name] = factory

    def available(self) -> list[str]:
        """All names."""
        return sorted({*self._factories, *(entry.name for entry in entry_points(group=self.group))})

    def find(self, name: str) -> Callable[..., _PartT] | None:
        """The factory of this name; None if there is none."""
        if name in self._factories:
            return self._factories[name]
        loaded: Any = next((entry.load() for entry in entry_points(group=self.group) if entry.name == name), None)
        return loaded

    def factory(self, name: str) -> Callable[..., _PartT]:
        """The factory of this name.

        Raises:
            ValueError: there is none.
        """
        factory = self.find(name)
        if factory is None:
            raise ValueError(f"no {self.kind} {name!r}; there are {', '.join(self.available())}")
        return factory

    def make(self, name: str, *arguments: Any) -> _PartT:
        """Makes the part of this name.

        Raises:
            ValueError: there is none.
        """
        return self.factory(name)(*arguments)
