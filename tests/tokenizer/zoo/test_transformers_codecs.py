"""The codecs of transformers: their codes are those of their models, whatever the batch, the files or the pieces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.zoo.transformers_codecs import mimi as mimi_module
from tests.tokenizer.zoo.tiny_codecs import MODELS, make_codec

KINDS = list(MODELS)
RESIDUAL = [kind for kind in KINDS if kind != "xcodec2"]
STEPS_STREAMED = (1, 3, 7, 50)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of each kind, as transformers writes it; made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            make_codec(kind).save_pretrained(made[kind])
        return made[kind]

    return folder


def opened(folder: Path, **options: Any) -> Any:
    return AudioTokenizer.from_pretrained(folder, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_sound_are_those_of_the_model(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    tokenizer = opened(folders(kind))
    model = MODELS[kind]().__class__.from_pretrained(folders(kind)).eval()
    waveform = noise(20 * tokenizer.frame_samples)
    with torch.no_grad():
        if kind == "xcodec2":
            encoded = model.encode(waveform[None, None], tokenizer.input_features(waveform[None]), return_dict=True)
        elif kind in ("encodec", "xcodec"):
            highest = model.config.target_bandwidths[-1]
            encoded = model.encode(waveform[None, None], bandwidth=highest, return_dict=True)
        else:
            encoded = model.encode(waveform[None, None], return_dict=True)
        expected = encoded.audio_codes[0] if kind == "encodec" else encoded.audio_codes
        codes = tokenizer.encode(waveform, tokenizer.sample_rate)
        if kind == "encodec":
            sound = model.decode(encoded.audio_codes, [None], return_dict=True).audio_values
        else:
            sound = model.decode(audio_codes=expected, return_dict=True).audio_values
    assert torch.equal(codes.codes, expected)
    assert len(expected.unique()) > 2  # or nothing is told here
    (decoded,) = tokenizer.decode(codes)
    assert len(decoded) == 20 * tokenizer.frame_samples
    torch.testing.assert_close(decoded[: sound.shape[-1]], sound.flatten())
    assert tokenizer.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_alone_is_not_copied_and_stays_as_it_was(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = opened(folders(kind))
    whole = tokenizer.frame_samples * 4
    clip = noise(whole)
    before = clip.clone()
    seen: list[Tensor] = []
    compute = type(tokenizer).encode_batch
    monkeypatch.setattr(
        type(tokenizer), "encode_batch", lambda self, batch_BN: seen.append(batch_BN) or compute(self, batch_BN)
    )
    tokenizer.encode([clip], tokenizer.sample_rate)
    assert seen[0].data_ptr() == clip.data_ptr()
    assert torch.equal(clip, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_unequal_lengths_gives_what_each_clip_gives_alone(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    tokenizer = opened(folders(kind))
    rate, frame = tokenizer.sample_rate, tokenizer.frame_samples
    lengths = [1, 13 * frame, frame - 1, 0, 7 * frame + 3, 13 * frame]
    clips = [noise(length, seed=index) for index, length in enumerate(lengths)]
    together = tokenizer.encode(clips, rate)
    assert together.lengths.tolist() == [-(-length // frame) for length in lengths]
    assert together.lengths.tolist() == [tokenizer.num_frames(length, rate) for length in lengths]
    sounds = tokenizer.decode(together)
    for index, clip in enumerate(clips):
        alone = tokenizer.encode([clip], rate)
        assert torch.equal(alone[0], together[index])
        assert len(sounds[index]) == frame * int(together.lengths[index])
        # Convolutions of another number of rows round otherwise: by some 2e-6 of the loudest sample.
        loudest = float(sounds[index].abs().amax()) if len(sounds[index]) else 0.0
        torch.testing.assert_close(tokenizer.decode(alone)[0], sounds[index], rtol=0, atol=1e-5 * loudest + 1e-7)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mimi"])
def test_long_audio_is_cut_into_segments(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = opened(folders(kind))
    frame = tokenizer.frame_samples
    seconds = 5 * frame / tokenizer.sample_rate
    monkeypatch.setattr(type(tokenizer), "max_segment_seconds", property(lambda _: seconds))
    clip = noise(12 * frame + 1)
    codes = tokenizer.encode(clip, tokenizer.sample_rate)
    parts = [tokenizer.encode(part, tokenizer.sample_rate)[0] for part in clip.split(5 * frame)]
    assert torch.equal(codes[0], torch.cat(parts, dim=1))
    assert codes.lengths.tolist() == [13] == [tokenizer.num_frames(len(clip), tokenizer.sample_rate)]
    assert len(tokenizer.decode(codes)[0]) == 13 * frame
    streamed = list(tokenizer.encode_stream(clip.split(97), tokenizer.sample_rate))
    assert torch.equal(torch.cat(streamed, dim=-1), codes[0] if tokenizer.num_codebooks > 1 else codes[0][0])
    assert [piece.shape[-1] for piece in streamed] == [5, 5, 3]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mimi"])
def test_segments_computed_together_are_bounded_whatever_the_batch_size(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = opened(folders(kind))
    frame = tokenizer.frame_samples
    assert tokenizer.seconds_at_once == 60
    monkeypatch.setattr(type(tokenizer), "max_segment_seconds", property(lambda _: 5 * frame / tokenizer.sample_rate))
    monkeypatch.setattr(type(tokenizer), "seconds_at_once", 11 * frame / tokenizer.sample_rate)
    sizes: list[int] = []
    for name in ("encode_batch", "decode_batch"):
        monkeypatch.setattr(type(tokenizer), name, counted(getattr(type(tokenizer), name), sizes))
    codes = tokenizer.encode(noise(30 * frame), tokenizer.sample_rate, batch_size=16)
    tokenizer.decode(codes, batch_size=16)
    assert sizes == [2, 2, 2, 2, 2, 2]  # of 6 segments, both ways


def counted(compute: Callable[[Any, Tensor], Tensor], sizes: list[int]) -> Callable[[Any, Tensor], Tensor]:
    """A method that also keeps how many rows it was given."""

    def count(self: Any, rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return compute(self, rows)

    return count


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_again_by_us_and_by_transformers(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    tokenizer = opened(folders(kind))
    tokenizer.save_pretrained(tmp_path)
    again = opened(tmp_path)
    clip = noise(9 * tokenizer.frame_samples)
    rate = tokenizer.sample_rate
    assert torch.equal(again.encode(clip, rate).codes, tokenizer.encode(clip, rate).codes)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert opened(tmp_path, fingerprint=tokenizer.fingerprint(), dtype="bfloat16").fingerprint() == again.fingerprint()
    _, report = type(tokenizer.codec).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with pytest.raises(ValueError, match="another audio tokenizer"):
        opened(tmp_path, fingerprint="0" * 64)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_decoder_it_gives_the_same_codes_and_says_what_it_cannot(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    whole, half = opened(folders(kind)), opened(folders(kind), encoder_only=True)
    clip = noise(5 * whole.frame_samples)
    codes = half.encode(clip, whole.sample_rate)
    assert torch.equal(codes.codes, whole.encode(clip, whole.sample_rate).codes)
    assert half.fingerprint() == whole.fingerprint()
    assert not half.can_decode
    assert not half.can_decode_stream
    assert sum(one.numel() for one in half.parameters()) < sum(one.numel() for one in whole.parameters())
    with pytest.raises(ValueError, match="cannot decode"):
        half.decode(codes)
    with pytest.raises(ValueError, match="encoder_only"):
        half.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_codes_stay_integers_in_range_and_codebooks_float32(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    exact, rounded = opened(folders(kind)), opened(folders(kind), dtype="bfloat16")
    clip = noise(60 * exact.frame_samples)
    codes, ours = exact.encode(clip, exact.sample_rate), rounded.encode(clip, exact.sample_rate)
    assert rounded.dtype == torch.bfloat16
    assert ours.codes.shape == codes.codes.shape
    assert 0 <= int(ours.codes.min()) <= int(ours.codes.max()) < rounded.codebook_size
    if kind in ("encodec", "mimi", "dac"):  # the others hear through a chain of random layers
        assert (ours.codes == codes.codes)[0, 0].float().mean() > 0.8
    if kind in RESIDUAL:
        same = rounded.codec.quantizer.state_dict()
        assert all(torch.equal(one, same[name]) for name, one in exact.codec.quantizer.state_dict().items())
    (sound,) = rounded.decode(ours)
    assert sound.dtype == torch.float32
    assert bool(sound.isfinite().all())


@pytest.mark.parametrize("kind", RESIDUAL)
def test_fewer_codebooks_are_the_first_of_all(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    whole, fewer = opened(folders(kind)), opened(folders(kind), num_codebooks=1)
    clip = noise(6 * whole.frame_samples)
    codes = fewer.encode(clip, whole.sample_rate)
    assert fewer.num_codebooks == 1 < whole.num_codebooks
    assert torch.equal(codes.codes, whole.encode(clip, whole.sample_rate).codes[:, :1])
    assert len(fewer.decode(codes)[0]) == 6 * whole.frame_samples
    assert fewer.fingerprint() != whole.fingerprint()
    fewer.save_pretrained(tmp_path)
    assert opened(tmp_path).num_codebooks == 1  # as it was saved …
    assert opened(tmp_path).fingerprint() == fewer.fingerprint()
    assert opened(tmp_path, num_codebooks=2).num_codebooks == 2  # … but all weights are there
    assert whole.decodes_first_codebooks
    assert torch.equal(whole.decode(codes)[0], fewer.decode(codes)[0])
    with pytest.raises(ValueError, match="has 1 codebook"):
        fewer.decode(whole.encode(clip, whole.sample_rate))


@pytest.mark.parametrize("number", [0, 5, True, 1.5])
def test_a_number_of_codebooks_that_is_not_there_is_refused(number: Any, folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=f"num_codebooks={number}"):
        opened(folders("mimi"), num_codebooks=number)


def test_the_semantic_codebooks_of_mimi_cannot_be_left_out(tmp_path: Path) -> None:
    make_codec("mimi", num_semantic_quantizers=2).save_pretrained(tmp_path)
    assert opened(tmp_path, num_codebooks=2).num_codebooks == 2
    with pytest.raises(ValueError, match="at least 2 must be used"):
        opened(tmp_path, num_codebooks=1)


@pytest.mark.parametrize("values", [{"audio_channels": 2}, {"normalize": True}, {"chunk_length_s": 1.0}])
def test_the_stereo_model_of_encodec_is_refused_with_the_reason(values: dict[str, Any], tmp_path: Path) -> None:
    make_codec("encodec", **values).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{next(iter(values))}.*loudness"):
        opened(tmp_path)


# -------------------------------------------------------------------- streaming


@pytest.mark.parametrize("num_codebooks", [1, 4])
def test_mimi_streams_both_ways_as_it_computes_the_whole(
    num_codebooks: int, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    mimi = opened(folders("mimi"), num_codebooks=num_codebooks)
    clip = noise(61 * mimi.frame_samples + 5)
    with torch.no_grad():  # by transformers, in one piece
        filled = pad(clip, (0, -len(clip) % mimi.frame_samples))
        codes = mimi.codec.encode(filled[None, None], num_quantizers=num_codebooks).audio_codes
        sound = mimi.codec.decode(codes).audio_values.flatten()
    assert torch.equal(mimi.encode(clip, mimi.sample_rate).codes, codes)
    rows = codes[0] if num_codebooks > 1 else codes[0, 0]
    for step in STEPS_STREAMED:
        streamed = list(mimi.encode_stream(clip.split(step * 11), mimi.sample_rate))
        assert torch.equal(torch.cat(streamed, dim=-1), rows)
        pieces = list(mimi.decode_stream(rows.split(step, dim=-1)))
        assert [len(piece) for piece in pieces[:-1]] == [step * mimi.frame_samples] * (len(pieces) - 1)
        torch.testing.assert_close(torch.cat(pieces), sound, rtol=1e-4, atol=1e-4 * float(sound.abs().max()))


def test_a_frame_of_mimi_depends_on_nothing_behind_it(
    folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    mimi = opened(folders("mimi"))
    assert mimi.is_causal
    clip = noise(40 * mimi.frame_samples)
    codes = mimi.encode(clip, mimi.sample_rate)[0]
    start = mimi.encode(clip[: 11 * mimi.frame_samples], mimi.sample_rate)[0]
    assert torch.equal(start, codes[:, :11])


def test_mimi_streams_another_sample_rate_as_it_encodes_it(
    folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    mimi = opened(folders("mimi"))
    clip = noise(4001)
    streamed = torch.cat(list(mimi.encode_stream(clip.split(97), 16000)), dim=-1)
    whole = mimi.encode(clip, 16000)
    assert torch.equal(streamed, whole[0])
    assert whole.lengths.tolist() == [mimi.num_frames(4001, 16000)]


def test_pieces_of_a_mimi_of_many_frames_per_second_are_short(folders: Callable[[str], Path]) -> None:
    tokenizer = opened(folders("mimi"))
    assert tokenizer.frame_rate > 1000
    assert tokenizer._piece_samples == 1500 * tokenizer.frame_samples


def test_a_long_clip_of_mimi_is_computed_in_pieces_that_leave_no_trace(
    folders: Callable[[str], Path], noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    mimi = opened(folders("mimi"))
    clips = [noise(50 * mimi.frame_samples, seed=seed) for seed in range(2)]
    codes = mimi.encode(clips, mimi.sample_rate)
    sounds = mimi.decode(codes)
    monkeypatch.setattr(mimi_module, "SEGMENT_SECONDS", 7 * mimi.frame_samples / mimi.sample_rate)
    assert torch.equal(mimi.encode(clips, mimi.sample_rate).codes, codes.codes)
    for sound, whole in zip(mimi.decode(codes), sounds, strict=True):
        torch.testing.assert_close(sound, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("values", [{"use_causal_conv": False}, {"pad_mode": "reflect"}])
def test_a_mimi_that_could_not_stream_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    make_codec("mimi", **values).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{next(iter(values))}=.*only causal ones"):
        opened(tmp_path)


def test_a_stream_refuses_what_the_whole_refuses(folders: Callable[[str], Path]) -> None:
    mimi = opened(folders("mimi"))
    with pytest.raises(ValueError, match="chunk 1"):
        list(mimi.encode_stream([torch.zeros(9), torch.tensor([float("nan")])], mimi.sample_rate))
    with pytest.raises(ValueError, match="outside"):
        list(mimi.decode_stream([torch.full((4, 1), 16)]))
    with pytest.raises(ValueError, match="speaker"):
        mimi.decode_stream([], speaker=torch.zeros(4))
    assert not list(mimi.encode_stream([], mimi.sample_rate))
    with pytest.raises(ValueError, match="cannot decode a stream"):
        opened(folders("dac")).decode_stream([])


# -------------------------------------------------------------------- bad files


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_unexpected_weights_stop_the_load_and_are_named(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((folders(kind) / "config.json").read_text())
    tensors = load_file(folders(kind) / "model.safetensors")
    gone = max(name for name in tensors if "encoder." in name)
    kept = {name: one for name, one in tensors.items() if name != gone} | {"not_of_it.weight": torch.zeros(2)}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: .*unexpected: not_of_it\.weight"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_weights_and_codebooks_stops_the_load(kind: str, folders: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folders(kind) / "config.json").read_text())
    tensors = load_file(folders(kind) / "model.safetensors")
    last = max(name for name in tensors if "quantizer" in name and tensors[name].dim() > 1)
    tensors[last][0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="NaN"):
        opened(tmp_path)


def test_weights_under_the_names_of_older_versions_are_read(folders: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folders("encodec") / "config.json").read_text())
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = load_file(folders("encodec") / "model.safetensors")
    for new, old in older.items():
        tensors = {name.replace(new, old): one for name, one in tensors.items()}
    assert any(name.endswith("weight_g") for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert opened(tmp_path).fingerprint() == opened(folders("encodec")).fingerprint()


def test_parts_of_weights_are_read_and_a_missing_one_is_named(folders: Callable[[str], Path], tmp_path: Path) -> None:
    make_codec("encodec").save_pretrained(tmp_path, max_shard_size="20KB")
    parts = sorted(tmp_path.glob("model-*"))
    assert len(parts) > 1
    assert opened(tmp_path).fingerprint() == opened(folders("encodec")).fingerprint()
    parts[0].unlink()
    with pytest.raises(ValueError, match=parts[0].name):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        ("mimi", {"frame_rate": 1400}, "frame_rate=1400"),
        ("encodec", {"frame_rate": 75}, "config.json.*frame_rate"),
        ("dac", {"hop_length": 512}, "hop_length=512"),
        ("encodec", {"sampling_rate": "fast"}, "config.json"),
        ("mimi", {"audio_channels": 2}, "audio_channels=2|wrong shape"),
    ],
)
def test_a_config_that_does_not_fit_itself_is_refused(
    kind: str, values: dict[str, Any], named: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    config = json.loads((folders(kind) / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folders(kind) / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=named):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        ("mimi", {"num_residual_layers": 10**9}, "num_residual_layers=1000000000"),
        ("mimi", {"num_quantizers": 10**9}, "num_quantizers=1000000000"),
        ("mimi", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ("encodec", {"num_lstm_layers": 10**9}, "num_lstm_layers=1000000000"),
        ("encodec", {"target_bandwidths": [1e9]}, "num_quantizers="),
        ("dac", {"n_codebooks": 10**9}, "n_codebooks=1000000000"),
        ("xcodec", {"target_bandwidths": [1e9]}, "num_quantizers="),
    ],
)
def test_more_layers_or_codebooks_than_any_codec_has_are_refused_before_they_are_made(
    kind: str, values: dict[str, Any], named: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(folders(kind), tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ValueError, match=rf"config.json: .*{named}.*give 1000 or fewer"):
        opened(path.parent)


@pytest.mark.parametrize("values", [{"kernel_size": 0}, {"target_bandwidths": []}])
def test_settings_of_which_transformers_makes_no_model_are_refused(
    values: dict[str, Any], folders: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(folders("encodec"), tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ValueError, match=r"config\.json: "):
        opened(path.parent)


@pytest.mark.parametrize("values", [{"decoder_hidden_size": 2**20}, {"encoder_hidden_size": 0}, {"n_codebooks": -1}])
def test_sizes_that_no_weights_are_there_for_are_refused_before_they_take_memory(
    values: dict[str, int], folders: Callable[[str], Path], tmp_path: Path
) -> None:
    config = json.loads((folders("dac") / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folders("dac") / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="config"):
        opened(tmp_path)


def test_settings_of_another_size_are_told_by_the_weights(folders: Callable[[str], Path], tmp_path: Path) -> None:
    config = json.loads((folders("dac") / "config.json").read_text()) | {"codebook_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folders("dac") / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="wrong shape"):
        opened(tmp_path)


@pytest.mark.parametrize("kind", RESIDUAL)
def test_the_first_codebooks_alone_make_the_sound_of_a_codec_that_has_no_more(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    whole = opened(folders(kind))
    fewest = max(1, whole.min_codebooks)
    assert fewest < whole.num_codebooks
    short = opened(folders(kind), num_codebooks=fewest)
    clip = noise(6 * whole.frame_samples)
    codes = whole.encode(clip, whole.sample_rate)[0][:fewest]
    assert torch.equal(codes, short.encode(clip, whole.sample_rate)[0])
    assert whole.decodes_first_codebooks
    torch.testing.assert_close(whole.decode(codes)[0], short.decode(codes)[0])
    assert not torch.allclose(whole.decode(codes)[0], whole.decode(whole.encode(clip, whole.sample_rate))[0])


def test_a_mimi_needs_all_of_its_semantic_codebooks(
    folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    mimi = opened(folders("mimi"))
    mimi.codec.config.num_semantic_quantizers = 2
    codes = mimi.encode(noise(6 * mimi.frame_samples), mimi.sample_rate)[0]
    assert mimi.min_codebooks == 2
    with pytest.raises(ValueError, match=r"give \[2 to \d+, T\]"):
        mimi.decode(codes[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_sound_no_codes_or_no_precision_is_named(kind: str, folders: Callable[[str], Path]) -> None:
    tokenizer = opened(folders(kind))
    with pytest.raises(ValueError, match="waveforms are a NoneType"):
        tokenizer.encode(None, 16000)
    with pytest.raises(ValueError, match="codes are a NoneType"):
        tokenizer.decode(None)
    for wrong in ("abc", [[[1, 2], [3]]]):
        with pytest.raises(ValueError, match="clip 0 has codes that are no whole numbers in rows of one length"):
            tokenizer.decode(wrong)
    for dtype in (torch.int32, 3, "int8"):
        with pytest.raises(ValueError, match="dtype="):
            opened(folders(kind), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_may_be_a_whole_number_that_is_written_with_a_point(
    kind: str, folders: Callable[[str], Path], noise: Callable[..., Tensor]
) -> None:
    tokenizer = opened(folders(kind))
    clip = noise(400)
    assert torch.equal(tokenizer.encode(clip, 8000.0).codes, tokenizer.encode(clip, 8000).codes)
