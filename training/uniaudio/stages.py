"""The four stages of the paper (arXiv 2602.04683): what each trains, and that they come in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from audiollm.uniaudio.modeling import UniAudioLM

StageName = Literal["understanding_warmup", "generation_warmup", "pretraining", "midtraining"]
PartName = Literal["audio_embeddings", "understanding_expert", "generation_expert", "local_decoder", "text_llm"]
ORDER: tuple[StageName, ...] = get_args(StageName)
PARTS: tuple[PartName, ...] = get_args(PartName)
TEXT_PART: PartName = "text_llm"


@dataclass(frozen=True)
class Stage:
    """One of the stages."""

    parts: tuple[PartName, ...]
    """What is trained, unless a run says otherwise. The text LLM's own layers are not, but by adapters (``lora``)."""
    adapts_text: bool
    """Whether the layers of the text LLM may be trained, as a whole or by adapters."""


_ALL_OF_AUDIO: tuple[PartName, ...] = ("audio_embeddings", "understanding_expert", "generation_expert", "local_decoder")
STAGES: Mapping[StageName, Stage] = {
    # The published settings start the second stage from the first one's embeddings and understanding expert alone.
    "understanding_warmup": Stage(("audio_embeddings", "understanding_expert"), adapts_text=False),
    "generation_warmup": Stage(("generation_expert", "local_decoder"), adapts_text=False),
    "pretraining": Stage(_ALL_OF_AUDIO, adapts_text=True),
    "midtraining": Stage(_ALL_OF_AUDIO, adapts_text=True),
}


def check_order(stage: StageName, done: Sequence[str], model: str) -> None:
    """Refuses a stage whose turn it is not; one may be repeated, on more data, before the next begins.

    Args:
        stage: the one asked for.
        done: those that the model has been through.
        model: what messages call it.

    Raises:
        ValueError: saying which one to run.
    """
    last = done[-1] if done else None
    due = ORDER[0] if last is None else ORDER[min(ORDER.index(_known(last, model)) + 1, len(ORDER) - 1)]
    if stage in (due, last):
        return
    been = f"has been through {', '.join(done)}" if done else "has been through no stage yet"
    raise ValueError(
        f"stage={stage}: {model} {been}, and {due} is what comes next: run audiollm train-uniaudio --config "
        f"uniaudio_{due} --model {model} first, or --stage {due} with settings of your own"
    )


def _known(stage: str, model: str) -> StageName:
    for one in ORDER:
        if one == stage:
            return one
    raise ValueError(f"{model}: trained_stages in its config.json names {stage!r}, which is none of {', '.join(ORDER)}")


def with_stage(done: Sequence[str], stage: StageName) -> list[str]:
    """The stages that a model has been through after this one."""
    return [*done] if done and done[-1] == stage else [*done, stage]


def modules_of(model: UniAudioLM, part: PartName) -> list[nn.Module | nn.Parameter]:
    """The modules and weights that a part is made of."""
    if part == "local_decoder":
        return [model.projection, model.local_decoder, model.audio_head]
    found: nn.Module = getattr(model, part)
    return [found]


def train_only(model: UniAudioLM, parts: Sequence[PartName]) -> None:
    """Makes these parts trainable, and nothing else."""
    model.requires_grad_(False)
    for part in parts:
        for one in modules_of(model, part):
            one.requires_grad_(True)
