"""Sampling is seeded, follows the distribution, and does not get stuck in a sound."""

from __future__ import annotations

import pytest
import torch

from audiollm.generation.sampling import RepetitionAwareSampler, SamplingSettings
from audiollm.vocabulary import AudioVocabulary

# 10 text ids, start 10, end 11, codes 12 to 19, and padding rows 20 to 23.
VOCABULARY = AudioVocabulary(codebook_size=8, first_code_id=12, start_id=10, end_id=11)
WIDTH = 24


def test_drawn_tokens_follow_the_distribution_and_the_seed():
    scores = torch.tensor([[0.0, 1.0, 2.0, -torch.inf, 0.5, *[-torch.inf] * 19]])
    many = scores.expand(20000, -1)
    prefix = torch.zeros(20000, 3, dtype=torch.long)
    plain = SamplingSettings(top_k=0, top_p=1.0, repetition_window=0, temperature=2.0)
    state = torch.get_rng_state()
    first = RepetitionAwareSampler(VOCABULARY, plain, seed=5)(prefix, many)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.isfinite().sum(1) == 1).all()
    shares = first.isfinite().float().mean(0)
    torch.testing.assert_close(shares, (scores[0] / 2).softmax(0), atol=0.015, rtol=0)
    assert torch.equal(RepetitionAwareSampler(VOCABULARY, plain, seed=5)(prefix, many), first)
    assert not torch.equal(RepetitionAwareSampler(VOCABULARY, plain, seed=6)(prefix, many), first)
    nucleus = RepetitionAwareSampler(VOCABULARY, SamplingSettings(top_k=0, top_p=0.5, repetition_window=0), seed=0)
    assert set(nucleus(prefix, many).argmax(1).tolist()) == {2}
    best = RepetitionAwareSampler(VOCABULARY, SamplingSettings(top_k=2, top_p=1.0, repetition_window=0), seed=0)
    assert set(best(prefix, many).argmax(1).tolist()) == {1, 2}


def drawn_shares(prefix, favourite, settings, prompt_length=0):
    scores = torch.full((4000, WIDTH), -torch.inf)
    scores[:, favourite], scores[:, 15] = 1.0, 0.0
    sampler = RepetitionAwareSampler(VOCABULARY, settings, seed=0, prompt_length=prompt_length)
    drawn = sampler(torch.tensor([prefix]).expand(4000, -1), scores).argmax(1)
    return (drawn == favourite).float().mean().item()


def test_a_code_that_repeats_too_often_is_drawn_again_from_the_whole_distribution():
    favourite_share = torch.tensor([1.0, 0.0]).softmax(0)[0].item()  # 0.73 without top-k
    settings_ = SamplingSettings(top_k=1, top_p=1.0, repetition_window=4, repetition_threshold=0.5)
    assert drawn_shares([10, 12, 13, 14, 13, 12], 16, settings_) == 1.0  # never said before
    assert drawn_shares([10, 16, 16, 13, 14, 13, 16], 16, settings_) == 1.0  # once in the window of four
    often = [10, 16, 13, 16, 13]
    assert drawn_shares(often, 16, settings_) == pytest.approx(favourite_share, abs=0.03)
    assert drawn_shares(often, 16, settings_, prompt_length=5) == 1.0  # the prompt does not count
    assert drawn_shares([9, 3, 3, 3, 3], 3, settings_) == 1.0  # nor does text
    off = SamplingSettings(top_k=1, top_p=1.0, repetition_window=0)
    assert drawn_shares(often, 16, off) == 1.0


def test_a_row_is_drawn_alike_whether_its_neighbours_repeat_or_not():
    scores = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    prefixes = torch.tensor([[10, 12, 13, 14, 15], [10, 12, 13, 14, 15]])
    stuck = torch.tensor([[10, 12, 13, 14, 15], [10, 16, 16, 16, 16]])
    settings_ = SamplingSettings(repetition_window=4)
    one, other = (RepetitionAwareSampler(VOCABULARY, settings_, seed=3) for _ in range(2))
    for _ in range(20):
        assert torch.equal(one(prefixes, scores)[0], other(stuck, scores)[0])


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_window": -1},
        {"repetition_threshold": 2.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingSettings(**bad)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_from_which_nothing_can_be_drawn_are_refused(bad) -> None:
    scores = torch.zeros(2, WIDTH)
    scores[1, 13] = bad
    sampler = RepetitionAwareSampler(VOCABULARY, SamplingSettings(top_k=0, top_p=1.0), seed=0)
    with pytest.raises(ValueError, match="nothing can be drawn"):
        sampler(torch.zeros(2, 3, dtype=torch.long), scores)
    with pytest.raises(ValueError, match="allow no token"):
        sampler(torch.zeros(2, 3, dtype=torch.long), torch.full((2, WIDTH), -torch.inf))


def test_only_what_may_follow_is_drawn_at_the_ends_of_the_numbers(monkeypatch) -> None:
    scores = torch.full((2, WIDTH), -torch.inf)
    scores[:, [4, 13, 17]] = torch.tensor([0.3, -20.0, 0.1])
    for number, drawn in [(0.0, 4), (1 - 2**-24, 17)]:
        monkeypatch.setattr(torch, "rand", lambda *size, number=number, **_: torch.full(size, number))
        sampler = RepetitionAwareSampler(VOCABULARY, SamplingSettings(top_k=0, top_p=1.0), seed=0)
        assert sampler(torch.zeros(2, 3, dtype=torch.long), scores).argmax(1).tolist() == [drawn] * 2
