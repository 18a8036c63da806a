"""The page: Gradio's tabs around elements of our own, which talk to the server's routes from the browser.

Nothing of it runs in Python. What Gradio offers beside showing a page, such as taking uploads, running functions and
handing out files, is not let through at all: it would be a way past the keys and limits of the routes.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSETS = Path(__file__).parent / "assets"
_FILES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"})
_FOLDERS = ("/assets/", "/static/", "/svelte/")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""Browsers load nothing from other hosts for this page, whatever its parts may ask for."""

logger = logging.getLogger(__name__)


def mount_page(app: FastAPI) -> bool:
    """Puts the page at ``/``, behind all routes that there are.

    Args:
        app: whose routes it uses.

    Returns:
        Whether there is a page: without Gradio there is none, which the log says.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported; it would ask other hosts
    try:
        import gradio
    except ImportError as error:
        logger.warning("there is no page at /, because Gradio is missing (%s): pip install 'audiollm[serve]'", error)
        return False
    app.mount("/page", StaticFiles(directory=ASSETS), name="page")
    lifespan = app.router.lifespan_context
    gradio.mount_gradio_app(
        app,
        _blocks(gradio),
        path="/",
        show_error=False,
        allowed_paths=[],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        head='<link rel="stylesheet" href="/page/page.css"><script type="module" src="/page/page.js"></script>',
    )
    # Gradio would begin its queue, which looks a thousand times a second for functions to run; there are none.
    app.router.lifespan_context = lifespan
    mounted = app.router.routes.pop()
    assert isinstance(mounted, Mount)
    app.router.routes.append(_PageMount("/", app=_WithPolicy(mounted.app)))
    return True


def _blocks(gradio: Any) -> Any:
    with gradio.Blocks(title="audiollm", analytics_enabled=False) as blocks:
        gradio.HTML("<audiollm-key></audiollm-key>", padding=False, js_on_load=None, apply_default_css=False)
        with gradio.Tabs(elem_id="tabs"):
            with gradio.Tab("Talk", id="talk", render_children=True):
                gradio.HTML("<audiollm-talk></audiollm-talk>", padding=False, js_on_load=None, apply_default_css=False)
            with gradio.Tab("Inspector", id="inspector", render_children=True):
                gradio.HTML(
                    "<audiollm-inspector></audiollm-inspector>", padding=False, js_on_load=None, apply_default_css=False
                )
    return blocks


class _PageMount(Mount):
    """Only what a browser loads to show the page; everything else is as if there were no page."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        path = scope.get("path", "")
        if is_read and ".." not in path and "//" not in path and (path in _FILES or path.startswith(_FOLDERS)):
            return super().matches(scope)
        return Match.NONE, {}


class _WithPolicy:
    """Adds to each response what the browser may load."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, told)
