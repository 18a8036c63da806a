"""Solvers: their order, what they cost, and settings that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer.decoder.configuration import FlowConfig
from audiollm.tokenizer.decoder.flow.solvers import SOLVERS, Integration, Solver, sway
from audiollm.tokenizer.decoder.inputs import FAST, FlowSettings

START = torch.tensor([[[1.0, -2.0, 0.5]]], dtype=torch.float64)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A velocity whose flow is known: x(t) = (x(0) + t) exp(-t²)."""
    return torch.exp(-(t.double() ** 2)) - 2 * t * x


def error(solver: Solver, evaluations: int, strength: float = 0.0) -> float:
    end = Integration(evaluations, 0.0, solver, strength).solve(START, bent)
    return float((end - (START + 1) * torch.exp(torch.tensor(-1.0).double())).abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5])
def test_more_evaluations_come_closer(solver: Solver, strength: float) -> None:
    assert error(solver, 64, strength) < 0.5 * error(solver, 16, strength)
    assert error(solver, 256, strength) < 0.02


@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver != "euler"])
def test_at_twice_the_steps_second_orders_are_four_times_as_exact(solver: Solver) -> None:
    assert error(solver, 128) / error(solver, 256) == pytest.approx(4, abs=0.8)
    assert error(solver, 128) < 0.1 * error("euler", 128)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_straight_way_is_exact_in_any_number_of_evaluations(solver: Solver) -> None:
    target = torch.tensor([[[3.0, 1.0, -1.0]]], dtype=torch.float64)
    for evaluations in (2, 4, 10):
        end = Integration(evaluations, 0.0, solver).solve(START, lambda x, t: target - START)
        torch.testing.assert_close(end, target, atol=1e-5, rtol=0)  # times are float32


def test_dpm_is_exact_where_the_mel_in_mind_changes_evenly() -> None:
    """x(1) of a network that at time t has the mel 2 + t in mind, whatever it starts from."""
    for evaluations in (2, 5):
        integration = Integration(evaluations, 0.0, "dpm", sway=0.0)
        end = integration.solve(START, lambda x, t: (2 + t.double() - x) / (1 - t.double()))
        assert end.tolist()[0][0] == pytest.approx([3.0] * 3, abs=0.5 / evaluations)  # the first step knows no slope
    spread = end.max() - end.min()
    assert float(spread) == pytest.approx(0, abs=1e-6)  # of the start, nothing is left


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_network_is_asked_as_often_as_was_said(solver: Solver) -> None:
    asked: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t))
        return x

    Integration(6, 0.0, solver).solve(START, velocity)
    assert len(asked) == 6
    assert asked == sorted(asked)
    assert asked[0] == 0
    assert asked[-1] <= 1


def test_times_of_the_cosine_are_short_first_and_sway_lies_between() -> None:
    even = torch.linspace(0, 1, 11)
    assert torch.equal(sway(even, 0.0), even)
    assert torch.equal(sway(even, -1.0), 1 - torch.cos(even * 0.5 * torch.pi))
    for strength in (-1.0, -0.5, 0.7):
        times = sway(even, strength)
        assert bool((times.diff() > 0).all())
        assert [float(times[0]), float(times[-1])] == pytest.approx([0, 1])
    assert bool((sway(even, -1.0)[1:-1] < sway(even, -0.5)[1:-1]).all())


def test_guidance_stops_at_its_time() -> None:
    times = torch.linspace(0, 1, 5)
    assert [Integration(4, 0.7, guided_until=0.5).is_guided(t) for t in times] == [True, True, False, False, False]
    assert all(Integration(4, 0.7).is_guided(t) for t in times)
    assert not any(Integration(4, 0.0).is_guided(t) for t in times)


# --------------------------------------------------------------------- settings


def test_exact_is_as_published_and_fast_never_dearer() -> None:
    config = FlowConfig(steps=10, guidance=0.5, cosine_schedule=False)
    assert FlowSettings().integration(config) == Integration(10, 0.5, "euler", sway=0.0)
    fast = FlowSettings(quality="fast").integration(config)
    assert (fast.evaluations, fast.solver, fast.guidance, fast.sway) == (FAST.evaluations, FAST.solver, 0.5, 0.0)
    few = FlowConfig(steps=FAST.evaluations)
    assert FlowSettings(quality="fast").integration(few) == FlowSettings().integration(few)
    assert FlowSettings(7, 0.1, quality="fast").integration(config) == Integration(7, 0.1, "euler", sway=0.0)
    assert FlowSettings(solver="heun", quality="fast").integration(config) == Integration(10, 0.5, "heun", sway=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality": "best"}, "quality='best' is unknown: use exact or fast"),
        ({"solver": "rk4"}, "solver='rk4' is unknown: use one of euler, midpoint"),
        ({"solver": "heun", "steps": 5}, "steps=5: the solver heun evaluates the network 2 times a step"),
        ({"steps": 0}, "steps=0"),
        ({"steps": True}, "steps=True"),
        ({"steps": 2.0}, "steps=2.0"),
        ({"guidance": -1.0}, r"guidance=-1\.0"),
        ({"guidance": float("inf")}, "guidance=inf"),
        ({"guidance": 1e30}, r"guidance=1e\+30: use 0 \(off\) or a positive number up to 100"),
        ({"guidance": "0.7"}, "guidance='0.7'"),
        ({"guidance": True}, "guidance=True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowSettings(**settings)


def test_a_solver_that_cannot_do_with_the_checkpoints_steps_says_so() -> None:
    with pytest.raises(ValueError, match="steps=5: the solver midpoint evaluates the network 2 times"):
        FlowSettings(solver="midpoint").integration(FlowConfig(steps=5))


@pytest.mark.parametrize(("name", "value"), [("sway", -1.5), ("sway", float("nan")), ("guided_until", 2.0)])
def test_times_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Integration(4, 0.7, **{name: value})
