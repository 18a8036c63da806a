"""Speech recognizers that a benchmark can listen with, by name.

``whisper-tiny.en`` and ``whisper-base`` come from a package index; ``whisper-large-v3`` from the model hub;
``paraformer-zh`` through the funasr package; ``http://…/v1#model`` is an OpenAI-compatible endpoint; any other name is
a folder or Hub id that transformers loads. Packages offer theirs as entry points::

    [project.entry-points."audiollm.speech_recognizers"]
    mine = "my_package.listening:load"  # called with language (or None) and device
"""
# Shapes: N samples.

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urldefrag

import soundfile as sf
from torch import Tensor

from audiollm.data.audio.reading import resample
from audiollm.data.chat.endpoint import endpoint_key
from audiollm.data.plugins import PluginNames

from .transcription import MIN_SAMPLES, SAMPLE_RATE, Transcriber

ON_THE_HUB = {"whisper-large-v3": "openai/whisper-large-v3"}
PARAFORMER = "paraformer-zh"
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


class Paraformer:
    """Paraformer-zh (Gao et al., 2022), which seed-tts-eval listens to Mandarin with.

    Recordings go in one by one: in batches, its texts change with what else is in the batch.

    Raises:
        ImportError: funasr is not installed.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        try:
            funasr = import_module("funasr")
        except ImportError as error:
            raise ImportError(f"the recognizer {PARAFORMER} needs funasr: run `pip install funasr`") from error
        self.source = PARAFORMER
        self._model: Any = funasr.AutoModel(model=PARAFORMER, device=device, disable_update=True, disable_pbar=True)

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        """See :class:`SpeechRecognizer`."""
        return [self._heard(resample(waveform.float().cpu(), sample_rate, SAMPLE_RATE)) for waveform in waveforms]

    def _heard(self, speech: Tensor) -> str:
        if len(speech) < MIN_SAMPLES:
            return ""
        [result] = self._model.generate(input=speech.numpy(), fs=SAMPLE_RATE)
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
        """See :class:`SpeechRecognizer`.

        Raises:
            OSError: the server cannot be reached, or refuses.
        """
        return [self._heard(resample(waveform.float().cpu(), sample_rate, SAMPLE_RATE)) for waveform in waveforms]

    def _heard(self, speech: Tensor) -> str:
        import openai

        if len(speech) < MIN_SAMPLES:
            return ""
        buffer = io.BytesIO()
        sf.write(buffer, speech.numpy(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        options = {} if self._language is None else {"language": self._language}
        try:
            reply = self._client.audio.transcriptions.create(
                model=self._model, file=("speech.wav", buffer.getvalue(), "audio/wav"), temperature=0, **options
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
