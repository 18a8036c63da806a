"""What holds of a ReasoningCodec: two groups of codes, any length, files, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiollm.reconstruction import reconstruct
from audiollm.tokenizer import AudioTokenizer
from audiollm.tokenizer.base import Codes, GroupedCodes, require_one_rate
from audiollm.tokenizer.facts import facts_of_tokenizer
from audiollm.tokenizer.opening import kind_of
from audiollm.tokenizer.reasoningcodec import model as model_module
from audiollm.tokenizer.reasoningcodec import windows as windows_module
from audiollm.tokenizer.reasoningcodec.encoders import PluggedEncoder, encoder_of
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.reasoningcodec.windows import DECODED_CODES, cross_faded, decoded_windows
from audiollm.tokenizer.sequence import as_one_row

from .conftest import RATE, music, sqcodec, whisper

Noise = Callable[..., Tensor]
Make = Callable[..., ReasoningCodec]
FEW = {"steps": 2, "guidance": 1.5}


def in_group(codec: ReasoningCodec, group: str) -> ReasoningCodec:
    """A view of the same weights."""
    made = ReasoningCodec.__new__(ReasoningCodec)
    made.__dict__ = dict(codec.__dict__)
    made.configure(group=group)
    return made


# --- encode -----------------------------------------------------------------------------------------------------------


def test_each_clip_of_a_batch_gets_what_it_gets_alone(codec: ReasoningCodec, noise: Noise) -> None:
    clips = [noise(30_000, 1), noise(9_000, 2), noise(30_000, 3), noise(5), noise(0)]
    encoded = codec.encode(clips, RATE)
    assert isinstance(encoded, GroupedCodes)
    reasoning, reconstruction = encoded
    assert reasoning.lengths.tolist() == [7, 2, 7, 1, 0]
    assert reconstruction.lengths.tolist() == [16, 5, 16, 1, 0] == encoded.lengths.tolist()
    assert reconstruction.lengths.tolist() == [codec.num_frames(len(clip), RATE) for clip in clips]
    assert min(len(one[0].unique()) for one in encoded) > 3
    for index, clip in enumerate(clips):
        alone = codec.encode(clip, RATE)
        assert isinstance(alone, GroupedCodes)
        for one, together in zip(alone, encoded, strict=True):
            assert torch.equal(one[0], together[index])
    assert {name: one.shape[1] for name, one in encoded.clip(1).items()} == {"reasoning": 2, "reconstruction": 5}


def test_two_calls_give_the_same_also_in_training_mode(codec: ReasoningCodec, noise: Noise) -> None:
    """The published code leaves the reasoning codes out of a fifth of the clips, also then."""
    clips = [noise(9_600, seed) for seed in range(6)]
    first = codec.encode(clips, RATE)
    codec.train()
    try:
        assert not codec.encoders["whisper"].training
        again = codec.encode(clips, RATE)
        assert codec.training
    finally:
        codec.eval()
    assert all(torch.equal(one.codes, two.codes) for one, two in zip(first, again, strict=True))


def test_long_clips_are_encoded_in_windows_whose_number_does_not_matter_to_memory(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "ENCODED_SECONDS", 2)
    monkeypatch.setattr(ReasoningCodec, "seconds_at_once", 4.0)
    sizes: list[int] = []
    hear = ReasoningCodec.hear
    monkeypatch.setattr(ReasoningCodec, "hear", lambda self, rows: sizes.append(rows.numel()) or hear(self, rows))
    clip = noise(11 * RATE + 100)
    encoded = codec.encode(clip, RATE)
    assert max(sizes) == 4 * RATE
    pieces = [codec.encode(piece, RATE) for piece in clip.split(2 * RATE)]
    for name in ("reasoning", "reconstruction"):
        assert torch.equal(torch.cat([piece[name][0] for piece in pieces], dim=1), encoded[name][0])
    assert encoded.lengths.tolist() == [codec.num_frames(len(clip), RATE)] == [-(-len(clip) // 1920)]


def test_other_rates_are_resampled_and_a_stream_gives_the_codes_of_the_whole(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "ENCODED_SECONDS", 2)
    assert codec.encode(noise(16_000), 16_000)["reasoning"].lengths.tolist() == [5]
    clip = noise(5 * RATE)
    whole = codec.encode(clip, RATE)
    for name in ("reasoning", "reconstruction"):
        one = in_group(codec, name)
        assert one.can_encode_stream
        assert torch.equal(torch.cat(list(one.encode_stream(clip.split(7000), RATE)), dim=1), whole[name][0])
    assert not codec.can_encode_stream
    with pytest.raises(ValueError, match="codes of two rates"):
        codec.encode_stream([clip], RATE)


def test_published_windows_are_filled_by_the_clip_itself(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[Tensor] = []

    def encode_rows(self: ReasoningCodec, rows: Tensor) -> tuple[Tensor, ...]:
        windows.extend(rows)
        return (torch.zeros(len(rows), 2, 150).long(), torch.zeros(len(rows), 4, 375).long())

    monkeypatch.setattr(ReasoningCodec, "_encode_rows", encode_rows)
    clips = [noise(4_000), noise(720_000)]
    encoded = codec.encode(clips, RATE, published_windows=True)
    assert [one.lengths.tolist() for one in encoded] == [[1, 151], [3, 376]]
    assert [len(one) for one in windows] == [720_240] * 3
    assert torch.equal(windows[0], clips[0].repeat(181)[:720_240])
    assert torch.equal(windows[2], clips[1].repeat(3)[720_240:1_440_480])


# --- decode -----------------------------------------------------------------------------------------------------------


def test_sound_is_the_same_in_every_call_and_batch(codec: ReasoningCodec, noise: Noise) -> None:
    encoded = codec.encode([noise(30_000, 1), noise(9_000, 2), noise(30_000, 3), noise(0)], RATE)
    sounds = codec.decode(encoded, **FEW)
    assert [len(sound) for sound in sounds] == [16 * 1920, 5 * 1920, 16 * 1920, 0]
    assert all(torch.equal(one, two) for one, two in zip(sounds, codec.decode(encoded, **FEW), strict=True))
    for index, sound in enumerate(sounds[:3]):
        clip = encoded.clip(index)
        alone = codec.decode(clip["reasoning"], clip["reconstruction"], **FEW)[0]
        torch.testing.assert_close(alone, sound, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(codec.decode([clip], **FEW)[0], sound, atol=1e-4, rtol=1e-3)
    assert not torch.equal(codec.decode(encoded, **FEW, seed=1)[0], sounds[0])
    assert not torch.equal(codec.decode(encoded, **FEW, use_reasoning=False)[0], sounds[0])
    assert not torch.equal(codec.decode(encoded, steps=2, guidance=4.0)[0], sounds[0])


def test_without_guidance_the_network_is_asked_once(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code fails there, and takes its guidance from nowhere."""
    assert codec.flow is not None
    rows: list[int] = []
    estimator = codec.flow.estimator
    forward = estimator.forward
    monkeypatch.setattr(estimator, "forward", lambda frames, t: rows.append(len(frames)) or forward(frames, t))
    encoded = codec.encode(noise(9_600), RATE)
    codec.decode(encoded, steps=3, guidance=1.0)
    codec.decode(encoded, steps=2, guidance=2.0)
    assert rows == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("num_codes", [1, 30, 31, 52, 53, 75, 200])
def test_windows_cover_every_code_once_but_for_what_they_share(num_codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "DECODED_CODES", 30)
    monkeypatch.setattr(windows_module, "DECODED_HOP", 22)
    windows = decoded_windows(num_codes)
    assert windows[0].first == windows[0].shared == 0
    assert windows[-1].first + windows[-1].count == num_codes
    for before, after in pairwise(windows):
        assert before.count == 30
        assert before.first + before.count - after.first == after.shared == 8
        assert after.count > after.shared
    assert len(decoded_windows(0)) == 0


def test_released_windows_advance_by_whole_reasoning_codes() -> None:
    _, second = decoded_windows(DECODED_CODES + 1)
    assert (second.first, second.count, second.shared) == (280, 96, 95)
    assert second.first * 2 % 5 == 0


def test_a_long_clip_is_joined_where_windows_say_the_same(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents, reasoning codes and sound of a place are those of that place in every window."""
    monkeypatch.setattr(windows_module, "DECODED_CODES", 30)
    monkeypatch.setattr(windows_module, "DECODED_HOP", 20)
    encoded = codec.encode(noise(6 * RATE), RATE)  # 75 codes: windows at 0, 20, 40, 60
    conditions: list[Tensor] = []
    given: list[Tensor | None] = []
    assert codec.flow is not None
    assert codec.sqcodec is not None

    def sample(condition: Tensor, noise_BFL: Tensor, *, given_BGL: Tensor | None, **_: Any) -> Tensor:
        conditions.append(condition)
        given.append(given_BGL)
        return condition[..., :6].clone()  # a latent says where it is from

    monkeypatch.setattr(codec.flow, "sample", sample)
    monkeypatch.setattr(codec.sqcodec, "sound", lambda latents: latents[:, 0].repeat_interleave(960, dim=1))
    [sound] = codec.decode(encoded)
    assert len(sound) == 75 * 1920
    assert [one.shape[1] for one in conditions] == [60, 60, 60, 30]
    for before, after in pairwise(conditions):
        torch.testing.assert_close(after[:, :20], before[:, 40:], atol=1e-5, rtol=1e-4)
    assert given[0] is None
    for before, one in zip(conditions, given[1:], strict=False):
        assert one is not None
        assert torch.equal(one, before[:, 40:60, :6])  # twenty are shared: fewer than would be given
    whole = torch.cat([conditions[0][:, :40], conditions[1][:, :40], conditions[2][:, :40], conditions[3]], dim=1)
    torch.testing.assert_close(sound, whole[0, :, 0].repeat_interleave(960), atol=1e-4, rtol=1e-3)


def test_a_fade_begins_with_the_one_and_ends_with_the_other() -> None:
    faded = cross_faded(torch.full((100,), 2.0), torch.full((100,), 4.0))
    assert faded[0] == pytest.approx(2.01)
    assert faded[-1] == pytest.approx(3.99)
    assert bool((faded.diff() > 0).all())
    assert len(cross_faded(torch.zeros(0), torch.zeros(0))) == 0


def test_memory_of_decoding_does_not_grow_with_the_clip(
    codec: ReasoningCodec, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_module, "DECODED_CODES", 30)
    monkeypatch.setattr(windows_module, "DECODED_HOP", 20)
    monkeypatch.setattr(ReasoningCodec, "seconds_at_once", 5.0)
    assert codec.flow is not None
    frames: list[int] = []
    sample = codec.flow.sample
    monkeypatch.setattr(
        codec.flow,
        "sample",
        lambda condition, noise, **own: frames.append(condition.shape[:2].numel()) or sample(condition, noise, **own),
    )
    codes = [{"reasoning": torch.zeros(2, 48, dtype=torch.int64), "reconstruction": torch.zeros(4, 120).long()}] * 3
    sounds = codec.decode(codes, steps=1, guidance=1.0)
    assert [len(sound) for sound in sounds] == [120 * 1920] * 3
    assert max(frames) == 2 * 60  # two windows of 2.4 s


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_group_alone_is_a_tokenizer_like_any_other(codec: ReasoningCodec, noise: Noise) -> None:
    whole = codec.encode(noise(9_600), RATE)
    for name, rate, num_codebooks, size in (("reasoning", 5.0, 2, 32), ("reconstruction", 12.5, 4, 32)):
        one = in_group(codec, name)
        assert (one.frame_rate, one.num_codebooks, one.codebook_size) == (rate, num_codebooks, size)
        encoded = one.encode(noise(9_600), RATE)
        assert isinstance(encoded, Codes)
        assert torch.equal(encoded.codes, whole[name].codes)
        assert one.fingerprint() != codec.fingerprint()
        assert as_one_row(one).frame_rate == rate * num_codebooks
        assert facts_of_tokenizer(one)["tokens_per_second"] == rate * num_codebooks
    sound = in_group(codec, "reconstruction").decode(whole["reconstruction"], **FEW)
    assert torch.equal(sound[0], codec.decode(whole, **FEW, use_reasoning=False)[0])
    reasoning = in_group(codec, "reasoning")
    assert not reasoning.can_decode
    with pytest.raises(ValueError, match="reasoning codes alone make no sound"):
        reasoning.decode(whole["reasoning"])


def test_what_needs_one_rate_of_codes_says_so(codec: ReasoningCodec) -> None:
    facts = facts_of_tokenizer(codec)
    assert facts["frame_rate"] is None
    assert facts["code_groups"] == ["reasoning: 2 at 5 Hz", "reconstruction: 4 at 12.5 Hz"]
    assert facts["tokens_per_second"] == 2 * 5 + 4 * 12.5
    assert facts["bitrate_bps"] == codec.bits_per_second == 5 * facts["tokens_per_second"]
    with pytest.raises(ValueError, match=r"reasoning: 2 at 5 Hz; reconstruction: 4 at 12\.5 Hz"):
        _ = codec.frame_rate
    with pytest.raises(ValueError, match="a language model: ReasoningCodec gives codes of several rates"):
        as_one_row(codec)
    with pytest.raises(ValueError, match=r"it: .*group='reasoning'"):
        require_one_rate(codec, "it")


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_opened_again(codec: ReasoningCodec, noise: Noise, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    assert kind_of(tmp_path).name == "reasoningcodec"
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert isinstance(again, ReasoningCodec)
    assert again.fingerprint() == codec.fingerprint()
    encoded = codec.encode(noise(9_600), RATE)
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(again.encode(noise(9_600), RATE), encoded, strict=True))
    assert torch.equal(again.decode(encoded, **FEW)[0], codec.decode(encoded, **FEW)[0])
    # The averages of the entries are kept: without them, the first update of a training would restart all of them.
    kept = again.reasoning.quantizer.residual.codebooks[0]
    assert torch.equal(kept.ema_count, codec.reasoning.quantizer.residual.codebooks[0].ema_count)

    without = AudioTokenizer.from_pretrained(tmp_path, encoder_only=True)
    assert without.fingerprint() == codec.fingerprint()
    assert not without.can_decode
    assert not any(name.startswith(("flow.", "heads.", "sqcodec.")) for name in without.state_dict())
    with pytest.raises(ValueError, match="loaded without its decoder"):
        without.decode(encoded)

    one = AudioTokenizer.from_pretrained(tmp_path, group="reasoning")
    one.save_pretrained(tmp_path / "reasoning")
    assert AudioTokenizer.from_pretrained(tmp_path / "reasoning").num_codebooks == 2


def test_a_released_folder_with_everything_in_it(
    reasoningcodec_folder: Path, noise: Noise, tmp_path: Path, make_codec: Make
) -> None:
    tensors = load_file(reasoningcodec_folder / "model.safetensors")
    prefixed = {f"module.{name}": one for name, one in tensors.items()}
    prefixed |= {"module.wavlm_transfer.kernel": torch.zeros(3), "module.music_ssl.weight": torch.zeros(2)}
    for name in ("ReasoningCodec", "ReasoningCodec_1024"):
        torch.save({"model": prefixed, "step": 3}, tmp_path / f"{name}.checkpoint")
    shutil.copy(reasoningcodec_folder / "dit_config.json", tmp_path / "model_config.json")
    with pytest.raises(ValueError, match=r"ReasoningCodec, ReasoningCodec_1024: say which by variant"):
        AudioTokenizer.from_pretrained(tmp_path)
    opened = AudioTokenizer.from_pretrained(tmp_path, variant="ReasoningCodec_1024")
    plain = AudioTokenizer.from_pretrained(reasoningcodec_folder)
    assert opened.fingerprint() == plain.fingerprint()
    plain.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"variant='ReasoningCodec' is for releases, but .*saved holds one that we"):
        AudioTokenizer.from_pretrained(tmp_path / "saved", variant="ReasoningCodec")
    with pytest.raises(ValueError, match=r"cannot encode without its whisper and wavlm and music encoder"):
        opened.encode(noise(100), RATE)
    with pytest.raises(ValueError, match=r"cannot decode: it has no SQCodec"):
        opened.decode(None)


def test_weights_that_are_not_all_there_are_named(reasoningcodec_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(reasoningcodec_folder / "model.safetensors")
    shutil.copy(reasoningcodec_folder / "dit_config.json", tmp_path)
    gone = "cond_feature_emb.bias"
    torch.save(
        {"model": {name: one for name, one in tensors.items() if name != gone}}, tmp_path / "ReasoningCodec.checkpoint"
    )
    with pytest.raises(ValueError, match=f"missing: {gone}"):
        AudioTokenizer.from_pretrained(tmp_path)
    torch.save({"model": {"audio_thinking.cls_token": torch.zeros(1, 4)}}, tmp_path / "ReasoningCodec.checkpoint")
    with pytest.raises(ValueError, match="half a ReasoningCodec"):
        AudioTokenizer.from_pretrained(tmp_path)
    (tmp_path / "dit_config.json").write_text(json.dumps({"attention_head_dim": 5}))
    torch.save({"model": tensors}, tmp_path / "ReasoningCodec.checkpoint")
    with pytest.raises(ValueError, match="heads of 5 numbers do not make up"):
        AudioTokenizer.from_pretrained(tmp_path)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_frozen_encoder_of_another_rate_or_size_is_refused(make_codec: Make, noise: Noise) -> None:
    codec = make_codec()
    with pytest.raises(ValueError, match=r"music encoder gives 50 vectors a second, and this codec needs 25"):
        codec.attach_encoder("music", music(pool=1))
    with pytest.raises(ValueError, match=r"wavlm encoder gives vectors of 9 numbers, but this codec was made for 16"):
        codec.attach_encoder("wavlm", PluggedEncoder(lambda rows: rows, 9, 50))
    with pytest.raises(ValueError, match="there is no speech encoder"):
        codec.attach_encoder("speech", music())
    # It says that it has the right rate, and has not.
    codec.attach_encoder("whisper", PluggedEncoder(lambda rows: torch.zeros(len(rows), 5, 16), 16, 50))
    with pytest.raises(ValueError, match="whisper encoder gives 5 vectors where 40 belong: it has another rate"):
        codec.encode(noise(9_700), RATE)
    codec.attach_encoder("whisper", PluggedEncoder(lambda rows: torch.full((len(rows), 40, 16), torch.nan), 16, 50))
    with pytest.raises(ValueError, match="whisper encoder gives NaN"):
        codec.encode(noise(9_700), RATE)
    codec.attach_encoder("whisper", PluggedEncoder(lambda rows: torch.zeros(len(rows), 40, 15), 16, 50))
    with pytest.raises(ValueError, match=r"must give floats \[1, S, 16\]"):
        codec.encode(noise(9_700), RATE)
    with pytest.raises(ValueError, match="can't be saved"):
        codec.save_pretrained("nowhere")


def test_an_sqcodec_of_other_latents_is_refused(make_codec: Make) -> None:
    with pytest.raises(ValueError, match=r"7 numbers for every 960 samples at 24000 Hz; needed are 6 for 960"):
        make_codec().attach_sqcodec(sqcodec(latent_hidden_dim=7))


def test_codes_of_one_group_that_are_missing_are_named(codec: ReasoningCodec, noise: Noise) -> None:
    encoded = codec.encode(noise(9_600), RATE)
    reasoning, reconstruction = encoded
    for given, said in (
        ((reasoning,), "there are no reconstruction codes"),
        ((None, reconstruction), r"there are no reasoning codes: .*use_reasoning=False"),
        (({"reconstruction": reconstruction},), "there are no reasoning codes"),
        (([{"reasoning": reasoning[0]}],), "clip 0 has no reconstruction codes"),
        ((reasoning[0][:, :1], reconstruction[0]), r"1 reasoning codes and 5 reconstruction codes, which need 2"),
        ((reasoning[0][:1], reconstruction[0]), r"reasoning codes: clip 0 has codes of shape \[1, 2\]"),
        ((reasoning[0], reconstruction[0] + 99), r"reconstruction codes: clip 0: code \d+ of codebook 0 is outside"),
        (([reasoning[0]] * 2, [reconstruction[0]]), "reasoning codes of 2 clips and reconstruction codes of 1"),
    ):
        with pytest.raises(ValueError, match=said):
            codec.decode(*given, **FEW)
    for options, said in (({"steps": 0}, "steps=0"), ({"guidance": -1}, "guidance=-1"), ({"prompt": 1}, "prompt")):
        with pytest.raises(ValueError, match=said):
            codec.decode(encoded, **options)


def test_what_is_no_waveform_is_refused(codec: ReasoningCodec) -> None:
    for clip in (torch.full((9,), torch.nan), torch.zeros(9, dtype=torch.int16), torch.zeros(2, 3, 4)):
        with pytest.raises(ValueError, match=r"clip 0|waveforms have shape"):
            codec.encode(clip, RATE)
    with pytest.raises(ValueError, match="sample_rate=0"):
        codec.encode(torch.zeros(9), 0)
    with pytest.raises(ValueError, match="group='all': choose both"):
        in_group(codec, "all")


# --- commands ---------------------------------------------------------------------------------------------------------


def test_one_group_goes_through_a_file_and_both_are_refused_by_name(
    codec: ReasoningCodec, noise: Noise, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "in.wav", noise(20_000).numpy(), RATE)
    one = in_group(codec, "reconstruction")
    result = reconstruct(tmp_path / "in.wav", tmp_path / "out.wav", one, steps=2, guidance=1.0, seed=3)
    assert (result.num_codes, result.num_samples) == (4 * 11, 20_000)
    with pytest.raises(ValueError, match="audio_tokenizer: ReasoningCodec gives codes of several rates"):
        reconstruct(tmp_path / "in.wav", tmp_path / "out.wav", codec)
    with pytest.raises(ValueError, match="speaker: the decoder of ReasoningCodec"):
        reconstruct(tmp_path / "in.wav", tmp_path / "out.wav", one, speaker=torch.zeros(3))


@pytest.mark.parametrize("change", [{"num_mel_bins": "many"}, {"d_model": None}, {"pad_token_id": 50256}])
def test_settings_of_an_encoder_that_transformers_refuses_are_named(
    change: dict[str, Any], codec: ReasoningCodec
) -> None:
    values: dict[str, Any] = codec.settings()["encoders"]["whisper"]
    values = {**values, "config": {**values["config"], **change}}
    with pytest.raises(ValueError, match=r"config\.json does not describe the whisper encoder: "):
        encoder_of("whisper", values, Path("config.json"))


def test_an_encoder_of_short_clips_hears_longer_ones_piece_by_piece() -> None:
    """Not their beginning alone, which is all that its extractor takes."""
    encoder, clip = whisper(), 0.1 * torch.randn(1, 20 * 16000, generator=torch.Generator().manual_seed(0))
    [heard_BSE] = encoder(clip)
    assert heard_BSE.shape == (1, 3 * 400, 16)  # the last piece is filled up
    for place, samples in enumerate(clip.split(8 * 16000, dim=1)):
        [piece_BSE] = encoder(samples)
        assert torch.equal(heard_BSE[:, 400 * place : 400 * (place + 1)], piece_BSE)


def test_long_recordings_are_not_copied(codec: ReasoningCodec) -> None:
    """Six hours are 2 GB: windows are views, but for a last one that has to be filled."""
    clip = torch.zeros(70 * RATE + 1)
    *whole, last = codec._cut_whole(clip)
    assert [one.data_ptr() for one in whole] == [clip[place * 30 * RATE :].data_ptr() for place in range(2)]
    assert last.data_ptr() != clip[60 * RATE :].data_ptr()
