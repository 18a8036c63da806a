"""`AudioLLMProcessor`: chat messages with audio to token ids of an extended LLM, and token ids back.

Reading order: `AudioLLMProcessor.encode_conversations` (the one path from messages to ids), then
`AudioLLMProcessor.split` (back). What lies on the way is in ``audiollm/chat``: ``input`` (what callers pass),
``rendering`` (the template's text, cut into pieces), ``encoded`` (ids and labels), ``segments`` (text and codes).
"""
# Shapes: B conversations, S token ids of the longest, T codes of one clip, N samples.

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import upload_folder
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from audiollm.chat.encoded import EncodedConversation
from audiollm.chat.input import (
    AudioSource,
    Chat,
    audio_of_prompts,
    chats_of,
    prompt_with_places,
    prompts_of,
    to_conversation,
)
from audiollm.chat.rendering import marks_assistant_turns
from audiollm.chat.segments import AudioSegment, TextSegment, split_segments
from audiollm.data.conversation.types import AudioPart, Conversation
from audiollm.data.files.atomic import atomic_entries
from audiollm.folders import Origin, check_codec_path, check_processor_folder
from audiollm.mini import AUDIO_TOKENIZER_FOLDER
from audiollm.sources.places import find_source
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.layout import CodeLayout
from audiollm.tokenizer.sequence import SequenceTokenizer
from audiollm.vocabulary import AUDIO_END, AUDIO_START, AudioVocabulary

from .attached import AttachedAudioTokenizer, HasAudioTokenizer
from .batches import BatchLayout, check_lengths, with_options
from .encoding import PromptEncoder

CHAT_TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


class AudioLLMProcessor(HasAudioTokenizer, ProcessorMixin):
    """Turns chat messages with text and audio into ids and back.

    ``AutoProcessor.from_pretrained(folder)`` finds it once ``audiollm`` is imported. The audio tokenizer lies in
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
        code_layout: how codes of several codebooks are one row, as `audiollm.tokenizer.layout.CodeLayout.to_dict` gives
            it; None: as ``audio_tokenizer`` says, which is a `SequenceTokenizer` then, or there is one codebook.

    Raises:
        ValueError: if the text tokenizer holds no audio vocabulary, or the audio tokenizer has other codes than it.
    """

    audio_token = AUDIO_START + AUDIO_END
    """Marks the place of a recording in a prompt that is written out."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        codec_path: str | None = None,
        audio_tokenizer: AudioTokenizer | None = None,
        chat_template: str | None = None,
        codec_fingerprint: str | None = None,
        code_layout: CodeLayout | Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ValueError(
                f"tokenizer is of type {type(tokenizer).__name__}: give the text tokenizer, or load a folder with "
                "AudioLLMProcessor.from_pretrained(folder)"
            )
        if chat_template is None:
            chat_template = CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
        super().__init__(tokenizer, chat_template=chat_template)
        # The same file serves both, so that programs which load the text tokenizer alone (vLLM) render alike.
        self.tokenizer.chat_template = chat_template
        layout = code_layout if isinstance(code_layout, CodeLayout) else None
        if isinstance(code_layout, Mapping):
            layout = CodeLayout.from_dict(code_layout)
        elif code_layout is None and isinstance(audio_tokenizer, SequenceTokenizer):
            layout = audio_tokenizer.layout
        self.vocabulary = AudioVocabulary.from_text_tokenizer(tokenizer, layout=layout)
        self._attached = AttachedAudioTokenizer(self.vocabulary.codebook_size, codec_path, codec_fingerprint, layout)
        if audio_tokenizer is not None:
            self.audio_tokenizer = audio_tokenizer
        self._encoder = PromptEncoder(tokenizer, self.vocabulary, self._attached)

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
        encoded = self._encoder.conversations(conversations, template)
        self._check_lengths(encoded, max_length)
        return encoded

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
        **others: Any,
    ) -> BatchFeature | Tensor | list[list[int]] | str | list[str]:
        """Turns one conversation or a batch of them into model inputs.

        Content is a string or a list of parts: ``{"type": "text", "text"}`` and ``{"type": "audio", …}`` with a
        ``path``, the ``bytes`` of a file, samples (``audio`` or ``array``, with ``sampling_rate``) or ``codes``. With
        ``tokenize=False`` a bare ``{"type": "audio"}`` keeps a place for a recording that `__call__` gets.

        Args:
            conversation: a list of messages or a `Conversation`, or a list of those.
            chat_template: Jinja source to use instead of the processor's.
            tools: JSON schemas of functions; a `Conversation` brings its own.
            add_generation_prompt: end with the opening of an assistant turn.
            continue_final_message: leave the last message open, so that the model continues it.
            tokenize: False returns the text of the prompt, audio spelt out as tokens but for bare places. Special
                tokens that users wrote cannot be told from structure there.
            return_dict: False returns ``input_ids`` alone.
            return_tensors: "pt", or None for lists (not padded).
            return_assistant_tokens_mask: also return ``assistant_masks``, 1 where the assistant speaks.
            padding: False refuses conversations of different lengths instead of padding them.
            padding_side: "left" for generation.
            max_length: the most tokens; None: the text tokenizer's ``model_max_length``. Longer is an error, never cut.
            sampling_rate: rate in Hz of audio arrays that come without one.
            others: ``processor_kwargs`` of transformers, for ``return_tensors``, ``padding``, ``padding_side``,
                ``max_length`` and ``sampling_rate``; anything that would have no effect is refused.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``[B, S]``; B = 1 for one conversation.

        Raises:
            ConversationError: if a message is malformed; the field is named.
            TooLongError: a ValueError that names the conversation, its tokens and the limit.
            AudioError: if a recording cannot be used.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt opens a turn and continue_final_message keeps one open: use one")
        layout, max_length, sampling_rate = _options(
            return_tensors, padding, padding_side, max_length, sampling_rate, others
        )
        if not tokenize and (max_length is not None or return_assistant_tokens_mask):
            raise ValueError("max_length and return_assistant_tokens_mask are of tokens: leave them out or tokenize")
        named_chats, is_batch = chats_of(conversation)
        template = chat_template or self.chat_template
        if not isinstance(template, str):
            raise ValueError(f"chat_template is {type(template).__name__}: give the Jinja source of one template")
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        if not tokenize:
            prompts = [prompt_with_places(chat, name, tools, sampling_rate) for name, chat in named_chats]
            bare = [is_place for _, is_place in prompts]
            texts = self._encoder.texts([one for one, _ in prompts], bare, template, **options)
            return texts if is_batch else texts[0]
        conversations = [to_conversation(chat, name, tools, sampling_rate) for name, chat in named_chats]
        encoded = self._encoder.conversations(conversations, template, **options)
        self._check_lengths(encoded, max_length)
        batch = layout.batch(encoded, self.pad_token_id)
        if not return_assistant_tokens_mask:
            del batch["assistant_masks"]
        return BatchFeature(batch) if return_dict else batch["input_ids"]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: AudioSource | Sequence[AudioSource] | Sequence[Sequence[AudioSource]] | None = None,
        *,
        audios: Any = None,
        sampling_rate: int | None = None,
        add_special_tokens: bool = True,
        return_tensors: Literal["pt"] | None = "pt",
        padding: bool | str = True,
        padding_side: Literal["left", "right"] = "left",
        max_length: int | None = None,
        **others: Any,
    ) -> BatchFeature:
        """Tokenizes prompts that are written out already, as `apply_chat_template` does with ``tokenize=False``.

        Special tokens in them count.

        Args:
            text: one prompt or several; `audio_token` marks the place of each recording.
            audio: recordings in the order of their places, over all prompts, or a list of them for each prompt: paths,
                bytes of files, samples ``[N]`` or with channels, what ``load_audio`` returns, or codes.
            audios: another name for ``audio``, as other processors have it.
            sampling_rate: rate in Hz of samples.
            add_special_tokens: let the text tokenizer add its own (such as a beginning-of-text token; Qwen has none).
            return_tensors: as for `apply_chat_template`.
            padding: as for `apply_chat_template`.
            padding_side: as for `apply_chat_template`.
            max_length: as for `apply_chat_template`.
            others: ``text_kwargs``, ``audio_kwargs`` and ``common_kwargs`` of transformers, for the arguments above;
                anything that would have no effect is refused.

        Raises:
            TypeError: for an argument without an effect.
            ValueError: if places and recordings differ in number, samples come without their rate, or a prompt is too
                long.
            AudioError: if a recording cannot be used.
        """
        layout, max_length, sampling_rate = _options(
            return_tensors, padding, padding_side, max_length, sampling_rate, others
        )
        texts = prompts_of(text)
        if audio is not None and audios is not None:
            raise ValueError("audio and audios are the same: give one of them")
        recordings = audio_of_prompts(audios if audio is None else audio, texts, sampling_rate)
        encoded = self._encoder.prompts(texts, recordings, add_special_tokens)
        self._check_lengths(encoded, max_length)
        batch = layout.batch(encoded, self.pad_token_id)
        return BatchFeature({name: batch[name] for name in ("input_ids", "attention_mask")})

    # Ids to text, codes and sound

    def codes_of(self, recordings: Sequence[AudioPart]) -> list[list[int]]:
        """The codes of recordings, which go through the audio tokenizer together.

        Raises:
            ValueError: if one gives none, or comes as codes of another audio tokenizer.
            AudioError: if one cannot be used.
        """
        return self._attached.codes_of(recordings)

    def plain_token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as they stand in an answer: special tokens that a text spells are tokenized as plain text."""
        return self._encoder.plain(texts)

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> str:
        """The text of ids ``[S]``; audio tokens are special, so they are left out unless asked for."""
        _refuse_labels(token_ids)
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, token_ids: Any, skip_special_tokens: bool = True, **kwargs: Any) -> list[str]:
        """The texts of several rows of ids, or of a `GenerationResult`; see `decode`, and `split` for the codes."""
        token_ids = getattr(token_ids, "token_ids", token_ids)
        _refuse_labels(token_ids)
        return self.tokenizer.batch_decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def split(self, token_ids: Tensor | Sequence[int]) -> list[TextSegment | AudioSegment]:
        """Cuts ids ``[S]`` into text and audio, in order; broken audio is kept and flagged.

        See `audiollm.chat.segments.split_segments`.
        """
        return split_segments(token_ids, self.vocabulary, self.decode)

    def decode_audio(self, token_ids: Tensor | Sequence[int], **decoding: Any) -> Tensor:
        """The sound in ids ``[S]``; arguments and errors as for `batch_decode_audio`."""
        if isinstance(token_ids, Tensor) and token_ids.dim() != 1:
            raise ValueError(f"ids of shape {list(token_ids.shape)} are several rows: use batch_decode_audio")
        return self.batch_decode_audio([token_ids], **decoding)[0]

    def batch_decode_audio(self, token_ids: Tensor | Sequence[Tensor | Sequence[int]], **decoding: Any) -> list[Tensor]:
        """The sound in several rows of ids.

        Args:
            token_ids: what was generated, without the prompt (whose audio would be decoded too): rows ``[S]``, or a
                `GenerationResult`.
            decoding: as for the audio tokenizer's ``decode``, such as ``speaker``, ``prompt``, ``steps`` and ``seed``.

        Returns:
            float32 ``[N]`` of each row at `output_sample_rate`; several audio segments of a row follow each other.

        Raises:
            ValueError: if a row holds no audio, or the audio tokenizer cannot decode.
        """
        clips_of_rows = []
        token_ids = getattr(token_ids, "token_ids", token_ids)
        if isinstance(token_ids, Tensor) and token_ids.dim() == 1:
            raise ValueError(
                f"ids of shape {list(token_ids.shape)} are one row: use decode_audio, or give a list of rows"
            )
        for index, row in enumerate(token_ids):
            segments = [one for one in self.split(row) if isinstance(one, AudioSegment) and len(one.codes)]
            if not segments:
                raise ValueError(
                    f"row {index} holds no audio tokens: pass ids of an answer in audio, as they were generated (codes "
                    "become sound by audio_tokenizer.decode)"
                )
            clips_of_rows.append([segment.codes for segment in segments])
        waveforms = iter(self._attached.waveforms_of(list(chain.from_iterable(clips_of_rows)), **decoding))
        return [torch.cat([next(waveforms) for _ in clips]) for clips in clips_of_rows]

    @property
    def feature_extractor(self) -> Any:
        """The audio tokenizer's, for programs that ask it for the ``sampling_rate`` of recordings; any rate will do."""
        if not self.has_audio_tokenizer:
            raise AttributeError("this processor has no audio tokenizer, and so no feature extractor")
        return self.audio_tokenizer.feature_extractor  # type: ignore[attr-defined]  # of those that have one

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        """What ``processor_config.json`` holds: no weights, and no path that breaks when the folder moves."""
        codec_path = AUDIO_TOKENIZER_FOLDER if self.has_audio_tokenizer else None
        facts: dict[str, Any] = {"processor_class": type(self).__name__, "codec_path": codec_path}
        fingerprint, layout = self._attached.known_fingerprint, self.vocabulary.layout
        facts |= {} if fingerprint is None else {"codec_fingerprint": fingerprint}
        return facts if layout is None else facts | {"code_layout": layout.to_dict()}

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Writes the text tokenizer, the template, ``processor_config.json`` and ``audio_tokenizer/``, all or nothing.

        Args:
            save_directory: the folder, usually the model's.
            push_to_hub: also upload it; ``kwargs`` go to transformers' upload.

        Raises:
            ValueError: if the audio tokenizer in memory is of a kind that cannot be saved.
        """
        with atomic_entries(save_directory) as staging:
            self._attached.save(staging / AUDIO_TOKENIZER_FOLDER)
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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> AudioLLMProcessor:
        """Loads the one of what `AudioLLM.from_pretrained` takes: "mini", a folder or Hub id, an adapter, a run.

        Arguments as for transformers' ``ProcessorMixin.from_pretrained``.

        Raises:
            ValueError: if a folder is none of these, or holds no processor.
        """
        pretrained_model_name_or_path = find_source(pretrained_model_name_or_path).model
        check_processor_folder(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        # Python that lies beside a model is never run, whatever the caller (such as AutoProcessor) was told.
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs | {"trust_remote_code": False})
        processor = loaded[0] if isinstance(loaded, tuple) else loaded  # with return_unused_kwargs
        if "codec_path" not in kwargs:  # given by the caller, it may lie anywhere
            check_codec_path(Path(pretrained_model_name_or_path) / "processor_config.json", processor.codec_path)
        processor._attached.origin = Origin.from_arguments(pretrained_model_name_or_path, kwargs)
        return loaded

    # Facts that encoding needs

    def _check_lengths(self, encoded: Sequence[EncodedConversation], max_length: int | None) -> None:
        check_lengths(encoded, max_length, self.tokenizer.model_max_length, self.vocabulary)

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows up: the text tokenizer's padding token, else its end-of-sequence token."""
        for token_id in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token_id is not None:
                return token_id
        raise ValueError("the text tokenizer has no padding token: set tokenizer.pad_token")


def _options(
    return_tensors: Any, padding: Any, padding_side: Any, max_length: Any, sampling_rate: Any, others: Mapping[str, Any]
) -> tuple[BatchLayout, int | None, int | None]:
    """The layout of a batch, the most tokens and the rate of samples, wherever they were given."""
    layout = {"return_tensors": return_tensors, "padding": padding, "padding_side": padding_side}
    found = with_options({**layout, "max_length": max_length, "sampling_rate": sampling_rate}, others)
    return BatchLayout(*(found[name] for name in layout)), found["max_length"], found["sampling_rate"]


def _refuse_labels(token_ids: Any) -> None:
    if isinstance(token_ids, (Tensor, np.ndarray)) and bool((token_ids < 0).any()):
        raise ValueError(
            "ids below 0 are no tokens (-100 marks labels without loss): put the padding token in their place"
        )
