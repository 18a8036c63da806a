"""How mini draws the codes that it speaks, chosen by what a recognizer understands of sentences of the dev split.

Greedy codes fall into loops; drawn from the whole distribution they stray from the text. What lies between is the best
for a small model, and it is not the default, which was chosen for large ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES
from audiollm.data.corpora.sources.synthetic import OPEN_NAME as OPEN_SPEECH
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.sampling import spread
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.loading import AUDIO_SAMPLING
from audiollm.modeling import AudioLLM

from .conversations import MAX_SPOKEN_SECONDS
from .layout import MiniLayout
from .package import set_value
from .speaking import error_rates, speak_sentences

NUM_SENTENCES = 30
CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.8},
    {"temperature": 0.6},
    {"temperature": 0.4},
    {"temperature": 0.6, "repetition_threshold": 0.3},
)


def choose_audio_sampling(
    package: Path,
    layout: MiniLayout,
    judge: str,
    *,
    candidates: Sequence[Mapping[str, Any]] = CANDIDATES,
    num_sentences: int = NUM_SENTENCES,
) -> dict[str, Any]:
    """Speaks sentences in every way, and writes the best into the package's ``generation_config.json``.

    Args:
        package: the Audio-LLM, with its tokenizer and decoder.
        layout: where the clips of the dev split are, whose texts are spoken, by all voices in turns.
        judge: the recognizer, see `audiollm.benchmarks.speech.judges.recognizers`.
        candidates: settings of `audiollm.generation.sampling.SamplingSettings`.
        num_sentences: how many are spoken, if there are so many.

    Returns:
        ``{"sentences", "chosen", "tried": [{"settings", "wer", "wer_capped", "ended_by_itself"}]}``; the lowest capped
        rate is chosen.

    Raises:
        ValueError: if the dev split has no sentence of open vocabulary.
    """
    texts = _dev_sentences(layout, num_sentences)
    model, recognizer = AudioLLM.from_pretrained(package), Transcriber(judge)
    voices = [VocalAttributes(**CLEAR_VOICES[n % len(CLEAR_VOICES)].attributes()) for n in range(len(texts))]
    tried: list[dict[str, Any]] = []
    for settings in candidates:
        spoken = speak_sentences(model, texts, voices, **settings)
        heard = recognizer.transcribe([result.waveform for result in spoken], spoken[0].sample_rate)
        ended = sum(result.finish_reason == "stop" for result in spoken) / len(spoken)
        tried.append({"settings": dict(settings), **error_rates(texts, heard), "ended_by_itself": ended})
    best = min(tried, key=lambda one: float(one["wer_capped"]))
    set_value(package / "generation_config.json", AUDIO_SAMPLING, best["settings"])
    return {"sentences": len(texts), "chosen": best["settings"], "tried": tried}


def _dev_sentences(layout: MiniLayout, count: int) -> list[str]:
    texts = [
        clip["text"]
        for clip in read_json_lines(layout.tokenizer_data("dev"))
        if clip["id"].startswith(f"{OPEN_SPEECH}/") and clip["duration_seconds"] <= MAX_SPOKEN_SECONDS
    ]
    if not texts:
        raise ValueError(f"{layout.tokenizer_data('dev')} has no sentence of {OPEN_SPEECH}: run the step data again")
    return spread(texts, min(count, len(texts)))
