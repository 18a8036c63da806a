"""The documentation as a site: every page is in it, every public name has its entry, nothing comes from the web."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PACKAGES = {
    "audiollm.md": ["audiollm", "audiollm.diffusion", "audiollm.mixture", "audiollm.uniaudio"],
    "tokenizer.md": ["audiollm.tokenizer"],
    "data.md": [
        f"audiollm.data.{name}"
        for name in (
            "audio",
            "conversation",
            "corpora",
            "labelling",
            "pretrained",
            "sap",
            "streaming",
            "tokenizing",
            "voices",
        )
    ],
    "generation.md": ["audiollm.generation"],
}


class SiteLoader(yaml.SafeLoader):
    """YAML with mkdocs' own tags, which are left alone."""


SiteLoader.add_multi_constructor("!", lambda *_: None)
SiteLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def pages_of(entry: Any) -> list[str]:
    """The files that an entry of ``nav`` leads to."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages_of(part)]


def test_the_navigation_leads_to_every_page_once() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), SiteLoader)
    pages = pages_of(settings["nav"])
    assert sorted(pages) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def entries(page: str) -> set[str]:
    return set(re.findall(r"^::: ([\w.]+)$", (DOCS / "api" / page).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PACKAGES)
def test_every_public_name_has_an_entry_or_a_word(page: str) -> None:
    text = (DOCS / "api" / page).read_text(encoding="utf-8")
    listed = {entry.rpartition(".")[2] for entry in entries(page)} | set(re.findall(r"`(\w+)`", text))
    public = {name for package in PACKAGES[page] for name in import_module(package).__all__} - {"__version__"}
    assert public - listed == set(), f"give these an entry in docs/api/{page}"


@pytest.mark.parametrize("page", sorted(path.name for path in (DOCS / "api").glob("*.md")))
def test_every_entry_exists_and_says_what_it_is(page: str) -> None:
    for entry in sorted(entries(page)):
        module, _, name = entry.rpartition(".")
        value = getattr(import_module(module), name)
        if callable(value) and getattr(value, "__module__", "").startswith("audiollm"):
            assert value.__doc__, entry


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs pip install 'audiollm[docs]'")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_the_web(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = re.compile(
        r"<(?:script|img|iframe|audio)[^>]*\ssrc=\"((?:https?:)?//[^\"]+)|<link[^>]*\shref=\"((?:https?:)?//[^\"]+)"
    )
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {match.group(0) for path in pages for match in loaded.finditer(path.read_text(encoding="utf-8"))} == set()
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 100_000
