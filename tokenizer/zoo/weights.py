"""Weights of a kind from a file, in our own names or those of a release, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from audiollm.tokenizer.checkpoints.tensors import check_complete, check_shapes, read_tensors, stored_shapes


def read_weights(
    path: Path,
    expected: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    keep: Callable[[str], bool],
    spelling: Callable[[str], str] = str,
    under: str | None = None,
) -> dict[str, Tensor]:
    """Reads the weights of a model; of safetensors, names and shapes are compared before a tensor takes memory.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote.
        expected: by our names; only shapes matter, so that it may lie on the meta device.
        names: what the file calls them, by our names.
        keep: which of the file's names count; others are passed over.
        spelling: puts the file's names into the spelling of ``names``, where there are several.
        under: name under which a pickle keeps the tensors; None: it holds nothing else.

    Returns:
        Tensors by our names.

    Raises:
        ValueError: naming the file if it is not there or damaged, or every tensor that is missing, unknown or of
            another shape, in the file's names.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there: copy or download the weights again")
    wanted = {names[name]: tensor for name, tensor in expected.items()}
    if path.suffix == ".safetensors":
        stored = stored_shapes(path).items()
        check_shapes(wanted, {spelling(name): shape for name, shape in stored if keep(name)}, path)
    tensors = {spelling(name): tensor for name, tensor in read_tensors(path, under=under, keep=keep).items()}
    check_complete(wanted, tensors, path)
    return {name: tensors[names[name]] for name in expected}
