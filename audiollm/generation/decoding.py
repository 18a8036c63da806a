"""Generated codes to sound: whose voice, and the batch or the stream that the audio tokenizer decodes."""
# Shapes: B prompts, S size of a speaker vector, T codes of one segment, N samples.

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiollm.chat.input import AudioSource, audio_parts
from audiollm.tokenizer.base import AudioTokenizer, Codes
from audiollm.tokenizer.decoder.inputs import FlowSettings, Quality
from audiollm.tokenizer.sequence import SequenceTokenizer


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodingSettings:
    """How codes become sound. Without any of it: the decoder's own defaults and its neutral voice.

    Attributes:
        speaker: a speaker encoder's vector, float, ``[S]`` for all prompts or ``[B, S]``.
        prompt_audio: a recording whose voice is taken over (zero-shot): path, bytes of a file, or samples.
        sample_rate: rate in Hz of ``prompt_audio`` that comes as samples.
        prompt: the same, prepared by the decoder already, in place of ``prompt_audio``.
        steps: evaluations of the flow model; None: those of the quality.
        guidance: strength of its classifier-free guidance.
        seed: of its noise.
        quality: ``exact`` or ``fast``, see `audiollm.tokenizer.decoder.inputs.FlowSettings`; None: ``fast``, where the
            decoder offers it.
    """

    speaker: Tensor | Sequence[float] | None = None
    prompt_audio: AudioSource | None = None
    sample_rate: int | None = None
    prompt: Any = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    quality: Quality | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None and self.prompt_audio is not None:
            raise ValueError("prompt is prompt_audio prepared already: give one of them")
        if self.sample_rate is not None and self.prompt_audio is None:
            raise ValueError(f"sample_rate={self.sample_rate} belongs to prompt_audio, which is missing")


class SpeechDecoder:
    """An audio tokenizer's decoder with a voice; all checks, and the work on the prompt, are done when it is made.

    Args:
        audio_tokenizer: decodes.
        settings: voice and details; None for defaults.
        num_prompts: B, how many prompts are answered.
        joins_segments: the audio segments of an answer are parts of one sound, with text between them, and not sounds
            of their own.

    Attributes:
        quality: ``exact`` or ``fast``; None: the decoder has only one.

    Raises:
        ValueError: if the audio tokenizer cannot decode, or cannot take such a voice.
        AudioError: if the prompt's recording cannot be used.
    """

    def __init__(
        self,
        audio_tokenizer: AudioTokenizer,
        settings: DecodingSettings | None = None,
        num_prompts: int = 1,
        *,
        joins_segments: bool = False,
    ) -> None:
        if not audio_tokenizer.can_decode:
            raise ValueError(
                f"this Audio-LLM can listen only, for {audio_tokenizer.why_no_sound}: an answer can be had as codes "
                "but not as sound; pass return_waveforms=False, or use an audio tokenizer with a waveform decoder"
            )
        if joins_segments and isinstance(audio_tokenizer, SequenceTokenizer) and audio_tokenizer.layout.pad is not None:
            raise ValueError(
                "this Audio-LLM speaks in turns, whose segments are parts of one sound, and delayed rows of codes "
                "cannot be joined: extend the LLM with code_order='flat', or set speaks_in_turns to false"
            )
        settings = settings or DecodingSettings()
        if not takes_settings(audio_tokenizer):
            refuse_settings(audio_tokenizer, settings)
            settings = DecodingSettings()  # nothing is drawn, so that any seed gives the same sound
        # Before the LLM generates anything, not when its codes are decoded. What is not given is the decoder's default;
        # any valid number stands for it here.
        seed = 0 if settings.seed is None else settings.seed
        FlowSettings(settings.steps, settings.guidance, seed, settings.quality or "fast")
        self._audio_tokenizer: Any = audio_tokenizer
        self.sample_rate = audio_tokenizer.output_sample_rate
        self.joins_segments = joins_segments
        decoder = getattr(audio_tokenizer, "decoder", None)
        speaker_size = getattr(decoder, "speaker_size", None)
        self.quality = settled_quality(settings.quality, audio_tokenizer)
        self._speaker = _checked_speaker(settings.speaker, num_prompts, speaker_size)
        prompt = settings.prompt
        if settings.prompt_audio is not None:
            prompt = voice_prompt(audio_tokenizer, settings.prompt_audio, settings.sample_rate)
        options = {
            "prompt": prompt,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "seed": settings.seed,
            "quality": self.quality,
        }
        # What is not given is left out: its default is the decoder's, and not every decoder knows all of it.
        self._options = {name: value for name, value in options.items() if value is not None}

    def bound_to(self, audio_tokenizer: Any) -> SpeechDecoder:
        """The same voice with another model that decodes, or with none for its way to another process."""
        bound = copy.copy(self)
        bound._audio_tokenizer = audio_tokenizer
        return bound

    def decode(self, rows: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Decodes the audio segments of all answers in one batch.

        Args:
            rows: int64 codes ``[T]`` of each segment of each answer; as many answers per prompt for all prompts.

        Returns:
            Waveforms, float32 ``[N]`` each, nested like ``rows``; one for all segments of an answer if they are joined.
        """
        if self.joins_segments:
            rows = [[torch.cat([*row])] if row else [] for row in rows]
        clips = [codes for row in rows for codes in row]
        if not clips:
            return [[] for _ in rows]
        voice: dict[str, Tensor] = {}
        if self._speaker is not None:
            answers_per_prompt = max(1, len(rows) // len(self._speaker))
            answers = [answer for answer, row in enumerate(rows) for _ in row]  # of each clip
            # The minimum is for one vector for all prompts: then there is only index 0.
            indices = torch.tensor([min(answer // answers_per_prompt, len(self._speaker) - 1) for answer in answers])
            voice["speaker"] = self._speaker[indices]
        codes = Codes.from_list([clip[None] for clip in clips])
        decoded = iter(self._audio_tokenizer.decode(codes, **voice, **self._options))
        return [[next(decoded) for _ in row] for row in rows]

    def decode_stream(self, codes: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decodes one sound while its codes, int64 ``[T]``, come in; yields samples, float32 ``[N]``."""
        voice = {} if self._speaker is None else {"speaker": self._speaker[0]}
        if getattr(self._audio_tokenizer, "can_decode_stream", True):  # a waveform decoder alone always can
            yield from self._audio_tokenizer.decode_stream(codes, **voice, **self._options)
            return
        pieces = list(codes)  # a decoder that needs all of a sound gives it when all codes are there
        if pieces:
            clip = Codes.from_list([torch.cat(pieces)[None]])
            yield from self._audio_tokenizer.decode(clip, **voice, **self._options)


def takes_settings(audio_tokenizer: AudioTokenizer) -> bool:
    """Whether a tokenizer's decoder has settings, such as those of a flow model; one of codes alone has none."""
    decodes = audio_tokenizer.inner if isinstance(audio_tokenizer, SequenceTokenizer) else audio_tokenizer
    taken = inspect.signature(decodes.decode).parameters.values()
    return any(one.kind is one.VAR_KEYWORD or one.name == "seed" for one in taken)


def refuse_settings(audio_tokenizer: AudioTokenizer, settings: DecodingSettings) -> None:
    """Refuses settings that a decoder without a voice has not, for they would have no effect; a seed may be given.

    Raises:
        ValueError: naming the first.
    """
    decodes = audio_tokenizer.inner if isinstance(audio_tokenizer, SequenceTokenizer) else audio_tokenizer
    flow = {"steps": settings.steps, "guidance": settings.guidance}
    taken = inspect.signature(decodes.decode).parameters
    idle = {
        "speaker": settings.speaker, "prompt": settings.prompt, "prompt_audio": settings.prompt_audio,
        **{name: value for name, value in flow.items() if name not in taken},
        "quality": settings.quality if settings.quality == "fast" else None,
    }  # fmt: skip
    for name, value in idle.items():
        if value is not None:
            raise ValueError(
                f"{name}: the decoder of {type(decodes).__name__} makes sound of codes alone and takes none; leave it "
                "out"
            )


def voice_prompt(audio_tokenizer: AudioTokenizer, recording: AudioSource, sample_rate: int | None = None) -> Any:
    """Prepares a recording as the prompt of the waveform decoder: its codes, and the decoder's own mel of it.

    Args:
        audio_tokenizer: encodes it; its ``decoder`` makes the prompt.
        recording: path, bytes of a file, or samples.
        sample_rate: rate in Hz of samples.

    Raises:
        ValueError: if there is no decoder that takes prompts, or the recording comes as codes or gives none.
        AudioError: if the recording cannot be used.
    """
    decoder: Any = getattr(audio_tokenizer, "decoder", None)
    if not hasattr(decoder, "prompt"):
        raise ValueError(
            f"{type(audio_tokenizer).__name__} has no decoder that takes a recording as prompt: give speaker= instead"
        )
    parts = audio_parts(recording, sample_rate)
    if len(parts) != 1 or parts[0].codes is not None:
        raise ValueError("prompt_audio must be one recording (a path, bytes or samples), for its mel is needed too")
    waveform, rate = parts[0].load()
    codes = audio_tokenizer.encode([waveform], rate)[0]
    if not codes.shape[-1]:
        raise ValueError(f"prompt_audio of {len(waveform) / rate:.3f} s gives no codes: use a few seconds of speech")
    return decoder.prompt(waveform, rate, codes)


def settled_quality(wanted: Quality | None, audio_tokenizer: AudioTokenizer) -> Quality | None:
    """The quality asked for, else the fast one; None for a decoder that has no choice, and so is exact.

    Raises:
        ValueError: if the fast one is asked of a decoder that has no choice.
    """
    if hasattr(getattr(audio_tokenizer, "decoder", None), "qualities"):
        return wanted or "fast"
    if wanted == "fast":
        raise ValueError("quality='fast': the decoder of this audio tokenizer has one quality alone; leave it out")
    return None


def _checked_speaker(speaker: Tensor | Sequence[float] | None, num_prompts: int, size: int | None) -> Tensor | None:
    """The speaker vectors as ``[1, S]`` or ``[B, S]``; ``size`` is the decoder's, where it says so."""
    if speaker is None:
        return None
    vectors = torch.as_tensor(speaker, dtype=torch.float32)
    fits = vectors.dim() == 1 or (vectors.dim() == 2 and vectors.shape[0] in (1, num_prompts))
    if not fits or size not in (None, vectors.shape[-1]):
        number = "size" if size is None else size
        raise ValueError(
            f"speaker has shape {list(vectors.shape)}: use [{number}] for all prompts, or [{num_prompts}, {number}] "
            "with one vector per prompt"
        )
    if not bool(vectors.isfinite().all()):
        raise ValueError("speaker holds NaN or infinite values: was it made from silence?")
    return vectors.reshape(-1, vectors.shape[-1])
