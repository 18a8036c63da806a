"""Figures for Prometheus; those that vLLM has too are called as vLLM calls them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 4.0, 8.0)


class Metrics:
    """The figures of one server, in a registry of its own.

    Args:
        num_running: tells how many requests the engine computes.
        num_waiting: tells how many wait.
    """

    def __init__(self, num_running: Callable[[], int], num_waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        running = Gauge("vllm:num_requests_running", "Requests that are computed.", registry=self.registry)
        waiting = Gauge("vllm:num_requests_waiting", "Requests that wait.", registry=self.registry)
        running.set_function(num_running)
        waiting.set_function(num_waiting)
        self._sessions = Gauge("audiollm:realtime_sessions", "Realtime sessions that are open.", registry=self.registry)
        self._requests = self._counter("audiollm:requests", "Requests that have ended.", "route", "status")
        self._seconds = self._histogram("audiollm:request_seconds", "Whole time of requests.", _SECONDS, "route")
        self._prompt = self._counter("vllm:prompt_tokens", "Tokens of prompts.")
        self._generated = self._counter("vllm:generation_tokens", "Tokens of answers.")
        self._codes = self._counter("audiollm:codes", "Audio codes of answers.")
        self._first_token = self._histogram(
            "vllm:time_to_first_token_seconds", "From the request to the first piece of text or sound.", _SECONDS
        )
        self._first_audio = self._histogram(
            "audiollm:time_to_first_audio_seconds", "From the request to its first sound.", _SECONDS
        )
        self._real_time = self._histogram(
            "audiollm:real_time_factor", "Seconds of work per second of sound of an answer.", _FACTORS
        )

    def request_ended(self, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def session(self) -> AbstractContextManager[Any]:
        """Counts a realtime session for the time of the block."""
        return self._sessions.track_inprogress()

    def began(self, seconds: float, *, is_sound: bool) -> None:
        """The first piece of an answer, or its first sound, has come after so many seconds."""
        (self._first_audio if is_sound else self._first_token).observe(seconds)

    def answered(self, num_prompt: int, num_generated: int, num_codes: int) -> None:
        """Counts the tokens of an answer."""
        self._prompt.inc(num_prompt)
        self._generated.inc(num_generated)
        self._codes.inc(num_codes)

    def sounded(self, work_seconds: float, sound_seconds: float) -> None:
        """So much sound was made in so much time."""
        if sound_seconds > 0:
            self._real_time.observe(work_seconds / sound_seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
