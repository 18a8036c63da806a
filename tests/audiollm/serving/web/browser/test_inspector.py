"""People look into a recording in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from audiollm.serving.web.inspector.routes import Inspector

from ...api.conftest import ScriptedEngine
from .conftest import DESKTOP, PHONE, is_as_wide_as_the_screen

pytestmark = pytest.mark.browser

PageApp = Callable[..., FastAPI]
Opened = Callable[..., Any]
HERE = "audiollm-inspector"


def look_into(page: Any, tone: bytes) -> None:
    page.get_by_role("tab", name="Inspector").click()
    page.set_input_files(f"{HERE} input[type=file]", {"name": "tone.wav", "mimeType": "audio/wav", "buffer": tone})
    page.wait_for_selector(f"{HERE} .code b")
    page.wait_for_function(f"document.querySelector('{HERE} canvas').width > 100")


def colours_of(page: Any) -> int:
    """How many colours a drawing has: a blank one has one."""
    found: int = page.evaluate(
        f"""() => {{
            const canvas = document.querySelector("{HERE} .timeline canvas");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return new Set(new Uint32Array(data.buffer)).size;
        }}"""
    )
    return found


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_codes_are_chosen_by_pointer_and_keys_and_heard(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, tone: bytes, size: tuple[int, int]
) -> None:
    page = opened(page_app(scripted), size)
    look_into(page, tone)
    assert colours_of(page) > 20
    canvas = page.locator(f"{HERE} .timeline canvas")
    canvas.focus()
    page.keyboard.press("End")
    assert "at 0.48 s" in page.inner_text(f"{HERE} .code")
    page.keyboard.press("Home")
    assert "at 0.00 s" in page.inner_text(f"{HERE} .code")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    assert "at 0.24 s" in page.inner_text(f"{HERE} .code")
    assert "gate 0." in page.inner_text(f"{HERE} .code")
    assert page.locator(f"{HERE} .code button").count() == 1 + 6
    page.click(f"{HERE} .hear")
    code = page.inner_text(f"{HERE} .code b").removeprefix("code ")
    page.wait_for_function(f"document.body.dataset.audiollmHeardCode === '{code}'")
    assert is_as_wide_as_the_screen(page)


def test_record_tokens_and_reconstruction(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, tone: bytes, mini: Any
) -> None:
    page = opened(page_app(scripted, Inspector(mini.model, mini.processor.audio_tokenizer, "the same again")))
    look_into(page, tone)
    page.get_by_role("button", name="Ask the model").click()
    page.wait_for_selector(f"{HERE} .card")
    assert page.locator(f"{HERE} .card").count() == 10
    page.get_by_role("button", name="Show tokens").click()
    page.wait_for_selector(f"{HERE} .token")
    page.locator(f"{HERE} .token").last.focus()
    assert "%" in page.inner_text(f"{HERE} .detail")
    assert page.locator(f"{HERE} .detail li").count() == 5
    for place in (0, 1):
        page.get_by_role("button", name="Reconstruct").nth(place).click()
        page.wait_for_function(f"document.querySelectorAll('{HERE} .measured').length === {place + 1}")
    assert "Mel distance: " in page.locator(f"{HERE} .measured").first.inner_text()
    page.wait_for_function(
        f"[...document.querySelectorAll('{HERE} figure audio')].filter((one) => one.duration > 0.4).length === 4"
    )
    assert "A second tokenizer: the same again" in page.inner_text(HERE)
    assert is_as_wide_as_the_screen(page)


def test_what_cannot_be_had_is_said(page_app: PageApp, scripted: ScriptedEngine, opened: Opened, tone: bytes) -> None:
    page = opened(page_app(scripted, Inspector(None)))
    page.get_by_role("tab", name="Inspector").click()
    page.set_input_files(
        f"{HERE} input[type=file]", {"name": "bad.wav", "mimeType": "audio/wav", "buffer": b"RIFFxxxxWAVE nonsense"}
    )
    page.wait_for_function(f"document.querySelector('{HERE} .note').textContent.includes('is not audio')")
    look_into(page, tone)
    text = page.inner_text(HERE)
    assert "the weights are not in this process" in text
    assert "--compare-tokenizer FOLDER" in text
