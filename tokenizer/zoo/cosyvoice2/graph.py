"""Weights out of the released ONNX file, ``speech_tokenizer_v2.onnx``, by name.

torch's exporter turns the matrix of a linear layer round and gives it a number for a name; which layer it belongs to is
told by the node that uses it, whose name is the path of its module: ``/blocks.0/attn/query/MatMul``. Weights that kept
their names are taken by those.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The last part of a node's name, and the place of the tensor among its inputs → what the tensor is to its module.
_ROLES = {
    ("MatMul", 1): "weight",
    ("Add", 0): "bias",
    ("Add", 1): "bias",
    ("Conv", 1): "weight",
    ("Conv", 2): "bias",
    ("Gemm", 1): "weight",
    ("Gemm", 2): "bias",
    ("LayerNormalization", 1): "weight",
    ("LayerNormalization", 2): "bias",
    ("Mul", 0): "weight",  # of a norm that is written out
    ("Mul", 1): "weight",
}
_MODULES = re.compile(
    r"conv[12]|blocks\.\d+\.(attn\.(query|key|value|out|fsmn_block)|attn_ln|mlp\.[02]|mlp_ln)|project_down"
)


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Reads the weights of the tokenizer, under the names of the torch port; the graph itself is not run.

    Raises:
        ImportError: if the package onnx is missing, saying how to install it.
        ValueError: if the file is damaged.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ImportError(
            f"{path.name} is read by the package onnx: run `pip install 'audiollm[onnx]'`; or save the tokenizer once "
            "where that is, with CosyVoice2Tokenizer.from_pretrained(folder).save_pretrained(other)"
        )
    onnx = importlib.import_module("onnx")
    numpy_helper = importlib.import_module("onnx.numpy_helper")
    unreadable = (importlib.import_module("google.protobuf.message").Error, OSError, TypeError, ValueError)
    try:
        graph = onnx.load(str(path)).graph
        stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    except unreadable as error:
        raise ValueError(f"{path} is cut off or damaged, not a readable ONNX file ({error})") from error
    return weights_of_graph(graph.node, stored)


def weights_of_graph(nodes: Iterable[Any], stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Finds out what the stored tensors of a graph are.

    Args:
        nodes: of the graph, with ``name``, ``op_type``, ``input``, ``output`` and ``attribute``.
        stored: its tensors by name, as numpy arrays.

    Returns:
        Those that are weights of the tokenizer, by the names of the torch port.
    """
    tensors: dict[str, Tensor] = {}
    stored = dict(stored)
    front = iter(("conv1", "conv2"))
    for node in nodes:
        if node.op_type == "Identity" and node.input[0] in stored:  # equal tensors are stored once
            stored[node.output[0]] = stored[node.input[0]]
        module = _module_of(node.name)
        if node.op_type == "Conv" and _group_of(node) == 1 and module is None:
            module = next(front, None)  # the two in front of all blocks, in their order
        for place, key in enumerate(node.input):
            role = _ROLES.get((node.op_type, place))
            # The node first: a tensor stored once for several has the name of one of them.
            name = f"{module}.{role}" if module and role else _own_name(key)
            if key not in stored or name is None or not stored[key].ndim:
                continue
            tensor = torch.from_numpy(stored[key].copy())
            is_turned = name.endswith("weight") and _is_turned(node)
            tensors.setdefault(_full_name(name), tensor.t().contiguous() if is_turned else tensor)
    return tensors


def _group_of(node: Any) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "group"), 1)


def _is_turned(node: Any) -> bool:
    """Whether a node's matrix is [in, out], where a layer's is [out, in]."""
    if node.op_type == "Gemm":
        return not any(one.name == "transB" and one.i for one in node.attribute)
    return bool(node.op_type == "MatMul")


def _module_of(node_name: str) -> str | None:
    """The module in whose forward a node arose: ``/blocks.0/mlp/mlp.0/MatMul`` is of ``blocks.0.mlp.0``."""
    parts: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):  # a sequence's children repeat its name
            parts.pop()
        parts.append(part)
    return _known(".".join(parts))


def _own_name(key: str) -> str | None:
    """The name of a stored tensor without what stands around it, if it kept one: module and weight or bias."""
    module, _, role = key.rpartition(".")
    found = _known(module) if role in ("weight", "bias") else None
    return found and f"{found}.{role}"


def _known(module: str) -> str | None:
    module = module.replace("project_in", "project_down")  # as the exported network calls it
    found = [match for match in _MODULES.finditer(module) if match.end() == len(module)]
    return found[0][0] if found else None


def _full_name(name: str) -> str:
    return f"quantizer._codebook.{name}" if name.startswith("project_down") else f"encoder.{name}"
