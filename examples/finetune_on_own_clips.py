"""Fine-tunes mini on a few recordings of one's own until it understands them.

    python examples/finetune_on_own_clips.py clips.jsonl --output runs/my-words

A line of ``clips.jsonl`` is ``{"audio": "clips/lights-on.wav", "text": "lights on"}``. Without a file, eight recordings
that come with the package and that mini has never heard are taken. What it answers before and after is printed; the
result is an Audio-LLM folder: ``audiollm transcribe clip.wav --model runs/my-words/model``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from audiollm import AudioLLM
from audiollm.benchmarks.metrics import load_metric
from audiollm.data.corpora import load_sample_corpus
from audiollm.data.files.json_lines import read_json_lines, write_json_lines
from audiollm.program import errors_as_one_line
from audiollm.training.audio_llm import SFTConfig
from audiollm.training.sft import train

QUESTION = "Transcribe the recording."


def transcripts(model: AudioLLM, recordings: list[str]) -> list[str]:
    """What the model hears in each recording, in one batch."""
    question = {"type": "text", "text": QUESTION}
    chats = [[{"role": "user", "content": [{"type": "audio", "path": path}, question]}] for path in recordings]
    return model.chat(chats, max_new_tokens=48).texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="?", type=Path, help="JSON lines with audio and text")
    parser.add_argument("--output", type=Path, default=Path("runs/examples/fine-tuned"), help="folder of the run")
    parser.add_argument("--model", default="mini", help="Audio-LLM folder or Hub id")
    parser.add_argument("--steps", type=int, default=25, help="updates")
    arguments = parser.parse_args()

    if arguments.clips is None:
        clips = [clip for clip in load_sample_corpus() if clip.language == "en" and clip.split != "train"][:8]
        pairs = [(str(clip.audio), str(clip.text)) for clip in clips]
    else:
        folder = arguments.clips.parent
        pairs = [(str(folder / line["audio"]), line["text"]) for line in read_json_lines(arguments.clips)]
    recordings, texts = [audio for audio, _ in pairs], [text for _, text in pairs]

    # A record is a conversation: what is asked of a recording, and what the answer should be.
    records = [
        {
            "id": Path(audio).stem,
            "task": "transcribe",
            "messages": [
                {"role": "user", "content": [{"type": "audio", "path": audio}, {"type": "text", "text": QUESTION}]},
                {"role": "assistant", "content": text},
            ],
        }
        for audio, text in pairs
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    train_data = arguments.output.with_suffix(".jsonl")
    write_json_lines(train_data, records)

    before = transcripts(AudioLLM.from_pretrained(arguments.model), recordings)
    train(
        SFTConfig(
            model=arguments.model,
            train_data=str(train_data),
            output_dir=str(arguments.output),
            max_steps=arguments.steps,
            global_batch_size=8,
            learning_rate=1e-3,
            log_every=arguments.steps,
        )
    )
    after = transcripts(AudioLLM.from_pretrained(arguments.output / "model"), recordings)

    wer = load_metric("wer")
    for text, old, new in zip(texts, before, after, strict=True):
        print(f"said:   {text}\nbefore: {old}\nafter:  {new}\n")
    for name, heard in (("before", before), ("after", after)):
        print(f"word error rate {name}: {100 * wer.compute(predictions=heard, references=texts)['wer']:.0f} %")
    print(f"ask it: audiollm transcribe {recordings[0]} --model {arguments.output / 'model'}")


if __name__ == "__main__":
    with errors_as_one_line(Path(__file__).stem):
        main()
