"""Audio parts as the OpenAI API, vLLM and Qwen2-Audio write them."""

import base64
import io

import numpy as np
import pytest
import soundfile

from audiollm.data.conversation.parsing import parse_conversation
from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart


def wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, 80), 8000, format="WAV")
    return file.getvalue()


WAV = wav()
BASE64 = base64.b64encode(WAV).decode()
URL = f"data:audio/wav;base64,{BASE64}"


def parsed(part: dict) -> AudioPart:
    record = {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What is said?"}]}]}
    (audio,) = parse_conversation(record, where="r.jsonl:3", base_dir="/clips").audio_parts
    return audio


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": BASE64[:40] + "\n" + BASE64[40:], "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": URL}},
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "audio_url", "audio_url": URL},
        {"type": "audio", "audio_url": URL},
        {"type": "audio", "audio": URL},
    ],
)
def test_base64_in_every_place_is_the_recording(part):
    audio = parsed(part)
    assert audio == AudioPart(bytes=WAV)
    assert audio.load()[0].shape == (80,)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a.wav", "/clips/a.wav"),
        ("/b/a.wav", "/b/a.wav"),
        ("file:///b/a%20b.wav", "/b/a b.wav"),
        ("a%20b.wav", "/clips/a%20b.wav"),
    ],
)
@pytest.mark.parametrize("spelling", ["audio_url", "url"])
def test_urls_of_files_and_paths_are_paths(url, path, spelling):
    part = (
        {"type": "audio_url", "audio_url": {"url": url}} if spelling == "audio_url" else {"type": "audio", "url": url}
    )
    assert parsed(part).path == path


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "audio_url", "audio_url": {"url": "http://x/y.wav"}}, r"path: 'http://x/y\.wav' is a URL; download"),
        ({"type": "input_audio", "input_audio": {"data": "https://x/y.wav"}}, "is a URL; download the file"),
        ({"type": "input_audio", "input_audio": {"data": "a.wav"}}, r"input_audio\.data: is not base64"),
        ({"type": "input_audio", "input_audio": {"data": ""}}, r"input_audio\.data: is empty"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, r"input_audio\.data: missing"),
        ({"type": "input_audio", "input_audio": {"data": 5}}, r"input_audio\.data: must be a string"),
        ({"type": "input_audio"}, "input_audio: must be an object with data"),
        (
            {"type": "input_audio", "input_audio": {"data": BASE64, "format": "pcm16"}},
            r"input_audio\.format: pcm16 has no header",
        ),
        ({"type": "input_audio", "input_audio": {"data": BASE64, "rate": 8000}}, r"input_audio\.rate: unknown key"),
        ({"type": "input_audio", "input_audio": {"data": BASE64}, "text": "x"}, "text: unknown key"),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/wav,abc"}}, "not one of base64"),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,%%"}}, "is not base64"),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, "'image_url' is not known"),
    ],
)
def test_what_is_no_recording_is_named_with_its_field(part, message):
    with pytest.raises(ConversationError, match=rf"^r\.jsonl:3: messages\[0\]\.content\[0\].*{message}"):
        parsed(part)


def test_recordings_and_verdicts_that_only_other_projects_read_are_no_text() -> None:
    said = [
        {"role": "user", "content": "<|startofspeech|>!a.wav<|endofspeech|>"},
        {"role": "assistant", "content": "y"},
    ]
    with pytest.raises(
        ValueError, match=r"messages: name a\.wav in a text; convert the file with audiollm convert-data"
    ):
        parse_conversation({"messages": said})
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    with pytest.raises(ValueError, match="label: says whether the answer is wanted"):
        parse_conversation({"messages": chat, "label": False})
    assert parse_conversation({"messages": chat, "label": "dog"}).metadata == {"label": "dog"}
