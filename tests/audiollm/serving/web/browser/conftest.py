"""A headless Chromium with a microphone that beeps; it reports what the page asks of other hosts, and its errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from ...api.conftest import served
from ..conftest import app_with, mini, page_app, scripted, tone, writes

__all__ = ["app_with", "mini", "page_app", "scripted", "tone", "writes"]

FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
PHONE, DESKTOP = (390, 844), (1280, 800)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="make browser-check installs playwright")
    program = os.environ.get("AUDIOLLM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or AUDIOLLM_CHROMIUM says where it is")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Serves an app, and opens its page at some size; errors of the page, and requests to others, fail the test."""
    with ExitStack() as stack:
        troubles: list[str] = []

        def open_page(app: FastAPI, size: tuple[int, int] = PHONE) -> Any:
            url = stack.enter_context(served(app))
            page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
            stack.callback(page.close)
            page.set_default_timeout(30_000)
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on(
                "request",
                lambda asked: (
                    urlsplit(asked.url).netloc in ("", urlsplit(url).netloc) or troubles.append(f"asked {asked.url}")
                ),
            )
            page.goto(url)
            page.wait_for_selector("audiollm-talk textarea")
            return page

        yield open_page
        assert troubles == []


def is_as_wide_as_the_screen(page: Any) -> bool:
    """Nothing is to be scrolled to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def player_of(page: Any) -> dict[str, Any]:
    """What the player of the latest answer has done."""
    found: dict[str, Any] = page.evaluate(
        """() => {
            const player = document.querySelector("audiollm-talk").player;
            const { samplesQueued, samplesHeard, context } = player;
            return { samplesQueued, samplesHeard, time: context?.currentTime ?? 0, state: context?.state };
        }"""
    )
    return found
