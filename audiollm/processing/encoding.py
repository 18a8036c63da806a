"""Conversations and prompts to token ids: rendered, tokenized piece by piece, codes in the places of recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from transformers import PreTrainedTokenizerBase

from audiollm.chat.encoded import EncodedConversation
from audiollm.chat.rendering import ConversationRenderer, Piece
from audiollm.chat.text_encoding import TextEncoder
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.vocabulary import AudioVocabulary

from .attached import AttachedAudioTokenizer


class PromptEncoder:
    """What a processor does with conversations and with prompts that are written out.

    Args:
        text_tokenizer: the LLM's.
        vocabulary: where its audio tokens lie.
        attached: makes codes of recordings.
    """

    def __init__(
        self, text_tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary, attached: AttachedAudioTokenizer
    ) -> None:
        self.renderer = ConversationRenderer(text_tokenizer)
        self._text_tokenizer = text_tokenizer
        self._text_encoder = TextEncoder(text_tokenizer)
        self._vocabulary = vocabulary
        self._attached = attached

    def conversations(
        self, conversations: Sequence[Conversation], template: str, **options: bool
    ) -> list[EncodedConversation]:
        """Encodes conversations; the audio of all of them goes through the audio tokenizer together.

        Args:
            conversations: typed records.
            template: Jinja source.
            options: of the template: ``add_generation_prompt``, ``continue_final_message``.
        """
        codes = iter(self._attached.codes_of([part for one in conversations for part in one.audio_parts]))
        pieces_of = [self.renderer.pieces(conversation, template, **options) for conversation in conversations]
        for piece in chain.from_iterable(pieces_of):
            if piece.is_audio:
                piece.token_ids = self._vocabulary.wrap(next(codes))
        self._tokenize([piece for piece in chain.from_iterable(pieces_of) if piece.text])
        return [
            EncodedConversation.from_pieces(conversation.id, pieces)
            for conversation, pieces in zip(conversations, pieces_of, strict=True)
        ]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, in which nothing counts as structure."""
        return self._text_encoder.plain(texts)

    def texts(
        self, conversations: Sequence[Conversation], bare: Sequence[Sequence[bool]], template: str, **options: bool
    ) -> list[str]:
        """Renders conversations as texts, with audio spelt out as tokens.

        Args:
            conversations: typed records.
            bare: for each audio part of each of them, whether its place stays empty.
            template: Jinja source.
            options: as for `conversations`.
        """
        parts = [part for one in conversations for part in one.audio_parts]
        stays_bare = list(chain.from_iterable(bare))
        codes = iter(
            self._attached.codes_of([part for part, is_bare in zip(parts, stays_bare, strict=True) if not is_bare])
        )
        spelt = iter([[] if is_bare else next(codes) for is_bare in stays_bare])
        return [self.renderer.text(one, template, spelt, **options) for one in conversations]

    def prompts(
        self, texts: Sequence[str], recordings: Sequence[AudioPart], add_special_tokens: bool
    ) -> list[EncodedConversation]:
        """Tokenizes prompts that are written out; special tokens in them count.

        Args:
            texts: the prompts, with a pair of marks for each recording.
            recordings: in the order of their places, over all prompts.
            add_special_tokens: let the text tokenizer add its own.
        """
        codes = iter(self._attached.codes_of(recordings))
        encoded = []
        for index, token_ids in enumerate(self._text_encoder.structured(texts, add_special_tokens)):
            spliced = list(self._splice(token_ids, codes))
            encoded.append(EncodedConversation(f"text[{index}]", spliced, spliced, []))
        return encoded

    def _tokenize(self, pieces: Sequence[Piece]) -> None:
        """Fills in the ids of text pieces; nothing in them is read as a special token."""
        special = [piece for piece in pieces if piece.is_special]
        ids = self._text_tokenizer.convert_tokens_to_ids([piece.text for piece in special])
        for piece, token_id in zip(special, ids, strict=True):
            piece.token_ids = [token_id]
        plain = [piece for piece in pieces if not piece.is_special]
        if plain:
            for piece, token_ids in zip(plain, self._text_encoder.plain([piece.text for piece in plain]), strict=True):
                piece.token_ids = token_ids

    def _splice(self, token_ids: Sequence[int], codes: Iterator[list[int]]) -> Iterator[int]:
        """Puts the next codes between every start mark that is directly followed by an end mark."""
        for index, token_id in enumerate(token_ids):
            yield token_id
            is_pair = token_ids[index : index + 2] == [self._vocabulary.start_id, self._vocabulary.end_id]
            if is_pair:
                yield from self._vocabulary.codes_to_token_ids(next(codes))
