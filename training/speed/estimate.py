"""How much memory a fine-tuning takes on each process, and which micro batch fits: by its settings, without weights.

audiollm estimate --config training/configs/sft.yaml --model Qwen2.5-0.5B --audio_tokenizer my-tokenizer …
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from transformers import AutoConfig

from audiollm.facts import show_facts
from audiollm.folders import check_text_llm, layout_in
from audiollm.loading import check_reachable, load_text_tokenizer, refused_by_transformers
from audiollm.mini import AUDIO_TOKENIZER_FOLDER, audio_tokenizer_or_mini, model_or_mini
from audiollm.processing.audio_rate import AudioRate
from audiollm.program import run_program
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.folders import find_folder
from audiollm.tokenizer.checkpoints.tokenizer import read_config
from audiollm.tokenizer.kinds import FolderView
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.opening import find_tokenizer_folder
from audiollm.tokenizer.sequence import SequenceTokenizer, as_one_row
from audiollm.training.audio_llm.config import SFTConfig, accumulation_steps, length_limit, varies_in_passes
from audiollm.training.audio_llm.memory import (
    Layout,
    MemoryEstimate,
    PassShape,
    estimate_memory,
    largest_micro_batch,
)
from audiollm.training.loop.config import OPTIMIZERS_OF_WHOLE_MATRICES, require_positive
from audiollm.vocabulary import CONFIG_KEY, EMBEDDING_MULTIPLE, TURN_END, TURN_START, AudioVocabulary

_GIB = 2**30
_MOST_ROWS = 1 << 20  # of a micro batch that is looked for; none is so large


@dataclass(frozen=True, kw_only=True)
class EstimateConfig(SFTConfig):
    """The settings of a fine-tuning, and how it is launched; data and weights are not read."""

    train_data: str = "not read"
    output_dir: str = "not written"

    processes: int = 1
    """How many processes share the work."""

    launch: Layout = "ddp"
    """How they share it; with one process nothing is shared."""

    tokens_per_record: int | None = None
    """Length of a record with its padding, in tokens; it is told how many a second of audio takes. None: the longest
    that may be."""

    target_share: float = 1.0
    """Share of the tokens that count in the loss: near 1 where the answer is audio, a tenth where it is a few words."""

    memory: float | None = None
    """GiB of each process's device; the largest micro batch that fits is told."""

    json: bool = False
    """Print one line of JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "processes", "tokens_per_record", "memory")
        if self.memory is not None and self.tokens_per_pass is not None:
            raise ValueError(
                "memory chooses micro_batch_size, in whose place tokens_per_pass stands: leave one of the two out"
            )
        if self.launch == "single" and self.processes > 1:
            raise ValueError(f"launch=single is one process, not {self.processes}: use ddp")
        shards = self.processes > 1 and self.launch not in ("single", "ddp")
        if shards and self.optimizer in OPTIMIZERS_OF_WHOLE_MATRICES:
            raise ValueError(
                f"optimizer={self.optimizer} looks at whole matrices, which launch={self.launch} cuts up: use adamw, "
                "or ddp"
            )
        if not 0 < self.target_share <= 1:
            raise ValueError(f"target_share={self.target_share}: use a share above 0, at most 1")


def estimate(config: EstimateConfig) -> dict[str, Any]:
    """Estimates the memory of a run and prints it.

    Args:
        config: the run.

    Returns:
        What is printed: sizes in GiB, at the moment at which a process holds most.

    Raises:
        ValueError: if model or audio tokenizer cannot be found, or settings do not fit each other.
    """
    rate = audio_rate(config)
    model_config, vocabulary = extended_config(config, rate)
    context_length = model_config.get_text_config().max_position_embeddings
    limit, longest = length_limit(config, context_length)
    if rate is not None:
        rate.check_room("the length of a record", longest)
    tokens = config.tokens_per_record or longest
    if tokens > longest:
        is_given = getattr(config, limit) is not None
        allowed = f"{limit}={longest}" if is_given else f"the model's context of {longest} tokens"
        raise ValueError(f"tokens_per_record={tokens} exceeds {allowed}")

    def of(micro_batch: int) -> MemoryEstimate:
        chosen = replace(config, micro_batch_size=micro_batch)
        rows, length = micro_batch, tokens
        if config.tokens_per_pass is not None:
            packs = config.packing == "pack"
            rows, length = (1, config.tokens_per_pass) if packs else (max(1, config.tokens_per_pass // tokens), tokens)
        shape = PassShape(rows, length, max(1, round(config.target_share * rows * (length - 1))))
        # Where every update says how many passes it has, it has several.
        passes = 2 if varies_in_passes(chosen) else accumulation_steps(chosen, config.processes)
        try:
            return estimate_memory(chosen, model_config, vocabulary, shape, config.launch, config.processes, passes)
        except (OverflowError, RuntimeError, TypeError) as error:
            if not _is_overflow(error):
                raise
            raise ValueError(
                f"a pass of {shape.rows:,} rows of {shape.tokens:,} tokens, of such a model, has more bytes than can "
                "be counted: use sizes that a run may have"
            ) from error

    found = of(config.micro_batch_size)
    facts: dict[str, Any] = {
        "parameters": found.num_parameters,
        "trained_parameters": found.num_trainable,
        "processes": config.processes,
        "launch": config.launch if config.processes > 1 else "single",
        "micro_batch_size": config.micro_batch_size,
        "tokens_per_record": tokens,
    }
    if rate is not None:
        facts["tokens_per_second_of_audio"] = rate.tokens_per_second
        facts["seconds_of_audio_in_the_context"] = rate.seconds_in(context_length)
    for name in ("weights", "gradients", "optimizer", "activations", "exchange", "total"):
        facts[f"{name}_gib"] = getattr(found, name) / _GIB
    if config.memory is not None:
        per_process, rest = divmod(config.global_batch_size, config.processes)
        sizes = [size for size in range(1, min(per_process, _MOST_ROWS) + 1) if not rest and per_process % size == 0]
        facts["memory_gib"] = config.memory
        facts["largest_micro_batch_that_fits"] = largest_micro_batch(
            lambda size: of(size).total, sizes, round(config.memory * _GIB)
        )
    show_facts(facts, title="memory of each process", as_json=config.json)
    return facts


def _is_overflow(error: Exception) -> bool:
    """Whether torch has met a size of 64 bits or more; it says so in several ways."""
    return isinstance(error, OverflowError) or "overflow" in str(error).lower() or "too large" in str(error)


def audio_rate(config: SFTConfig) -> AudioRate | None:
    """What a second of audio costs the model; None for an Audio-LLM without an audio tokenizer.

    Raises:
        ValueError: if the audio tokenizer cannot be found, or has not the codebooks that are asked for.
    """
    if config.audio_tokenizer is not None:
        place = audio_tokenizer_or_mini(config.audio_tokenizer)
        # Of a Hub id no weights yet; there may be no config.json, as in WavTokenizer's releases.
        folder, layout = find_folder(place, needed=["config.json", "*/config.json"], kind="audio tokenizer"), None
    else:
        source = find_folder(model_or_mini(config.model), needed=["*.json", f"{AUDIO_TOKENIZER_FOLDER}/*"])
        folder, layout = source / AUDIO_TOKENIZER_FOLDER, layout_in(source)
        if not folder.is_dir():
            return None
    # A download of which no file was wanted leaves no folder.
    own = find_tokenizer_folder(folder) if folder.is_dir() else folder
    if own.is_dir() and FolderView(own).config.get("quantize_vocab_size"):  # which tells all: no weights are read
        found = read_config(own)
        if config.codebooks not in (None, 1):
            raise ValueError(f"codebooks={config.codebooks}: {config.audio_tokenizer} has one codebook; leave it out")
        return AudioRate(found.frame_rate, CodeLayout((found.quantize_vocab_size,)))
    loaded = AudioTokenizer.from_pretrained(place if config.audio_tokenizer is not None else own, encoder_only=True)
    if layout is not None:
        return AudioRate.of(SequenceTokenizer(loaded, layout))
    return AudioRate.of(as_one_row(loaded, config.codebooks, config.code_order))


def extended_config(config: SFTConfig, rate: AudioRate | None = None) -> tuple[Any, AudioVocabulary | None]:
    """The LLM's configuration with room for the audio vocabulary, and where its tokens lie.

    Args:
        config: the run.
        rate: of its audio tokenizer, if it is known already.

    Raises:
        ValueError: if there is no such model, or it knows no audio and no audio tokenizer is named.
    """
    source = model_or_mini(config.model)
    if config.audio_tokenizer is not None:
        check_text_llm(config.model)
    check_reachable(source)
    with refused_by_transformers(source):
        model_config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    noted = getattr(model_config, CONFIG_KEY, None)
    if noted is not None:
        return model_config, AudioVocabulary.from_dict(noted)
    if config.audio_tokenizer is None:
        raise ValueError(f"{config.model} is a text LLM: name the audio tokenizer that extends it (audio_tokenizer)")
    rate = rate or audio_rate(config)
    assert rate is not None  # of a tokenizer that is named
    codebook_size = rate.layout.size
    text_tokenizer = load_text_tokenizer(source)
    missing_marks = sum(mark not in text_tokenizer.get_added_vocab() for mark in (TURN_START, TURN_END))
    start_id = len(text_tokenizer) + missing_marks
    num_tokens = start_id + 2 + codebook_size
    rows = max(num_tokens, model_config.vocab_size)
    model_config.vocab_size = -(-rows // EMBEDDING_MULTIPLE) * EMBEDDING_MULTIPLE
    layout = None if rate.layout.num_codebooks == 1 else rate.layout
    return model_config, AudioVocabulary(codebook_size, start_id + 2, start_id, start_id + 1, layout)


if __name__ == "__main__":
    run_program(EstimateConfig, estimate, name="audiollm estimate")
