"""Conversations to the rows of a multi-stream LM, and what it writes back to text and sound.

A conversation is laid out as it is read: texts plainly, recordings as the frames of their audio parts between marks.
What is not the assistant's is not learned; a text of others ends with an empty line, one of the assistant with the text
LLM's end. In a list of ids each frame is one id behind the text vocabulary, by its first code, so that all that counts,
shuffles and packs records of an Audio-LLM works on these too; its codes lie beside them (`EncodedConversation.frames`).
"""
# Shapes: S steps, K audio streams, F frames with their marks, T frames of a clip, B prompts.

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from audiollm.chat.encoded import EncodedConversation, TooLongError
from audiollm.chat.text_encoding import TextEncoder
from audiollm.data.collation import IGNORED_LABEL
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.files.atomic import atomic_entries
from audiollm.data.files.json_document import write_json
from audiollm.folders import Origin, check_codec_path
from audiollm.mini import AUDIO_TOKENIZER_FOLDER
from audiollm.processing.attached import AttachedAudioTokenizer, HasAudioTokenizer
from audiollm.tokenizer.base import AudioTokenizer, CodeGroup
from audiollm.tokenizer.checkpoints.folders import read_json_object
from audiollm.tokenizer.grouped import GroupedLayout
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.sequence import OneRowTokenizer
from audiollm.vocabulary import AudioVocabulary

from .configuration import UniAudioLMConfig
from .layout import Layout, Task, lay_out, pad_batch
from .special_ids import AUDIO_PARTS

logger = logging.getLogger(__name__)

PROCESSOR_CONFIG = "processor_config.json"
REASONING = "reasoning"
PART = "reconstruction"
"""The audio part that the codes of a tokenizer are which has one rate."""
BEHIND_OTHERS = "\n\n"
"""What ends a text that is not the assistant's, as in the published code."""


class UniAudioProcessor(HasAudioTokenizer):
    """Turns conversations into rows of ids, and codes into sound.

    Args:
        tokenizer: the text LLM's text tokenizer, as it is.
        config: of the LM: streams, vocabularies and marks.
        layout: codes of the audio tokenizer: a codebook for each stream, of one rate or in the groups ``reasoning`` and
            ``reconstruction``.
        codec_path: where the audio tokenizer is, for one that is not given.
        audio_tokenizer: the audio tokenizer itself.
        codec_fingerprint: of the audio tokenizer whose codes the LM knows, if that is known: codes of another are
            refused.

    Raises:
        ValueError: if the codes do not fit the streams, or the audio tokenizer has other codes.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: UniAudioLMConfig,
        layout: CodeLayout | GroupedLayout,
        *,
        codec_path: str | None = None,
        audio_tokenizer: AudioTokenizer | None = None,
        codec_fingerprint: str | None = None,
    ) -> None:
        self._parts = check_codebooks(layout, config)
        self.tokenizer, self.config, self.layout = tokenizer, config, layout
        first = config.text_config.vocab_size  # ids of marks and frames follow those of text
        self.vocabulary = AudioVocabulary(layout.size, first + 2, first, first + 1)
        """Of ids in a list: the two marks, and the symbol of a frame's first code."""
        rows = layout if isinstance(layout, GroupedLayout) or layout.num_codebooks > 1 else None
        self._attached = AttachedAudioTokenizer(layout.size, codec_path, codec_fingerprint, rows)
        if audio_tokenizer is not None:
            self._attached.set(audio_tokenizer)
        self._texts = TextEncoder(tokenizer)
        if tokenizer.eos_token_id is None:
            raise ValueError("the text tokenizer has no end-of-sequence token, with which answers end: set eos_token")
        start = tokenizer("", add_special_tokens=True)["input_ids"]
        self._start: list[int] = [one for one in start if one != tokenizer.eos_token_id]

    # Conversations to ids

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """The text LLM's text tokenizer."""
        return self.tokenizer

    @property
    def parts(self) -> tuple[str, ...]:
        """The audio parts that a recording is, in their order."""
        return tuple(self._parts)

    @property
    def vocabulary_size(self) -> int:
        """Ids that a list may hold: of text, of marks, and of frames."""
        return self.vocabulary.first_code_id + self.vocabulary.codebook_size

    def encode_conversations(
        self, conversations: Sequence[Conversation], *, max_length: int | None = None
    ) -> list[EncodedConversation]:
        """Lays conversations out; the audio of all of them goes through the audio tokenizer together.

        Args:
            conversations: typed records.
            max_length: most steps of one; None: any number.

        Raises:
            TooLongError: a ValueError that names the record, its steps and the limit.
            ValueError: if one is empty or uses tools, or codes are another audio tokenizer's or no whole frames.
            AudioError: if a recording cannot be used.
        """
        for conversation in conversations:
            _refuse_tools(conversation)
        parts = [part for one in conversations for part in one.audio_parts]
        codes = iter([self._frames_of(part, row) for part, row in zip(parts, self._symbols(parts), strict=True)])
        encoded = [self._lay_out(one, codes) for one in conversations]
        for one in encoded:
            if max_length is not None and len(one) > max_length:
                num_audio = 0 if one.frames is None else len(one.frames)
                raise TooLongError(one.id, len(one), num_audio, max_length)
        return encoded

    def encode_conversation(self, conversation: Conversation, *, max_length: int | None = None) -> EncodedConversation:
        """Lays one conversation out; see `encode_conversations`."""
        return self.encode_conversations([conversation], max_length=max_length)[0]

    def prompts(self, conversations: Sequence[Conversation], device: torch.device | str = "cpu") -> Layout:
        """Prompts of conversations that the assistant is to go on with, padded on the left, for `UniAudioLM.generate`.

        Raises:
            ValueError: as `encode_conversations`.
        """
        encoded = self.encode_conversations(conversations)
        rows = [rows_of(one.token_ids, one.labels, one.frames, self.config) for one in encoded]
        batch = pad_batch(rows, self.config, side="left")
        return Layout(batch.input_ids.to(device), batch.stream_mask.to(device), batch.loss_mask.to(device))

    def _symbols(self, parts: Sequence[AudioPart]) -> list[list[int]]:
        return self._attached.codes_of(parts) if parts else []

    def _frames_of(self, part: AudioPart, symbols: list[int]) -> list[Tensor]:
        """Frames of each part of a recording with their marks, as the LM's streams have them, ``[T + 2, K]``."""
        try:
            codes = self._by_part(torch.tensor(symbols))
            rows = [lay_out(Task((name,), ()), {name: codes_KT}, self.config) for name, codes_KT in codes.items()]
        except ValueError as error:
            raise ValueError(f"{part.where or 'audio'}: {error}") from error
        return [one.input_ids[:, :-1] for one in rows]

    def _by_part(self, symbols: Tensor) -> dict[str, Tensor]:
        if isinstance(self.layout, GroupedLayout):
            return self.layout.to_groups(symbols)
        return {PART: self.layout.to_codes(symbols)}

    def _lay_out(self, conversation: Conversation, clips: Iterator[list[Tensor]]) -> EncodedConversation:
        pieces: list[_Piece] = [_Piece("", self._start, learned=False)] if self._start else []
        for message in conversation.messages:
            pieces += self._pieces(message, clips)
        ids = [token_id for piece in pieces for token_id in piece.token_ids]
        if not ids:
            raise ValueError(f"{conversation.where or conversation.id}: holds neither text nor audio")
        labels = [one if piece.learned else IGNORED_LABEL for piece in pieces for one in piece.token_ids]
        roles = [piece.role for piece in pieces for _ in piece.token_ids]
        frames = [piece.frames for piece in pieces if piece.frames is not None]
        joined = torch.cat(frames).to(torch.int32).numpy() if frames else None
        return EncodedConversation(conversation.id, ids, labels, roles, joined)

    def _pieces(self, message: Message, clips: Iterator[list[Tensor]]) -> list[_Piece]:
        learned = message.role == "assistant"
        found: list[_Piece] = []
        text = ""
        for part in [*message.content, None]:
            if isinstance(part, TextPart):
                text += part.text
                continue
            if text:
                ids = self._texts.plain([text if learned or part is not None else text + BEHIND_OTHERS])[0]
                end = [int(self.tokenizer.eos_token_id)] if learned else []
                found.append(_Piece(message.role, ids + end, learned))
                text = ""
            if part is not None:
                for name, frames in zip(self.parts, next(clips), strict=True):
                    found.append(_Piece(message.role, self._frame_ids(name, frames), learned, frames))
        return found

    def _frame_ids(self, part: str, frames_FK: Tensor) -> list[int]:
        first = self.vocabulary.first_code_id + self._parts[part]
        codes = (frames_FK[1:-1, 0] - self.config.offset_of(part) + first).tolist()
        return [self.vocabulary.start_id, *codes, self.vocabulary.end_id]

    # Ids to text and sound

    def decode(self, token_ids: Tensor | Sequence[int]) -> str:
        """The text of ids ``[T]`` that the LM wrote."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))

    def waveforms(
        self, clips: Sequence[Tensor], reasoning: Sequence[Tensor] | None = None, **options: Any
    ) -> list[Tensor]:
        """The sound of codes ``[K, T]`` of clips, each float32 ``[N]`` at `output_sample_rate`; none of no frames.

        Args:
            clips: as `UniAudioGeneration.reconstruction` holds them.
            reasoning: of the same clips, as `UniAudioGeneration.reasoning`, where the audio tokenizer has such codes.
                Where they end sooner than ``clips``, so does the sound, and that is said.
            options: of the audio tokenizer's ``decode``, such as ``speaker`` and ``seed``.

        Raises:
            ValueError: if the audio tokenizer cannot decode, or needs reasoning codes.
        """
        rows = [self._symbols_of(number, clips, reasoning) for number in range(len(clips))]
        made = iter(self._attached.waveforms_of([row for row in rows if row is not None], **options))
        return [torch.zeros(0) if row is None else next(made) for row in rows]

    def _symbols_of(self, number: int, clips: Sequence[Tensor], reasoning: Sequence[Tensor] | None) -> Tensor | None:
        """The row of a clip; None of no sound."""
        codes_KT = clips[number]
        if not isinstance(self.layout, GroupedLayout):
            return self.layout.to_symbols(codes_KT) if codes_KT.shape[1] else None
        if reasoning is None:
            raise ValueError("the audio tokenizer has reasoning codes, too: give those of the same clips")
        first, second = (one.frame_rate for one in self._code_groups())
        most = math.ceil(reasoning[number].shape[1] * second / first)
        if codes_KT.shape[1] > most:
            logger.warning(
                "clip %d has %d reconstruction codes, and reasoning codes for %d of them: the others are left out",
                *(number, codes_KT.shape[1], most),
            )
        if not min(most, codes_KT.shape[1]):
            return None
        return self.layout.to_symbols({REASONING: reasoning[number], PART: codes_KT[:, :most]})

    def _code_groups(self) -> tuple[CodeGroup, ...]:
        """The codes of the audio tokenizer by their rates; it is loaded for that."""
        found = self.audio_tokenizer
        return found.inner.code_groups if isinstance(found, OneRowTokenizer) else found.code_groups

    # Saving and loading

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the text tokenizer, ``processor_config.json`` and ``audio_tokenizer/``, all or nothing.

        Raises:
            ValueError: if the audio tokenizer in memory is of a kind that cannot be saved.
        """
        with atomic_entries(folder) as staging:
            self._attached.save(staging / AUDIO_TOKENIZER_FOLDER)
            self.tokenizer.save_pretrained(staging)
            facts: dict[str, Any] = {
                "processor_class": type(self).__name__,
                "codec_path": AUDIO_TOKENIZER_FOLDER if self.has_audio_tokenizer else None,
                "code_layout": self.layout.to_dict(),
            }
            if self._attached.known_fingerprint is not None:
                facts["codec_fingerprint"] = self._attached.known_fingerprint
            write_json(staging / PROCESSOR_CONFIG, facts)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], config: UniAudioLMConfig) -> UniAudioProcessor:
        """Loads what `save_pretrained` wrote.

        Args:
            folder: a local folder.
            config: of the LM beside it.

        Raises:
            ValueError: if the folder holds no such processor.
        """
        path = Path(folder) / PROCESSOR_CONFIG
        facts = read_json_object(path) if path.is_file() else {}
        if facts.get("processor_class") != cls.__name__:
            raise ValueError(f"{folder} is no folder of a multi-stream LM: {PROCESSOR_CONFIG} names no {cls.__name__}")
        check_codec_path(path, facts.get("codec_path"))
        processor = cls(
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
            config,
            _read_layout(facts.get("code_layout")),
            codec_path=facts.get("codec_path"),
            codec_fingerprint=facts.get("codec_fingerprint"),
        )
        processor._attached.origin = Origin(os.fspath(folder), {})
        return processor


class _Piece:
    """Ids of one kind, one after another."""

    def __init__(self, role: str, token_ids: list[int], learned: bool, frames: Tensor | None = None) -> None:
        self.role, self.token_ids, self.learned, self.frames = role, token_ids, learned, frames


def check_codebooks(layout: CodeLayout | GroupedLayout, config: UniAudioLMConfig) -> dict[str, int]:
    """Refuses codes that the streams of a configuration cannot hold.

    Returns:
        The audio parts that a recording is, and the first symbol of each.

    Raises:
        ValueError: naming both numbers.
    """
    groups = layout.groups if isinstance(layout, GroupedLayout) else ((PART, layout),)
    if isinstance(layout, GroupedLayout) and layout.names != AUDIO_PARTS:
        raise ValueError(
            f"the audio tokenizer has codes named {', '.join(layout.names)}, and the LM takes those of "
            f"{' and '.join(AUDIO_PARTS)}, in this order"
        )
    first, parts = 0, {}
    for part, codes in groups:
        if codes.num_codebooks != config.num_audio_streams:
            raise ValueError(
                f"the audio tokenizer has {codes.num_codebooks} codebooks, and the LM {config.num_audio_streams} audio "
                "streams: use the audio tokenizer that it was made for"
            )
        # Marks follow the codes.
        room = min(config.marks.of_part(part).values(), default=config.size_of(part))
        largest = max(codes.codebook_sizes)
        if largest != room:
            raise ValueError(
                f"the audio tokenizer has codebooks of {largest} entries, and the LM was made for {room}: use the "
                "audio tokenizer that it was made for"
            )
        parts[part] = first
        first += codes.size
    return parts


def _read_layout(stated: Any) -> CodeLayout | GroupedLayout:
    is_grouped = isinstance(stated, Mapping) and "groups" in stated
    return GroupedLayout.from_dict(stated) if is_grouped else CodeLayout.from_dict(stated)


def rows_of(
    token_ids: Sequence[int] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    frames: np.ndarray | None,
    config: UniAudioLMConfig,
) -> Layout:
    """The rows of ids that a list stands for.

    Args:
        token_ids: ``[S]``; those behind the text vocabulary are frames.
        labels: ``[S]``; `IGNORED_LABEL` where nothing is learned.
        frames: codes of the frames, ``[F, K]``; None: there are none.
        config: of the LM.
    """
    ids = torch.as_tensor(np.asarray(token_ids, dtype=np.int64))
    learned = torch.as_tensor(np.asarray(labels, dtype=np.int64)) != IGNORED_LABEL
    num_streams = config.num_audio_streams
    is_audio = ids >= config.text_config.vocab_size
    rows = torch.zeros(len(ids), num_streams + 1, dtype=torch.int64)
    rows[:, -1] = ids.where(~is_audio, 0)
    if frames is not None:
        rows[is_audio, :num_streams] = torch.as_tensor(np.asarray(frames, dtype=np.int64))
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask[:, :-1] = is_audio[:, None]
    mask[:, -1] = ~is_audio
    return Layout(rows, mask, mask & learned[:, None])


def without_condition(
    token_ids: np.ndarray, labels: np.ndarray, frames: np.ndarray | None, config: UniAudioLMConfig
) -> tuple[np.ndarray, np.ndarray | None]:
    """Puts ``text_pad`` in place of all steps that are not learned, as some items of generation have it for guidance.

    Args:
        token_ids: ``[S]``.
        labels: ``[S]``.
        frames: ``[F, K]``; None: there are none.
        config: of the LM.

    Returns:
        Ids and frames; the labels stay.

    Raises:
        ValueError: if the configuration has no such mark.
    """
    pad = config.marks.required("text_pad", "leaving out the condition")
    learned = labels != IGNORED_LABEL
    kept = None if frames is None else frames[learned[token_ids >= config.text_config.vocab_size]]
    return np.where(learned, token_ids, pad).astype(token_ids.dtype), kept


def code_layout(audio_tokenizer: AudioTokenizer, codebooks: int | None = None) -> CodeLayout | GroupedLayout:
    """The codes of a tokenizer as the streams of an LM take them, frame by frame.

    Args:
        audio_tokenizer: of any kind that has codes.
        codebooks: use its first so many; None: all.

    Raises:
        ValueError: if it has no codes, or not so many codebooks; or several rates, of which some codebooks are asked.
    """
    name = type(audio_tokenizer).__name__
    sizes = audio_tokenizer.codebook_sizes
    if not sizes or audio_tokenizer.latent_size is not None:
        raise ValueError(f"{name} has continuous latents and no codes: an LM needs codes")
    if len(audio_tokenizer.code_groups) > 1:
        if codebooks is not None:
            told = "; ".join(map(str, audio_tokenizer.code_groups))
            raise ValueError(f"codebooks={codebooks}: {name} has codes of several rates ({told}); all are used")
        return GroupedLayout.of(audio_tokenizer)
    if codebooks is not None and not 1 <= codebooks <= len(sizes):
        raise ValueError(f"codebooks={codebooks}: {name} has {len(sizes)}")
    return CodeLayout(sizes[:codebooks], "flat")


def _refuse_tools(conversation: Conversation) -> None:
    uses = conversation.tools or any(one.tool_calls or one.role == "tool" for one in conversation.messages)
    if uses:
        raise ValueError(
            f"{conversation.where or conversation.id}: uses tools, which a multi-stream LM has no form for: leave the "
            "record out"
        )
