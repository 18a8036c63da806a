"""A page to listen to: held-out sentences and recordings, as they are, through mini's codes, and spoken by mini."""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from audiollm.benchmarks.harness.page import render
from audiollm.benchmarks.harness.pictures import draw_clip
from audiollm.benchmarks.speech.judges.recognizers import Transcriber
from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora.opus import encode_opus
from audiollm.data.corpora.sources.synthetic import CLEAR_VOICES
from audiollm.data.files.atomic import atomic_folder
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.sampling import spread
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.modeling import AudioLLM
from audiollm.speaking import speak_many
from audiollm.tokenizer.configuration import SAMPLE_RATE
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.signal.mel import MelConfig
from audiollm.tokenizer.signal.resampling import resample

from .conversations import MAX_SPOKEN_SECONDS, is_for_lm
from .data import held_out_clips
from .held_out import held_out_sentences
from .layout import MiniLayout

BYTE_BUDGET = 2_000_000
BITRATE_BPS = 24_000
SENTENCES_PER_VOICE = 2
RECORDINGS = {"asterisk": 1, "opensfx": 1, "sonic-pi": 1, "immich-music": 1, "asterisk-moh": 1}
"""Held-out recordings of each corpus."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 6.0
_MEL = MelConfig(sample_rate=SAMPLE_RATE, hop_length=160)
_NAMES = {"original": "as it is", "decoded": "through codes and decoder", "spoken": "spoken by mini"}


@dataclass(frozen=True)
class Sample:
    """A row of the page.

    Attributes:
        name: of its files.
        title: what it is.
        waveforms: version → float ``[N]`` at 16 kHz.
        heard: version → what the recognizer hears; empty where nobody speaks.
        attribution: who made the recording, and its licence.
    """

    name: str
    title: str
    waveforms: Mapping[str, Tensor]
    heard: Mapping[str, str]
    attribution: str


def write_samples(package: Path, layout: MiniLayout, folder: Path, judge: str) -> int:
    """Writes the page ``README.md``, its clips (Opus) and a picture of each row.

    Args:
        package: the Audio-LLM, with its tokenizer and decoder.
        layout: where the held-out clips are.
        folder: to write; replaced if it exists.
        judge: the recognizer, see `audiollm.benchmarks.speech.judges.recognizers`.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: if it is larger than `BYTE_BUDGET`; nothing is written then.
        PackageError: if a package of the synthesizers cannot be fetched.
    """
    model = AudioLLM.from_pretrained(package)
    transcriber = Transcriber(judge)
    samples = [*_sentences(model, layout, transcriber), *_recordings(model, layout, transcriber)]
    with atomic_folder(folder) as temporary:
        for sample in samples:
            for version, waveform in sample.waveforms.items():
                name = f"{sample.name}_{version}.opus"
                (temporary / name).write_bytes(encode_opus(waveform, BITRATE_BPS, name))
            named = {_NAMES[version]: waveform for version, waveform in sample.waveforms.items()}
            draw_clip(temporary / f"{sample.name}.png", sample.title, named, _MEL)
        page = render(Path(__file__).with_name("samples.md.jinja"), samples=samples, names=_NAMES, judge=judge)
        (temporary / "README.md").write_text(page, encoding="utf-8")
        size = sum(path.stat().st_size for path in temporary.iterdir())
        if size > BYTE_BUDGET:
            raise ValueError(f"the samples take {size:,} bytes, more than {BYTE_BUDGET:,}; make them fewer")
    return size


def _sentences(model: AudioLLM, layout: MiniLayout, transcriber: Transcriber) -> list[Sample]:
    clips = {(clip["speaker"], clip["text"]): clip for clip in held_out_clips(layout)}
    texts = spread(held_out_sentences(), SENTENCES_PER_VOICE * len(CLEAR_VOICES))
    samples = []
    for number, text in enumerate(texts):
        voice = CLEAR_VOICES[number % len(CLEAR_VOICES)]
        asked = VocalAttributes(**voice.attributes())
        (spoken,) = speak_many(model, [text], asked, max_seconds=MAX_SPOKEN_SECONDS, seed=0)
        clip = clips[voice.speaker, text]
        waveforms = _versions(model, clip) | {"spoken": resample(spoken.waveform, spoken.sample_rate, SAMPLE_RATE)}
        title = f"“{text}” ({spoken.voice})"
        samples.append(_sample(f"sentence_{number + 1}", title, waveforms, clip, transcriber))
    return samples


def _recordings(model: AudioLLM, layout: MiniLayout, transcriber: Transcriber) -> list[Sample]:
    clips = [
        clip
        for clip in read_json_lines(layout.tokenizer_data("test"))
        if SHORTEST_SECONDS <= clip["duration_seconds"] <= LONGEST_SECONDS and is_for_lm(clip)
    ]
    samples = []
    for corpus, count in RECORDINGS.items():
        found = [clip for clip in clips if clip["id"].startswith(f"{corpus}/")]
        for number, clip in enumerate(spread(found, min(count, len(found)))):
            title = f"“{clip['text']}”" if clip["sound_type"] == "speech" else clip.get("caption") or clip["sound_type"]
            samples.append(_sample(f"{corpus}_{number + 1}", title, _versions(model, clip), clip, transcriber))
    return samples


def _versions(model: AudioLLM, clip: Mapping[str, Any]) -> dict[str, Tensor]:
    audio_tokenizer = model.processor.audio_tokenizer
    assert isinstance(audio_tokenizer, UniAudioTokenizer)
    waveform, _ = load_audio(clip["audio"], SAMPLE_RATE)
    (decoded,) = audio_tokenizer.decode(audio_tokenizer.encode(waveform, SAMPLE_RATE))
    return {"original": waveform, "decoded": resample(decoded, audio_tokenizer.output_sample_rate, SAMPLE_RATE)}


def _sample(
    name: str, title: str, waveforms: Mapping[str, Tensor], clip: Mapping[str, Any], transcriber: Transcriber
) -> Sample:
    heard: Sequence[str] = []
    if clip["sound_type"] == "speech":
        heard = transcriber.transcribe(list(waveforms.values()), SAMPLE_RATE)
    attribution = f"{clip['attribution']} ({clip['licence']})"
    return Sample(name, title, waveforms, dict(zip(waveforms, heard, strict=False)), attribution)
