"""LM of `mini` before its training: a small text tokenizer of the training texts, and random weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from audiollm.data.files.json_lines import read_json_lines
from audiollm.loading import SPEAKS_IN_TURNS, SPOKEN_CHARACTERS
from audiollm.modeling import AudioLLM
from audiollm.prompts import INSTRUCTIONS
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training.audio_llm.small_llm import SmallLLMConfig, small_llm, small_text_tokenizer

LEARNED_FROM = 20
"""Times that a letter is spoken in the training records, from which on it counts as learned."""

# 16 MB in float16. A third of it are the rows of 8,192 codes.
MINI_LM = SmallLLMConfig(
    vocabulary_size=2000,
    hidden_size=256,
    num_layers=6,
    num_heads=4,
    num_key_value_heads=2,
    feed_forward_size=704,
    context_length=2048,
)


def make_lm(
    audio_tokenizer: Path, conversations: Path, output_dir: Path, config: SmallLLMConfig, seed: int
) -> AudioLLM:
    """Makes the Audio-LLM that training/sft.py starts from.

    Args:
        audio_tokenizer: folder of the audio tokenizer; the rows of its codes are projected from the codebook, so that
            codes that sound alike start alike.
        conversations: training records, whose texts the text tokenizer is made of.
        output_dir: folder to write.
        config: sizes.
        seed: of the weights.
    """
    text_tokenizer = small_text_tokenizer(texts_of(conversations), config)
    tokenizer = UniAudioTokenizer.from_pretrained(audio_tokenizer).eval()
    model = AudioLLM.create(
        small_llm(text_tokenizer, config, seed), text_tokenizer, tokenizer, init="codebook", seed=seed
    )
    setattr(model.model.generation_config, SPEAKS_IN_TURNS, True)
    if characters := spoken_characters_of(conversations):
        setattr(model.model.generation_config, SPOKEN_CHARACTERS, characters)
    model.save_pretrained(output_dir)
    return model


def spoken_characters_of(conversations: Path) -> str:
    """The letters and digits, in small and in order, of what is spoken in the records often enough to be learned."""
    counts: Counter[str] = Counter()
    for record in read_json_lines(conversations):
        answer = record["messages"][-1]["content"]
        if isinstance(answer, list) and any(part["type"] == "audio" for part in answer):
            said = "".join(part["text"] for part in answer if part["type"] == "text")
            counts.update(character for character in said.casefold() if character.isalnum())
    return "".join(sorted(character for character, count in counts.items() if count >= LEARNED_FROM))


def texts_of(conversations: Path) -> Iterator[str]:
    """The texts that the LM reads and writes: those of the records, and every wording of a request."""
    for record in read_json_lines(conversations):
        for message in record["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            yield from (part["text"] for part in parts if part["type"] == "text")
    for wordings in INSTRUCTIONS.values():
        yield from wordings
