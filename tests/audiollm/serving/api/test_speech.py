"""Speech, voices, codes and transcriptions through the official client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile as sf

from audiollm.generation.turns import turns_of

from .conftest import ScriptedEngine, served, wav

CODES = list(range(40, 60))
SECONDS = len(CODES) / 25
patient = httpx.Client(timeout=120)  # five seconds are too few where a machine does other work


@pytest.fixture
def url(scripted: ScriptedEngine, app_with: Any, writes: Callable[..., list[int]]) -> Iterator[str]:
    scripted.answer = lambda request: writes("Good day.", CODES)
    with served(app_with(scripted, voices={"default": "", "narrator": "an elderly man"})) as address:
        yield address


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def say(client: openai.OpenAI, text: str = "Good day.", **settings: Any) -> bytes:
    ours = {name: settings.pop(name) for name in ("seed", "stream", "max_seconds") if name in settings}
    asked = {"model": "mini", "voice": "default", "input": text} | settings
    return client.audio.speech.create(**asked, extra_body=ours).content


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("form", ["mp3", "opus", "flac", "wav", "pcm"])
def test_a_text_is_spoken_in_every_format(client: openai.OpenAI, form: str, is_stream: bool) -> None:
    data = say(client, response_format=form, stream=is_stream, seed=1)
    if form == "pcm":
        num_samples, rate = len(data) // 2, 24_000
    elif form == "flac" and is_stream:
        return  # its header has no length, which soundfile asks for
    else:
        samples, rate = sf.read(io.BytesIO(data))
        num_samples = len(samples)
    assert num_samples / rate == pytest.approx(SECONDS, abs=0.1)


def test_the_stream_and_the_whole_are_the_same_sound(client: openai.OpenAI) -> None:
    streamed, whole = (say(client, response_format="wav", stream=one, seed=1) for one in (True, False))
    np.testing.assert_array_equal(sf.read(io.BytesIO(streamed))[0], sf.read(io.BytesIO(whole))[0])
    assert streamed[40:44] == b"\xff\xff\xff\xff"
    assert int.from_bytes(whole[40:44], "little") == len(whole) - 44


def test_mp3_is_what_comes_if_nothing_is_said_and_its_type_is_told(client: openai.OpenAI) -> None:
    answer = client.audio.speech.with_raw_response.create(model="mini", voice="default", input="Good day.")
    assert answer.headers["content-type"] == "audio/mpeg"
    assert sf.info(io.BytesIO(answer.content)).format == "MP3"


def test_speed_changes_the_length(client: openai.OpenAI) -> None:
    data = say(client, response_format="pcm", speed=2.0, seed=1)
    assert len(data) / 2 / 24_000 == pytest.approx(SECONDS / 2, abs=0.1)


def test_a_long_text_is_spoken_in_parts_as_one_sound(
    client: openai.OpenAI, scripted: ScriptedEngine, mini: Any
) -> None:
    sentences = [f"This is sentence number {number} of many that are said." for number in ("one", "two", "three")]
    text = " ".join(sentences * 3)
    data = say(client, text, response_format="pcm", seed=1)
    assert len(scripted.requests) == 3
    spoken = ["".join(mini.processor.decode(list(ids)) for ids in one.plan.turns[0]) for one in scripted.requests]
    assert " ".join(spoken) == text
    assert len(data) / 2 / 24_000 == pytest.approx(3 * SECONDS, abs=0.3)
    with pytest.raises(openai.BadRequestError, match="max_seconds: the text is spoken in 3 parts"):
        say(client, text, max_seconds=2.0)


def test_speech_that_was_cut_is_no_whole_answer(
    client: openai.OpenAI, scripted: ScriptedEngine, mini: Any, url: str
) -> None:
    vocabulary = mini.vocabulary
    scripted.answer = lambda request: [vocabulary.start_id, *vocabulary.codes_to_token_ids(CODES * 100)]
    with pytest.raises(openai.APIStatusError, match="did not come to an end with part 1 of 1"):
        say(client, stream=False)
    asked = {"model": "mini", "input": "Good day.", "response_format": "pcm"}
    speaking = patient.stream("POST", f"{url}/v1/audio/speech", json=asked)
    with speaking as answer, pytest.raises(httpx.RemoteProtocolError):
        answer.read()
    events = patient.post(f"{url}/v1/audio/speech", json={**asked, "stream_format": "sse"}).text.strip().split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "speech_was_cut"


def test_events_join_to_the_sound_and_end_with_usage(url: str) -> None:
    asked = {"model": "mini", "input": "Good day.", "response_format": "pcm", "stream_format": "sse", "seed": 1}
    answer = patient.post(f"{url}/v1/audio/speech", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(one.removeprefix("data: ")) for one in answer.text.strip().split("\n\n")]
    assert {one["type"] for one in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["output_tokens"] > len(CODES)


def test_the_voice_is_asked_for_in_words(client: openai.OpenAI, scripted: ScriptedEngine, mini: Any) -> None:
    say(client, voice="narrator", instructions="slowly")
    assert "an elderly man, slowly" in mini.processor.decode(scripted.requests[0].prompt_ids)
    assert scripted.requests[0].plan.turns is not None
    assert len(scripted.requests[0].plan.turns[0]) == len(turns_of("Good day."))


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"voice": "alloy"}, "voice"),
        ({"text": ""}, "input"),
        ({"text": " \n"}, "input"),
        ({"text": "x" * 5000}, "input"),
        ({"speed": 5.0}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"stream_format": "raw"}, "stream_format"),
    ],
)
def test_what_cannot_be_spoken_is_refused_by_name(client: openai.OpenAI, changed: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        say(client, **changed)
    assert caught.value.param == param


def test_voices_are_listed_and_those_of_the_server_stay(url: str) -> None:
    listed = patient.get(f"{url}/v1/audio/voices").json()
    assert [one["id"] for one in listed["voices"]] == [one["id"] for one in listed["data"]] == ["default", "narrator"]
    assert httpx.delete(f"{url}/v1/audio/voices/narrator").status_code == 403
    assert httpx.delete(f"{url}/v1/audio/voices/nobody").status_code == 404


def test_a_recording_becomes_a_voice(url: str, client: openai.OpenAI) -> None:
    files = {"audio_sample": ("me.wav", wav(2.0))}
    answer = patient.post(f"{url}/v1/audio/voices", files=files, data={"name": "me"}, timeout=60)
    assert answer.status_code == 200, answer.text
    plain, mine = (say(client, voice=name, response_format="pcm", seed=1) for name in ("default", "me"))
    assert plain != mine
    for name, told in (("default", "is a voice of this server already"), ("", "name"), ("a\nb", "printable")):
        refused = patient.post(f"{url}/v1/audio/voices", files=files, data={"name": name}, timeout=60)
        assert refused.status_code == 400
        assert told in refused.json()["error"]["message"]
    assert httpx.delete(f"{url}/v1/audio/voices/me").json()["deleted"]


def test_codes_go_both_ways(url: str, mini: Any, tone: bytes) -> None:
    found = patient.post(f"{url}/v1/audio/tokens/encode", files={"file": ("a.wav", tone)}).json()
    assert found["fingerprint"] == mini.processor.codec_fingerprint
    sound = patient.post(
        f"{url}/v1/audio/tokens/decode",
        json={"codes": found["codes"], "fingerprint": found["fingerprint"], "response_format": "wav", "seed": 1},
    )
    assert len(sf.read(io.BytesIO(sound.content))[0]) / 24_000 == pytest.approx(0.5, abs=0.1)
    for body, param in (({"codes": [9000]}, "codes[0]"), ({"codes": []}, "codes"), ({"codes": [1.5]}, "codes[0]")):
        assert patient.post(f"{url}/v1/audio/tokens/decode", json=body).json()["error"]["param"] == param
    other = patient.post(f"{url}/v1/audio/tokens/decode", json={"codes": [1], "fingerprint": "of another"})
    assert other.status_code == 400
    assert "another audio tokenizer" in other.json()["error"]["message"]


class TestTranscriptions:
    @pytest.fixture
    def scripted(self, scripted: ScriptedEngine, mini: Any) -> ScriptedEngine:
        return scripted

    @pytest.fixture
    def url(self, scripted: ScriptedEngine, app_with: Any, writes: Callable[..., list[int]]) -> Iterator[str]:
        # By where a piece begins: two that are prepared together reach the engine in any order.
        scripted.answer = lambda request: writes("piece 1" if request.request_id.endswith("-0") else "piece 2")
        with served(app_with(scripted)) as address:
            yield address

    @pytest.fixture
    def long(self) -> bytes:
        """Forty seconds with a pause in the middle."""
        rate = 8000
        times = np.arange(40 * rate) / rate
        samples = 0.3 * np.sin(2 * np.pi * 300 * times) * ~((times > 19.5) & (times < 20.5))
        buffer = io.BytesIO()
        sf.write(buffer, samples, rate, format="FLAC")
        return buffer.getvalue()

    @pytest.mark.parametrize("form", ["json", "text", "srt", "vtt", "verbose_json"])
    def test_every_form(self, client: openai.OpenAI, long: bytes, form: str) -> None:
        answer = client.audio.transcriptions.create(model="mini", file=("a.flac", long), response_format=form)
        if form == "json":
            assert answer.text == "piece 1 piece 2"
            assert answer.usage.seconds == 40
        elif form == "verbose_json":
            assert [one.text for one in answer.segments] == ["piece 1", "piece 2"]
            assert answer.segments[0].start == 0
            assert answer.segments[0].end == answer.segments[1].start == pytest.approx(20, abs=0.6)
            assert answer.duration == answer.segments[1].end == 40
        elif form == "text":
            assert answer == "piece 1 piece 2\n"
        else:
            assert answer.count("-->") == 2

    def test_a_stream(self, client: openai.OpenAI, long: bytes) -> None:
        events = list(client.audio.transcriptions.create(model="mini", file=("a.flac", long), stream=True))
        assert "".join(one.delta for one in events[:-1]) == events[-1].text == "piece 1 piece 2"
        assert events[-1].usage.output_tokens > 0

    def test_silence_is_not_put_to_the_model(self, client: openai.OpenAI, scripted: ScriptedEngine) -> None:
        buffer = io.BytesIO()
        sf.write(buffer, np.zeros(16_000), 16_000, format="WAV")
        assert client.audio.transcriptions.create(model="mini", file=("a.wav", buffer.getvalue())).text == ""
        assert not scripted.requests

    @pytest.mark.parametrize(
        ("changed", "param"),
        [
            ({"language": "de"}, "language"),
            ({"model": ""}, "model"),
            ({"prompt": "names: Ulm"}, "prompt"),
            ({"response_format": "diarized_json"}, "response_format"),
            ({"timestamp_granularities": ["segment"]}, "timestamp_granularities[]"),
            ({"timestamp_granularities": ["word"], "response_format": "verbose_json"}, "timestamp_granularities[]"),
            ({"stream": True, "response_format": "text"}, "response_format"),
            ({"temperature": 2.0}, "temperature"),
            ({"include": ["logprobs"]}, "include[]"),
            ({"chunking_strategy": {"type": "server_vad"}}, "chunking_strategy"),
            ({"extra_body": {"best_of": 2}}, "best_of"),
        ],
    )
    def test_what_is_not_supported_is_refused_by_name(
        self, client: openai.OpenAI, tone: bytes, changed: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.audio.transcriptions.create(**({"model": "mini", "file": ("a.wav", tone)} | changed))
        assert caught.value.param == param

    def test_translations_are_for_models_that_learned_it(self, client: openai.OpenAI, tone: bytes) -> None:
        with pytest.raises(openai.NotFoundError, match="was not trained to translate"):
            client.audio.translations.create(model="mini", file=("a.wav", tone))
