"""People talk with the model in a browser: files, the microphone, streamed text, sound that is heard, the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from ...api.conftest import ScriptedEngine, until
from .conftest import DESKTOP, PHONE, is_as_wide_as_the_screen, player_of

pytestmark = pytest.mark.browser

PageApp = Callable[..., FastAPI]
Opened = Callable[..., Any]
TEXT = "audiollm-talk textarea"
FILE = "audiollm-talk input[type=file]"
ANSWER = "audiollm-talk .bubble.assistant"
READY = "audiollm-talk .send:not([disabled])"


def attach(page: Any, tone: bytes) -> None:
    page.set_input_files(FILE, {"name": "tone.wav", "mimeType": "audio/wav", "buffer": tone})
    page.wait_for_selector("audiollm-talk .chosen audio")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_file_is_asked_about_and_the_text_comes_bit_by_bit(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, tone: bytes, size: tuple[int, int]
) -> None:
    scripted.seconds = 0.1
    page = opened(page_app(scripted), size)
    attach(page, tone)
    assert is_as_wide_as_the_screen(page)
    page.get_by_role("button", name="Describe the recording.").click()
    page.wait_for_function(f"""document.querySelector("{ANSWER} .text")?.textContent.length > 0""")
    partial = page.inner_text(ANSWER)
    page.wait_for_selector(READY)
    whole = page.inner_text(ANSWER)
    assert whole == "Good morning."
    assert len(partial) < len(whole)
    assert whole.startswith(partial.strip())
    [request] = scripted.requests
    assert len(request.prompt_ids) > 13  # the codes of half a second among them
    assert is_as_wide_as_the_screen(page)


def test_a_microphone_is_recorded_and_its_sound_sent(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened
) -> None:
    page = opened(page_app(scripted))
    page.click("audiollm-talk .record")
    page.wait_for_selector("audiollm-talk .record.active")
    page.wait_for_timeout(1500)
    page.click("audiollm-talk .record")
    page.wait_for_function("document.querySelector('audiollm-talk .chosen audio')?.duration > 0.5")
    page.click("audiollm-talk .send")
    page.wait_for_selector(READY)
    assert page.inner_text(ANSWER) == "Good morning."
    assert len(scripted.requests[0].prompt_ids) > 13


def test_a_spoken_answer_is_heard_to_its_end_and_can_be_heard_again(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, writes: Callable[..., list[int]]
) -> None:
    scripted.answer = lambda request: writes("Good morning.", [17] * 50)
    page = opened(page_app(scripted))
    page.check("label:has-text('answer aloud') input")
    page.fill(TEXT, "Say something.")
    page.press(TEXT, "Enter")
    page.wait_for_selector(f"{ANSWER} audio")
    queued = player_of(page)["samplesQueued"]
    assert queued == pytest.approx(2 * 24_000, rel=0.02)
    until(lambda: page.wait_for_timeout(50) or player_of(page)["samplesHeard"] == queued, seconds=20)
    assert player_of(page)["time"] >= queued / 24_000
    assert player_of(page)["state"] == "running"
    page.wait_for_function(f"document.querySelector('{ANSWER} audio').duration > 1.9")
    assert "Good morning." in page.inner_text(ANSWER)


def test_a_text_is_read_aloud_in_a_voice_in_words(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, writes: Callable[..., list[int]], mini: Any
) -> None:
    scripted.answer = lambda request: writes([17] * 25)
    page = opened(page_app(scripted), DESKTOP)
    page.get_by_label("The model shall").select_option("read")
    page.get_by_label("Voice in words").fill("an old man")
    page.fill(TEXT, "The kettle is on.")
    page.press(TEXT, "Enter")
    page.wait_for_selector(f"{ANSWER} audio")
    assert player_of(page)["samplesQueued"] == pytest.approx(24_000, rel=0.02)
    asked = mini.processor.decode(list(scripted.requests[0].prompt_ids))
    assert "an old man" in asked
    assert "The kettle is on." in asked


def test_what_was_said_is_remembered_where_asked_for_and_forgotten_in_a_new_chat(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened, mini: Any
) -> None:
    page = opened(page_app(scripted))
    remember = page.get_by_label("remember the chat")
    assert not remember.is_checked()  # mini's context is too short for chats
    remember.check()
    for text in ("The first.", "The second."):
        page.fill(TEXT, text)
        page.press(TEXT, "Enter")
        page.wait_for_selector(READY)
    page.get_by_role("button", name="New chat").click()
    assert page.locator(ANSWER).count() == 0
    page.fill(TEXT, "The third.")
    page.press(TEXT, "Enter")
    page.wait_for_selector(READY)
    prompts = [mini.processor.decode(list(one.prompt_ids)) for one in scripted.requests]
    assert "The first." in prompts[1]
    assert "Good morning." in prompts[1]
    assert "The first." not in prompts[2]


def test_escape_stops_an_answer_and_frees_its_place(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened
) -> None:
    scripted.seconds = 0.2
    scripted.answer = lambda request: [100] * 1000
    page = opened(page_app(scripted))
    page.fill(TEXT, "Go on.")
    page.press(TEXT, "Enter")
    until(lambda: page.wait_for_timeout(20) or scripted.num_running == 1)
    page.keyboard.press("Escape")
    page.wait_for_selector(READY)
    until(lambda: scripted.num_running == 0, seconds=2)
    assert "stopped" in page.inner_text(ANSWER)


def test_a_bad_file_and_a_burst_engine_are_told_and_the_text_is_kept(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened
) -> None:
    page = opened(page_app(scripted))
    page.set_input_files(FILE, {"name": "bad.wav", "mimeType": "audio/wav", "buffer": b"RIFFxxxxWAVE nonsense"})
    page.fill(TEXT, "What is this?")
    page.click("audiollm-talk .send")
    page.wait_for_selector(f"{ANSWER}.failed")
    assert "is not audio" in page.inner_text(ANSWER)
    assert page.input_value(TEXT) == "What is this?"
    scripted.failing_at = 1
    page.click("audiollm-talk .send")
    page.wait_for_function(f"document.querySelectorAll('{ANSWER}.failed').length === 2")
    assert "engine failed" in page.locator(ANSWER).last.inner_text()


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    page_app: PageApp, scripted: ScriptedEngine, opened: Opened
) -> None:
    page = opened(page_app(scripted), DESKTOP)
    page.focus(TEXT)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("(document.activeElement.textContent || document.activeElement.ariaLabel || '').trim()")
        )
    places = [next(i for i, one in enumerate(reached) if name in one) for name in ("Record", "Upload", "Send")]
    assert places == sorted(places)
    page.get_by_role("tab", name="Talk").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("audiollm-inspector .record", state="visible")


def test_a_server_with_keys_asks_for_one(page_app: PageApp, scripted: ScriptedEngine, opened: Opened) -> None:
    page = opened(page_app(scripted, api_keys=("secret",)))
    field = page.get_by_label("API key")
    field.wait_for(state="visible")
    assert "asks for a key" in page.inner_text("audiollm-key")
    field.fill("wrong")
    field.press("Enter")
    page.wait_for_function("document.querySelector('audiollm-key').innerText.includes('does not know')")
    field.fill("secret")
    field.press("Enter")
    field.wait_for(state="hidden")
    page.fill(TEXT, "Hello")
    page.press(TEXT, "Enter")
    page.wait_for_selector(READY)
    assert page.inner_text(ANSWER) == "Good morning."
