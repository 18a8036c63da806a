"""What the codecs of transformers share: reading and writing their files, how many codebooks, and their precision."""
# Shapes: B clips, K codebooks, T frames, N samples.

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from audiollm.tokenizer.checkpoints.fingerprint import decoder_fingerprint
from audiollm.tokenizer.checkpoints.folders import read_json_object, replaced_files
from audiollm.tokenizer.checkpoints.tensors import check_loaded
from audiollm.tokenizer.checkpoints.tokenizer import shapes_in
from audiollm.tokenizer.kinds import CONFIG, WEIGHTS
from audiollm.tokenizer.zoo.codec import CodecTokenizer
from audiollm.tokenizer.zoo.settings import require_few

NUM_CODEBOOKS = "audiollm_num_codebooks"
"""Key that `save_pretrained` adds to ``config.json`` where fewer codebooks are used than there are."""
_MOST_ANNOUNCED = 2
"""Most weights of a model by its settings over those in its files; up to there, the tensors tell what is wrong."""
_REPEATED = ("_layers", "_quantizers", "_codebooks")
"""Ends of the names of settings that say how often a part is there."""
_SAME_RATE = 1e-6  # relative: a rate such as 86.1328125 Hz may have been written with fewer digits

Own = TypeVar("Own", bound="TransformersCodec")


class TransformersCodec(CodecTokenizer):
    """A codec of transformers.

    Codebooks stay in float32 whatever `dtype` is: in bfloat16 near ties pick the wrong entry, and what one codebook
    gets wrong all those behind it see.

    Args:
        codec: the model of transformers.
        num_codebooks: how many to use, from the first; None: all there are. Of a residual quantizer the first K codes
            are the same whatever comes behind them.

    Raises:
        ValueError: if there are not that many, or its ``config.json`` does not fit itself.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    decoder_parts: ClassVar[tuple[str, ...]]
    """Names of the modules that only decoding needs."""
    float32_part: ClassVar[str | None] = "quantizer"
    """Name of the module that stays in float32."""
    before_float32: str
    """Name of the module whose output goes there."""
    behind_float32: str
    """Name of the module that takes what comes out of it."""
    deciding: ClassVar[tuple[str, ...]]
    """Keys of ``config.json`` that decide the codes beside the weights; sizes follow from the weights' shapes."""
    own_options = ("num_codebooks",)

    def __init__(self, codec: PreTrainedModel, *, num_codebooks: int | None = None) -> None:
        super().__init__()
        self.codec = codec
        self._num_codebooks = self._checked_number(num_codebooks)
        self._check_rates(codec.config.to_dict(), f"the {self.own_kind.title} in memory")
        if self.float32_part is not None:
            codec.get_submodule(self.before_float32).register_forward_hook(_to_float32)
            if self.can_decode:
                codec.get_submodule(self.behind_float32).register_forward_pre_hook(_to_own_dtype)

    # ------------------------------------------------------------------- facts

    @property
    def config(self) -> PreTrainedConfig:
        """Of the model of transformers."""
        return self.codec.config

    @property
    def sample_rate(self) -> int:
        return int(self.config.sampling_rate)

    @property
    def num_codebooks(self) -> int:
        return self._num_codebooks

    @property
    @abstractmethod
    def max_codebooks(self) -> int:
        """As many as there are."""

    @property
    def decodes_first_codebooks(self) -> bool:
        """Codes of a residual quantizer add up; the first ones alone are a coarser sum."""
        return self.can_decode

    @property
    def codebook_size(self) -> int:
        return int(self.config.codebook_size)

    @property
    def can_decode(self) -> bool:
        return getattr(self.codec, self.decoder_parts[0]) is not None

    def _checked_number(self, number: int | None) -> int:
        if number is None:
            return self.max_codebooks
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"num_codebooks={number!r}: use a whole number")
        if not self.min_codebooks <= number <= self.max_codebooks:
            raise ValueError(
                f"num_codebooks={number}: of the codebooks of this {self.own_kind.title} at least {self.min_codebooks} "
                f"must be used, and there are {self.max_codebooks}"
            )
        return number

    def _check_rates(self, values: Mapping[str, Any], source: object) -> None:
        """Refuses a config that states another rate of frames than its network makes."""
        stated, hop = values.get("frame_rate"), values.get("hop_length")
        rounded = math.ceil(self.frame_rate)  # as transformers rounds it for some codecs
        is_right = stated == rounded or math.isclose(stated or 0.0, self.frame_rate, rel_tol=_SAME_RATE)
        if stated is not None and not is_right:
            raise ValueError(
                f"{source}: frame_rate={stated}, but strides of {self.frame_samples} samples in all at "
                f"{self.sample_rate} Hz make {self.frame_rate:g} frames per second"
            )
        if hop is not None and hop != self.frame_samples:
            raise ValueError(f"{source}: hop_length={hop}, but the strides make frames of {self.frame_samples} samples")

    # ------------------------------------------------------------------- files

    @classmethod
    def read(cls: type[Own], folder: Path, *, encoder_only: bool = False) -> Own:
        values = read_json_object(folder / CONFIG)
        shapes_in(folder)  # names what is missing or damaged
        codec = _load(cls.model_class, folder)
        tokenizer = cls(codec, num_codebooks=values.get(NUM_CODEBOOKS))
        tokenizer._check_rates(values, folder / CONFIG)
        if encoder_only:
            tokenizer.drop_decoder()
        return tokenizer

    def configure(self, *, num_codebooks: int | None = None, **options: Any) -> None:
        if num_codebooks is not None:
            self._num_codebooks = self._checked_number(num_codebooks)
        super().configure(**options)

    def drop_decoder(self) -> None:
        """Frees what only decoding needs; it can't decode, nor be saved, from then on."""
        children = dict(self.codec.named_children())
        for name in self.decoder_parts:
            if name in children:
                setattr(self.codec, name, None)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what transformers reads: ``config.json`` and ``model.safetensors``; each whole or not at all.

        Raises:
            ValueError: if it was loaded without its decoder, which would be missing from the files.
        """
        if not self.can_decode:
            raise ValueError(
                f"this {self.own_kind.title} was loaded with encoder_only=True; load it whole to save it, or copy its "
                "folder"
            )
        config = self.codec.config
        with replaced_files(
            Path(folder), WEIGHTS, CONFIG, outdated=("model-*-of-*.safetensors", "*.index.json")
        ) as new:
            if self.num_codebooks != self.max_codebooks:
                setattr(config, NUM_CODEBOOKS, self.num_codebooks)
            elif hasattr(config, NUM_CODEBOOKS):
                delattr(config, NUM_CODEBOOKS)
            self.codec.save_pretrained(new, max_shard_size="1TB")

    def settings(self) -> dict[str, Any]:
        return {
            "sample_rate": self.sample_rate,
            "num_codebooks": self.num_codebooks,
            **{key: _nested(self.config, key) for key in self.deciding},
        }

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            behind = tuple(f"{name}." for name in self.decoder_parts)
            decisive = {
                self.lasting_name(name): one
                for name, one in self.codec.state_dict().items()
                if not name.startswith(behind)
            }
            self._fingerprint = decoder_fingerprint({"kind": self.kind_name, **self.settings()}, decisive)
        return self._fingerprint

    def lasting_name(self, name: str) -> str:
        """The name of a weight that is the same in every version of transformers."""
        return name

    # --------------------------------------------------------------- precision

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves and casts, as ``to`` does, but leaves the codebooks in float32."""
        if self.float32_part is None:
            return super()._apply(fn, recurse)
        kept = getattr(self.codec, self.float32_part)
        setattr(self.codec, self.float32_part, None)
        try:
            super()._apply(fn, recurse)
            kept._apply(lambda tensor: tensor.to(fn(tensor.flatten()[:0]).device))
        finally:
            setattr(self.codec, self.float32_part, kept)
        return self


def _load(model_class: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """A model of transformers in float32; nothing in it is drawn at random.

    Raises:
        ValueError: if its settings make no sense, or weights are missing, unexpected, misshapen or no numbers.
    """
    try:
        config = model_class.config_class.from_pretrained(folder)
    except Exception as error:  # transformers checks fields by errors of huggingface_hub's own
        raise ValueError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from error
    _check_size(model_class, config, folder)
    try:
        codec, report = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are listed with the others instead
            output_loading_info=True,
        )
    except ArithmeticError as error:  # a kernel of no size, whose missing weights it would draw
        raise ValueError(f"{folder / CONFIG}: no model can be made of it ({error})") from error
    check_loaded(codec, report, folder, instead=f"{CONFIG} there and the weights must be of one model")
    return codec.eval()


def _check_size(model_class: type[PreTrainedModel], config: PreTrainedConfig, folder: Path) -> None:
    """Refuses settings of a model much larger than its files, before its missing weights take memory.

    Raises:
        ValueError: naming both sizes, or what can't be built of such settings.
    """
    try:
        _check_repetitions(config)
        with torch.device("meta"):
            announced = sum(one.numel() for one in model_class(config).state_dict().values())
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        raise ValueError(f"{folder / CONFIG}: no model can be made of it ({' '.join(str(error).split())})") from error
    stored = sum(math.prod(shape) for shape in shapes_in(folder).values())
    if announced > _MOST_ANNOUNCED * stored + 1_000_000:
        raise ValueError(
            f"{folder / CONFIG} describes a model of {announced:,} weights, and the files hold {stored:,}: they are of "
            "different models"
        )


def _check_repetitions(config: PreTrainedConfig) -> None:
    """Refuses more layers or codebooks than any codec has: making them would take for ever, also without weights.

    Raises:
        ValueError: naming the setting.
    """
    # The number of quantizers of an EnCodec or X-Codec is no key, and follows from target_bandwidths.
    names = [name for name in (*config.to_dict(), "num_quantizers") if name.endswith(_REPEATED)]
    require_few(config, *(name for name in names if isinstance(getattr(config, name, None), int)))
    for one in vars(config).values():
        if isinstance(one, PreTrainedConfig):
            _check_repetitions(one)


def _nested(config: Any, key: str) -> Any:
    """A value of a config or, behind a point, of one within; None if there is none."""
    for name in key.split("."):
        config = getattr(config, name, None)
    return list(config) if isinstance(config, tuple) else config


def _to_float32(_: nn.Module, __: Any, output: Any) -> Any:
    return output.float()


def _to_own_dtype(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    own = next(module.parameters()).dtype
    return tuple(one.to(own) if isinstance(one, Tensor) and one.is_floating_point() else one for one in inputs)
