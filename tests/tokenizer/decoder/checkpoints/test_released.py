"""The released decoder layout: sizes out of a YAML file that asks for code to be run, and two sets of tensor names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from audiollm.tokenizer.decoder.checkpoints.hyperpyyaml import read_yaml
from audiollm.tokenizer.decoder.checkpoints.released import WHOLE_UTTERANCE, read_released_config, vocoder_name
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig

FIXTURES = Path(__file__).parents[3] / "fixtures" / "parity" / "decoder"
# What a GLM-4-Voice or CosyVoice file holds besides the decoder.
LANGUAGE_MODEL = """
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]
__set_seed4: !apply:torch.cuda.manual_seed_all [1986]
llm_input_size: 1024
llm: !new:cosyvoice.llm.llm.TransformerLM
    llm_input_size: !ref <llm_input_size>
    text_encoder: !new:cosyvoice.transformer.encoder.ConformerEncoder
        output_size: 1024
    llm: !new:cosyvoice.transformer.encoder.TransformerEncoder
        num_blocks: 7
"""


@pytest.fixture
def yaml_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def released() -> str:
    return (FIXTURES / "config.yaml").read_text(encoding="utf-8")


def test_sizes_of_the_release_are_read() -> None:
    config = read_released_config(FIXTURES / "config.yaml")
    assert (config.flow.codebook_size, config.flow.frame_rate, config.flow.speaker_size) == (64, 25.0, 192)
    assert (config.flow.encoder.size, config.flow.encoder.num_heads, config.flow.encoder.block_size) == (48, 4, 10)
    assert config.flow.estimator.channels == (64, 64)
    assert (config.flow.estimator.num_mid_stages, config.flow.estimator.blocks_per_stage) == (2, 2)
    assert (config.flow.sigma_min, config.flow.cosine_schedule, config.flow.guidance) == (1e-6, True, 0.7)
    assert (config.vocoder.base_channels, config.vocoder.f0_channels, config.vocoder.hop_length) == (64, 32, 256)
    assert config.vocoder.resblock_dilations == ((1, 3, 5),) * 3
    assert (config.mel.sample_rate, config.mel.hop_length) == (22050, 256)
    assert WaveformDecoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("package", ["src.cosyvoice.", "CosyVoice.cosyvoice."])
def test_forks_may_move_the_package(released: str, yaml_file: Callable[[str], Path], package: str) -> None:
    moved = released.replace("!new:cosyvoice.", f"!new:{package}")
    assert moved != released
    assert read_released_config(yaml_file(moved)) == read_released_config(FIXTURES / "config.yaml")


def test_the_language_model_of_other_releases_is_passed_over(released: str, yaml_file: Callable[[str], Path]) -> None:
    path = yaml_file(LANGUAGE_MODEL + released)
    assert read_released_config(path) == read_released_config(FIXTURES / "config.yaml")


def test_an_encoder_without_blocks_sees_the_whole_utterance(released: str, yaml_file: Callable[[str], Path]) -> None:
    plain = (
        released.replace("BlockConformerEncoder", "ConformerEncoder")
        .replace("block_rel_selfattn", "rel_selfattn")
        .replace("        block_size: 10\n", "")
    )
    assert read_released_config(yaml_file(plain)).flow.encoder.block_size == WHOLE_UTTERANCE


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("!!python/object/apply:os.system [touch {target}]", "python/object/apply:os.system"),
        ("!!python/object/apply:subprocess.check_call [[touch, {target}]]", "python/object/apply:subprocess"),
        ("!!python/object/new:pathlib.Path [{target}]", "python/object/new:pathlib.Path"),
        ("!!python/name:os.system", "python/name:os.system"),
        ("!!python/module:antigravity", "python/module:antigravity"),
        ("!apply:os.system [touch {target}]", "!apply:os.system"),
        ("!apply:random.seed.__init__ [1]", "!apply:random.seed.__init__"),
        ("!new:subprocess.Popen {{args: [touch, {target}]}}", "!new:subprocess.Popen"),
        ("!new:cosyvoice.llm.llm.Other {{size: 3}}", "!new:cosyvoice.llm.llm.Other"),
        ("!name:os.system", "!name:os.system"),
        ("!include:/etc/hostname", "!include:/etc/hostname"),
        ("!copy <sample_rate>", "!copy"),
        ("!whatever 3", "!whatever"),
    ],
)
@pytest.mark.parametrize("place", ["top", "flow", "llm"])
def test_other_tags_are_named_and_nothing_runs(
    released: str, yaml_file: Callable[[str], Path], tmp_path: Path, entry: str, named: str, place: str
) -> None:
    target = tmp_path / "executed"
    entry = entry.format(target=target)
    text = {
        "top": f"extra: {entry}\n{released}",
        "flow": released.replace("    only_mask_loss: True", f"    only_mask_loss: {entry}"),
        "llm": f"llm: !new:cosyvoice.llm.llm.TransformerLM\n    size: {entry}\n{released}",
    }[place]
    with pytest.raises(ValueError, match="nothing was executed") as refused:
        read_released_config(yaml_file(text))
    assert named in str(refused.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flow: [", "refused"),
        ("- 1\n- 2\n", "holds a list"),
        ("", "holds a NoneType"),
        ("a: &a [1, 2]\nb: *a\n", "aliases"),
        ("a: 1\na: 2\n", "a given twice"),
        ("a: !ref <b>\n", "<b> points at nothing"),
        ("a: !ref <b>\nb: !ref <a>\n", "points back at itself"),
        ("a: !ref <b> * 2\nb: 3\n", r"only !ref <name"),
        ("a: [!ref <b>, !ref <b>]\nb: [!ref <c>, !ref <c>]\nc: [1]\n", "only plain values"),
        ("a: !new:omegaconf.DictConfig\n", "must be followed by its settings"),
        ("a: 2001-99-99\n", "month"),
        ("[" * 5000, "recursion"),
    ],
)
def test_broken_files_are_refused(yaml_file: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(yaml_file(text))


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ValueError, match="2000000 bytes"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    vocab_size: 64\n", "", "flow lacks vocab_size"),
        ("    vocab_size: 64\n", "    vocab_size: many\n", "vocab_size is 'many'; expected a whole number"),
        ("    vocab_size: 64\n", "    vocab_size: true\n", "vocab_size is True; expected a whole number"),
        ("    vocab_size: 64\n", "    vocab_size: -64\n", "flow: codebook_size=-64"),
        ("    input_frame_rate: 25\n", "    input_frame_rate: .nan\n", "input_frame_rate is nan; expected a finite"),
        ("    only_mask_loss: True\n", "    only_mask_los: True\n", "flow: unknown entries only_mask_los"),
        ("        use_cnn_module: False\n", "        use_cnn_module: True\n", "flow: encoder: use_cnn_module is True"),
        ("            act_fn: 'gelu'\n", "            act_fn: 'snake'\n", "estimator: act_fn is 'snake'"),
        ("    upsample_rates: [8, 8]\n", "    upsample_rates: [8]\n", "upsample_kernel_sizes has 2 entries"),
        ("            channels: [64, 64]\n", "            channels: 64\n", "channels is 64; expected a list"),
        ("hift: ", "voc: ", "lacks hift"),
        ("hift: !new:cosyvoice.hifigan.generator.HiFTGenerator\n", "hift:\n", "hift is {.*expected a section"),
        ("sample_rate: 22050\n", "sample_rate: 22050\nspeed: !ref <rate>\n", "<rate> points at nothing"),
        (
            "    sampling_rate: !ref <sample_rate>\n",
            "    sampling_rate: 16000\n",
            "22050, but hift.sampling_rate=16000",
        ),
    ],
)
def test_entries_that_do_not_fit_are_named(
    released: str, yaml_file: Callable[[str], Path], old: str, new: str, message: str
) -> None:
    assert old in released
    with pytest.raises(ValueError, match=message):
        read_released_config(yaml_file(released.replace(old, new)))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("generator.conv_pre.weight_g", "pre_conv.weight_g"),
        ("conv_post.bias", "post_conv.bias"),
        ("m_source.l_linear.weight", "source.l_linear.weight"),
        ("resblocks.11.convs1.2.weight_v", "resblocks.11.conv1.2.weight_v"),
        ("source_resblocks.0.convs2.0.bias", "source_resblocks.0.conv2.0.bias"),
        ("conv_pre.parametrizations.weight.original0", "pre_conv.weight_g"),
        ("ups.0.parametrizations.weight.original1", "ups.0.weight_v"),
        ("f0_predictor.condnet.0.weight_g", "f0_predictor.condnet.0.weight_g"),
        ("resblocks.0.conv1.0.weight_g", "resblocks.0.conv1.0.weight_g"),
    ],
)
def test_both_sets_of_vocoder_names(theirs: str, ours: str) -> None:
    assert vocoder_name(theirs) == ours
    assert vocoder_name(ours) == ours


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("," * (1 << 20), "has 1048576 bytes"),
        ("".join(f"e{n}: !ref <e{n + 1}>\n" for n in range(3000)) + "e3000: 1\n", "chain of more than 16"),
    ],
    ids=["commas", "references"],
)
def test_a_file_that_takes_no_reader_is_refused(yaml_file: Callable[[str], Path], content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_released_config(yaml_file(content))


def test_a_billion_blocks_are_refused_before_they_are_made(released: str, yaml_file: Callable[[str], Path]) -> None:
    changed = re.sub(r"num_blocks: \d+", "num_blocks: 1000000000", released, count=1)
    with pytest.raises(ValueError, match=r"num_blocks=1000000000"):
        read_released_config(yaml_file(changed))
