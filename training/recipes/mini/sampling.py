"""How mini draws the codes that it speaks, and how its flow model goes from codes to a mel: chosen by what a recognizer
understands of sentences of the dev split.

Greedy codes fall into loops; drawn from the whole distribution they stray from the text. What lies between is the best
for a small model, and it is not the default, which was chosen for large ones. A small flow model does best without the
noise that it was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES
from audiollm.data.corpora.sources.synthetic import OPEN_NAME as OPEN_SPEECH
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.sampling import spread
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.loading import AUDIO_SAMPLING
from audiollm.mini import AUDIO_TOKENIZER_FOLDER
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import Codes
from audiollm.tokenizer.decoder.model import WaveformDecoder

from .conversations import MAX_SPOKEN_SECONDS
from .layout import MiniLayout
from .package import set_value
from .speaking import error_rates, speak_sentences

NUM_SENTENCES = 30
MARGIN = 0.02
"""Between word error rates that so few sentences do not tell apart: of those so near the best, the first is taken."""

# From the steadiest on.
CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {"temperature": 0.2},
    {"temperature": 0.4},
    {"temperature": 0.6},
    {"temperature": 0.8},
)

# Noise around the mean in nats, and steps; from the cheapest on.
FLOW_CANDIDATES: tuple[Mapping[str, Any], ...] = (
    {"mean_prior": 0.0, "steps": 4},
    {"mean_prior": 0.3, "steps": 4},
    {"mean_prior": 0.0, "steps": 8},
)


def choose_flow_settings(
    package: Path,
    layout: MiniLayout,
    judge: str,
    *,
    candidates: Sequence[Mapping[str, Any]] = FLOW_CANDIDATES,
    num_sentences: int = NUM_SENTENCES,
) -> dict[str, Any]:
    """Decodes sentences in every way, and writes the best into the ``config.json`` of the package's decoder.

    Args:
        package: as for `choose_audio_sampling`, and so are ``layout`` and ``judge``.
        candidates: settings of `audiollm.tokenizer.decoder.configuration.FlowConfig`.
        num_sentences: how many are decoded, if there are so many.

    Returns:
        As `choose_audio_sampling`.
    """
    clips = _dev_clips(layout.codes("dev"), num_sentences)
    codes = Codes.from_list([torch.tensor([clip["codes"]]) for clip in clips])
    texts, recognizer = [clip["text"] for clip in clips], Transcriber(judge)
    folder = package / AUDIO_TOKENIZER_FOLDER / "decoder"
    flow = json.loads((folder / "config.json").read_text(encoding="utf-8"))["flow"]
    tried: list[dict[str, Any]] = []
    for settings in candidates:
        set_value(folder / "config.json", "flow", flow | settings)
        decoder = WaveformDecoder.from_pretrained(folder)
        heard = recognizer.transcribe(list(decoder.decode(codes)), decoder.sample_rate)
        tried.append({"settings": dict(settings), **error_rates(texts, heard)})
    best = _best(tried)
    set_value(folder / "config.json", "flow", flow | best)
    return {"sentences": len(texts), "chosen": best, "tried": tried}


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
        ``{"sentences", "chosen", "tried": [{"settings", "wer", "wer_capped", "ended_by_itself"}]}``; chosen is the
        first whose capped rate is within `MARGIN` of the lowest.

    Raises:
        ValueError: if the dev split has no sentence of open vocabulary.
    """
    texts = [clip["text"] for clip in _dev_clips(layout.tokenizer_data("dev"), num_sentences)]
    model, recognizer = AudioLLM.from_pretrained(package), Transcriber(judge)
    voices = [VocalAttributes(**CLEAR_VOICES[n % len(CLEAR_VOICES)].attributes()) for n in range(len(texts))]
    tried: list[dict[str, Any]] = []
    for settings in candidates:
        spoken = speak_sentences(model, texts, voices, **settings)
        heard = recognizer.transcribe([result.waveform for result in spoken], spoken[0].sample_rate)
        ended = sum(result.finish_reason == "stop" for result in spoken) / len(spoken)
        tried.append({"settings": dict(settings), **error_rates(texts, heard), "ended_by_itself": ended})
    best = _best(tried)
    set_value(package / "generation_config.json", AUDIO_SAMPLING, best)
    return {"sentences": len(texts), "chosen": best, "tried": tried}


def _best(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    lowest = min(float(one["wer_capped"]) for one in tried)
    settings: Mapping[str, Any] = next(one["settings"] for one in tried if one["wer_capped"] <= lowest + MARGIN)
    return settings


def _dev_clips(path: Path, count: int) -> list[dict[str, Any]]:
    clips = [
        clip
        for clip in read_json_lines(path)
        if clip["id"].startswith(f"{OPEN_SPEECH}/") and clip["duration_seconds"] <= MAX_SPOKEN_SECONDS
    ]
    if not clips:
        raise ValueError(f"{path} has no sentence of {OPEN_SPEECH}: run the step data again")
    return spread(clips, min(count, len(clips)))
