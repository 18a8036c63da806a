"""The stages of a ReasoningCodec's training (arXiv 2602.04683), and that they come in their order."""

from __future__ import annotations

from typing import Literal, get_args

StageName = Literal["supervised", "grpo", "reconstruction"]
ORDER: tuple[StageName, ...] = get_args(StageName)
BEFORE: dict[StageName, tuple[str, ...]] = {
    "supervised": ("", "supervised"),
    "grpo": ("supervised", "grpo"),
    "reconstruction": ("supervised", "grpo", "reconstruction"),
}
"""What a codec's last stage may be, for each stage; "": none. Reasoning codes must not change once reconstruction has
been trained with them."""

TRAIN = "accelerate launch training/train_reasoning_codec.py"
FIRST_STAGE = f"{TRAIN} --stage supervised --llm LLM --encoders … --train_data … --output_dir SUPERVISED"


def check_order(stage: StageName, last: str, codec: str) -> None:
    """Refuses a stage whose turn it is not; each may be repeated, and grpo left out.

    Args:
        stage: the one asked for.
        last: the codec's last one, ``trained_stage`` of its config.
        codec: what messages call it.

    Raises:
        ValueError: saying what to run.
    """
    if last not in ("", *ORDER):
        raise ValueError(f"{codec}: its trained_stage={last!r} is none of {', '.join(ORDER)}")
    if last in BEFORE[stage]:
        return
    if not last:
        raise ValueError(
            f"stage={stage}: {codec} has been through no stage yet. Run the first one:\n  {FIRST_STAGE}\n"
            f"then --stage {stage} --codec SUPERVISED"
        )
    if last == "reconstruction":
        raise ValueError(
            f"stage={stage}: {codec} has been through reconstruction, which learned from its reasoning codes; these "
            f"must stay as they are. Run --stage {stage} on what the stage before left, then --stage reconstruction"
        )
    raise ValueError(
        f"stage={stage}: {codec} has been through {last} already; what comes next is --stage grpo or --stage "
        f"reconstruction with --codec {codec}"
    )
