"""A recording of any length is transcribed piece by piece; a short one as a whole, as `chat` would."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from audiollm.data.audio.sources import AudioError
from audiollm.modeling import AudioLLM, question_about
from audiollm.prompts import instruction
from audiollm.transcription import Transcriber, transcribe, transcribe_stream
from tests.audiollm.conftest import build_llm

SHORT = {"max_new_tokens": 4}
RATE = 8000


@pytest.fixture
def llm(text_tokenizer, audio_tokenizer) -> AudioLLM:
    return AudioLLM.create(build_llm(), text_tokenizer, audio_tokenizer)


@pytest.fixture
def noise() -> np.ndarray:
    """Ten seconds at 8 kHz."""
    return np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)


@pytest.fixture
def recording(noise, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    return path


def test_a_short_recording_is_asked_about_as_a_whole(llm, recording):
    transcript = transcribe(llm, recording, **SHORT)
    asked = llm.chat(question_about(recording, instruction("transcribe")), **SHORT)
    assert [segment.text for segment in transcript.segments] == asked.texts
    assert [segment.finish_reason for segment in transcript.segments] == asked.finish_reasons
    assert (transcript.segments[0].start, transcript.segments[0].end) == (0.0, 10.0)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_pieces_are_answered_as_if_each_were_alone(llm, recording, noise, batch_size):
    transcript = transcribe(llm, recording, longest_seconds=3, batch_size=batch_size, **SHORT)
    assert len(transcript.segments) >= 4
    for segment in transcript.segments:
        samples = noise[round(segment.start * RATE) : round(segment.end * RATE)]
        alone = llm.chat(question_about(samples, instruction("transcribe"), RATE), **SHORT)
        assert (segment.text, segment.finish_reason) == (alone.texts[0], alone.finish_reasons[0])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_many_recordings_are_transcribed_as_each_alone(llm, noise, batch_size):
    recordings = [(torch.from_numpy(noise[: seconds * RATE]), RATE) for seconds in (5, 1, 10, 2)]
    recordings.insert(2, (torch.zeros(3 * RATE), RATE))
    settings = {"longest_seconds": 3, **SHORT}
    many = list(Transcriber(llm, batch_size=batch_size, **settings).transcripts(iter(recordings)))
    assert many == [transcribe(llm, waveform, sample_rate=rate, **settings) for waveform, rate in recordings]


def test_recordings_are_read_as_they_are_needed(llm, noise):
    read = []

    def recordings():
        for number in range(10):
            read.append(number)
            yield torch.from_numpy(noise[:RATE]), RATE

    next(Transcriber(llm, batch_size=2, **SHORT).transcripts(recordings()))
    assert len(read) <= 4


def test_path_bytes_and_samples_are_the_same(llm, recording, noise):
    expected = transcribe(llm, recording, longest_seconds=4, **SHORT)
    assert transcribe(llm, recording.read_bytes(), longest_seconds=4, **SHORT) == expected
    assert transcribe(llm, torch.from_numpy(noise), sample_rate=RATE, longest_seconds=4, **SHORT) == expected


def test_silence_is_not_put_to_the_model(llm, noise, audio_tokenizer):
    samples = np.concatenate([noise[:RATE], np.zeros(9 * RATE, np.float32)])
    segments = transcribe(llm, samples, sample_rate=RATE, longest_seconds=2, **SHORT).segments
    assert segments[0].finish_reason != "silent"
    assert [(segment.text, segment.finish_reason) for segment in segments[1:]] == [("", "silent")] * (len(segments) - 1)
    assert sum(clips for clips, _ in audio_tokenizer.calls) == 1


def test_segments_come_while_the_recording_is_read(llm, recording):
    first = next(transcribe_stream(llm, recording, longest_seconds=2, batch_size=1, **SHORT))
    assert first.start == 0


@pytest.mark.parametrize(
    ("audio", "options", "error"),
    [
        ([1, 2, 3], {}, "codes cannot be cut"),
        (["a.wav", "b.wav"], {}, "2 recordings"),
        (np.zeros(8000, np.float32), {}, "sample_rate"),
        ("a.wav", {"batch_size": 0}, "batch_size=0"),
        ("a.wav", {"modalities": {"audio"}}, "a transcript is one text"),
        ("a.wav", {"num_return_sequences": 2}, "a transcript is one text"),
        ("missing.wav", {}, "missing.wav"),
    ],
)
def test_what_cannot_be_is_refused_at_once(llm, recording, audio, options, error):
    audio = str(recording) if isinstance(audio, str) and audio == "a.wav" else audio
    with pytest.raises((ValueError, AudioError), match=error):
        transcribe_stream(llm, audio, **options)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"longest_seconds": 0.5}, "longest_seconds=0.5"),
        ({"longest_seconds": 1e6}, "longest_seconds=1e\\+06: the context holds"),
        ({"pauses": "never"}, "pauses='never'"),
        ({"mono": "second"}, "mono='second'"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"do_sample": False, "temperature": 0.5}, "temperature"),
    ],
)
def test_settings_are_checked_before_any_recording(llm, settings, error):
    with pytest.raises(ValueError, match=error):
        Transcriber(llm, **settings)


def test_a_recording_that_breaks_off_is_an_error(llm, recording):
    recording.write_bytes(recording.read_bytes()[:-4000])
    with pytest.raises(AudioError, match=r"a\.wav"):
        transcribe(llm, recording, longest_seconds=2, **SHORT)


def test_pieces_fit_the_context(llm, noise):
    context = llm.model.config.max_position_embeddings
    samples = np.tile(noise, 6)
    longest = transcribe(llm, samples, sample_rate=RATE, max_new_tokens=context - 300).segments
    assert len(longest) > 60 / 12
    with pytest.raises(ValueError, match="no second of audio"):
        transcribe(llm, samples, sample_rate=RATE, max_new_tokens=context - 20)
