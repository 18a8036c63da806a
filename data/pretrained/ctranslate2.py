"""Reads a Whisper checkpoint in CTranslate2's ``model.bin`` into the names and layout of transformers.

CTranslate2 fuses projections that transformers keeps apart (query, key and value of self-attention; key and value of
cross-attention) and gives the key a bias, which Whisper does not have: it is stored as zeros, checked here and dropped.
"""
# Shapes: D model size, V text vocabulary, M mel bins, F feed-forward size.

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SUPPORTED_VERSION = 6
SUPPORTED_SPEC = ("WhisperSpec", 3)
_DTYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_GELU = 3  # CTranslate2's ActivationType::GELU, the exact (erf) form
_MODEL_FLAGS = {  # scalars that change the computation, with the value transformers' Whisper implements
    "decoder/activation": _GELU,
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
# Scalars that only steer CTranslate2's own alignment output.
_UNUSED = {"decoder/alignment_heads", "decoder/alignment_layer"}


class CTranslate2Error(ValueError):
    """A ``model.bin`` that is damaged, of another version, quantized, or not Whisper; says which."""


@dataclass(frozen=True)
class CTranslate2Model:
    """What a ``model.bin`` holds, as stored."""

    version: int
    """Version of the container, 6 for current converters."""
    spec: str
    """Architecture, such as ``WhisperSpec``."""
    revision: int
    """Revision of the architecture's variable names."""
    variables: dict[str, Tensor]
    """Every variable by name, aliases included; dtype as stored."""


class _Reader:
    """Little-endian fields from a buffer; running off its end is the user's truncated file."""

    def __init__(self, buffer: bytes, name: str) -> None:
        self.buffer = buffer
        self.name = name
        self.offset = 0

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes."""
        end = self.offset + size
        if end > len(self.buffer):
            raise CTranslate2Error(
                f"{self.name} ends at byte {len(self.buffer)} but its header promises at least {end}: "
                "the file is truncated or a part is missing; download it again and give all parts in order"
            )
        view = memoryview(self.buffer)[self.offset : end]
        self.offset = end
        return view

    def number(self, code: str) -> int:
        """One unsigned integer in `struct` notation (``B``, ``H`` or ``I``)."""
        return int(struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0])

    def string(self) -> str:
        """A length-prefixed, NUL-terminated name."""
        raw = bytes(self.take(self.number("H"))).rstrip(b"\0")
        try:
            return raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise CTranslate2Error(f"{self.name} holds no readable name near byte {self.offset}") from error

    def variable(self) -> tuple[str, Tensor]:
        """One named array."""
        name = self.string()
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype_id, num_bytes = self.number("B"), self.number("I")
        if dtype_id not in _DTYPES:
            raise CTranslate2Error(f"{self.name}: {name} has data type {dtype_id}; known are {sorted(_DTYPES)}")
        dtype = np.dtype(_DTYPES[dtype_id])
        if num_bytes != math.prod(shape) * dtype.itemsize:
            raise CTranslate2Error(
                f"{self.name}: {name} of shape {shape} and type {dtype} cannot fill {num_bytes} bytes"
            )
        # A copy: the values must outlive the file buffer and be aligned and writable for torch.
        array = np.frombuffer(self.take(num_bytes), dtype).reshape(shape).copy()
        return name, torch.from_numpy(array)


def read_model(paths: str | Path | Sequence[str | Path]) -> CTranslate2Model:
    """Reads a ``model.bin``.

    Args:
        paths: the file, or its parts in order (large files are sometimes published in pieces).

    Returns:
        The stored variables, on the CPU.

    Raises:
        CTranslate2Error: if the file is truncated, has trailing bytes, or is of another container version.
        FileNotFoundError: if a file is missing.
    """
    parts = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    name = " + ".join(str(part) for part in parts)
    reader = _Reader(b"".join(part.read_bytes() for part in parts), name)
    version = reader.number("I")
    if version != SUPPORTED_VERSION:
        raise CTranslate2Error(
            f"{name} starts with version {version}, expected {SUPPORTED_VERSION}: not a CTranslate2 model, "
            "its parts are in the wrong order, or it was written by another release (convert it again)"
        )
    spec, revision = reader.string(), reader.number("I")
    variables = dict(reader.variable() for _ in range(reader.number("I")))
    for _ in range(reader.number("I")):
        alias, target = reader.string(), reader.string()
        if target not in variables:
            raise CTranslate2Error(f"{name}: {alias} is another name for {target}, which the file does not hold")
        variables[alias] = variables[target]
    if reader.offset != len(reader.buffer):
        extra = len(reader.buffer) - reader.offset
        raise CTranslate2Error(f"{name} has {extra} bytes after its end: a part was given twice or is damaged")
    return CTranslate2Model(version, spec, revision, variables)


class _Converter:
    """Moves variables to transformers' names and remembers which were used."""

    def __init__(self, variables: Mapping[str, Tensor]) -> None:
        self.variables = variables
        self.used: set[str] = set()
        self.state: dict[str, Tensor] = {}

    def take(self, source: str) -> Tensor:
        if source not in self.variables:
            raise CTranslate2Error(f"the model lacks {source}: not a Whisper checkpoint of a known revision")
        self.used.add(source)
        return self.variables[source]

    def linear(self, target: str, source: str) -> None:
        self.state[f"{target}.weight"] = self.take(f"{source}/weight")
        self.state[f"{target}.bias"] = self.take(f"{source}/bias")

    def norm(self, target: str, source: str) -> None:
        self.state[f"{target}.weight"] = self.take(f"{source}/gamma")
        self.state[f"{target}.bias"] = self.take(f"{source}/beta")

    def split(self, target: str, source: str, names: str) -> None:
        """Cuts a fused projection ``[len(names) * D, D]`` into ``q_proj``, ``k_proj``, ``v_proj``."""
        weights = self.take(f"{source}/weight").chunk(len(names))
        biases = self.take(f"{source}/bias").chunk(len(names))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            self.state[f"{target}.{name}_proj.weight"] = weight.clone()
            if name != "k":
                self.state[f"{target}.{name}_proj.bias"] = bias.clone()
            elif torch.count_nonzero(bias):
                raise CTranslate2Error(f"{source}/bias gives the keys a bias, which Whisper does not have")

    def layer(self, side: str, index: int) -> None:
        target, source = f"model.{side}.layers.{index}", f"{side}/layer_{index}"
        self.split(f"{target}.self_attn", f"{source}/self_attention/linear_0", "qkv")
        self.linear(f"{target}.self_attn.out_proj", f"{source}/self_attention/linear_1")
        self.norm(f"{target}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
        if side == "decoder":
            self.linear(f"{target}.encoder_attn.q_proj", f"{source}/attention/linear_0")
            self.split(f"{target}.encoder_attn", f"{source}/attention/linear_1", "kv")
            self.linear(f"{target}.encoder_attn.out_proj", f"{source}/attention/linear_2")
            self.norm(f"{target}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
        self.linear(f"{target}.fc1", f"{source}/ffn/linear_0")
        self.linear(f"{target}.fc2", f"{source}/ffn/linear_1")
        self.norm(f"{target}.final_layer_norm", f"{source}/ffn/layer_norm")


def _num_layers(variables: Mapping[str, Tensor], side: str) -> int:
    pattern = re.compile(rf"{side}/layer_(\d+)/")
    return len({match[1] for name in variables if (match := pattern.match(name))})


def _check_is_plain_whisper(model: CTranslate2Model) -> None:
    """Refuses whatever transformers' Whisper would compute differently."""
    if (model.spec, model.revision) != SUPPORTED_SPEC:
        raise CTranslate2Error(
            f"the model is {model.spec} revision {model.revision}; only {SUPPORTED_SPEC[0]} revision "
            f"{SUPPORTED_SPEC[1]} is known"
        )
    quantized = sorted(name for name in model.variables if name.endswith("weight_scale"))
    if quantized:
        raise CTranslate2Error(
            f"{len(quantized)} weights are quantized ({quantized[0]} …); use a float16 or float32 conversion"
        )
    for name, expected in _MODEL_FLAGS.items():
        if name in model.variables and int(model.variables[name]) != expected:
            raise CTranslate2Error(f"{name} is {int(model.variables[name])}; Whisper needs {expected}")


def whisper_state_dict(model: CTranslate2Model) -> dict[str, Tensor]:
    """The weights under the names of ``WhisperForConditionalGeneration``.

    Every name that `load_state_dict(strict=True)` asks for is present, ``proj_out.weight`` (tied to the token
    embedding) included. Strip the prefix ``model.`` and drop ``proj_out`` for a bare ``WhisperModel``.

    Args:
        model: result of `read_model`.

    Returns:
        Name → tensor, dtype as stored.

    Raises:
        CTranslate2Error: if a variable is missing or unknown, weights are quantized, a key projection has a bias, or a
            flag asks for a computation that Whisper does not have.
    """
    _check_is_plain_whisper(model)
    converter = _Converter(model.variables)
    for conv in ("conv1", "conv2"):
        converter.linear(f"model.encoder.{conv}", f"encoder/{conv}")
    for side in ("encoder", "decoder"):
        positions = converter.take(f"{side}/position_encodings/encodings")
        converter.state[f"model.{side}.embed_positions.weight"] = positions
        converter.norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for index in range(_num_layers(model.variables, side)):
            converter.layer(side, index)
    converter.state["model.decoder.embed_tokens.weight"] = converter.take("decoder/embeddings/weight")
    converter.state["proj_out.weight"] = converter.take("decoder/projection/weight")
    heads = {"encoder/num_heads", "decoder/num_heads"}
    unknown = sorted(model.variables.keys() - converter.used - _MODEL_FLAGS.keys() - _UNUSED - heads)
    if unknown:
        raise CTranslate2Error(f"{len(unknown)} variables have no place in Whisper: {', '.join(unknown[:8])}")
    return converter.state


def whisper_config(model: CTranslate2Model) -> dict[str, Any]:
    """The sizes of the checkpoint as keyword arguments of ``transformers.WhisperConfig``.

    Token ids follow from the vocabulary: 51,864 entries are the English-only text tokenizer, more are multilingual.

    Args:
        model: result of `read_model`.

    Returns:
        Sizes, head counts and special token ids.

    Raises:
        CTranslate2Error: if a variable that a size is read from is missing.
    """
    sizes = _Converter(model.variables)
    vocab_size, d_model = sizes.take("decoder/embeddings/weight").shape
    multilingual = vocab_size > 51864
    end_of_text = 50257 if multilingual else 50256
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "num_mel_bins": sizes.take("encoder/conv1/weight").shape[1],
        "encoder_layers": _num_layers(model.variables, "encoder"),
        "decoder_layers": _num_layers(model.variables, "decoder"),
        "encoder_attention_heads": int(sizes.take("encoder/num_heads")),
        "decoder_attention_heads": int(sizes.take("decoder/num_heads")),
        "encoder_ffn_dim": sizes.take("encoder/layer_0/ffn/linear_0/weight").shape[0],
        "decoder_ffn_dim": sizes.take("decoder/layer_0/ffn/linear_0/weight").shape[0],
        "max_source_positions": sizes.take("encoder/position_encodings/encodings").shape[0],
        "max_target_positions": sizes.take("decoder/position_encodings/encodings").shape[0],
        "decoder_start_token_id": end_of_text + 1,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }
