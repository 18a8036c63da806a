"""The vote on bits: what it is, what one voter can change, and what the losses are next to their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer.quantizer.lfq import ENTROPY_EPSILON, TEMPERATURE, VotingLFQ, unanimity


@pytest.fixture
def quantizer() -> VotingLFQ:
    torch.manual_seed(0)
    return VotingLFQ(32, 6)


def test_codes_there_and_back(quantizer: VotingLFQ) -> None:
    codes = torch.arange(32).view(2, 16)
    bits = quantizer.bits(codes)
    assert bits.unique().tolist() == [-1, 1]
    assert torch.equal(((bits > 0).long() * 2 ** torch.arange(5)).sum(dim=-1), codes)
    assert torch.equal(quantizer.lookup(codes), quantizer.project_out(bits))
    with pytest.raises(ValueError, match=r"use codes in \[0, 32\)"):
        quantizer.lookup(torch.tensor([32]))


def test_most_voters_decide_each_bit(quantizer: VotingLFQ) -> None:
    features = torch.randn(2, 40, 6)
    quantizer.eval()
    output = quantizer(features)
    majority = (output.projections > 0).float().mean(dim=0) > 0.5
    assert torch.equal(quantizer.bits(output.codes) > 0, majority)
    assert torch.equal(quantizer.encode(features), output.codes)
    assert output.loss is None
    assert output.codes.unique().numel() > 5


def test_one_voter_astray_changes_no_code_that_others_agree_on(quantizer: VotingLFQ) -> None:
    features = torch.randn(1, 200, 6)
    before = quantizer.eval()(features)
    votes = (before.projections > 0).sum(dim=0)
    clear = ((votes - 2.5).abs() > 1).all(dim=-1)  # by four or five to one
    with torch.no_grad():
        quantizer.project_in[2].weight.neg_()
        quantizer.project_in[2].bias.neg_()
    assert clear.any()
    assert torch.equal(quantizer.encode(features)[clear], before.codes[clear])


def naive_losses(said_KNC: Tensor, entries_VC: Tensor) -> tuple[Tensor, Tensor]:
    """Entropies over a table of all codes, as they are defined."""
    probabilities_KNV = (2 * said_KNC @ entries_VC.t() / TEMPERATURE).softmax(dim=-1)
    of_sample = torch.special.entr(probabilities_KNV).sum(dim=-1).mean()
    mean_KV = probabilities_KNV.mean(dim=1)
    return of_sample, -(mean_KV * (mean_KV + ENTROPY_EPSILON).log()).sum(dim=-1).mean()


def test_losses_are_what_they_are_defined_as_and_padding_teaches_nothing(quantizer: VotingLFQ) -> None:
    features = 0.02 * torch.randn(3, 11, 6)  # near the borders, where a frame is unsure
    mask = torch.ones(3, 11)
    mask[1, 4:] = 0
    output = quantizer.train()(features, mask)
    said = output.projections[:, mask.bool()]
    of_sample, of_codebook = naive_losses(said, quantizer.bits(torch.arange(32)))
    torch.testing.assert_close(output.per_sample_entropy, of_sample)
    torch.testing.assert_close(output.codebook_entropy, of_codebook)
    vote = torch.where(said > 0, 1.0, -1.0).mean(dim=0)
    torch.testing.assert_close(output.commitment_loss, (said - vote).square().mean())
    torch.testing.assert_close(output.consensus_loss, 5 * (said - said.mean(dim=0)).square().mean())
    assert output.loss is not None
    output.loss.backward()
    other = features.clone()
    other[1, 4:] = 100
    assert torch.equal(quantizer(other, mask).loss, output.loss)


def test_gradients_pass_straight_through_the_signs(quantizer: VotingLFQ) -> None:
    features, upstream = torch.randn(1, 4, 6, requires_grad=True), torch.randn(1, 4, 6)
    quantizer.train()(features).quantized.backward(upstream)
    mean = torch.stack([voter.weight for voter in quantizer.project_in]).mean(dim=0)
    torch.testing.assert_close(features.grad, upstream @ quantizer.project_out.weight @ mean)


def test_noise_reaches_the_voters_that_are_not_clean(quantizer: VotingLFQ) -> None:
    clean, noisy = torch.randn(1, 5, 6), torch.randn(1, 5, 6)
    quantizer.train()
    output = quantizer(clean, noisy_BTD=noisy, voter_order=torch.tensor([4, 0, 2, 1, 3]))
    from_clean, from_noisy = quantizer.project(clean), quantizer.project(noisy)
    for voter, source in enumerate((from_clean, from_noisy, from_clean, from_noisy, from_clean)):
        assert torch.equal(output.projections[voter], source[voter])
    drawn = []
    for seed in range(8):
        torch.manual_seed(seed)
        drawn.append((quantizer(clean, noisy_BTD=noisy).projections == from_clean).flatten(1).all(dim=1))
    assert all(int(one.sum()) == quantizer.num_clean for one in drawn)
    assert len({tuple(one.tolist()) for one in drawn}) > 1


def test_the_loss_teaches_voters_to_agree() -> None:
    torch.manual_seed(0)
    quantizer = VotingLFQ(16, 6).train()
    features = torch.randn(4, 50, 6)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        output = quantizer(features, noisy_BTD=features + 0.3 * torch.randn_like(features))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append((float(output.consensus_loss.detach()), float(output.codebook_entropy.detach())))
    assert losses[-1][0] < losses[0][0] / 2
    assert losses[-1][1] > 2.0  # of 2.77: codes are still used
    assert 0.5 < quantizer.usage() <= 1


def test_a_batch_of_padding_alone_has_no_loss(quantizer: VotingLFQ) -> None:
    features = torch.randn(1, 3, 6, requires_grad=True)
    output = quantizer.train()(features, torch.zeros(1, 3))
    assert float(output.loss.detach()) == 0
    output.loss.backward()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VotingLFQ(24, 6), "power of two"),
        (lambda: VotingLFQ(32, 6, num_voters=3, num_clean=4), "num_clean=4"),
        (lambda: VotingLFQ(32, 6).encode(torch.zeros(1, 5)), "5 channels.*takes 6"),
        (lambda: VotingLFQ(32, 6).eval()(torch.zeros(1, 2, 6), noisy_BTD=torch.zeros(1, 2, 6)), "for training"),
        (lambda: VotingLFQ(32, 6)(torch.zeros(1, 2, 6), noisy_BTD=torch.zeros(1, 3, 6)), "same clips"),
        (
            lambda: VotingLFQ(32, 6)(
                torch.zeros(1, 2, 6), noisy_BTD=torch.zeros(1, 2, 6), voter_order=torch.tensor([0, 1, 2, 3, 3])
            ),
            "no permutation",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_an_update_of_several_passes_has_the_loss_and_gradients_of_one(quantizer: VotingLFQ) -> None:
    """Also where a pass has padding, or nothing else."""
    clean, noisy = 0.02 * torch.randn(2, 5, 9, 6)
    mask = torch.ones(5, 9)
    mask[1, 4:] = mask[3] = 0
    order = torch.tensor([4, 2, 0, 1, 3])

    def gradients() -> list[Tensor]:
        found = [parameter.grad for parameter in quantizer.project_in.parameters() if parameter.grad is not None]
        quantizer.zero_grad()
        return found

    whole = quantizer.train()(clean, mask, noisy, order)
    whole.loss.backward()
    expected = gradients()
    passes = [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
    means = sum(quantizer.probability_sums(clean[part], mask[part], noisy[part], order) for part in passes) / mask.sum()
    torch.testing.assert_close(means.sum(dim=(1, 2)), torch.ones(5))
    loss, entropy = torch.zeros(()), torch.zeros(())
    for part in passes:
        output = quantizer(clean[part], mask[part], noisy[part], order, means)
        share = mask[part].sum() / mask.sum()
        loss, entropy = loss + share * output.loss, entropy + share * output.codebook_entropy
    torch.testing.assert_close(loss, whole.loss)
    torch.testing.assert_close(entropy, whole.codebook_entropy)
    loss.backward()
    for found, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_deferred_update_remembers_its_codes_once(quantizer: VotingLFQ) -> None:
    quantizer.train().deferred = True
    features = torch.randn(3, 7, 6)
    codes = [quantizer(clip[None]).codes for clip in features]
    assert not quantizer.recent_codes.any()
    done = quantizer.apply_update()
    found = torch.cat(codes).flatten()
    assert sorted(quantizer.recent_codes[-21:].tolist()) == sorted(found.tolist())
    assert (done.num_active, done.num_frames, done.num_restarted) == (found.unique().numel(), 21, 0)
    assert quantizer.apply_update().num_frames == 0


def test_voters_are_unanimous_where_none_disagrees() -> None:
    projections = torch.ones(3, 1, 2, 4)
    projections[1, 0, 1, :2] = -1
    assert unanimity(projections).tolist() == [[1.0, 0.5]]
