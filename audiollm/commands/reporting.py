"""Commands on results: the leaderboard page, and what changed between two sets of results."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from .console import show, write_line


def report(results: str, *, output: str | None = None, strict: bool = False, json: bool = False) -> None:
    """Build a leaderboard page of result files, beside the published figures: Markdown, and one HTML file.

    Args:
        results: folder with result files, of any depth.
        output: where the page goes, without ending; leaderboard in the folder of results, if not given.
        strict: fail if a file cannot be read, or figures cannot be traced to their predictions.
        json: print what was found as JSON.
    """
    from audiollm.benchmarks.leaderboard.leaderboard import build_leaderboard
    from audiollm.benchmarks.leaderboard.leaderboard_page import write_pages

    folder = Path(results)
    board = build_leaderboard(folder)
    beside = folder if folder.is_dir() else folder.parent
    pages = write_pages(board, output or beside / "leaderboard")
    untraceable = [
        f"{row.source}, {row.model}: {trace.problem}"
        for row in board.untraceable
        for trace in row.traces
        if trace.problem is not None
    ]
    unread = [f"{file.path}: {file.reason}" for file in board.unread]
    facts = {"pages": [str(path) for path in pages], "results": board.num_results}
    if json:
        write_line(jsonlib.dumps(facts | {"not_read": unread, "not_traceable": untraceable}))
    else:
        shown = facts | {
            "pages": ", ".join(map(str, pages)),
            "not read": len(unread),
            "not traceable": len(untraceable),
        }
        show(shown, as_json=False, title=f"leaderboard of {results}")
        for line in (*(f"not read: {one}" for one in unread), *(f"not traceable: {one}" for one in untraceable)):
            sys.stderr.write(line + "\n")
    if strict and (unread or untraceable):
        raise ValueError(
            f"{len(unread)} files could not be read and {len(untraceable)} figures not be traced to their predictions"
        )
