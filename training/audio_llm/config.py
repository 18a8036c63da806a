"""Settings of a supervised fine-tuning run: one frozen dataclass, read from YAML and flags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from audiollm.mixture.config import is_mixture
from audiollm.tokenizer.layout import CodeOrder
from audiollm.training.loop.batches import updates_of_epochs
from audiollm.training.loop.config import (
    RunConfig,
    require_eval_data,
    require_given,
    require_not_negative,
    require_positive,
)

# Figure of an evaluation → the setting that makes it; others are those of generated answers.
_NEEDED_FOR = {
    "loss": None, "text_loss": "eval_text", "text_perplexity": "eval_text", "spoken_wer": "eval_asr",
    "spoken_similarity": "eval_similarity",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Low-rank adapters (Hu et al., 2021, arXiv:2106.09685) on the linear layers; the audio rows train in full."""

    r: int = 16
    """Rank of each adapter."""

    alpha: float = 32.0
    """Adapters are scaled by alpha / r."""

    dropout: float = 0.0
    """Dropout in front of each adapter."""

    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers that get an adapter. None: all but the output layer."""

    train_audio_rows: bool = True
    """Train the embedding and output rows of the audio vocabulary too: a freshly extended model needs them."""

    rows_only: bool = False
    """Train these rows and nothing else, without adapters: the first of two phases, in which new rows find their place
    before the others move."""

    def __post_init__(self) -> None:
        if self.rows_only and not (self.train_audio_rows and self.target_modules is None):
            raise ValueError(
                "lora.rows_only trains the rows of the audio vocabulary alone: leave train_audio_rows and "
                "target_modules out"
            )
        if self.r <= 0:
            raise ValueError(f"lora.r={self.r}: use a positive rank, such as 16")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha={self.alpha}: use a positive scale, such as 2 × lora.r")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout}: use a probability in [0, 1)")
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("lora.target_modules is empty: name at least one linear layer, such as q_proj")


@dataclass(frozen=True, kw_only=True)
class AudioLLMRunConfig(RunConfig):
    """What all trainings of an Audio-LLM have in common: how it is loaded, and which records it takes."""

    global_batch_size: int
    """Records per update, over all processes."""

    micro_batch_size: int
    """Records per process in one forward pass: changes memory and speed, not the update."""

    accept_codes_of: tuple[str, ...] = ()
    """Fingerprints of audio tokenizers whose codes in records count as the model's own, such as it in bfloat16."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the weights are held and updated in."""

    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the LLM."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    max_length: int | None = None
    """Longest record in tokens. None: the model's context length."""

    on_too_long: Literal["error", "skip"] = "error"
    """What happens to longer records. They are never cut: half an answer teaches the model to stop early."""

    cache_tokens: int = 50_000_000
    """Encoded records are kept in memory up to this many tokens (8 bytes each), so that audio is tokenized once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "learning_rate", "global_batch_size", "micro_batch_size", "max_length")
        require_not_negative(self, "cache_tokens")


class BatchSizes(Protocol):
    """Of a run."""

    @property
    def global_batch_size(self) -> int:
        """Records of an update, over all processes."""

    @property
    def micro_batch_size(self) -> int:
        """Records per process in one pass."""


def even_accumulation(config: BatchSizes, num_processes: int) -> int:
    """Micro-batches that each process accumulates for one update of so many records.

    Raises:
        ValueError: if the global batch does not split evenly.
    """
    per_pass = config.micro_batch_size * num_processes
    if config.global_batch_size % per_pass:
        raise ValueError(
            f"global_batch_size={config.global_batch_size} is not a multiple of micro_batch_size="
            f"{config.micro_batch_size} × {num_processes} processes = {per_pass}: change one of them"
        )
    return config.global_batch_size // per_pass


@dataclass(frozen=True, kw_only=True)
class ConversationRunConfig(AudioLLMRunConfig):
    """What trainings on conversations have in common: records and mixtures of them, updates and their passes."""

    model: str
    """What to start from."""

    train_data: str
    """Conversations to train on: a JSONL or parquet file, a folder saved by ``datasets``, or a Hub id; or the YAML file
    of a mixture of sources (docs/mixtures.md)."""

    output_dir: str
    """Folder of the run: metrics, samples, checkpoints and the trained model."""

    eval_data: str | None = None
    """Held-out conversations, in the same formats. None: no evaluation."""

    global_batch_size: int = 64
    """Records per update, over all processes, or all records if they are fewer. The number of accumulated
    micro-batches follows from it."""

    micro_batch_size: int = 8
    """Records per process in one forward pass: changes memory and speed, not the update. With ``tokens_per_pass`` it is
    that of evaluations."""

    tokens_per_update: int | None = None
    """Most tokens per update, over all processes, in place of ``global_batch_size``: as many records of the shuffled
    data as fit. Longer records are treated as ``on_too_long`` says."""

    tokens_per_pass: int | None = None
    """Most tokens per process in one forward pass, padding included, in place of ``micro_batch_size``: as many records
    of similar length as fit. Longer records are treated as ``on_too_long`` says."""

    packing: Literal["none", "pack"] = "none"
    """``pack`` puts records one behind the other into rows of at most ``tokens_per_pass`` tokens, by best fit: nothing
    is padded or cut, and each record has its own attention and positions, so that loss and gradients stay the same."""

    num_epochs: float = 1.0
    learning_rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.95)

    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 computes in bfloat16 and keeps float32 weights in the optimizer."""

    seed: int = 0
    """Decides the data order, dropout and the initial values of adapters."""

    check_data: bool = True
    """Encode every record once before the first update, so that a bad one stops the run at once, and not in hours."""

    check_records: int = 100_000
    """Of more records than so many only so many are encoded beforehand, evenly spread. A mixture has its own number."""

    eval_text: str | None = None
    """Held-out texts, a line each in a .txt file or as ``text`` of records: their perplexity, before the first update
    and at each evaluation, tells what the model forgets. Needs eval_data, which says when."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given(self, "model")
        require_positive(self, "check_records", "tokens_per_update", "tokens_per_pass")
        require_eval_data(self, "eval_text")
        self._check_token_budgets()
        if not varies_in_passes(self) and self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}: change one of them"
            )
        if is_mixture(self.train_data) and self.check_records != type(self).check_records:
            raise ValueError("check_records has no effect on a mixture: set the one in its file")
        if is_mixture(self.eval_data):
            raise ValueError(f"eval_data={self.eval_data} is a mixture: name a file of held-out conversations")
        if self.on_too_long == "skip" and not self.check_data and not is_mixture(self.train_data):
            raise ValueError("on_too_long=skip needs check_data=true: lengths are known only once records are encoded")

    def _check_token_budgets(self) -> None:
        if self.packing == "pack" and self.tokens_per_pass is None:
            raise ValueError(
                "packing: pack needs tokens_per_pass: the tokens that a process has memory for, such as 8192"
            )
        if self.tokens_per_update is not None and self.global_batch_size != type(self).global_batch_size:
            raise ValueError("global_batch_size has no effect with tokens_per_update; remove one of them")
        if self.tokens_per_update is not None and not self.check_data:
            raise ValueError("tokens_per_update needs check_data=true: lengths are known only once records are encoded")


@dataclass(frozen=True, kw_only=True)
class SFTConfig(ConversationRunConfig):
    """One supervised fine-tuning run."""

    model: str
    """Audio-LLM to start from: a folder or a Hub id. With ``audio_tokenizer`` it is a plain text LLM instead."""

    audio_tokenizer: str | None = None
    """Extend the text LLM in ``model`` by this audio tokenizer's codes first; written to ``output_dir/extended``."""

    codebooks: int | None = None
    """Use the first so many codebooks of ``audio_tokenizer``. None: all."""

    code_order: CodeOrder = "flat"
    """How the codes of several codebooks follow each other: ``flat`` (frame by frame) or ``delay``. An audio tokenizer
    with one codebook has nothing to order."""

    lora: LoRASettings | None = None
    """Train adapters instead of all weights. ``--lora.r 16`` is enough to switch it on."""

    eval_generate_samples: int = 0
    """Held-out records to answer at each evaluation, for word error rate and accuracy."""

    eval_max_new_tokens: int = 128
    """Longest generated answer, in tokens."""

    eval_listen_samples: int = 0
    """Held-out records with a spoken answer to answer at each evaluation: what the model says is written as sound to
    ``output_dir/evaluation``. Needs an audio tokenizer with a waveform decoder; ``eval_max_new_tokens`` must leave room
    for its codes; the start of a run tells how many are a second."""

    eval_asr: str | None = None
    """Speech recognizer that reads what is spoken, for word error rate: ``whisper-tiny.en`` or ``whisper-base`` from a
    package index, ``whisper-large-v3``, ``paraformer-zh``, a folder, a Hub id, or ``http://…/v1#model``. None: nobody
    reads it."""

    eval_language: str = "en"
    """Of what is spoken, for ``eval_asr``."""

    eval_similarity: str | None = None
    """Speaker encoder that says how alike the voices of what is spoken and of the record's own answer are, such as
    ``resemblyzer``. None: nobody compares them."""

    wer_tasks: tuple[str, ...] = ("transcribe", "transcription", "asr")
    """Records with one of these ``task`` values are scored by word error rate, all others by exact match."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "eval_max_new_tokens")
        require_not_negative(self, "eval_generate_samples", "eval_listen_samples")
        require_eval_data(self, "eval_generate_samples", "eval_listen_samples")
        if self.audio_tokenizer is None:
            for name in ("codebooks", "code_order"):
                if getattr(self, name) != getattr(type(self), name):
                    raise ValueError(
                        f"{name} has no effect without audio_tokenizer: the codes of an Audio-LLM are in its own layout"
                    )
        require_positive(self, "codebooks")
        self._check_listening()
        needed = _NEEDED_FOR.get(self.metric_for_best or "loss", "eval_generate_samples")
        if needed is not None and not getattr(self, needed):
            raise ValueError(
                f"metric_for_best={self.metric_for_best} needs {needed}: an evaluation has no such figure without"
            )

    def _check_listening(self) -> None:
        for name in ("eval_asr", "eval_similarity"):
            if getattr(self, name) is not None and not self.eval_listen_samples:
                raise ValueError(f"{name} needs eval_listen_samples: without it there is nothing to listen to")
        if self.eval_language != type(self).eval_language and self.eval_asr is None:
            raise ValueError("eval_language has no effect without eval_asr; remove it")


def varies_in_passes(config: ConversationRunConfig) -> bool:
    """Whether the forward passes of an update are known only once its records are."""
    return config.tokens_per_pass is not None or config.tokens_per_update is not None


def length_limit(config: ConversationRunConfig, context_length: int) -> tuple[str, int]:
    """The setting that bounds the length of training records, and its number of tokens.

    Args:
        config: the run.
        context_length: of the model, in tokens.

    Raises:
        ValueError: if ``max_length`` exceeds it.
    """
    if config.max_length is not None and config.max_length > context_length:
        raise ValueError(f"max_length={config.max_length} exceeds the model's context of {context_length} tokens")
    limits = {
        "max_length": config.max_length or context_length,
        "tokens_per_pass": config.tokens_per_pass,
        "tokens_per_update": config.tokens_per_update,
    }
    given = [(name, limit) for name, limit in limits.items() if limit is not None]
    return min(given, key=lambda pair: pair[1])


def accumulation_steps(config: ConversationRunConfig, num_processes: int) -> int:
    """Micro-batches that each process accumulates for one update; 1 where every update says how many.

    Raises:
        ValueError: if the global batch does not split evenly.
    """
    if varies_in_passes(config):
        return 1
    return even_accumulation(config, num_processes)


def num_updates(config: ConversationRunConfig, num_records: int) -> int:
    """Updates of the whole run over ``num_records`` training records."""
    if config.max_steps is not None:
        return config.max_steps
    return updates_of_epochs(config.num_epochs, num_records, config.global_batch_size)
