"""encode(): the same codes in any batch, as a stream, at any rate; and what it says to bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.signal.waveforms import check_waveform

SURE_GAP = 1e-4
LENGTHS = [1, 159, 640, 641, 3000, 16000, 16001, 20480, 50000, 90001]
VARIANTS = {
    "pooled first": {},
    "pooled in the middle": {"pooling_position": 2, "pooling_kernel_size": 3, "pooling_type": "max"},
    "pooled between SAE source and target": {"pooling_position": 3},
    "not pooled": {"pooling_kernel_size": None},
    "block-causal": {"quantize_causal_block_size": 10, "encoder_causal_convolution": True, "pooling_position": 3},
    "causal": {"encoder_causal_attention": True},
    "short segments": {"max_source_positions": 100},
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, make_tokenizer: Callable[..., UniAudioTokenizer]) -> UniAudioTokenizer:
    return make_tokenizer(**VARIANTS[request.param])


def test_any_batch_gives_what_each_clip_gives_alone(
    model: UniAudioTokenizer, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for batches as wide as a GPU's, where padding and masks come in."""
    clips = [noise(length, seed=length) for length in LENGTHS]
    alone = [model.encode(clip, 16000, return_features=True) for clip in clips]
    for tokens_at_once, max_padding in ((400, 0.1), (5000, 100.0)):
        monkeypatch.setattr("audiollm.tokenizer.encoder.encoding.CPU_BATCH_TOKENS", tokens_at_once)
        monkeypatch.setattr("audiollm.tokenizer.encoder.encoding.MAX_PADDING", max_padding)
        together = model.encode(clips, 16000, return_features=True)
        assert together.features is not None
        for index, expected in enumerate(alone):
            assert expected.features is not None
            torch.testing.assert_close(together.features[index], expected.features[0], atol=1e-5, rtol=0)
            sure = distance_gap(model, expected.features[0]) > SURE_GAP
            assert torch.equal(together[index][0, sure], expected[0][0, sure]), (LENGTHS[index], max_padding)


def distance_gap(model: UniAudioTokenizer, features: Tensor) -> Tensor:
    """How much farther the second nearest entry is (squared), ``[T]``; where it is tiny, rounding may decide."""
    distances = torch.cdist(features.double(), model.codebook.weight.double()) ** 2
    nearest, second = distances.topk(2, largest=False).values.unbind(-1)
    return second - nearest


def test_codes_depend_on_the_sound(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    """Without this, the tests above would pass for a tokenizer that always says 3."""
    assert len(set(tokenizer.encode(noise(90001), 16000).tolist()[0])) > 5


def test_token_counts(model: UniAudioTokenizer) -> None:
    for length in LENGTHS:
        assert int(model.encode(torch.zeros(length), 16000).lengths[0]) == model.num_tokens(length, 16000)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100, 48000])
def test_a_stream_gives_what_the_whole_gives(
    model: UniAudioTokenizer, sample_rate: int, noise: Callable[..., Tensor]
) -> None:
    waveform = noise(int(7.3 * sample_rate))
    whole = model.encode(waveform, sample_rate)[0][0]
    for chunk, batch_size in ((1111, 1), (sample_rate, 3), (len(waveform), 2)):
        streamed = torch.cat(list(model.encode_stream(waveform.split(chunk), sample_rate, batch_size=batch_size)))
        assert torch.equal(streamed, whole)


def test_a_long_clip_in_a_stream(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    waveform = noise(100 * 16000 + 77)
    whole = tokenizer.encode(waveform, 16000)[0][0]
    assert len(whole) == tokenizer.num_tokens(len(waveform), 16000) == 3 * 750 + 251
    assert torch.equal(torch.cat(list(tokenizer.encode_stream(waveform.split(50_000), 16000))), whole)
    assert torch.equal(tokenizer.encode(waveform[: 30 * 16000], 16000)[0][0], whole[:750])


def test_the_rest_of_a_long_clip_is_heard_as_if_padded_to_a_full_segment(
    tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]
) -> None:
    """The reference pads it so; the last frame of a clip that ends inside a token hears the difference."""
    for length in (1000, 16000, 479_700):
        rest = noise(length, seed=length)
        encoded = tokenizer.encode(torch.cat([noise(480_000), rest]), 16000, return_features=True)
        padded = torch.nn.functional.pad(rest, (0, 480_000 - length))
        mask = torch.zeros(1, 3000)
        mask[:, : -(-length // 160)] = 1
        with torch.no_grad():
            expected = tokenizer.pre_quantizer_features(tokenizer.log_mel(padded[None]), mask)[0]
        assert encoded.features is not None
        found = encoded.features[0][750:]
        torch.testing.assert_close(found, expected[: len(found)], atol=1e-5, rtol=0)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads memory use from /proc")
@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_a_stream_of_an_hour_needs_no_more_memory_than_one_of_minutes(
    make_tokenizer: Callable[..., UniAudioTokenizer], sample_rate: int, noise: Callable[..., Tensor]
) -> None:
    model = make_tokenizer(encoder_layers=1, quantize_position=1, encoder_residual_target_position=1)
    minute = noise(60 * sample_rate)

    def chunks() -> Iterator[Tensor]:
        for _ in range(60):
            yield minute.clone()

    num_tokens, memory = 0, []
    for codes in model.encode_stream(chunks(), sample_rate):
        num_tokens += len(codes)
        memory.append(resident_bytes())
    assert num_tokens == 3600 * 25
    assert max(memory) - max(memory[:12]) < 40e6  # the hour itself is 230 MB or more


def test_all_forms_of_input_agree(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    clips = torch.stack([noise(9000, seed=1), noise(9000, seed=2)])
    expected = tokenizer.encode(list(clips), 16000)
    assert torch.equal(tokenizer.encode(clips, 16000).codes, expected.codes)
    assert torch.equal(tokenizer.encode(clips.double(), 16000).codes, expected.codes)
    assert torch.equal(tokenizer.encode(clips[0], 16000)[0], expected[0])
    assert expected.codes.dtype == torch.int64
    assert expected.codes.device.type == "cpu"


def test_empty_clips_have_no_codes(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    codes = tokenizer.encode([torch.zeros(0), noise(5000), torch.zeros(0)], 16000, return_features=True)
    assert codes.lengths.tolist() == [0, 8, 0]
    assert codes.features is not None
    assert [list(features.shape) for features in codes.features] == [[0, 16], [8, 16], [0, 16]]
    assert tokenizer.encode([], 16000).codes.shape == (0, 1, 0)
    assert tokenizer.encode(torch.zeros(0), 44100).lengths.tolist() == [0]
    assert list(tokenizer.encode_stream([], 16000)) == []
    assert list(tokenizer.encode_stream([torch.zeros(0)], 44100)) == []


@pytest.mark.parametrize("sample_rate", [8000, 11025, 96000, 192000, 44101])
def test_any_rate_and_hardly_any_samples(tokenizer: UniAudioTokenizer, sample_rate: int) -> None:
    for length in (1, sample_rate // 100):
        codes = tokenizer.encode(torch.rand(length), sample_rate)
        assert int(codes.lengths[0]) == tokenizer.num_tokens(length, sample_rate) == 1


def test_features_are_what_the_quantizer_saw(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    clips = [noise(30000), noise(7000, seed=3)]
    codes = tokenizer.encode(clips, 16000, return_features=True)
    assert codes.features is not None
    for index, features in enumerate(codes.features):
        assert torch.equal(tokenizer.codebook.encode(features), codes[index][0])


def test_encoding_during_training_changes_nothing(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    expected = tokenizer.encode(noise(20000), 16000).codes
    before = copy.deepcopy(tokenizer.state_dict())
    tokenizer.train()
    tokenizer.encoder.conv1.eval()
    assert torch.equal(tokenizer.encode(noise(20000), 16000).codes, expected)
    assert tokenizer.training
    assert not tokenizer.encoder.conv1.training
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_encoding_during_training_is_without_dropout_also_where_the_encoder_was_compiled(
    make_tokenizer: Callable[..., UniAudioTokenizer], noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **_: run)  # bound to the tokenizer, as what is compiled is
    tokenizer = make_tokenizer(dropout=0.5)
    tokenizer.compile_encoder()
    expected = tokenizer.encode(noise(20000), 16000).codes
    tokenizer.train()
    modes: list[bool] = []  # of the tokenizer itself, while encoding goes on
    tokenizer.encoder.conv1.register_forward_pre_hook(lambda *_: modes.append(tokenizer.encoder.training))
    assert torch.equal(tokenizer.encode(noise(20000), 16000).codes, expected)
    assert modes
    assert all(modes)


def test_two_tokenizers_do_not_share_anything(
    make_tokenizer: Callable[..., UniAudioTokenizer], noise: Callable[..., Tensor]
) -> None:
    first = make_tokenizer()
    second = UniAudioTokenizer(first.config)
    second.config.pooling_type = "max"
    assert first.config.pooling_type == "avg"
    expected = first.encode(noise(20000), 16000).codes
    second.encode(noise(20000), 16000)
    assert torch.equal(first.encode(noise(20000), 16000).codes, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_sample_names_its_clip(tokenizer: UniAudioTokenizer, bad: float) -> None:
    clip = torch.zeros(100)
    clip[42] = bad
    with pytest.raises(ValueError, match=r"clip 1 holds NaN or infinity \(first at sample 42 of 100\)"):
        tokenizer.encode([torch.zeros(100), clip], 16000)
    with pytest.raises(ValueError, match="chunk 1 holds NaN"):
        list(tokenizer.encode_stream([torch.zeros(100), clip], 16000))


def test_infinities_of_both_signs_do_not_cancel_and_samples_that_overflow_are_refused() -> None:
    for large in (torch.inf, 1e300):
        bad = torch.zeros(100, dtype=torch.float64)
        bad[3], bad[42] = -large, large
        with pytest.raises(ValueError, match=r"NaN or infinity \(first at sample 3 of 100"):
            check_waveform(bad, "clip 0")
    with pytest.raises(ValueError, match=r"clip 0 has samples as large as 1e\+37; scale it to \[-1, 1\]"):
        check_waveform(torch.tensor([0.0, -1e37]), "clip 0")
    integers = torch.tensor([32767.0, -32768.0])
    assert torch.equal(check_waveform(integers, "clip 0"), integers)
    assert check_waveform(torch.zeros(0), "clip 0").shape == (0,)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, None, "4", float("nan")])
def test_a_batch_size_is_a_whole_number(tokenizer: UniAudioTokenizer, bad: object) -> None:
    with pytest.raises(ValueError, match=r"batch_size=.*: use a whole number of at least 1"):
        tokenizer.encode([torch.zeros(100)], 16000, batch_size=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (torch.zeros(100, dtype=torch.int16), r"clip 0 is torch.int16; convert to float.*32768"),
        ([torch.zeros(10), torch.zeros(2, 50)], r"clip 1 has shape \[2, 50\].*channels"),
        (torch.zeros(2, 3, 50), r"waveforms have shape \[2, 3, 50\]"),
        ([[0.0, 0.1]], "clip 0 is a list; pass a float tensor"),
    ],
)
def test_wrong_waveforms_are_refused(tokenizer: UniAudioTokenizer, waveforms: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(waveforms, 16000)  # type: ignore[arg-type]


def test_nonsense_settings_are_refused(tokenizer: UniAudioTokenizer) -> None:
    with pytest.raises(ValueError, match="sample_rate=16"):
        tokenizer.encode(torch.zeros(100), 16)
    with pytest.raises(ValueError, match="batch_size=0"):
        tokenizer.encode(torch.zeros(100), 16000, batch_size=0)


def test_decoding_says_what_is_missing(tokenizer: UniAudioTokenizer) -> None:
    assert not tokenizer.can_decode
    with pytest.raises(ValueError, match="no waveform decoder"):
        tokenizer.decode(tokenizer.encode(torch.rand(5000), 16000))
    with pytest.raises(ValueError, match=r"\[0, 24\)"):
        tokenizer.decode(torch.tensor([[[24]]]))


def test_bfloat16_changes_few_codes(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    waveform = noise(20 * 16000)
    expected = tokenizer.encode(waveform, 16000).codes
    half = copy.deepcopy(tokenizer)
    half.encoder.bfloat16()
    assert half.sae is not None
    half.sae.bfloat16()
    changed = (half.encode(waveform, 16000).codes != expected).float().mean()
    assert changed < 0.1


@pytest.mark.slow
def test_compiled_gives_the_same_codes(tokenizer: UniAudioTokenizer, noise: Callable[..., Tensor]) -> None:
    clips = [noise(length, seed=length) for length in LENGTHS]
    expected = tokenizer.encode(clips, 16000).codes
    tokenizer.compile_encoder()
    assert (tokenizer.encode(clips, 16000).codes == expected).float().mean() > 0.99
