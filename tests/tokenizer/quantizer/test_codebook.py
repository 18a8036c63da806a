"""Properties of the codebook that hold whatever the reference does."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import Codebook
from audiollm.tokenizer.quantizer.codebook import first_largest
from audiollm.tokenizer.quantizer.usage import perplexity_of


@pytest.fixture
def codebook() -> Codebook:
    torch.manual_seed(0)
    codebook = Codebook(12, 4, ema_decay=0.9, restart_interval=3)
    with torch.no_grad():
        codebook.weight.normal_()
    codebook.reset_statistics()
    return codebook.eval()


def naive_search(features: Tensor, entries: Tensor) -> Tensor:
    """The definition, in float64: all differences, squared, summed."""
    return (features.double()[..., None, :] - entries.double()).square().sum(dim=-1).argmin(dim=-1)


def test_search_finds_the_nearest_entry(codebook: Codebook) -> None:
    features = torch.randn(3, 300, 4)
    assert torch.equal(codebook.encode(features), naive_search(features, codebook.weight))


def test_forward_and_encode_agree_and_quantizing_twice_changes_nothing(codebook: Codebook) -> None:
    features = torch.randn(2, 9, 4)
    output = codebook(features)
    assert torch.equal(codebook.encode(features), output.codes)
    assert torch.equal(codebook.encode(output.quantized), output.codes)
    assert torch.equal(codebook.lookup(output.codes), output.quantized)


def test_the_first_of_equal_entries_wins() -> None:
    codebook = Codebook(500, 16)
    with torch.no_grad():
        codebook.weight.copy_(torch.randn(250, 16).repeat(2, 1))
    assert int(codebook.encode(torch.randn(400, 16)).max()) < 250


@pytest.mark.parametrize("size", [1, 100, 128, 384])
def test_the_first_largest_score_is_found_as_argmax_finds_it(size: int) -> None:
    scores = torch.randint(0, 9, (200, size)).float()  # many ties
    scores[0] = -torch.inf
    scores[1, size // 2] = torch.inf
    scores[2, size // 3] = torch.nan
    assert torch.equal(first_largest(scores), scores.argmax(dim=-1))
    assert len(first_largest(scores[:0])) == 0


def test_gradient_passes_straight_through(codebook: Codebook) -> None:
    codebook.train()
    features, upstream = torch.randn(2, 9, 4, requires_grad=True), torch.randn(2, 9, 4)
    codebook(features).quantized.backward(upstream)
    assert features.grad is not None
    torch.testing.assert_close(features.grad, upstream)


def test_padding_teaches_nothing(codebook: Codebook) -> None:
    features, mask = torch.randn(2, 9, 4), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 4:] = 0
    other = features.clone()
    other[1, 4:] = 99.0
    states = []
    for batch in (features, other):
        learner = copy.deepcopy(codebook).train()
        loss = learner(batch, mask).loss
        states.append({**learner.state_dict(), "loss": loss})
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_batch_of_padding_alone_is_survived(codebook: Codebook) -> None:
    codebook.train()
    output = codebook(torch.randn(1, 5, 4, requires_grad=True), torch.zeros(1, 5))
    assert output.loss is not None
    assert float(output.loss.detach()) == 0.0
    assert torch.isfinite(codebook.weight).all()


def test_given_codes_are_used_and_teach_nothing(codebook: Codebook) -> None:
    before = copy.deepcopy(codebook.state_dict())
    codes = torch.randint(12, (2, 5))
    output = codebook.train()(torch.randn(2, 5, 4), codes_BT=codes)
    assert torch.equal(output.codes, codes)
    assert output.loss is None
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


@pytest.mark.parametrize("bad", [-1, 12])
def test_codes_out_of_range_are_refused(codebook: Codebook, bad: int) -> None:
    with pytest.raises(ValueError, match=r"range from .* \[0, 12\)"):
        codebook.lookup(torch.tensor([[0, bad]]))


def test_wrong_width_names_both_sizes(codebook: Codebook) -> None:
    with pytest.raises(ValueError, match=r"6 channels.*4-d entries.*d_model"):
        codebook.encode(torch.randn(2, 9, 6))


def test_moving_averages_settle_on_the_cluster_means() -> None:
    """The fixed point of the update is the mean of each entry's frames."""
    torch.manual_seed(1)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    codebook = Codebook(3, 2, ema_decay=0.8).train()
    with torch.no_grad():
        codebook.weight.copy_(centres + 1)
    codebook.reset_statistics()
    for _ in range(60):
        codebook((centres.repeat(20, 1) + 0.01 * torch.randn(60, 2))[None])
    torch.testing.assert_close(codebook.weight.detach(), centres, atol=0.02, rtol=0)


def test_a_resumed_codebook_continues_exactly(codebook: Codebook) -> None:
    batches = [torch.randn(2, 8, 4) for _ in range(7)]
    codebook.train()
    random.seed(5)
    for batch in batches[:4]:
        codebook(batch)
    resumed = Codebook(12, 4, ema_decay=0.9, restart_interval=3).train()
    resumed.load_state_dict(copy.deepcopy(codebook.state_dict()))
    state = random.getstate()
    for learner in (codebook, resumed):
        random.setstate(state)
        for batch in batches[4:]:
            learner(batch)
    assert int(codebook.num_updates) == 7
    for name, value in codebook.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_dead_rows_return_among_the_features() -> None:
    codebook = Codebook(6, 3, ema_decay=0.5, restart_interval=2).train()
    with torch.no_grad():
        codebook.weight[3:] = 1000.0
    codebook.reset_statistics()
    codebook.ema_count[3:] = 0.01
    features = torch.randn(1, 50, 3)
    restarted = [codebook(features).num_restarted for _ in range(2)]
    assert restarted == [0, 3]
    assert all((features[0] == row).all(dim=1).any() for row in codebook.weight[3:])


def test_usage_and_perplexity(codebook: Codebook) -> None:
    codebook.train()
    assert codebook.usage() == pytest.approx(1 / 12)  # the memory starts as zeros
    output = codebook(codebook.weight.detach().clone().repeat(4, 1)[None])
    assert codebook.usage() == 1.0
    assert float(output.perplexity) == pytest.approx(12, rel=1e-5)
    assert float(perplexity_of(torch.tensor([5.0, 0.0]))) == pytest.approx(1.0)


def test_training_state_survives_a_cast_to_bfloat16(codebook: Codebook) -> None:
    codebook.recent_codes.fill_(11)
    codebook.num_updates.fill_(257)
    codebook.bfloat16()
    assert int(codebook.num_updates) == 257
    assert codebook.encode(torch.randn(3, 4).bfloat16()).dtype == torch.int64


def test_search_under_autocast_stays_exact(codebook: Codebook) -> None:
    features = torch.randn(500, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codebook.encode(features), naive_search(features, codebook.weight))
