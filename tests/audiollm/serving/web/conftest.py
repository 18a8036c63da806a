"""The page on a server whose engine answers what was written down beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from audiollm import AudioLLM
from audiollm.serving.server import add_page
from audiollm.serving.web.inspector.routes import Inspector

from ..api.conftest import app_with, mini, scripted, tone, writes

__all__ = ["app_with", "mini", "scripted", "tone", "writes"]


@pytest.fixture
def page_app(mini: AudioLLM, app_with: Callable[..., FastAPI]) -> Callable[..., FastAPI]:
    """An app with the page, by an engine, what the inspector has, and settings."""

    def build(engine: Any, inspector: Inspector | None = None, **settings: object) -> FastAPI:
        app = app_with(engine, **settings)
        assert add_page(app, inspector or Inspector(mini.model))
        return app

    return build
