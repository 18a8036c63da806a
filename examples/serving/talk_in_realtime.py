"""A conversation over the realtime websocket: a recording goes in, text and sound come back while they are made.

    audiollm serve                               # in another terminal
    python examples/serving/talk_in_realtime.py question.wav  # pip install 'openai[realtime]'

The answer's sound goes to the file that --output names.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import wave
from pathlib import Path

from openai import AsyncOpenAI

RATE = 24_000  # Hz, of the interface


def pcm_of(path: Path) -> bytes:
    """A WAV file of 16 bit and one channel as the samples that the interface takes."""
    advice = f"{path}: make it a 16-bit mono WAV of {RATE} Hz: ffmpeg -i {path} -ac 1 -ar {RATE} question.wav"
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
                raise SystemExit(advice)
            return file.readframes(file.getnframes())
    except wave.Error as error:
        raise SystemExit(f"{advice} ({error})") from error


async def talk(arguments: argparse.Namespace) -> None:
    client = AsyncOpenAI(base_url=arguments.url, api_key=arguments.key)
    model = (await client.models.list()).data[0].id
    async with client.realtime.connect(model=model) as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "output_modalities": ["audio"],
                "audio": {"input": {"turn_detection": None}},  # we say when the question has ended
            }
        )
        samples = pcm_of(arguments.recording)
        for start in range(0, len(samples), RATE // 5):  # a tenth of a second each, as a microphone would send them
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(samples[start : start + RATE // 5]).decode()
            )
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        with wave.open(str(arguments.output), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    file.writeframes(base64.b64decode(event.delta))
                elif event.type in ("response.output_audio_transcript.delta", "response.output_text.delta"):
                    print(event.delta, end="", flush=True)
                elif event.type == "error":
                    raise SystemExit(f"the server says: {event.error.message}")
                elif event.type == "response.done":
                    sound = arguments.output if file.tell() else "no sound: the model answered in text alone"
                    print(f"\n{event.response.status}: {sound}")
                    return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, help="16-bit mono WAV of 24 kHz")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--key", default="none", help="one of the server's, where it asks for one")
    parser.add_argument("--output", type=Path, default=Path("answer.wav"))
    asyncio.run(talk(parser.parse_args()))


if __name__ == "__main__":
    main()
