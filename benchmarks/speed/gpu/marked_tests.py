"""The tests that are marked ``gpu``, by pytest in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import partial
from pathlib import Path

import audiollm
from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.benchmarks.speed.gpu.plan import missing_packages

_MARK = "pytest.mark.gpu"
_OF_ALL_TESTS = ("soundfile", "jsonargparse", "docstring_parser", "shtab", "datasets")
"""What ``tests/conftest.py`` imports, by itself or through ours; the tests of models alone go without."""
_TOLD_FAILURES = 3


def measure(measurements: Measurements) -> None:
    """Runs them; where there is no GPU they are only collected."""
    name = "tests marked gpu"
    measurements.announce([name])
    folder = Path(audiollm.__file__).resolve().parent.parent / "tests"
    files = marked_files(folder)
    if not files:
        measurements.leave_out(name, "skipped", f"there are no such tests in {folder}: run this in a clone")
        return
    collects = measurements.device.type == "cpu"
    seconds = max(1.0, measurements.settings.ends_at - time.time())
    measurements.make(name, partial(_run, folder, files, seconds, collects=collects))


def marked_files(folder: Path) -> list[Path]:
    """Files of tests that hold such a test."""
    return sorted(path for path in folder.rglob("test_*.py") if f"@{_MARK}" in path.read_text(encoding="utf-8"))


def _run(folder: Path, files: list[Path], seconds: float, *, collects: bool) -> Figures:
    missing = missing_packages(_OF_ALL_TESTS)
    # The fixtures of all tests need more than the models do: without it, those beside the tests are enough.
    cut = [f"--confcutdir={os.path.commonpath([path.parent for path in files])}"] if missing else []
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [*cut, *(["--collect-only"] if collects else []), *map(str, files)]
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=seconds, check=False)
        sys.stderr.write(done.stdout + done.stderr)
        if collects:
            return _collected(done)
        if not report.exists():
            raise RuntimeError(f"pytest ended with status {done.returncode} and no report: see the log")
        figures = read_report(report)
    failures = figures["failures"]
    if failures or done.returncode:
        raise RuntimeError(f"{figures['told']}; {'; '.join(failures[:_TOLD_FAILURES])}")
    return figures | {"files": [str(path.relative_to(folder.parent)) for path in files], "conftest_needs": missing}


def _collected(done: subprocess.CompletedProcess[str]) -> Figures:
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stdout.strip().splitlines()[-1:]}")
    number = len(re.findall(r"^\S+\.py::", done.stdout, flags=re.MULTILINE))
    return {"told": f"{number} found, and not run without a GPU", "collected": number}


def read_report(path: Path) -> Figures:
    """What a report of pytest in JUnit's XML says: how many tests passed, failed and were skipped, and which failed."""
    counts, failures = Counter[str](), []
    for case in ElementTree.parse(path).iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        outcome = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[outcome] += 1
        if bad is not None:
            failures.append(f"{case.get('name')}: {(bad.get('message') or '').splitlines()[:1]}")
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome])
    return {"told": told or "none ran", **counts, "failures": failures}


if __name__ == "__main__":
    run_section(measure)
