"""The HyperPyYAML of released waveform decoders, read without ever executing what it asks for.

In that dialect a tag such as ``!new:package.Class`` asks for an object to be made. Nothing is made here: a tag found in
a closed list of class names is remembered as a name beside the plain values under it (`Part`), ``!ref <name>``
gives the plain value of a top-level entry, and every other tag is an error that names it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_FILE_BYTES = 1 << 16  # released files have 5 kB; a megabyte of commas takes half a minute to read
MAX_REFERENCES = 16  # one after the other; released files have one

# What the classes of a release are to us. The language model's are only known so that its section can be passed over.
CLASSES = {
    "cosyvoice.flow.flow.MaskedDiffWithXvec": "flow",
    "cosyvoice.transformer.encoder.BlockConformerEncoder": "block encoder",
    "cosyvoice.transformer.encoder.ConformerEncoder": "encoder",
    "cosyvoice.flow.length_regulator.InterpolateRegulator": "length regulator",
    "cosyvoice.flow.flow_matching.ConditionalCFM": "flow matching",
    "cosyvoice.flow.decoder.ConditionalDecoder": "estimator",
    "cosyvoice.hifigan.generator.HiFTGenerator": "vocoder",
    "cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor": "f0 predictor",
    "omegaconf.DictConfig": "mapping",
    "cosyvoice.llm.llm.TransformerLM": "language model",
    "cosyvoice.transformer.encoder.TransformerEncoder": "language model",
}
PACKAGE_PREFIXES = ("src.", "CosyVoice.")  # where forks put the package
# Released files ask for these calls at their top. They seed training, so they mean nothing here: not called, not kept.
PASSED_OVER_CALLS = ("random.seed", "numpy.random.seed", "torch.manual_seed", "torch.cuda.manual_seed_all")


@dataclass(frozen=True)
class Part:
    """A ``!new:`` section: the kind of class it names, and the plain values under it."""

    kind: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """``!ref <name>``: the value of another top-level entry."""

    name: str


class _ReleasedLoader(yaml.SafeLoader):
    """Plain YAML values, the tags above, and no others."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            # Few bytes of nested aliases make gigabytes of values, and no release uses them.
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not accepted", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):  # anything else is the parent's to refuse
            keys = Counter(str(key.value) for key, _ in node.value)
            repeated = [key for key, count in keys.items() if count > 1]
            if repeated:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{', '.join(repeated)} given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _construct_new(loader: _ReleasedLoader, class_name: str, node: yaml.Node) -> Part:
    bare = class_name
    for prefix in PACKAGE_PREFIXES:
        bare = bare.removeprefix(prefix)
    if bare not in CLASSES:
        _refuse(loader, node)
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.tag} must be followed by its settings", node.start_mark
        )
    return Part(CLASSES[bare], loader.construct_mapping(node, deep=True))


def _construct_call(loader: _ReleasedLoader, function_name: str, node: yaml.Node) -> None:
    if function_name not in PASSED_OVER_CALLS:
        _refuse(loader, node)


def _construct_reference(loader: _ReleasedLoader, node: yaml.Node) -> Reference:
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    found = re.fullmatch(r"<(\w+)>", text)
    if not found:
        raise yaml.constructor.ConstructorError(
            None, None, f"!ref {text}: only !ref <name of a top-level entry> is understood", node.start_mark
        )
    return Reference(found[1])


def _refuse(loader: _ReleasedLoader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {node.tag} is not one of a released decoder; nothing was executed", node.start_mark
    )


_ReleasedLoader.add_multi_constructor("!new:", _construct_new)
_ReleasedLoader.add_multi_constructor("!apply:", _construct_call)
_ReleasedLoader.add_constructor("!ref", _construct_reference)
_ReleasedLoader.add_constructor(None, _refuse)
_ReleasedLoader.add_implicit_resolver(  # YAML 1.1 takes 1e-06 for a string, for want of a dot
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a released ``config.yaml`` into plain values, `Part` sections, and resolved references.

    Raises:
        ValueError: for a tag outside the closed list (named), a reference to nothing, or a file that is not YAML.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a decoder's config.yaml has a few thousand")
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=_ReleasedLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is refused: {_one_line(error)}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} holds a {type(entries).__name__}, not sections such as flow and hift")
    return {name: _resolve(value, entries, path, ()) for name, value in entries.items()}


def _resolve(value: Any, entries: dict[str, Any], path: Path, trail: tuple[str, ...]) -> Any:
    if isinstance(value, Reference):
        if value.name not in entries:
            raise ValueError(f"{path}: !ref <{value.name}> points at nothing; there is no such top-level entry")
        if value.name in trail:
            raise ValueError(f"{path}: !ref <{value.name}> points back at itself")
        if len(trail) >= MAX_REFERENCES:
            raise ValueError(f"{path}: !ref <{value.name}> is the end of a chain of more than {MAX_REFERENCES}")
        target = _resolve(entries[value.name], entries, path, (*trail, value.name))
        if isinstance(target, Part | dict | list):  # references to references to lists make gigabytes of few bytes
            raise ValueError(f"{path}: !ref <{value.name}> points at a section; only plain values can be referred to")
        return target
    if isinstance(value, Part):
        return Part(value.kind, _resolve(value.values, entries, path, trail))
    if isinstance(value, dict):
        return {key: _resolve(entry, entries, path, trail) for key, entry in value.items()}
    if isinstance(value, list):
        return [_resolve(entry, entries, path, trail) for entry in value]
    return value


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{error.problem or error.context}" + (f" (line {mark.line + 1})" if mark else "")
    return " ".join(str(error).split())


_REQUIRED: Any = object()


class Section:
    """Takes typed entries out of one section and names what is missing, wrong, or left over."""

    def __init__(self, values: dict[str, Any], path: str, kind: str = "") -> None:
        self._values, self._path, self.kind = values, path, kind
        self._taken: set[str] = set()

    def _take(self, name: str, default: Any = _REQUIRED) -> Any:
        self._taken.add(name)
        value = self._values.get(name, default)
        if value is _REQUIRED:
            raise ValueError(f"{self._path} lacks {name}")
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> ValueError:
        shown = f"a {value.kind} class" if isinstance(value, Part) else repr(value)
        return ValueError(f"{self._path}: {name} is {shown}; expected {expected}")

    def part(self, name: str, *kinds: str) -> Section:
        """The section under ``name``, which must name a class of one of these kinds."""
        value = self._take(name)
        if not isinstance(value, Part) or value.kind not in kinds:
            raise self._wrong(name, value, f"a section with a !new: tag of a {kinds[0]} class")
        return Section(value.values, f"{self._path}: {name}", value.kind)

    def mapping(self, name: str) -> Section:
        """The plain values under ``name``, wrapped into a DictConfig or not."""
        value = self._take(name)
        if isinstance(value, Part) and value.kind == "mapping":
            value = value.values.get("content")
        if not isinstance(value, dict):
            raise self._wrong(name, value, "a mapping")
        return Section(value, f"{self._path}: {name}")

    def integer(self, name: str, default: Any = _REQUIRED) -> int:
        value = self._take(name, default)
        if not _is_integer(value):
            raise self._wrong(name, value, "a whole number")
        return int(value)

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        value = self._take(name, default)
        if not _is_integer(value) and not (isinstance(value, float) and math.isfinite(value)):
            raise self._wrong(name, value, "a finite number")
        return float(value)

    def integers(self, name: str) -> tuple[int, ...]:
        value = self._take(name)
        if not isinstance(value, list) or not all(_is_integer(entry) for entry in value):
            raise self._wrong(name, value, "a list of whole numbers")
        return tuple(value)

    def integer_rows(self, name: str) -> tuple[tuple[int, ...], ...]:
        value = self._take(name)
        if not isinstance(value, list) or not all(
            isinstance(row, list) and all(_is_integer(entry) for entry in row) for row in value
        ):
            raise self._wrong(name, value, "a list of lists of whole numbers")
        return tuple(tuple(row) for row in value)

    def text(self, name: str, allowed: Iterable[str], default: Any = _REQUIRED) -> str:
        value = self._take(name, default)
        if value not in tuple(allowed):
            raise self._wrong(name, value, " or ".join(allowed))
        return str(value)

    def must_be(self, name: str, only: Any, default: Any = _REQUIRED) -> None:
        """Refuses a value that this package does not implement."""
        value = self._take(name, default)
        if isinstance(value, bool) != isinstance(only, bool) or value != only:
            raise self._wrong(name, value, f"{only!r}, the only one that this package builds")

    def skip(self, *names: str) -> None:
        """Passes over entries that do not change what a loaded decoder computes."""
        self._taken.update(names)

    def built(self, config: type, **values: Any) -> Any:
        """Makes a configuration, putting this section's name before what it refuses."""
        try:
            return config(**values)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def end(self) -> None:
        """Refuses entries that nobody asked for: they would be silently without effect."""
        unknown = sorted(str(name) for name in self._values.keys() - self._taken)
        if unknown:
            raise ValueError(f"{self._path}: unknown entries {', '.join(unknown)}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
