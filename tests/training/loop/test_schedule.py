from __future__ import annotations

import math

import pytest

from audiollm.training.loop.schedule import learning_rate_at


def rates(total_steps, **settings):
    defaults = {"peak": 2.0, "warmup_ratio": 0.1, "min_ratio": 0.25}
    return [learning_rate_at(s, total_steps=total_steps, **(defaults | settings)) for s in range(1, total_steps + 1)]


def test_warm_up_is_linear_from_the_first_update_to_the_peak():
    assert rates(40)[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_the_rest_is_half_a_cosine_down_to_the_minimum():
    curve = rates(44, warmup_ratio=4 / 44)
    assert curve[3] == 2.0
    for step in range(5, 45):
        expected = 0.5 + 1.5 * (1 + math.cos(math.pi * (step - 4) / 40)) / 2
        assert curve[step - 1] == pytest.approx(expected)
    assert curve[23] == pytest.approx((2.0 + 0.5) / 2)  # half way down
    assert curve[-1] == pytest.approx(0.5)


def test_without_warm_up_and_with_nothing_else():
    assert rates(10, warmup_ratio=0.0)[0] < 2.0
    assert rates(4, warmup_ratio=1.0) == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates(1, warmup_ratio=0.0) == pytest.approx([0.5])


def test_linear_and_constant():
    assert rates(6, warmup_ratio=2 / 6, schedule="linear") == pytest.approx([1.0, 2.0, 1.625, 1.25, 0.875, 0.5])
    assert rates(6, warmup_ratio=2 / 6, schedule="constant") == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])


def test_warmup_stable_decay_stays_at_the_peak_and_then_goes_down():
    curve = rates(10, warmup_ratio=0.2, schedule="warmup_stable_decay", decay_ratio=0.3)
    assert curve == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5])
    # What the warm-up leaves is all there is.
    short = rates(3, warmup_ratio=0.5, schedule="warmup_stable_decay", decay_ratio=0.5)
    assert short == pytest.approx([1.0, 2.0, 0.5])


@pytest.mark.parametrize("step", [0, 11])
def test_updates_outside_the_run_are_refused(step):
    with pytest.raises(ValueError, match=rf"step={step} is outside .* 1 … 10"):
        learning_rate_at(step, total_steps=10, peak=1.0, warmup_ratio=0.0, min_ratio=0.0)
