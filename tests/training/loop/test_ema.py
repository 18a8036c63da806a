from __future__ import annotations

import pytest
import torch

from audiollm.training.loop.ema import ExponentialMovingAverage


@pytest.fixture
def module():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(3.0)
    return module


def test_the_average_is_its_closed_form(module):
    values = [1.0, -2.0, 5.0, 4.0, 0.5, 7.0, -1.0, 2.0, 9.0]
    average = ExponentialMovingAverage(module, decay=0.5)
    for value in values:
        module.weight.data.fill_(value)
        average.update()
    decays = [min(0.5, (1 + i) / (10 + i)) for i in range(1, 10)]
    assert decays[0] < decays[6] < 0.5 == decays[8]  # both branches are seen
    left = torch.tensor(decays, dtype=torch.float64).flip(0).cumprod(0).flip(0)  # d_i … d_n
    following = torch.cat([left[1:], torch.ones(1, dtype=torch.float64)])
    expected = 3.0 * left[0] + sum((1 - d) * f * v for d, f, v in zip(decays, following.tolist(), values, strict=True))
    assert average.averages()["weight"].item() == pytest.approx(float(expected), rel=1e-6)


def test_exchanging_twice_changes_nothing_and_once_puts_the_average_in_place(module):
    average = ExponentialMovingAverage(module, decay=0.9)
    module.weight.data.fill_(1.0)
    average.update()
    averaged = average.averages()["weight"].item()
    average.exchange()
    assert (module.weight.item(), average.averages()["weight"].item()) == (averaged, 1.0)
    average.exchange()
    assert (module.weight.item(), average.averages()["weight"].item()) == (1.0, averaged)


def test_a_restored_average_goes_on_as_if_never_saved(module):
    straight = ExponentialMovingAverage(module, decay=0.9)
    straight.update()
    saved = {"num_updates": 1, "averages": {"weight": straight.averages()["weight"].clone()}}
    resumed = ExponentialMovingAverage(module, decay=0.9)
    resumed.load_state_dict(saved)
    module.weight.data.fill_(8.0)
    straight.update()
    resumed.update()
    assert torch.equal(straight.averages()["weight"], resumed.averages()["weight"])
    assert resumed.state_dict()["num_updates"] == 2


def test_frozen_weights_have_no_average():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    assert set(ExponentialMovingAverage(module, 0.9).averages()) == {"weight"}


def test_averages_of_another_module_are_refused(module):
    with pytest.raises(ValueError, match="do not match the model: bias, weight"):
        ExponentialMovingAverage(module, 0.9).load_state_dict({"num_updates": 1, "averages": {"bias": torch.zeros(1)}})


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_cannot_work_is_refused(module, decay):
    with pytest.raises(ValueError, match="ema_decay="):
        ExponentialMovingAverage(module, decay)
