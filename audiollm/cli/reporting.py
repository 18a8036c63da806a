"""Commands that score and compare: studies of tokenizers, the leaderboard page, what changed between two results."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts

from .console import write_line


def report(
    results: str, *, output: str | None = None, strict: bool = False, overwrite: bool = False, json: bool = False
) -> None:
    """Build a leaderboard page of result files, beside the published figures: Markdown, and one HTML file.

    Args:
        results: folder with result files, of any depth.
        output: where the page goes, without ending; leaderboard in the folder of results, made anew each time, if not
            given.
        strict: fail if a file cannot be read, or figures cannot be traced to their predictions.
        overwrite: replace pages that exist at --output.
        json: print what was found as JSON.
    """
    from audiollm.benchmarks.leaderboard.board import build_leaderboard
    from audiollm.benchmarks.leaderboard.page import page_paths, write_pages

    folder = Path(results)
    beside = folder if folder.is_dir() else folder.parent
    if output is None and overwrite:
        raise ValueError("--overwrite needs --output: leaderboard in the folder of results is always made anew")
    for path in () if output is None else page_paths(output):
        refuse_existing(path, overwrite)
    board = build_leaderboard(folder)
    if not board.num_results:
        reasons = "; ".join(f"{file.path}: {file.reason}" for file in board.unread[:3])
        raise ValueError(
            f"{results} holds no results that can be shown: give a folder with result files (*.json), as audiollm "
            f"bench writes them{f'; not read: {reasons}' if reasons else ''}"
        )
    pages = write_pages(board, output or beside / "leaderboard")
    untraceable = board.trace_problems
    unread = [f"{file.path}: {file.reason}" for file in board.unread]
    summary = {"pages": [str(path) for path in pages], "results": board.num_results}
    if json:
        write_line(jsonlib.dumps(summary | {"not_read": unread, "not_traceable": untraceable}))
    else:
        shown = summary | {
            "pages": ", ".join(map(str, pages)),
            "not read": len(unread),
            "not traceable": len(untraceable),
        }
        show_facts(shown, title=f"leaderboard of {results}")
        for line in (*(f"not read: {one}" for one in unread), *(f"not traceable: {one}" for one in untraceable)):
            sys.stderr.write(line + "\n")
    if strict and (unread or untraceable):
        raise ValueError(
            f"{len(unread)} files could not be read and {len(untraceable)} figures not be traced to their predictions"
        )


def compare_results(
    old: str,
    new: str,
    *,
    fail_below: float | None = None,
    beyond_chance: bool = False,
    allow_different: bool = False,
    max_items: int = 20,
    output: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Compare two result files, or two folders of results: figures, items that changed, and whether it is chance.

    Results of different data, modes or prompts are not compared; the exit status is then 1.

    Args:
        old: result file or folder.
        new: the same.
        fail_below: exit with status 1 if a main figure gains less than this, such as 0 (any loss) or -0.01.
        beyond_chance: with fail_below, only count losses that are beyond chance.
        allow_different: compare in spite of different data, modes or prompts, and say what differs.
        max_items: show so many changed items of a figure.
        output: file for all of it as JSON.
        overwrite: replace an output that exists.
        json: print it as JSON.
    """
    from dataclasses import asdict

    from audiollm.benchmarks.harness.figures import write_figures
    from audiollm.benchmarks.leaderboard.comparison.comparison import compare_sets
    from audiollm.benchmarks.leaderboard.comparison.table import show_comparisons

    if beyond_chance and fail_below is None:
        raise ValueError("--beyond-chance needs --fail-below, which says what counts as a failure")
    if output is not None:
        refuse_existing(output, overwrite)
    sets = compare_sets(Path(old), Path(new), allow_different=allow_different)
    fallen = [
        f"{one.name}: {figure.name} {figure.old:g} to {'nothing' if figure.new is None else format(figure.new, 'g')}"
        for one in (sets.comparisons if fail_below is not None else ())
        for figure in one.falls_below(fail_below or 0.0, beyond_chance=beyond_chance)
    ]
    refused = [comparison for comparison in sets.comparisons if comparison.is_refused]
    summary = asdict(sets) | {
        "old": old,
        "new": new,
        "fail_below": fail_below,
        "fallen": fallen,
        "n_failed": len(fallen),
    }
    text = write_figures(summary, output)
    if json:
        write_line(text)
    else:
        show_comparisons(sets, max_items=max_items)
    problems = [f"{one.name} is of different {', '.join(one.different)}" for one in refused]
    if fallen:
        problems.append(f"{len(fallen)} figures fall below {fail_below:+g}: {'; '.join(fallen)}")
    if fail_below is not None and sets.only_old:
        problems.append(f"{len(sets.only_old)} results are gone, such as {sets.only_old[0]}")
    if problems:
        raise ValueError("; ".join(problems))


def compare(
    study: str,
    *,
    output_dir: str | None = None,
    measures_only: bool = False,
    json: bool = False,
) -> None:
    """Compare audio tokenizers: on the same recordings, by the same measures, in the same LLM; one table.

    Args:
        study: YAML file of the study: tokenizers, data, measures and, if wanted, the LLM that is trained on each.
        output_dir: folder of the run, which goes on where it was if it was stopped; runs/compare and the name of the
            study's file, if not given.
        measures_only: leave out the trainings that the file asks for.
        json: print where the pages are as JSON.
    """
    from audiollm.training.recipes.comparison.comparing import compare_tokenizers

    folder = output_dir or str(Path("runs") / "compare" / Path(study).stem)
    pages = compare_tokenizers(study, folder, measures_only=measures_only, tell=_tell)
    if json:
        write_line(jsonlib.dumps({"pages": [str(path) for path in pages]}))
    else:
        show_facts({path.suffix.lstrip("."): str(path) for path in pages}, title=f"comparison of {study}")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
