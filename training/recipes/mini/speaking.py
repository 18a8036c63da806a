"""How well mini's speech is understood, on sentences that it was not trained on, for each voice and each part of it.

A recognizer hears what the synthesizer reads, the same through the vocoder alone, through codes and decoder, and what
the LM speaks, so that an error has an address. Whether the gender that was asked for is heard is for a judge of voices.
"""
# Shapes: C mel bins, M mel frames, N samples, T codes.

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from audiollm.benchmarks.metrics.seed_tts_wer.pairs import TextPair, score_pairs
from audiollm.benchmarks.speech.judges.attributes import AttributeJudge, JudgeWords, read_attributes
from audiollm.benchmarks.speech.judges.recognizers import SpeechRecognizer
from audiollm.data.audio.waveforms import resample
from audiollm.data.audio.writing import save_audio
from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.generation.streaming import StreamedAudio
from audiollm.modeling import AudioLLM
from audiollm.speaking import SpeechResult, speak_many, speak_stream
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.mel import MelSpectrogram

from .conversations import MAX_SPOKEN_SECONDS

BATCH_SIZE = 16
LATER_CALLS = 3
# In the order in which an error comes about.
ORIGINAL, COPIED, DECODED, SPOKEN = "original", "copy_synthesis", "reconstructed", "spoken"


@dataclass(frozen=True, eq=False)
class ReadSentences:
    """Sentences that the synthesizer read.

    Attributes:
        waveforms: by voice, one for each sentence, float ``[N]`` at `SAMPLE_RATE`.
        codes: of the same, int64 ``[T]``.
    """

    waveforms: dict[str, list[Tensor]]
    codes: dict[str, list[Tensor]]


def speaking_figures(
    model: AudioLLM,
    texts: Sequence[str],
    recognizer: SpeechRecognizer,
    read: ReadSentences | str,
    judge: AttributeJudge | str,
) -> dict[str, Any]:
    """Word error rates by voice and system, and how often the gender that was asked for is heard.

    Args:
        model: it can speak.
        texts: the sentences.
        recognizer: who listens.
        read: the same sentences from the synthesizer, or why there are none.
        judge: who hears the gender, or why there is nobody.

    Returns:
        ``{"sentences", "rule", "voices": {name: {"asked", "systems": {system: {"wer", "wer_capped"}},
        "ended_by_itself", "examples"}}, "gender", "not_measured": {what: why}}``. What was not measured is not there.
    """
    audio_tokenizer = model.processor.audio_tokenizer
    assert isinstance(audio_tokenizer, UniAudioTokenizer)
    decoder = audio_tokenizer.decoder
    assert decoder is not None
    spoken = {
        voice.name: speak_sentences(model, texts, [VocalAttributes(**voice.attributes())] * len(texts))
        for voice in CLEAR_VOICES
    }
    voices: dict[str, Any] = {}
    for name, results in spoken.items():
        made = _through_parts(decoder, read, name) if isinstance(read, ReadSentences) else {}
        made[SPOKEN] = [result.waveform for result in results], results[0].sample_rate
        heard = {system: recognizer.transcribe(*waveforms) for system, waveforms in made.items()}
        voices[name] = {
            "asked": results[0].voice,
            "systems": {system: error_rates(texts, found) for system, found in heard.items()},
            "ended_by_itself": sum(result.finish_reason == "stop" for result in results) / len(results),
            "examples": [{"text": text, "heard": found} for text, found in zip(texts[:4], heard[SPOKEN], strict=False)],
        }
    figures: dict[str, Any] = {"sentences": len(texts), "rule": "seed-tts-eval, mean over sentences", "voices": voices}
    not_measured: dict[str, str] = {}
    if isinstance(read, str):
        not_measured |= dict.fromkeys((ORIGINAL, COPIED, DECODED), read)
    if isinstance(judge, str):
        not_measured["gender"] = judge
    else:
        figures["gender"] = _gender(judge, spoken)
    return figures | {"not_measured": not_measured}


def speak_sentences(
    model: AudioLLM, texts: Sequence[str], voices: Sequence[VocalAttributes], **generation: Any
) -> list[SpeechResult]:
    """Speaks texts, each in its voice; further arguments as for `audiollm.speaking.speak`."""
    results: list[SpeechResult] = []
    for start in range(0, len(texts), BATCH_SIZE):
        group = slice(start, start + BATCH_SIZE)
        results += speak_many(
            model, texts[group], list(voices[group]), max_seconds=MAX_SPOKEN_SECONDS, seed=start, **generation
        )
    return results


def first_sample_seconds(model: AudioLLM, text: str) -> dict[str, float]:
    """How long until the first samples of a spoken text are there: of the first call, which loads the decoder unless it
    is loaded already, and the median of some later ones."""
    first, *later = (_seconds_to_sound(model, text) for _ in range(1 + LATER_CALLS))
    return {"first_call": round(first, 3), "later_calls": round(median(later), 3)}


def _seconds_to_sound(model: AudioLLM, text: str) -> float:
    started = time.perf_counter()
    voice = VocalAttributes(**CLEAR_VOICES[0].attributes())
    # At least a second: of a model that says nothing there would be no first sample.
    with speak_stream(model, text, voice, seed=0, min_seconds=1.0, max_seconds=MAX_SPOKEN_SECONDS) as stream:
        next(piece for piece in stream if isinstance(piece, StreamedAudio) and len(piece.waveform))
        return time.perf_counter() - started


def _through_parts(
    decoder: WaveformDecoder, read: ReadSentences, voice: str
) -> dict[str, tuple[Sequence[Tensor], int]]:
    """What each part makes of the recordings of a voice: waveforms and their rate in Hz."""
    originals = read.waveforms[voice]
    return {
        ORIGINAL: (originals, SAMPLE_RATE),
        COPIED: ([_copied(decoder, waveform) for waveform in originals], decoder.sample_rate),
        DECODED: ([decoder.decode(codes)[0] for codes in read.codes[voice]], decoder.sample_rate),
    }


def _copied(decoder: WaveformDecoder, waveform: Tensor) -> Tensor:
    """The recording through the vocoder alone."""
    mel = MelSpectrogram(decoder.config.mel)(resample(waveform, SAMPLE_RATE, decoder.sample_rate))
    copied: Tensor = decoder.vocode(mel[None])[0].cpu()
    return copied


def error_rates(texts: Sequence[str], heard: Sequence[str]) -> dict[str, float | None]:
    """Word error rate by the seed-tts rule, and that in which no sentence counts as more than all wrong."""
    pairs = [TextPair(str(n), found, text) for n, (text, found) in enumerate(zip(texts, heard, strict=True))]
    scored = score_pairs(pairs, "en")
    return {"wer": scored["wer_of_all"], "wer_capped": scored["wer_capped"]}


def _gender(judge: AttributeJudge, spoken: Mapping[str, Sequence[SpeechResult]]) -> dict[str, Any]:
    """As many recordings as there are sentences, women and men by turns, each gender's voices by turns."""
    heard: dict[str, list[str | None]] = {"female": [], "male": []}
    num_cut = num_repaired = 0
    with tempfile.TemporaryDirectory() as folder:
        for gender, result in _by_turns(spoken):
            words = _heard_by(judge, result, Path(folder) / "spoken.wav")
            read = read_attributes(words.text)
            heard[gender].append(None if read.values is None else read.values["gender"])
            num_cut += words.is_cut
            num_repaired += bool(read.repairs) and read.values is not None
    right = {gender: found.count(gender) for gender, found in heard.items()}
    asked = sum(map(len, heard.values()))
    return {
        "judge": judge.name,
        "clips": asked,
        "accuracy": sum(right.values()) / asked,
        "by_gender": {gender: right[gender] / len(found) if found else None for gender, found in heard.items()},
        "not_told": sum(found.count(None) for found in heard.values()),
        "cut": num_cut,
        "repaired": num_repaired,
    }


def _heard_by(judge: AttributeJudge, result: SpeechResult, path: Path) -> JudgeWords:
    if not len(result.waveform):
        return JudgeWords("")  # nothing was said of which anybody could say anything
    save_audio(path, result.waveform, result.sample_rate)
    return judge.describe(path)


def _by_turns(spoken: Mapping[str, Sequence[SpeechResult]]) -> Iterator[tuple[str, SpeechResult]]:
    genders = ("female", "male")
    for number in range(len(next(iter(spoken.values())))):
        gender = genders[number % len(genders)]
        voices = [voice.name for voice in CLEAR_VOICES if voice.gender == gender]
        yield gender, spoken[voices[number // len(genders) % len(voices)]][number]
