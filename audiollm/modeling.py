"""The Audio-LLM: a plain causal LM, its processor, and generation that keeps to the grammar of text and audio.

Nothing is added to the LM itself: its folder is that of a ``Qwen2ForCausalLM`` (or whatever it was), so programs that
know nothing of audio load it too.
"""
# Shapes: B rows, S token ids of the padded prompt, T codes of one segment.

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from audiollm.chat.input import AudioSource, Chat, audio_parts
from audiollm.data.conversation.types import Conversation, Message, TextPart
from audiollm.data.files.atomic import atomic_entries
from audiollm.generation.decoding import DecodingSettings, SpeechDecoder
from audiollm.generation.passed_on import (
    audio_sampling_of_checkpoint,
    ignored_of_checkpoint,
    speaks_in_turns,
    spoken_characters,
)
from audiollm.generation.request import GenerationRequest
from audiollm.generation.result import GenerationResult, cut_notice
from audiollm.generation.settings import GenerationSettings, takes_settings
from audiollm.generation.streaming import AnswerStream
from audiollm.generation.values import check_values
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.checkpoints.folders import HUB_OPTIONS
from audiollm.tokenizer.checkpoints.hub import push_saved
from audiollm.tokenizer.int8 import to_int8
from audiollm.tokenizer.layout import CodeOrder
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.sequence import SequenceTokenizer, as_one_row

from .folders import check_folder, check_text_llm
from .loading import (
    check_reachable,
    check_settings,
    fastest_dtype_of,
    load_causal_lm,
    load_text_tokenizer,
    refuse_quantized,
    refused_by_transformers,
)
from .processing.processor import AudioLLMProcessor
from .sources.places import find_source
from .vocabulary import CONFIG_KEY, AudioVocabulary, extend

logger = logging.getLogger(__name__)


_INSTEAD = {
    "torch_dtype": "give dtype",
    "device_map": "give device",
    "quantization_config": "load the LLM with AutoModelForCausalLM, and give it to AudioLLM(model, processor)",
    "trust_remote_code": "leave it out, code beside a model is never run",
}
"""What transformers calls otherwise."""


def _check_hub_options(options: Mapping[str, Any]) -> None:
    for name in options.keys() - set(HUB_OPTIONS):
        instead = _INSTEAD.get(name, f"known are {', '.join(HUB_OPTIONS)}")
        raise ValueError(f"from_pretrained() of an AudioLLM takes no {name}: {instead}")


def shows_codebook(audio_tokenizer: AudioTokenizer) -> bool:
    """Whether new rows can start like the entries of its codebook (``init="codebook"``)."""
    return isinstance(audio_tokenizer, UniAudioTokenizer)


def question_about(
    audio: AudioSource | Sequence[AudioSource], question: str, sample_rate: int | None = None
) -> Conversation:
    """The conversation of `AudioLLM.ask`, whose arguments these are."""
    if not isinstance(question, str):
        raise ValueError(f"question is of type {type(question).__name__}: ask one question, or use chat() for a batch")
    parts = audio_parts(audio, sample_rate)
    if not parts:
        raise ValueError("audio is an empty list: give a recording")
    return Conversation("question", [Message("user", [*parts, TextPart(question)])])


class AudioLLM:
    """A causal LM that knows audio tokens, with all that turns recordings into prompts and answers into text.

    Args:
        model: the causal LM, extended by an audio vocabulary.
        processor: its processor.

    Raises:
        ValueError: if the model has fewer rows than the text tokenizer has entries, or was extended for codes in
            another layout than the processor's.
    """

    def __init__(self, model: PreTrainedModel, processor: AudioLLMProcessor | None = None) -> None:
        if not isinstance(processor, AudioLLMProcessor) or not hasattr(model, "get_input_embeddings"):
            raise ValueError(
                f"AudioLLM() takes a causal LM and its AudioLLMProcessor, not {type(model).__name__} and "
                f"{type(processor).__name__}: AudioLLM.from_pretrained(folder) loads both, AudioLLM.create() makes them"
            )
        num_rows = model.get_input_embeddings().weight.shape[0]
        if num_rows < len(processor.tokenizer):
            raise ValueError(
                f"the model has {num_rows} embedding rows for {len(processor.tokenizer)} tokens: weights and text "
                "tokenizer do not belong together; extend the model with AudioLLM.create()"
            )
        noted = getattr(model.config, CONFIG_KEY, None)
        if noted is not None and noted.get("layout") != processor.vocabulary.to_dict().get("layout"):
            raise ValueError(
                f"the model was extended for codes in the layout {noted.get('layout')}, and its processor has "
                f"{processor.vocabulary.to_dict().get('layout')}: use the audio tokenizer, codebooks and code_order "
                "that it was extended for; load both from the same folder"
            )
        self.model = model
        self.processor = processor

    # Construction

    @classmethod
    def create(
        cls,
        llm: PreTrainedModel | str | os.PathLike[str],
        text_tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str] | None = None,
        audio_tokenizer: AudioTokenizer | str | os.PathLike[str] | None = None,
        *,
        codebooks: int | None = None,
        code_order: CodeOrder = "flat",
        init: Literal["text", "codebook"] = "text",
        seed: int = 0,
        dtype: torch.dtype | str = "auto",
    ) -> AudioLLM:
        """Makes an Audio-LLM of a text LLM; models and tokenizers given as objects are extended in place.

        Args:
            llm: the text LLM, or the folder or Hub id it is loaded from.
            text_tokenizer: its text tokenizer (a fast one), or where that is; None: where ``llm`` is.
            audio_tokenizer: the audio tokenizer, of any kind that has codes, or where it is.
            codebooks: use the first so many of its codebooks; None: all.
            code_order: how the codes of several codebooks follow each other: ``flat`` (frame by frame) or ``delay``,
                see `audiollm.tokenizer.layout`; one codebook has nothing to order.
            init: how the new rows start, see `audiollm.vocabulary.extend`; "codebook" uses the audio tokenizer's.
            seed: of the new rows.
            dtype: of the weights, for an ``llm`` that is loaded; "auto": as stored.

        Raises:
            ValueError: if an argument is missing, ``llm`` is no causal LM or names an Audio-LLM, or the tokenizer holds
                another audio vocabulary.
        """
        if text_tokenizer is None:
            if isinstance(llm, PreTrainedModel):
                raise ValueError("llm is a model: give its text_tokenizer too")
            text_tokenizer = llm
        if audio_tokenizer is None:
            raise ValueError("give audio_tokenizer: the codes of an Audio-LLM are those of one audio tokenizer")
        if not isinstance(llm, PreTrainedModel):
            check_text_llm(llm)
            llm = load_causal_lm(llm, dtype=dtype)
        if not isinstance(text_tokenizer, PreTrainedTokenizerBase):
            text_tokenizer = load_text_tokenizer(text_tokenizer)
        loaded_tokenizer: AudioTokenizer
        if isinstance(audio_tokenizer, AudioTokenizer):
            loaded_tokenizer = audio_tokenizer
        else:
            loaded_tokenizer = AudioTokenizer.from_pretrained(os.fspath(audio_tokenizer))
            if isinstance(loaded_tokenizer, nn.Module):
                loaded_tokenizer.eval()
        loaded_tokenizer = as_one_row(loaded_tokenizer, codebooks, code_order)
        codebook: Tensor | None = None
        if init == "codebook":
            if not shows_codebook(loaded_tokenizer):
                raise ValueError(
                    f"init='codebook': {type(loaded_tokenizer).__name__} shows no codebook; use init='text'"
                )
            codebook = loaded_tokenizer.codebook.points()  # type: ignore[attr-defined]  # of those that show one
        extend(
            llm,
            text_tokenizer,
            loaded_tokenizer.codebook_size,
            layout=loaded_tokenizer.layout if isinstance(loaded_tokenizer, SequenceTokenizer) else None,
            init=init,
            codebook=codebook,
            seed=seed,
            turn_tokens=True,
        )
        return cls(llm, AudioLLMProcessor(text_tokenizer, audio_tokenizer=loaded_tokenizer))

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str] | None = None,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
        **hub: Any,
    ) -> AudioLLM:
        """Loads an Audio-LLM; the audio tokenizer follows when the first recording comes.

        Args:
            path_or_hub_id: what `save_pretrained` wrote, or its Hub id. None, or "mini": the small model that comes
                with this package. Also the folder of a run of ``training/sft.py`` (its trained model), of an adapter
                (merged into the Audio-LLM that it names), or of a checkpoint (its weights in the model of the run).
            dtype: of the LLM's weights; "auto": as stored; "fastest": float32 or bfloat16, whichever this machine
                writes tokens faster in, as a short trial says that is made once.
            device: where LLM and audio tokenizer run; None: the CPU.
            revision: branch, tag or commit on the Hub.
            attn_implementation: "sdpa", "eager", "flash_attention_2" …; None: transformers' choice.
            hub: ``cache_dir``, ``token``, ``local_files_only``, ``force_download``, as in transformers.

        Raises:
            ValueError: if a folder is no Audio-LLM, or a file in it is damaged, or weights are missing, unexpected,
                misshapen or no numbers; the message names them. Looking for NaN reads the weights once.
        """
        _check_hub_options(hub)
        source = find_source(path_or_hub_id)
        path_or_hub_id = source.model
        check_folder(path_or_hub_id)
        check_settings(Path(path_or_hub_id))
        revisions = {} if revision is None else {"revision": revision}
        check_reachable(path_or_hub_id, **revisions, **hub)
        with refused_by_transformers(path_or_hub_id):
            processor = AudioLLMProcessor.from_pretrained(path_or_hub_id, **revisions, **hub)
        if dtype == "fastest":
            dtype = fastest_dtype_of(path_or_hub_id, str(device or "cpu"), **revisions, **hub)
        model = load_causal_lm(path_or_hub_id, dtype=dtype, attn_implementation=attn_implementation, **revisions, **hub)
        if getattr(model, "is_quantized", False) and dtype not in ("auto", model.dtype, str(model.dtype)[6:]):
            logger.warning(
                "%s is quantized and computes in %s; dtype=%s is not used", path_or_hub_id, model.dtype, dtype
            )
        # Refused now, not with the first sound.
        audio_sampling_of_checkpoint(model.generation_config)
        speaks_in_turns(model.generation_config)
        spoken_characters(model.generation_config)
        ignored = ignored_of_checkpoint(model.generation_config)
        if ignored:
            settings = ", ".join(f"{name}={value}" for name, value in ignored.items())
            logger.warning(
                "%s: generation_config.json holds settings that answers do not take from it; give generate() those to "
                "have them: %s",
                path_or_hub_id,
                settings,
            )
        return cls(source.applied_to(model).eval(), processor).to(device or "cpu")

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Writes a folder that `from_pretrained` loads; a failure leaves what was there before.

        Args:
            folder: where to; files of an older model in it are replaced.
            state_dict: weights to write in place of the model's own (such as those gathered from shards).

        Raises:
            ValueError: if the LLM is one that was rounded when it was exported, and then loaded.
        """
        # Other files stay, such as a model card; parts of older weights would be found before the new single file.
        with atomic_entries(folder, outdated=["model*.safetensors*"]) as staging:
            if state_dict is None:
                self._save_model(staging)
            else:
                self.model.save_pretrained(staging, state_dict=dict(state_dict))
            self.processor.save_pretrained(staging)

    def _save_model(self, folder: Path) -> None:
        try:
            self.model.save_pretrained(folder)
        except NotImplementedError:  # transformers' answer to rounded weights that it has read from a file
            refuse_quantized(self.model, self.model.name_or_path, "saved again (its folder can be copied)")
            raise

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads the folder that `save_pretrained` writes, and a basic card; `audiollm push` takes a folder's own.

        Args:
            repo_id: ``owner/name``, or a name under the token's owner; the repository is made if it is not there.
            options: ``token``, ``revision``, ``tags``, ``private``, ``commit_message`` …: see
                `audiollm.tokenizer.checkpoints.hub.push_files`.

        Returns:
            The address of the repository.

        Raises:
            ValueError: without a token, or where the Hub refuses; nothing is written before a token is there.
        """
        return push_saved(self.save_pretrained, repo_id, "audio_llm", **options)

    def to_int8(self) -> AudioLLM:
        """Computes the linear layers of the LLM in 8-bit integers from now on, in place, on processors alone.

        See `audiollm.tokenizer.int8`. The audio tokenizer stays as it is; the LLM can no longer be trained or saved.

        Raises:
            ValueError: if this machine cannot, or the LLM is on a GPU, or was rounded when it was exported.
        """
        refuse_quantized(self.model, self.model.name_or_path, "rounded again")
        to_int8(self.model)
        return self

    # Facts

    @property
    def vocabulary(self) -> AudioVocabulary:
        """Where the audio tokens lie."""
        return self.processor.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the LLM runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the LLM's weights."""
        return self.model.dtype

    @property
    def speaks_in_turns(self) -> bool:
        """Whether it was trained to write a word, then to speak it, before the next: ``"speaks_in_turns": true`` in its
        ``generation_config.json``. Then `audiollm.speaking` asks for that, and an answer is one sound."""
        return speaks_in_turns(self.model.generation_config)

    @property
    def spoken_characters(self) -> frozenset[str] | None:
        """The letters and digits, in small, that it learned to say: ``"spoken_characters"`` in its
        ``generation_config.json``. None where that does not tell."""
        return spoken_characters(self.model.generation_config)

    def __repr__(self) -> str:
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        listens = "no audio tokenizer (takes codes)" if not self.processor.has_audio_tokenizer else "audio tokenizer"
        return (
            f"AudioLLM({type(self.model).__name__}, {num_parameters / 1e6:,.1f} M parameters, {self.dtype} on "
            f"{self.device}, {self.vocabulary.codebook_size} codes, {listens})"
        )

    if not TYPE_CHECKING:  # which would then take every name for one of ours

        def __getattr__(self, name: str) -> NoReturn:
            cure = f": use .model.{name}, of the LLM inside" if hasattr(self.__dict__.get("model"), name) else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{cure}", name=name, obj=self)

    # As a module of torch has them; the audio tokenizer is not trained along

    def __call__(self, *arguments: Any, **inputs: Any) -> Any:
        """The LLM's own outputs, such as ``loss`` and ``logits``."""
        return self.model(*arguments, **inputs)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The LLM's weights."""
        return self.model.parameters()

    def train(self, mode: bool = True) -> AudioLLM:
        """Puts the LLM into training mode."""
        self.model.train(mode)
        return self

    def eval(self) -> AudioLLM:
        """Puts the LLM into evaluation mode, in which it is loaded."""
        return self.train(False)

    def to(
        self, device: torch.device | str | int | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> AudioLLM:
        """Moves LLM and audio tokenizer (also one that is loaded later), or casts the LLM's weights.

        Args:
            device: where to; a dtype here is one for ``dtype``.
            dtype: for the LLM alone: the audio tokenizer stays as it is, since lower precision changes some codes.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None:
            self.model.to(dtype=dtype)
        if device is not None:
            self.model.to(device)
            self.processor.audio_device = torch.device(device)
        return self

    # Use

    def ask(
        self,
        audio: AudioSource | Sequence[AudioSource],
        question: str,
        *,
        sample_rate: int | None = None,
        **generation: Any,
    ) -> str:
        """Asks something about a recording (or several) and returns the answer's text; warns if a limit cut it.

        Args:
            audio: path, bytes of a file, samples (with their rate: what ``load_audio`` returns) or codes; a list of
                them for several recordings.
            question: the request.
            sample_rate: rate in Hz of samples that come without one.
            generation: as for `generate`.
        """
        result = self.chat(question_about(audio, question, sample_rate), **generation)
        if result.finish_reasons[0] == "length":
            told = cut_notice("the answer", f"{len(result.token_ids[0])} tokens", "max_new_tokens")
            logger.warning("%s; chat() tells by finish_reasons which were cut", told)
        return result.texts[0]

    def chat(
        self, messages: Chat | Sequence[Chat], *, tools: list[dict[str, Any]] | None = None, **generation: Any
    ) -> GenerationResult:
        """Answers a conversation, or each of a batch.

        Args:
            messages: as for `AudioLLMProcessor.apply_chat_template`; audio by path, bytes, samples or codes.
            tools: JSON schemas of functions that the model may call.
            generation: as for `generate`.
        """
        inputs: Any = self.processor.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
        return self.generate(**inputs, **generation)

    def stream_chat(
        self, messages: Chat, *, tools: list[dict[str, Any]] | None = None, **generation: Any
    ) -> AnswerStream:
        """Answers one conversation piece by piece.

        Args:
            messages: as for `chat`, one conversation.
            tools: as for `chat`.
            generation: as for `stream`.
        """
        inputs: Any = self.processor.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
        return self.stream(**inputs, **generation)

    @takes_settings
    def generate(
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        return_waveforms: bool | None = None,
        decoding: DecodingSettings | None = None,
        streamer: BaseStreamer | None = None,
        **settings: Any,
    ) -> GenerationResult:
        """Generates answers in text, audio or both.

        The checkpoint's own sampling settings and repetition penalty are not used: a penalty would also count the
        prompt's audio. Text alone is greedy unless told otherwise; audio is sampled, since greedy codes get stuck: as
        ``audio_sampling`` in the checkpoint's ``generation_config.json`` says, where nothing else is asked for.

        Args:
            input_ids: prompts padded on the left, int64 ``[B, S]``.
            attention_mask: 1 for real tokens, ``[B, S]``; None if all are.
            return_waveforms: also decode the codes; None: if audio may be generated and the audio tokenizer can.
            decoding: whose voice it is, and details of the waveform decoder.
            streamer: gets the ids as they come, for one row; `stream` is the easier way.
            settings: what may be generated (``modalities``), how much (``max_new_tokens``, ``min_seconds``,
                ``max_seconds``) and how it is drawn (``do_sample``, ``seed``, ``temperature``, ``top_p``, …): those of
                `GenerationSettings` and `SamplingSettings`. Others go to transformers' ``generate``, such as
                ``num_beams``, ``stop_strings`` or ``stopping_criteria``; a ``generation_config`` may hold any of them,
                and arguments count before it.

        Raises:
            ValueError: if settings contradict each other, one (it is named) would have no effect, or a waveform is
                asked of an audio tokenizer that has no decoder.
            ContextError: a ValueError; the context is too short.
        """
        if not isinstance(input_ids, Tensor):
            raise ValueError(
                f"input_ids are of type {type(input_ids).__name__}: give what the processor returns, generate(**inputs)"
            )
        check_values({"return_waveforms": return_waveforms, "streamer": streamer})
        request = self._request(input_ids, attention_mask, settings)
        decoder = self._speech_decoder(request, return_waveforms, decoding)
        result = request.run(streamer)
        if decoder is not None:
            result.waveforms, result.sample_rate = decoder.decode(result.codes), decoder.sample_rate
        return result

    def stream(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoding: DecodingSettings | None = None,
        chunk_codes: int = 1,
        sound_only: bool = False,
        **generation: Any,
    ) -> AnswerStream:
        """Generates one answer and gives it out while it comes: text in whole characters, audio as samples.

        Settings are checked at once; the model starts when the first piece is asked for. The sound of a segment does
        not depend on how its codes arrive, but may differ a little from what `generate` decodes in one piece.

        Args:
            input_ids: one prompt, int64 ``[1, S]``.
            attention_mask: as for `generate`.
            decoding: whose voice it is, and details of the waveform decoder.
            chunk_codes: codes to collect before the decoder gets them.
            sound_only: give out no text; the result holds it.
            generation: as for `generate`, but for ``return_waveforms`` and ``streamer``.

        Returns:
            An iterator of `StreamedText` and `StreamedAudio`; its ``result`` holds the whole answer at the end. Use it
            in a ``with`` block to stop the model when the block is left early.

        Raises:
            ValueError: as for `generate`; or if there is more than one prompt, or audio that nothing could decode.
        """
        request = self._request(input_ids, attention_mask, generation)
        if request.num_answers != 1:
            raise ValueError(f"a stream follows one answer, not {request.num_answers}: generate rows one by one")
        decoder = self._speech_decoder(request, "audio" in request.modalities, decoding)
        return AnswerStream(request.run, self.processor, decoder, chunk_codes, sound_only=sound_only)

    def _request(
        self, input_ids: Tensor, attention_mask: Tensor | None, arguments: Mapping[str, Any]
    ) -> GenerationRequest:
        settings = GenerationSettings.of(arguments)
        settings = settings.with_audio_sampling(audio_sampling_of_checkpoint(self.model.generation_config))
        return GenerationRequest.of(
            self.model, self.processor, input_ids=input_ids, attention_mask=attention_mask, settings=settings
        )

    def _speech_decoder(
        self, request: GenerationRequest, return_waveforms: bool | None, settings: DecodingSettings | None
    ) -> SpeechDecoder | None:
        """What will decode the answer; None if nothing will."""
        if return_waveforms is None:
            return_waveforms = "audio" in request.modalities and (
                settings is not None
                or (self.processor.has_audio_tokenizer and self.processor.audio_tokenizer.can_decode)
            )
        if not return_waveforms:
            if settings is not None:
                raise ValueError(
                    "decoding settings are given, but nothing will be decoded: ask for audio, and for sound"
                )
            return None
        return SpeechDecoder(
            self.processor.audio_tokenizer,
            settings,
            request.num_prompts,
            joins_segments=self.speaks_in_turns or request.is_in_turns,
        )
