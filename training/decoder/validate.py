"""Measures the sound of a waveform decoder, or of a vocoder alone, on held-out clips.

python -m audiollm.training.decoder.validate --decoder decoder --data test.jsonl --output_dir report
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.files.json_document import write_json
from audiollm.program import run_program
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.modeling import UniAudioTokenizer

from .clips import ClipFormat
from .columns import speaker_column
from .parts import load_part
from .shards import prepare_items
from .validation import (
    ALL_METRICS,
    COPY_SYNTHESIS,
    DECODED,
    STREAMED,
    Synthesis,
    copy_synthesis,
    decoding,
    measure,
    streaming,
    synthesize_clips,
    write_clips,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """One validation of a decoder, or of a vocoder alone."""

    data: str
    """Held-out clips with ``audio``, ``codes`` and, for the word error rate, ``text``: JSONL or parquet."""

    output_dir: str
    """Folder for ``metrics.json``, waveforms and pictures."""

    decoder: str | None = None
    """Decoder, as ``WaveformDecoder.from_pretrained`` loads it."""

    vocoder: str | None = None
    """Instead of a decoder: a training run of a vocoder, for copy-synthesis alone."""

    asr: str | None = None
    """Speech recognizer: a folder, a Hub id, or ``whisper-tiny.en`` or ``whisper-base`` from a package index. None: no
    word error rate."""

    language: str | None = None
    """Language of the clips, such as ``en``, for recognizers of several."""

    metrics: tuple[str, ...] = ALL_METRICS
    """What else to measure, of ``benchmarks/metrics``."""

    audio_tokenizer: str | None = None
    """Audio tokenizer (folder or Hub id) that encodes clips without codes."""

    speaker_encoder: str | None = None
    """Speaker encoder that describes each original for the decoder, as in its training. None: the records' own
    vectors, or the neutral voice."""

    cache_dir: str | None = None
    """Where prepared clips are kept. None: ``output_dir/prepared``."""

    max_clips: int | None = None
    """Measure the first so many. None: all."""

    write_clips: int = 16
    """How many of them to write as waveforms and pictures."""

    steps: int | None = None
    """Steps of the flow's sampler. None: the decoder's own number."""

    seed: int = 0
    """Of everything that is drawn."""

    stream: bool = False
    """Also decode every clip as a stream."""

    device: str | None = None
    """Where to compute; the CPU if None."""

    def __post_init__(self) -> None:
        if (self.decoder is None) == (self.vocoder is None):
            raise ValueError("give either decoder or vocoder: the first is measured as a whole, the second by itself")
        if self.stream and self.decoder is None:
            raise ValueError("stream: a vocoder alone has no codes to stream; give a decoder")
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: use 1 or more")
        if self.write_clips < 0 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"write_clips={self.write_clips}, steps={self.steps}: use zero or more, and 1 or more")


def validate(config: ValidationConfig) -> dict[str, Any]:
    """Runs a validation; returns and writes what `measure` found.

    Raises:
        DataError: listing the clips that cannot be used.
        ValueError: for other settings that cannot work.
    """
    sizes, systems = _load_systems(config)
    items = prepare_items(
        config.data,
        ClipFormat(sizes.mel, sizes.flow.frame_rate, sizes.flow.codebook_size),
        config.cache_dir or Path(config.output_dir) / "prepared",
        audio_tokenizer=_load_audio_tokenizer(config.audio_tokenizer),
        columns=[] if config.speaker_encoder is None else [speaker_column(config.speaker_encoder, sizes)],
    )
    transcriber = None
    if config.asr is not None:
        transcriber = Transcriber(config.asr, language=config.language, device=config.device)
    clips = synthesize_clips(items, range(min(len(items), config.max_clips or len(items))), systems)
    result = measure(clips, sizes.mel.sample_rate, metrics=config.metrics, transcriber=transcriber)
    result["asr"] = config.asr
    folder = Path(config.output_dir)
    write_clips(clips[: config.write_clips], sizes.mel, folder / "clips")
    write_json(folder / "metrics.json", result)
    for name, scores in result["systems"].items():
        logger.info("%s: %s", name, ", ".join(f"{metric} {value}" for metric, value in scores.items()))
    return result


def _load_systems(config: ValidationConfig) -> tuple[WaveformDecoderConfig, dict[str, Synthesis]]:
    if config.vocoder is not None:
        sizes, weights = load_part(config.vocoder, "vocoder")
        vocoder = HiFTVocoder(sizes.vocoder)
        vocoder.load_state_dict(weights)
        vocoder.eval().to(config.device or "cpu")
        return sizes, {COPY_SYNTHESIS: copy_synthesis(vocoder, config.seed)}
    assert config.decoder is not None
    decoder = WaveformDecoder.from_pretrained(config.decoder, device=config.device)
    systems = {
        COPY_SYNTHESIS: copy_synthesis(decoder.vocoder, config.seed),
        DECODED: decoding(decoder, config.steps, config.seed),
    }
    if config.stream:
        systems[STREAMED] = streaming(decoder, config.steps, config.seed)
    return decoder.config, systems


def _load_audio_tokenizer(source: str | None) -> UniAudioTokenizer | None:
    if source is None:
        return None
    return UniAudioTokenizer.from_pretrained(source, encoder_only=True).eval()


if __name__ == "__main__":
    run_program(ValidationConfig, validate, name="validate")
