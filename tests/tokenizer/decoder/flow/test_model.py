"""The flow model equals the reference, does not depend on the batch, and trains every part."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiollm.tokenizer.decoder.configuration import EstimatorConfig, FlowConfig, TokenEncoderConfig
from audiollm.tokenizer.decoder.flow.length_regulator import nearest_codes
from audiollm.tokenizer.decoder.flow.matching import FlowDraws
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.tokenizer.decoder.inputs import FlowSettings
from audiollm.tokenizer.signal.mel import MelConfig

FIXTURES = Path(__file__).parents[3] / "fixtures" / "parity" / "decoder"
ATOL = 1e-4


def how(flow: FlowModel, steps: int, guidance: float | None = None) -> Integration:
    """As published, but in so many steps."""
    return FlowSettings(steps, guidance).integration(flow.config)


def make_flow(**overrides: Any) -> FlowModel:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "codebook_size": 20,
        "embedding_size": 12,
        "num_mels": 8,
        "speaker_size": 5,
        "encoder": TokenEncoderConfig(size=16, num_heads=2, feed_forward_size=24, num_blocks=2, block_size=4),
        "regulator_convolutions": 2,
        "estimator": EstimatorConfig(channels=(8, 16), num_heads=2, head_dim=6, blocks_per_stage=1, num_mid_stages=1),
    }
    return FlowModel(FlowConfig(**(values | overrides)), MelConfig(num_mels=8)).eval()


def close(actual: Tensor, wanted: Tensor, atol: float = ATOL) -> None:
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0)


# ---------------------------------------------------------------------- sizes


def test_full_size_names_and_shapes_are_those_of_the_release() -> None:
    shapes = json.loads(gzip.decompress((FIXTURES / "full_size_shapes.json.gz").read_bytes()))["flow"]
    with torch.device("meta"):
        flow = FlowModel(FlowConfig(), MelConfig())
    assert {name: list(tensor.shape) for name, tensor in flow.state_dict().items()} == shapes


# ------------------------------------------------------------------ frame counts


def test_frames_at_25_codes_per_second_equal_whole_number_arithmetic() -> None:
    counts = torch.arange(1, 6001)
    assert torch.equal(make_flow().num_mel_frames(counts), counts * 22050 // (25 * 256))


def test_frames_at_other_rates_are_rounded_as_the_release_rounds() -> None:
    counts = torch.arange(1, 4500)
    exact = counts * 2 * 22050 // (25 * 256)
    made = make_flow(frame_rate=12.5).num_mel_frames(counts)
    assert counts[made != exact].tolist() == [3392, 3776, 4160]
    assert make_flow(frame_rate=50).num_mel_frames(100) == 172


@pytest.mark.parametrize("rate", [25.0, 12.5, 50.0, 7.3])
def test_codes_of_frames_are_those_of_nearest_interpolation(rate: float) -> None:
    flow = make_flow(frame_rate=rate)
    for num_codes in [1, 2, 3, 37, 128, 500, 999]:
        num_frames = flow.num_mel_frames(num_codes)
        codes = torch.arange(num_codes, dtype=torch.float32)[None, None]
        wanted = F.interpolate(codes, size=num_frames, mode="nearest")[0].long()
        made = nearest_codes(torch.tensor([num_codes]), torch.tensor([num_frames]), num_frames)
        assert torch.equal(made, wanted)


# ------------------------------------------------------------------------ batches


@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize(("channels", "mean_prior"), [((16,), None), ((16,), 0.3), ((16, 32, 16), None)])
def test_a_row_gives_the_same_in_any_batch(
    with_prompt: bool, channels: tuple[int, ...], mean_prior: float | None
) -> None:
    estimator = EstimatorConfig(channels=channels, num_heads=2, head_dim=6, blocks_per_stage=2, num_mid_stages=2)
    flow = make_flow(
        estimator=estimator, mean_prior=mean_prior
    ).double()  # norms of the shortest rows would show the rounding of float32
    torch.manual_seed(3)
    lengths = torch.tensor([9, 1, 6, 8])
    codes = torch.randint(20, (4, 9))
    speaker = torch.randn(4, 5)
    given: dict[str, Tensor] = {}
    if with_prompt:
        given = {"prompt_codes": torch.randint(20, (4, 3)), "prompt_mel": torch.randn(4, 8, 10)}
    noise = torch.randn(4, 8, 60, dtype=torch.float64)
    mel, mel_lengths = flow.mel(codes, lengths, speaker=speaker, noise=noise, integration=how(flow, 3), **given)
    assert mel.shape[2] == mel_lengths.max()
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        alone, alone_length = flow.mel(
            codes[one, :length],
            speaker=speaker[one],
            noise=noise[one],
            integration=how(flow, 3),
            **{name: part[one] for name, part in given.items()},
        )
        assert mel_lengths[row] == alone_length
        close(mel[row, :, : alone.shape[2]], alone[0], atol=1e-9)
        assert not mel[row, :, alone.shape[2] :].any()


@pytest.mark.parametrize(("mean_weight", "mean_prior"), [(0.0, None), (0.7, None), (0.7, 0.3)])
def test_hidden_training_loss_is_the_frame_weighted_mean_of_the_rows(
    mean_weight: float, mean_prior: float | None
) -> None:
    flow = make_flow(mean_prior=mean_prior)
    torch.manual_seed(3)
    codes, lengths = torch.randint(20, (2, 9)), torch.tensor([9, 5])
    frames = flow.num_mel_frames(lengths)
    mel = torch.randn(2, 8, int(frames.max()))
    draws = flow.decoder.draw(mel, frames)
    together = flow.loss(codes, lengths, mel, frames, draws=draws, padding="hidden", mean_weight=mean_weight)
    total = 0.0
    for row in range(2):
        one, num_frames = slice(row, row + 1), int(frames[row])
        own = FlowDraws(draws.t[one], draws.z[one, :, :num_frames], draws.keep_condition[one], draws.prompt_frames[one])
        loss = flow.loss(
            codes[one, : lengths[row]], lengths[one], mel[one, :, :num_frames], frames[one], draws=own,
            mean_weight=mean_weight,
        )  # fmt: skip
        total += loss.item() * num_frames
    assert together.item() == pytest.approx(total / int(frames.sum()), rel=1e-5)


def test_the_flow_does_not_move_the_mean_that_it_starts_from() -> None:
    """It could make its own way easy with a mean that is no mel."""
    flow = make_flow(mean_prior=0.3)
    torch.manual_seed(4)
    codes, lengths = torch.randint(20, (1, 9)), torch.tensor([9])
    frames = flow.num_mel_frames(lengths)
    mel = torch.randn(1, 8, int(frames))
    draws = dataclasses.replace(flow.decoder.draw(mel, frames), keep_condition=torch.tensor([False]))
    flow.loss(codes, lengths, mel, frames, draws=draws).backward()  # the estimator does not see the codes either
    assert not flow.length_regulator.model[-1].weight.grad.any()


def test_the_weighted_mean_is_the_distance_of_what_the_codes_say_before_the_flow() -> None:
    flow = make_flow()
    torch.manual_seed(4)
    codes, lengths = torch.randint(20, (1, 9)), torch.tensor([9])
    frames = flow.num_mel_frames(lengths)
    mel = torch.randn(1, 8, int(frames))
    draws = flow.decoder.draw(mel, frames)
    plain, weighted = (flow.loss(codes, lengths, mel, frames, draws=draws, mean_weight=weight) for weight in (0.0, 3.0))
    mu, _ = flow.condition(codes, lengths, frames)
    assert (weighted - plain).item() == pytest.approx(3 * (mu - mel).abs().mean().item(), rel=1e-4)
    weighted.backward()
    assert flow.length_regulator.model[-1].weight.grad.any()


# ---------------------------------------------------------------- flow properties


def test_without_guidance_only_the_informed_velocity_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = make_flow()
    rows: list[int] = []
    forward = flow.decoder.estimator.forward
    monkeypatch.setattr(flow.decoder.estimator, "forward", lambda x, *rest: rows.append(len(x)) or forward(x, *rest))
    codes, noise = torch.randint(20, (1, 6)), torch.randn(1, 8, 20)
    plain, _ = flow.mel(codes, noise=noise, integration=how(flow, 2, 0))
    guided, _ = flow.mel(codes, noise=noise, integration=how(flow, 2, 1e-6))
    assert rows == [1, 1, 2, 2]
    close(guided, plain)
    assert not torch.allclose(flow.mel(codes, noise=noise, integration=how(flow, 2, 2.0))[0], plain, atol=1e-3)


def test_a_known_velocity_is_integrated_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = make_flow(guidance=0.0)
    target = torch.randn(1, 8, 20)
    noise = torch.randn(1, 8, 20)
    monkeypatch.setattr(flow.decoder.estimator, "forward", lambda *inputs: target - noise)
    for steps in (1, 4):
        close(flow.mel(torch.randint(20, (1, 6)), noise=noise, integration=how(flow, steps))[0], target, atol=1e-5)


@pytest.mark.parametrize("mean_prior", [0.0, 0.4])
def test_with_a_prior_around_the_mean_the_flow_leads_from_there_to_the_mel(
    mean_prior: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = make_flow(guidance=0.7, mean_prior=mean_prior, sigma_min=0.0, training_guidance_dropout=0.0)
    codes, lengths = torch.randint(20, (1, 6)), torch.tensor([6])
    frames = flow.num_mel_frames(lengths)
    noise, target = torch.randn(1, 8, int(frames)), torch.randn(1, 8, int(frames))
    mu, _ = flow.condition(codes, lengths, frames)
    start = (mu + mean_prior * noise).detach()
    # The velocity that training asks for leads from the start to the mel, in however many steps.
    monkeypatch.setattr(flow.decoder.estimator, "forward", lambda x, *_: (target - start).expand_as(x))
    draws = dataclasses.replace(flow.decoder.draw(target, frames), z=noise)
    assert flow.loss(codes, lengths, target, frames, draws=draws).item() == pytest.approx(0, abs=1e-10)
    for steps in (1, 4):
        close(flow.mel(codes, noise=noise, integration=how(flow, steps))[0], target, atol=1e-5)


def test_cosine_schedule_takes_smaller_steps_first() -> None:
    times = torch.linspace(0, 1, 11)
    warped = make_flow().decoder.warp(times)
    assert warped[1] < 0.02
    torch.testing.assert_close(warped[[0, -1]], torch.tensor([0.0, 1.0]))
    assert torch.equal(make_flow(cosine_schedule=False).decoder.warp(times), times)


def test_speaker_vectors_count_by_direction_and_zeros_are_the_neutral_voice() -> None:
    flow = make_flow()
    speaker = torch.randn(2, 5)
    close(flow.project_speaker(speaker, 2), flow.project_speaker(3 * speaker, 2), atol=1e-6)
    assert torch.equal(flow.project_speaker(torch.zeros(2, 5), 2), flow.project_speaker(None, 2))


def test_noise_is_drawn_from_the_generator_alone() -> None:
    flow, codes = make_flow(), torch.randint(20, (1, 6))

    def decode(seed: int) -> Tensor:
        torch.rand(1)  # the global generator must not matter
        return flow.mel(codes, integration=how(flow, 1), generator=torch.Generator().manual_seed(seed))[0]

    assert torch.equal(decode(1), decode(1))
    assert not torch.equal(decode(1), decode(2))


def test_bfloat16_stays_close_to_float32() -> None:
    flow, codes, noise = make_flow(), torch.randint(20, (2, 9)), torch.randn(2, 8, 31)
    lengths = torch.tensor([9, 4])
    wanted, _ = flow.mel(codes, lengths, noise=noise, integration=how(flow, 4))
    made, _ = flow.to(torch.bfloat16).mel(codes, lengths, noise=noise, integration=how(flow, 4))
    assert made.dtype == torch.float32
    assert (made - wanted).abs().mean() < 0.05 * wanted.std()


def test_draws_follow_their_distributions() -> None:
    flow = make_flow(training_guidance_dropout=0.25)
    lengths = torch.full((4000,), 50)
    draws = flow.decoder.draw(torch.zeros(4000, 8, 2), lengths, torch.Generator().manual_seed(0))
    assert draws.t.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.keep_condition.float().mean() == pytest.approx(0.75, abs=0.03)
    assert (draws.prompt_frames == 0).float().mean() == pytest.approx(0.5 + 0.5 / 41, abs=0.03)
    assert draws.prompt_frames.max() == 40
    assert draws.prompt_frames.min() == 0


def test_dropped_rows_learn_nothing_from_their_condition_and_given_frames_reach_the_others() -> None:
    flow = make_flow()
    codes, lengths = torch.randint(20, (1, 6)), torch.tensor([6])
    mel = torch.randn(1, 8, 20)
    draws = FlowDraws(torch.tensor([0.4]), torch.randn(1, 8, 20), torch.tensor([False]), torch.tensor([5]))

    def loss(**changes: Any) -> Tensor:
        return flow.loss(codes, lengths, mel, torch.tensor([20]), draws=dataclasses.replace(draws, **changes))

    assert torch.equal(loss(), loss(prompt_frames=torch.tensor([0])))
    loss().backward()
    assert flow.input_embedding.weight.grad is None or not flow.input_embedding.weight.grad.any()
    kept = torch.tensor([True])
    assert not torch.equal(loss(keep_condition=kept), loss(keep_condition=kept, prompt_frames=torch.tensor([0])))


def test_every_parameter_is_trained() -> None:
    flow = make_flow(training_guidance_dropout=0.0).train()
    codes, lengths = torch.randint(20, (2, 9)), torch.tensor([9, 5])
    frames = flow.num_mel_frames(lengths)
    flow.loss(codes, lengths, torch.randn(2, 8, int(frames.max())), frames, torch.randn(2, 5)).backward()
    untouched = [name for name, weight in flow.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A constant per channel in front of a norm over frames and channels is not always lost, but keys' biases are.
    assert [name for name in untouched if "linear_k.bias" not in name] == []


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": torch.zeros(1, 8, 3)}, r"noise \[1, 8, 3\]"),
        ({"prompt_codes": torch.zeros(1, 2, dtype=torch.int64)}, "both or neither"),
        (
            {"prompt_codes": torch.zeros(1, 2, dtype=torch.int64), "prompt_mel": torch.zeros(1, 8, 40)},
            "the prompt mel alone has 40",
        ),
        ({"prompt_codes": torch.zeros(1, 2, dtype=torch.int64), "prompt_mel": torch.zeros(1, 7, 4)}, r"\[1, 8, Q\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_flow().mel(torch.zeros(1, 6, dtype=torch.int64), **changes)


def test_loss_refuses_a_mel_that_is_wider_than_its_rows() -> None:
    with pytest.raises(ValueError, match=r"12 frames.*longest of mel_lengths is 10"):
        make_flow().loss(
            torch.zeros(1, 3, dtype=torch.int64), torch.tensor([3]), torch.zeros(1, 8, 12), torch.tensor([10])
        )
