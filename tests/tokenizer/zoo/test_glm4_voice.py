"""GLM-4-Voice: its tokenizer in whatever form it comes, with its decoder beside it, opened like any other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer, UniAudioTokenizerConfig
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.decoder.streaming.decoder import GLM4_VOICE_BLOCKS
from tests.tokenizer.zoo.tolerances import read_meta

GLM_NAMES = (
    (re.compile(r"^source\."), "m_source."),
    (re.compile(r"^pre_conv\."), "conv_pre."),
    (re.compile(r"^post_conv\."), "conv_post."),
    (re.compile(r"^(source_resblocks|resblocks)\.(\d+)\.conv([12])\."), r"\1.\2.convs\3."),
)


@pytest.fixture
def glm(parity: Path) -> Path:
    """A recorded tokenizer of GLM-4-Voice's kind."""
    folder = parity / "encoder_e_glm_block_causal"
    if not folder.is_dir():
        pytest.skip(f"{parity} holds no encoder_e_glm_block_causal")
    return folder


@pytest.fixture
def full_checkpoint(glm: Path, tmp_path: Path) -> Path:
    """The same inside of a whole seq2seq model in parts: prefixed, with layers behind the quantizer and a decoder."""
    tensors, config = load_file(glm / "model.safetensors"), json.loads((glm / "config.json").read_text())
    last = config["quantize_position"] - 1
    full = {f"model.encoder.{name}": tensor for name, tensor in tensors.items()}
    for number in range(config["quantize_position"], config["encoder_layers"]):
        for name, tensor in tensors.items():
            if name.startswith(f"layers.{last}."):
                full[f"model.encoder.{name.replace(f'layers.{last}.', f'layers.{number}.')}"] = tensor.clone()
    size = config["d_model"]
    full |= {"model.encoder.layer_norm.weight": torch.ones(size), "model.encoder.layer_norm.bias": torch.zeros(size)}
    full |= {"model.decoder.embed_tokens.weight": torch.zeros(3, size), "proj_out.weight": torch.zeros(3, size)}
    folder = tmp_path / "full"
    folder.mkdir()
    names = sorted(full)
    for part, some in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: full[name] for name in some}, folder / f"model-{part:05}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "quantize_encoder_only": False}))
    shutil.copy(glm / "preprocessor_config.json", folder)
    return folder


@pytest.fixture
def with_decoder(glm: Path, parity: Path, tmp_path: Path) -> Path:
    """The tokenizer, and beside it a decoder made for its codes, in the layout and with the names of GLM-4-Voice."""
    if not (parity / "decoder" / "flow.pt").is_file():
        pytest.skip(f"{parity} holds no decoder")
    config = json.loads((glm / "config.json").read_text())
    size, rate = config["quantize_vocab_size"], 50 / config["pooling_kernel_size"]
    release = tmp_path / "release"
    shutil.copytree(glm, release / "tokenizer")
    (release / "decoder").mkdir()
    text = (parity / "decoder" / "config.yaml").read_text()
    text = re.sub(r"vocab_size: \d+", f"vocab_size: {size}", text)
    text = re.sub(r"input_frame_rate: \d+", f"input_frame_rate: {rate}", text)
    (release / "decoder" / "config.yaml").write_text(text)
    flow = torch.load(parity / "decoder" / "flow.pt", weights_only=True)
    torch.manual_seed(0)
    flow["input_embedding.weight"] = torch.randn(size, flow["input_embedding.weight"].shape[1])
    torch.save(flow, release / "decoder" / "flow.pt")
    vocoder = torch.load(parity / "decoder" / "hift.pt", weights_only=True)
    torch.save({glm_name(name): tensor for name, tensor in vocoder.items()}, release / "decoder" / "hift.pt")
    assert any("convs1" in glm_name(name) for name in vocoder)
    return release


def glm_name(name: str) -> str:
    for pattern, theirs in GLM_NAMES:
        name = pattern.sub(theirs, name)
    return name


def test_its_facts_are_its_own(glm: Path, tmp_path: Path) -> None:
    model = AudioTokenizer.from_pretrained(glm)
    assert isinstance(model, UniAudioTokenizer)
    assert model.kind == "glm4_voice"
    assert not model.is_causal  # a frame hears the rest of its block
    assert model.frame_rate == 50 / model.config.pooling_factor
    assert "GLM-4" in model.licence_note
    model.save_pretrained(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert (again.kind, again.licence_note, again.fingerprint()) == (
        model.kind,
        model.licence_note,
        model.fingerprint(),
    )


def test_blocks_of_time_alone_do_not_make_a_tokenizer_of_ours_theirs(
    make_tokenizer: Callable[..., UniAudioTokenizer], tmp_path: Path
) -> None:
    ours = make_tokenizer(
        quantize_causal_block_size=10,
        encoder_residual_source_position=None,
        encoder_residual_target_position=None,
        licence_note="mine",
    )
    ours.export_released(tmp_path)
    again = AudioTokenizer.from_pretrained(tmp_path)
    assert (again.kind, again.licence_note) == ("uniaudio", "mine")


@pytest.mark.parametrize("encoder_only", [True, False])
def test_a_full_checkpoint_in_parts_gives_the_same_codes(
    glm: Path, full_checkpoint: Path, encoder_only: bool, noise: Callable[..., Tensor]
) -> None:
    model = AudioTokenizer.from_pretrained(full_checkpoint, encoder_only=encoder_only)
    released = AudioTokenizer.from_pretrained(glm)
    assert model.kind == "glm4_voice"
    assert model.fingerprint() == released.fingerprint()
    assert torch.equal(model.encode(noise(50_000), 16000).codes, released.encode(noise(50_000), 16000).codes)


def test_a_missing_part_is_named(full_checkpoint: Path) -> None:
    (full_checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"missing: .*encoder\.layers"):
        AudioTokenizer.from_pretrained(full_checkpoint)


def test_it_speaks_through_the_decoder_beside_it(with_decoder: Path) -> None:
    codes = torch.randint(0, 64, (40,), generator=torch.Generator().manual_seed(1))
    for place in ("", "tokenizer"):
        model = AudioTokenizer.from_pretrained(with_decoder / place)
        assert model.can_decode
        assert model.can_decode_stream
    (waveform,) = model.decode(codes[None], steps=1)
    assert len(waveform) / model.output_sample_rate == pytest.approx(len(codes) / model.frame_rate, abs=0.1)
    streamed = torch.cat(list(model.decode_stream([codes], steps=1, blocks=GLM4_VOICE_BLOCKS)))
    assert len(streamed) == len(waveform)
    published = list(model.decode_stream([codes], steps=1, blocks=GLM4_VOICE_BLOCKS, reference=True))
    assert len(published) == 2  # of 25 codes, and of the rest
    silent = AudioTokenizer.from_pretrained(with_decoder, decoder=False)
    assert not silent.can_decode


def test_what_is_known_of_the_release_is_understood(glm4_voice_folder: Path) -> None:
    meta = read_meta(glm4_voice_folder)
    assert tuple(meta["output"]["decode_blocks"]) == GLM4_VOICE_BLOCKS
    config = UniAudioTokenizerConfig()
    assert all(hasattr(config, name) for name in meta["config_keys_added_to_whisper"])
