"""What `audiollm serve` does for the openai client: speech, transcription, chat with audio in and out.

    audiollm serve                                # in another terminal
    python examples/serving/speak_listen_chat.py  # pip install openai

It writes speech.mp3, answer.wav and streamed.wav into the folder that --output names.
"""

from __future__ import annotations

import argparse
import base64
import wave
from pathlib import Path

from openai import OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--key", default="none", help="one of the server's, where it asks for one")
    parser.add_argument("--text", default="The kettle is on.")
    parser.add_argument("--output", type=Path, default=Path("runs/examples/serving"))
    arguments = parser.parse_args()

    client = OpenAI(base_url=arguments.url, api_key=arguments.key)
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = client.models.list().data[0].id
    print(f"the server has {model}")

    # A text becomes a file, which grows while the model speaks. `instructions` are the voice, in words.
    speech = arguments.output / "speech.mp3"
    with client.audio.speech.with_streaming_response.create(
        model=model,
        voice="default",
        input=arguments.text,
        instructions="an American man, slowly",
        extra_body={"seed": 1},
    ) as response:
        response.stream_to_file(speech)
    print(f"spoken: {speech.stat().st_size} bytes in {speech}")

    # And the file becomes text again, with times.
    transcript = client.audio.transcriptions.create(model=model, file=speech, response_format="verbose_json")
    print(f"heard: {transcript.text} ({transcript.duration:.1f} s)")

    # A question about a recording; the answer comes word by word.
    recording = {"data": base64.b64encode(speech.read_bytes()).decode(), "format": "mp3"}
    question = [
        {"type": "input_audio", "input_audio": recording},
        {"type": "text", "text": "Is the speaker a man or a woman?"},
    ]
    print("asked: Is the speaker a man or a woman?", end=" ")
    for chunk in client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    # An answer with sound, whole.
    read_out = [{"role": "user", "content": f"Read this text aloud.\n\n{arguments.text}"}]
    completion = client.chat.completions.create(
        model=model,
        messages=read_out,
        modalities=["text", "audio"],
        audio={"voice": "default", "format": "wav"},
        seed=1,
    )
    answer = completion.choices[0].message.audio
    (arguments.output / "answer.wav").write_bytes(base64.b64decode(answer.data))
    print(f"answered: {answer.transcript}")

    # The same as a stream: 16-bit PCM of 24 kHz, which a program could play as it comes.
    num_pieces = 0
    with wave.open(str(arguments.output / "streamed.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        for chunk in client.chat.completions.create(
            model=model,
            messages=read_out,
            modalities=["text", "audio"],
            audio={"voice": "default", "format": "pcm16"},
            seed=1,
            stream=True,
        ):
            sound = getattr(chunk.choices[0].delta, "audio", None)
            if sound and sound.data:
                file.writeframes(base64.b64decode(sound.data))
                num_pieces += 1
    print(f"streamed: {num_pieces} pieces of sound")


if __name__ == "__main__":
    main()
