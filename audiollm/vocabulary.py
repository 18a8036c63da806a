"""The audio vocabulary: the only place where codes become token ids, and the extension of an LLM by it.

A code in ``[0, V)`` becomes the token ``<|audio_<code>|>``; a clip is ``<|audio_start|> codes <|audio_end|>``. On a
Qwen2.5 text tokenizer (151,665 entries) and V = 8192 that is start 151665, end 151666 and codes 151667…159858. Of a
tokenizer with several codebooks, ``code`` is everywhere the symbol of `audiollm.tokenizer.layout.CodeLayout`.
"""
# Shapes: V codes (symbols), D size of one entry, R embedding rows, H hidden size, S token ids, K codebooks, T frames.

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiollm.tokenizer.layout import CodeLayout

logger = logging.getLogger(__name__)

AUDIO_START = "<|audio_start|>"
AUDIO_END = "<|audio_end|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

EMBEDDING_MULTIPLE = 128  # rows; keeps the vocabulary axis divisible for tensor cores and tensor parallelism
CONFIG_KEY = "audio_vocabulary"  # plain data in config.json that says which rows are audio

_CODE_TOKEN = re.compile(r"<\|audio_(0|[1-9][0-9]*)\|>")
_STATISTICS_ROWS = 16384  # rows converted to float64 at a time: bounds the memory of a 150,000-row table


def code_token(code: int) -> str:
    """The token string of one code, such as ``<|audio_17|>``."""
    return f"<|audio_{code}|>"


@dataclass(frozen=True)
class AudioVocabulary:
    """Where the audio tokens of an extended text tokenizer lie.

    Attributes:
        codebook_size: number of codes V.
        first_code_id: token id of code 0; code ``c`` is ``first_code_id + c``.
        start_id: token id of ``<|audio_start|>``.
        end_id: token id of ``<|audio_end|>``.
        layout: how the codes of several codebooks are V symbols; None: there is one codebook, and its codes are they.
    """

    codebook_size: int
    first_code_id: int
    start_id: int
    end_id: int
    layout: CodeLayout | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout.size != self.codebook_size:
            raise ValueError(
                f"codebook_size={self.codebook_size}, but the layout ({self.layout}) has {self.layout.size} symbols"
            )
        if self.codebook_size < 1:
            raise ValueError(f"codebook_size={self.codebook_size}: an audio vocabulary needs at least one code")
        marks = (self.start_id, self.end_id)
        if min(self.first_code_id, *marks) < 0 or len(set(marks)) < 2 or any(map(self._holds_code, marks)):
            raise ValueError(f"{self}: ids must be at least 0, and start and end differ from each other and every code")

    @classmethod
    def from_text_tokenizer(
        cls,
        text_tokenizer: PreTrainedTokenizerBase,
        codebook_size: int | None = None,
        layout: CodeLayout | None = None,
    ) -> AudioVocabulary:
        """Finds the audio vocabulary that a text tokenizer holds.

        Args:
            text_tokenizer: a text tokenizer that `extend` has seen.
            codebook_size: the size it must have; None accepts any.
            layout: of its codes, which the text tokenizer does not know; None: those of one codebook.

        Raises:
            ValueError: if there is none, it is incomplete, its codes are not contiguous, or its size is another.
        """
        vocabulary = _find(text_tokenizer)
        if vocabulary is None:
            raise ValueError(
                f"this text tokenizer ({len(text_tokenizer)} entries) holds no audio vocabulary: call "
                "audiollm.extend(model, text_tokenizer) first, or load the tokenizer from an Audio-LLM folder"
            )
        if codebook_size is not None and vocabulary.codebook_size != codebook_size:
            raise ValueError(
                f"this text tokenizer already holds an audio vocabulary of {vocabulary.codebook_size} codes, not "
                f"{codebook_size}: use the audio tokenizer it was made for, or start from the plain text tokenizer"
            )
        return vocabulary if layout is None else replace(vocabulary, layout=layout)

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> AudioVocabulary:
        """Reads what `to_dict` gave.

        Raises:
            TypeError: if something is missing, or is not known.
            ValueError: if it says what cannot be.
        """
        layout = stated.get("layout")
        return cls(**{**stated, "layout": None if layout is None else CodeLayout.from_dict(layout)})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in an Audio-LLM's ``config.json``; of one codebook it names no layout."""
        facts: dict[str, Any] = {
            name: getattr(self, name) for name in ("codebook_size", "first_code_id", "start_id", "end_id")
        }
        return facts if self.layout is None else facts | {"layout": self.layout.to_dict()}

    @property
    def row_layout(self) -> CodeLayout | None:
        """The layout where position decides which symbols may stand there; None: any code may, anywhere."""
        return None if self.layout is None or self.layout.num_codebooks == 1 else self.layout

    @property
    def shortest_clip(self) -> list[int]:
        """Codes of the shortest clip that there is, to stand for any: those of one frame."""
        if self.layout is None:
            return [0]
        return self.layout.to_symbols(torch.zeros(self.layout.num_codebooks, 1, dtype=torch.int64)).tolist()

    @property
    def token_ids(self) -> list[int]:
        """Every audio token id, ascending: start, end and all codes (the rows that new training must reach)."""
        codes = range(self.first_code_id, self.first_code_id + self.codebook_size)
        return sorted({self.start_id, self.end_id, *codes})

    @property
    def tokens(self) -> list[str]:
        """Every token string in the order in which `extend` adds them: start, end, then the codes."""
        return _token_strings(self.codebook_size)

    @overload
    def codes_to_token_ids(self, codes: Tensor) -> Tensor: ...
    @overload
    def codes_to_token_ids(self, codes: Sequence[int] | Sequence[Sequence[int]]) -> list[int]: ...
    def codes_to_token_ids(self, codes: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor | list[int]:
        """Maps codes in ``[0, V)`` to token ids; a list gives a list, an integer tensor an int64 tensor of its shape.

        With a layout of several codebooks, codes ``[K, T]`` give a row of token ids ``[S]``, and so do symbols ``[S]``
        of a whole row.

        Raises:
            ValueError: if a code is outside ``[0, V)``; with a layout, if one is outside of its codebook, or the row
                is not whole: the message names position and codebook.
        """
        codes_ = _as_int64(codes, "codes")  # type: ignore[arg-type]  # of nested lists as well
        if self.row_layout is not None:
            if codes_.dim() == 2:
                codes_ = self.row_layout.to_symbols(codes_)
            else:
                self.row_layout.check(codes_)
        elif codes_.dim() != 1 and not isinstance(codes, Tensor):
            raise ValueError(
                f"codes have shape {list(codes_.shape)}, and this audio vocabulary is one of a single codebook: give "
                "one clip as a flat list of codes"
            )
        outside = (codes_ < 0) | (codes_ >= self.codebook_size)
        if outside.any():
            raise ValueError(
                f"code {codes_[outside][0].item()} is outside [0, {self.codebook_size}): "
                "these codes come from an audio tokenizer with another codebook"
            )
        token_ids = codes_ + self.first_code_id
        return token_ids if isinstance(codes, Tensor) else token_ids.tolist()

    @overload
    def token_ids_to_codes(self, token_ids: Tensor) -> Tensor: ...
    @overload
    def token_ids_to_codes(self, token_ids: Sequence[int]) -> list[int]: ...
    def token_ids_to_codes(self, token_ids: Tensor | Sequence[int]) -> Tensor | list[int]:
        """Maps token ids of codes back to codes in ``[0, V)``; the inverse of `codes_to_token_ids`.

        Raises:
            ValueError: if an id is not that of a code (start and end are no codes).
        """
        token_ids_ = _as_int64(token_ids, "token ids")
        outside = ~self.is_code(token_ids_)
        if outside.any():
            raise ValueError(
                f"token id {token_ids_[outside][0].item()} is no code: codes are ids {self.first_code_id} to "
                f"{self.first_code_id + self.codebook_size - 1}; select them with is_code() first"
            )
        codes = token_ids_ - self.first_code_id
        return codes if isinstance(token_ids, Tensor) else codes.tolist()

    def token_ids_to_codebooks(self, token_ids: Tensor | Sequence[int]) -> Tensor:
        """The codes ``[K, T]``, int64, that a row of token ids ``[S]`` stands for; of one codebook ``[1, T]``.

        Raises:
            ValueError: if an id is not that of a code, or cannot stand where it does, or the row is not whole.
        """
        symbols = self.token_ids_to_codes(torch.as_tensor(token_ids))
        return symbols[None] if self.layout is None else self.layout.to_codes(symbols)

    def is_code(self, token_ids: Tensor) -> Tensor:
        """True where a token id is that of a code; bool, same shape."""
        return (token_ids >= self.first_code_id) & (token_ids < self.first_code_id + self.codebook_size)

    def is_audio(self, token_ids: Tensor) -> Tensor:
        """True where a token id is that of a code or of the start or end mark; bool, same shape."""
        return self.is_code(token_ids) | (token_ids == self.start_id) | (token_ids == self.end_id)

    @overload
    def wrap(self, codes: Tensor) -> Tensor: ...
    @overload
    def wrap(self, codes: Sequence[int] | Sequence[Sequence[int]]) -> list[int]: ...
    def wrap(self, codes: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor | list[int]:
        """One audio segment: ``[start, …codes…, end]`` as token ids, for codes ``[T]``, or ``[K, T]`` with a layout."""
        if isinstance(codes, Tensor):
            if codes.dim() != 1 and self.row_layout is None:
                raise ValueError(f"codes have shape {tuple(codes.shape)}: wrap takes one clip of one codebook, [T]")
            marks = torch.tensor([self.start_id, self.end_id], device=codes.device)
            return torch.cat([marks[:1], self.codes_to_token_ids(codes), marks[1:]])
        return [self.start_id, *self.codes_to_token_ids(codes), self.end_id]

    def joined(self, segments: Sequence[Sequence[int]], max_frames: int | None = None) -> list[int]:
        """The codes of generated segments as those of one that may stand in a prompt: the frames that are whole.

        Args:
            segments: codes of each, from its beginning; it may break off anywhere, as an answer does at a limit.
            max_frames: keep at most so many of all frames.
        """
        layout = self.row_layout
        if layout is None:
            return [code for one in segments for code in one][:max_frames]
        rows = [torch.tensor(one, dtype=torch.int64) for one in segments]
        frames = torch.cat([layout.to_codes(one, is_cut=True) for one in rows], dim=1) if rows else None
        return [] if frames is None else layout.to_symbols(frames[:, :max_frames]).tolist()

    def _holds_code(self, token_id: int) -> bool:
        return self.first_code_id <= token_id < self.first_code_id + self.codebook_size


def extend(
    model: PreTrainedModel,
    text_tokenizer: PreTrainedTokenizerBase,
    codebook_size: int = 8192,
    *,
    layout: CodeLayout | None = None,
    init: Literal["text", "codebook"] = "text",
    codebook: Tensor | None = None,
    seed: int = 0,
    turn_tokens: bool = False,
) -> AudioVocabulary:
    """Adds the audio vocabulary to a causal LM and its text tokenizer, both in place.

    The rows of the text tokens keep their bits. Rows behind them are new, whether they have to be appended or the model
    came with spare ones (Qwen2.5 has 151,936 rows for 151,665 tokens): all get the mean and the per-dimension spread of
    the text rows, with seeded noise ("text"), or lie like the codebook's entries ("codebook": a fixed random
    projection, matched to the same mean and spread, so that near codes get near embeddings). An output head that is not
    tied to the embeddings gets the same with its own statistics, and its bias the mean of the text biases.

    Calling it again changes nothing. The table has a multiple of 128 rows and never shrinks. Which rows are audio is
    noted in ``model.config.audio_vocabulary``, so that the note travels in ``config.json``.

    Extend before the model is sharded (DeepSpeed ZeRO-3, FSDP): a shard does not hold the text rows.

    Args:
        model: any causal LM with input embeddings.
        text_tokenizer: its fast text tokenizer.
        codebook_size: number of codes V of the audio tokenizer.
        layout: how the codes of several codebooks are V symbols; None: the tokenizer has one codebook.
        init: how new rows start.
        codebook: the audio tokenizer's entries ``[V, D]``, any float dtype; for ``init="codebook"`` only.
        seed: of the noise and of the projection; the global random state is left alone.
        turn_tokens: also add ``<|im_start|>`` and ``<|im_end|>`` (before the audio tokens) where they are missing, for
            text tokenizers without ChatML.

    Returns:
        Where the audio tokens lie.

    Raises:
        ValueError: if the tokenizer or the model already holds a different or a partial audio vocabulary, the tokenizer
            is not a fast one, the model is sharded or has no storage, or ``codebook`` does not fit.
    """
    _check_init(init, codebook, codebook_size)
    embeddings = _embedding_tables(model)
    if not text_tokenizer.is_fast:
        raise ValueError(f"{type(text_tokenizer).__name__} is a slow tokenizer: load it with AutoTokenizer (fast)")

    vocabulary = _find(text_tokenizer)
    missing_turns = [mark for mark in (TURN_START, TURN_END) if turn_tokens and not _has_token(text_tokenizer, mark)]
    if vocabulary is None:
        highest_id = max(text_tokenizer.get_vocab().values())
        if highest_id + 1 != len(text_tokenizer):
            raise ValueError(
                f"this text tokenizer has {len(text_tokenizer)} entries but ids up to {highest_id}: fill the gaps "
                "first, new tokens would take ids that belong to other rows"
            )
        start_id = len(text_tokenizer) + len(missing_turns)
        vocabulary = AudioVocabulary(codebook_size, start_id + 2, start_id, start_id + 1, layout)
        num_text_tokens = len(text_tokenizer)  # not the rows: Qwen's spare rows behind it were never trained
        new_tokens = [*missing_turns, *vocabulary.tokens]
    else:
        vocabulary = AudioVocabulary.from_text_tokenizer(text_tokenizer, codebook_size, layout)
        if missing_turns:
            raise ValueError(f"the tokenizer has an audio vocabulary but no {missing_turns[0]}: extend the plain one")
        num_text_tokens = min(vocabulary.token_ids)
        new_tokens = []

    noted = getattr(model.config, CONFIG_KEY, None)
    if noted is not None and noted != vocabulary.to_dict():
        raise ValueError(
            f"the model was extended by another audio vocabulary ({noted}) than the text tokenizer's "
            f"({vocabulary.to_dict()}): load both from the same folder"
        )
    if new_tokens:
        # special=True: text decoding can skip them and text from users can be kept from spelling them.
        # normalized=False: they are found as they are written, whatever the tokenizer's normaliser makes of a text.
        text_tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False) for token in new_tokens], special_tokens=True
        )
    if noted is None:
        # A table with fewer rows than the tokenizer has entries lacks text rows: they are new, too.
        first_new_row = min(num_text_tokens, embeddings[0].shape[0])
        _grow(model, max(len(text_tokenizer), embeddings[0].shape[0]))
        _initialise_rows(model, vocabulary, first_new_row, codebook if init == "codebook" else None, seed)
        setattr(model.config, CONFIG_KEY, vocabulary.to_dict())
        logger.info("rows %d and up of %d are new: %s", first_new_row, embeddings[0].shape[0], vocabulary)
    elif embeddings[0].shape[0] < len(text_tokenizer):
        raise ValueError(
            f"the model notes an audio vocabulary but has {embeddings[0].shape[0]} embedding rows for "
            f"{len(text_tokenizer)} tokens: its weights and its config.json do not belong together"
        )
    _complete_generation_config(model, text_tokenizer)
    return vocabulary


def _token_strings(codebook_size: int) -> list[str]:
    return [AUDIO_START, AUDIO_END, *map(code_token, range(codebook_size))]


def _find(text_tokenizer: PreTrainedTokenizerBase) -> AudioVocabulary | None:
    """The audio vocabulary among a tokenizer's added tokens; None without a trace of one."""
    added = text_tokenizer.get_added_vocab()
    id_of_code = {
        int(match[1]): token_id for token, token_id in added.items() if (match := _CODE_TOKEN.fullmatch(token))
    }
    marks = [mark for mark in (AUDIO_START, AUDIO_END) if mark in added]
    if not id_of_code and not marks:
        return None
    if not id_of_code or len(marks) < 2 or sorted(id_of_code) != list(range(len(id_of_code))):
        raise ValueError(
            f"this text tokenizer holds part of an audio vocabulary ({len(id_of_code)} code tokens, the highest "
            f"{max(id_of_code, default=None)}; marks {marks or 'none'}): start from the plain text tokenizer"
        )
    first_code_id = id_of_code[0]
    for code, token_id in id_of_code.items():
        if token_id != first_code_id + code:
            raise ValueError(
                f"the audio vocabulary of this text tokenizer is not contiguous: {code_token(code)} is id {token_id}, "
                f"not {first_code_id + code}; start from the plain text tokenizer"
            )
    return AudioVocabulary(len(id_of_code), first_code_id, added[AUDIO_START], added[AUDIO_END])


def _has_token(text_tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    return token in text_tokenizer.get_added_vocab()


def _as_int64(values: Tensor | Sequence[int], name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (OverflowError, RuntimeError, ValueError) as error:  # torch's words name neither the value nor what it is
        beyond = [value for value in values if isinstance(value, int) and not -(2**63) <= value < 2**63]
        if not beyond:
            raise
        raise ValueError(f"{name} hold {beyond[0]}, which no audio vocabulary has") from error
    if tensor.numel() == 0:
        return tensor.long()
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} are {tensor.dtype}, but must be integers")
    return tensor.long()


def _check_init(init: str, codebook: Tensor | None, codebook_size: int) -> None:
    if init not in ("text", "codebook"):
        raise ValueError(f"init={init!r}: use 'text' or 'codebook'")
    if init == "text" and codebook is not None:
        raise ValueError("a codebook was given but init='text' does not use it: pass init='codebook'")
    if init == "codebook":
        if codebook is None:
            raise ValueError("init='codebook' needs codebook=, the audio tokenizer's entries [V, D]")
        if codebook.dim() != 2 or codebook.shape[0] != codebook_size:
            raise ValueError(
                f"codebook has shape {tuple(codebook.shape)}, but codebook_size={codebook_size} needs [V, D]"
            )
        if not codebook.isfinite().all():
            raise ValueError("codebook holds NaN or infinite values: is this a trained audio tokenizer?")


def _embedding_tables(model: PreTrainedModel) -> list[Tensor]:
    """The input table and, where it is another tensor, the output table; refuses shards and storage-less weights."""
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    tables: list[Tensor] = []
    for module in modules:
        if module is not None and not any(module.weight is table for table in tables):
            tables.append(module.weight)
    for table in tables:
        # DeepSpeed ZeRO-3 leaves an empty placeholder with a ds_id where the row table was.
        if hasattr(table, "ds_id") or _is_shard(table):
            raise ValueError(
                "the model's embeddings are sharded over processes: call extend() right after from_pretrained(), "
                "before accelerate, DeepSpeed or FSDP see the model (with ZeRO-3: zero3_init_flag: false)"
            )
        if table.is_meta:
            raise ValueError("the model is on the meta device and has no weights yet: load them before extend()")
    return tables


def _is_shard(table: Tensor) -> bool:
    # Not imported for this: it takes half a second, and whoever has made a shard has imported it.
    sharding = sys.modules.get("torch.distributed.tensor")
    return sharding is not None and isinstance(table, sharding.DTensor)


def _grow(model: PreTrainedModel, num_rows: int) -> None:
    """Grows (never shrinks) input and output tables to a multiple of 128 rows; old rows keep their bits."""
    num_rows = -(-num_rows // EMBEDDING_MULTIPLE) * EMBEDDING_MULTIPLE
    weight = model.get_input_embeddings().weight
    devices = [weight.device] if weight.is_cuda else []
    with torch.random.fork_rng(devices=devices):  # resizing draws rows, which are overwritten below
        model.resize_token_embeddings(num_rows, mean_resizing=False)


@torch.no_grad()
def _initialise_rows(
    model: PreTrainedModel, vocabulary: AudioVocabulary, first_new_row: int, codebook: Tensor | None, seed: int
) -> None:
    tables = _embedding_tables(model)
    num_rows, hidden_size = tables[0].shape
    generator = torch.Generator().manual_seed(seed)
    # Unit-variance positions; every table scales them to its own text rows, so tied and untied models agree.
    positions_RH = torch.randn(num_rows - first_new_row, hidden_size, generator=generator)
    if codebook is not None:
        first = vocabulary.first_code_id - first_new_row
        positions_RH[first : first + vocabulary.codebook_size] = _project(codebook, hidden_size, generator)
    for table_RH in tables:
        # The spread of text rows, not transformers' 0.02: rows that are much shorter or longer than the others' would
        # get logits far below or above those of text before anything is learnt.
        mean_H, spread_H = _row_statistics(table_RH[:first_new_row])
        positions = positions_RH.to(table_RH.device)
        if table_RH.shape[1] != hidden_size:
            raise ValueError(f"embeddings have {hidden_size} channels, the output head {table_RH.shape[1]}")
        table_RH[first_new_row:] = (mean_H + spread_H * positions).to(table_RH.dtype)
    head = model.get_output_embeddings()
    bias_R = getattr(head, "bias", None)
    if bias_R is not None:
        bias_R[first_new_row:] = bias_R[:first_new_row].float().mean().to(bias_R.dtype)


def _project(codebook_VD: Tensor, hidden_size: int, generator: torch.Generator) -> Tensor:
    """Projects entries to ``[V, H]`` with zero mean and unit variance per column: affine, so neighbours stay near."""
    # On the CPU, where the generator is: the rows are the same whatever device holds the codebook.
    centred_VD = codebook_VD.detach().float().cpu()
    centred_VD = centred_VD - centred_VD.mean(dim=0)
    projection_DH = torch.randn(codebook_VD.shape[1], hidden_size, generator=generator)
    positions_VH = centred_VD @ projection_DH
    # Entries that are all equal have no spread; clamped, they all lie at the mean instead of at NaN.
    return positions_VH / positions_VH.std(dim=0, correction=0).clamp_min(torch.finfo(torch.float32).tiny)


def _row_statistics(rows_RH: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per dimension, each float32 ``[H]``."""
    # Two passes in float64: the shortcut E[x²] - E[x]² subtracts nearly equal numbers where the spread is small beside
    # the mean. In chunks, for a whole float64 table of Qwen2.5-7B would take 4 GiB.
    chunks = rows_RH.split(_STATISTICS_ROWS)
    num_rows = rows_RH.shape[0]
    mean_H = sum((chunk.double().sum(dim=0) for chunk in chunks), start=rows_RH.new_zeros((), dtype=torch.float64))
    mean_H = mean_H / num_rows
    variance_H = sum(
        ((chunk.double() - mean_H).square().sum(dim=0) for chunk in chunks), start=torch.zeros_like(mean_H)
    )
    return mean_H.float(), (variance_H / num_rows).sqrt().float()


def _complete_generation_config(model: PreTrainedModel, text_tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes generation stop at the end of a turn and gives it a padding id, keeping what is already set."""
    config = model.generation_config
    if config is None:
        return
    config._from_model_config = False  # or what is added to its file is not read
    eos: Any = config.eos_token_id
    stop_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    turn_end_id = text_tokenizer.get_added_vocab().get(TURN_END)
    # Both: a base model knows the end of a text alone, and the chat template ends an answer with the end of the turn.
    for stop_id in (text_tokenizer.eos_token_id, turn_end_id):
        if stop_id is not None and stop_id not in stop_ids:
            stop_ids.append(stop_id)
    if stop_ids:
        config.eos_token_id = stop_ids
    if config.pad_token_id is None:
        pad_id = text_tokenizer.pad_token_id
        config.pad_token_id = pad_id if pad_id is not None else (stop_ids[0] if stop_ids else None)
