"""Streams equal what is decoded at once: in length, at seams, in any pieces; and cost the same every second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.decoder.flow.solvers import SOLVERS, Integration, Solver
from audiollm.tokenizer.decoder.inputs import VoicePrompt
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.streaming.decoder import StreamingDecoder
from audiollm.tokenizer.decoder.streaming.mel import EncodedCodes, MelStream
from audiollm.tokenizer.decoder.streaming.noise import NoiseBuffer
from audiollm.tokenizer.decoder.streaming.vocoder import VocoderStream
from audiollm.tokenizer.signal.mel import MelConfig

FIXTURES = Path(__file__).parents[3] / "fixtures" / "parity" / "decoder"
HOP_LENGTH, NUM_MELS, CODEBOOK_SIZE = 64, 8, 20


def make_decoder(frame_rate: float = 25.0, block_size: int = 4, mean_prior: float | None = None) -> WaveformDecoder:
    """A tiny decoder; at 25 codes per second, a code lasts 5 mel frames exactly."""
    torch.manual_seed(0)
    flow = FlowConfig(
        codebook_size=CODEBOOK_SIZE,
        frame_rate=frame_rate,
        embedding_size=12,
        num_mels=NUM_MELS,
        speaker_size=5,
        encoder=TokenEncoderConfig(size=16, num_heads=2, feed_forward_size=24, num_blocks=2, block_size=block_size),
        regulator_convolutions=2,
        mean_prior=mean_prior,
        estimator=EstimatorConfig(channels=(16, 16), num_heads=2, head_dim=8, blocks_per_stage=1, num_mid_stages=1),
    )
    vocoder = VocoderConfig(
        num_mels=NUM_MELS,
        sample_rate=8000,
        base_channels=16,
        upsample_rates=(4, 4),
        upsample_kernel_sizes=(8, 8),
        resblock_kernel_sizes=(3,),
        resblock_dilations=((1, 3),),
        source_resblock_kernel_sizes=(3, 3),
        source_resblock_dilations=((1,), (1,)),
        f0_channels=8,
    )
    mel = MelConfig(
        sample_rate=8000, n_fft=256, window_length=256, hop_length=HOP_LENGTH, num_mels=NUM_MELS, max_frequency=4000.0
    )
    decoder = WaveformDecoder(WaveformDecoderConfig(flow=flow, vocoder=vocoder, mel=mel)).eval()
    with torch.no_grad():  # a pitch that is voiced most of the time
        decoder.vocoder.f0_predictor.classifier.weight.mul_(30)
        decoder.vocoder.f0_predictor.classifier.bias.fill_(150)
    return decoder


@pytest.fixture(scope="module")
def decoder() -> WaveformDecoder:
    return make_decoder()


def draw_codes(num_codes: int, seed: int = 1) -> Tensor:
    return torch.randint(CODEBOOK_SIZE, (num_codes,), generator=torch.Generator().manual_seed(seed))


def stream(decoder: WaveformDecoder, pieces: list[Tensor], **options: Any) -> list[Tensor]:
    made = StreamingDecoder(decoder, **({"steps": 2} | options))
    return [*(made.push(piece) for piece in pieces), made.finish()]


# ---------------------------------------------------------------- streams at large


@pytest.mark.parametrize(("frame_rate", "block_size"), [(25.0, 4), (12.5, 10), (50.0, 7), (7.3, 1 << 30)])
def test_a_stream_is_as_long_as_the_clip(frame_rate: float, block_size: int) -> None:
    decoder = make_decoder(frame_rate, block_size)
    for num_codes in [0, 1, 2, 9, 10, 11, 20, 73]:
        waveform = torch.cat(stream(decoder, [draw_codes(num_codes)], steps=1))
        assert len(waveform) == decoder.flow.num_mel_frames(num_codes) * HOP_LENGTH
        assert waveform.isfinite().all()


@pytest.mark.parametrize("reference", [False, True])
def test_pieces_do_not_matter(reference: bool) -> None:
    decoder, codes = make_decoder(block_size=8), draw_codes(83)
    wanted = torch.cat(stream(decoder, [codes], reference=reference))
    for size in (1, 7, 40):
        made = torch.cat(stream(decoder, list(codes.split(size)), reference=reference))
        assert torch.equal(made, wanted)


@pytest.mark.parametrize("reference", [False, True])
def test_blocks_are_of_the_sizes_that_are_asked(reference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, sizes = make_decoder(block_size=8), []
    decode = StreamingDecoder._decode

    def watch(self: StreamingDecoder, codes: Tensor, *, is_last: bool) -> Tensor:
        sizes.append(len(codes))
        return decode(self, codes, is_last=is_last)

    monkeypatch.setattr(StreamingDecoder, "_decode", watch)
    made = torch.cat(stream(decoder, list(draw_codes(59).split(3)), reference=reference, blocks=[6, 10, 20]))
    assert sizes == [6, 10, 20, 20, 3]
    if not reference:  # which loses a frame of sound per block
        assert len(made) == len(torch.cat(stream(decoder, [draw_codes(59)])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": []}, "at least 1 code"),
        ({"blocks": [3, 0]}, r"blocks=\[3, 0\]"),
        ({"blocks": [3], "block_codes": 3}, "leave out block_codes"),
        ({"blocks": [30, 5], "reference": True}, "more than 5 codes"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingDecoder(make_decoder(block_size=8), **options)


def test_no_part_of_a_stream_is_remembered_for_training() -> None:
    decoder, seen = make_decoder(), []

    def watch(module: nn.Module, *_: Any) -> None:
        seen.append(torch.is_grad_enabled())

    for module in decoder.modules():
        module.register_forward_pre_hook(watch)
    prompt = VoicePrompt(draw_codes(4), torch.randn(NUM_MELS, decoder.flow.num_mel_frames(4)))
    stream(decoder, [draw_codes(30)], prompt=prompt, speaker=torch.randn(5))
    assert seen
    assert not any(seen)


def test_sound_begins_with_the_first_block_and_says_nothing_of_later_codes(decoder: WaveformDecoder) -> None:
    codes = draw_codes(30)
    first = StreamingDecoder(decoder, steps=2)
    assert len(first.push(codes[:9])) == 0
    begun = first.push(codes[9:10])
    assert len(begun) == 5 * 5 * HOP_LENGTH  # of 10 codes, 5 are held back
    other = torch.cat([codes[:10], draw_codes(20, seed=2)])
    assert torch.equal(torch.cat(stream(decoder, [other]))[: len(begun)], begun)


def test_every_second_costs_the_same(decoder: WaveformDecoder) -> None:
    made = StreamingDecoder(decoder, steps=1)
    costs = []
    for piece in draw_codes(1000).split(50):
        before = made.num_computed_frames
        made.push(piece)
        costs.append(made.num_computed_frames - before)
    per_block = (25 + 50 + 5) * 5  # history, block and what was held back before it, 5 frames each
    assert set(costs[4:]) <= {per_block, per_block - 1}  # a window may start one frame late, at an even one
    encoded = made._mels._encoded
    assert encoded._kept.shape[1] <= 25 + 5 + 4
    assert encoded._cache.num_codes <= 750


def test_seeds_repeat_and_differ(decoder: WaveformDecoder) -> None:
    codes = draw_codes(12)

    def decode(seed: int) -> Tensor:
        torch.rand(1)  # the global generator must not matter
        return torch.cat(stream(decoder, [codes], seed=seed))

    assert torch.equal(decode(1), decode(1))
    assert not torch.allclose(decode(1), decode(2))


@pytest.mark.parametrize("reference", [False, True])
def test_streams_work_in_bfloat16(reference: bool) -> None:
    decoder, codes = make_decoder(block_size=8), draw_codes(30)
    wanted = torch.cat(stream(decoder, [codes], reference=reference))
    made = torch.cat(stream(decoder.prepare(torch.bfloat16), [codes], reference=reference))
    assert made.dtype == torch.float32
    assert made.shape == wanted.shape
    assert made.isfinite().all()


# ------------------------------------------------------------------------- seams


def decode_in_blocks(decoder: WaveformDecoder, codes: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Returns waveform and mel ``[C, M]`` of a stream whose blocks are all of one size."""
    options = {"block_codes": block, "first_block_codes": block}
    made = StreamingDecoder(decoder, steps=4, **options)
    mels, extend = [], made._mels.extend

    def record(*inputs: Any, **keywords: Any) -> Tensor:
        mels.append(extend(*inputs, **keywords))
        return mels[-1]

    made._mels.extend = record  # type: ignore[method-assign]
    waveform = torch.cat([made.push(codes), made.finish()])
    return waveform, torch.cat(mels, dim=2)[0]


def seam_frames(num_codes: int, block: int) -> list[int]:
    """First frames of the blocks behind the first: 5 codes of 5 frames are held back each time."""
    return [(end - 5) * 5 for end in range(block, num_codes + 1, block)]


@pytest.mark.parametrize("mean_prior", [None, 0.3])
def test_one_block_is_the_clip_decoded_at_once(mean_prior: float | None) -> None:
    decoder = make_decoder(mean_prior=mean_prior)
    codes = draw_codes(60)
    waveform, mel = decode_in_blocks(decoder, codes, 1000)
    noise = NoiseBuffer(NUM_MELS, torch.Generator().manual_seed(42)).take(0, 300)
    wanted = decoder.mel(codes, noise=noise, steps=4)
    torch.testing.assert_close(mel, wanted[0], atol=1e-5, rtol=1e-5)
    draws = torch.Generator().manual_seed(43)
    phase = decoder.vocoder.source.draw_phase(1, draws)
    hiss = NoiseBuffer(9, draws, HOP_LENGTH).take(0, 300)
    with torch.no_grad():
        at_once = decoder.vocoder(wanted, phase=phase, noise=hiss)
    torch.testing.assert_close(waveform, at_once[0], atol=1e-4, rtol=0)


def test_seams_are_as_smooth_as_the_rest(decoder: WaveformDecoder) -> None:
    codes = draw_codes(200)
    waveform, mel = decode_in_blocks(decoder, codes, 10)
    whole_waveform, _ = decode_in_blocks(decoder, codes, 1000)
    seams = torch.tensor(seam_frames(200, 10))
    assert len(seams) == 20

    # No click: the largest step between samples around a seam is one that the clip decoded at once has too.
    steps = waveform.diff().abs()
    around = torch.stack([steps[seam * HOP_LENGTH - 4 : seam * HOP_LENGTH + 4].max() for seam in seams])
    assert around.max() <= 1.05 * whole_waveform.diff().abs().max()
    # No edge in the spectrum: frames on both sides of a seam differ as others do.
    edges = mel.diff(dim=1).square().mean(0).sqrt()
    assert edges[seams - 1].mean() <= 1.15 * edges.mean()
    # The distance to what is decoded at once is no larger near seams than elsewhere.
    near = torch.zeros(mel.shape[1], dtype=torch.bool)
    near[(seams[:, None] + torch.arange(-2, 2)).flatten()] = True
    distance = (log_spectrum(waveform) - log_spectrum(whole_waveform)).square().mean(0).sqrt()[: len(near)]
    assert distance[near].mean() <= 1.2 * distance[~near].mean()


def log_spectrum(waveform: Tensor) -> Tensor:
    window = torch.hann_window(4 * HOP_LENGTH)
    spectrum = torch.stft(waveform, 4 * HOP_LENGTH, HOP_LENGTH, window=window, return_complex=True)
    return (spectrum.abs() + 1e-4).log()


def test_more_history_comes_closer_to_the_clip_decoded_at_once(decoder: WaveformDecoder) -> None:
    codes = draw_codes(120)
    _, whole = decode_in_blocks(decoder, codes, 1000)

    def distance(history_codes: int) -> float:
        flow, draws = decoder.flow, torch.Generator().manual_seed(42)
        mels = MelStream(
            flow,
            NoiseBuffer(NUM_MELS, draws),
            history_frames=5 * history_codes,
            overlap_frames=25,
            max_history_codes=500,
            integration=Integration(4, 0.7),
        )
        parts = [mels.extend(piece[None], is_last=False) for piece in codes.split(10)]
        made = torch.cat([*parts, mels.extend(codes[None, :0], is_last=True)], dim=2)
        return (made[0] - whole).square().mean().sqrt().item()

    assert distance(100) < 0.7 * distance(0)


@pytest.mark.parametrize("num_given", [0, 3])
def test_windows_start_where_the_estimator_halves_the_frames_of_the_whole_row(num_given: int) -> None:
    flow = make_decoder(frame_rate=26.0).flow  # 4.8 frames per code: finished frames come in odd and even numbers
    mel = MelStream(
        flow,
        NoiseBuffer(NUM_MELS, torch.Generator().manual_seed(0)),
        history_frames=11,
        overlap_frames=2,
        max_history_codes=8,
        prompt=VoicePrompt(draw_codes(2)[None], torch.zeros(1, NUM_MELS, num_given)) if num_given else None,
        integration=Integration(1, 0.7),
    )
    starts = []
    for piece in draw_codes(36).split(3):
        mel.extend(piece[None])
        starts.append(mel._next - mel._history.shape[-1] - num_given)
    assert max(starts) > 20
    assert all(start % 2 == 0 for start in starts)


@pytest.mark.parametrize("solver", SOLVERS)
def test_known_frames_repeat_their_way_and_the_others_follow(decoder: WaveformDecoder, solver: Solver) -> None:
    flow = decoder.flow.decoder
    torch.manual_seed(2)
    noise, mu, given = torch.randn(1, NUM_MELS, 30), torch.randn(1, NUM_MELS, 30), torch.zeros(1, NUM_MELS, 30)
    speaker = torch.randn(1, NUM_MELS)
    integration = Integration(4, 0.7, solver, guided_until=0.6)
    states = flow.trace(noise, mu, speaker, given, integration)
    assert states.shape == (5, 1, NUM_MELS, 30)
    assert torch.equal(states[0], noise)
    assert torch.equal(states[-1], flow.sample(noise, None, mu, speaker, given, integration))
    other_noise = torch.cat([torch.randn(1, NUM_MELS, 12), noise[:, :, 12:]], dim=2)
    again = flow.trace(other_noise, mu, speaker, given, integration, known=states[..., :12])
    torch.testing.assert_close(again, states)


@torch.no_grad()
def test_the_vocoder_streams_exactly_when_the_preview_is_true(decoder: WaveformDecoder) -> None:
    vocoder = decoder.vocoder
    torch.manual_seed(2)
    mel = torch.randn(1, NUM_MELS, 150)
    generator = torch.Generator().manual_seed(3)
    phase = vocoder.source.draw_phase(1, generator)
    whole = vocoder(mel, phase=phase, noise=NoiseBuffer(9, generator, HOP_LENGTH).take(0, 150))
    made = VocoderStream(vocoder, torch.Generator().manual_seed(3))
    preview = vocoder.reach + vocoder.f0_predictor.reach
    parts, start = [], 0
    for size in (1, 40, 0, 3, 100, 6):
        parts.append(made.extend(mel[:, :, start : start + size], mel[:, :, start + size : start + size + preview]))
        start += size
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------- parts


def test_noise_does_not_depend_on_where_it_is_cut() -> None:
    def buffer() -> NoiseBuffer:
        return NoiseBuffer(3, torch.Generator().manual_seed(0), scale=2)

    whole, cut = buffer().take(0, 300), buffer()
    for start, stop in [(0, 10), (5, 11), (11, 11), (40, 220), (219, 300)]:
        assert torch.equal(cut.take(start, stop), whole[:, :, 2 * start : 2 * stop])
    assert whole.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [1, 3, 4, 11])
@torch.no_grad()
def test_codes_are_encoded_as_in_one_pass_and_forgotten_but_for_the_prompt(decoder: WaveformDecoder, size: int) -> None:
    flow, codes = decoder.flow, draw_codes(41)[None]
    encoded = EncodedCodes(flow, num_prompt_codes=6, max_history=500)
    done = 0
    for piece in codes.split(size, dim=1):
        encoded.push(piece)
        done += piece.shape[1]
        # What is there is what these codes alone give, however they were cut.
        kept, places = encoded.at(torch.arange(done) if done < 30 else torch.tensor([0, 5, done - 1]))
        wanted = flow.encode(codes[:, :done], torch.tensor([done]))[0]
        wanted = wanted if done < 30 else wanted[[0, 5, done - 1]]
        torch.testing.assert_close(kept[0, places], wanted, atol=1e-5, rtol=1e-5)
        if done >= 30:
            encoded.forget_before(done - 1)
    assert encoded.at(torch.tensor(40))[0].shape[1] <= 6 + 1 + 2 * decoder.config.flow.encoder.block_size


# ---------------------------------------------------------------------- voices


def make_prompt() -> VoicePrompt:
    return VoicePrompt(draw_codes(12, seed=5), torch.randn(NUM_MELS, 60, generator=torch.Generator().manual_seed(5)))


def test_a_prompt_is_gone_on_from_as_when_decoding_at_once(decoder: WaveformDecoder) -> None:
    codes, prompt = draw_codes(20), make_prompt()
    made = StreamingDecoder(decoder, prompt=prompt, steps=3, block_codes=100, first_block_codes=100)
    waveform = torch.cat([made.push(codes), made.finish()])
    assert len(waveform) == 100 * HOP_LENGTH
    noise = NoiseBuffer(NUM_MELS, torch.Generator().manual_seed(42)).take(0, 160)
    wanted = decoder.mel(codes, prompt=prompt, noise=noise, steps=3)
    torch.testing.assert_close(made._mels._history[-1], wanted, atol=1e-5, rtol=1e-5)


def test_prompt_and_speaker_last_beyond_the_history(decoder: WaveformDecoder) -> None:
    codes = draw_codes(200)
    sizes = {"block_codes": 10, "history_codes": 5}
    plain = torch.cat(stream(decoder, [codes], **sizes))
    for voice in ({"prompt": make_prompt()}, {"speaker": torch.ones(5)}):
        made = torch.cat(stream(decoder, [codes], **sizes, **voice))
        assert made.shape == plain.shape
        assert not torch.allclose(made[-2000:], plain[-2000:], atol=1e-4)


def test_a_prompt_costs_the_same_in_every_block(decoder: WaveformDecoder) -> None:
    made = StreamingDecoder(decoder, prompt=make_prompt(), steps=1, block_codes=10, history_codes=10)
    costs = []
    for piece in draw_codes(100).split(10):
        before = made.num_computed_frames
        made.push(piece)
        costs.append(made.num_computed_frames - before)
    per_block = 60 + (10 + 10 + 5) * 5
    assert set(costs[3:]) <= {per_block, per_block - 1}


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([3, CODEBOOK_SIZE]), f"to {CODEBOOK_SIZE}, but the codebook has {CODEBOOK_SIZE}"),
        (torch.tensor([-1]), "from -1"),
        (torch.tensor([0.5]), "float32"),
        (torch.zeros(1, 3, dtype=torch.int64), r"shape \[1, 3\]"),
    ],
)
def test_bad_codes_in_the_middle_are_refused_and_the_stream_goes_on(
    decoder: WaveformDecoder, bad: Tensor, message: str
) -> None:
    codes = draw_codes(30)
    made = StreamingDecoder(decoder, steps=2)
    parts = [made.push(codes[:13])]
    with pytest.raises(ValueError, match=message):
        made.push(bad)
    parts += [made.push(codes[13:].tolist()), made.push([]), made.finish(), made.finish()]
    assert torch.equal(torch.cat(parts), torch.cat(stream(decoder, [codes])))
    with pytest.raises(ValueError, match="finished"):
        made.push(codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_codes": 0}, "block_codes=0: use at least 1"),
        ({"history_codes": -1}, "history_codes=-1"),
        ({"reference": True, "overlap_codes": 3}, "leave out overlap_codes"),
        ({"reference": True}, "holds back 5 codes"),
        ({"speaker": torch.zeros(4)}, "vectors of 5"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    decoder: WaveformDecoder, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingDecoder(decoder, **options)


def test_smallest_sizes_work(decoder: WaveformDecoder) -> None:
    sizes: list[dict[str, int]] = [
        {"block_codes": 1, "history_codes": 0, "overlap_codes": 0},
        {"block_codes": 2, "overlap_codes": 9},  # more is held back than a block brings
        {"block_codes": 3, "first_block_codes": 50},
    ]
    for options in sizes:
        waveform = torch.cat(stream(decoder, [draw_codes(23)], steps=1, **options))
        assert len(waveform) == 23 * 5 * HOP_LENGTH
        assert waveform.isfinite().all()
