"""What fewer bits cost: size, answers that differ, and how well known answers are predicted.

audiollm export mini mini-int8 --format int8
python examples/compare_exports.py mini mini-int8

Of the recordings that ship, those that mini did not learn from are asked what they are, and English ones what is said.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from audiollm import AudioLLM
from audiollm.data.conversation.types import AudioPart, Conversation, Message, TextPart
from audiollm.data.corpora import SAMPLE_FOLDER, load_sample_corpus
from audiollm.mini import model_or_mini
from audiollm.program import errors_as_one_line


def questions(limit: int | None) -> list[tuple[Path, str, str]]:
    """Recording, question and answer."""
    held_out = [clip for clip in load_sample_corpus() if clip.split != "train"]
    asked = [
        (SAMPLE_FOLDER / clip.audio, "Is this speech, music or another sound?", clip.sound_type) for clip in held_out
    ]
    said = [clip for clip in held_out if clip.language == "en" and clip.text]
    asked += [(SAMPLE_FOLDER / clip.audio, "Transcribe the recording.", str(clip.text)) for clip in said]
    return asked[:: -(-len(asked) // limit)] if limit else asked


@torch.no_grad()
def nats(model: AudioLLM, asked: list[tuple[Path, str, str]]) -> float:
    """Mean negative log-likelihood of a token of the right answers, in nats."""
    total, tokens = 0.0, 0
    for path, question, answer in asked:
        turns = [
            Message("user", [AudioPart(path=str(path)), TextPart(question)]),
            Message("assistant", [TextPart(answer)]),
        ]
        [encoded] = model.processor.encode_conversations([Conversation(str(path), turns)])
        labels = torch.tensor(encoded.labels)[1:]
        scores = model.model(torch.tensor([encoded.token_ids])).logits[0, :-1].float().log_softmax(dim=-1)
        is_answer = labels >= 0
        total -= float(scores[is_answer].gather(1, labels[is_answer][:, None]).sum())
        tokens += int(is_answer.sum())
    return total / tokens


def answers(model: AudioLLM, asked: list[tuple[Path, str, str]]) -> list[str]:
    return [model.ask(str(path), question, max_new_tokens=48) for path, question, _ in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="Audio-LLM folders; the others are compared with the first")
    parser.add_argument("--limit", type=int, help="ask about so many at most")
    arguments = parser.parse_args()

    asked = questions(arguments.limit)
    print(f"{len(asked)} questions")
    first: list[str] = []
    for name in arguments.models:
        model = AudioLLM.from_pretrained(name, dtype="auto")
        size = sum(path.stat().st_size for path in Path(model_or_mini(name)).glob("model*.safetensors")) / 1e6
        found = answers(model, asked)
        first = first or found
        differ = sum(one != other for one, other in zip(found, first, strict=True))
        print(f"{name}: {size:.1f} MB, {differ} answers differ, {nats(model, asked):.4f} nats per token")


if __name__ == "__main__":
    with errors_as_one_line(Path(__file__).stem):
        main()
