"""What fewer evaluations of the flow's network cost in quality: solvers, times and guidance on a trained decoder.

Every way of integrating decodes the same recordings from the same noise, several times over with other noise. What the
ten Euler steps of the published decoder do differently from one noise to the next is the spread; a cheaper way whose
figures lie within it cannot be told from them. Example::

    python benchmarks/speed/decoder_quality.py --audio-tokenizer TOKENIZER --data test.jsonl --output quality.json

Records need ``audio`` and, for the word error rate, ``text``; codes are made where a record has none.
"""
# Shapes: T codes, C mel bins, M mel frames, N samples.

from __future__ import annotations

import copy
import logging
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from audiollm.benchmarks.harness.figures import measure_and_show, recorded_config
from audiollm.benchmarks.metrics import load_metric
from audiollm.benchmarks.speech.judges.dnsmos import load_dnsmos
from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.benchmarks.speed.timing import machine_facts
from audiollm.data.audio.reading import load_audio
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.voices.encoders import load_speaker_encoder
from audiollm.program import run_program
from audiollm.tables import print_table
from audiollm.tokenizer.decoder.configuration import FlowConfig
from audiollm.tokenizer.decoder.flow.model import FlowModel
from audiollm.tokenizer.decoder.flow.solvers import Integration
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.decoder.streaming.decoder import (
    BLOCK_SECONDS,
    ENCODER_HISTORY_SECONDS,
    FIRST_BLOCK_SECONDS,
    OVERLAP_SECONDS,
)
from audiollm.tokenizer.decoder.streaming.mel import MelStream
from audiollm.tokenizer.decoder.streaming.noise import NoiseBuffer
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.mel import MelSpectrogram
from audiollm.tokenizer.signal.resampling import resample

PUBLISHED = "euler@10"
_FORM = re.compile(r"(?P<solver>[a-z]+)@(?P<steps>\d+)(?P<more>(,[a-z_]+=[-+.\w]+)*)")
DTYPES = ("float32", "bfloat16", "int8")
_LOWER_IS_BETTER = {"mel_distance": True, "wer": True, "similarity": False, "dnsmos": False}


@dataclass(frozen=True, kw_only=True)
class DecoderQualityConfig:
    """One comparison of ways to integrate."""

    audio_tokenizer: str = "mini"
    """Audio tokenizer with a decoder: folder, Hub id, or the embedded one."""
    data: str
    """Recordings that neither has heard: JSONL with ``audio``, and maybe ``text`` and ``codes``."""
    ways: tuple[str, ...] = (
        *("euler@2", "euler@3", "euler@4", "euler@5", "euler@6", "euler@8", PUBLISHED),
        *("midpoint@2", "midpoint@4", "midpoint@6", "heun@4", "heun@6"),
        *("multistep@3", "multistep@4", "multistep@5", "multistep@6", "multistep@8"),
        *("dpm@2", "dpm@3", "dpm@4", "dpm@5", "dpm@6", "dpm@8"),
        *("dpm@4,sway=0", "dpm@4,sway=-0.5", "dpm@6,sway=-0.5", "euler@5,sway=-0.5"),
        *("dpm@5,guided_until=0.5", "dpm@6,guided_until=0.5", "dpm@6,guided_until=0.25", "euler@10,guided_until=0.5"),
        *("euler@4,history=0.5", "euler@4,history=1", "euler@4,history=2"),
    )
    """SOLVER@EVALUATIONS, behind it ``,sway=…`` and ``,guided_until=…`` where they differ from the checkpoint's,
    ``,history=…`` for a stream whose blocks look back on so many seconds of mel, and ``,dtype=int8`` and the like."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the noise; at least two, or there is no spread."""
    max_clips: int | None = None
    """Measure the first so many. None: all."""
    asr: str | None = "whisper-tiny.en"
    """Speech recognizer: a folder, a Hub id, or one from a package index. None: no word error rate."""
    similarity: bool = True
    """Compare voices with the originals' by Resemblyzer."""
    mos: bool = True
    """Predict opinions by DNSMOS."""
    output: str | None = None
    """File for the figures as JSON."""
    overwrite: bool = False
    """Replace an output that exists."""
    json: bool = False
    """Print the figures as JSON instead of a table."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 2:
            raise ValueError(f"seeds={list(self.seeds)}: use at least two different ones, or there is no spread")
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips={self.max_clips}: use 1 or more")
        if not self.ways:
            raise ValueError(f"ways is empty: name at least one to compare with {PUBLISHED}")
        for way in self.ways:
            Way.read(way, FlowConfig())


@dataclass(frozen=True)
class QualityClip:
    """One recording, at the decoder's rate.

    Attributes:
        waveform: float32 ``[N]``.
        codes: int64 ``[T]``.
        mel: its log-mel ``[C, M]``, as the decoder should make it.
        text: what is said, if known.
        voice: as a speaker encoder describes it, if voices are compared.
    """

    waveform: Tensor
    codes: Tensor
    mel: Tensor
    text: str | None
    voice: Tensor | None = None


@dataclass(frozen=True)
class Judges:
    """What recordings are judged by; those that are None are left out."""

    transcriber: Transcriber | None
    voice_of: Callable[[Tensor, int], Tensor] | None
    opinion_of: Callable[[Tensor, int], float | None] | None


@dataclass(frozen=True)
class Way:
    """A way to decode.

    Attributes:
        integration: of the flow.
        history_seconds: what a block of a stream looks back on; None: clips are decoded as a whole.
        dtype: number format of the decoder's products.
    """

    integration: Integration
    history_seconds: float | None = None
    dtype: str = "float32"

    @classmethod
    def read(cls, text: str, config: FlowConfig) -> Way:
        """Reads a way, as in ``dpm@5,guided_until=0.5``; what it does not say is the checkpoint's.

        Raises:
            ValueError: if it is of another form, or has values that make no sense.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no way to integrate: write SOLVER@EVALUATIONS, as in dpm@5,sway=-0.5")
        entries = [entry.split("=") for entry in found["more"].split(",") if entry]
        more = dict(entries)
        if len(more) < len(entries):
            raise ValueError(f"{text!r} sets something twice")
        dtype = more.pop("dtype", "float32")
        unknown = more.keys() - {"sway", "guided_until", "history"}
        if unknown:
            raise ValueError(f"{text!r} sets {', '.join(sorted(unknown))}: use sway, guided_until, history or dtype")
        if dtype not in DTYPES:
            raise ValueError(f"{text!r} has dtype={dtype}: use {', '.join(DTYPES)}")
        try:
            numbers = {name: float(value) for name, value in more.items()}
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from error
        if not 0 <= numbers.get("history", 0) < math.inf:
            raise ValueError(f"{text!r} has history={numbers['history']:g}: use seconds, 0 or more")
        solver: Any = found["solver"]  # checked by what is made of it
        sway, guided_until = numbers.get("sway", config.sway), numbers.get("guided_until", 1.0)
        integration = Integration(int(found["steps"]), config.guidance, solver, sway, guided_until)
        return cls(integration, numbers.get("history"), dtype)


def num_passes(integration: Integration) -> int:
    """How often the network runs over a row: a guided evaluation counts twice."""
    asked: list[bool] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        asked.append(integration.is_guided(t))
        return x

    integration.solve(torch.zeros(1, 1, 1), velocity)
    return sum(1 + is_guided for is_guided in asked)


def decoder_of(audio_tokenizer: UniAudioTokenizer) -> WaveformDecoder:
    """Its waveform decoder.

    Raises:
        ValueError: if it has none.
    """
    if audio_tokenizer.decoder is None:
        raise ValueError("this audio tokenizer has no waveform decoder to compare: give one with a decoder/ folder")
    return audio_tokenizer.decoder


def in_dtype(decoder: WaveformDecoder, dtype: str) -> WaveformDecoder:
    """The decoder, in float32, or a copy that computes in another number format.

    Raises:
        ValueError: if this machine has no int8 products.
    """
    if dtype == "float32":
        return decoder
    other = copy.deepcopy(decoder)
    return other.to_int8() if dtype == "int8" else other.prepare(getattr(torch, dtype))


def load_clips(
    config: DecoderQualityConfig, audio_tokenizer: UniAudioTokenizer, voice_of: Callable[[Tensor, int], Tensor] | None
) -> list[QualityClip]:
    """Reads the recordings, and encodes those without codes."""
    decoder = decoder_of(audio_tokenizer)
    to_mel = MelSpectrogram(decoder.config.mel)
    clips = []
    for number, record in enumerate(read_json_lines(config.data)):
        if config.max_clips is not None and number >= config.max_clips:
            break
        if "audio" not in record:
            raise ValueError(f"{config.data}: record {number + 1} has no audio")
        waveform, rate = load_audio(Path(config.data).parent / record["audio"])
        codes = record.get("codes")
        row = audio_tokenizer.encode([waveform], rate)[0][0] if codes is None else torch.tensor(codes)
        at_rate = resample(waveform, rate, decoder.sample_rate)
        voice = None if voice_of is None else voice_of(at_rate, decoder.sample_rate)
        clips.append(QualityClip(at_rate, row, to_mel(at_rate), record.get("text"), voice))
    if not clips:
        raise ValueError(f"{config.data} holds no recordings")
    return clips


def decode_clips(
    decoder: WaveformDecoder, clips: Sequence[QualityClip], way: Way, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Makes mel ``[C, M]`` and waveform ``[N]`` of each clip; the noise is the same in every way."""
    mels, waveforms = [], []
    for number, clip in enumerate(clips):
        noise = NoiseBuffer(decoder.config.mel.num_mels, torch.Generator().manual_seed(1000 * seed + number))
        mel = make_mel(decoder.flow, clip.codes[None].to(decoder.device), way, noise)
        generator = torch.Generator().manual_seed(1000 * seed + number)
        mels.append(mel[0].float().cpu())
        waveforms.append(decoder.vocoder(mel.float(), generator=generator)[0].cpu())
    return mels, waveforms


def make_mel(flow: FlowModel, codes: Tensor, way: Way, noise: NoiseBuffer) -> Tensor:
    """Makes the mel ``[1, C, M]`` of a row of codes ``[1, T]``, at once or as a stream in its usual blocks."""
    if way.history_seconds is None:
        whole = noise.take(0, flow.num_mel_frames(codes.shape[1]))
        return flow.mel(codes, noise=whole, integration=way.integration)[0]
    rate = flow.mel_config.frame_rate
    stream = MelStream(
        flow,
        noise,
        history_frames=round(way.history_seconds * rate),
        overlap_frames=round(OVERLAP_SECONDS * rate),
        max_history_codes=round(ENCODER_HISTORY_SECONDS * flow.config.frame_rate),
        integration=way.integration,
    )
    parts, first, block = [], round(FIRST_BLOCK_SECONDS * flow.config.frame_rate), 0
    while codes.shape[1]:
        block = min(max(first, 2 * block), round(BLOCK_SECONDS * flow.config.frame_rate))
        part, codes = codes[:, :block], codes[:, block:]
        parts.append(stream.extend(part, is_last=not codes.shape[1]))
    return torch.cat(parts, dim=2)


def judge(
    clips: Sequence[QualityClip], mels: Sequence[Tensor], waveforms: Sequence[Tensor], rate: int, judges: Judges
) -> dict[str, float]:
    """Means over the clips of one way and one noise; the word error rate is over all words."""
    scores = {
        "mel_distance": statistics.mean(mel_distance(mel, clip.mel) for mel, clip in zip(mels, clips, strict=True))
    }
    spoken = [(clip.text, waveform) for clip, waveform in zip(clips, waveforms, strict=True) if clip.text]
    if judges.transcriber is not None and spoken:
        heard = judges.transcriber.transcribe([waveform for _, waveform in spoken], rate)
        scores["wer"] = load_metric("wer").compute(predictions=heard, references=[text for text, _ in spoken])["wer"]
    if judges.voice_of is not None:
        voice_of = judges.voice_of
        scores["similarity"] = statistics.mean(
            float(voice_of(waveform, rate) @ clip.voice)
            for clip, waveform in zip(clips, waveforms, strict=True)
            if clip.voice is not None
        )
    if judges.opinion_of is not None:
        opinions = [judges.opinion_of(waveform, rate) for waveform in waveforms]
        known = [opinion for opinion in opinions if opinion is not None]
        if not known:
            raise ValueError("DNSMOS has no opinion of any recording, for they are silent: use others, or --mos false")
        scores["dnsmos"] = statistics.mean(known)
    return scores


def mel_distance(made: Tensor, wanted: Tensor) -> float:
    """Mean absolute difference of two log-mels ``[C, M]``, over the frames that both have, in nats."""
    frames = min(made.shape[1], wanted.shape[1])
    return float(F.l1_loss(made[:, :frames], wanted[:, :frames]))


def compare(
    decoder: WaveformDecoder, clips: Sequence[QualityClip], config: DecoderQualityConfig, judges: Judges
) -> dict[str, dict[str, Any]]:
    """Figures of every way: its scores by seed, and how far its mels are from the published ones of the same noise."""
    flow, rate = decoder.config.flow, decoder.sample_rate
    read = {text: Way.read(text, flow) for text in dict.fromkeys([PUBLISHED, *config.ways])}
    decoders = {dtype: in_dtype(decoder, dtype) for dtype in {way.dtype for way in read.values()}}
    rows: dict[str, dict[str, Any]] = {
        text: {"passes": num_passes(way.integration), "seeds": [], "from_published": []} for text, way in read.items()
    }
    with tqdm(total=len(rows) * len(config.seeds), disable=None) as progress:
        for seed in config.seeds:
            published: list[Tensor] = []
            for way, row in rows.items():
                progress.set_postfix_str(way)
                mels, waveforms = decode_clips(decoders[read[way].dtype], clips, read[way], seed)
                published = published or mels
                away = [mel_distance(mel, own) for mel, own in zip(mels, published, strict=True)]
                row["from_published"].append(statistics.mean(away))
                row["seeds"].append(judge(clips, mels, waveforms, rate, judges))
                progress.update()
    for row in rows.values():
        names = row["seeds"][0]
        row["mean"] = {name: statistics.mean(own[name] for own in row["seeds"]) for name in names}
        row["spread"] = {name: statistics.stdev(own[name] for own in row["seeds"]) for name in names}
        row["worse"] = worse_than(row, rows[PUBLISHED])
    return rows


def worse_than(row: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """The figures that lie on the worse side of the published way's, by more than its spread over the seeds."""
    worse = []
    for name, mean in published["mean"].items():
        loss = row["mean"][name] - mean
        if (loss if _LOWER_IS_BETTER[name] else -loss) > published["spread"][name]:
            worse.append(name)
    return worse


def measure(config: DecoderQualityConfig) -> dict[str, Any]:
    """Runs the comparison."""
    audio_tokenizer = UniAudioTokenizer.from_pretrained(config.audio_tokenizer)
    decoder = decoder_of(audio_tokenizer)
    judges = Judges(
        None if config.asr is None else Transcriber(config.asr),
        load_speaker_encoder().embed if config.similarity else None,
        load_dnsmos().predict if config.mos else None,
    )
    clips = load_clips(config, audio_tokenizer, judges.voice_of)
    with torch.inference_mode():
        originals = judge(
            clips, [clip.mel for clip in clips], [clip.waveform for clip in clips], decoder.sample_rate, judges
        )
        ways = compare(decoder, clips, config, judges)
    return {
        "config": recorded_config(config),
        "machine": machine_facts(),
        "decoder_fingerprint": decoder.fingerprint(),
        "num_clips": len(clips),
        "seconds": sum(len(clip.waveform) for clip in clips) / decoder.sample_rate,
        "originals": originals,
        "ways": ways,
    }


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Prints one row for each way, the cheapest first."""
    names = list(results["ways"][PUBLISHED]["mean"])
    table = Table("way", "passes", *names, "from published", "worse in", title=f"{results['num_clips']} recordings")
    table.add_row("originals", "", *(f"{results['originals'][name]:.3f}" for name in names), "", "")
    for way, row in sorted(results["ways"].items(), key=lambda entry: entry[1]["passes"]):
        cells = (f"{row['mean'][name]:.3f} ± {row['spread'][name]:.3f}" for name in names)
        away = statistics.mean(row["from_published"])
        table.add_row(way, str(row["passes"]), *cells, f"{away:.3f}", ", ".join(row["worse"]))
    print_table(table, console)


def run(config: DecoderQualityConfig) -> None:
    """Compares, writes the figures down and shows them."""
    measure_and_show(config, measure, print_tables)


if __name__ == "__main__":
    run_program(DecoderQualityConfig, run, level=logging.WARNING)
