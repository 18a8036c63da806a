"""Commands that make sound: speaking a text, and putting a recording through its codes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from audiollm.data.files.replacing import refuse_existing
from audiollm.facts import show_facts

from .console import Dtype, load_audio_llm, load_audio_tokenizer

NO_RECOGNIZER = "none"
logger = logging.getLogger(__name__)


def speak(
    text: str,
    *,
    output: str,
    model: str = "mini",
    voice: str | None = None,
    prompt_audio: str | None = None,
    speaker_audio: str | None = None,
    speaker_encoder: str = "resemblyzer",
    steps: int = 10,
    guidance: float | None = None,
    temperature: float | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    dtype: Dtype = "float32",
    device: str | None = None,
    stream: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Speak a text and write the sound.

    Args:
        text: what to say.
        output: file to write, .wav, .flac or .ogg; also -o.
        model: Audio-LLM folder or Hub id, with a waveform decoder; the small embedded one if not given.
        voice: who says it and how, in words, such as "an elderly man, slowly".
        prompt_audio: a recording whose voice the decoder takes over.
        speaker_audio: a recording that a speaker encoder describes for the decoder.
        speaker_encoder: which one; its vectors must be what the decoder was trained with.
        steps: steps of the decoder's flow model; fewer are faster and coarser.
        guidance: strength of its guidance; the checkpoint's own if not given.
        temperature: below 1 makes the LLM's choice of codes more cautious.
        min_seconds: the sound lasts at least so long.
        max_seconds: and at most so long; 30, or what the model's context holds, if not given.
        seed: of everything that is drawn.
        dtype: precision of the LLM.
        device: torch device; the first GPU when there is one.
        stream: write the sound while the LLM is still speaking.
        overwrite: replace an output that exists.
        json: print the summary as JSON.
    """
    from audiollm import speaking
    from audiollm.data.audio.writing import check_output_path, open_audio_output
    from audiollm.generation.result import cut_notice
    from audiollm.generation.streaming import StreamedAudio

    check_output_path(output)
    refuse_existing(output, overwrite)
    speaker = describe_speaker(speaker_audio, speaker_encoder, device)
    llm = load_audio_llm(model, dtype, device)
    options: dict[str, Any] = {
        "speaker": speaker,
        "prompt_audio": prompt_audio,
        "steps": steps,
        "guidance": guidance,
        "temperature": temperature,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "seed": seed,
    }
    summary: dict[str, Any] = {"output": output, "text": text, "voice": voice}
    sample_rate = llm.processor.audio_tokenizer.output_sample_rate
    with open_audio_output(output, sample_rate) as writer:
        if stream:
            with speaking.speak_stream(llm, text, voice, **options) as answer:
                for event in answer:
                    if isinstance(event, StreamedAudio):  # grammar keeps text out, types do not know
                        writer.write(event.waveform)
            assert answer.result is not None  # the stream is exhausted
            summary["finish_reason"] = answer.result.finish_reasons[0]
        else:
            spoken = speaking.speak(llm, text, voice, **options)
            writer.write(spoken.waveform)
            summary["finish_reason"] = spoken.finish_reason
        if not writer.num_samples:
            raise ValueError(
                f"the model said nothing, so {output} was not written; try another --seed or --min-seconds"
            )
        summary["seconds"] = writer.num_samples / sample_rate
    if summary["finish_reason"] == "length":
        logger.warning("%s", cut_notice("the sound", f"{summary['seconds']:.2f} s", "--max-seconds"))
    show_facts(summary, as_json=json, title="spoken")


def reconstruct(
    source: str,
    output: str,
    *,
    audio_tokenizer: str = "mini",
    prompt_audio: str | None = None,
    speaker_audio: str | None = None,
    speaker_encoder: str = "resemblyzer",
    mono: Literal["first", "mean"] = "first",
    steps: int = 10,
    guidance: float | None = None,
    seed: int = 42,
    dtype: Dtype = "float32",
    device: str | None = None,
    text: str | None = None,
    asr: str = "whisper-tiny.en",
    language: str | None = None,
    report: bool = False,
    stream: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn a recording into codes and back, to hear and measure what the codes keep.

    Args:
        source: a recording of any format and length.
        output: file to write, .wav, .flac or .ogg.
        audio_tokenizer: checkpoint folder or Hub id of an audio tokenizer with a waveform decoder; the embedded one if
            not given.
        prompt_audio: a recording whose voice the decoder takes over.
        speaker_audio: a recording that a speaker encoder describes for the decoder.
        speaker_encoder: which one; its vectors must be what the decoder was trained with.
        mono: which channel of the recording is heard: the first one, or the mean of all.
        steps: steps of the decoder's flow model; fewer are faster and coarser.
        guidance: strength of its guidance; the checkpoint's own if not given.
        seed: of the decoder's noise.
        dtype: precision of the encoder and the decoder.
        device: torch device; the first GPU when there is one.
        text: what is said in the recording; with --report the words are counted against it.
        asr: recognizer of the report: folder, Hub id, whisper-tiny.en or whisper-base; "none" counts no words.
        language: of the speech, such as fr.
        report: write OUTPUT's name with _report: both sounds, pictures, WER, STOI, PESQ and mel distances;
            what is not installed is left out.
        stream: decode while encoding, in constant memory.
        overwrite: replace an output that exists.
        json: print the summary as JSON.
    """
    from audiollm import reconstruction

    if not Path(output).is_file() or not Path(source).is_file() or not Path(output).samefile(source):
        refuse_existing(output, overwrite)  # the original itself is refused below, whatever is set
    report_folder = Path(output).with_name(f"{Path(output).stem}_report")
    recognizer = None if asr == NO_RECOGNIZER else asr
    metrics: tuple[str, ...] = ()
    if report:
        from audiollm.benchmarks.speech.reconstruction_report import (
            available_metrics,
            check_report,
            report_reconstruction,
        )

        refuse_existing(report_folder, overwrite)
        metrics = available_metrics()
        check_report(metrics, text, recognizer)
    result = reconstruction.reconstruct(
        source,
        output,
        load_audio_tokenizer(audio_tokenizer, dtype, device),
        speaker=describe_speaker(speaker_audio, speaker_encoder, device),
        prompt=prompt_audio,
        steps=steps,
        seed=seed,
        stream=stream,
        guidance=guidance,
        mono=mono,
    )
    summary: dict[str, Any] = {
        "output": str(result.output),
        "mono": result.mono,
        "seconds": result.output_seconds,
        "codes": len(result.codes),
        "real_time_factor": result.real_time_factor,
    }
    if report:
        scores = report_reconstruction(
            result, report_folder, text=text, asr=recognizer, language=language, metrics=metrics
        )
        summary |= scores.reconstructed | {"report": str(report_folder / "report.html")}
    show_facts(summary, as_json=json, title=f"reconstructed {source}")


def describe_speaker(recording: str | None, encoder: str, device: str | None) -> Any:
    """The speaker vector of a recording; None if there is none."""
    if recording is None:
        return None
    from audiollm.data.voices.encoders import embed_recording, load_speaker_encoder
    from audiollm.environment import find_device

    return embed_recording(load_speaker_encoder(encoder, find_device(device)), recording)
