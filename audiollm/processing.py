"""The processor: chat messages with audio to token ids of an extended LLM, and token ids back to text and codes.

Reading order: `AudioLLMProcessor.encode_conversations` (the one path from messages to ids), then
`AudioLLMProcessor.split` (back). What lies on the way is in ``chat/``: ``input`` (what callers pass), ``rendering``
(the template's text, cut into pieces), ``encoded`` (ids and labels), ``segments`` (text and codes).
"""
# Shapes: B conversations, S token ids of the longest, T codes of one clip, N samples.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import upload_folder
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from audiollm.chat.encoded import EncodedConversation, TooLongError
from audiollm.chat.input import AudioSource, Chat, audio_parts, is_batch_of_chats, to_conversation
from audiollm.chat.rendering import ConversationRenderer, Piece, marks_assistant_turns
from audiollm.chat.segments import AudioSegment, TextSegment, split_segments
from audiollm.chat.text_encoding import TextEncoder
from audiollm.data.audio.reading import Mono
from audiollm.data.collation import IGNORED_LABEL, collate
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.files.atomic import atomic_entries
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.locks import CopyableLock
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .folders import Origin, check_codec_path, copy_audio_tokenizer, save_audio_tokenizer
from .mini import AUDIO_TOKENIZER_FOLDER
from .vocabulary import AUDIO_END, AUDIO_START, AudioVocabulary

CHAT_TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")
logger = logging.getLogger(__name__)

_PADDING = {True: True, False: False, "longest": True, "do_not_pad": False}  # and as transformers calls them
_UNLIMITED = 10**9  # transformers writes 1e30 where a tokenizer names no limit


class AudioLLMProcessor(ProcessorMixin):
    """Turns chat messages with text and audio into ids and back.

    ``AutoProcessor.from_pretrained(folder)`` finds it once this module is imported. The audio tokenizer lies in
    ``folder/audio_tokenizer`` and is loaded when audio first has to be encoded: a processor that only sees codes and
    text never loads it.

    What a text says can never become structure: special tokens spelt out in it (``<|im_end|>``, ``<|audio_3|>``) are
    tokenized as plain text. Tokens that the text tokenizer declares as not special, such as Qwen's ``<tool_call>``,
    keep their meaning.

    Args:
        tokenizer: the LLM's text tokenizer, extended by an audio vocabulary (transformers prescribes the name).
        codec_path: where the audio tokenizer is, for one that is not given: a folder inside the processor's own,
            another folder, or a Hub id.
        audio_tokenizer: the audio tokenizer itself.
        chat_template: Jinja source; None takes the packaged ChatML template.
        codec_fingerprint: of the audio tokenizer whose codes the LLM knows, if that is known: another one is
            refused, and so are codes that say that another one made them.

    Raises:
        ValueError: if the text tokenizer holds no audio vocabulary, or the audio tokenizer has other codes than it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        codec_path: str | None = None,
        audio_tokenizer: AudioTokenizer | None = None,
        chat_template: str | None = None,
        codec_fingerprint: str | None = None,
    ) -> None:
        if chat_template is None:
            chat_template = CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
        super().__init__(tokenizer, chat_template=chat_template)
        # The same file serves both, so that programs which load the text tokenizer alone (vLLM) render alike.
        self.tokenizer.chat_template = chat_template
        self.vocabulary = AudioVocabulary.from_text_tokenizer(tokenizer)
        self.codec_path = codec_path
        self._origin: Origin | None = None
        self._audio_tokenizer: AudioTokenizer | None = None
        self._audio_device: torch.device | str | None = None
        self._loading = CopyableLock()  # of the audio tokenizer, by the first thread that needs it
        self._fingerprint = codec_fingerprint
        self.mono: Mono = "first"
        """Which waveform of several channels is heard: the first one (as by the reference tokenizer) or their mean."""
        self.accepted_codes: frozenset[str] = frozenset()
        """Fingerprints of audio tokenizers whose codes count as those of the own one (such as it in bfloat16)."""
        if audio_tokenizer is not None:
            self.audio_tokenizer = audio_tokenizer
        self._renderer = ConversationRenderer(tokenizer)
        self._text_encoder = TextEncoder(tokenizer)

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        """The LLM's text tokenizer (`tokenizer` is the name that transformers prescribes)."""
        return self.tokenizer

    # Messages to ids

    def encode_conversations(
        self,
        conversations: Sequence[Conversation],
        *,
        max_length: int | None = None,
        chat_template: str | None = None,
    ) -> list[EncodedConversation]:
        """Encodes conversations for training; the audio of all of them goes through the audio tokenizer together.

        Args:
            conversations: typed records, see `audiollm.data.conversation.loading`.
            max_length: the most tokens one may have; None: the text tokenizer's ``model_max_length``.
            chat_template: Jinja source to use instead of the processor's.

        Raises:
            TooLongError: a ValueError that names the record, its tokens and the limit.
            ValueError: if the template marks no assistant turns, or codes are out of range.
            AudioError: if a recording cannot be used.
        """
        template = chat_template or self.chat_template
        if not marks_assistant_turns(template):
            raise ValueError(
                "the chat template does not say what the assistant writes: put the content of assistant turns and "
                "their end mark between {% generation %} and {% endgeneration %}"
            )
        return self._encode(conversations, template, max_length)

    def encode_conversation(self, conversation: Conversation, *, max_length: int | None = None) -> EncodedConversation:
        """Encodes one conversation for training; see `encode_conversations`."""
        return self.encode_conversations([conversation], max_length=max_length)[0]

    def apply_chat_template(
        self,
        conversation: Chat | Sequence[Chat],
        chat_template: str | None = None,
        tools: list[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: Literal["pt"] | None = "pt",
        return_assistant_tokens_mask: bool = False,
        padding: bool | str = True,
        padding_side: Literal["left", "right"] = "left",
        max_length: int | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature | Tensor | list[list[int]] | str | list[str]:
        """Turns one conversation or a batch of them into model inputs.

        Content is a string or a list of parts: ``{"type": "text", "text"}`` and ``{"type": "audio", …}`` with a
        ``path``, the ``bytes`` of a file, samples (``audio`` or ``array``, with ``sampling_rate``) or ``codes``.

        Args:
            conversation: a list of messages or a `Conversation`, or a list of those.
            chat_template: Jinja source to use instead of the processor's.
            tools: JSON schemas of functions; a `Conversation` brings its own.
            add_generation_prompt: end with the opening of an assistant turn.
            continue_final_message: leave the last message open, so that the model continues it.
            tokenize: False returns the text of the prompt, audio spelt out as tokens. Special tokens that users
                wrote cannot be told from structure there: use it to look, not to generate.
            return_dict: False returns ``input_ids`` alone.
            return_tensors: "pt", or None for lists (not padded).
            return_assistant_tokens_mask: also return ``assistant_masks``, 1 where the assistant speaks.
            padding: False refuses conversations of different lengths instead of padding them.
            padding_side: "left" for generation.
            max_length: the most tokens; None: the text tokenizer's ``model_max_length``. Longer is an error, never cut.
            sampling_rate: rate in Hz of audio arrays that come without one.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``[B, S]``; B = 1 for one conversation.

        Raises:
            ConversationError: if a message is malformed; the field is named.
            TooLongError: a ValueError that names the conversation, its tokens and the limit.
            AudioError: if a recording cannot be used.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt opens a turn and continue_final_message keeps one open: use one")
        is_batch = is_batch_of_chats(conversation)
        chats: Any = conversation if is_batch else [conversation]
        if not chats:
            raise ValueError("the batch is empty: give at least one conversation")
        conversations = [
            to_conversation(chat, f"conversation[{index}]" if is_batch else "conversation", tools, sampling_rate)
            for index, chat in enumerate(chats)
        ]
        template = chat_template or self.chat_template
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        if not tokenize:
            codes = iter(self._codes_of([part for conversation in conversations for part in conversation.audio_parts]))
            texts = [self._renderer.text(one, template, codes, **options) for one in conversations]
            return texts if is_batch else texts[0]
        encoded = self._encode(conversations, template, max_length, **options)
        return self._to_inputs(
            encoded, return_dict, return_tensors, return_assistant_tokens_mask, padding, padding_side
        )

    def __call__(
        self,
        text: str | Sequence[str],
        audio: AudioSource | Sequence[AudioSource] | None = None,
        *,
        sampling_rate: int | None = None,
        add_special_tokens: bool = True,
        return_tensors: Literal["pt"] | None = "pt",
        padding: bool | str = True,
        padding_side: Literal["left", "right"] = "left",
        max_length: int | None = None,
    ) -> BatchFeature:
        """Tokenizes prompts that are written out already; special tokens in them count.

        Args:
            text: one prompt or several; ``<|audio_start|><|audio_end|>`` marks the place of each audio.
            audio: recordings in the order of their places, over all prompts: paths, bytes of files, samples, codes.
            sampling_rate: rate in Hz of samples.
            add_special_tokens: let the text tokenizer add its own (such as a beginning-of-text token; Qwen has none).
            return_tensors: as for `apply_chat_template`.
            padding: as for `apply_chat_template`.
            padding_side: as for `apply_chat_template`.
            max_length: as for `apply_chat_template`.

        Raises:
            ValueError: if places and recordings differ in number, or a prompt is too long.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("text is empty: give at least one prompt")
        parts = [] if audio is None else audio_parts(audio, sampling_rate)
        codes = iter(self._codes_of(parts))
        num_places = sum(one.count(AUDIO_START + AUDIO_END) for one in texts)
        if num_places != len(parts):
            raise ValueError(
                f"the text has {num_places} places for audio ({AUDIO_START}{AUDIO_END}), but {len(parts)} came"
            )
        encoded = []
        all_ids = self._text_encoder.structured(texts, add_special_tokens)
        for index, token_ids in enumerate(all_ids):
            spliced = list(self._splice(token_ids, codes))
            encoded.append(EncodedConversation(f"text[{index}]", spliced, spliced, []))
        self._check_lengths(encoded, max_length)
        return self._to_inputs(encoded, True, return_tensors, False, padding, padding_side)

    # Ids to text and codes

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """The text of ids ``[S]``; audio tokens are special, so they are left out unless asked for."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """The texts of several rows of ids; see `decode`, and `split` for the codes."""
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def split(self, token_ids: Tensor | Sequence[int]) -> list[TextSegment | AudioSegment]:
        """Cuts ids ``[S]`` into text and audio, in order; broken audio is kept and flagged.

        See `audiollm.chat.segments.split_segments`.
        """
        return split_segments(token_ids, self.vocabulary, self.decode)

    # The audio tokenizer

    @property
    def audio_tokenizer(self) -> AudioTokenizer:
        """The audio tokenizer; loaded on first use, to `audio_device`."""
        with self._loading:
            if self._audio_tokenizer is None:
                self.load_audio_tokenizer()
            assert self._audio_tokenizer is not None
            return self._audio_tokenizer

    @audio_tokenizer.setter
    def audio_tokenizer(self, audio_tokenizer: AudioTokenizer) -> None:
        self._check_codes(audio_tokenizer)
        if self._fingerprint is not None:
            fingerprint = audio_tokenizer.fingerprint()
            if fingerprint not in (self._fingerprint, *self.accepted_codes):
                logger.warning(
                    "the LLM knows the codes of another audio tokenizer (fingerprint %s) than the one given now (%s): "
                    "it takes them for other sounds until it is trained on them",
                    self._fingerprint,
                    fingerprint,
                )
            self._fingerprint = fingerprint
        self._audio_tokenizer = audio_tokenizer
        self.codec_path = None  # the one that is given counts, and is saved, instead of the one that was found

    def _check_codes(self, audio_tokenizer: AudioTokenizer) -> None:
        if audio_tokenizer.num_codebooks != 1 or audio_tokenizer.codebook_size != self.vocabulary.codebook_size:
            raise ValueError(
                f"the audio tokenizer has {audio_tokenizer.num_codebooks} x {audio_tokenizer.codebook_size} codes, but "
                f"the text tokenizer holds an audio vocabulary of 1 x {self.vocabulary.codebook_size}: use the audio "
                "tokenizer that the LLM was extended for"
            )

    @property
    def codec_fingerprint(self) -> str | None:
        """Of the audio tokenizer whose codes the LLM knows (it may have to be loaded to tell); None if it has none."""
        if self._fingerprint is None and self.has_audio_tokenizer:
            self._fingerprint = self.audio_tokenizer.fingerprint()
        return self._fingerprint

    def _check_maker(self, part: AudioPart) -> None:
        """Refuses codes that say that another audio tokenizer made them; the LLM would take them for other sounds."""
        if part.audio_tokenizer is None or part.audio_tokenizer in self.accepted_codes:
            return
        own = self.codec_fingerprint
        if own is not None and own != part.audio_tokenizer:
            raise ValueError(
                f"{part.where or 'audio'}: its codes were made by another audio tokenizer ({part.audio_tokenizer}) "
                f"than the LLM's ({own}): tokenize the recordings with the LLM's own; if both give the same codes (one "
                "in lower precision), accept that fingerprint (accepted_codes of the processor, accept_codes_of in a "
                "training)"
            )

    @property
    def audio_device(self) -> torch.device | str | None:
        """Where the audio tokenizer runs, loaded or not yet; None: the CPU, or where the one given was."""
        return self._audio_device

    @audio_device.setter
    def audio_device(self, device: torch.device | str | None) -> None:
        self._audio_device = device
        if isinstance(self._audio_tokenizer, torch.nn.Module):
            self._audio_tokenizer.to(device if device is not None else "cpu")

    @property
    def has_audio_tokenizer(self) -> bool:
        """Whether there is an audio tokenizer, loaded or not; without one only codes and text can be processed."""
        return self._audio_tokenizer is not None or self.codec_path is not None

    def load_audio_tokenizer(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        encoder_only: bool = True,
    ) -> AudioTokenizer:
        """Loads the audio tokenizer from beside the processor, replacing one that is loaded.

        Args:
            device: where it runs; None: `audio_device`.
            dtype: of its weights; None: float32. Lower precision changes some codes.
            encoder_only: leave out the layers behind the quantizer, which codes do not need; saving still copies them.

        Raises:
            ValueError: if this processor knows no audio tokenizer.
        """
        if self.codec_path is None:
            raise ValueError(
                "this processor has no audio tokenizer, so it takes codes but no recordings: pass audio_tokenizer= or "
                "codec_path=, or load it from an Audio-LLM folder with audio_tokenizer/ inside"
            )
        if device is not None:
            self._audio_device = device
        loaded = UniAudioTokenizer.from_pretrained(
            self._audio_tokenizer_source(),
            encoder_only=encoder_only,
            dtype=dtype,
            device=self._audio_device,
            fingerprint=self._fingerprint,
        )
        self._check_codes(loaded)
        self._audio_tokenizer = loaded
        return loaded

    def _audio_tokenizer_source(self) -> str | Path:
        """A folder or Hub id: relative to the processor's own place first, so that a moved folder still works."""
        assert self.codec_path is not None
        if self._origin is not None:
            folder = self._origin.subfolder(self.codec_path)
            if folder is not None:
                return folder
        return self.codec_path

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        """What ``processor_config.json`` holds: no weights, and no path that breaks when the folder moves."""
        codec_path = AUDIO_TOKENIZER_FOLDER if self.has_audio_tokenizer else None
        facts = {"processor_class": type(self).__name__, "codec_path": codec_path}
        return facts if self._fingerprint is None else facts | {"codec_fingerprint": self._fingerprint}

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Writes the text tokenizer, the template, ``processor_config.json`` and ``audio_tokenizer/``, all or nothing.

        Args:
            save_directory: the folder, usually the model's.
            push_to_hub: also upload it; ``kwargs`` go to transformers' upload.

        Raises:
            ValueError: if the audio tokenizer in memory is of a kind that cannot be saved.
        """
        with atomic_entries(save_directory) as staging:
            self._save_audio_tokenizer(staging / AUDIO_TOKENIZER_FOLDER)
            self._fingerprint = self.codec_fingerprint  # from here on no other one can be put in its place
            written = super().save_pretrained(str(staging))
        if push_to_hub:  # the whole folder, with what else lies in it, such as a model card
            return super().save_pretrained(str(save_directory), push_to_hub=True, **kwargs)
        return [os.path.join(save_directory, Path(path).relative_to(staging)) for path in written]

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, files_timestamps: dict[str, float], **options: Any
    ) -> Any:
        """Uploads the folder with all that is in `audio_tokenizer/`; transformers' own goes one folder deep at most."""
        return upload_folder(
            repo_id=repo_id, folder_path=Path(working_dir), ignore_patterns=["model*.safetensors*"], **options
        )

    def _save_audio_tokenizer(self, target: Path) -> None:
        if not self.has_audio_tokenizer:
            return
        if self.codec_path is None:
            save_audio_tokenizer(self.audio_tokenizer, target)
            return
        source = Path(self._audio_tokenizer_source())
        if source.is_dir():
            copy_audio_tokenizer(source, target)
        else:  # a Hub id: whole, whatever part of it is in memory
            save_audio_tokenizer(self.load_audio_tokenizer(encoder_only=False), target)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> AudioLLMProcessor:
        """Loads from a folder or the Hub; arguments as for transformers' ``ProcessorMixin.from_pretrained``."""
        # Python that lies beside a model is never run, whatever the caller (such as AutoProcessor) was told.
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs | {"trust_remote_code": False})
        processor = loaded[0] if isinstance(loaded, tuple) else loaded  # with return_unused_kwargs
        if "codec_path" not in kwargs:  # given by the caller, it may lie anywhere
            check_codec_path(Path(pretrained_model_name_or_path) / "processor_config.json", processor.codec_path)
        processor._origin = Origin.from_arguments(pretrained_model_name_or_path, kwargs)
        return loaded

    # The path from messages to ids

    def _encode(
        self,
        conversations: Sequence[Conversation],
        template: str,
        max_length: int | None,
        **options: bool,
    ) -> list[EncodedConversation]:
        codes = iter(self._codes_of([part for conversation in conversations for part in conversation.audio_parts]))
        pieces_of = [self._renderer.pieces(conversation, template, **options) for conversation in conversations]
        for piece in chain.from_iterable(pieces_of):
            if piece.is_audio:
                piece.token_ids = self.vocabulary.wrap(next(codes))
        self._tokenize([piece for piece in chain.from_iterable(pieces_of) if piece.text])
        encoded = [
            EncodedConversation.from_pieces(conversation.id, pieces)
            for conversation, pieces in zip(conversations, pieces_of, strict=True)
        ]
        self._check_lengths(encoded, max_length)
        return encoded

    def _codes_of(self, parts: Sequence[AudioPart]) -> list[list[int]]:
        """The codes of each part, in order; one call of the audio tokenizer per sample rate."""
        codes: dict[int, list[int]] = {}
        waveforms: dict[int, list[tuple[int, Tensor]]] = {}
        for index, part in enumerate(parts):
            if part.codes is not None:
                self._check_maker(part)
                codes[index] = list(part.codes)
            else:
                waveform, sample_rate = part.load(mono=self.mono)
                waveforms.setdefault(sample_rate, []).append((index, waveform))
        for sample_rate, clips in waveforms.items():
            # All at once: the audio tokenizer sorts by length and pads little, which a call per clip could not.
            encoded = self.audio_tokenizer.encode([waveform for _, waveform in clips], sample_rate).tolist()
            codes.update(zip((index for index, _ in clips), encoded, strict=True))
        for index, part in enumerate(parts):
            if not codes[index]:
                raise ValueError(f"{part.where or f'audio {index}'}: gives no codes; leave it out")
        return [codes[index] for index in range(len(parts))]

    def _tokenize(self, pieces: Sequence[Piece]) -> None:
        """Fills in the ids of text pieces; nothing in them is read as a special token."""
        special = [piece for piece in pieces if piece.is_special]
        for piece, token_id in zip(
            special, self.tokenizer.convert_tokens_to_ids([piece.text for piece in special]), strict=True
        ):
            piece.token_ids = [token_id]
        plain = [piece for piece in pieces if not piece.is_special]
        if plain:
            for piece, token_ids in zip(plain, self._text_encoder.plain([piece.text for piece in plain]), strict=True):
                piece.token_ids = token_ids

    def _splice(self, token_ids: Sequence[int], codes: Iterator[list[int]]) -> Iterator[int]:
        """Puts the next codes between every start mark that is directly followed by an end mark."""
        for index, token_id in enumerate(token_ids):
            yield token_id
            is_pair = token_ids[index : index + 2] == [self.vocabulary.start_id, self.vocabulary.end_id]
            if is_pair:
                yield from self.vocabulary.codes_to_token_ids(next(codes))

    def _check_lengths(self, encoded: Sequence[EncodedConversation], max_length: int | None) -> None:
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length={max_length}: use 1 or more")
        limit = max_length if max_length is not None else self.tokenizer.model_max_length
        if limit >= _UNLIMITED:
            return
        for one in encoded:
            if len(one) > limit:
                num_audio = int(self.vocabulary.is_audio(torch.tensor(one.token_ids)).sum())
                raise TooLongError(one.id, len(one), num_audio, int(limit))

    def _to_inputs(
        self,
        encoded: Sequence[EncodedConversation],
        return_dict: bool,
        return_tensors: str | None,
        return_assistant_tokens_mask: bool,
        padding: bool | str,
        padding_side: Literal["left", "right"],
    ) -> Any:
        if return_tensors not in ("pt", None):
            raise ValueError(f"return_tensors={return_tensors!r}: use 'pt' or None")
        if padding not in _PADDING:
            raise ValueError(f"padding={padding!r}: use True (to the longest row) or False")
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side={padding_side!r}: use 'left' or 'right'")
        inputs: dict[str, Any]
        if return_tensors is None:
            inputs = {"input_ids": [one.token_ids for one in encoded]}
            inputs["attention_mask"] = [[1] * len(one) for one in encoded]
            masks: Any = [[int(label != IGNORED_LABEL) for label in one.labels] for one in encoded]
        else:
            lengths = [len(one) for one in encoded]
            if not _PADDING[padding] and len(set(lengths)) > 1:
                raise ValueError(f"rows of {min(lengths)} to {max(lengths)} tokens make no tensor: use padding=True")
            batch = collate(
                [{"input_ids": one.token_ids, "labels": one.labels} for one in encoded],
                pad_token_id=self.pad_token_id,
                padding_side=padding_side,
            )
            masks = (batch.pop("labels") != IGNORED_LABEL).long()
            inputs = dict(batch)
        if return_assistant_tokens_mask:
            inputs["assistant_masks"] = masks
        return BatchFeature(inputs) if return_dict else inputs["input_ids"]

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows up: the text tokenizer's padding token, else its end-of-sequence token."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return token_id
        raise ValueError("the text tokenizer has no padding token: set tokenizer.pad_token")


class _AudioLLMConfig(PreTrainedConfig):
    """Only a key: the auto class finds processors by the name registered beside a configuration class."""

    model_type = "audiollm"


AutoProcessor.register(_AudioLLMConfig, AudioLLMProcessor, exist_ok=True)
