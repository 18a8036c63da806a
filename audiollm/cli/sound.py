"""Commands that make sound: speaking a text, and putting recordings through their codes."""

from __future__ import annotations

import json as jsonlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts

from .answers import paths_in_folder
from .console import (
    Precision,
    check_model_folder,
    load_audio_llm,
    load_audio_tokenizer,
    shown_name,
    write_line,
)
from .pipes import PIPE, check_sound_file, open_sound, read_recording, read_text, refuse_two_of_stdin, stdout_for_sound
from .recordings import (
    BadRecordingError,
    Recording,
    check_recordings,
    find_recordings,
    made_of,
    skipped_line,
    with_progress,
)

NO_RECOGNIZER = "none"
SHOWN_CHARACTERS = 60  # of a text that was spoken
STANDARD_RECOGNIZER = "whisper-tiny.en"
STANDARD_SPEAKER_ENCODER = "resemblyzer"
SoundFormat = Literal["wav", "flac", "ogg", "opus", "mp3"]
logger = logging.getLogger(__name__)


def speak(
    text: str,
    *,
    output: str,
    model: str = "mini",
    voice: str | None = None,
    prompt_audio: str | None = None,
    speaker_audio: str | None = None,
    speaker_encoder: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    quality: Literal["exact", "fast"] | None = None,
    temperature: float | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    dtype: Precision = "fastest",
    device: str | None = None,
    stream: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Speak a text and write the sound.

    Args:
        text: what to say, or - for a text that comes through stdin.
        output: file to write, .wav, .flac, .ogg, .opus or .mp3, or - for WAV that goes to stdout.
        model: Audio-LLM folder or Hub id, with a waveform decoder; the small embedded one if not given.
        voice: who says it and how, in words, such as "an elderly man, slowly".
        prompt_audio: a recording whose voice the decoder takes over, or - for one that comes through stdin.
        speaker_audio: a recording that a speaker encoder describes for the decoder, or -.
        speaker_encoder: which one; its vectors must be what the decoder was trained with; resemblyzer if not given.
        steps: evaluations of the decoder's flow model; fewer are faster and coarser. By default those of the quality.
        guidance: strength of its guidance; the checkpoint's own if not given.
        quality: of the decoder: fast, or exact, as published, which takes about twice as long; where there is a choice,
            fast if not given.
        temperature: below 1 makes the LLM's choice of codes more cautious.
        min_seconds: the sound lasts at least so long.
        max_seconds: and at most so long. If not given, about 30, more for a text that is spoken in turns, but never
            more than the model's context holds.
        seed: of everything that is drawn.
        dtype: precision of LLM and decoder; by default float32 or bfloat16, whichever each runs faster in on this
            machine, as a short trial says that is made once. int8 is for processors (see audiollm doctor --bench).
        device: torch device; the first GPU when there is one.
        stream: write the sound while the LLM is still speaking.
        overwrite: replace an output that exists.
        json: print the summary as JSON.
    """
    from audiollm.data.voices.instructions import speech_request

    refuse_two_of_stdin(text=text, prompt_audio=prompt_audio, speaker_audio=speaker_audio)
    with stdout_for_sound(output) as pipe:
        if pipe is None:
            check_sound_file(output, overwrite)
        check_model_folder(model)
        said = read_text(text)
        speech_request(said, voice)  # says what is wrong with them before the model is loaded
        voices = _Voices.checked(prompt_audio, speaker_audio, speaker_encoder)
        options: dict[str, Any] = {
            "speaker": voices.speaker_vector(device),
            "prompt_audio": voices.prompt,
            "steps": steps,
            "guidance": guidance,
            "quality": quality,
            "temperature": temperature,
            "min_seconds": min_seconds,
            "max_seconds": max_seconds,
            "seed": seed,
        }
        llm = load_audio_llm(model, dtype, device)
        _prepare_decoder(llm.processor.audio_tokenizer, dtype, device)
        summary = _speak(llm, said, voice, options, pipe, output, stream)
        if summary["finish_reason"] == "length":
            from audiollm.generation.result import cut_notice

            told = cut_notice("the sound", f"{summary['seconds']:.2f} s", "--max-seconds")
            logger.warning("%s, as far as the model's context reaches; split the text otherwise", told)
        shown = summary if json else summary | {"text": _beginning(summary["text"])}
        show_facts(shown, as_json=json, title="spoken")


def _beginning(text: str) -> str:
    """A text in a line, of which no more is shown than tells it from others: whoever speaks a book has it already."""
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARACTERS else f"{words[:SHOWN_CHARACTERS]} … ({len(words):,} characters)"


def _speak(
    llm: Any, text: str, voice: str | None, options: dict[str, Any], pipe: IO[bytes] | None, output: str, stream: bool
) -> dict[str, Any]:
    """Speaks a text into a pipe or a file; returns what is told about it."""
    from audiollm import speaking
    from audiollm.generation.decoding import settled_quality
    from audiollm.generation.streaming import StreamedAudio

    sample_rate = llm.processor.audio_tokenizer.output_sample_rate
    with open_sound(pipe, output, sample_rate, is_live=stream) as writer:
        if stream:
            with speaking.speak_stream(llm, text, voice, **options) as answer:
                for event in answer:
                    if isinstance(event, StreamedAudio):
                        writer.write(event.waveform)
            assert answer.result is not None  # the stream is exhausted
            finish_reason = answer.result.finish_reasons[0]
        else:
            spoken = speaking.speak(llm, text, voice, **options)
            writer.write(spoken.waveform)
            finish_reason = spoken.finish_reason
        if not writer.num_samples:
            raise ValueError(
                f"the model said nothing, so {output} was not written; try another --seed or --min-seconds"
            )
        seconds = writer.num_samples / sample_rate
    return {
        "output": output,
        "text": text,
        "voice": voice,
        "quality": settled_quality(options["quality"], llm.processor.audio_tokenizer),
        "dtype": str(llm.model.dtype).removeprefix("torch."),
        "decoder_dtype": _dtype_of(llm.processor.audio_tokenizer),
        "finish_reason": finish_reason,
        "seconds": seconds,
    }


def generate_audio(
    text: str,
    *,
    output: str,
    model: str | None = None,
    audio_tokenizer: str | None = None,
    task: Literal["text-to-speech", "text-to-audio", "text-to-music"] | None = None,
    seconds: float | None = None,
    prompt_audio: str | None = None,
    prompt_text: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Make a sound, music or speech of a text by a diffusion model on latents, and write it.

    Args:
        text: what is heard, or said; - for a text that comes through stdin.
        output: file to write, .wav, .flac, .ogg, .opus or .mp3, or - for WAV that goes to stdout.
        model: folder or Hub id of what audiollm train-dit left; none comes with this package.
        audio_tokenizer: the one that the model was trained for, if it is not in the model's folder.
        task: what the text is; needed if the model was trained for several.
        seconds: how long the sound lasts. If not given, 5, or of speech what the text takes.
        prompt_audio: a recording that the sound goes on from, with its voice, or - for one that comes through stdin.
        prompt_text: what is said in it; of speech, needed with it.
        steps: evaluations of the network; fewer are faster and coarser. The checkpoint's own if not given.
        guidance: how strongly the text steers, 0 for not more than it does by itself; papers add 1. The checkpoint's
            own if not given.
        seed: of the noise; the same seed makes the same sound.
        device: torch device; the first GPU when there is one.
        overwrite: replace an output that exists.
        json: print the summary as JSON.
    """
    refuse_two_of_stdin(text=text, prompt_audio=prompt_audio)
    with stdout_for_sound(output) as pipe:
        if pipe is None:
            check_sound_file(output, overwrite)
        if model is None:
            raise ValueError(
                "--model is missing: no diffusion model comes with this package; train one (audiollm train-dit), and "
                "name its run"
            )
        said = read_text(text)
        voices = _Voices.checked(prompt_audio, None, None)
        from audiollm.diffusion import AudioGenerator

        generator = AudioGenerator.from_pretrained(model, audio_tokenizer=audio_tokenizer, device=device)
        [sound] = generator.generate(
            said,
            seconds=seconds,
            task=task,
            prompt_audio=voices.prompt,
            prompt_text=prompt_text,
            steps=steps,
            guidance=guidance,
            seed=seed,
        )
        with open_sound(pipe, output, sound.sample_rate, is_live=False) as writer:
            writer.write(sound.waveform)
        summary = {
            "output": output,
            "text": said if json else _beginning(said),
            "task": task or generator.model.config.tasks[0].replace("_", "-"),
            "seconds": sound.seconds,
            "sample_rate": sound.sample_rate,
            "seed": seed,
        }
        show_facts(summary, as_json=json, title="generated")


def reconstruct(
    source: list[str],
    output: str,
    *,
    audio_tokenizer: str = "mini",
    format: SoundFormat | None = None,
    prompt_audio: str | None = None,
    speaker_audio: str | None = None,
    speaker_encoder: str | None = None,
    mono: Literal["first", "mean"] = "first",
    steps: int | None = None,
    guidance: float | None = None,
    quality: Literal["exact", "fast"] = "exact",
    seed: int = 42,
    dtype: Precision = "float32",
    device: str | None = None,
    text: str | None = None,
    asr: str | None = None,
    language: str | None = None,
    report: bool = False,
    stream: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn recordings into codes and back, to hear and measure what the codes keep.

    Args:
        source: recordings of any format and length, folders of them, or - for one that comes through stdin.
        output: file to write, .wav, .flac, .ogg, .opus or .mp3; - for WAV that goes to stdout; or a folder, which gets
            a file for each of several recordings and keeps those that it has.
        audio_tokenizer: checkpoint folder or Hub id of an audio tokenizer with a waveform decoder; the embedded one if
            not given.
        format: of the files of a folder; wav if not given.
        prompt_audio: a recording whose voice the decoder takes over, or - for one that comes through stdin.
        speaker_audio: a recording that a speaker encoder describes for the decoder, or -.
        speaker_encoder: which one; its vectors must be what the decoder was trained with; resemblyzer if not given.
        mono: which channel of the recording is heard: the first one, or the mean of all.
        steps: evaluations of the decoder's flow model; fewer are faster and coarser. By default those of the quality.
        guidance: strength of its guidance; the checkpoint's own if not given.
        quality: of the decoder: exact, as published, or fast, which takes about half as long.
        seed: of the decoder's noise.
        dtype: precision of the encoder and the decoder; int8 is for processors.
        device: torch device; the first GPU when there is one.
        text: what is said in the recording; with --report the words are counted against it.
        asr: recognizer of the report: folder, Hub id, whisper-tiny.en (if not given) or whisper-base; "none" counts no
            words.
        language: of the speech, such as fr.
        report: write OUTPUT's name with _report: both sounds, pictures, WER, STOI, PESQ and mel distances;
            what is not installed is left out.
        stream: decode while encoding, in constant memory.
        skip_bad: report unreadable recordings and go on, instead of stopping at the first.
        overwrite: replace outputs that exist.
        json: print the summary as JSON, one object per recording.
    """
    from audiollm import reconstruction

    refuse_two_of_stdin(source=PIPE if PIPE in source else None, prompt_audio=prompt_audio, speaker_audio=speaker_audio)
    if not report:
        for option, value in (("--text", text), ("--asr", asr), ("--language", language)):
            if value is not None:
                raise ValueError(f"{option} is for the report: set --report, or leave it out")
    with stdout_for_sound(output) as pipe:
        recordings = find_recordings(source)
        outputs = _Outputs.checked(recordings, output, format, overwrite, has_report=report)
        if text is not None and len(recordings) > 1:
            raise ValueError(f"--text is what is said in one recording, and {len(recordings)} are given")
        reports = _Reports.checked(text, asr or STANDARD_RECOGNIZER, language) if report else None
        if not skip_bad:
            check_recordings(recordings)
        voices = _Voices.checked(prompt_audio, speaker_audio, speaker_encoder)
        loaded = load_audio_tokenizer(audio_tokenizer, dtype, device, decodes=True, may_lack_codes=True)
        _prepare_decoder(loaded, dtype, device)
        settings: dict[str, Any] = {
            "audio_tokenizer": loaded,
            "speaker": voices.speaker_vector(device),
            "prompt": voices.prompt,
            "steps": steps,
            "seed": seed,
            "stream": stream,
            "guidance": guidance,
            "quality": quality,
            "mono": mono,
        }
        told = _Told(json, is_single=len(recordings) == 1)
        for index, recording in with_progress(recordings, "reconstructing"):
            if outputs.is_done(index):
                continue
            target: Any = pipe or outputs.ready(index)
            try:
                result = made_of(recording, partial(reconstruction.reconstruct, output=target, **settings))
            except BadRecordingError as error:
                if not skip_bad:
                    raise
                told.skipped(recording, str(error))
                continue
            told.made(recording, result, outputs.names[index], reports.write(result, index, outputs) if reports else {})
        if told.num_skipped == len(recordings):
            raise ValueError(f"none of the {told.num_skipped} recordings could be reconstructed")


def _prepare_decoder(audio_tokenizer: Any, dtype: Precision, device: str | None) -> None:
    """Lets the decoder of an audio tokenizer that has one compute in a precision."""
    from audiollm.fastest import device_for_models, fastest_dtype_for_frames
    from audiollm.tokenizer.checkpoints.tensors import torch_dtype
    from audiollm.tokenizer.decoder.model import WaveformDecoder

    decoder: Any = getattr(audio_tokenizer, "decoder", None)
    has_precisions = isinstance(decoder, WaveformDecoder)  # others are part of the tokenizer, and in its precision
    if dtype == "float32" or not has_precisions:
        return
    if dtype == "int8":
        decoder.to_int8()
    else:
        decoder.prepare(
            torch_dtype(fastest_dtype_for_frames(device_for_models(device)) if dtype == "fastest" else dtype)
        )


def _dtype_of(audio_tokenizer: Any) -> str | None:
    """What its decoder computes in; None if it doesn't say."""
    dtype = getattr(getattr(audio_tokenizer, "decoder", None), "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class _Outputs:
    """Where the sounds of recordings go."""

    names: list[str]
    is_folder: bool
    overwrite: bool

    @classmethod
    def checked(
        cls, recordings: Sequence[Recording], output: str, kind: str | None, overwrite: bool, *, has_report: bool
    ) -> _Outputs:
        """Looks at the place of each sound, and of its report, before a model is loaded.

        Raises:
            ValueError: it exists, is of no known format, is the original, or does not hold so many.
        """
        if output == PIPE:
            outputs = cls([PIPE], False, overwrite)
            if has_report:
                raise ValueError(f"--report is written beside the output, and {PIPE} is none: name a file")
        elif Path(output).is_dir() or not Path(output).suffix or output.endswith(("/", "\\")):
            paths = paths_in_folder(Path(output), recordings, kind or "wav", overwrite, instead="")
            outputs = cls([str(path) for path in paths], True, overwrite)
        else:
            outputs = cls([output], False, overwrite)
        if not outputs.is_folder and len(recordings) > 1:
            raise ValueError(
                f"{output} takes the sound of one recording, and {len(recordings)} are given: name a folder"
            )
        if not outputs.is_folder and kind not in (None, Path(output).suffix[1:].lower()):
            raise ValueError(f"--format {kind} and {output} contradict each other: the former is for folders")
        if output != PIPE:
            outputs._check_files(recordings, has_report)
        return outputs

    def _check_files(self, recordings: Sequence[Recording], has_report: bool) -> None:
        from audiollm.reconstruction import refuse_original

        for index, recording in enumerate(recordings):
            path = Path(self.names[index])
            refuse_original(recording.source, path)
            if not self.is_done(index):
                check_sound_file(str(path), self.overwrite)
                if has_report:
                    refuse_existing(self.report_folder(index), self.overwrite)

    def is_done(self, index: int) -> bool:
        """Whether a folder has a sound from an earlier run."""
        return self.is_folder and not self.overwrite and Path(self.names[index]).exists()

    def ready(self, index: int) -> str:
        """The name of a file, in a folder that exists if it is ours to make."""
        if self.is_folder:
            Path(self.names[index]).parent.mkdir(parents=True, exist_ok=True)
        return self.names[index]

    def report_folder(self, index: int) -> Path:
        """Where the report on a sound goes."""
        path = Path(self.names[index])
        return path.with_name(f"{path.stem}_report")


@dataclass(frozen=True)
class _Reports:
    """What reports measure."""

    metrics: tuple[str, ...]
    text: str | None
    recognizer: str | None
    language: str | None

    @classmethod
    def checked(cls, text: str | None, asr: str, language: str | None) -> _Reports:
        """Raises ValueError or ImportError for what cannot be measured."""
        from audiollm.benchmarks.speech.reconstruction_report import available_metrics, check_report

        recognizer = None if asr == NO_RECOGNIZER else asr
        metrics = available_metrics()
        check_report(metrics, text, recognizer)
        return cls(metrics, text, recognizer, language)

    def write(self, result: Any, index: int, outputs: _Outputs) -> dict[str, Any]:
        """Writes the report on a sound; returns its figures."""
        from audiollm.benchmarks.speech.reconstruction_report import report_reconstruction

        folder = outputs.report_folder(index)
        scores = report_reconstruction(
            result, folder, text=self.text, asr=self.recognizer, language=self.language, metrics=self.metrics
        )
        return scores.reconstructed | {"report": str(folder / "report.html")}


@dataclass
class _Told:
    """Says what became of each recording: a table of a single one, or a line."""

    as_json: bool
    is_single: bool
    num_skipped: int = 0

    def made(self, recording: Recording, result: Any, output: str, figures: dict[str, Any]) -> None:
        summary = {
            "source": recording.name,
            "output": output,
            "mono": result.mono,
            "seconds": result.output_seconds,
            result.unit: result.num_codes,
            "real_time_factor": result.real_time_factor,
            **figures,
        }
        if self.as_json or self.is_single:
            show_facts(summary, as_json=self.as_json, title=f"reconstructed {shown_name(recording.name)}")
        else:
            facts = f"{result.output_seconds:.2f} s, {result.num_codes} {result.unit}"
            write_line(f"{shown_name(recording.name)}: {facts}: {shown_name(figures.get('report', output))}")

    def skipped(self, recording: Recording, reason: str) -> None:
        self.num_skipped += 1
        if self.as_json:
            write_line(jsonlib.dumps({"source": recording.name, "error": reason}))
        else:
            write_line(skipped_line(recording, reason))


@dataclass(frozen=True)
class _Voices:
    """Recordings whose voice the decoder takes over."""

    prompt: str | bytes | None
    speaker: str | bytes | None
    encoder: str

    @classmethod
    def checked(cls, prompt: str | None, speaker: str | None, encoder: str | None) -> _Voices:
        """Reads what comes through stdin, and opens the recordings before a model is loaded.

        Raises:
            AudioError: one cannot be read.
            ValueError: nothing came through stdin, or an encoder has nothing to describe.
        """
        if encoder is not None and speaker is None:
            raise ValueError("--speaker-encoder needs --speaker-audio, the recording that it describes")
        named = [Recording(name, read_recording(name), name) for name in (prompt, speaker) if name is not None]
        check_recordings(named)
        sources = {recording.name: recording.source for recording in named}
        return cls(sources.get(prompt or ""), sources.get(speaker or ""), encoder or STANDARD_SPEAKER_ENCODER)

    def speaker_vector(self, device: str | None) -> Any:
        """What the encoder says of the recording; None if there is none."""
        if self.speaker is None:
            return None
        from audiollm.data.voices.encoders import embed_recording, load_speaker_encoder
        from audiollm.environment import find_device

        return embed_recording(load_speaker_encoder(self.encoder, find_device(device)), self.speaker)
