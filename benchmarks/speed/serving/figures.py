"""What the answers of a load say: waits, rates, and whether all clients are served alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .clients import Answered


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of them does not exceed: one of them, without drawing lines between few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def load_figures(rounds: Sequence[tuple[Sequence[Sequence[Answered]], float]]) -> dict[str, float]:
    """The figures of one server and number of clients.

    Args:
        rounds: answers of each client, and the seconds of all, of each round.
    """
    answers = [one for clients, _ in rounds for own in clients for one in own]
    seconds = sum(taken for _, taken in rounds)
    firsts, wholes = [one.first_seconds for one in answers], [one.seconds for one in answers]
    # The least and the most that a client waited for its answers on average: 1 where none is put off for another.
    per_client = [statistics.mean(one.seconds for one in own) for clients, _ in rounds for own in clients]
    figures = {
        "answers": float(len(answers)),
        "seconds": seconds,
        "first_p50_seconds": quantile(firsts, 0.5),
        "first_p95_seconds": quantile(firsts, 0.95),
        "answer_p50_seconds": quantile(wholes, 0.5),
        "answer_p95_seconds": quantile(wholes, 0.95),
        "tokens_per_second": sum(one.num_tokens for one in answers) / seconds,
        "slowest_by_fastest_client": max(per_client) / min(per_client),
    }
    if sound_seconds := sum(one.sound_seconds for one in answers):
        factors = [one.seconds / one.sound_seconds for one in answers if one.sound_seconds]
        figures |= {
            "speech_seconds_per_second": sound_seconds / seconds,
            "real_time_factor_p50": quantile(factors, 0.5),
            "real_time_factor_p95": quantile(factors, 0.95),
        }
    return figures
