"""What a decoder's sound is worth: distances to the originals, and how well a real recognizer understands it.

Every clip is measured as it is, as copy-synthesis (the vocoder on the true mel, the best that any flow model can reach)
and decoded from its codes, so that an error has an address: the recognizer, the vocoder, or codes and flow model.

python -m audiollm.training.decoder.validation --decoder decoder --data test.jsonl --output_dir report \
        --asr whisper-tiny.en
"""
# Shapes: T codes, C mel bins, M mel frames, N samples.

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import auto_cli, set_parsing_settings
from torch import Tensor

from audiollm.benchmarks.harness.pictures import draw_clip
from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.speech.judges.transcription import Transcriber
from audiollm.data.audio.writing import save_audio
from audiollm.tokenizer.decoder.configuration import WaveformDecoderConfig
from audiollm.tokenizer.decoder.vocoder.model import HiFTVocoder
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.training.decoder.base import clip_generator
from audiollm.training.decoder.clips import ClipFormat
from audiollm.training.decoder.columns import speaker_column
from audiollm.training.decoder.parts import load_part
from audiollm.training.decoder.shards import DecoderItems, prepare_items
from audiollm.training.loop.record import write_json

if TYPE_CHECKING:
    from audiollm.tokenizer.decoder.model import WaveformDecoder

logger = logging.getLogger(__name__)

ORIGINAL, COPY_SYNTHESIS, DECODED, STREAMED = "original", "copy_synthesis", "decoded", "streamed"
QUICK_METRICS = ("mel_distance", "mcd")
ALL_METRICS = ("mel_distance", "mcd", "stoi", "pesq")

Synthesis = Callable[[DecoderItems, int], Tensor]
"""Makes the waveform ``[N]`` of a clip, given the clips and its number."""


@dataclass(frozen=True)
class ValidationClip:
    """One clip and what was made of it.

    Attributes:
        id: the record's own.
        text: what is said, if known.
        waveforms: by system, the original first; float32 ``[N]`` on the CPU.
    """

    id: str
    text: str | None
    waveforms: dict[str, Tensor]


def copy_synthesis(vocoder: HiFTVocoder, seed: int = 0) -> Synthesis:
    """The vocoder alone, on the true mel."""

    @torch.no_grad()
    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        mel = items.mel(clip)[None].to(next(vocoder.parameters()).device)
        return vocoder(mel, generator=clip_generator(seed, clip))[0].cpu()

    return synthesize


def decoding(decoder: WaveformDecoder, steps: int = 10, seed: int = 0) -> Synthesis:
    """The whole decoder, from codes."""

    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        (waveform,) = decoder.decode(items.codes(clip), speaker=items.speaker(clip), steps=steps, seed=seed)
        return waveform.cpu()

    return synthesize


def streaming(decoder: WaveformDecoder, steps: int = 10, seed: int = 0) -> Synthesis:
    """The whole decoder, from codes that come one by one."""

    def synthesize(items: DecoderItems, clip: int) -> Tensor:
        codes = items.codes(clip).split(1)
        return torch.cat(
            [piece.cpu() for piece in decoder.decode_stream(codes, speaker=items.speaker(clip), steps=steps, seed=seed)]
        )

    return synthesize


def synthesize_clips(
    items: DecoderItems, clips: Sequence[int], systems: Mapping[str, Synthesis]
) -> list[ValidationClip]:
    """Runs every system on every clip.

    Args:
        items: held-out clips.
        clips: numbers of those to use.
        systems: by name.

    Returns:
        The clips with their originals and what each system made.
    """
    made = []
    for clip in clips:
        waveforms = {ORIGINAL: items.waveform(clip)}
        waveforms |= {name: synthesize(items, clip) for name, synthesize in systems.items()}
        made.append(ValidationClip(items.id(clip), items.text(clip), waveforms))
    return made


def measure(
    clips: Sequence[ValidationClip],
    sample_rate: int,
    *,
    metrics: Sequence[str] = ALL_METRICS,
    transcriber: Transcriber | None = None,
) -> dict[str, Any]:
    """Measures every system against the originals, and against the texts where a recognizer is given.

    Args:
        clips: with at least the original each.
        sample_rate: of all waveforms, in Hz.
        metrics: of ``benchmarks/metrics``, on pairs of waveforms.
        transcriber: judges clips with a text.

    Returns:
        ``{"num_clips", "seconds", "systems": {name: {metric: value}}, "clips": [{"id", "text", "systems": {name:
        {"metric": …, "transcript": …}}}]}``. ``wer`` is over all words; a metric of a clip is None where it cannot be
        computed, such as for one too short.

    Raises:
        ValueError: if there are no clips.
        ImportError: if a metric's library is missing, with the command that installs it.
    """
    if not clips:
        raise ValueError("there are no clips to measure")
    names = list(clips[0].waveforms)
    originals = [clip.waveforms[ORIGINAL].numpy() for clip in clips]
    rows: list[dict[str, Any]] = [
        {"id": clip.id, "text": clip.text, "systems": {name: {} for name in names}} for clip in clips
    ]
    systems: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        made = [clip.waveforms[name].numpy() for clip in clips]
        for metric in metrics if name != ORIGINAL else ():
            scores = load_metric(metric).compute(
                predictions=made,
                references=originals,
                prediction_sample_rate=sample_rate,
                reference_sample_rate=sample_rate,
            )
            systems[name][metric] = scores[metric]
            for row, score in zip(rows, scores["scores"], strict=True):
                row["systems"][name][metric] = score
        if transcriber is not None:
            systems[name] |= _judge_by_text(clips, name, sample_rate, transcriber, rows)
    seconds = sum(len(waveform) for waveform in originals) / sample_rate
    return {"num_clips": len(clips), "seconds": seconds, "systems": systems, "clips": rows}


def _judge_by_text(
    clips: Sequence[ValidationClip], name: str, sample_rate: int, transcriber: Transcriber, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Word error rate of a system over the clips with a text; adds the transcripts to the rows."""
    spoken = [(clip, row) for clip, row in zip(clips, rows, strict=True) if clip.text]
    if not spoken:
        return {"wer": None, "num_words": 0}
    transcripts = transcriber.transcribe([clip.waveforms[name] for clip, _ in spoken], sample_rate)
    metric = load_metric("wer")
    for (clip, row), transcript in zip(spoken, transcripts, strict=True):
        row["systems"][name]["transcript"] = transcript
        row["systems"][name]["wer"] = metric.compute(predictions=[transcript], references=[clip.text])["wer"]
    scores = metric.compute(predictions=transcripts, references=[clip.text for clip, _ in spoken])
    return {"wer": scores["wer"], "num_words": scores["num_reference_words"]}


def write_clips(clips: Sequence[ValidationClip], mel: MelConfig, folder: Path) -> None:
    """Writes each clip's waveforms as ``NNN_id.system.wav`` and one picture of them all, ``NNN_id.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips):
        stem = f"{number:03d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', clip.id)[-80:]}"
        for name, waveform in clip.waveforms.items():
            save_audio(folder / f"{stem}.{name}.wav", waveform, mel.sample_rate)
        draw_clip(folder / f"{stem}.png", clip.text or clip.id, clip.waveforms, mel)


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

    steps: int = 10
    """Steps of the flow's sampler."""

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
        if self.write_clips < 0 or self.steps < 1:
            raise ValueError(f"write_clips={self.write_clips}, steps={self.steps}: use zero or more, and 1 or more")


def validate(config: ValidationConfig) -> dict[str, Any]:
    """Runs a validation; returns and writes what :func:`measure` found.

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
    return result


def _load_systems(config: ValidationConfig) -> tuple[WaveformDecoderConfig, dict[str, Synthesis]]:
    if config.vocoder is not None:
        sizes, weights = load_part(config.vocoder, "vocoder")
        vocoder = HiFTVocoder(sizes.vocoder)
        vocoder.load_state_dict(weights)
        vocoder.eval().to(config.device or "cpu")
        return sizes, {COPY_SYNTHESIS: copy_synthesis(vocoder, config.seed)}
    from audiollm.tokenizer.decoder.model import WaveformDecoder

    assert config.decoder is not None
    decoder = WaveformDecoder.from_pretrained(config.decoder, device=config.device)
    systems = {
        COPY_SYNTHESIS: copy_synthesis(decoder.vocoder, config.seed),
        DECODED: decoding(decoder, config.steps, config.seed),
    }
    if config.stream:
        systems[STREAMED] = streaming(decoder, config.steps, config.seed)
    return decoder.config, systems


def _load_audio_tokenizer(source: str | None) -> Any:
    if source is None:
        return None
    from audiollm.tokenizer.modeling import UniAudioTokenizer

    return UniAudioTokenizer.from_pretrained(source, encoder_only=True).eval()


def main() -> None:
    """Reads the config and validates; user errors end in one message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        result = validate(auto_cli(ValidationConfig, as_positional=False, allow_abbrev=False))
    except (ValueError, OSError, ImportError) as error:
        logger.debug("traceback of the error", exc_info=True)
        sys.exit(f"decoder_validation: {error}")
    for name, scores in result["systems"].items():
        logger.info("%s: %s", name, ", ".join(f"{metric} {value}" for metric, value in scores.items()))


if __name__ == "__main__":
    main()
