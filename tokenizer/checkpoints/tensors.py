"""Files of named tensors: read without letting them run anything, and checked for completeness, NaN and dtype."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

# What torch raises for a pickle that is cut off or altered; which one depends on the byte.
DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
LISTED = 5  # names in a message; a broken file may lack hundreds
_WEIGHTS = (".weight", ".bias")
COUNTERS = ("epoch", "step")  # plain numbers that training scripts save beside the tensors


def read_tensors(
    path: Path,
    expected: Mapping[str, Tensor] | None = None,
    *,
    under: str | None = None,
    keep: Callable[[str], bool] | None = None,
) -> dict[str, Tensor]:
    """Reads named tensors from ``.safetensors``, or from what ``torch.save`` wrote.

    Pickles are read by torch's restricted unpickler: one that names a function or class beyond those of plain tensors
    is refused before any of it runs.

    Args:
        path: the file.
        expected: the ``state_dict()`` that it must hold, of which only names and shapes matter; of safetensors they are
            compared before a tensor takes memory. None: whatever it holds.
        under: name under which a pickle keeps the tensors, beside what else a trainer saves; None: it holds nothing
            else.
        keep: which names count; the others are neither checked nor returned. None: all.

    Raises:
        ValueError: if the file is damaged, holds code, or holds something else than dense floating-point tensors
            without NaN and infinity, or others than those expected.
    """
    if path.suffix == ".safetensors":
        if expected is not None:
            check_shapes(expected, stored_shapes(path), path)
        values: object = read_safetensors(path)
    else:
        values = load_pickle(path)
        if under is not None and isinstance(values, dict):
            if under not in values:
                raise ValueError(f"{path} holds no {under!r}, under which its tensors should be")
            values = values[under]
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not tensors by name")
    tensors = {}
    for name, value in values.items():
        if name in COUNTERS and isinstance(value, int | float):
            continue
        if keep is not None and isinstance(name, str) and not keep(name):
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name!r} is a {type(value).__name__}; only tensors by name are expected")
        if value.layout != torch.strided or not value.is_floating_point():
            raise ValueError(f"{path}: {name} is {value.dtype} and {value.layout}; expected dense floats")
        tensors[name] = value.detach()
    check_storage(tensors, path)
    if expected is not None:
        check_complete(expected, tensors, path)
    check_finite(tensors, path)
    return tensors


def stored_shapes(path: Path, *, rounded: bool = False) -> dict[str, list[int]]:
    """Shapes of the tensors in a safetensors file, by its header alone: nothing else is read.

    Args:
        path: the file.
        rounded: whether weights may be integers, as a library that rounds them leaves them.

    Raises:
        ValueError: if the file is absent, cut off or damaged, or holds weights of a dtype that would be cast to another
            one, which loses what nobody sees.
    """
    floats = ("F", "BF", "I8", "U8") if rounded else ("F", "BF")
    try:
        with safe_open(path, framework="np") as file:  # torch's way reserves memory for all of the file
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            shapes = {name: list(one.get_shape()) for name, one in slices.items()}
            dtypes = {name: str(one.get_dtype()) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    wrong = [
        f"{name} holds {dtype}"
        for name, dtype in sorted(dtypes.items())
        if dtype.startswith("C") or (name.endswith(_WEIGHTS) and not dtype.startswith(floats))
    ]
    if wrong:
        raise ValueError(f"{path}: weights must be floating-point numbers: {', '.join(wrong[:LISTED])}")
    return shapes


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file, of any dtype.

    Raises:
        ValueError: if the file is cut off or damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is cut off or damaged, not a readable safetensors file ({error}): copy or download it again"
    )


def check_storage(tensors: Mapping[str, Tensor], source: Path) -> None:
    """Refuses tensors that are larger than what the file holds of them: few bytes, seen many times, fill the memory.

    Raises:
        ValueError: naming the tensors, their shapes and the bytes that are there.
    """
    wrong = [
        f"{name} {list(tensor.shape)} of {tensor.untyped_storage().nbytes()} bytes"
        for name, tensor in sorted(tensors.items())
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ]
    if wrong:
        raise ValueError(f"{source} announces more than it holds: {', '.join(wrong[:5])}")


def without_numbers(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # A sum has NaN or infinity if one of the numbers is, reads the memory once and writes none; finite numbers may add
    # up to infinity, and only then the slow look is needed.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def check_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    """Refuses weights that no training should have left.

    Raises:
        ValueError: naming the tensors with NaN or infinity.
    """
    wrong = without_numbers(tensors)
    if wrong:
        raise ValueError(f"{source} holds NaN or infinity in {', '.join(sorted(wrong))}; its training failed")


def check_complete(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Refuses tensors that are not exactly those of a model.

    Args:
        expected: the model's ``state_dict()``, of which only names and shapes matter.
        tensors: what was read.
        source: where from.

    Raises:
        ValueError: listing every missing, unknown and misshapen one.
    """
    check_shapes(expected, {name: tensor.shape for name, tensor in tensors.items()}, source)


def check_shapes(
    expected: Mapping[str, Tensor],
    stored: Mapping[str, Sequence[int]],
    source: Path,
    *,
    may_lack: Collection[str] = (),
) -> None:
    """As `check_complete`, of shapes that a file's header tells before its tensors take memory.

    Args:
        expected: the model's ``state_dict()``, of which only names and shapes matter.
        stored: shapes by name.
        source: where from.
        may_lack: names that need not be there.

    Raises:
        ValueError: listing every missing, unknown and misshapen one.
    """
    missing = sorted(expected.keys() - stored.keys() - set(may_lack))
    unknown = sorted(stored.keys() - expected.keys())
    misshapen = [
        f"{name} {list(stored[name])} instead of {list(tensor.shape)}"
        for name, tensor in sorted(expected.items())
        if name in stored and list(stored[name]) != list(tensor.shape)
    ]
    if missing or unknown or misshapen:
        raise ValueError(
            f"the weights in {source} do not fit its configuration; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}; wrong shape: {', '.join(misshapen) or 'none'}"
        )


def check_loaded(
    model: nn.Module,
    report: Mapping[str, Any],
    source: str | Path,
    *,
    may_hold_more: bool = False,
    instead: str = "to make an Audio-LLM, name a whole text LLM such as Qwen/Qwen2.5-0.5B",
) -> None:
    """Refuses what transformers only warns of, or nothing: weights drawn at random, left over, or no numbers.

    Args:
        model: what it loaded.
        report: its ``output_loading_info``.
        source: where from.
        may_hold_more: the file may hold weights of other parts, as that of a larger model does.
        instead: what to do where these are other weights than was thought.

    Raises:
        ValueError: naming the weights that are missing, unexpected, of a wrong shape or no numbers.
    """
    kinds = {"missing": sorted(report["missing_keys"])}
    if not may_hold_more:
        kinds["unexpected"] = sorted(report["unexpected_keys"])
    kinds["wrong shape"] = sorted(str(one[0]) for one in report["mismatched_keys"])
    found = [
        f"{len(names)} {kind}: {', '.join(names[:LISTED])}{' …' if len(names) > LISTED else ''}"
        for kind, names in kinds.items()
        if names
    ]
    if found:
        raise ValueError(
            f"{source} does not hold the weights of a {type(model).__name__} ({'; '.join(found)}): copy or download "
            f"it again; {instead}"
        )
    wrong = without_numbers({name: one.detach() for name, one in model.state_dict(keep_vars=True).items()})
    if wrong:
        some = f"{', '.join(wrong[:LISTED])}{' …' if len(wrong) > LISTED else ''}"
        raise ValueError(f"{source} holds NaN or infinity in {some}: its training failed, or it was altered")


def torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Returns the dtype meant by a dtype, its name, or None (float32); None stands for the checkpoint's own.

    Raises:
        ValueError: if it is no floating-point dtype, nor the name of one.
    """
    if dtype == "auto":
        return None
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype!r}: use 'float32', 'bfloat16', 'float16' or 'auto'")
    return found


def load_pickle(path: Path) -> object:
    """Reads what ``torch.save`` wrote: tensors and plain values on the CPU, by torch's restricted unpickler.

    Raises:
        ValueError: if the file is damaged, announces more than it holds, or names a function or class beyond those of
            tensors, of which nothing is run.
    """
    _refuse_compression(path)
    try:
        with warnings.catch_warnings():  # torch warns about old forms of pickles, which are read all the same
            warnings.simplefilter("ignore")
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # not there, or may not be read
            raise
        raise ValueError(f"{path} {_explain(error)}") from error
    _refuse_views(values, path)
    return values


def _refuse_views(value: object, path: Path) -> None:
    """Goes through nested values for tensors that are larger than what the file holds of them."""
    waiting = [("", value)]
    seen: set[int] = set()
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, Tensor):
            check_storage({where or "a tensor": one}, path)
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))  # a pickle may hold a list that holds itself
            items = one.items() if isinstance(one, dict) else enumerate(one)
            waiting += [(f"{where}.{name}" if where else str(name), inner) for name, inner in items]


def _refuse_compression(path: Path) -> None:
    """``torch.save`` compresses nothing; a compressed entry can unfold to a thousand times its size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is cut off or damaged ({error}); copy or download it again") from error
    if packed:
        raise ValueError(f"{path} is refused: {packed[0]} in it is compressed, which torch.save never does")


def _explain(error: Exception) -> str:
    """Says in short what torch says at length, without its advice to load the file all the same."""
    message = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", message)
        if named or re.search(r"reduce|unsupported class", message):
            what = f" ({named[1]})" if named else ""
            return f"is refused: it holds code or objects{what} where only tensors belong; none of it was run"
        if "operand" in message:
            return (
                "is refused: it is no file of tensors as torch.save writes them, and a pickle of another kind may "
                "hold code; none of it was run"
            )
        message = message.rpartition("WeightsUnpickler error: ")[2]
    return f"is cut off or damaged ({message[:200] or type(error).__name__}); copy or download it again"
