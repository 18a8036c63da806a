"""Speaks a text with mini and saves it; a voice is asked for in words.

    python examples/speak_and_save.py "The kettle is on." --voice "an American man, slowly" --output kettle.wav

mini shows how it is done: a word in three or so of what it says is misheard (its model card has the figures).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from audiollm import AudioLLM
from audiollm.data.audio import open_audio_output
from audiollm.program import errors_as_one_line
from audiollm.speaking import speak_stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="The kettle is on.")
    parser.add_argument("--voice", default="an American man, slowly")
    parser.add_argument("--output", type=Path, default=Path("runs/examples/spoken.wav"))
    parser.add_argument("--model", help="Audio-LLM folder or Hub id; without it mini, which comes with the package")
    arguments = parser.parse_args()

    model = AudioLLM.from_pretrained(arguments.model)
    started = time.perf_counter()
    num_samples = 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open_audio_output(arguments.output, model.processor.audio_tokenizer.output_sample_rate) as file:
        # Samples come while the model is still generating: a program could play them at once.
        for piece in speak_stream(model, arguments.text, arguments.voice, seed=0):
            if not num_samples:
                print(f"first sound after {time.perf_counter() - started:.1f} s")
            file.write(piece.waveform)
            num_samples += len(piece.waveform)
    print(f"{num_samples / piece.sample_rate:.1f} s of sound in {arguments.output}")


if __name__ == "__main__":
    with errors_as_one_line(Path(__file__).stem):
        main()
