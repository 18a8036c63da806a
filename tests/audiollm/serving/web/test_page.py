"""The page is there, and is no way round the keys and limits of the routes."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from audiollm.serving.server import add_page
from audiollm.serving.web.inspector.routes import Inspector
from audiollm.serving.web.page import ASSETS

from ..api.conftest import ScriptedEngine

PageApp = Callable[..., FastAPI]


@pytest.fixture
def client(page_app: PageApp, scripted: ScriptedEngine) -> Any:
    with TestClient(page_app(scripted, api_keys=("secret",))) as found:
        yield found


def test_the_page_is_shown_without_a_key_and_the_routes_stay(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "audiollm-talk" in page.text
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status_code == 200
    known = {"Authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=known).json()["data"][0]["id"] == "mini"
    assert client.get("/v1/models").status_code == 401
    assert client.get("/metrics").status_code == 401


def test_every_part_of_the_page_is_served(client: TestClient) -> None:
    for path in ASSETS.iterdir():
        response = client.get(f"/page/{path.name}")
        assert response.status_code == 200
        assert response.content == path.read_bytes()
    for path in re.findall(r'(?:src|href)="\.?(/assets/[^"]+)"', client.get("/").text):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/run/predict"),
        ("GET", "/gradio_api/heartbeat/abc"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/monitoring"),
        ("POST", "/login"),
        ("POST", "/"),
        ("GET", "/assets/../gradio_api/info"),
        ("GET", "/assets//etc/passwd"),
        ("GET", "/static//etc/passwd"),
        ("GET", "/v1x"),
    ],
)
def test_gradio_answers_nothing_else(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code in (404, 405)
    assert response.json()["error"]["message"]


async def _tasks_of(app: FastAPI) -> int:
    async with app.router.lifespan_context(app):
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())


def test_nothing_of_gradio_runs_while_nobody_asks(page_app: PageApp, app_with: Any, scripted: ScriptedEngine) -> None:
    assert asyncio.run(_tasks_of(page_app(scripted))) == asyncio.run(_tasks_of(app_with(scripted)))


def test_wrong_methods_and_unknown_routes_are_told_as_without_a_page(client: TestClient) -> None:
    known = {"Authorization": "Bearer secret"}
    wrong = client.get("/v1/chat/completions", headers=known)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert client.get("/v1/nothing", headers=known).json()["error"]["code"] == "unknown_url"


def test_browsers_are_told_to_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    ours = "".join(path.read_text(encoding="utf-8") for path in ASSETS.iterdir())
    assert "http://" not in ours
    assert "https://" not in ours
    assert "innerHTML" not in ours  # what models and names of files say is never taken for HTML


def test_without_gradio_there_is_no_page_and_the_log_says_how_to_get_one(
    app_with: Any, scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    app = app_with(scripted)
    with caplog.at_level(logging.WARNING):
        assert not add_page(app, Inspector(None))
    assert "pip install 'audiollm[serve]'" in caplog.text
    with TestClient(app) as client:
        assert client.get("/").json()["error"]["code"] == "unknown_url"
        assert "end base_url with it" in client.get("/models").json()["error"]["message"]
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models").status_code == 200
