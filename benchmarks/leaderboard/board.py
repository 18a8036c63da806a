"""The leaderboard of a folder of results: its tables, and what could not be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .other_rows import OTHER_KINDS, other_rows
from .published import PublishedTable, published_tables
from .question_rows import baseline_rows, is_of_custom_set, judged_row, question_row
from .result_files import FoundResults, ResultFile, UnreadFile, find_results
from .rows import LeaderboardRow, LeaderboardTable, published_rows
from .speech_rows import (
    clustering_rows,
    control_rows,
    reconstruction_rows,
    seed_tts_file_rows,
    seed_tts_rows,
    transcription_rows,
)
from .traces import PredictionFiles

# Columns of our own runs, where the data need not be those of the papers.
_OWN_COLUMNS = {
    "reconstruction": ("WER", "SIM", "MOS", "STOI", "mel distance", "frames per second", "bit/s"),
    "clustering": ("silhouette", "purity", "NMI"),
}
_QUESTIONS = ("mmau", "mmar", "mmsu")
# What a result of a fixed form may still lack inside.
_ODD_CONTENT = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


@dataclass
class Leaderboard:
    """What the page shows.

    Attributes:
        root: the folder of results.
        tables: with our rows and the published ones.
        unread: files that are no results, and results that cannot be shown.
        num_results: files whose figures are shown.
        parts: files that runs keep beside their results.
    """

    root: Path
    tables: list[LeaderboardTable]
    unread: list[UnreadFile]
    num_results: int = 0
    parts: list[Path] = field(default_factory=list)

    @property
    def untraceable(self) -> list[LeaderboardRow]:
        """Our rows whose predictions are missing or have changed."""
        return [row for table in self.tables for row in table.rows if not row.is_traceable]

    @property
    def trace_problems(self) -> list[str]:
        """Why predictions behind our rows cannot be traced, with the file and the model of the row."""
        return [
            f"{row.source}, {row.model}: {trace.problem}"
            for row in self.untraceable
            for trace in row.traces
            if trace.problem is not None
        ]


class _Rows:
    """Makes rows, and keeps what cannot be made into one."""

    def __init__(self, found: FoundResults) -> None:
        self.unread = list(found.unread)
        self._failed: set[Path] = set()

    def of(
        self, results: Sequence[ResultFile], make: Callable[[ResultFile], Sequence[LeaderboardRow]]
    ) -> list[LeaderboardRow]:
        rows: list[LeaderboardRow] = []
        for result in results:
            try:
                rows += make(result)
            except _ODD_CONTENT as error:
                if result.path not in self._failed:
                    self._failed.add(result.path)
                    told = f"a result of the kind {result.kind!r}, but {type(error).__name__}: {error}"
                    self.unread.append(UnreadFile(result.path, told))
        return rows


def build_leaderboard(folder: Path) -> Leaderboard:
    """Reads every result below a folder.

    Args:
        folder: with results of any depth; or one result file.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    found = find_results(folder)
    files, rows, published = PredictionFiles(folder), _Rows(found), published_tables()
    by_kind: dict[str, list[ResultFile]] = {}
    for result in found.results:
        by_kind.setdefault(result.kind, []).append(result)
    tables = [
        *(table for name in _QUESTIONS for table in _question_tables(published[name], by_kind, files, rows)),
        *_two_tables(
            published["clustering"],
            rows.of(
                [*by_kind.get("clustering", []), *by_kind.get("sound classes", [])],
                lambda result: clustering_rows(result, files),
            ),
        ),
        *_two_tables(
            published["reconstruction"],
            rows.of(by_kind.get("reconstruction", []), lambda result: reconstruction_rows(result, files)),
        ),
        _table(published["controllable-tts"], []),
        *_own_table(
            "Control of the voice",
            "%",
            "Share of recordings in which the value asked for was heard.",
            rows.of(by_kind.get("attribute control", []), lambda result: control_rows(result, files)),
        ),
        *_own_table(
            "Transcription",
            "%",
            "Errors over words, or characters of languages without spaces, after Whisper's text normalization.",
            rows.of(by_kind.get("transcription", []), lambda result: transcription_rows(result, files)),
        ),
        _table(
            published["seed-tts"],
            [
                *rows.of(by_kind.get("seed-tts", []), lambda result: seed_tts_rows(result, files)),
                *rows.of(
                    [*by_kind.get("seed-tts wer", []), *by_kind.get("seed-tts sim", [])],
                    lambda result: seed_tts_file_rows(result, files),
                ),
            ],
        ),
        *_other_tables(rows.of([one for kind in OTHER_KINDS for one in by_kind.get(kind, [])], other_rows)),
    ]
    unread = sorted(rows.unread, key=lambda file: file.path)
    failed = {file.path for file in rows.unread}
    num_results = sum(result.path not in failed for result in found.results)
    return Leaderboard(folder, tables, unread, num_results, found.parts)


def _question_tables(
    table: PublishedTable, by_kind: dict[str, list[ResultFile]], files: PredictionFiles, rows: _Rows
) -> list[LeaderboardTable]:
    """The benchmark's table with ours and the published rows; and one of our rows on sets of one's own, if any."""

    def of(kind: str, on_custom_sets: bool) -> list[ResultFile]:
        of_this = [result for result in by_kind.get(kind, []) if result.benchmark == table.benchmark]
        return [result for result in of_this if is_of_custom_set(result.content) == on_custom_sets]

    on_its_data = _question_rows(of("questions", False), of("judged questions", False), files, rows)
    on_custom_sets = _question_rows(of("questions", True), of("judged questions", True), files, rows)
    tables = [_table(table, on_its_data)]
    if on_custom_sets:
        tables.append(
            LeaderboardTable(
                title=f"{table.title}: sets of one's own in its layout",
                columns=table.columns,
                unit=table.unit,
                note="None of the benchmark's questions: only figures on the same data compare.",
                rows=on_custom_sets,
            )
        )
    return tables


def _question_rows(
    scored: Sequence[ResultFile], judged: Sequence[ResultFile], files: PredictionFiles, rows: _Rows
) -> list[LeaderboardRow]:
    ours = rows.of(scored, lambda result: [question_row(result, judged, files)])
    scored_hashes = {str((result.content.get("predictions") or {}).get("sha256")) for result in scored}
    # Verdicts on predictions that were scored stand in the row of their score; these have a row of their own.
    alone = [one for one in judged if str((one.content.get("predictions") or {}).get("sha256")) not in scored_hashes]
    ours += rows.of(alone, lambda result: [judged_row(result, files)])
    baselines = rows.of(scored, lambda result: baseline_rows([result]))
    return [*ours, *_each_once(baselines)]


def _each_once(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Baselines are the same for all results on the same questions."""
    return list({(row.model, tuple(row.conditions.items()), str(row.figures)): row for row in rows}.values())


def _table(
    table: PublishedTable, ours: Sequence[LeaderboardRow], columns: Sequence[str] | None = None
) -> LeaderboardTable:
    shown = list(columns or table.columns)
    shown += [name for row in ours for name in row.figures if name not in shown] if columns is None else []
    return LeaderboardTable(
        title=table.title,
        columns=tuple(dict.fromkeys(shown)),
        unit=table.unit,
        note=table.note,
        rows=[*ours, *published_rows(table)],
    )


def _two_tables(table: PublishedTable, ours: Sequence[LeaderboardRow]) -> list[LeaderboardTable]:
    """The paper's table with our rows on its data, and one with all our rows."""
    of_sets = set(table.columns) - set(_OWN_COLUMNS[table.benchmark])
    on_its_data = [row for row in ours if not of_sets.isdisjoint(row.figures)]
    tables = [_table(table, on_its_data, table.columns)]
    if ours:
        tables.append(
            LeaderboardTable(
                title=f"{table.title}: our runs",
                columns=_OWN_COLUMNS[table.benchmark],
                unit=table.unit,
                note="On whatever data they were run; the conditions say which.",
                rows=ours,
            )
        )
    return tables


def _own_table(title: str, unit: str, note: str, ours: Sequence[LeaderboardRow]) -> list[LeaderboardTable]:
    """A table of what no paper has figures of; none without rows."""
    columns = tuple(dict.fromkeys(name for row in ours for name in row.figures))
    return [LeaderboardTable(title=title, columns=columns, unit=unit, note=note, rows=ours)] if ours else []


def _other_tables(ours: Sequence[LeaderboardRow]) -> list[LeaderboardTable]:
    """A table for each kind of other result: the first word of a row's source of figures."""
    by_kind: dict[str, list[LeaderboardRow]] = {}
    for row in ours:
        by_kind.setdefault(row.conditions["kind"], []).append(row)
    return [table for kind, rows in by_kind.items() for table in _own_table(kind, "", "", rows)]
