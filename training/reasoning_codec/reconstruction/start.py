"""The codec that the last stage trains: the reasoning branch as it is, and all else new, or as it was left."""

from __future__ import annotations

import dataclasses

from torch import nn

from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.quantizer.codebook import Codebook
from audiollm.tokenizer.reasoningcodec.configuration import BRANCHES
from audiollm.tokenizer.reasoningcodec.encoders import FrozenEncoder
from audiollm.tokenizer.reasoningcodec.model import ReasoningCodec
from audiollm.tokenizer.zoo.sqcodec.model import SQCodec

from ..reconstruction_settings import ReconstructionSettings

STAGE = "reconstruction"
SQCODEC_RUN = (
    "accelerate launch training/train_codec.py --config training/configs/codec_sqcodec.yaml --train_data … "
    "--output_dir SQCODEC"
)
SIZES = (
    *(f"{branch}_quantizer" for branch in BRANCHES), "film",
    "dit_layers", "dit_heads", "dit_head_size", "dit_inner_size", "dit_positions", "dit_time_size",
)  # fmt: skip
"""Settings that are of the codec, by the same names."""


def codec_to_train(codec: ReasoningCodec, settings: ReconstructionSettings) -> ReasoningCodec:
    """Puts reconstruction and decoder around a codec's reasoning branch, or goes on with those that it has.

    Args:
        codec: trained by the stages before.
        settings: of this one.

    Raises:
        ValueError: if there is no SQCodec or one of another rate, or a size is not that of what the codec has.
    """
    if codec.config.trained_stage == STAGE:
        return _gone_on_with(codec, settings)
    if settings.sqcodec is None:
        raise ValueError(
            "stage: reconstruction needs reconstruction.sqcodec, whose latents are learned. Train one first:\n  "
            f"{SQCODEC_RUN}\nthen add --reconstruction.sqcodec SQCODEC, or name a folder with a released sqcodec.pth"
        )
    sqcodec = open_sqcodec(settings.sqcodec)
    config = dataclasses.replace(
        codec.config,
        **{name: getattr(settings, name) for name in SIZES},
        latent_size=sqcodec.num_codebooks,
        group="both",
        encoder_only=False,
        trained_stage=STAGE,
    )
    encoders = {role: one for role, one in codec.encoders.items() if isinstance(one, FrozenEncoder)}
    made = ReasoningCodec(config, encoders)
    try:
        made.attach_sqcodec(sqcodec)
    except ValueError as error:
        raise ValueError(f"reconstruction.sqcodec={settings.sqcodec}: {error}") from error
    made.reasoning.load_state_dict(codec.reasoning.state_dict())
    return made


def open_sqcodec(source: str) -> SQCodec:
    """An SQCodec of a folder, a run or the Hub.

    Raises:
        ValueError: if there is none.
    """
    try:
        sqcodec = AudioTokenizer.from_pretrained(source)
    except (ValueError, OSError) as error:
        raise ValueError(f"reconstruction.sqcodec: {error}. This trains one:\n  {SQCODEC_RUN}") from error
    if not isinstance(sqcodec, SQCodec):
        raise ValueError(f"reconstruction.sqcodec={source} is a {type(sqcodec).__name__}; give an SQCodec")
    return sqcodec


def _gone_on_with(codec: ReasoningCodec, settings: ReconstructionSettings) -> ReasoningCodec:
    if codec.flow is None or codec.sqcodec is None:
        raise ValueError(f"codec has been through reconstruction, but {codec.why_no_sound}")
    if settings.sqcodec is not None:
        raise ValueError(
            "reconstruction.sqcodec has no effect on a codec that has been through reconstruction, whose decoder makes "
            "the latents of its own SQCodec; remove it"
        )
    for name in SIZES:
        wanted, has = getattr(settings, name), getattr(codec.config, name)
        if wanted not in (getattr(ReconstructionSettings(), name), has):
            raise ValueError(
                f"reconstruction.{name}={_plain(wanted)}: the codec has been through reconstruction with "
                f"{_plain(has)}; remove it, or start from what the stage before reconstruction left"
            )
    codec.configure(group="both")
    return codec


def _plain(size: int | tuple[int, ...]) -> int | list[int]:
    return list(size) if isinstance(size, tuple) else size


def parts_to_train(codec: ReasoningCodec) -> list[nn.Module]:
    """What this stage trains; all else is frozen."""
    assert codec.flow is not None
    return [codec.reconstruction, codec.heads, codec.flow]


def check_restarts(codec: ReasoningCodec, codes_per_update: int) -> None:
    """Refuses codebooks whose entries would nearly all be restarted after every update.

    Raises:
        ValueError: naming the size.
    """
    for branch in BRANCHES:
        quantizer = codec.reconstruction.quantizer(branch).residual
        least = next(one.restart_below for one in quantizer.codebooks if isinstance(one, Codebook)) or 0.0
        size = codec.config.quantizer_sizes(branch)[1]
        if codes_per_update / size < least:
            raise ValueError(
                f"reconstruction.{branch}_quantizer has {size} entries: the {codes_per_update} codes of an update show "
                f"each {codes_per_update / size:.2g} times on average, and those below {least:g} are restarted; raise "
                "global_batch_size or reconstruction.segment_seconds, or use a smaller one"
            )
