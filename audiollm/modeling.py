"""The Audio-LLM: a plain causal LM, its processor, and generation that keeps to the grammar of text and audio.

Nothing is added to the LM itself: its folder is that of a ``Qwen2ForCausalLM`` (or whatever it was), so programs that
know nothing of audio load it too.
"""
# Shapes: B rows, S token ids of the padded prompt, T codes of one segment.

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import create_repo, upload_folder
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation.streamers import BaseStreamer

from audiollm.data.conversation import Conversation, Message, TextPart
from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .generation import (
    AudioSegmentLogitsProcessor,
    RepetitionAwareSampler,
    SamplingSettings,
    check_modalities,
    ends_inside_audio,
    segment_limits,
)
from .processing import AudioLLMProcessor, AudioSegment, AudioSource, Chat, TextSegment, audio_parts
from .vocabulary import AudioVocabulary, extend

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
FinishReason = Literal["stop", "length"]


class ContextError(ValueError):
    """A prompt and its answer are longer than the model's context."""


@dataclass
class GenerationResult:
    """What was generated, one entry per row.

    Attributes:
        token_ids: new ids, int64, up to and with the one that ended the answer.
        texts: the text in them.
        codes: the codes of each audio segment, int64 ``[T]``.
        segments: text and audio in order; malformed audio is flagged there.
        finish_reasons: "stop" if the model ended the answer, "length" if ``max_new_tokens`` cut it.
        waveforms: float32 ``[N]`` of each audio segment; None unless asked for.
        sample_rate: of the waveforms in Hz; None without.
    """

    token_ids: list[Tensor]
    texts: list[str]
    codes: list[list[Tensor]]
    segments: list[list[TextSegment | AudioSegment]]
    finish_reasons: list[FinishReason]
    waveforms: list[list[Tensor]] | None = None
    sample_rate: int | None = None


class AudioLLM:
    """A causal LM that knows audio tokens, with all that turns recordings into prompts and answers into text.

    Args:
        model: the causal LM, extended by an audio vocabulary.
        processor: its processor.

    Raises:
        ValueError: if the model has fewer rows than the text tokenizer has entries.
    """

    def __init__(self, model: PreTrainedModel, processor: AudioLLMProcessor) -> None:
        num_rows = model.get_input_embeddings().weight.shape[0]
        if num_rows < len(processor.tokenizer):
            raise ValueError(
                f"the model has {num_rows} embedding rows for {len(processor.tokenizer)} tokens: weights and text "
                "tokenizer do not belong together; extend the model with AudioLLM.create()"
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
        init: Literal["text", "codebook"] = "text",
        seed: int = 0,
        dtype: torch.dtype | str = "auto",
    ) -> AudioLLM:
        """Makes an Audio-LLM of a text LLM; models and tokenizers given as objects are extended in place.

        Args:
            llm: the text LLM, or the folder or Hub id it is loaded from.
            text_tokenizer: its text tokenizer (a fast one), or where that is; None: where ``llm`` is.
            audio_tokenizer: the audio tokenizer, or where it is.
            init: how the new rows start, see `audiollm.vocabulary.extend`; "codebook" uses the audio tokenizer's.
            seed: of the new rows.
            dtype: of the weights, for an ``llm`` that is loaded; "auto": as stored.

        Raises:
            ValueError: if an argument is missing, ``llm`` is no causal LM, or the tokenizer holds another audio
                vocabulary.
        """
        if text_tokenizer is None:
            if isinstance(llm, PreTrainedModel):
                raise ValueError("llm is a model: give its text_tokenizer too")
            text_tokenizer = llm
        if audio_tokenizer is None:
            raise ValueError("give audio_tokenizer: the codes of an Audio-LLM are those of one audio tokenizer")
        if not isinstance(llm, PreTrainedModel):
            llm = load_text_llm(llm, dtype)
        if not isinstance(text_tokenizer, PreTrainedTokenizerBase):
            text_tokenizer = AutoTokenizer.from_pretrained(text_tokenizer)
        codec: AudioTokenizer
        if isinstance(audio_tokenizer, AudioTokenizer):
            codec = audio_tokenizer
        else:
            codec = UniAudioTokenizer.from_pretrained(os.fspath(audio_tokenizer)).eval()
        codebook: Tensor | None = None
        if init == "codebook":
            if not isinstance(codec, UniAudioTokenizer):
                raise ValueError(f"init='codebook': {type(codec).__name__} shows no codebook, use init='text'")
            codebook = codec.codebook.weight
        extend(llm, text_tokenizer, codec.codebook_size, init=init, codebook=codebook, seed=seed, turn_tokens=True)
        return cls(llm, AudioLLMProcessor(text_tokenizer, audio_tokenizer=codec))

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
        **hub: Any,
    ) -> AudioLLM:
        """Loads an Audio-LLM folder; the audio tokenizer follows when the first recording comes.

        Args:
            path_or_hub_id: what `save_pretrained` wrote, or its Hub id.
            dtype: of the LLM's weights; "auto": as stored.
            device: where LLM and audio tokenizer run; None: the CPU.
            revision: branch, tag or commit on the Hub.
            attn_implementation: "sdpa", "eager", "flash_attention_2" …; None: transformers' choice.
            hub: ``cache_dir``, ``token``, ``local_files_only``, ``force_download``, as in transformers.

        Raises:
            ValueError: if a folder is no Audio-LLM; the message lists what is missing.
        """
        _check_folder(path_or_hub_id)
        revisions = {} if revision is None else {"revision": revision}
        processor = AudioLLMProcessor.from_pretrained(path_or_hub_id, **revisions, **hub)
        model = AutoModelForCausalLM.from_pretrained(
            path_or_hub_id, dtype=dtype, attn_implementation=attn_implementation, **revisions, **hub
        )
        return cls(model.eval(), processor).to(device or "cpu")

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Writes a folder that `from_pretrained` loads; a failure leaves what was there before.

        Args:
            folder: where to; files of an older model in it are replaced.
            state_dict: weights to write in place of the model's own (such as those gathered from shards).
        """
        target = Path(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as staging:
            if state_dict is None:
                self.model.save_pretrained(staging)
            else:
                self.model.save_pretrained(staging, state_dict=dict(state_dict))
            self.processor.save_pretrained(staging)
            target.mkdir(exist_ok=True)
            for stale in target.glob("model*.safetensors*"):
                stale.unlink()
            for entry in Path(staging).iterdir():
                if entry.is_dir() and (target / entry.name).exists():
                    shutil.rmtree(target / entry.name)
                os.replace(entry, target / entry.name)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, commit_message: str = "Upload") -> None:
        """Uploads the folder that `save_pretrained` writes to the Hub repository ``repo_id``."""
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "model"
            self.save_pretrained(folder)
            create_repo(repo_id, private=private, exist_ok=True)
            upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)

    # Facts

    @property
    def vocabulary(self) -> AudioVocabulary:
        """Where the audio tokens lie."""
        return self.processor.vocabulary

    @property
    def device(self) -> torch.device:
        """Where the LLM runs."""
        return self.model.device

    def to(self, device: torch.device | str) -> AudioLLM:
        """Moves LLM and audio tokenizer (also one that is loaded later)."""
        self.model.to(device)
        self.processor.audio_device = device
        return self

    # Use

    def ask(
        self,
        audio: AudioSource | Sequence[AudioSource],
        question: str,
        *,
        sampling_rate: int | None = None,
        **generation: Any,
    ) -> str:
        """Asks something about a recording (or several) and returns the answer's text.

        Args:
            audio: path, bytes of a file, samples or codes; a list of them for several recordings.
            question: the request.
            sampling_rate: rate in Hz of samples.
            generation: as for `generate`.
        """
        user = Message("user", [*audio_parts(audio, sampling_rate), TextPart(question)])
        return self.chat(Conversation("question", [user]), **generation).texts[0]

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

    def generate(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        modalities: Collection[str] = ("text",),
        max_new_tokens: int = 256,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_window: int | None = None,
        repetition_threshold: float | None = None,
        seed: int | None = None,
        return_waveforms: bool = False,
        streamer: BaseStreamer | None = None,
        **generate_kwargs: Any,
    ) -> GenerationResult:
        """Generates answers in text, audio or both.

        The checkpoint's own sampling settings and repetition penalty are not used: a penalty would also count the
        prompt's audio. Text alone is greedy unless told otherwise; audio is sampled, since greedy codes get stuck.

        Args:
            input_ids: prompts padded on the left, int64 ``[B, S]``.
            attention_mask: 1 for real tokens, ``[B, S]``; None if all are.
            modalities: what may be generated: {"text"}, {"audio"} (one segment) or {"text", "audio"}.
            max_new_tokens: longest answer.
            min_seconds: shortest audio segment.
            max_seconds: longest audio segment.
            do_sample: draw, or take the most likely token; None: draw for audio, and if a setting below is given.
            temperature: see `SamplingSettings`, as the next four; None: its default.
            top_k: among how many tokens to draw.
            top_p: share of the probability to draw from.
            repetition_window: how many codes repetition-aware sampling looks back.
            repetition_threshold: share of them that a code may fill.
            seed: of the draws; None: torch's global state.
            return_waveforms: also decode the codes.
            streamer: gets the ids as they come, for one row; such as `audiollm.generation.SegmentStreamer`.
            generate_kwargs: passed on to transformers' ``generate``, such as ``num_beams`` or ``stopping_criteria``.

        Raises:
            ValueError: if settings contradict each other, the context is too short, or a waveform is asked of an audio
                tokenizer that has no decoder.
        """
        allowed = check_modalities(modalities)
        given = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_window": repetition_window,
            "repetition_threshold": repetition_threshold,
        }
        sampling = _sampling(do_sample, {key: value for key, value in given.items() if value is not None}, allowed)
        if return_waveforms and not self.processor.audio_tokenizer.can_decode:
            raise ValueError(
                "return_waveforms=True, but this audio tokenizer has no waveform decoder: leave it out to get codes"
            )
        num_answers = generate_kwargs.get("num_return_sequences", 1)
        if sampling is not None:  # to transformers the search is greedy, which gives one answer per row
            generate_kwargs.pop("num_return_sequences", None)
            input_ids = input_ids.repeat_interleave(num_answers, dim=0)
            attention_mask = None if attention_mask is None else attention_mask.repeat_interleave(num_answers, dim=0)
        input_ids = input_ids.to(self.device)
        prompt_length = input_ids.shape[1]
        self._check_context(prompt_length, max_new_tokens)
        is_inside = ends_inside_audio(input_ids, self.vocabulary)
        if allowed == {"text"} and bool(is_inside.any()):
            raise ValueError("the prompt ends inside an audio segment, where no text can follow: allow 'audio' too")
        processors = self._processors(allowed, prompt_length, (min_seconds, max_seconds), sampling, seed)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(self.device),
            generation_config=self._generation_config(max_new_tokens, sampling, generate_kwargs),
            logits_processor=LogitsProcessorList([*generate_kwargs.pop("logits_processor", []), *processors]),
            streamer=streamer,
            **generate_kwargs,
        )
        sequences = output if isinstance(output, Tensor) else output.sequences
        is_inside = is_inside.repeat_interleave(sequences.shape[0] // input_ids.shape[0])
        result = self._read(sequences[:, prompt_length:].cpu(), is_inside.tolist(), max_new_tokens)
        if return_waveforms:
            self._decode(result)
        return result

    def _processors(
        self,
        allowed: frozenset[str],
        prompt_length: int,
        seconds: tuple[float | None, float | None],
        sampling: SamplingSettings | None,
        seed: int | None,
    ) -> LogitsProcessorList:
        """The grammar and, to draw, the sampler, which must come last."""
        min_codes, max_codes = 1, None
        if seconds != (None, None):
            min_codes, max_codes = segment_limits(*seconds, self.processor.audio_tokenizer.frame_rate)
        grammar = AudioSegmentLogitsProcessor(
            self.vocabulary,
            allowed,
            num_tokens=len(self.processor.tokenizer),
            eos_token_ids=self._eos_token_ids,
            prompt_length=prompt_length,
            min_codes=min_codes,
            max_codes=max_codes,
        )
        if sampling is None:
            return LogitsProcessorList([grammar])
        sampler = RepetitionAwareSampler(self.vocabulary, sampling, seed=seed, prompt_length=prompt_length)
        return LogitsProcessorList([grammar, sampler])

    def _generation_config(
        self, max_new_tokens: int, sampling: SamplingSettings | None, generate_kwargs: dict[str, Any]
    ) -> GenerationConfig:
        """A config in which our processors alone decide how to draw; takes its own settings out of the arguments."""
        own = self.model.generation_config
        settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "eos_token_id": self._eos_token_ids or None,
            "pad_token_id": own.pad_token_id if own.pad_token_id is not None else self.processor.pad_token_id,
            "bos_token_id": own.bos_token_id,
            # Written out, for what is left open is taken from the checkpoint's own settings.
            "do_sample": False,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
        }
        known = vars(GenerationConfig())
        settings |= {name: generate_kwargs.pop(name) for name in list(generate_kwargs) if name in known}
        if sampling is not None and (settings.get("num_beams") or 1) > 1:
            raise ValueError("beam search takes the most likely tokens: pass do_sample=False, or num_beams=1 to draw")
        return GenerationConfig(**settings)

    @property
    def _eos_token_ids(self) -> list[int]:
        eos: Any = self.model.generation_config.eos_token_id
        if eos is None:
            eos = self.processor.tokenizer.eos_token_id
        return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)

    def _check_context(self, prompt_length: int, max_new_tokens: int) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and prompt_length + max_new_tokens > context:
            raise ContextError(
                f"the prompt has {prompt_length} tokens and max_new_tokens={max_new_tokens}, but the context holds "
                f"{context}: shorten the recording or ask for a shorter answer"
            )

    def _read(self, new_ids_BS: Tensor, is_inside: Sequence[bool], max_new_tokens: int) -> GenerationResult:
        """Cuts each row behind the id that ended it and takes it apart."""
        result = GenerationResult([], [], [], [], [])
        eos = torch.tensor(self._eos_token_ids, dtype=torch.long)
        for row_S, starts_inside in zip(new_ids_BS, is_inside, strict=True):
            ends = torch.isin(row_S, eos).nonzero()
            token_ids = row_S[: int(ends[0]) + 1] if len(ends) else row_S
            is_cut = not len(ends) and len(row_S) >= max_new_tokens
            opening = [self.vocabulary.start_id] if starts_inside else []
            segments = self.processor.split([*opening, *token_ids.tolist()])
            result.token_ids.append(token_ids)
            result.texts.append(self.processor.decode(token_ids.tolist()))
            result.codes.append([segment.codes for segment in segments if isinstance(segment, AudioSegment)])
            result.segments.append(segments)
            result.finish_reasons.append("length" if is_cut else "stop")
        return result

    def _decode(self, result: GenerationResult) -> None:
        """Turns all codes of all rows into sound in one batch."""
        audio_tokenizer = self.processor.audio_tokenizer
        clips = [codes for row in result.codes for codes in row]
        decoded = iter(audio_tokenizer.decode(Codes.from_list([codes[None] for codes in clips])) if clips else [])
        result.waveforms = [[next(decoded) for _ in row] for row in result.codes]
        result.sample_rate = audio_tokenizer.output_sample_rate


def _sampling(do_sample: bool | None, given: dict[str, Any], modalities: Collection[str]) -> SamplingSettings | None:
    """How to draw; None for greedy."""
    if do_sample is None:
        do_sample = bool(given) or "audio" in modalities
    if not do_sample and given:
        raise ValueError(f"do_sample=False takes the most likely token, so leave out {', '.join(given)}")
    return SamplingSettings(**given) if do_sample else None


def _check_folder(path_or_hub_id: str | os.PathLike[str]) -> None:
    """Refuses a local folder that is no Audio-LLM, naming everything that is missing; Hub ids are left to the Hub."""
    folder = Path(path_or_hub_id)
    if not folder.is_dir():
        looks_like_path = folder.is_absolute() or os.fspath(path_or_hub_id).startswith((".", "~")) or folder.exists()
        if looks_like_path or len(folder.parts) > 2:
            raise ValueError(f"{folder} is no folder: give an Audio-LLM folder or a Hub id such as owner/name")
        return
    missing = [
        name for name in ("config.json", "tokenizer.json", "processor_config.json") if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        missing.append(WEIGHT_FILES[0])
    codec_path = None
    if (folder / "processor_config.json").is_file():
        codec_path = json.loads((folder / "processor_config.json").read_text(encoding="utf-8")).get("codec_path")
    if codec_path is not None and not (folder / codec_path).is_dir() and not Path(codec_path).is_absolute():
        missing.append(f"{codec_path}/")
    if not missing:
        return
    hint = "make an Audio-LLM of a text LLM with AudioLLM.create() or `audiollm extend`"
    if (folder / "adapter_config.json").is_file():
        hint = "it holds a LoRA adapter: load the model that the adapter was merged into"
    elif {"processor_config.json", "tokenizer.json"} <= set(missing) and "config.json" not in missing:
        hint = "is it an audio tokenizer or a bare model? " + hint
    raise ValueError(f"{folder} is no Audio-LLM folder, it has no {', '.join(missing)}: {hint}")


def load_text_llm(path_or_hub_id: str | os.PathLike[str], dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    """Loads a causal LM, all of it: transformers would draw missing weights at random and only warn.

    Raises:
        ValueError: if the checkpoint lacks weights that a causal LM of its type has.
    """
    model, report = AutoModelForCausalLM.from_pretrained(path_or_hub_id, dtype=dtype, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{path_or_hub_id} is no causal LM: it lacks {len(missing)} weights of a {type(model).__name__}, such as "
            f"{missing[0]}; name a text LLM such as Qwen/Qwen2.5-0.5B"
        )
    return model
