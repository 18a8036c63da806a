"""Speech recognizers that a benchmark can listen with, by name.

``whisper-tiny.en`` and ``whisper-base`` come from a package index; ``whisper-large-v3`` from the model hub;
``paraformer-zh`` through the funasr package; ``http://…/v1#model`` is an OpenAI-compatible endpoint; any other name is
a folder or Hub id that transformers loads. Packages offer theirs as entry points::

    [project.entry-points."audiollm.speech_recognizers"]
    mine = "my_package.listening:load"  # called with language (or None) and device
"""
# Shapes: N samples.

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urldefrag

import torch
from torch import Tensor

from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import wav_bytes
from audiollm.data.chat.endpoint import endpoint_key
from audiollm.data.plugins import PluginNames
from audiollm.data.pretrained.whisper import whisper_from_package
from audiollm.loading import check_reachable, refused_by_transformers

RECOGNIZER_SAMPLE_RATE = 16000  # Hz, of every recognizer that transformers offers
PACKAGED = {"whisper-tiny.en": "tiny.en", "whisper-base": "base"}
"""Recognizers that come from a package index instead of a model hub, by the name to ask for them."""
MIN_SAMPLES = 400  # one window of the recognizers' features
MAX_WINDOW_SECONDS = 30
MAX_TOKENS_PER_SECOND = 25
"""Of text in speech: fast speakers say 9 syllables a second, of which tokens of Whisper hold a third at least."""
SPARE_TOKENS = 24  # of short recordings, and for what a recognizer writes beside the text
PROMPT_TOKENS = 8  # of Whisper, before the text

ON_THE_HUB = {"whisper-large-v3": "openai/whisper-large-v3"}
PARAFORMER = "paraformer-zh"
_PIPELINE = "automatic-speech-recognition"  # as transformers calls it
DEFAULT_RECOGNIZERS = {"en": "whisper-tiny.en", "zh": "whisper-base"}
"""Small ones that need no model hub; published figures use whisper-large-v3 and paraformer-zh."""


class SpeechRecognizer(Protocol):
    """What a recognizer offers.

    Attributes:
        source: its name, for results.
    """

    source: str

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """Recognizes recordings: float ``[N_i]`` in [-1, 1] each, of one rate in Hz; one text each."""


RECOGNIZERS: PluginNames[SpeechRecognizer] = PluginNames("speech recognizer", "audiollm.speech_recognizers")


def load_recognizer(name: str, *, language: str | None = None, device: str = "cpu") -> SpeechRecognizer:
    """Loads a recognizer.

    Args:
        name: see above.
        language: of the recordings, such as ``en``; recognizers of several are held to it.
        device: where it computes, if it computes here.

    Raises:
        OSError: there is no such recognizer.
        ImportError: the package that it needs is not installed.
    """
    factory = RECOGNIZERS.find(name)
    if factory is not None:
        return factory(language, device)
    if name.startswith(("http://", "https://")):
        return TranscriptionEndpoint(name, language=language)
    if name == PARAFORMER:
        return Paraformer(device=device)
    recognizer = Transcriber(ON_THE_HUB.get(name, name), language=language, device=device)
    recognizer.source = name
    return recognizer


def check_recognizer(name: str) -> None:
    """Sees to it that a recognizer is there, without loading it; what a package index has is fetched.

    Args:
        name: as for `load_recognizer`.

    Raises:
        ValueError: there is no such recognizer, it is none, or an endpoint names no model.
        OSError: a package cannot be fetched.
        ImportError: the package that it needs is not installed.
    """
    if RECOGNIZERS.find(name) is not None:
        return
    if name.startswith(("http://", "https://")):
        TranscriptionEndpoint(name)
    elif name == PARAFORMER:
        _funasr()
    elif name in PACKAGED:
        whisper_from_package(PACKAGED[name])
    else:
        _check_pretrained(ON_THE_HUB.get(name, name))


def _check_pretrained(source: str) -> None:
    """Refuses what is no recognizer of transformers; of the Hub's only the configuration is fetched."""
    from transformers import AutoConfig
    from transformers.pipelines import SUPPORTED_TASKS  # takes seconds

    check_reachable(source)
    with refused_by_transformers(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if not any(type(config) in kind._model_mapping for kind in SUPPORTED_TASKS[_PIPELINE]["pt"]):
        raise ValueError(f"{source} holds a model of type {config.model_type}, which recognizes no speech")


def _funasr() -> Any:
    try:
        return import_module("funasr")
    except ImportError as error:
        raise ImportError(f"the recognizer {PARAFORMER} needs funasr: run `pip install funasr`") from error


@contextmanager
def _without_warning_of_whisper() -> Iterator[None]:
    """Leaves out what transformers says of how its own Whisper calls its own `generate`: nobody here can mend it."""
    generation = logging.getLogger("transformers.generation.utils")

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passing `generation_config` together with generation-related")

    generation.addFilter(is_wanted)
    try:
        yield
    finally:
        generation.removeFilter(is_wanted)


class Transcriber:
    """Speech to text.

    Args:
        source: a folder or Hub id of any speech recognizer that transformers loads, such as ``openai/whisper-tiny.en``;
            or ``whisper-tiny.en`` or ``whisper-base``, which come from a package index.
        language: language of the recordings for recognizers of several, such as ``en``. None: the recognizer decides.
        batch_size: recordings at a time.
        device: where to compute; the CPU if None.

    Raises:
        OSError: if there is no such recognizer.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        language: str | None = None,
        batch_size: int = 8,
        device: torch.device | str | None = None,
    ) -> None:
        from transformers import pipeline  # takes seconds

        self.source = os.fspath(source)
        packaged = PACKAGED.get(self.source)
        folder = self.source if packaged is None else os.fspath(whisper_from_package(packaged))
        self._batch_size = batch_size
        self._pipeline: Any = pipeline(_PIPELINE, model=folder, dtype=torch.float32, device=device or "cpu")
        # Said, as pipelines take five beams otherwise; one that does not generate takes no such setting.
        generating: dict[str, Any] = {"num_beams": 1} if self._pipeline.type.startswith("seq2seq") else {}
        generation = getattr(self._pipeline.model, "generation_config", None)
        if language is not None and getattr(generation, "is_multilingual", False):
            generating |= {"language": language, "task": "transcribe"}
        self._options: dict[str, Any] = {"generate_kwargs": generating} if generating else {}

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """Recognizes recordings, greedily, as seed-tts-eval does.

        Args:
            waveforms: float in [-1, 1], ``[N_i]`` each.
            sample_rate: of all, in Hz.

        Returns:
            One text each; empty for a recording shorter than 25 ms.
        """
        speech = [
            resample(waveform.detach().float().cpu(), sample_rate, RECOGNIZER_SAMPLE_RATE) for waveform in waveforms
        ]
        texts = [""] * len(speech)
        # Of similar length together: recognizers of variable length are not slowed down by padding.
        usable = sorted((n for n, one in enumerate(speech) if len(one) >= MIN_SAMPLES), key=lambda n: len(speech[n]))
        for start in range(0, len(usable), self._batch_size):
            group = usable[start : start + self._batch_size]
            inputs = [{"raw": speech[n].numpy(), "sampling_rate": RECOGNIZER_SAMPLE_RATE} for n in group]
            options = dict(self._options)
            # Sorted by length: the last of a group is its longest.
            options |= self._length_options(len(speech[group[-1]]) / RECOGNIZER_SAMPLE_RATE, options)
            if len(speech[group[-1]]) > MAX_WINDOW_SECONDS * RECOGNIZER_SAMPLE_RATE:
                options |= self._long_options()
            with _without_warning_of_whisper():
                results = self._pipeline(inputs, batch_size=len(group), **options)
            for n, result in zip(group, results, strict=True):
                texts[n] = result["text"].strip()
        return texts

    def _length_options(self, duration_seconds: float, options: dict[str, Any]) -> dict[str, Any]:
        """No more tokens than can be said in so long: one that loops would fill its whole window."""
        seconds = min(duration_seconds, MAX_WINDOW_SECONDS)
        num_tokens = math.ceil(MAX_TOKENS_PER_SECOND * seconds) + SPARE_TOKENS
        longest = getattr(getattr(self._pipeline.model, "config", None), "max_target_positions", None)
        if longest is None or num_tokens > longest - PROMPT_TOKENS:
            return {}
        # As its length, which Whisper counts from behind its prompt; of max_new_tokens beside it every call warns.
        return {"generate_kwargs": {**options.get("generate_kwargs", {}), "max_length": num_tokens}}

    def _long_options(self) -> dict[str, Any]:
        """How to recognize more than a window: Whisper goes on where its last timestamp was, others by chunks."""
        is_whisper = self._pipeline.type == "seq2seq_whisper"
        return {"return_timestamps": True} if is_whisper else {"chunk_length_s": MAX_WINDOW_SECONDS}


class Paraformer:
    """Paraformer-zh (Gao et al., 2022), which seed-tts-eval listens to Mandarin with.

    Recordings go in one by one: in batches, its texts change with what else is in the batch.

    Raises:
        ImportError: funasr is not installed.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        funasr = _funasr()
        self.source = PARAFORMER
        self._model: Any = funasr.AutoModel(model=PARAFORMER, device=device, disable_update=True, disable_pbar=True)

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """See `SpeechRecognizer`."""
        return [
            self._transcript(resample(waveform.float().cpu(), sample_rate, RECOGNIZER_SAMPLE_RATE))
            for waveform in waveforms
        ]

    def _transcript(self, speech: Tensor) -> str:
        if len(speech) < MIN_SAMPLES:
            return ""
        [result] = self._model.generate(input=speech.numpy(), fs=RECOGNIZER_SAMPLE_RATE)
        return str(result["text"])


class TranscriptionEndpoint:
    """A recognizer behind an OpenAI-compatible ``/audio/transcriptions``.

    Args:
        url: base URL with the model's name behind ``#``, such as ``http://localhost:8000/v1#whisper-1``.
        language: of the recordings; None: the server finds out.
        max_retries: of a request that fails.
        timeout_seconds: of a request.

    Raises:
        ValueError: the model is not named, or the key of OpenAI is asked for and not set.
        ImportError: the client is not installed.
    """

    def __init__(
        self, url: str, *, language: str | None = None, max_retries: int = 4, timeout_seconds: float = 120.0
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ImportError("endpoints need the openai client: pip install 'audiollm[label]'") from error
        base_url, model = urldefrag(url)
        if not model:
            raise ValueError(f"{url} names no model: write it behind #, such as {base_url}#whisper-1")
        self.source = url
        self._model = model
        self._language = language
        self._client = openai.OpenAI(
            base_url=base_url, api_key=endpoint_key(base_url, None), max_retries=max_retries, timeout=timeout_seconds
        )

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """See `SpeechRecognizer`.

        Raises:
            OSError: the server cannot be reached, or refuses.
        """
        return [
            self._transcript(resample(waveform.float().cpu(), sample_rate, RECOGNIZER_SAMPLE_RATE))
            for waveform in waveforms
        ]

    def _transcript(self, speech: Tensor) -> str:
        import openai

        if len(speech) < MIN_SAMPLES:
            return ""
        options = {} if self._language is None else {"language": self._language}
        try:
            reply = self._client.audio.transcriptions.create(
                model=self._model,
                file=("speech.wav", wav_bytes(speech, RECOGNIZER_SAMPLE_RATE), "audio/wav"),
                temperature=0,
                **options,
            )
        except openai.OpenAIError as error:
            raise OSError(f"{self.source}: {error}") from error
        text = getattr(reply, "text", None)
        if not isinstance(text, str):
            raise OSError(f"{self.source}: the reply holds no text; is this an endpoint of transcriptions?")
        return text.strip()


def recognizer_for(language: str, name: str | os.PathLike[str] | None) -> str:
    """The recognizer asked for, or the small one of the language."""
    return os.fspath(name) if name is not None else DEFAULT_RECOGNIZERS.get(language, "whisper-base")
