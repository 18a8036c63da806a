"""The released layout of waveform decoders: sizes in ``config.yaml``, and the names of the vocoder's tensors.

UniAudio-Token, GLM-4-Voice and CosyVoice share it, with two sets of names for the tensors of the vocoder.
"""

from __future__ import annotations

import re
from pathlib import Path

from audiollm.tokenizer.decoder.configuration import (
    EstimatorConfig,
    FlowConfig,
    TokenEncoderConfig,
    VocoderConfig,
    WaveformDecoderConfig,
)
from audiollm.tokenizer.signal.mel import MelConfig

from .hyperpyyaml import Section, read_yaml

WHOLE_UTTERANCE = 1 << 30  # block size, in codes, of an encoder that sees everything


def read_released_config(path: Path) -> WaveformDecoderConfig:
    """Reads the sizes of a released decoder from its ``config.yaml``.

    Raises:
        ValueError: if the file is refused (see `read_yaml`), lacks a size, or asks for something that this
            package does not build; the entry is named.
    """
    entries = read_yaml(path)
    top = Section(entries, str(path))
    flow = _flow_config(top.part("flow", "flow"))
    vocoder = _vocoder_config(top.part("hift", "vocoder"), flow.num_mels)
    sample_rate = top.integer("sample_rate", vocoder.sample_rate)
    if sample_rate != vocoder.sample_rate:
        raise ValueError(f"{path}: sample_rate={sample_rate}, but hift.sampling_rate={vocoder.sample_rate}")
    try:
        mel = MelConfig(sample_rate=sample_rate, hop_length=vocoder.hop_length, num_mels=flow.num_mels)
        return WaveformDecoderConfig(flow=flow, vocoder=vocoder, mel=mel)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _flow_config(section: Section) -> FlowConfig:
    num_mels = section.integer("output_size")
    embedding_size = section.integer("input_size")
    section.must_be("output_type", "mel", default="mel")
    encoder = _encoder_config(section.part("encoder", "block encoder", "encoder"), embedding_size)
    regulator = section.part("length_regulator", "length regulator")
    regulator.must_be("channels", num_mels)
    regulator.must_be("out_channels", num_mels, default=num_mels)
    regulator.must_be("groups", 1, default=1)
    convolutions = len(regulator.integers("sampling_ratios"))
    regulator.end()
    matching = section.part("decoder", "flow matching")
    estimator = _estimator_config(matching.part("estimator", "estimator"), num_mels)
    matching.must_be("n_spks", 1, default=1)
    matching.must_be("spk_emb_dim", num_mels, default=num_mels)
    matching.must_be("in_channels", 3 * num_mels, default=3 * num_mels)
    settings = matching.mapping("cfm_params")
    matching.end()
    settings.must_be("solver", "euler", default="euler")
    settings.skip("reg_loss_type")
    schedule = settings.text("t_scheduler", ("cosine", "linear"), default="cosine")
    section.skip("only_mask_loss", "decoder_conf", "mel_feat_conf")
    config = section.built(
        FlowConfig,
        codebook_size=section.integer("vocab_size"),
        frame_rate=section.number("input_frame_rate"),
        embedding_size=embedding_size,
        num_mels=num_mels,
        speaker_size=section.integer("spk_embed_dim", 192),
        encoder=encoder,
        regulator_convolutions=convolutions,
        estimator=estimator,
        sigma_min=settings.number("sigma_min", 1e-6),
        cosine_schedule=schedule == "cosine",
        training_guidance_dropout=settings.number("training_cfg_rate", 0.0),
        guidance=settings.number("inference_cfg_rate", 0.0),
    )
    settings.end()
    section.end()
    assert isinstance(config, FlowConfig)
    return config


def _encoder_config(section: Section, embedding_size: int) -> TokenEncoderConfig:
    section.must_be("input_size", embedding_size, default=embedding_size)
    section.must_be("normalize_before", True, default=True)
    section.must_be("input_layer", "linear")
    section.must_be("pos_enc_layer_type", "rel_pos_espnet")
    section.must_be("use_cnn_module", False, default=False)
    section.must_be("macaron_style", False, default=False)
    section.must_be("activation_type", "swish", default="swish")
    section.must_be("key_bias", True, default=True)
    for name in ("use_dynamic_chunk", "use_dynamic_left_chunk"):
        section.must_be(name, False, default=False)
    if section.kind == "encoder":  # CosyVoice's: no blocks
        section.must_be("selfattention_layer_type", "rel_selfattn", default="rel_selfattn")
        section.must_be("static_chunk_size", 0, default=0)
        block_size = WHOLE_UTTERANCE
    else:
        section.must_be("selfattention_layer_type", "block_rel_selfattn", default="block_rel_selfattn")
        section.skip("static_chunk_size")
        block_size = section.integer("block_size", 25)  # the class's own default
    config = section.built(
        TokenEncoderConfig,
        size=section.integer("output_size"),
        num_heads=section.integer("attention_heads"),
        feed_forward_size=section.integer("linear_units"),
        num_blocks=section.integer("num_blocks"),
        block_size=block_size,
        dropout=section.number("dropout_rate", 0.1),
        positional_dropout=section.number("positional_dropout_rate", 0.1),
        attention_dropout=section.number("attention_dropout_rate", 0.0),
    )
    section.end()
    assert isinstance(config, TokenEncoderConfig)
    return config


def _estimator_config(section: Section, num_mels: int) -> EstimatorConfig:
    section.must_be("in_channels", 4 * num_mels)  # state, condition, speaker, prompt
    section.must_be("out_channels", num_mels)
    section.must_be("act_fn", "gelu")
    section.must_be("causal", False, default=False)
    config = section.built(
        EstimatorConfig,
        channels=section.integers("channels"),
        num_heads=section.integer("num_heads"),
        head_dim=section.integer("attention_head_dim"),
        blocks_per_stage=section.integer("n_blocks"),
        num_mid_stages=section.integer("num_mid_blocks"),
        dropout=section.number("dropout", 0.0),
    )
    section.end()
    assert isinstance(config, EstimatorConfig)
    return config


def _vocoder_config(section: Section, num_mels: int) -> VocoderConfig:
    predictor = section.part("f0_predictor", "f0 predictor")
    predictor.must_be("num_class", 1, default=1)
    predictor.must_be("in_channels", num_mels)
    f0_channels = predictor.integer("cond_channels")
    predictor.end()
    istft = section.mapping("istft_params")
    defaults = VocoderConfig()
    config = section.built(
        VocoderConfig,
        num_mels=section.integer("in_channels", num_mels),
        sample_rate=section.integer("sampling_rate"),
        base_channels=section.integer("base_channels"),
        num_harmonics=section.integer("nb_harmonics"),
        sine_amplitude=section.number("nsf_alpha", defaults.sine_amplitude),
        noise_amplitude=section.number("nsf_sigma", defaults.noise_amplitude),
        voiced_threshold=section.number("nsf_voiced_threshold", defaults.voiced_threshold),
        upsample_rates=section.integers("upsample_rates"),
        upsample_kernel_sizes=section.integers("upsample_kernel_sizes"),
        istft_n_fft=istft.integer("n_fft"),
        istft_hop_length=istft.integer("hop_len"),
        resblock_kernel_sizes=section.integers("resblock_kernel_sizes"),
        resblock_dilations=section.integer_rows("resblock_dilation_sizes"),
        source_resblock_kernel_sizes=section.integers("source_resblock_kernel_sizes"),
        source_resblock_dilations=section.integer_rows("source_resblock_dilation_sizes"),
        leaky_slope=section.number("lrelu_slope", defaults.leaky_slope),
        amplitude_limit=section.number("audio_limit", defaults.amplitude_limit),
        f0_channels=f0_channels,
    )
    istft.end()
    section.end()
    assert isinstance(config, VocoderConfig)
    return config


# Names of GLM-4-Voice and CosyVoice, and what UniAudio-Token's release (and this package) calls the same parts.
VOCODER_NAMES = (
    (re.compile(r"^generator\."), ""),  # some ports keep the vocoder inside a GAN
    (re.compile(r"^m_source\."), "source."),
    (re.compile(r"^conv_pre\."), "pre_conv."),
    (re.compile(r"^conv_post\."), "post_conv."),
    (re.compile(r"^(source_resblocks|resblocks)\.(\d+)\.convs([12])\."), r"\1.\2.conv\3."),
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),  # newer spelling of weight normalisation
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
)


def vocoder_name(name: str) -> str:
    """Translates a vocoder tensor's name of any release; unknown names stay as they are."""
    for pattern, ours in VOCODER_NAMES:
        name = pattern.sub(ours, name)
    return name
