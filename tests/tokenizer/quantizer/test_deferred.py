"""Updates of many passes: the codebook does not notice how an update was cut into passes and processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import Codebook
from audiollm.tokenizer.quantizer.deferred import CodebookUpdate, frame_keys, scramble

NUM_CLIPS, NUM_FRAMES, NUM_UPDATES = 6, 7, 5
STATE = ("weight", "ema_count", "ema_weight", "recent_codes", "num_updates")


def make_codebook(restart_interval: int | None = 2, ema_decay: float | None = 0.6) -> Codebook:
    """Every third row lies far away from all features: dead, and back among them after the first restart."""
    torch.manual_seed(0)
    codebook = Codebook(12, 4, ema_decay=ema_decay, restart_interval=restart_interval).train()
    with torch.no_grad():
        codebook.weight.normal_()
        codebook.weight[::3] = 1000.0
    codebook.reset_statistics()
    if ema_decay is not None:
        codebook.ema_count[::3] = 0.01
    codebook.deferred = True
    return codebook


def clips_of(update: int) -> tuple[Tensor, Tensor]:
    """Clips of one update with masks of different lengths, the last of padding alone."""
    generator = torch.Generator().manual_seed(update)
    features = torch.randn(NUM_CLIPS, NUM_FRAMES, 4, generator=generator)
    lengths = torch.tensor([7, 3, 5, 7, 1, 0])
    return features, torch.arange(NUM_FRAMES) < lengths[:, None]


def run_updates(codebook: Codebook, passes: Sequence[Sequence[int]], first: int = 0) -> tuple[list[Tensor], list]:
    """Trains on some clips of each update, in the given passes; returns each pass's codes, and the reports."""
    codes, reports = [], []
    for update in range(first, NUM_UPDATES):
        features, mask = clips_of(update)
        for clips in passes:
            ids = torch.tensor(clips)
            output = codebook(features[ids], mask[ids], example_ids_B=ids)
            codes.append(output.codes)
        reports.append(codebook.apply_update())
    return codes, reports


def assert_same_state(one: Codebook, other: dict[str, Tensor]) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other[name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("passes", [[[0], [1], [2], [3], [4], [5]], [[5, 2], [4, 0, 1], [3]]])
def test_passes_and_their_order_do_not_matter(passes: list[list[int]]) -> None:
    whole, pieces = make_codebook(), make_codebook()
    _, reports = run_updates(whole, [range(NUM_CLIPS)])
    _, other_reports = run_updates(pieces, passes)
    assert_same_state(whole, pieces.state_dict())
    assert sum(report.num_restarted for report in reports) >= 4
    for one, other in zip(reports, other_reports, strict=True):
        assert one.perplexity == pytest.approx(other.perplexity)
        assert (one.num_active, one.num_restarted, one.num_frames) == (
            other.num_active,
            other.num_restarted,
            other.num_frames,
        )


def test_one_pass_moves_the_entries_as_an_immediate_update_does() -> None:
    deferred, immediate = make_codebook(restart_interval=None), make_codebook(restart_interval=None)
    immediate.deferred = False
    for update in range(NUM_UPDATES):
        deferred(*clips_of(update))
        deferred.apply_update()
        immediate(*clips_of(update))
        if update == 1:  # the memory is not full yet; an update's codes are remembered in another order
            assert torch.equal(deferred.recent_codes.sort()[0], immediate.recent_codes.sort()[0])
    for name in ("weight", "ema_count", "ema_weight", "num_updates"):
        torch.testing.assert_close(getattr(deferred, name), getattr(immediate, name), msg=name)


def test_passes_of_an_update_search_the_same_entries_and_change_nothing() -> None:
    codebook = make_codebook(restart_interval=1)
    before = copy.deepcopy(codebook.state_dict())
    features, mask = clips_of(0)
    first = codebook(features, mask, example_ids_B=torch.arange(NUM_CLIPS))
    second = codebook(features, mask, example_ids_B=torch.arange(NUM_CLIPS))
    assert torch.equal(first.codes, second.codes)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())
    codebook.discard_update()
    assert codebook.apply_update() == CodebookUpdate(perplexity=0.0, num_active=0, num_restarted=0)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_restarted_rows_are_different_frames_of_the_update() -> None:
    codebook = make_codebook(restart_interval=1)
    features, mask = clips_of(0)
    codebook(features, mask, example_ids_B=torch.arange(NUM_CLIPS))
    assert codebook.apply_update().num_restarted == 4
    valid = features[mask]
    drawn = [int((valid == row).all(dim=1).nonzero()) for row in codebook.weight[::3]]
    assert len(set(drawn)) == 4


def test_fewer_frames_than_dead_rows_restart_as_many_rows() -> None:
    codebook = make_codebook(restart_interval=1)
    codebook(torch.randn(1, 3, 4), torch.tensor([[1, 1, 0]]), example_ids_B=torch.zeros(1))
    assert codebook.apply_update().num_restarted == 2
    assert codebook.weight.isfinite().all()


def test_a_resumed_codebook_draws_the_same_frames() -> None:
    whole, interrupted = make_codebook(), make_codebook()
    run_updates(whole, [range(NUM_CLIPS)])
    features, mask = clips_of(0)
    for update in range(3):
        features, mask = clips_of(update)
        interrupted(features, mask, example_ids_B=torch.arange(NUM_CLIPS))
        interrupted.apply_update()
    resumed = make_codebook()
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    run_updates(resumed, [range(NUM_CLIPS)], first=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_missing_example_ids_are_asked_for_when_rows_restart() -> None:
    codebook = make_codebook(restart_interval=2)
    codebook(*clips_of(0))
    codebook.apply_update()
    with pytest.raises(ValueError, match="example_ids"):
        codebook(*clips_of(1))


def test_a_codebook_trained_by_gradient_reports_and_keeps_its_entries() -> None:
    codebook = make_codebook(ema_decay=None)
    before = codebook.weight.detach().clone()
    features, mask = clips_of(0)
    output = codebook(features, mask)
    report = codebook.apply_update()
    assert report.num_active == len(output.codes[mask].unique())
    assert report.num_frames == int(mask.sum())
    assert torch.equal(codebook.weight, before)


def test_a_long_update_is_remembered_with_every_code_it_had() -> None:
    codebook = make_codebook(restart_interval=None)
    near = codebook.weight.detach()[1].repeat(1, 100, 1)
    rare = codebook.weight.detach()[[2, 11]][None]
    codebook(torch.cat([rare, near], dim=1))
    codebook.apply_update()
    assert set(codebook.recent_codes.tolist()) == {1, 2, 11}
    assert codebook.usage() == pytest.approx(3 / 12)


def test_keys_are_spread_evenly_and_never_repeat() -> None:
    keys = torch.stack([frame_keys(update, torch.arange(50), 40) for update in (1, 2)])
    assert len(keys.unique()) == keys.numel()
    assert int(keys.min()) >= 0
    assert float(keys.double().mean()) == pytest.approx(2.0**61, rel=0.05)
    alone = frame_keys(2, torch.tensor([17]), 9)
    assert torch.equal(alone[0], keys[1, 17, :9])  # neither the batch nor its length enters


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the published generator seeded with 1234567, as unsigned numbers."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    step = 0x9E3779B97F4A7C15
    states = [(1234567 + index * step) % 2**64 for index in range(3)]
    signed = torch.tensor([state - 2**64 if state >= 2**63 else state for state in states])
    assert [value % 2**64 for value in scramble(signed).tolist()] == expected


def train_unevenly(rank: int, folder: Path) -> None:
    """One process takes five clips in three passes, the other the empty clip, and in one update nothing at all."""
    codebook = make_codebook()
    passes = [[[4, 0], [3], [1, 2]], [[5]]][rank]
    codes = []
    for update in range(NUM_UPDATES):
        features, mask = clips_of(update)
        for clips in passes if update != 2 or rank == 0 else []:
            ids = torch.tensor(clips)
            codes.append(codebook(features[ids], mask[ids], example_ids_B=ids).codes)
        codebook.apply_update()
    torch.save(codebook.state_dict(), folder / f"uneven{rank}.pt")


def train_evenly(rank: int, folder: Path) -> None:
    codebook = make_codebook()
    codes, reports = run_updates(codebook, [[rank, 2 + rank], [4 + rank]])
    torch.save((codebook.state_dict(), codes, [vars(report) for report in reports]), folder / f"even{rank}.pt")


def train_both(rank: int, folder: Path) -> None:
    train_evenly(rank, folder)
    train_unevenly(rank, folder)


@pytest.mark.multiprocess
def test_two_processes_end_where_one_does(tmp_path: Path, in_two_processes: Callable[..., None]) -> None:
    in_two_processes(train_both, tmp_path)
    single = make_codebook()
    codes, reports = run_updates(single, [range(NUM_CLIPS)])
    for rank in (0, 1):
        state, own_codes, own_reports = torch.load(tmp_path / f"even{rank}.pt", weights_only=True)
        assert_same_state(single, state)
        for update in range(NUM_UPDATES):
            assert torch.equal(own_codes[2 * update], codes[update][[rank, 2 + rank]])
            assert torch.equal(own_codes[2 * update + 1], codes[update][[4 + rank]])
        assert [report["num_restarted"] for report in own_reports] == [report.num_restarted for report in reports]
        assert_same_state(single, torch.load(tmp_path / f"uneven{rank}.pt", weights_only=True))
    for name in ("even", "uneven"):
        states = [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
        first, second = (state[0] if name == "even" else state for state in states)
        assert all(torch.equal(value, second[key]) for key, value in first.items())
