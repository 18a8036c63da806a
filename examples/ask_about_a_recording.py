"""Asks mini about a recording: what is said, what it is, and a question of your own.

python examples/ask_about_a_recording.py recording.wav --question "Is the speaker a man or a woman?"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from audiollm import AudioLLM
from audiollm.data.corpora import SAMPLE_FOLDER
from audiollm.program import errors_as_one_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recording", nargs="?", type=Path, default=SAMPLE_FOLDER / "asterisk" / "en" / "please-try-again.opus"
    )
    parser.add_argument("--question", default="Is the speaker a man or a woman?")
    parser.add_argument("--model", help="Audio-LLM folder or Hub id; without it mini, which comes with the package")
    arguments = parser.parse_args()

    model = AudioLLM.from_pretrained(arguments.model)
    questions = ["Transcribe the recording.", "Is this speech, music or another sound?", arguments.question]
    # One conversation per question, answered in one batch.
    audio = {"type": "audio", "path": str(arguments.recording)}
    chats = [[{"role": "user", "content": [audio, {"type": "text", "text": question}]}] for question in questions]
    result = model.chat(chats, max_new_tokens=64)
    for question, answer, reason in zip(questions, result.texts, result.finish_reasons, strict=True):
        print(f"Q: {question}\nA: {answer}" + (" … (cut)" if reason == "length" else ""))


if __name__ == "__main__":
    with errors_as_one_line(Path(__file__).stem):
        main()
