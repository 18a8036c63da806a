"""Speaking: a text, a voice in words, and the sound of it; in one piece, in batches or as a stream.

The voice can be asked of the model in words ("an elderly man, slowly"), given to the decoder as a speaker vector, or
taken over from a recording; words and one of the others go together.
"""
# Shapes: N samples, T codes, S size of a speaker vector.

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from audiollm.chat.input import AudioSource
from audiollm.data.audio.playing import audio_html
from audiollm.data.audio.writing import save_audio
from audiollm.data.conversation.types import Conversation, Message, TextPart
from audiollm.data.voices.instructions import VocalAttributes, describe_voice, speech_request
from audiollm.generation.decoding import DecodingSettings
from audiollm.generation.passed_on import speaks_in_turns, spoken_characters
from audiollm.generation.result import FinishReason
from audiollm.generation.streaming import AnswerStream
from audiollm.generation.turns import turns_of
from audiollm.tokenizer.decoder.inputs import Quality

from .modeling import AudioLLM

Voice = str | VocalAttributes
TASK = "speak"
_SHOWN_CHARACTERS = 12
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SpeechResult:
    """A spoken text.

    Attributes:
        waveform: float32 in [-1, 1], ``[N]``.
        sample_rate: in Hz.
        text: what was to be said.
        codes: what the model generated, int64 ``[T]``.
        voice: the voice in words, as the model was asked; None if it was not.
        prompt_id: the wording of the request.
        finish_reason: "stop" if the model ended the sound itself, "length" if a limit cut it.
    """

    waveform: Tensor
    sample_rate: int
    text: str
    codes: Tensor
    voice: str | None
    prompt_id: str
    finish_reason: FinishReason

    @property
    def duration_seconds(self) -> float:
        """How long it takes."""
        return len(self.waveform) / self.sample_rate

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as ``.wav``, ``.flac`` or ``.ogg``; errors as for `audiollm.data.audio.writing.save_audio`."""
        save_audio(path, self.waveform, self.sample_rate)

    def _repr_html_(self) -> str:
        """A player, for notebooks."""
        return audio_html(self.waveform, self.sample_rate, self.text)


def speak(
    model: AudioLLM,
    text: str,
    voice: Voice | None = None,
    *,
    speaker: Tensor | Sequence[float] | None = None,
    prompt_audio: AudioSource | None = None,
    sample_rate: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    quality: Quality | None = None,
    key: str | None = None,
    **generation: Any,
) -> SpeechResult:
    """Speaks a text.

    Args:
        model: an Audio-LLM whose audio tokenizer can decode.
        text: what to say.
        voice: who says it and how: words, which the model gets as they are, or attributes, which are put into words.
        speaker: a speaker encoder's vector for the decoder, ``[S]``.
        prompt_audio: a recording whose voice the decoder takes over: path, bytes of a file, or samples.
        sample_rate: rate in Hz of ``prompt_audio`` that comes as samples.
        steps: evaluations of the decoder's flow model; None: those of the quality.
        guidance: strength of its guidance; None: its default.
        quality: ``fast``, which is what None means where the decoder offers it, or ``exact``, as published: see
            `FlowSettings`.
        key: varies the wording of request and attributes; None: the standard ones.
        generation: as for `AudioLLM.generate`, such as ``min_seconds``, ``max_seconds``, ``temperature`` and ``seed``;
            a ``seed`` is the decoder's too.

    Raises:
        ValueError: if the text or the voice is empty, or the model cannot speak.
        AudioError: if the recording cannot be used.
    """
    if not isinstance(text, str):
        raise ValueError(f"text is of type {type(text).__name__}: give one text, or use speak_many() for several")
    decoding = _decoding(generation, speaker, prompt_audio, sample_rate, steps, guidance, quality)
    return speak_many(model, [text], [voice], decoding=decoding, key=key, **generation)[0]


def speak_many(
    model: AudioLLM,
    texts: Sequence[str],
    voices: Sequence[Voice | None] | Voice | None = None,
    *,
    decoding: DecodingSettings | None = None,
    key: str | None = None,
    **generation: Any,
) -> list[SpeechResult]:
    """Speaks several texts in one batch.

    Args:
        model: as for `speak`.
        texts: what to say.
        voices: one for each text, or one for all.
        decoding: speaker vectors (one for each text, or one for all), prompt and details for the decoder.
        key: as for `speak`.
        generation: as for `speak`.

    Raises:
        ValueError: as for `speak`; or if texts and voices differ in number.
    """
    if isinstance(texts, str):
        raise ValueError("texts is a single string: give a list of them, or use speak()")
    if voices is None or isinstance(voices, (str, VocalAttributes)):
        voices = [voices] * len(texts)
    if len(voices) != len(texts):
        raise ValueError(f"{len(texts)} texts came with {len(voices)} voices: give one for each, or one for all")
    if generation.get("num_return_sequences", 1) != 1:
        raise ValueError("a text is spoken once: repeat it in texts to hear it several times")
    if not texts:
        return []
    requests = [SpeechRequest.of(text, voice, key) for text, voice in zip(texts, voices, strict=True)]
    result = model.chat(
        [request.conversation for request in requests],
        return_waveforms=True,
        decoding=decoding,
        **_checked_form(model, texts, generation),
        **generation,
    )
    assert result.waveforms is not None  # asked for
    assert result.sample_rate is not None
    no_sound, no_codes = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    return [
        SpeechResult(
            # A limit may cut an answer before its first sound.
            waveform=result.waveforms[row][0] if result.waveforms[row] else no_sound,
            sample_rate=result.sample_rate,
            text=request.text,
            codes=torch.cat([no_codes, *result.codes[row]]),
            voice=request.voice,
            prompt_id=request.prompt_id,
            finish_reason=result.finish_reasons[row],
        )
        for row, request in enumerate(requests)
    ]


def speak_stream(
    model: AudioLLM,
    text: str,
    voice: Voice | None = None,
    *,
    speaker: Tensor | Sequence[float] | None = None,
    prompt_audio: AudioSource | None = None,
    sample_rate: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    quality: Quality | None = None,
    key: str | None = None,
    **generation: Any,
) -> AnswerStream:
    """Speaks a text and gives out the samples while they are made; arguments as for `speak`.

    Returns:
        An iterator of `audiollm.generation.streaming.StreamedAudio`.

    Raises:
        ValueError: as for `speak`.
        AudioError: as for `speak`.
    """
    decoding = _decoding(generation, speaker, prompt_audio, sample_rate, steps, guidance, quality)
    request = SpeechRequest.of(text, voice, key)
    form = _checked_form(model, [text], generation)
    return model.stream_chat(request.conversation, decoding=decoding, sound_only=True, **form, **generation)


def answer_form(texts: Sequence[str], stored: GenerationConfig) -> dict[str, Any]:
    """What answers that speak texts consist of: one segment of audio, or words and audio in turns.

    Args:
        texts: to be spoken.
        stored: the checkpoint's, which says how it was trained to speak. A warning tells what it never learned to say.

    Returns:
        ``modalities``, and ``turns`` where it speaks in turns: settings of `GenerationSettings`.
    """
    _warn_of_unlearned(texts, spoken_characters(stored))
    if speaks_in_turns(stored):
        return {"modalities": {"text", "audio"}, "turns": [turns_of(text) for text in texts]}
    return {"modalities": {"audio"}}


def _checked_form(model: AudioLLM, texts: Sequence[str], generation: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("modalities", "turns", "return_waveforms", "sound_only"):
        if name in generation:
            raise ValueError(f"{name} follows from the text that is spoken: leave it out, or use AudioLLM.chat()")
    return answer_form(texts, model.model.generation_config)


def _warn_of_unlearned(texts: Sequence[str], learned: frozenset[str] | None) -> None:
    """Says which letters and digits the model never learned to say: it would speak something, and nobody knew why."""
    if learned is None:
        return
    written = {character for text in texts for character in text.casefold() if character.isalnum()}
    unknown = sorted(written - learned)
    if unknown:
        shown = " ".join(unknown[:_SHOWN_CHARACTERS]) + (" …" if len(unknown) > _SHOWN_CHARACTERS else "")
        advice = ": write numbers in words" if all(one.isdigit() for one in unknown) else ""
        logger.warning("the model never learned to say %s; what it says there means nothing%s", shown, advice)


def _decoding(
    generation: Mapping[str, Any],
    speaker: Tensor | Sequence[float] | None,
    prompt_audio: AudioSource | None,
    sample_rate: int | None,
    steps: int | None,
    guidance: float | None,
    quality: Quality | None,
) -> DecodingSettings:
    # One seed for both: what is generated and the decoder's noise are repeated together.
    return DecodingSettings(
        speaker=speaker,
        prompt_audio=prompt_audio,
        sample_rate=sample_rate,
        steps=steps,
        guidance=guidance,
        quality=quality,
        seed=generation.get("seed"),
    )


@dataclass(frozen=True)
class SpeechRequest:
    """A text with the words in which the model is asked for it.

    Attributes:
        text: what is to be said.
        voice: the voice in words; None if nothing is said of it.
        prompt_id: the wording of the request.
        conversation: the request.
    """

    text: str
    voice: str | None
    prompt_id: str
    conversation: Conversation

    @classmethod
    def of(cls, text: str, voice: Voice | None = None, key: str | None = None) -> SpeechRequest:
        """Words a request; arguments and errors as for `speak`."""
        words = describe_voice(voice, key).text if isinstance(voice, VocalAttributes) else voice
        message, prompt_id = speech_request(text, words, key)
        return cls(text, words, prompt_id, Conversation(TASK, [Message("user", [TextPart(message)])], TASK))
