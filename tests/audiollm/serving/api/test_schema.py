"""What the server says of itself holds: no request makes a route fail, and none answers what it never told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from audiollm import AudioLLM
from audiollm.serving.web.inspector.routes import Inspector
from audiollm.serving.web.inspector.routes import router as inspector_routes

from .conftest import ScriptedEngine

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

ROUTES = {
    ("POST", "/v1/chat/completions"): 60,
    ("POST", "/v1/audio/speech"): 60,
    ("POST", "/v1/audio/transcriptions"): 40,
    ("POST", "/v1/audio/translations"): 5,
    ("GET", "/v1/audio/voices"): 5,
    ("POST", "/v1/audio/voices"): 20,
    ("DELETE", "/v1/audio/voices/{name}"): 20,
    ("POST", "/v1/audio/tokens/encode"): 20,
    ("POST", "/v1/audio/tokens/decode"): 40,
    ("GET", "/v1/models"): 5,
    ("GET", "/v1/models/{name}"): 20,
    ("GET", "/health"): 5,
    ("GET", "/ready"): 5,
    ("GET", "/metrics"): 5,
    ("GET", "/v1/inspector"): 5,
    ("POST", "/v1/inspector/recording"): 15,
    ("POST", "/v1/inspector/reconstruction"): 15,
    ("POST", "/v1/inspector/description"): 15,
    ("POST", "/v1/inspector/tokens"): 40,
}
"""How many requests each route gets."""


@pytest.fixture
def schema(scripted: ScriptedEngine, app_with: Any, mini: AudioLLM) -> Any:
    app = app_with(scripted)
    app.state.inspector = Inspector(mini.model)
    app.include_router(inspector_routes)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_every_route_is_tried(schema: Any) -> None:
    assert {(one.ok().method.upper(), one.ok().path) for one in schema.get_all_operations()} == set(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    # A request without a body holds nothing that could be wrong.
    [(*one, mode) for one in ROUTES for mode in schemathesis.GenerationMode if one[0] == "POST" or mode.is_positive],
)
def test_no_request_makes_a_route_fail(schema: Any, method: str, path: str, mode: Any) -> None:
    operation = schema[path][method]
    # A form says what a request looks like, and not which voices and recordings there are.
    passed_over = [positive_data_acceptance]

    @settings(
        max_examples=ROUTES[method, path], deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def tried(case: Any) -> None:
        case.call_and_validate(excluded_checks=passed_over)

    tried()
