from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import pytest
import torch

from audiollm.training.audio_tokenizer.monitor import (
    AlarmThresholds,
    TokenizerMonitor,
    gate_means_by_type,
    gate_sums_by_type,
)

CODEBOOK_SIZE = 1024
WARMUP = 100


def healthy(step: int, generator: random.Random) -> dict[str, Any]:
    """A line of a run as it should go: noisy, and better with time."""
    progress = 1 - math.exp(-step / 80)
    return {
        "loss": (4.0 - 2.5 * progress) * generator.uniform(0.85, 1.15),
        "num_frames": generator.randrange(1500, 2500),
        "code_usage": 0.3 + 0.4 * progress,
        "perplexity": (200 + 300 * progress) * generator.uniform(0.8, 1.2),
        "num_restarted": generator.randrange(100) if step % 10 == 0 else 0,
        "relative_quantization_error": (0.6 - 0.3 * progress) * generator.uniform(0.95, 1.05),
        "gate_means": {"speech": 0.5 - 0.2 * progress, "music": 0.5 + 0.3 * progress},
    }


def run(monitor: TokenizerMonitor, steps: range, **changes: Any) -> list[tuple[int, str]]:
    """Feeds a healthy run with some values replaced; returns the alarms with their updates."""
    generator = random.Random(0)
    alarms = []
    for step in steps:
        line = healthy(step, generator) | {
            name: value(step) if callable(value) else value for name, value in changes.items()
        }
        alarms += [(step, alarm) for alarm in monitor.update(line)]
    return alarms


def test_a_healthy_run_is_left_in_peace():
    monitor = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
    assert run(monitor, range(1, 1001)) == []


def test_lines_without_a_quantizer_are_watched_for_their_loss_alone():
    monitor = TokenizerMonitor(CODEBOOK_SIZE)
    assert [monitor.update({"event": "train", "step": step, "loss": 2.0}) for step in range(1, 200)] == [[]] * 199
    [alarm] = monitor.update({"event": "train", "step": 200, "loss": 40.0})
    assert "jumped from about 2.000 to 40.000" in alarm


FALLING = {
    "code_usage": (0.02, r"code usage is \d\.\d% of the codebook.*initialise_codebook: kmeans.*global_batch_size"),
    "perplexity": (40.0, r"perplexity is \d+ of 1024 attainable, after \d+ at its best.*encoder_learning_rate"),
    "gate_means": ({"speech": 0.4, "music": 0.001}, r"gate is shut for music \(mean 0\.\d+\).*learning_rate"),
    "relative_quantization_error": (0.9, r"quantization error is 0\.\d+, after 0\.\d+ at its best.*loss_scale"),
    "loss": (3.0, r"the loss has gone up to .*lower the learning rates"),
}


@pytest.mark.parametrize("name", FALLING)
def test_what_goes_wrong_is_said_once_until_it_has_recovered(name):
    value, message = FALLING[name]
    monitor = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
    assert run(monitor, range(1, 401)) == []
    generator = random.Random(1)

    def feed(num_updates: int, **changes: Any) -> list[str]:
        return [alarm for _ in range(num_updates) for alarm in monitor.update(healthy(401, generator) | changes)]

    for _ in range(2):
        alarms = feed(200, **{name: value})
        if name == "loss":  # going up begins with a jump
            assert "the loss jumped" in alarms.pop(0)
        [alarm] = alarms
        assert re.search(message, alarm), alarm
        assert feed(200) == []


def test_nothing_is_said_during_the_warm_up():
    monitor = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
    bad = {"code_usage": 0.001, "perplexity": 1.0, "gate_means": {"speech": 0.0}, "num_restarted": CODEBOOK_SIZE}
    alarms = run(monitor, range(1, WARMUP + 11), **bad)
    assert len(alarms) == 4
    assert all(step > WARMUP for step, _ in alarms)


def test_few_frames_per_update_are_no_collapse():
    """500 frames cannot use 8,192 codes."""
    few = {"num_frames": 500, "code_usage": 0.02, "perplexity": 150.0}
    assert run(TokenizerMonitor(8192), range(1, 401), **few) == []
    alarms = run(TokenizerMonitor(8192), range(1, 401), **few | {"num_frames": 50_000})
    assert len(alarms) == 2


def test_restarts_of_most_rows_again_and_again_are_noticed_and_single_ones_are_not():
    def restarts(step: int, rounds: set[int]) -> int:
        return 800 if step % 10 == 0 and step // 10 in rounds else 0

    monitor = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
    assert run(monitor, range(1, 401), num_restarted=lambda step: restarts(step, {20, 21, 22, 23, 25})) == []
    [(step, alarm)] = run(
        TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10),
        range(1, 401),
        num_restarted=lambda step: restarts(step, set(range(20, 30))),
    )
    assert step == 240
    assert "each of the last 5 restarts replaced at least 78% of the codebook rows" in alarm
    assert "global_batch_size" in alarm


def test_too_few_frames_for_the_codebook_are_noticed_and_the_advice_is_a_number():
    """2,300 frames, all of which become new rows: of 8,192 codes the average one counts as dead."""
    few = {"num_frames": 2300, "perplexity": 1150.0, "num_restarted": lambda step: 2300 if step % 10 == 0 else 0}
    monitor = TokenizerMonitor(8192, restart_interval=10, ema_decay=0.95)
    [(step, alarm)] = run(monitor, range(1, 301), **few)
    assert step == WARMUP + 10
    assert "0.28 times on average, and below 0.60 it counts as dead" in alarm
    interval = int(re.search(r"restart_interval to (\d+)", alarm)[1])
    assert 0.95**interval <= 2300 / 8192 / 4 < 0.95 ** (interval - 2)


def test_open_gates_are_noticed_too():
    [(_, alarm)] = run(TokenizerMonitor(CODEBOOK_SIZE), range(1, 401), gate_means={"speech": 0.999})
    assert "stuck open for speech (mean 0.999)" in alarm


def test_a_resumed_monitor_raises_the_same_alarms():
    def values(step: int) -> dict[str, Any]:
        collapsed = 200 < step < 300 or step > 500
        return {"perplexity": 20.0 if collapsed else 500.0}

    def feed(monitor: TokenizerMonitor, steps: range) -> list[tuple[int, str]]:
        return [
            (step, alarm)
            for step in steps
            for alarm in monitor.update(healthy(step, random.Random(step)) | values(step))
        ]

    straight = feed(TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10), range(1, 601))
    assert len(straight) == 2
    for cut in (50, 103, 210, 299, 305, 599):
        first = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
        alarms = feed(first, range(1, cut + 1))
        second = TokenizerMonitor(CODEBOOK_SIZE, restart_interval=10)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert alarms + feed(second, range(cut + 1, 601)) == straight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_updates": 0}, r"alarms\.warmup_updates=0: use 1 or more"),
        ({"min_gate": 2.0}, r"alarms\.min_gate=2\.0: use a share"),
        ({"max_error": float("nan")}, r"alarms\.max_error=nan: use a positive"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AlarmThresholds(**changes)


def test_gates_of_parts_add_up_to_those_of_the_whole():
    gates = torch.rand(7)
    types = ["speech", "music", "speech", "mix", "music", "speech", "speech"]
    whole = gate_sums_by_type(gates, types)
    parts = gate_sums_by_type(gates[:3], types[:3]) + gate_sums_by_type(gates[3:], types[3:])
    torch.testing.assert_close(parts, whole)
    means = gate_means_by_type(whole)
    assert means.keys() == {"speech", "music", "mix"}
    assert means["speech"] == pytest.approx(float(gates[[0, 2, 5, 6]].mean()))
    assert gate_means_by_type(gate_sums_by_type(torch.zeros(0), [])) == {}
