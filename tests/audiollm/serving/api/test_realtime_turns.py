"""Turns in a stream of sound, what of an answer was heard, and what waits to be sent: the parts of a session alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from audiollm.data.audio import load_audio
from audiollm.serving.api.realtime.buffer import InputBuffer, milliseconds, waveform_of
from audiollm.serving.api.realtime.configuration import TurnDetection
from audiollm.serving.api.realtime.items import Answered
from audiollm.serving.api.realtime.outbox import MAX_EVENTS, Outbox
from audiollm.serving.api.realtime.turns import TurnDetector
from audiollm.vocabulary import AudioVocabulary

ROOT = Path(__file__).resolve().parents[4]
RATE = 24_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """One sentence without a pause, 2.9 s."""
    waveform, rate = load_audio(ROOT / "data/corpora/sample/asterisk/en/vm-savefolder.opus")
    return np.asarray(soxr.resample(waveform.numpy(), rate, RATE), np.float32)


def noise(decibel: float, seconds: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (10 ** (decibel / 20) * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def edges(sound: np.ndarray, measure: str = "level", block: int = 2400, **settings: Any) -> list[tuple[bool, float]]:
    """Whether speech begins, and when in seconds."""
    detector = TurnDetector(TurnDetection(type="server_vad", **settings), measure, 0)
    found = [edge for first in range(0, len(sound), block) for edge in detector.feed(sound[first : first + block])]
    return [(edge.is_start, edge.place / RATE) for edge in found]


@pytest.mark.parametrize("measure", ["level", "silero"])
@pytest.mark.parametrize("gain", [1.0, 0.1], ids=["loud", "faint"])
def test_a_sentence_among_the_noise_of_a_room_is_one_turn(measure: str, gain: float, speech: np.ndarray) -> None:
    if measure == "silero":
        pytest.importorskip("silero_vad")
    sound = noise(-65, 6)
    sound[2 * RATE : 2 * RATE + len(speech)] += gain * speech
    (has_begun, start), (goes_on, end) = edges(sound, measure)
    assert has_begun
    assert not goes_on
    assert 1.9 < start < 2.4
    assert 4.5 < end < 5.8  # half a second of silence tells it


def test_speech_at_the_very_beginning_is_found(speech: np.ndarray) -> None:
    assert edges(np.concatenate([speech[2400:], noise(-65, 1)]))[0] == (True, 0.0)


@pytest.mark.parametrize("decibel", [-200, -80, -60, -45])
def test_a_room_alone_is_no_speech(decibel: float) -> None:
    assert edges(noise(decibel, 8)) == []


def test_noise_that_stays_is_a_room_before_long() -> None:
    found = edges(np.concatenate([noise(-65, 3), noise(-30, 10)]))
    assert [is_start for is_start, _ in found] == [True, False]
    assert found[1][1] < 8


def test_a_click_is_no_speech() -> None:
    sound = noise(-65, 4)
    sound[2 * RATE : 2 * RATE + 480] = 0.5
    assert edges(sound) == []


def test_speech_is_found_above_the_noise_of_a_fan(speech: np.ndarray) -> None:
    sound = noise(-45, 8)
    sound[4 * RATE : 4 * RATE + len(speech)] += speech
    found = edges(sound)
    assert [is_start for is_start, _ in found] == [True, False]
    assert 3.9 < found[0][1] < 4.3


def test_a_higher_threshold_wants_louder_speech(speech: np.ndarray) -> None:
    sound = np.concatenate([noise(-65, 1), 0.02 * speech, noise(-65, 1)])
    assert edges(sound, threshold=0.2)
    assert not edges(sound, threshold=1.0)


def test_a_shorter_silence_ends_a_turn_sooner(speech: np.ndarray) -> None:
    sound = np.concatenate([noise(-65, 1), speech, noise(-65, 2)])
    assert edges(sound, silence_duration_ms=200)[1][1] < edges(sound, silence_duration_ms=1000)[1][1] - 0.6


@pytest.mark.parametrize("block", [97, 777, 10**6])
def test_blocks_make_no_difference(block: int, speech: np.ndarray) -> None:
    sound = np.concatenate([noise(-65, 0.5), speech[:RATE], noise(-65, 0.7)])
    assert edges(sound, block=block) == edges(sound)


def test_the_buffer_counts_from_the_beginning_of_the_session() -> None:
    buffer = InputBuffer()
    samples = np.arange(100, dtype="<i2")
    buffer.add(samples.tobytes())
    assert buffer.take(30) == samples[:30].tobytes()
    buffer.forget_before(40)
    buffer.forget_before(10)
    assert (buffer.start, buffer.end) == (40, 100)
    assert np.array_equal(waveform_of(buffer.take()) * 32768, samples[40:])
    assert (buffer.start, buffer.end, buffer.seconds) == (100, 100, 0)
    assert milliseconds(2400) == 100


@pytest.mark.parametrize("says_each_word", [True, False])
def test_what_was_heard_is_what_stays(says_each_word: bool) -> None:
    vocabulary = AudioVocabulary(codebook_size=4, first_code_id=2, start_id=0, end_id=1)
    answered = Answered(speaks=True, vocabulary=vocabulary, frames_per_second=25, writes_before_speaking=says_each_word)
    for word, codes in (("one ", [1] * 25), ("two ", [2] * 25), ("three", [3] * 25)):
        answered.add_text(word)
        for code in codes:
            answered.add_codes([code])
    answered.num_samples = 3 * RATE
    assert answered.text == "one two three"
    answered.cut(1.2)
    parts = asyncio.run(answered.said())
    assert [one.codes for one in parts if hasattr(one, "codes")] == [[1] * 25, [2] * 5]
    # Where all is written before it is spoken, nobody knows which words were heard.
    assert answered.text == ("one two " if says_each_word else "")
    assert answered.seconds == pytest.approx(1.2)
    answered.cut(0)
    assert asyncio.run(answered.said()) == []


class Socket:
    """Takes what is sent, when it is let."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.may_send = asyncio.Event()

    async def send_text(self, text: str) -> None:
        await self.may_send.wait()
        self.sent.append(text)


def test_sound_that_waits_is_taken_back_and_a_slow_client_is_waited_for() -> None:
    async def talk() -> None:
        outbox, socket = Outbox(), Socket()
        sending = asyncio.ensure_future(outbox.send(socket))  # type: ignore[arg-type]
        outbox.push({"type": "first"})
        await asyncio.sleep(0.01)  # that one is on its way
        for number in range(MAX_EVENTS):
            outbox.push({"type": "sound", "n": number}, sound_of="a", num_samples=10)
        outbox.push({"type": "text"})
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert outbox.take_back_sound("b") == 0
        assert outbox.take_back_sound("a") == 10 * MAX_EVENTS
        await waiting
        socket.may_send.set()
        await outbox.emptied()
        await asyncio.sleep(0.01)
        assert ['"first"' in socket.sent[0], '"text"' in socket.sent[1], len(socket.sent)] == [True, True, 2]
        sending.cancel()

    asyncio.run(talk())
