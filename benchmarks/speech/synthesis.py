"""Making the recordings of a list with an Audio-LLM: one file per utterance, so that a stopped run goes on."""
# Shapes: N samples.

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from audiollm.benchmarks.models.revisions import audio_llm_revision
from audiollm.benchmarks.models.uniaudio import multi_stream_revisions
from audiollm.data.audio.channels import Mono
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.writing import save_audio
from audiollm.data.files.json_lines import write_json_lines
from audiollm.data.voices.encoders import SpeakerEncoder, load_speaker_encoder
from audiollm.data.voices.instructions import speech_request
from audiollm.modeling import AudioLLM
from audiollm.sources.places import find_source
from audiollm.speaking import speak
from audiollm.tokenizer.checkpoints.fingerprint import weights_fingerprint
from audiollm.uniaudio import UniAudio

from .seed_tts_meta import SpeechItem

logger = logging.getLogger(__name__)

VoiceMode = Literal["auto", "prompt", "speaker", "both", "none"]
FAILURES_NAME = "failures.jsonl"


class SpeechSystem(Protocol):
    """What makes the recordings."""

    def describe(self) -> dict[str, Any]:
        """Everything that decides what it makes, for the result and to notice changes when a run goes on."""

    def say(self, item: SpeechItem, seed: int) -> tuple[Tensor, int]:
        """Says the text of an item, in the voice of its prompt if it can: float ``[N]`` and the rate in Hz."""


class AudioLLMSpeech:
    """An Audio-LLM with a waveform decoder.

    Args:
        model: the Audio-LLM.
        name: by which it was asked for.
        voice: how the decoder takes over the prompt's voice: its mel and codes (``prompt``), a speaker encoder's vector
            (``speaker``), ``both``, ``none``, or what the decoder can (``auto``).
        speaker_encoder: which one.
        generation: for `audiollm.speaking.speak`, such as ``max_seconds``, ``temperature``, ``steps``.
        mono: which channel of a prompt is heard, "first" or the "mean" of all. None: the decoder hears the first one,
            the speaker encoder their mean.

    Raises:
        ValueError: the decoder cannot take the voice that way.
    """

    def __init__(
        self,
        model: AudioLLM,
        name: str,
        *,
        voice: VoiceMode = "auto",
        speaker_encoder: str = "resemblyzer",
        generation: Mapping[str, Any] | None = None,
        mono: Mono | None = None,
    ) -> None:
        self._model = model
        self._name = name
        self._mono = mono
        self._generation = {key: value for key, value in (generation or {}).items() if value is not None}
        decoder: Any = getattr(model.processor.audio_tokenizer, "decoder", None)
        self._takes_prompt = voice in ("prompt", "both") or (voice == "auto" and hasattr(decoder, "prompt"))
        self._encoder: SpeakerEncoder | None = None
        if voice in ("speaker", "both"):
            self._encoder = load_speaker_encoder(speaker_encoder)
        elif voice == "auto" and getattr(decoder, "speaker_size", None):
            encoder = load_speaker_encoder(speaker_encoder)
            self._encoder = encoder if encoder.embedding_size == decoder.speaker_size else None
        self._encoder_name = speaker_encoder if self._encoder is not None else None

    def describe(self) -> dict[str, Any]:
        """See `SpeechSystem`."""
        return {
            **speaking_model_facts(self._model, self._name),
            "decoder_prompt": self._takes_prompt,
            "decoder_speaker": self._encoder_name,
            "generation": self._generation,
            **({} if self._mono is None else {"mono": self._mono}),
        }

    def say(self, item: SpeechItem, seed: int) -> tuple[Tensor, int]:
        """See `SpeechSystem`."""
        voice: dict[str, Any] = {}
        if item.prompt is not None and self._takes_prompt:
            voice |= _prompt(item.prompt, self._mono)
        if item.prompt is not None and self._encoder is not None:
            voice["speaker"] = self._encoder.embed(*load_audio(item.prompt, mono=self._mono or "mean"))
        # Scores are of the published way of decoding, whatever is the default of speaking.
        result = speak(self._model, item.text, seed=seed, quality="exact", **voice, **self._generation)
        return result.waveform, result.sample_rate


class UniAudioSpeech:
    """A multi-stream LM whose audio tokenizer can decode; its voice is its own.

    Args:
        model: the LM.
        name: by which it was asked for.
        max_seconds: most sound of an utterance; None: as many frames as the model has by default.
        temperature: of the draws; None: the model's default.
        decoding: options of the audio tokenizer's ``decode``.

    Raises:
        ValueError: codes cannot become sound.
    """

    def __init__(
        self,
        model: UniAudio,
        name: str,
        *,
        max_seconds: float | None = None,
        temperature: float | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        audio_tokenizer = model.processor.load_audio_tokenizer(encoder_only=False)
        if not audio_tokenizer.can_decode:
            raise ValueError(f"{name} cannot be heard: {audio_tokenizer.why_no_sound}")
        self._model, self._name = model, name
        frame_rate = audio_tokenizer.frame_rate / model.processor.config.num_audio_streams
        self._generation = {
            **({} if max_seconds is None else {"max_frames": max(1, int(max_seconds * frame_rate))}),
            **({} if temperature is None else {"temperature": temperature}),
            **{key: value for key, value in (decoding or {}).items() if value is not None},
        }

    def describe(self) -> dict[str, Any]:
        """See `SpeechSystem`."""
        return {
            "model": self._name,
            **multi_stream_revisions(self._name, self._model),
            "tokenizer_fingerprint": self._model.processor.audio_tokenizer.fingerprint(),
            "generation": self._generation,
        }

    def say(self, item: SpeechItem, seed: int) -> tuple[Tensor, int]:
        """See `SpeechSystem`."""
        message, _ = speech_request(item.text, None, None)
        chat = [{"role": "user", "content": [{"type": "text", "text": message}]}]
        answers = self._model.answer_in_sound(chat, seed=seed, **self._generation)
        assert answers.waveforms is not None  # asked for
        assert answers.sample_rate is not None
        if not len(answers.waveforms[0]):
            raise ValueError(f"{self._name} said nothing")
        return answers.waveforms[0], answers.sample_rate


def _prompt(recording: str, mono: Mono | None) -> dict[str, Any]:
    """A prompt as `audiollm.speaking.speak` takes it."""
    if mono is None:
        return {"prompt_audio": recording}
    waveform, sample_rate = load_audio(recording, mono=mono)
    return {"prompt_audio": waveform, "sample_rate": sample_rate}


def speaking_model_facts(model: AudioLLM, name: str) -> dict[str, str | None]:
    """Which model speaks: its weights, its audio tokenizer's and its decoder's.

    Args:
        model: the Audio-LLM.
        name: by which it was asked for: a folder, Hub id or "mini".
    """
    audio_tokenizer: Any = model.processor.audio_tokenizer
    return {
        "model": name,
        "model_revision": audio_llm_revision(find_source(name), model.model.config),
        "tokenizer_fingerprint": audio_tokenizer.fingerprint(),
        "decoder_fingerprint": decoder_fingerprint(audio_tokenizer),
    }


def decoder_fingerprint(audio_tokenizer: Any) -> str | None:
    """The fingerprint of an audio tokenizer's decoder; None if it has none that tells.

    Where decoder and encoder are one network, it is that of all its weights.
    """
    decoder: Any = getattr(audio_tokenizer, "decoder", None)
    if hasattr(decoder, "fingerprint"):
        own: str = decoder.fingerprint()
        return own
    is_network = isinstance(audio_tokenizer, nn.Module) and getattr(audio_tokenizer, "can_decode", False)
    return weights_fingerprint(audio_tokenizer.state_dict()) if is_network else None


def synthesise(
    system: SpeechSystem, items: Sequence[SpeechItem], folder: Path, *, seed: int, attempts: int = 2, rank: int = 0
) -> int:
    """Makes the recordings that are not there yet.

    What an utterance sounds like depends on the seed and its id, and not on what was made before it. An utterance that
    fails is tried again with another seed, then left out and written down; the next run tries it again.

    Args:
        system: makes them.
        items: utterances of this process.
        folder: for ``<id>.wav``.
        seed: of the run.
        attempts: how often an utterance is tried.
        rank: of this process, which has its own file of failures.

    Returns:
        How many could not be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for item in items:
        path = folder / item.file_name
        if path.is_file():
            continue
        errors = []
        for attempt in range(attempts):
            try:
                # crc32 is the same in every process, unlike hash(); 31 bits are what seeds of all generators take.
                waveform, sample_rate = system.say(item, zlib.crc32(f"{seed} {item.id} {attempt}".encode()) % 2**31)
                if not len(waveform):
                    raise ValueError("the model said nothing")
                save_audio(path, waveform, sample_rate)
                break
            except (ValueError, RuntimeError, OSError) as error:
                errors.append(f"{type(error).__name__}: {error}")
        else:
            logger.warning("%s could not be spoken: %s", item.id, errors[-1])
            failures.append({"id": item.id, "errors": errors})
    write_json_lines(folder.parent / f"{folder.name}.rank{rank}.{FAILURES_NAME}", failures)
    return len(failures)
