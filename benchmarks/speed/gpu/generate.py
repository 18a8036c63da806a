"""Generating with an LLM of Qwen2.5-0.5B's shape: tokens per second of ours and of transformers, one row and eight."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from audiollm.benchmarks.speed.gpu.measurements import Figures, Measurements, run_section
from audiollm.benchmarks.speed.llm_shapes import QWEN_05B, SMOKE_SHAPE, qwen_config
from audiollm.benchmarks.speed.timing import in_turns
from audiollm.mini import model_or_mini
from audiollm.modeling import AudioLLM

_ROWS = (1, 8)
_PROMPT_SECONDS, _NUM_TOKENS, _SPOKEN_SECONDS, _ROUNDS = 8.0, 64, 2.0, 2


def measure(measurements: Measurements) -> None:
    """Text by both, greedily, and sound by ours, drawn."""
    settings = measurements.settings
    shape, num_tokens, spoken_seconds, rounds = (
        (SMOKE_SHAPE, 4, 0.2, 1) if settings.smoke else (QWEN_05B, _NUM_TOKENS, _SPOKEN_SECONDS, _ROUNDS)
    )
    names = {rows: f"{rows} row{'s' if rows > 1 else ''}" for rows in _ROWS}
    measurements.announce(
        f"{who}, {names[rows]}" for rows in _ROWS for who in ("text, transformers", "text, ours", "sound, ours")
    )
    device = measurements.device
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    processor = AudioLLM.from_pretrained(model_or_mini("mini")).processor
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            qwen_config(shape, least_rows=len(processor.text_tokenizer)), dtype=dtype
        )
    audio_llm = AudioLLM(model.to(device).eval(), processor)
    for rows in _ROWS:
        prompts = _prompts(audio_llm, rows)
        text: dict[str, Any] = {
            "max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False,
        }  # fmt: skip
        sound: dict[str, Any] = {
            "modalities": {"audio"}, "min_seconds": spoken_seconds, "max_seconds": spoken_seconds, "seed": 0,
            "return_waveforms": False,
        }  # fmt: skip
        ours = partial(audio_llm.generate, **prompts)
        theirs = partial(model.generate, **{name: value.to(device) for name, value in prompts.items()})
        for name, run, count in (
            ("text, transformers", partial(theirs, **text), num_tokens),
            ("text, ours", partial(ours, **text), num_tokens),
            ("sound, ours", partial(ours, **sound), round(spoken_seconds * processor.audio_tokenizer.frame_rate)),
        ):
            measurements.make(f"{name}, {names[rows]}", partial(_rate, run, count, rows, rounds, device))


def _prompts(audio_llm: AudioLLM, rows: int) -> dict[str, Any]:
    """Questions about a recording, whose codes are drawn."""
    generator = torch.Generator().manual_seed(0)
    processor = audio_llm.processor
    num_codes = round(_PROMPT_SECONDS * processor.audio_tokenizer.frame_rate)
    conversations = [
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "audio",
                        "codes": torch.randint(
                            processor.vocabulary.codebook_size, (num_codes,), generator=generator
                        ).tolist(),
                    },
                    {"type": "text", "text": "What was said?"},
                ],
            }
        ]
        for _ in range(rows)
    ]
    inputs: Any = processor.apply_chat_template(conversations, add_generation_prompt=True)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def _rate(run: Callable[[], Any], tokens_per_row: int, rows: int, rounds: int, device: torch.device) -> Figures:
    with torch.inference_mode():
        seconds = min(in_turns({"run": run}, rounds, device)["run"])
    rate = tokens_per_row * rows / seconds
    told = f"{rate:,.0f} tokens/s, {1000 * seconds / tokens_per_row:.1f} ms a step"
    return {"told": told, "tokens_per_second": rate, "rows": rows, "tokens_per_row": tokens_per_row, "seconds": seconds}


if __name__ == "__main__":
    run_section(measure)
