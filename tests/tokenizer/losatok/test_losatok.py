"""LoSATok as users meet it: batches, long clips, streams, files, bad input. Teachers of other kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertModel,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    SeamlessM4TFeatureExtractor,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperModel,
)
from transformers import WhisperFeatureExtractor as WhisperExtractor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.base import AudioTokenizer, Codes, Latents
from audiollm.tokenizer.kinds import kind_named
from audiollm.tokenizer.losatok.configuration import TOKEN_SAMPLES, SemanticConfig, count_tokens
from audiollm.tokenizer.losatok.model import LoSATok
from audiollm.tokenizer.losatok.opening import load_semantic, load_teacher
from audiollm.tokenizer.losatok.semantic import SemanticEncoder, stored
from audiollm.tokenizer.losatok.teacher.plugged import PluggedTeacher, TransformersTeacher, UniAudioTeacher
from tests.tiny_losatok import PIECE_TOKENS, tiny_losatok, tiny_teacher


@pytest.fixture(scope="module")
def losatok() -> LoSATok:
    return tiny_losatok()


def noise(num_samples: int, seed: int = 0) -> Tensor:
    return torch.randn(num_samples, generator=torch.Generator().manual_seed(seed)) / 10


def near(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


# --- the interface ----------------------------------------------------------------------------------------------------


def test_it_says_what_it_is(losatok: LoSATok) -> None:
    assert (losatok.kind, losatok.latent_size, losatok.num_codebooks, losatok.codebook_sizes) == ("losatok", 6, 0, ())
    assert (losatok.sample_rate, losatok.output_sample_rate, losatok.frame_rate) == (16000, 16000, 25.0)
    assert losatok.can_decode
    assert losatok.can_encode_stream
    assert losatok.can_decode_stream
    assert losatok.max_segment_seconds is None


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_clip_is_encoded_and_decoded_in_a_batch_as_alone(losatok: LoSATok, rate: int) -> None:
    """The middle one is quieter by more than the range in which the loudest cell matters."""
    clips = [noise(9003), 1e-6 * noise(16640, 1), noise(40000, 2), torch.zeros(0), noise(9003, 3), torch.zeros(5000)]
    batch = losatok.encode(clips, rate, return_features=True)
    assert batch.latents.shape[0] == len(clips)
    assert batch.features is not None
    assert set(batch.features) == {
        f"{side}_{height}" for side in ("semantic", "acoustic", "unified") for height in ("high", "low")
    }
    waveforms = losatok.decode(batch)
    for index, clip in enumerate(clips):
        alone = losatok.encode([clip], rate, return_features=True)
        assert alone.features is not None
        assert int(batch.lengths[index]) == losatok.num_frames(len(clip), rate) == len(alone[0])
        near(batch[index], alone[0])
        for name, rows in alone.features.items():
            near(batch.features[name][index], rows[0])
        [decoded] = losatok.decode(alone)
        near(waveforms[index], decoded)
        assert len(decoded) == TOKEN_SAMPLES * len(alone[0])
        assert torch.isfinite(decoded).all()


@pytest.mark.parametrize("num_samples", [1, 159, 479, 480, 512, 513, 640, 1119, 1120])
def test_the_shortest_clips_have_a_token(losatok: LoSATok, num_samples: int) -> None:
    latents = losatok.encode(noise(num_samples), 16000)
    assert len(latents[0]) == count_tokens(num_samples) == losatok.num_frames(num_samples, 16000) >= 1
    assert torch.isfinite(latents.latents).all()


def test_long_clips_are_cut_where_the_teacher_must_and_nowhere_else(losatok: LoSATok) -> None:
    """The acoustic side sees the whole clip, and the remainder of one to three mel frames is dropped."""
    waveform = noise(PIECE_TOKENS * TOKEN_SAMPLES * 2 + TOKEN_SAMPLES * 3 + 200)
    latents = losatok.encode(waveform, 16000, return_features=True, batch_size=2)
    assert latents.features is not None
    assert len(latents[0]) == 2 * PIECE_TOKENS + 3
    whole = tiny_losatok(tiny_teacher(piece_tokens=100))
    whole.acoustic.load_state_dict(losatok.acoustic.state_dict())
    in_one = whole.encode(waveform, 16000, return_features=True)
    assert in_one.features is not None
    near(latents.features["acoustic_high"][0], in_one.features["acoustic_high"][0])
    assert not torch.allclose(latents.features["semantic_high"][0], in_one.features["semantic_high"][0], atol=1e-3)
    near(latents[0], losatok.analyze(waveform[None]).mean[0].detach())


def test_a_long_clip_decodes_as_the_whole_of_it(losatok: LoSATok) -> None:
    latents = torch.randn(2, 613, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = losatok.decode_batch(latents)
    near(torch.stack(losatok.decode(latents)), whole)


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize("num_samples", [300, 520, 12800, 41000])
def test_a_stream_gives_what_the_whole_does(losatok: LoSATok, num_samples: int, rate: int) -> None:
    waveform = noise(num_samples)
    expected = losatok.encode(waveform, rate)[0]
    pieces = list(losatok.encode_stream(waveform.split(777), rate))
    near(torch.cat(pieces), expected)
    if num_samples > 40000:
        assert len(pieces) > 1
    [sound] = losatok.decode(expected)
    near(torch.cat([*losatok.decode_stream(expected.split(7)), torch.zeros(0)]), sound)


def test_a_stream_of_latents_comes_before_its_end(losatok: LoSATok) -> None:
    given: list[int] = []

    def source() -> Any:
        for number in range(20):
            given.append(number)
            yield torch.zeros(10, 6)

    next(iter(losatok.decode_stream(source())))
    assert len(given) < 6


def test_samples_are_drawn_from_the_distribution(losatok: LoSATok) -> None:
    clips = [noise(9000), noise(20000, 1)]

    def drawn() -> Latents:
        return losatok.encode(clips, 16000, sample=True, generator=torch.Generator().manual_seed(5))

    one = drawn()
    assert torch.equal(one.latents, drawn().latents)
    assert one.mean is not None
    assert one.log_variance is not None
    ratio = ((one[1] - one.mean[1, : one.lengths[1]]) / (0.5 * one.log_variance[1, : one.lengths[1]]).exp()).flatten()
    assert abs(float(ratio.mean())) < 0.3
    assert 0.8 < float(ratio.std()) < 1.2


def test_training_mode_and_half_precision_change_little(losatok: LoSATok) -> None:
    waveform = noise(20000)
    expected = losatok.encode(waveform, 16000)
    try:
        losatok.train()
        assert torch.equal(losatok.encode(waveform, 16000).latents, expected.latents)
        assert not losatok.semantic.teacher.training
    finally:
        losatok.eval()
    half = tiny_losatok().to(torch.bfloat16)
    assert half.acoustic.front_end.filters.dtype == torch.float32
    torch.testing.assert_close(half.encode(waveform, 16000).latents, expected.latents, rtol=0, atol=0.1)
    assert half.decode(expected)[0].dtype == torch.float32


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_or_decoded_is_refused(losatok: LoSATok) -> None:
    with pytest.raises(ValueError, match=r"clip 1 holds NaN"):
        losatok.encode([noise(900), torch.full((900,), float("nan"))], 16000)
    with pytest.raises(ValueError, match="sample_rate=10"):
        losatok.encode(noise(900), 10)
    with pytest.raises(ValueError, match=r"clip 0 has latents of torch.float32 \[3, 5\].*\[T, 6\]"):
        losatok.decode(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"clip 0 has latents that are NaN"):
        losatok.decode(torch.full((3, 6), float("inf")))
    for latents, message in (
        (None, "latents are a NoneType"),
        (["abc"], "clip 0 is a str of which no latents can be read"),
        ([[[0.0] * 6, [0.0]]], "clip 0 is a list of which no latents can be read"),
        (torch.full((3, 6), 1e30), "clip 0 decodes to samples that are NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            losatok.decode(latents)
    with pytest.raises(ValueError, match="the stream decodes to samples that are NaN"):
        list(losatok.decode_stream([torch.full((3, 6), 1e30)]))
    with pytest.raises(ValueError, match="has no codes"):
        losatok.decode(Codes(torch.zeros(1, 1, 3, dtype=torch.int64), torch.tensor([3])))
    with pytest.raises(ValueError, match="speaker"):
        losatok.decode(torch.zeros(3, 6), speaker=torch.zeros(2))
    with pytest.raises(ValueError, match="loaded without its decoder"):
        tiny_losatok(encoder_only=True).decode(torch.zeros(3, 6))


def test_a_teacher_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="features of 12 numbers, but feature_size=13"):
        tiny_losatok(feature_size=13)
    config = SemanticConfig(feature_size=12, bottleneck_size=10, latent_size=5)
    with pytest.raises(ValueError, match=r"latent_size=5.*latent_size=6.*make them agree"):
        LoSATok(tiny_losatok().config, SemanticEncoder(config, tiny_teacher()))
    with pytest.raises(ValueError, match="num_heads=5"):
        tiny_teacher(num_heads=5)


# --- teachers of other kinds ------------------------------------------------------------------------------------------


class Steps(nn.Module):
    """Gives the mean of every so many samples."""

    def __init__(self, num_samples: int, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.num_samples, self.wrap = num_samples, wrap

    def forward(self, waveforms_BN: Tensor) -> Any:
        cut = waveforms_BN.shape[1] // self.num_samples * self.num_samples
        means = waveforms_BN[:, :cut].unflatten(1, (-1, self.num_samples)).mean(dim=-1)
        return self.wrap(torch.stack([means, -means], dim=-1))


def test_a_module_at_another_rate_is_brought_to_one_vector_per_token() -> None:
    fast = tiny_losatok(PluggedTeacher(Steps(320, lambda one: (one, None)), 2, 50.0), feature_size=2)
    slow = tiny_losatok(PluggedTeacher(Steps(480, lambda one: one), 2, 16.67, sample_rate=8000), feature_size=2)
    exact = tiny_losatok(PluggedTeacher(Steps(640, lambda one: one), 2, 25.0), feature_size=2)
    waveform = noise(12800)
    found = {}
    for name, tokenizer in (("fast", fast), ("slow", slow), ("exact", exact)):
        latents = tokenizer.encode(waveform, 16000, return_features=True)
        assert latents.features is not None
        [found[name]] = latents.features["semantic_high"]
        assert found[name].shape == (20, 2)
    near(found["exact"][:, 0], waveform.unflatten(0, (20, 640)).mean(dim=1))
    near(found["fast"], found["exact"])  # in the middle between two vectors
    with pytest.raises(ValueError, match="PluggedTeacher can't be saved"):
        exact.semantic.settings()


@pytest.mark.parametrize(
    ("wrap", "rate", "message"),
    [
        (lambda one: {"features": one}, 25.0, r"teacher gives dict; it must give float features \[B, T, 2\]"),
        (lambda one: (None, one), 25.0, "teacher gives NoneType"),
        (lambda one: one[..., :1], 25.0, r"features of shape \[1, 20, 1\].*feature_size is 2"),
        (lambda one: one, 50.0, "20 vectors for 0.8 s, which is not the 50 Hz"),
    ],
)
def test_a_teacher_that_gives_something_else_is_named(wrap: Callable[[Tensor], Any], rate: float, message: str) -> None:
    tokenizer = tiny_losatok(PluggedTeacher(Steps(640, wrap), 2, rate), feature_size=2)
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(noise(12800), 16000)


def test_a_teacher_that_gives_nothing_for_a_short_clip_is_named() -> None:
    tokenizer = tiny_losatok(PluggedTeacher(Steps(640, lambda one: one[:, :0]), 2, 25.0), feature_size=2)
    with pytest.raises(ValueError, match=r"the teacher gives 0 vectors for 0\.04 s"):
        tokenizer.encode(noise(100), 16000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_rate": float("nan")}, "frame_rate=nan of the teacher: use a positive number"),
        ({"frame_rate": 0}, "frame_rate=0 of the teacher"),
        ({"feature_size": "2"}, "feature_size='2' of the teacher: use a positive whole number"),
        ({"piece_tokens": -1}, "piece_tokens=-1 of the teacher"),
        ({"piece_tokens": 2.5}, "piece_tokens=2.5 of the teacher"),
    ],
)
def test_senseless_sizes_of_a_teacher_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PluggedTeacher(Steps(640, lambda one: one), **({"feature_size": 2, "frame_rate": 25.0} | settings))


def test_a_module_of_another_precision_teaches() -> None:
    tokenizer = tiny_losatok(PluggedTeacher(Frames(), 2, 25.0), feature_size=2)
    whole = tokenizer.encode(noise(9000), 16000).latents
    rounded = tokenizer.to(torch.bfloat16).encode(noise(9000), 16000).latents
    torch.testing.assert_close(rounded, whole, rtol=0.1, atol=0.1)


class Frames(nn.Module):
    """A layer on every 640 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(640, 2)

    def forward(self, waveforms_BN: Tensor) -> Tensor:
        made: Tensor = self.layer(waveforms_BN.unflatten(1, (-1, 640)))
        return made


def test_an_encoder_hears_no_more_at_once_than_its_extractor_pads_to() -> None:
    """What is longer would be cut off, and the rest be nothing."""
    config = WhisperConfig(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=8, vocab_size=16, num_mel_bins=80, max_source_positions=50,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    teacher = TransformersTeacher(WhisperModel(config).eval(), WhisperExtractor(chunk_length=1))
    assert (teacher.piece_tokens, teacher.frame_rate) == (25, 50)
    assert len(tiny_losatok(teacher).encode(noise(48000), 16000)[0]) == 75


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny audio encoders of transformers as it saves them."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(4, 4, 4),
        conv_stride=(8, 8, 5), conv_kernel=(8, 8, 5), num_feat_extract_layers=3, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder / "wav2vec2")
    Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True).save_pretrained(folder / "wav2vec2")
    whisper = WhisperConfig(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=8, vocab_size=16, num_mel_bins=80, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    WhisperExtractor().save_pretrained(folder / "whisper")
    sizes = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 8}
    qwen2 = Qwen2AudioEncoderConfig(d_model=8, num_mel_bins=80, **sizes)
    Qwen2AudioEncoder(qwen2).save_pretrained(folder / "qwen2_audio")
    WhisperExtractor().save_pretrained(folder / "qwen2_audio")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    Wav2Vec2BertModel(Wav2Vec2BertConfig(**small)).save_pretrained(folder / "wav2vec2_bert")
    SeamlessM4TFeatureExtractor().save_pretrained(folder / "wav2vec2_bert")
    # What cannot teach: vectors by frequency and time of a fixed length; text; NaN where there is no sound.
    ASTModel(ASTConfig(**small)).save_pretrained(folder / "ast")
    ASTFeatureExtractor().save_pretrained(folder / "ast")
    BertModel(BertConfig(vocab_size=20, **small)).save_pretrained(folder / "bert")
    speech2text = Speech2TextConfig(
        d_model=8, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, vocab_size=20, conv_channels=8,
        **sizes,
    )  # fmt: skip
    Speech2TextModel(speech2text).save_pretrained(folder / "speech2text")
    Speech2TextFeatureExtractor().save_pretrained(folder / "speech2text")
    return folder


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "qwen2_audio", "wav2vec2_bert"])
def test_encoders_of_transformers_teach_and_are_saved_with_the_rest(encoders: Path, tmp_path: Path, name: str) -> None:
    teacher = load_teacher(str(encoders / name))
    assert isinstance(teacher, TransformersTeacher)
    assert (teacher.feature_size, round(teacher.frame_rate)) == (8, 25 if name == "qwen2_audio" else 50)
    check_saved(tiny_losatok(teacher), tmp_path)


def test_what_cannot_teach_says_why(encoders: Path) -> None:
    message = r"ast holds no audio encoder.* for 10 s and .* for 5 s; a teacher gives one for every so many samples"
    with pytest.raises(ValueError, match=message):
        load_teacher(str(encoders / "ast"))
    with pytest.raises(ValueError, match=r"bert holds no audio encoder .*with its feature extractor"):
        load_teacher(str(encoders / "bert"))


def test_a_teacher_that_gives_nan_for_silence_is_told_with_the_clip(encoders: Path) -> None:
    tokenizer = tiny_losatok(load_teacher(str(encoders / "speech2text")))
    assert torch.isfinite(tokenizer.encode(noise(9000), 16000).latents).all()
    with pytest.raises(ValueError, match=r"clip 1 has latents that are NaN.*digital silence"):
        tokenizer.encode([noise(9000), torch.zeros(9000)], 16000)
    with pytest.raises(ValueError, match="the stream has latents that are NaN"):
        list(tokenizer.encode_stream([torch.zeros(9000)], 16000))


def test_our_own_tokenizers_teach_and_are_saved_with_the_rest(
    make_tokenizer: Callable[..., UniAudioTokenizer], tmp_path: Path
) -> None:
    own = make_tokenizer()
    own.save_pretrained(tmp_path / "own")
    teacher = load_teacher(str(tmp_path / "own"))
    assert isinstance(teacher, UniAudioTeacher)
    tokenizer = tiny_losatok(teacher)
    waveform = noise(12800)
    latents = tokenizer.encode(waveform, 16000, return_features=True)
    assert latents.features is not None
    features = own.encode([waveform], 16000, return_features=True).features
    assert features is not None
    near(latents.features["semantic_high"][0], features[0].float())
    check_saved(tokenizer, tmp_path / "losatok")


def check_saved(tokenizer: LoSATok, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    again = AudioTokenizer.from_pretrained(folder)
    assert isinstance(again, LoSATok)
    assert again.fingerprint() == tokenizer.fingerprint()
    clips = [noise(12800), noise(3000, 1)]
    near(again.encode(clips, 16000).latents, tokenizer.encode(clips, 16000).latents)
    assert isinstance(load_teacher(str(folder)), type(tokenizer.semantic.teacher))
    semantic = stored(load_semantic(str(folder)))
    assert all(torch.equal(one, semantic[name]) for name, one in stored(tokenizer.semantic).items())


# --- files ------------------------------------------------------------------------------------------------------------


def released(tokenizer: LoSATok) -> dict[str, Tensor]:
    """As a release spells it, counters and windows that nothing needs included."""
    names = tokenizer.released_names()
    tensors = {names[name]: tensor.clone() for name, tensor in tokenizer.weights().items()}
    tensors["semantic_encoder.encoder.init_bn.num_batches_tracked"] = torch.tensor(3)
    tensors["dasheng_tokenizer.decoder.head.istft.window"] = torch.hann_window(1280)
    return tensors


@pytest.mark.parametrize("wrapped", [True, False])
def test_released_pickles_are_read_with_or_without_a_wrapper(losatok: LoSATok, tmp_path: Path, wrapped: bool) -> None:
    tensors = released(losatok)
    values = {"state_dict": tensors} if wrapped else tensors
    torch.save(values, tmp_path / "losatok_kl1e-2.pth")
    found = AudioTokenizer.from_pretrained(tmp_path, num_heads=2)
    assert isinstance(found, LoSATok)
    assert found.config == losatok.config
    waveform = noise(9003)
    near(found.encode(waveform, 16000).latents, losatok.encode(waveform, 16000).latents)
    assert found.fingerprint() == losatok.fingerprint()

    inside = "semantic_encoder."
    semantic = {name.removeprefix(inside): one for name, one in tensors.items() if name.startswith(inside)}
    torch.save({"state_dict": semantic} if wrapped else semantic, tmp_path / "semantic_encoder.pth")
    loaded = SemanticEncoder.from_pretrained(tmp_path, num_heads=2)
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in losatok.semantic.state_dict().items())


def test_what_is_said_of_releases_is_refused_where_there_is_none(losatok: LoSATok, tmp_path: Path) -> None:
    losatok.save_pretrained(tmp_path)
    for said in ({"variant": "kl1e-2"}, {"num_heads": 2}):
        with pytest.raises(ValueError, match=r"is for releases, but .* holds one that we saved: leave it out"):
            AudioTokenizer.from_pretrained(tmp_path, **said)
    assert AudioTokenizer.from_pretrained(tmp_path, variant=None).kind == "losatok"
    losatok.semantic.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_heads=2 is for releases"):
        SemanticEncoder.from_pretrained(tmp_path, num_heads=2)


def test_a_variant_is_refused_where_the_released_file_has_none(losatok: LoSATok, tmp_path: Path) -> None:
    save_file(released(losatok), tmp_path / "model.safetensors")
    assert AudioTokenizer.from_pretrained(tmp_path, num_heads=2).kind == "losatok"
    with pytest.raises(ValueError, match=r"variant='kl1e-2' .*holds model\.safetensors alone"):
        AudioTokenizer.from_pretrained(tmp_path, num_heads=2, variant="kl1e-2")
    torch.save(released(losatok), tmp_path / "losatok_kl1e-2.pth")
    assert AudioTokenizer.from_pretrained(tmp_path, num_heads=2, variant="kl1e-2").kind == "losatok"


def test_of_several_released_files_one_is_named(losatok: LoSATok, tmp_path: Path) -> None:
    for name in ("losatok_kl1e-2.pth", "losatok_kl1e-3.pth"):
        torch.save(released(losatok), tmp_path / name)
    with pytest.raises(ValueError, match=r"losatok_kl1e-2.pth, losatok_kl1e-3.pth; say which by variant"):
        AudioTokenizer.from_pretrained(tmp_path, num_heads=2)
    assert AudioTokenizer.from_pretrained(tmp_path, num_heads=2, variant="kl1e-3").kind == "losatok"
    with pytest.raises(ValueError, match="variant='kl5' names 0 of"):
        AudioTokenizer.from_pretrained(tmp_path, num_heads=2, variant="kl5")
    with pytest.raises(ValueError, match=r"how many heads a teacher of width 12 has: give num_heads"):
        AudioTokenizer.from_pretrained(tmp_path, variant="kl1e-3")
    with pytest.raises(TypeError, match="unknown options of LoSATok: heads"):
        AudioTokenizer.from_pretrained(tmp_path, heads=2, variant="kl1e-3")


@pytest.mark.parametrize(
    "name",
    [
        "dasheng_tokenizer.encoder.patch_embed.weight",
        "dasheng_tokenizer.upsampler.weight",
        "semantic_encoder.encoder.patch_embed.proj.weight",
        "semantic_encoder.encoder.time_pos_embed",
        "semantic_encoder.bottleneck.downsample.0.weight",
    ],
)
def test_released_tensors_that_tell_no_size_are_named(losatok: LoSATok, tmp_path: Path, name: str) -> None:
    torch.save(released(losatok) | {name: torch.zeros(3)}, tmp_path / "losatok_kl1e-2.pth")
    with pytest.raises(ValueError, match=rf"of which no size can be read: {re.escape(name)} \[3\]"):
        AudioTokenizer.from_pretrained(tmp_path, num_heads=2)


def test_tensors_that_are_missing_unknown_or_misshapen_are_all_named(losatok: LoSATok, tmp_path: Path) -> None:
    tensors = released(losatok)
    del tensors["fc_mu.bias"]
    tensors["extra.weight"] = torch.zeros(2)
    tensors["fc_a.bias"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "losatok_kl1e-2.pth")
    message = r"missing: fc_mu.bias; unknown: extra.weight; wrong shape: fc_a.bias \[3\] instead of \[6\]"
    with pytest.raises(ValueError, match=message):
        AudioTokenizer.from_pretrained(tmp_path, num_heads=2)
    losatok.save_pretrained(tmp_path / "own")
    own = load_file(tmp_path / "own" / "model.safetensors")
    del own["mean.bias"]
    save_file(own, tmp_path / "own" / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: mean.bias"):
        AudioTokenizer.from_pretrained(tmp_path / "own")


def test_without_its_decoder_it_is_the_same_tokenizer(losatok: LoSATok, tmp_path: Path) -> None:
    losatok.save_pretrained(tmp_path)
    alone = AudioTokenizer.from_pretrained(tmp_path, encoder_only=True, fingerprint=losatok.fingerprint())
    assert not alone.can_decode
    near(alone.encode(noise(9000), 16000).latents, losatok.encode(noise(9000), 16000).latents)
    with pytest.raises(ValueError, match="another audio tokenizer"):
        AudioTokenizer.from_pretrained(tmp_path, fingerprint="0" * 64)


def test_a_config_of_senseless_sizes_takes_no_memory(losatok: LoSATok, tmp_path: Path) -> None:
    losatok.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"decoder_layers": 10**9}, "decoder_layers"),
        ({"decoder_size": 10**9}, r"wrong shape: .*backbone"),
        ({"feature_size": 0}, "feature_size=0"),
        ({"upsampling": 7}, "upsampling=7 does not divide"),
        ({"colour": 3}, "unknown: colour"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            AudioTokenizer.from_pretrained(tmp_path)


def test_a_config_that_describes_no_teacher_is_refused(losatok: LoSATok, tmp_path: Path) -> None:
    losatok.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == kind_named("losatok").own_model_type
    for teacher, message in (
        (None, "does not say what the teacher is"),
        ({"kind": "parrot"}, "no kind of teacher called 'parrot'; known are dasheng, uniaudio, transformers"),
        ({"kind": "dasheng", "size": 12, "colour": 1}, "unknown: colour"),
        ({"kind": "uniaudio", "config": {"d_model": "x"}}, "no.* a teacher of kind 'uniaudio': .*'d_model'"),
        ({"kind": "transformers", "config": {}, "extractor": {"feature_extractor_type": "AutoModel"}}, "no feature ex"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, "teacher": teacher}))
        with pytest.raises(ValueError, match=message):
            AudioTokenizer.from_pretrained(tmp_path)
