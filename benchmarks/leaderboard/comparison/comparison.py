"""What changed from one result to another: figures, items, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiollm.benchmarks.leaderboard.result_files import ResultFile, find_results, read_result
from audiollm.benchmarks.questions.base import first_problems

from .comparable import ComparableResult, MeasuredFigure, comparable
from .paired_tests import TestedDifference, bootstrap_difference, fisher, mcnemar


@dataclass(frozen=True)
class ComparedFigure:
    """A figure in both results.

    Attributes:
        name: of the figure.
        old: its value before; None if there was none.
        new: its value now.
        gain: new less old, with the sign turned where lower is better; None unless both are known.
        better: which direction is.
        is_main: whether it speaks for the whole result.
        tested: against chance; None if the results do not hold what it takes.
    """

    name: str
    old: float | None
    new: float | None
    gain: float | None
    better: str
    is_main: bool
    tested: TestedDifference | None


@dataclass(frozen=True)
class Comparison:
    """Two results.

    Attributes:
        name: of the file, relative to the folders that are compared.
        kind: of the results.
        different: the conditions that differ, with both values.
        is_refused: whether nothing was compared because of them.
        remarks: what else differs.
        figures: what was compared.
        lost: items that were right and are wrong, or whose value became worse, by figure.
        won: the other way round.
        unpaired: items that are counted in one of the two only, by figure.
    """

    name: str
    kind: str
    different: Mapping[str, tuple[Any, Any]]
    is_refused: bool
    remarks: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    figures: tuple[ComparedFigure, ...] = ()
    lost: Mapping[str, list[str]] = field(default_factory=dict)
    won: Mapping[str, list[str]] = field(default_factory=dict)
    unpaired: Mapping[str, list[str]] = field(default_factory=dict)

    def falls_below(self, threshold: float, *, beyond_chance: bool = False) -> list[ComparedFigure]:
        """Main figures whose gain is below a threshold, or that are gone.

        Args:
            threshold: 0 for any loss, -0.01 for losses of more than a point.
            beyond_chance: of the losses only those that are beyond chance.
        """
        return [figure for figure in self.figures if figure.is_main and _falls(figure, threshold, beyond_chance)]


def _falls(figure: ComparedFigure, threshold: float, beyond_chance: bool) -> bool:
    # A figure that is gone has not held. One that is new, or was never measured, has nothing to fall from.
    if figure.gain is None:
        return figure.old is not None and figure.new is None
    is_tested = figure.tested is not None and figure.tested.beyond_chance
    return figure.gain < threshold and (is_tested or not beyond_chance)


@dataclass
class ComparedSets:
    """Two folders of results, or two files.

    Attributes:
        comparisons: of the files that both have.
        only_old: files that the new folder lacks.
        only_new: files that the old folder lacks.
        unread: files that are no results, and why.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    only_old: list[str] = field(default_factory=list)
    only_new: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def compare_sets(old: Path, new: Path, *, allow_different: bool = False) -> ComparedSets:
    """Compares two result files, or all results of the same name in two folders.

    Args:
        old: file or folder.
        new: the same.
        allow_different: compare results of different data, modes or prompts nevertheless, and say what differs.

    Raises:
        ValueError: if one is a file and the other a folder, a file is no result, or two files are of different kinds.
        FileNotFoundError: if one does not exist.
    """
    for path in (old, new):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such result file or folder")
    if old.is_dir() != new.is_dir():
        raise ValueError(f"{old} and {new}: give two result files or two folders")
    if old.is_file():
        pair = read_result(old), read_result(new)
        return ComparedSets([compare_results(*pair, name=new.name, allow_different=allow_different)])
    found_old, found_new = find_results(old), find_results(new)
    by_name_old = {result.path.relative_to(old).as_posix(): result for result in found_old.results}
    by_name_new = {result.path.relative_to(new).as_posix(): result for result in found_new.results}
    unread = [f"{file.path}: {file.reason}" for file in (*found_old.unread, *found_new.unread)]
    sets = ComparedSets(
        only_old=sorted(by_name_old.keys() - by_name_new.keys()),
        only_new=sorted(by_name_new.keys() - by_name_old.keys()),
        unread=unread,
    )
    for name in sorted(by_name_old.keys() & by_name_new.keys()):
        try:
            sets.comparisons.append(
                compare_results(by_name_old[name], by_name_new[name], name=name, allow_different=allow_different)
            )
        except ValueError as error:
            sets.unread.append(f"{name}: {error}")
    if not sets.comparisons:
        raise ValueError(
            f"{old} and {new} have no result of the same name: {_some(sets.only_old)} in the old, "
            f"{_some(sets.only_new)} in the new"
            + (f"; not read: {first_problems(sets.unread, limit=3)}" if sets.unread else "")
        )
    return sets


def _some(names: Sequence[str]) -> str:
    return first_problems(names) or "none"


def compare_results(old: ResultFile, new: ResultFile, *, name: str, allow_different: bool = False) -> Comparison:
    """Compares two results of one benchmark.

    Args:
        old: before.
        new: now.
        name: to call the pair by.
        allow_different: see `compare_sets`.

    Raises:
        ValueError: if they are of different kinds or benchmarks.
    """
    if (old.kind, old.benchmark) != (new.kind, new.benchmark):
        raise ValueError(
            f"{old.path} is a result of {old.benchmark} ({old.kind}), {new.path} of {new.benchmark} ({new.kind}); "
            "they do not compare"
        )
    before, now = comparable(old), comparable(new)
    different = _differences(before.conditions, now.conditions)
    if different and not allow_different:
        return Comparison(name, new.kind, different, is_refused=True)
    return _compared(name, new.kind, before, now, different)


def _compared(
    name: str, kind: str, before: ComparableResult, now: ComparableResult, different: Mapping[str, tuple[Any, Any]]
) -> Comparison:
    figures, lost, won, unpaired = [], {}, {}, {}
    for figure_name in dict.fromkeys((*before.figures, *now.figures)):
        old, new = before.figures.get(figure_name), now.figures.get(figure_name)
        figures.append(_figure(figure_name, old, new))
        if old is None or new is None:
            continue
        old_items, new_items = _values(old), _values(new)
        sign = 1 if new.better == "higher" else -1
        changes = {item: sign * (new_items[item] - value) for item, value in old_items.items() if item in new_items}
        lost[figure_name] = [item for item, change in changes.items() if change < 0]
        won[figure_name] = [item for item, change in changes.items() if change > 0]
        unpaired[figure_name] = sorted(old_items.keys() ^ new_items.keys())
    return Comparison(
        name,
        kind,
        different,
        is_refused=False,
        remarks=_differences(before.remarks, now.remarks),
        figures=tuple(figures),
        lost={key: items for key, items in lost.items() if items},
        won={key: items for key, items in won.items() if items},
        unpaired={key: items for key, items in unpaired.items() if items},
    )


def _figure(name: str, old: MeasuredFigure | None, new: MeasuredFigure | None) -> ComparedFigure:
    known = new or old
    assert known is not None
    before, now = (None if one is None else one.value for one in (old, new))
    gain = None
    if before is not None and now is not None:
        gain = now - before if known.better == "higher" else before - now
    tested = None if old is None or new is None else _tested(old, new)
    return ComparedFigure(name, before, now, gain, known.better, known.is_main, tested)


def _tested(old: MeasuredFigure, new: MeasuredFigure) -> TestedDifference | None:
    # The sharpest test that the two results allow: items right or wrong in pairs, values in pairs, mere counts.
    if old.right is not None and new.right is not None:
        both = [item for item in old.right if item in new.right]
        return mcnemar([old.right[item] for item in both], [new.right[item] for item in both]) if both else None
    if old.values and new.values:
        return bootstrap_difference(old.values, new.values)
    if old.counts is not None and new.counts is not None:
        return fisher(old.counts, new.counts)
    return None


def _values(figure: MeasuredFigure) -> dict[str, float]:
    return {item: float(value) for item, value in (figure.right or figure.values or {}).items()}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys((*old, *new))
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}
